"""The shipped model on the example photos, as the README promises it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from tests.warm_python import run_python
from textsam import Segmentation, TextSAM, segment
from textsam.values.files import TINY_FOLDER

# Half-open boxes around the two wheels that the bus shows whole, drawn by hand.
FRONT, REAR = (268, 246, 328, 326), (482, 236, 528, 300)


@pytest.fixture(scope="module")
def tiny() -> TextSAM:
    return TextSAM.from_pretrained("tiny")


def _share_in(result: Segmentation, box: tuple[int, int, int, int]) -> float:
    """Share of the union's pixels that lie in a box."""
    x0, y0, x1, y1 = box
    return float(result.mask[y0:y1, x0:x1].sum() / max(1, result.mask.sum()))


def test_both_wheels_and_little_else(tiny: TextSAM, repo: Path) -> None:
    wheels = tiny.segment(repo / "examples/bus.jpg", text="wheel")
    front, rear = _share_in(wheels, FRONT), _share_in(wheels, REAR)
    assert front > 0.2 and rear > 0.15
    assert front + rear > 0.8
    for x0, y0, x1, y1 in (FRONT, REAR):
        # A disc fills 0.79 of its box; the front tyre's upper half is black in a black arch.
        assert wheels.mask[y0:y1, x0:x1].mean() > 0.3


@pytest.mark.parametrize(
    ("photo", "phrase", "inside", "outside"),
    [
        # Points on the thing and points beside it, (x, y).
        ("cat", "cat", [(330, 200), (380, 110)], [(560, 60), (60, 60), (590, 225)]),
        ("banana", "banana", [(260, 180), (400, 250)], [(40, 60), (600, 440), (600, 100)]),
        ("dog", "dog", [(150, 250), (130, 350)], [(60, 40), (380, 560), (380, 60)]),
    ],
)
def test_named_things_are_found(
    tiny: TextSAM,
    repo: Path,
    photo: str,
    phrase: str,
    inside: list[tuple[int, int]],
    outside: list[tuple[int, int]],
) -> None:
    result = tiny.segment(repo / f"examples/{photo}.jpg", text=phrase)
    assert len(result) >= 1
    assert set(result.labels) == {phrase}
    assert all(result.mask[y, x] for x, y in inside)
    assert not any(result.mask[y, x] for x, y in outside)


def test_a_wheel_on_the_cat_paints_next_to_nothing(tiny: TextSAM, repo: Path) -> None:
    assert tiny.segment(repo / "examples/cat.jpg", text="wheel").mask.mean() < 0.01


def test_a_click_and_a_box_find_the_dog(tiny: TextSAM, repo: Path) -> None:
    view = tiny.open(repo / "examples/dog.jpg")
    by_box = view.segment(box=(60, 170, 275, 600)).mask
    by_name = view.segment(text="dog").mask
    overlap = (by_box & by_name).sum() / (by_box | by_name).sum()
    assert overlap > 0.6


def test_phrases_make_a_difference(tiny: TextSAM, repo: Path) -> None:
    view = tiny.open(repo / "examples/bus.jpg")
    wheel, bus = view.segment(text="wheel").mask, view.segment(text="bus").mask
    assert bus.sum() > 4 * wheel.sum() > 0


def test_it_weighs_at_most_48_megabytes() -> None:
    total = sum(path.stat().st_size for path in TINY_FOLDER.rglob("*") if path.is_file())
    assert total <= 48e6


def test_it_loads_in_two_seconds(tmp_path: Path) -> None:
    """In a process of its own, after the imports; the best of three, since machines are shared."""
    program = tmp_path / "program.py"
    program.write_text(
        "import time, torch, torchvision, open_clip\n"
        "from textsam import TextSAM\n"
        "start = time.perf_counter(); TextSAM.from_pretrained('tiny')\n"
        "print(time.perf_counter() - start)"
    )
    seconds = []
    for _ in range(3):
        seconds.append(float(run_python(str(program), cwd=tmp_path).stdout))
        if seconds[-1] < 2:
            break
    assert min(seconds) < 2


def test_a_phrase_on_640_x_480_takes_about_a_second(tiny: TextSAM, repo: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    tiny.segment(photo, text="wheel")
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        tiny.segment(repo / "examples/banana.jpg", text="banana")
        seconds.append(time.perf_counter() - start)
    # Three times the promise: the bound must hold on a busy machine and still catch a blunder.
    assert min(seconds) < 3


def test_saving_and_loading_keeps_it(tiny: TextSAM, repo: Path, tmp_path: Path) -> None:
    again = TextSAM.from_pretrained(tiny.save_pretrained(tmp_path / "copy"))
    a, b = (m.segment(repo / "examples/bus.jpg", text="wheel") for m in (tiny, again))
    np.testing.assert_array_equal(a.masks, b.masks)
    np.testing.assert_array_equal(a.scores, b.scores)


# Ten names on the examples, and six ways to type each; plurals where English has them.
NAMES = {
    "bus": ("bus", "wheel"),
    "cat": ("cat", "remote control"),
    "dog": ("dog", "fire hydrant"),
    "horses": ("horse", "person"),
    "banana": ("banana", "bowl"),
}
PLURALS = {"bus": "buses"}
WAYS = ("The {}.", '"{}"', "\u201c{}\u201d", "\ufeff{}\u200b", "all {s}", "{S}!")


def test_a_name_is_found_however_it_is_typed(tiny: TextSAM, repo: Path) -> None:
    for photo, names in NAMES.items():
        view = tiny.open(repo / f"examples/{photo}.jpg")
        for name in names:
            plural = PLURALS.get(name, f"{name}s")
            words = {"s": plural, "S": plural.upper()}
            ways = [way.format(name, **words) for way in WAYS]
            plain = view.segment(text=name).presence[name]
            for way in ways:
                assert view.segment(text=way).presence[way] == pytest.approx(plain, abs=0.1), way


def test_the_phrase_may_be_the_second_argument(tiny: TextSAM, repo: Path) -> None:
    photo = repo / "examples/cat.jpg"
    view = tiny.open(photo)
    wanted = view.segment(text="cat", threshold=0.4).rles
    assert wanted
    for result in (
        tiny.segment(photo, "cat", threshold=0.4),
        tiny(photo, "cat", threshold=0.4),
        view.segment("cat", threshold=0.4),
        view("cat", threshold=0.4),
        segment(photo, "cat", threshold=0.4, model=tiny),
    ):
        assert result.rles == wanted
