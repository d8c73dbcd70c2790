"""Run-length masks: round trips, agreement with dense arithmetic, and damaged codes."""

from __future__ import annotations

import json
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from textsam.values import rle as rle_module
from textsam.values.geometry import mask_to_box
from textsam.values.rle import (
    RLE,
    decode_rle,
    decode_rles,
    encode_mask,
    encode_masks,
    merge_rles,
    rle_area,
    rle_areas,
    rle_box,
    rle_boxes,
    rle_common_areas,
    rle_from_json,
    rle_iou,
    rle_to_json,
)

sides = st.integers(1, 40)
single = hnp.arrays(np.bool_, st.tuples(sides, sides))
stacks = hnp.arrays(np.bool_, st.tuples(st.integers(0, 4), sides, sides))


def _blobs(seed: int, count: int, size: tuple[int, int]) -> np.ndarray:
    """Masks with long and short runs, as hypothesis seldom draws them."""
    random = np.random.default_rng(seed)
    masks = np.zeros((count, *size), dtype=bool)
    for mask in masks:
        y, x = random.integers(0, size[0]), random.integers(0, size[1])
        mask[y : y + random.integers(1, size[0]), x : x + random.integers(1, size[1])] = True
        mask ^= random.random(size) < 0.02
    return masks


@settings(deadline=None)
@given(stacks)
def test_round_trip(masks: np.ndarray) -> None:
    rles = encode_masks(masks)
    assert len(rles) == len(masks)
    back = decode_rles(rles, masks.shape[1:])
    assert back.dtype == np.bool_
    assert back.flags.c_contiguous
    np.testing.assert_array_equal(back, masks)


@settings(deadline=None)
@given(single)
def test_single_round_trip(mask: np.ndarray) -> None:
    rle = encode_mask(mask)
    assert rle.size == mask.shape
    np.testing.assert_array_equal(decode_rle(rle), mask)
    assert rle_area(rle) == mask.sum()
    assert rle.is_empty == (not mask.any())
    np.testing.assert_array_equal(rle_box(rle), mask_to_box(mask))


def test_large_masks_and_any_memory_layout() -> None:
    masks = _blobs(0, 6, (211, 307))
    expected = encode_masks(masks)
    for twin in (
        np.asfortranarray(masks),
        masks[::-1][::-1],
        np.repeat(masks, 2, axis=2)[..., ::2],
    ):
        assert encode_masks(twin) == expected
    np.testing.assert_array_equal(decode_rles(expected, (211, 307)), masks)


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = _blobs(1, 7, (20, 30))
    expected = encode_masks(masks)
    for limit in (1, 20 * 30 * 2, 20 * 30 * 3):
        monkeypatch.setattr(rle_module, "_COPY_BYTES", limit)
        assert encode_masks(masks) == expected


@settings(deadline=None)
@given(stacks)
def test_areas_and_boxes(masks: np.ndarray) -> None:
    rles = encode_masks(masks)
    assert rle_areas(rles).tolist() == masks.sum(axis=(1, 2)).tolist()
    boxes = rle_boxes(rles)
    assert boxes.dtype == np.int64
    assert boxes.shape == (len(masks), 4)
    np.testing.assert_array_equal(boxes, mask_to_box(masks))


@settings(deadline=None)
@given(sides, sides, st.integers(0, 2**32 - 1))
def test_iou_equals_the_dense_one(height: int, width: int, seed: int) -> None:
    masks = np.random.default_rng(seed).random((5, height, width)) < 0.4
    masks[4] = False
    iou = rle_iou(encode_masks(masks[:3]), encode_masks(masks[2:]))
    a, b = masks[:3, None], masks[None, 2:]
    union = (a | b).sum((2, 3))
    expected = (a & b).sum((2, 3)) / np.maximum(union, 1)
    np.testing.assert_allclose(iou, expected, atol=1e-12)


def test_iou_of_none_and_of_empty_masks() -> None:
    rles = encode_masks(np.zeros((2, 3, 4), dtype=bool))
    assert rle_iou(rles, rles).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert rle_iou([], rles).shape == (0, 2)
    assert rle_iou(rles, []).shape == (2, 0)


@settings(deadline=None)
@given(stacks)
def test_union(masks: np.ndarray) -> None:
    size = masks.shape[1:]
    union = merge_rles(encode_masks(masks), size)
    assert union.size == size
    np.testing.assert_array_equal(decode_rle(union), masks.any(axis=0))


@settings(deadline=None)
@given(single)
def test_decoding_agrees_with_pycocotools_and_warns_of_nothing(mask: np.ndarray) -> None:
    """Its `decode` makes numpy 2 raise a DeprecationWarning in every user's own tests."""
    rle = encode_mask(mask)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoded = decode_rle(rle)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = coco.decode({"size": list(rle.size), "counts": rle.counts})
    np.testing.assert_array_equal(decoded, theirs.astype(bool))


def test_a_damaged_code_is_not_decoded() -> None:
    with pytest.raises(ValueError, match="damaged RLE"):
        decode_rle(RLE((4, 4), b"1"))


@settings(deadline=None)
@given(single)
def test_json_round_trip(mask: np.ndarray) -> None:
    rle = encode_mask(mask)
    assert rle_from_json(json.loads(json.dumps(rle_to_json(rle)))) == rle
    assert rle_from_json({"size": mask.shape, "counts": rle.counts}) == rle


@pytest.mark.parametrize("seed", range(5))
def test_json_round_trip_of_large_masks(seed: int) -> None:
    for mask in _blobs(seed, 3, (611, 1307)):
        rle = encode_mask(mask)
        assert rle_from_json(rle_to_json(rle)) == rle


