"""Looking closer: which window, and that prompts and masks find their way there and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from textsam import TextSAM
from textsam.errors import PromptError
from textsam.inference.photo.encoded import encode_photo
from textsam.inference.photo.prediction import MaskLogits, within_box
from textsam.inference.photo.zoom import WindowCache, choose_window
from textsam.values.geometry import Frame, Window
from textsam.values.prompts import Prompt
from textsam.values.settings import FocusSettings

from ..conftest import build_model

SETTINGS = FocusSettings(min_side=8)
# Masks may reach beyond their box, so that a window alone can be compared.
UNBOUND = FocusSettings(min_side=8, box_margin=100.0)


@pytest.fixture
def focusing() -> TextSAM:
    model = build_model()
    model.focus = SETTINGS
    return model


@given(
    x0=st.integers(0, 180),
    y0=st.integers(0, 80),
    width=st.integers(1, 60),
    height=st.integers(1, 40),
    px=st.floats(0, 199),
    py=st.floats(0, 99),
)
def test_a_window_holds_box_and_points_and_stays_in_the_photo(
    x0: int, y0: int, width: int, height: int, px: float, py: float
) -> None:
    box = np.array([x0, y0, min(x0 + width, 200), min(y0 + height, 100)], np.float32)
    points = np.array([[px, py]], np.float32)
    window = choose_window((100, 200), Prompt(box=box, points=points), None, settings=SETTINGS)
    if window is None:
        # only where it would show nearly the whole photo
        low, high = np.minimum(box[:2], points[0]), np.maximum(box[2:], points[0])
        assert 1.4 * max(8.0, float((high - low).max())) + 2 > 0.75 * 200
        return
    assert 0 <= window.x0 < window.x1 <= 200 and 0 <= window.y0 < window.y1 <= 100
    assert window.x0 <= min(box[0], px) and window.x1 >= max(box[2], px)
    assert window.y0 <= min(box[1], py) and window.y1 >= max(box[3], py)
    assert window.length <= 0.75 * 200


def test_nothing_to_look_at_and_large_things_give_no_window() -> None:
    size = (100, 200)
    empty, full = np.zeros(size, bool), np.ones(size, bool)
    for mask in (None, empty, full):
        window = choose_window(size, Prompt(), mask, settings=SETTINGS)
        assert window is None


def test_a_window_serves_for_what_lies_in_it_at_a_similar_scale(
    focusing: TextSAM, photo: NDArray[np.uint8]
) -> None:
    encoded = encode_photo(focusing.parts, photo)
    window = Window(10, 5, 50, 45)
    for wanted, serves in (
        (Window(15, 10, 45, 40), True),
        (Window(15, 10, 30, 25), False),  # too small in it
        (Window(5, 10, 45, 40), False),  # not all of it
    ):
        cache = WindowCache()
        assert cache.find(window, reuse=0.6) is None
        cache.keep(window, encoded)
        found = cache.find(wanted, reuse=0.6)
        assert (found is not None) == serves
        cache.start_object()  # of another object only the very same window
        assert cache.find(wanted, reuse=0.6) is None
        assert cache.find(window, reuse=0.6) == (window, encoded)


def test_logits_of_a_window_go_to_their_place() -> None:
    grid = np.random.default_rng(0).normal(size=(1, 4, 4)).astype(np.float32)
    frame = Frame(height=20, width=30, image_size=16)
    mask = MaskLogits(frame=frame, grids=grid, windows=(Window(3, 4, 10, 9),))
    alone = MaskLogits(frame=Frame(height=5, width=7, image_size=16), grids=grid)
    full = mask.full_size()
    np.testing.assert_array_equal(full[4:9, 3:10], alone.full_size())
    full[4:9, 3:10] = -1
    assert (full < 0).all()


def test_a_small_box_is_decoded_as_if_its_window_were_the_photo(
    focusing: TextSAM, photo: NDArray[np.uint8]
) -> None:
    box = (30, 20, 44, 32)
    prompt = Prompt(box=np.array(box, np.float32))
    window = choose_window(photo.shape[:2], prompt, None, settings=SETTINGS)
    assert window is not None
    focusing.focus = UNBOUND
    answer = focusing.open(photo).predict(box=box)
    focusing.focus = None
    cut = focusing.open(photo[window.slices].copy())
    shifted = np.array(box) - np.array([window.x0, window.y0] * 2)
    first = cut.predict(box=shifted)
    expected = cut.predict(box=shifted, mask=first.logits[0])
    inside = answer.logits[:, *window.slices]
    np.testing.assert_allclose(inside, expected.logits, atol=1e-5)
    np.testing.assert_allclose(answer.iou, expected.iou, atol=1e-6)


def test_a_large_box_is_decoded_on_the_photo_in_two_passes(
    focusing: TextSAM, photo: NDArray[np.uint8]
) -> None:
    focusing.focus = UNBOUND
    a = focusing.open(photo).predict(box=(2, 2, 88, 48))
    focusing.focus = None
    view = focusing.open(photo)
    b = view.predict(box=(2, 2, 88, 48))
    b = view.predict(box=(2, 2, 88, 48), previous=b)
    np.testing.assert_array_equal(a.logits, b.logits)


def test_a_window_is_encoded_once_for_clicks_near_each_other(
    focusing: TextSAM, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    encode = focusing.sam.encode_image

    def counted(pixels: torch.Tensor) -> object:
        encoded.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(focusing.sam, "encode_image", counted)
    view = focusing.open(photo)
    view.predict(box=(30, 20, 44, 32))
    view.predict(box=(30, 20, 44, 32), points=[(36, 25)])
    view.predict(box=(30, 20, 44, 32), points=[(36, 25), (40, 28)])
    assert len(encoded) == 2  # the photo and one window


@pytest.mark.parametrize("prompt", [{"points": [(40, 25)]}, {"text": "dog"}])
def test_each_reading_is_looked_at_and_the_first_mask_is_the_best(
    focusing: TextSAM, photo: NDArray[np.uint8], prompt: dict[str, object]
) -> None:
    answer = focusing.open(photo).predict(**prompt)  # type: ignore[arg-type]
    best = 1 + int(answer.iou[1:].argmax())
    np.testing.assert_array_equal(answer.logits[0], answer.logits[best])
    assert answer.iou[0] == answer.iou[best]
    assert answer.low_res.shape == (4, 16, 16)


def test_clicks_and_undo_work_on_windows(focusing: TextSAM, photo: NDArray[np.uint8]) -> None:
    view = focusing.open(photo)
    first = view.segment(box=(30, 20, 44, 32))
    second = view.click(36, 25)
    view.click(40, 28, foreground=False)
    np.testing.assert_array_equal(view.undo().masks, second.masks)
    np.testing.assert_array_equal(view.undo().masks, first.masks)


def test_a_reading_that_does_not_exist_is_refused(
    focusing: TextSAM, photo: NDArray[np.uint8]
) -> None:
    view = focusing.open(photo)
    before = view.predict(box=(30, 20, 44, 32))
    with pytest.raises(PromptError, match="reading is 4"):
        view.predict(points=[(36, 25)], previous=before, reading=4)


def test_the_settings_are_saved_with_the_model(focusing: TextSAM, tmp_path: Path) -> None:
    again = TextSAM.from_pretrained(focusing.save_pretrained(tmp_path / "with"))
    assert again.focus == SETTINGS
    focusing.focus = None
    assert TextSAM.from_pretrained(focusing.save_pretrained(tmp_path / "without")).focus is None


def test_a_dense_head_on_the_sams_own_maps(photo: NDArray[np.uint8]) -> None:
    model = build_model()
    assert model.pathway is not None and model.pathway.dense is not None
    model.pathway.config = replace(model.pathway.config, dense_source="sam")
    view = model.open(photo)
    shared = view.text_map("dog")
    expected = model.pathway.dense.features(view.photo.features.pyramid)
    torch.testing.assert_close(view.photo.text_features, expected)
    # At another size the photo is encoded once more, in that frame.
    model.pathway.config = replace(model.pathway.config, dense_image_size=96)
    larger = model.open(photo)
    assert larger.photo.text_features.shape[-1] == 12
    assert larger.text_map("dog").shape == shared.shape
    assert len(larger.segment(text="dog", threshold=0.001)) >= 0


@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_nothing_is_painted_beyond_a_box_and_its_margin(margin: float) -> None:
    logits = np.full((2, 40, 60), 3.0, np.float32)
    inside = within_box(logits, np.array([10, 5, 30, 25], np.float32), margin=margin) > 0
    reach = round(20 * margin)
    expected = np.zeros((40, 60), bool)
    expected[5 - reach : 25 + reach, 10 - reach : 30 + reach] = True
    np.testing.assert_array_equal(inside, np.stack([expected] * 2))
    # What was outside stays as it was, what was inside keeps its number.
    faint = np.full((1, 40, 60), -20.0, np.float32)
    np.testing.assert_array_equal(
        within_box(faint, np.array([10, 5, 30, 25], np.float32), margin=margin), faint
    )
