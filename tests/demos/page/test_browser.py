"""The real app with `tiny` in Debian's Chromium, as a person uses it."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from demos.benchmarks.browser import ExplorerPage, find_chromium, open_chromium
from textsam.results.segmentation import Segmentation

pytest.importorskip("playwright", reason="the browser's tests need playwright")
pytestmark = pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed")

Open = Callable[..., "FullPage"]


class FullPage(ExplorerPage):
    """A page with everything that the tests look at and do."""

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

    def upload(self, path: str) -> None:
        """Open a file."""
        self.after(lambda: self.page.set_input_files("#canvas input[type=file]", path))

    def find(self, text: str, exclude: str = "") -> None:
        """Type phrases and press Find."""
        self.page.fill("#text input, #text textarea", text)
        self.page.fill("#exclude input, #exclude textarea", exclude)
        self.press("#find")

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_chromium() as found:
        yield found


@pytest.fixture
def open_page(browser: Any, server: tuple[str, Any]) -> Iterator[Open]:
    """Opens a page; at the end, no page may have had an error in its console."""
    pages = []

    def make(**options: Any) -> FullPage:
        options.setdefault("viewport", {"width": 1280, "height": 900})
        context = browser.new_context(accept_downloads=True, **options)
        pages.append(FullPage(context.new_page(), server[0]))
        return pages[-1]

    yield make
    for page in pages:
        errors = page.errors
        page.page.context.close()
        assert not errors, errors


@pytest.fixture(scope="module")
def shared_page(browser: Any, server: tuple[str, Any]) -> Iterator[FullPage]:
    """Loading the page takes seconds, and opening a photo begins anew."""
    context = browser.new_context(accept_downloads=True, viewport={"width": 1280, "height": 900})
    yield FullPage(context.new_page(), server[0])
    context.close()


@pytest.fixture
def page(shared_page: FullPage) -> Iterator[FullPage]:
    """A page that had other photos before; no test may leave an error in its console."""
    shared_page.page.click("button[role=tab]:has-text('Explore')")
    yield shared_page
    errors = list(shared_page.errors)
    shared_page.errors.clear()
    assert not errors, errors


def download(page: FullPage, format: str, folder: Path) -> Path:
    """Choose a format, press Download, save the file."""
    page.page.click("#format input")
    page.page.click(f"#format [role=option]:has-text('{format}')")
    with page.page.expect_download() as waiting:
        page.page.click("#export")
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def test_upload_text_exclusion_and_export(page: FullPage, repo: Path, tmp_path: Path) -> None:
    page.upload(str(repo / "examples" / "bus.jpg"))
    assert page.scene["photo"]["width"] == 640 and "bus at 640 x 427" in page.status
    page.find("bus, giraffe")
    assert page.names == ["bus"] and "no giraffe" in page.status
    whole = page.scene["objects"][0]["share"]
    chips = page.page.locator("#objects .ts-presence li")
    assert chips.nth(0).inner_text().startswith("bus: 1")
    assert chips.nth(1).inner_text().startswith("giraffe: none")
    assert page.tinted() > 0.1 * whole * page.page.evaluate(
        "document.querySelector('#canvas canvas').width ** 2"
    )
    page.find("bus, -wheel")
    assert page.scene["objects"][0]["share"] < whole
    page.find("bus", exclude="wheel")
    less = page.scene["objects"][0]["share"]
    assert less < whole

    coco = json.loads(download(page, "COCO", tmp_path).read_text("utf-8"))
    assert [category["name"] for category in coco["categories"]] == ["bus"]
    assert coco["annotations"][0]["area"] == pytest.approx(less * 640 * 427, abs=1)
    saved = Segmentation.load(download(page, "RLE", tmp_path))
    assert saved.labels == ["bus"] and saved.size == (427, 640)
    with Image.open(download(page, "Overlay", tmp_path)) as picture:
        assert picture.size == (640, 427) and picture.format == "PNG"
    with zipfile.ZipFile(download(page, "Cut-outs", tmp_path)) as archive:
        (name,) = archive.namelist()
        alpha = np.asarray(Image.open(io.BytesIO(archive.read(name))))[..., 3]
        assert np.count_nonzero(alpha) == saved.areas[0]
    with zipfile.ZipFile(download(page, "YOLO", tmp_path)) as archive:
        assert archive.read("classes.txt") == b"bus\n"


def test_click_correct_undo_redo_and_box(page: FullPage) -> None:
    page.open_example("dog")
    page.click(0.47, 0.45)
    assert page.names == ["object 1"] and page.scene["objects"][0]["readings"] == 3
    first = page.scene["objects"][0]
    page.press("#canvas [data-reading='1']")
    assert page.scene["objects"][0]["counts"] != first["counts"]
    page.page.focus("#canvas .ts-stage")
    page.after(lambda: page.page.keyboard.press("1"))
    assert page.scene["objects"][0]["counts"] == first["counts"]
    page.click(0.4, 0.7)
    page.click(0.9, 0.1, button="right")
    assert [point[2] for point in page.scene["objects"][0]["points"]] == [1, 1, 0]
    page.press("#canvas [data-act=undo]")
    page.after(lambda: page.page.keyboard.press("z"))
    assert page.scene["objects"] == [first]
    page.press("#canvas [data-act=redo]")
    assert len(page.scene["objects"][0]["points"]) == 2
    page.drag(0.2, 0.1, 0.8, 0.95)
    assert page.names == ["object 1", "object 2"]
    box = page.scene["objects"][1]["prompt_box"]
    assert box == pytest.approx([85, 64, 342, 608], abs=4)
    page.press("#canvas [data-act=clear]")
    assert page.names == [] and page.tinted() == 0


def test_list_renames_hides_chooses_and_deletes(page: FullPage, tmp_path: Path) -> None:
    page.open_example("bus")
    page.find("wheel")
    assert page.names == ["wheel", "wheel"]
    before = page.tinted()
    page.press("#objects .ts-row:nth-child(1) .ts-eye")
    assert 0 < page.tinted() < before
    assert len(Segmentation.load(download(page, "RLE", tmp_path))) == 1
    name = page.page.locator("#objects .ts-name").nth(1)
    name.fill('rear <b onload="x">wheel')
    page.after(lambda: name.press("Enter"))
    assert page.names == ["wheel", 'rear <b onload="x">wheel']
    page.press("#objects .ts-row:nth-child(2) .ts-swatch")
    assert page.scene["active"] == page.scene["objects"][1]["number"]
    page.press("#objects .ts-row:nth-child(1) .ts-bin")
    assert page.names == ['rear <b onload="x">wheel']


def test_everything_like_and_why(page: FullPage, small_bus: Path) -> None:
    page.upload(str(small_bus))
    page.press("#everything")
    assert len(page.names) > 1
    page.open_example("bus")
    page.find("wheel")
    assert page.names == ["wheel", "wheel"]
    page.press("#objects .ts-row:nth-child(2) .ts-bin")
    page.press("#like")
    assert page.names[0] == "wheel" and set(page.names) == {"wheel"} and len(page.names) > 1
    page.find("giraffe")
    page.page.click("#why")
    page.page.wait_for_function(
        "document.querySelector('#sentences textarea')?.value.includes('presence gate')"
    )
    picture = page.page.wait_for_selector("#why-picture img")
    assert picture is not None and picture.bounding_box()["width"] > 300


def test_settings_ask_again(open_page: Open) -> None:
    page = open_page()
    page.open_example("bus")
    page.find("wheel")
    assert len(page.names) == 2
    page.page.click("#settings button")
    page.after(lambda: page.page.click("text=one object (prompt)"))
    assert len(page.names) == 3  # the paper's three readings
    bare = page.tinted()
    page.page.fill("#opacity input[type=number]", "0")
    page.page.press("#opacity input[type=number]", "Enter")
    assert bare > 0


def test_bad_uploads_and_bad_text_give_a_message_and_the_app_goes_on(
    open_page: Open, repo: Path, write: Callable[[str, bytes], Path], huge_png: bytes
) -> None:
    page = open_page()
    for name, data, words in (
        ("words.jpg", b"this is no photo", "not an image"),
        ("huge.png", huge_png, "megapixels"),
        ("cut.jpg", (repo / "examples" / "dog.jpg").read_bytes()[:30_000], "damaged"),
    ):
        page.upload(str(write(name, data)))
        assert page.has_error and words in page.status and "/" not in page.status, page.status
        assert page.scene["photo"] is None
    page.page.set_input_files("#canvas input[type=file]", str(write("empty.png", b"")))
    page.page.wait_for_selector("text=empty.png is empty (0 bytes)")
    page.find("wheel")
    assert page.has_error and "Open a photo first" in page.status
    page.open_example("bus")
    for text, words in (("", "Type what to find"), ("-wheel", "besides"), ("x" * 300, "300")):
        page.find(text)
        assert page.has_error and words in page.status
    page.press("#like")
    assert page.has_error and "Choose an object" in page.status
    page.page.click("#export")
    page.page.wait_for_selector("#export-problem:has-text('nothing to export')")
    page.find("wheel")
    assert not page.has_error and page.names == ["wheel", "wheel"]


def test_phone_width_and_fingers(open_page: Open) -> None:
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.open_example("cat")
    width = page.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390, f"the page is {width} pixels wide: something sticks out"
    assert page.bar_rows == 2
    page.after(lambda: page.page.touchscreen.tap(*page.place(0.35, 0.4)))
    assert page.names == ["object 1"]
    page.find("cat")
    assert "cat" in page.names
    small = page.page.locator("#canvas button:visible, #objects button:visible")
    sizes = [small.nth(index).bounding_box() for index in range(small.count())]
    assert all(min(size["width"], size["height"]) >= 30 for size in sizes), sizes
    page.page.set_viewport_size({"width": 320, "height": 640})
    assert page.bar_rows == 2
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 320


def test_button_and_wheel_zoom_and_keys_click(page: FullPage) -> None:
    page.open_example("cat")
    fit = page.page.evaluate("document.querySelector('#canvas .ts-stage').place.scale")
    page.page.click("#canvas [data-zoom='1.25']")
    page.page.mouse.move(*page.place(0.5, 0.5))
    page.page.keyboard.down("Control")
    page.page.mouse.wheel(0, -120)
    page.page.keyboard.up("Control")
    page.page.wait_for_function(
        "(fit) => document.querySelector('#canvas .ts-stage').place.scale > 1.5 * fit", arg=fit
    )
    page.click(0.5, 0.5)  # a click means the same place, however far it is zoomed
    x, y, _ = page.scene["objects"][0]["points"][0]
    photo = page.scene["photo"]
    assert (x / photo["width"], y / photo["height"]) == pytest.approx((0.5, 0.5), abs=0.01)
    page.page.keyboard.press("0")
    page.page.keyboard.press("ArrowRight")
    page.after(lambda: page.page.keyboard.press("n"))
    page.after(lambda: page.page.keyboard.press("Enter"))
    assert page.names == ["object 1", "object 2"]


def test_two_users_do_not_see_each_other(page: FullPage, open_page: Open) -> None:
    one, other = page, open_page()
    one.open_example("bus")
    other.open_example("bus")
    one.find("wheel")
    other.click(0.5, 0.5)
    assert one.names == ["wheel", "wheel"] and other.names == ["object 1"]
    assert one.scene["photo"]["url"] != other.scene["photo"]["url"]


def test_search_by_text_and_by_the_chosen_object_in_an_index_opened_by_path(
    page: FullPage, index_folder: Path, tmp_path: Path
) -> None:
    page.open_example("bus")
    page.find("wheel")
    page.press("#objects .ts-row:nth-child(1) .ts-swatch")
    page.page.click("button[role=tab]:has-text('Search')")
    page.page.click("#search")
    page.page.wait_for_selector("#search-status:has-text('Type a phrase')")
    for path, words in (
        (tmp_path / "none.lance", "There is no index at"),
        (shutil.copytree(index_folder, tmp_path / "other.lance"), "other.lance: 3 masks of bus"),
    ):
        page.page.fill("#index-path input, #index-path textarea", str(path))
        page.page.click("#index-open")
        page.page.wait_for_selector(f"#search-status:has-text('{words}')")
    page.page.fill("#search-text input, #search-text textarea", "cat")
    page.page.click("#search")
    page.page.wait_for_selector("#search-status:has-text('3 of 3 masks')")
    captions = page.page.locator("#results .caption-label")
    assert captions.nth(0).inner_text().startswith("cat · cat photos · ")
    page.page.click("text=the object chosen in Explore")
    page.page.click("#search")
    page.page.wait_for_function(
        "document.querySelector('#results .caption-label')?.textContent.startsWith('wheel')"
    )
    assert [captions.nth(n).inner_text().split(" · ")[0] for n in range(3)] == [
        "wheel",
        "wheel",
        "cat",
    ]
    page.after(lambda: page.page.locator("#results button.thumbnail-item").nth(2).click())
    page.page.wait_for_selector("#canvas .ts-stage")
    assert page.scene["photo"]["name"] == "cat" and page.names == ["cat"]


def test_model_tab_tells_licence_limits_and_speed(
    page: FullPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demos.page.model_tab._ROUNDS", 1)
    page.page.click("button[role=tab]:has-text('Model')")
    page.page.wait_for_selector("text=Licence of the weights: Apache-2.0")
    page.page.wait_for_selector("text=Limitations")
    page.page.click("#measure")
    page.page.wait_for_selector("#speed :text('one click')")


def test_everything_has_a_label_for_screen_readers(page: FullPage) -> None:
    page.open_example("bus")
    page.find("wheel")
    nameless = page.page.evaluate(
        """[...document.querySelectorAll("#canvas :is(button, img), #objects :is(button, input)")]
          .filter((node) => node.tagName === "IMG" ? !node.hasAttribute("alt")
            : !(node.getAttribute("aria-label") || node.textContent.trim()))
          .map((node) => node.outerHTML)"""
    )
    assert not nameless
    assert page.bar_rows == 1
    assert page.page.get_attribute("#canvas .ts-status", "aria-live") == "polite"
    assert "bus" in page.page.get_attribute("#canvas .ts-stage", "aria-label")
