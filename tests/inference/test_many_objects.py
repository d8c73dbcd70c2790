"""Several boxes or sets of points in one call: what each gives on its own, in order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.inference.conftest import build_model
from textsam.errors import PromptError
from textsam.inference.model import TextSAM
from textsam.inference.photo import prediction
from textsam.inference.photo.encoded import encode_photo
from textsam.inference.view import ImageView
from textsam.results.segmentation import Segmentation
from textsam.values.rle import decode_rle
from textsam.values.settings import FocusSettings

Photo = NDArray[np.uint8]
BOXES = [[3 * k, k, 3 * k + 9 + 4 * k, k + 12 + 2 * k] for k in range(9)] + [[0, 0, 90, 50]]
POINTS = [[[20, 20]], [[30, 10], [40, 20], [5, 5]], [[60, 30], [61, 31]]]
LABELS = [[1], [1, 1, 0], [1, 0]]

MODEL = build_model()
IMAGE = np.random.default_rng(3).integers(0, 256, (50, 90, 3), dtype=np.uint8)


def opened(*, zooms: bool) -> ImageView:
    parts = replace(MODEL.parts, focus=FocusSettings(min_side=8.0) if zooms else None)
    return ImageView(encode_photo(parts, IMAGE))


def assert_equal_to_loop(together: Segmentation, one_by_one: list[Segmentation]) -> None:
    assert len(together) == len(one_by_one)
    for index, alone in enumerate(one_by_one):
        mask = decode_rle(together.rles[index])
        if not len(alone):  # asked alone, an empty mask is left out
            assert not mask.any()
            continue
        np.testing.assert_allclose(together.iou[index], alone.iou[0], atol=1e-5)
        np.testing.assert_allclose(together.scores[index], alone.scores[0], atol=1e-3)
        assert (mask != alone.masks[0]).mean() < 1e-3  # a logit may round across zero
        assert together.labels[index] == alone.labels[0]


@pytest.mark.parametrize("zooms", [False, True])
@pytest.mark.parametrize("text", [None, "dog"])
def test_boxes_equal_the_loop(zooms: bool, text: str | None) -> None:
    view = opened(zooms=zooms)
    loop = [view.segment(text, box=box) for box in BOXES]
    fresh = [opened(zooms=zooms).segment(text, box=box) for box in BOXES]
    assert [each.rles for each in loop] == [each.rles for each in fresh]  # whatever came before
    for typed in (
        {"boxes": BOXES},
        {"box": BOXES},
        {"boxes": np.array(BOXES)},
        {"boxes": torch.tensor(BOXES)},
        {"boxes": [tuple(box) for box in BOXES]},
    ):
        assert_equal_to_loop(view.segment(text, **typed), loop)


@pytest.mark.parametrize("zooms", [False, True])
def test_sets_of_points_equal_the_loop(zooms: bool) -> None:
    view = opened(zooms=zooms)
    pairs = list(zip(POINTS, LABELS, strict=True))
    loop = [view.segment(points=p, labels=n, multimask=False) for p, n in pairs]
    assert_equal_to_loop(view.segment(points=POINTS, labels=LABELS), loop)
    both = [view.segment(points=p, labels=n, box=BOXES[-1]) for p, n in pairs]
    found = view.segment(points=POINTS, labels=LABELS, boxes=[BOXES[-1]] * 3)
    assert_equal_to_loop(found, both)
    table = np.array([[[20, 20]], [[60, 30]]])
    alone = [view.segment(points=each, multimask=False) for each in table]
    assert_equal_to_loop(view.segment(points=table), alone)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 40)] * 4), min_size=1, max_size=12), st.randoms())
def test_order_and_company_do_not_matter(corners: list[Any], random: Any) -> None:
    boxes = [(x, y, x + 1 + w, y + 1 + h) for x, y, w, h in corners]
    view = opened(zooms=True)
    straight = view.segment(boxes=boxes)
    order = list(range(len(boxes)))
    random.shuffle(order)
    mixed = view.segment(boxes=[boxes[index] for index in order])
    np.testing.assert_allclose(mixed.iou, straight.iou[order], atol=1e-5)


def test_three_readings_of_each_in_turn() -> None:
    view = opened(zooms=False)
    found = view.segment(boxes=BOXES, multimask=True)
    assert len(found) == 3 * len(BOXES)
    for index, box in enumerate(BOXES):
        alone = view.segment(box=box, multimask=True)
        own = found.iou[3 * index : 3 * index + 3]
        assert (np.diff(own) <= 0).all()
        if len(alone) == 3:
            np.testing.assert_allclose(own, alone.iou, atol=1e-5)


def test_one_run_of_the_decoder_for_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    view, runs = opened(zooms=False), []
    real = prediction.decode

    def counted(photo: Any, prompts: Any) -> Any:
        runs.append(len(prompts))
        return real(photo, prompts)

    monkeypatch.setattr(prediction, "decode", counted)
    view.segment(boxes=BOXES)
    view.segment(points=POINTS, labels=LABELS)
    assert runs == [8, 2, 3]


def test_no_boxes_give_no_masks_and_a_click_chooses_one() -> None:
    view = opened(zooms=False)
    for empty in ([], np.zeros((0, 4)), torch.zeros(0, 4)):
        assert len(view.segment(boxes=empty)) == 0
    found = view.segment(boxes=[[0, 0, 90, 50], [10, 10, 40, 40]])
    inside = np.argwhere(found.masks[1]) if found.areas[1] else np.argwhere(found.masks[0])
    y, x = inside[0]
    assert len(view.click(x + 0.5, y + 0.5)) <= 1
    assert view.undo() == found


def test_each_model_takes_them_in_each_way(model: TextSAM, photo: Photo) -> None:
    wanted = model.open(photo).segment(boxes=BOXES[:3])
    assert model.segment(photo, boxes=BOXES[:3]) == wanted == model(photo, boxes=BOXES[:3])
    assert model.segment([photo, photo], boxes=BOXES[:3]) == [wanted, wanted]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boxes": [1, 2, 9, 9]}, r"wanted boxes=\[\[x0"),
        ({"boxes": "1,2,9,9"}, r"wanted boxes=\[\[x0"),
        ({"boxes": [[[1, 2, 9, 9]]]}, "segment_pairs"),
        ({"boxes": [[1, 2, 9, 9], [1, 2, 9]]}, "box 1: box has shape"),
        ({"boxes": [[1, 2, 9, 9], [500, 2, 509, 9]]}, "box 1: .*outside the image"),
        ({"boxes": BOXES, "points": [(4, 5)]}, "boxes means several objects and points one"),
        ({"boxes": BOXES, "box": BOXES[0]}, "boxes means several objects and box one"),
        ({"boxes": BOXES, "box": BOXES}, "give boxes alone"),
        ({"boxes": BOXES, "mask": np.ones((50, 90), bool)}, "several objects and mask one"),
        ({"boxes": BOXES, "points": POINTS}, "10 of boxes, 3 of points"),
        ({"points": POINTS, "labels": [[1]]}, "3 of points, 1 of labels"),
        ({"points": POINTS, "labels": [[1], [1], [1]]}, "point set 1: labels have shape"),
        ({"points": [POINTS]}, "segment_pairs"),
        ({"points": POINTS, "labels": [[0], [1, 1, 0], [1, 0]]}, "point set 0: all points have"),
        ({"points": [(4, 5)], "labels": [0]}, "all points have label 0"),
        ({"text": ["dog", "cat"], "boxes": BOXES}, "one phrase for all"),
    ],
)
def test_errors_say_what_to_type(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        opened(zooms=False).segment(**options)


@pytest.mark.parametrize(
    ("options", "typed"),
    [
        ({"box": (0.1, 0.2, 0.5, 0.6)}, r"box=\(9, 10, 45, 30\)"),
        ({"box": np.array([0, 0, 1, 1], np.float32)}, r"box=\(0, 0, 90, 50\)"),
        ({"boxes": [[0.1, 0.2, 0.5, 0.6]]}, r"boxes=\[\(9, 10, 45, 30\)\]"),
        ({"points": [(0.5, 0.5)]}, r"points=\[\(45, 25\)\]"),
        ({"points": [[[0.5, 0.5]], [[0.1, 0.2], [1, 1]]]}, r"points=\[\(45, 25\), \(9, 10\)"),
    ],
)
def test_fractions_are_asked_about(options: dict[str, Any], typed: str) -> None:
    view = opened(zooms=False)
    with pytest.raises(PromptError, match=f"Were fractions.*{typed}"):
        view.segment(**options)


def test_whole_numbers_mean_the_pixel_at_the_corner() -> None:
    view = opened(zooms=False)
    assert len(view.segment(boxes=[[0, 0, 1, 1]])) == 1
    view.segment(box=(0, 0, 1, 1))
    view.segment(points=[(0, 1)])
    view.segment(boxes=[[0.2, 0.2, 1, 1], [4.5, 5, 20, 20]])  # only one of them lies there
    view.click(0.5, 0.5)
