"""Masks matched with objects, and AP over them: exact small cases, and parity with pycocotools."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from textsam.values.rle import decode_rle, encode_mask
from training.evaluation.figures.average_precision import PhraseAP
from training.evaluation.figures.matching import (
    boundary_iou,
    instance_item,
    instance_means,
    masked_iou,
)
from training.evaluation.phrases.asking import PhraseMasks

SIZE = (100, 120)
NOTHING = np.zeros(SIZE, dtype=bool)


def _box(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def _found(*masks: np.ndarray, scores: list[float] | None = None) -> PhraseMasks:
    """Masks, best first; scores 0.9, 0.8, ... unless they are named."""
    values = [0.9 - 0.1 * i for i in range(len(masks))] if scores is None else scores
    rles = tuple(encode_mask(mask) for mask in masks)
    return PhraseMasks(size=SIZE, rles=rles, scores=np.array(values), presence=0.5)


def _match(found: PhraseMasks, *truths: np.ndarray, ignored: np.ndarray = NOTHING):
    return found.match([encode_mask(mask) for mask in truths], ignored=ignored)


LEFT, RIGHT = _box(0, 0, 40, 40), _box(60, 0, 100, 40)


def test_each_object_is_taken_once_and_by_the_better_score():
    worse = _box(0, 0, 36, 40)
    matches = _match(_found(worse, LEFT, RIGHT), LEFT, RIGHT)

    assert matches.truth.tolist() == [0, -1, 1]  # the first by score, though the second fits better
    assert matches.iou.tolist() == [0.9, 1.0, 1.0]
    assert matches.right.all() and matches.counted.all()
    assert matches.objects == 2


def test_a_match_needs_half():
    half, less = _box(0, 0, 20, 40), _box(0, 0, 19, 40)

    assert _match(_found(half), LEFT).truth.tolist() == [0]
    assert _match(_found(less), LEFT).truth.tolist() == [-1]
    assert _match(_found(less), LEFT).right.tolist() == [True]  # of the phrase, but no instance


def test_one_mask_over_two_objects_is_right_but_finds_neither():
    left, right = _box(0, 0, 40, 40), _box(40, 0, 80, 39)
    matches = _match(_found(left | _box(40, 0, 82, 40)), left, right)

    assert matches.truth.tolist() == [-1]
    assert matches.right.tolist() == [True]


def test_ignored_pixels_count_for_neither_side():
    ignored = _box(20, 0, 120, 100)
    cut = _match(_found(LEFT), _box(0, 0, 20, 40), ignored=ignored)
    assert (cut.truth.tolist(), cut.iou.tolist()) == ([0], [1.0])
    assert not (decode_rle(cut.rles[0]) & ignored).any()

    gone = _match(_found(RIGHT, LEFT), RIGHT, ignored=ignored)
    assert gone.objects == 0  # the object is wholly ignored
    assert gone.counted.tolist() == [False, True]  # half of the left one can be judged: it is wrong
    assert not gone.right.any()
    item = instance_item("a", "cat", gone, present=True)
    assert (item.objects, item.masks, item.matched) == (0, 1, 0)


def test_an_absent_phrase_and_an_empty_answer():
    wrong = _match(_found(LEFT))
    assert (wrong.objects, wrong.truth.tolist(), wrong.right.tolist()) == (0, [-1], [False])

    empty = _match(_found(), LEFT)
    assert (empty.objects, len(empty.truth), len(empty.scores)) == (1, 0, 0)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(2, 9)), max_size=5),
    st.lists(st.tuples(st.integers(0, 5), st.integers(2, 9)), max_size=5),
)
def test_matching_is_one_to_one_and_blind_to_the_order_of_objects(masks, truths):
    def boxes(places):
        return [_box(10 * x, 0, 10 * x + 5 * width, 20) for x, width in places]

    found = _found(*boxes(masks))
    forward, backward = _match(found, *boxes(truths)), _match(found, *boxes(truths)[::-1])

    taken = forward.truth[forward.truth >= 0].tolist()
    assert len(set(taken)) == len(taken) <= forward.objects == len(truths)
    assert forward.iou[forward.truth >= 0].min(initial=1.0) >= 0.5
    assert (forward.right == backward.right).all()


def test_boundary_iou_sees_the_border_alone():
    truth = _box(20, 20, 80, 80)
    assert boundary_iou(truth, truth) == 1.0
    shifted = _box(22, 20, 82, 80)
    assert boundary_iou(shifted, truth) < masked_iou(shifted, truth) - 0.2
    # A hole in the middle adds a border, and takes little of the area.
    holed = truth & ~_box(48, 48, 52, 52)
    assert masked_iou(holed, truth) > 0.99 > boundary_iou(holed, truth)
    # What is void counts for neither.
    assert boundary_iou(shifted, truth, exclude=_box(0, 0, 120, 100)) == 1.0
    # The photo's own border is a border of the mask.
    whole = np.ones_like(truth)
    assert boundary_iou(truth, whole) == 0.0
    assert 0.4 < boundary_iou(_box(0, 0, 120, 97), whole) < 0.7


def test_objects_that_touch_are_counted_apart():
    left, near, far = _box(0, 0, 40, 40), _box(43, 0, 60, 40), _box(66, 0, 80, 40)
    matches = _match(_found(left), left, near, far)
    assert matches.touching.tolist() == [True, True, False]  # 3 px and 6 px apart
    item = instance_item("a", "cat", matches, present=True)
    assert (item.touching, item.touching_matched) == (2, 1)
    assert instance_means([item])["touching_recall"] == 0.5
    assert (
        instance_means([instance_item("a", "cat", _match(_found(left), left), present=True)])[
            "touching_recall"
        ]
        is None
    )


def test_means_are_over_all_objects_and_all_masks():
    items = [
        instance_item("a", "cat", _match(_found(LEFT), LEFT, RIGHT), present=True),
        instance_item("b", "cat", _match(_found(LEFT, RIGHT), LEFT), present=True),
        instance_item("b", "dog", _match(_found(RIGHT)), present=False),
    ]
    means = instance_means(items)

    assert (means["objects"], means["masks"]) == (3, 3)
    assert means["recall"] == means["precision"] == pytest.approx(2 / 3)
    assert means["f1"] == pytest.approx(2 / 3)
    assert means["precision_all"] == 0.5
    low, high = means["recall_interval"]
    assert 0.5 <= low < 2 / 3 < high <= 1.0  # 1/2 in one photo, 1/1 in the other
    nothing = instance_means([])
    assert nothing["recall"] is nothing["precision"] is nothing["recall_interval"] is None


def _random_detections(seed: int) -> PhraseAP:
    """Boxes of three phrases in 12 photos, moved a little, some lost, some invented."""
    rng = np.random.default_rng(seed)

    def box() -> np.ndarray:
        x, y = rng.integers(0, 100), rng.integers(0, 80)
        width, height = rng.integers(8, 60, 2)
        return _box(x, y, x + width, y + height)

    detections = PhraseAP(["a", "b", "c"])
    for photo in range(12):
        for label in "abc":
            truths = [box() for _ in range(rng.integers(0, 4))]
            masks = [
                np.roll(t, rng.integers(-6, 7, 2), (0, 1)) for t in truths if rng.random() < 0.8
            ]
            masks += [box() for _ in range(rng.integers(0, 3))]
            scores = np.sort(rng.random(len(masks)))[::-1].tolist()
            detections.add(f"photo {photo}", label, _match(_found(*masks, scores=scores), *truths))
    return detections


@pytest.mark.parametrize("seed", range(3))
def test_ap_and_ar_are_those_of_pycocotools(seed):
    detections = _random_detections(seed)
    figures = detections.figures()
    rows = detections._rows

    shared = {
        "images": rows._images,
        "categories": [{"id": i, "name": n} for n, i in rows.categories.items()],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for annotations in (rows._objects, rows._masks):
            side = COCO()
            side.dataset = shared | {"annotations": [dict(row) for row in annotations]}
            side.createIndex()
            sides.append(side)
        run = COCOeval(*sides, "segm")
        run.params.areaRng, run.params.areaRngLbl = [[0, 1e10], [32**2, 1e10]], ["all", "large"]
        run.params.maxDets = [100]
        run.evaluate()
        run.accumulate()
    for index, suffix in enumerate(("", "_large")):
        precision = run.eval["precision"][:, :, :, index, 0]
        recall = run.eval["recall"][:, :, index, 0]
        assert (precision > -1).all()  # every phrase has objects, so that plain means compare
        assert figures[f"ap{suffix}"] == pytest.approx(precision.mean())
        assert figures[f"ap50{suffix}"] == pytest.approx(precision[0].mean())
        assert figures[f"ar{suffix}"] == pytest.approx(recall.mean())
    assert 0.1 < figures["ap_large"] < figures["ap50_large"] < 0.95


def test_ap_of_cases_that_are_known():
    perfect = PhraseAP(["cat", "dog"])
    perfect.add("a", "cat", _match(_found(LEFT, RIGHT), LEFT, RIGHT))
    perfect.add("a", "dog", _match(_found()))  # nothing there, nothing said
    figures = perfect.figures()
    assert figures["ap"] == figures["ar"] == figures["ap50_large"] == 1.0
    assert figures["phrases"] == 1  # a phrase without an object has no AP
    assert figures["labels"] == {"cat": 1.0}

    # A mask in a photo that lacks the thing, and of a better score: half of the precision.
    perfect.add("b", "cat", _match(_found(LEFT, scores=[0.95])))
    assert 0.4 < perfect.figures()["ap50"] < 1.0
    perfect.add("c", "dog", _match(_found(), LEFT))
    assert perfect.figures()["phrases"] == 2


def test_small_objects_count_only_over_all_sizes():
    small = _box(0, 0, 10, 10)
    detections = PhraseAP(["cat"])
    detections.add("a", "cat", _match(_found(LEFT), small, LEFT))
    figures = detections.figures()

    assert figures["ap50_large"] == 1.0
    assert figures["ar"] == 0.5
    assert PhraseAP(["cat"]).figures()["ap"] is None
