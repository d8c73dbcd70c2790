"""The static page in Debian's Chromium, as a person uses it; masks are the library's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from demos.web.static_site import page_weight, serve_site
from textsam.inference.model import TextSAM
from textsam.values.rle import decode_rle, rle_from_json

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

pytestmark = pytest.mark.slow  # the first time `tiny` is exported

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


class StaticPage:
    """The page with what the tests do and look at; places are shares of the photo's sides."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.context.on("request", self._asked)

    def _asked(self, request: Request) -> None:
        self.requests.append(request.url)

    def load(self, query: str = "") -> None:
        """Open the page and wait for all of the model."""
        self.page.goto(self.url + query)
        self.page.wait_for_selector("#stage[data-text=ready]")

    def open_example(self, name: str) -> None:
        """Open an example, also where another photo is open."""
        if self.page.is_visible(f"[data-example='{name}.jpg']"):
            self.page.click(f"[data-example='{name}.jpg']")
        else:
            self.page.set_input_files("#file", str(EXAMPLES / f"{name}.jpg"))
        self.page.wait_for_selector("#stage[data-encode]")
        self.wait()

    def wait(self) -> None:
        """Until nothing is at work."""
        self.page.wait_for_selector("#stage[data-state=ready]")

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Screen coordinates of a place."""
        box = self.page.locator("#canvas").bounding_box()
        assert box is not None
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def click(self, x: float, y: float, *, button: Any = "left") -> None:
        self.page.mouse.click(*self.place(x, y), button=button)
        self.wait()

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.page.mouse.move(*self.place(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.place(*end), steps=4)
        self.page.mouse.up()
        self.wait()

    def find(self, text: str) -> None:
        self.page.fill("#phrase", text)
        self.page.click("#find")
        self.wait()

    def press(self, selector: str) -> None:
        self.page.click(selector)
        self.wait()

    def clear(self) -> None:
        if self.page.is_enabled("#clear"):
            self.press("#clear")

    @property
    def count(self) -> int:
        return self.page.locator("#list li").count()

    @property
    def status(self) -> str:
        return self.page.inner_text("#status")

    def saved(self, button: str) -> bytes:
        """The file that a button saves."""
        with self.page.expect_download() as download:
            self.page.click(button)
        return Path(download.value.path()).read_bytes()

    def coco(self) -> dict[str, Any]:
        """The saved COCO JSON."""
        content: dict[str, Any] = json.loads(self.saved("#save-json"))
        return content

    def masks(self) -> np.ndarray[Any, Any]:
        """(K, H, W) bool masks of the saved COCO JSON."""
        rows = self.coco()["annotations"]
        return np.stack([decode_rle(rle_from_json(row["segmentation"])) for row in rows])


def pages(browser: Browser, site: Path, *, isolated: bool) -> Iterator[StaticPage]:
    with serve_site(site, isolated=isolated) as url:
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        yield StaticPage(context.new_page(), url)
        context.close()


@pytest.fixture(scope="module")
def loaded(chromium: Browser, site: Path) -> Iterator[StaticPage]:
    """The page with the bus; served with the headers that threads need."""
    for page in pages(chromium, site, isolated=True):
        page.load()
        page.open_example("bus")
        yield page


@pytest.fixture
def page(loaded: StaticPage) -> StaticPage:
    """The same with nothing on the photo."""
    loaded.clear()
    return loaded


def iou(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def pixels(place: tuple[float, float]) -> tuple[float, float]:
    """A place in pixels of the bus, 640 x 427."""
    return place[0] * 640, place[1] * 427


BUS, SIGN, ROOF = (0.5, 0.55), (0.27, 0.47), (0.6, 0.36)


def test_threads_run_where_the_headers_are_sent(page: StaticPage) -> None:
    assert page.page.evaluate("crossOriginIsolated") is True
    assert "tiny" in page.page.inner_text("#engine")


def test_masks_follow_the_pointer(page: StaticPage) -> None:
    seen = page.page.get_attribute("#stage", "data-preview")
    for step in range(4):
        page.page.mouse.move(*page.place(0.4 + 0.02 * step, 0.5))
        page.page.wait_for_selector(f"#stage[data-preview]:not([data-preview='{seen}'])")
        seen = page.page.get_attribute("#stage", "data-preview")
    assert page.count == 0  # nothing is there before the click
    page.page.wait_for_timeout(200)
    times = page.page.evaluate(
        "performance.getEntriesByName('prompt to mask').map((each) => each.duration)"
    )
    assert times and min(times) > 0


def test_clicks_give_the_masks_of_the_library(page: StaticPage, tiny: TextSAM) -> None:
    page.click(*SIGN)
    page.page.click("#readings button >> nth=1")
    page.page.wait_for_selector("#readings button[aria-checked=true] >> text=2")
    with tiny.open(EXAMPLES / "bus.jpg") as view:
        readings = view.segment(points=[pixels(SIGN)])
        assert iou(page.masks()[0], readings.masks[1]) >= 0.98
        page.page.click("#readings button >> nth=0")
        page.page.wait_for_selector("#readings button[aria-checked=true] >> text=1")
        assert iou(page.masks()[0], readings.masks[0]) >= 0.98
        page.click(*ROOF)
        assert iou(page.masks()[0], view.click(*pixels(ROOF)).masks[0]) >= 0.98
        page.click(*BUS, button="right")
        second = view.click(*pixels(BUS), foreground=False)
        assert page.count == 1
        assert iou(page.masks()[0], second.masks[0]) >= 0.98


def test_a_box_gives_the_mask_of_the_library(page: StaticPage, tiny: TextSAM) -> None:
    corners = (0.1, 0.3), (0.7, 0.75)
    page.page.keyboard.press("b")
    page.drag(*corners)
    page.page.keyboard.press("p")
    expected = tiny.segment(EXAMPLES / "bus.jpg", box=[*pixels(corners[0]), *pixels(corners[1])])
    assert iou(page.masks()[0], expected.masks[0]) >= 0.98


def test_phrases_give_the_masks_of_the_library(page: StaticPage, tiny: TextSAM) -> None:
    phrases = ["wheel", "yellow bus", "unicorn"]
    page.find("wheel, a yellow  bus, unicorn")
    expected = tiny.segment(EXAMPLES / "bus.jpg", text=["wheel", "yellow bus", "unicorn"])
    assert len(expected) >= 2
    coco = page.coco()
    names = {row["id"]: row["name"] for row in coco["categories"]}
    found = [names[row["category_id"]] for row in coco["annotations"]]
    assert sorted(found) == sorted(
        str(label).replace("yellow", "a yellow") for label in expected.labels
    )
    for mask, each, row in zip(page.masks(), expected, coco["annotations"], strict=True):
        assert iou(mask, each.mask) >= 0.98
        assert row["score"] == pytest.approx(each.score, abs=0.01)
    assert "unicorn" not in found
    assert page.page.locator("#answers li.absent").inner_text().startswith("unicorn")
    assert len(phrases) == page.page.locator("#answers li").count()


def test_a_click_corrects_an_instance_of_a_phrase(page: StaticPage, tiny: TextSAM) -> None:
    page.find("bus")
    with tiny.open(EXAMPLES / "bus.jpg") as view:
        first = view.segment(text="bus")
        assert iou(page.masks()[0], first.masks[0]) >= 0.98
        page.click(*BUS)
        assert page.count == len(first)
        assert iou(page.masks()[0], view.click(*pixels(BUS)).masks[0]) >= 0.98


def test_an_absent_phrase_gives_nothing(page: StaticPage) -> None:
    page.find("giraffe")
    assert page.count == 0
    assert "not found" in page.status
    assert page.page.is_disabled("#save-json")


def test_undo_and_redo(page: StaticPage) -> None:
    page.click(*BUS)
    page.find("wheel")
    both = page.count
    assert both > 1
    page.press("#undo")
    assert page.count == 1
    page.page.keyboard.press("Control+z")
    page.page.wait_for_selector("#list:empty", state="attached")
    page.press("#redo")
    page.press("#redo")
    assert page.count == both


def test_another_object_is_kept_apart(page: StaticPage) -> None:
    page.click(*BUS)
    page.page.click("#fresh")
    page.page.wait_for_selector("#fresh:disabled")
    page.click(0.13, 0.2)
    assert page.count == 2
    page.page.click("#list li >> nth=0 >> [aria-label^=Delete]")
    page.page.wait_for_selector("#list li >> nth=1", state="detached")
    assert page.count == 1


def test_everything(page: StaticPage) -> None:
    page.press("#everything")
    assert page.count >= 5
    masks = page.masks()
    bus = masks[:, 230, 320]  # something is where the bus is
    assert bus.any()


def test_the_picture_shows_the_masks(page: StaticPage) -> None:
    page.find("wheel")
    masks = page.masks()
    data = page.saved("#save-png")
    import io

    picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    photo = np.asarray(Image.open(EXAMPLES / "bus.jpg").convert("RGB")).astype(int)
    assert picture.shape == photo.shape
    changed = np.abs(picture - photo).sum(2) > 24
    inside = masks.any(0)
    assert changed[inside].mean() > 0.9
    assert changed[~inside].mean() < 0.05


def test_keys_alone_are_enough(page: StaticPage) -> None:
    page.page.focus("#stage")
    for key in ("ArrowRight", "ArrowDown", "Enter"):
        page.page.keyboard.press(key)
    page.page.wait_for_selector("#list li")
    page.wait()
    assert page.count == 1
    page.page.keyboard.press("Escape")
    page.page.wait_for_selector("#fresh:disabled")


def test_nothing_leaves_the_machine(page: StaticPage) -> None:
    """Runs after all others in this file that use the page: no request but to its own server."""
    others = [url for url in page.requests if not url.startswith((page.url, "blob:", "data:"))]
    assert not others
    assert not page.errors


def test_the_page_is_light(site: Path) -> None:
    assert page_weight(site) <= 70e6
    assert page_weight(site, gpu=True) <= 70e6


def test_it_works_offline_and_without_the_headers(chromium: Browser, site: Path) -> None:
    """A plain host: one thread at first; then the service worker adds the headers, and files."""
    for page in pages(chromium, site, isolated=False):
        page.load("?gpu=0")
        assert page.page.evaluate("crossOriginIsolated") is False
        assert "1 thread" in page.page.inner_text("#engine")
        page.open_example("bus")
        page.find("wheel")
        assert page.count >= 1
        page.page.wait_for_selector("html[data-offline=ready]")
        page.page.context.set_offline(True)
        page.load("?gpu=0")
        page.open_example("bus")
        page.click(*BUS)
        assert page.count == 1
        assert page.page.evaluate("crossOriginIsolated") is True
        assert not page.errors
