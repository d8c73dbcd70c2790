"""The explorer's page in Chromium: clicks, and waiting until answers are drawn.

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

# The flags about the network keep Chromium from calling its maker's servers at every start.
_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
_TIMEOUT = 120_000  # milliseconds, for a busy machine


def find_chromium() -> str | None:
    """Path of the installed Chromium or Chrome; None if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


@contextmanager
def open_chromium() -> Iterator[Browser]:
    """A browser without a window."""
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
    """A page of the explorer."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.errors: list[str] = []  # in the browser's console
        page.set_default_timeout(_TIMEOUT)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on(
            "console", lambda line: self.errors.append(line.text) if line.type == "error" else None
        )
        page.goto(url)
        # The examples are there when the canvas's scripts have run.
        page.wait_for_selector("#canvas .ts-welcome button")

    @property
    def scene(self) -> dict[str, Any]:
        """What the canvas shows, as the server sent it."""
        scene: dict[str, Any] = self.page.evaluate(
            "document.querySelector('#canvas .ts-stage').scene"
        )
        return scene

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