@settings(deadline=None)
@given(single)
def test_uncompressed_counts(mask: np.ndarray) -> None:
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    if flat[0]:
        runs = [0, *runs]
    assert rle_from_json({"size": list(mask.shape), "counts": runs}) == encode_mask(mask)


def test_a_code_by_hand() -> None:
    mask = np.zeros((3, 2), dtype=bool)
    mask[1, 0] = True
    rle = rle_from_json({"size": [3, 2], "counts": [1, 1, 4]})
    assert rle == encode_mask(mask)
    assert rle_to_json(rle) == {"size": [3, 2], "counts": "114"}


def test_rles_are_values() -> None:
    rle = encode_mask(np.eye(5, dtype=bool))
    assert len({rle, encode_mask(np.eye(5, dtype=bool))}) == 1
    assert pickle.loads(pickle.dumps(rle)) == rle
    assert RLE([5, np.int64(5)], rle.counts) == rle  # type: ignore[arg-type]
    assert type(RLE((np.int64(5), 5), rle.counts).size[0]) is int  # type: ignore[arg-type]


def test_nothing_in_nothing_out() -> None:
    assert encode_masks(np.zeros((0, 3, 4), dtype=bool)) == []
    assert decode_rles([], (3, 4)).shape == (0, 3, 4)
    assert rle_areas([]).shape == (0,)
    assert rle_boxes([]).shape == (0, 4)
    assert rle_area(merge_rles([], (3, 4))) == 0


@pytest.mark.parametrize(
    "value",
    [
        {"size": [3, 2], "counts": ""},
        {"size": [3, 2], "counts": "11"},  # two pixels of six
        {"size": [3, 2], "counts": "1144"},  # more than six
        {"size": [3, 2], "counts": "11P"},  # says that more follows
        {"size": [3, 2], "counts": "11\x00"},
        {"size": [3, 2], "counts": "11é"},
        {"size": [3, 2], "counts": "o" * 20 + "0"},  # a run beyond 32 bits
        {"size": [3, 2], "counts": "N28"},  # a negative run; the sum is right
        {"size": [3, 2], "counts": b"\xff\xff"},
        {"size": [3, 2], "counts": [1, 1, 5]},
        {"size": [3, 2], "counts": []},
        {"size": [3, 2], "counts": [-1, 7]},
        {"size": [3, 2], "counts": [1.5, 4.5]},
        {"size": [3, 2], "counts": [2**70]},
        {"size": [3, 2], "counts": None},
        {"size": [3, 0], "counts": "0"},
        {"size": [3], "counts": "3"},
        {"size": "32", "counts": "6"},
        {"size": [2**20, 2**20], "counts": "1"},
        {"size": [3, 2]},
        {},
        [1, 2],
        None,
    ],
)
def test_damaged_json_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"RLE|rle_from_json|mask size"):
        rle_from_json(value)


@settings(deadline=None)
@given(st.binary(max_size=60), sides, sides)
def test_random_codes_are_refused_or_sound(code: bytes, height: int, width: int) -> None:
    try:
        rle = rle_from_json({"size": [height, width], "counts": code})
    except ValueError:
        return
    assert decode_rle(rle).sum() == rle_area(rle)


@settings(deadline=None)
@given(single, st.data())
def test_cut_codes_are_refused(mask: np.ndarray, data: st.DataObject) -> None:
    value = rle_to_json(encode_mask(mask))
    keep = data.draw(st.integers(0, len(value["counts"]) - 1))
    with pytest.raises(ValueError, match="damaged RLE"):
        rle_from_json({**value, "counts": value["counts"][:keep]})


@pytest.mark.parametrize(
    "masks",
    [
        np.zeros((2, 3, 4)),
        np.zeros((2, 3, 4), np.uint8),
        np.zeros((3, 4), bool),
        np.zeros((2, 0, 4), bool),
    ],
)
def test_encode_masks_refuses(masks: np.ndarray) -> None:
    with pytest.raises(ValueError, match="wanted"):
        encode_masks(masks)


def test_encode_mask_refuses_stacks() -> None:
    with pytest.raises(ValueError, match="use encode_masks"):
        encode_mask(np.zeros((1, 3, 4), dtype=bool))


def test_mixed_sizes_are_refused() -> None:
    a, b = encode_mask(np.ones((3, 4), dtype=bool)), encode_mask(np.ones((4, 3), dtype=bool))
    for call in (
        lambda: decode_rles([a, b], (3, 4)),
        lambda: merge_rles([a, b], (3, 4)),
        lambda: rle_iou([a], [b]),
    ):
        with pytest.raises(ValueError, match=r"size \(4, 3\); wanted \(3, 4\)"):
            call()


def test_counts_must_be_bytes() -> None:
    with pytest.raises(ValueError, match="rle_from_json"):
        RLE((3, 4), "114")  # type: ignore[arg-type]


def test_a_thousand_masks_have_areas_and_boxes() -> None:
    masks = np.random.default_rng(0).random((1000, 5, 6)) > 0.5
    rles = encode_masks(masks)
    np.testing.assert_array_equal(rle_areas(rles), masks.sum((1, 2)))
    assert rle_boxes(rles).shape == (1000, 4)


def test_common_areas_are_those_of_the_arrays() -> None:
    masks = np.random.default_rng(1).random((7, 40, 30)) > 0.7
    masks[3] = False
    rles = encode_masks(masks)
    expected = [[int((a & b).sum()) for b in masks[:4]] for a in masks]
    np.testing.assert_array_equal(rle_common_areas(rles, rles[:4]), expected)
    assert rle_common_areas([], rles).shape == (0, 7)
