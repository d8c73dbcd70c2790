"""The explorer's page in Chromium: its parts by name, and waiting until answers are drawn.

Playwright drives the installed Chromium and downloads none. The tests use this too.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from textsam.errors import MissingExtraError, require

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["ExplorerPage", "find_chromium", "open_chromium"]

# The flags about the network keep Chromium from calling its maker's servers at every start.
_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
_TIMEOUT = 120_000  # milliseconds, for a busy machine


def find_chromium() -> str | None:
    """Path of the installed Chromium or Chrome; None if there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    return None


@contextmanager
def open_chromium() -> Iterator[Browser]:
    """A browser without a window.

    Raises:
        MissingExtraError: Playwright or a browser is not installed.
    """
    playwright: Any = require("playwright.sync_api", "demo")
    program = find_chromium()
    if program is None:
        raise MissingExtraError("This needs Chromium. Type: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class ExplorerPage:
    """A page of the explorer.

    Attributes:
        page: Playwright's page.
        errors: The errors in the browser's console.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.errors: list[str] = []
        page.set_default_timeout(_TIMEOUT)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on(
            "console",
            lambda line: self.errors.append(line.text) if line.type == "error" else None,
        )
        page.goto(url)
        page.wait_for_selector("#canvas .ts-welcome button")

    @property
    def scene(self) -> dict[str, Any]:
        """What the canvas shows, as the server sent it."""
        scene: dict[str, Any] = self.page.evaluate(
            "document.querySelector('#canvas .ts-stage').scene"
        )
        return scene

    @property
    def status(self) -> str:
        """The message below the photo."""
        return self.page.inner_text("#canvas .ts-status")

    @property
    def has_error(self) -> bool:
        """Whether the message is about an error."""
        return self.page.locator("#canvas .ts-status.ts-error").count() == 1

    @property
    def names(self) -> list[str]:
        """Names in the list beside the photo."""
        rows = self.page.locator("#objects .ts-name")
        return [rows.nth(index).input_value() for index in range(rows.count())]

    @property
    def bar_rows(self) -> int:
        """Number of rows of the buttons above the photo."""
        buttons = self.page.locator("#canvas .ts-bar button:visible").all()
        boxes = [box for button in buttons if (box := button.bounding_box())]
        return len({round(box["y"] + box["height"] / 2) for box in boxes})

    def after(self, act: Callable[[], object]) -> None:
        """Do something and wait until the browser has drawn the server's answer."""
        before = self.scene["serial"]
        act()
        self.page.wait_for_function(
            """(before) => {
              const stage = document.querySelector("#canvas .ts-stage");
              const drawn = Number(stage.querySelector("canvas").dataset.drawn);
              const at = stage.scene.serial;
              return at > before && (drawn === at || !stage.scene.photo)
                && !stage.hasAttribute("aria-busy");
            }""",
            arg=before,
        )

    def open_example(self, name: str) -> None:
        """Open an example photo."""
        if self.scene["photo"] and not self.page.is_visible("#canvas .ts-welcome"):
            self.page.click("#canvas [data-open=welcome]")
        self.after(lambda: self.page.click(f"#canvas [data-example={name}]"))

    def upload(self, path: str) -> None:
        """Open a file."""
        self.after(lambda: self.page.set_input_files("#canvas input[type=file]", path))

    def find(self, text: str, exclude: str = "") -> None:
        """Type phrases and press Find."""
        self.page.fill("#text input, #text textarea", text)
        self.page.fill("#exclude input, #exclude textarea", exclude)
        self.press("#find")

    def press(self, selector: str) -> None:
        """Press a button and wait for the server's answer."""
        self.after(lambda: self.page.click(selector))

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Screen coordinates of a place on the photo, given as shares of its sides."""
        left, top, width, height = self.page.evaluate(
            """() => {
              const stage = document.querySelector("#canvas .ts-stage");
              const frame = stage.getBoundingClientRect();
              const { scale, x, y } = stage.place;
              const { width, height } = stage.scene.photo;
              return [frame.left + x, frame.top + y, width * scale, height * scale];
            }"""
        )
        return left + x * width, top + y * height

    def click(self, x: float, y: float, *, button: Any = "left") -> None:
        """Click a place on the photo, given as shares of its sides."""
        self.after(lambda: self.page.mouse.click(*self.place(x, y), button=button))

    def drag(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Drag from one place of the photo to another."""

        def move() -> None:
            self.page.mouse.move(*self.place(x0, y0))
            self.page.mouse.down()
            self.page.mouse.move(*self.place((x0 + x1) / 2, (y0 + y1) / 2), steps=3)
            self.page.mouse.move(*self.place(x1, y1), steps=3)
            self.page.mouse.up()

        self.after(move)

    def tinted(self) -> int:
        """Number of screen pixels covered by masks, from drawing with and without them."""
        count: int = self.page.evaluate(
            """async () => {
              const stage = document.querySelector("#canvas .ts-stage");
              const sheet = stage.querySelector("canvas");
              const look = (opacity) => new Promise((done) => {
                document.dispatchEvent(new CustomEvent("textsam-look",
                  { detail: { opacity, outline: opacity > 0, labels: false } }));
                requestAnimationFrame(() => requestAnimationFrame(() => done(
                  sheet.getContext("2d").getImageData(0, 0, sheet.width, sheet.height).data)));
              });
              const bare = await look(0);
              const full = await look(0.45);
              document.dispatchEvent(new CustomEvent("textsam-look",
                { detail: { opacity: 0.45, outline: true, labels: true } }));
              let changed = 0;
              for (let p = 0; p < bare.length; p += 4) {
                if (Math.abs(bare[p] - full[p]) + Math.abs(bare[p + 1] - full[p + 1])
                  + Math.abs(bare[p + 2] - full[p + 2]) > 12) changed += 1;
              }
              return changed;
            }"""
        )
        return count
