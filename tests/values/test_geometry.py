"""Frames invert, boxes convert there and back, and numpy and torch agree."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from textsam.values.geometry import (
    Frame,
    boxes_from_xywh,
    boxes_to_xywh,
    clip_boxes,
    is_tensor,
    mask_to_box,
)

sides = st.integers(1, 3000)
frames = st.builds(
    Frame,
    height=sides,
    width=sides,
    image_size=st.sampled_from([64, 384, 1024]),
    stretched=st.booleans(),
)
coordinates = st.floats(-100, 4000, width=32)
masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=3, max_side=9))


@pytest.mark.parametrize(
    ("size", "resized"),
    [
        ((480, 640), (768, 1024)),
        ((640, 480), (1024, 768)),
        ((1200, 1800), (683, 1024)),
        ((1024, 1024), (1024, 1024)),
        ((5, 7), (731, 1024)),
        ((1, 5000), (1, 1024)),  # would round to no row at all
    ],
)
def test_resized_rounds_as_the_released_code(
    size: tuple[int, int], resized: tuple[int, int]
) -> None:
    frame = Frame(height=size[0], width=size[1], image_size=1024)
    assert frame.resized == resized
    assert frame.size == size
    assert frame.padding == (1024 - resized[0], 1024 - resized[1])


@settings(deadline=None)
@given(frames)
def test_the_long_side_fills_the_square(frame: Frame) -> None:
    assert max(frame.resized) == frame.image_size
    assert min(frame.resized) >= 1
    assert min(frame.padding) == 0


@settings(deadline=None)
@given(sides, sides)
def test_a_stretched_frame_is_full(height: int, width: int) -> None:
    frame = Frame(height=height, width=width, image_size=96, stretched=True)
    assert frame.resized == (96, 96) and frame.padding == (0, 0) and frame.covered(24) == (24, 24)


@settings(deadline=None)
@given(frames, st.sampled_from([16, 64, 100]))
def test_cells_cover_what_pixels_cover(frame: Frame, size: int) -> None:
    for cells, pixels in zip(frame.covered(size), frame.resized, strict=True):
        assert 1 <= cells <= size
        assert abs(cells - pixels * size / frame.image_size) <= 1


@settings(deadline=None)
@given(frames, hnp.arrays(np.float32, (6, 2), elements=coordinates))
def test_points_go_there_and_back(frame: Frame, points: np.ndarray) -> None:
    back = frame.points_to_original(frame.points_to_model(points))
    np.testing.assert_allclose(back, points, rtol=1e-5, atol=1e-4)


@settings(deadline=None)
@given(frames, hnp.arrays(np.float64, (2, 3, 4), elements=coordinates))
def test_a_box_is_two_points_and_goes_there_and_back(frame: Frame, boxes: np.ndarray) -> None:
    moved = frame.boxes_to_model(boxes)
    np.testing.assert_array_equal(
        moved, frame.points_to_model(boxes.reshape(2, 3, 2, 2)).reshape(2, 3, 4)
    )
    np.testing.assert_allclose(frame.boxes_to_original(moved), boxes, rtol=1e-12, atol=1e-9)


@settings(deadline=None)
@given(frames)
def test_corners_meet_corners(frame: Frame) -> None:
    h, w = frame.resized
    whole = np.array([0, 0, frame.width, frame.height], dtype=np.float64)
    np.testing.assert_allclose(frame.boxes_to_model(whole), [0, 0, w, h], rtol=1e-12)


@settings(deadline=None)
@given(frames, hnp.arrays(np.float32, (3, 2), elements=coordinates))
def test_torch_agrees_with_numpy(frame: Frame, points: np.ndarray) -> None:
    moved = frame.points_to_model(torch.from_numpy(points))
    assert moved.dtype == torch.float32
    np.testing.assert_allclose(moved.numpy(), frame.points_to_model(points), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int32])
def test_integers_become_float32(dtype: type) -> None:
    frame = Frame(height=10, width=20, image_size=30)
    points = np.array([[3, 4]], dtype=dtype)
    assert frame.points_to_model(points).dtype == np.float32
    assert frame.points_to_model(torch.from_numpy(points)).dtype == torch.float32
    np.testing.assert_array_equal(points, [[3, 4]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_dtypes_stay_and_gradients_flow(dtype: torch.dtype) -> None:
    frame = Frame(height=10, width=20, image_size=40)
    points = torch.tensor([[3.0, 4.0]], dtype=dtype, requires_grad=True)
    moved = frame.points_to_model(points)
    assert moved.dtype == dtype
    moved.sum().backward()
    assert points.grad is not None
    assert points.grad.tolist() == [[2.0, 2.0]]


def test_plain_lists_are_taken() -> None:
    frame = Frame(height=10, width=20, image_size=40)
    assert frame.points_to_model([(1, 2)]).tolist() == [[2.0, 4.0]]  # type: ignore[type-var]


@pytest.mark.parametrize("side", [0, -1, 1.5, True, "480", None])
@pytest.mark.parametrize("name", ["height", "width", "image_size"])
def test_sizes_that_no_image_has_are_refused(name: str, side: Any) -> None:
    sizes = {"height": 4, "width": 5, "image_size": 6, name: side}
    with pytest.raises(ValueError, match=name):
        Frame(**sizes)


def test_frames_are_values() -> None:
    frame = Frame(height=np.int32(4), width=np.int64(5), image_size=6)  # type: ignore[arg-type]
    assert frame == Frame(height=4, width=5, image_size=6)
    assert type(frame.height) is int
    assert len({frame, Frame(height=4, width=5, image_size=6)}) == 1


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_wrong_last_axes_are_refused(shape: tuple[int, ...]) -> None:
    frame = Frame(height=4, width=5, image_size=6)
    for function in (frame.points_to_model, frame.boxes_to_model, boxes_from_xywh):
        for values in (np.zeros(shape), torch.zeros(shape)):
            with pytest.raises(ValueError, match="shape"):
                function(values)


@settings(deadline=None)
@given(hnp.arrays(np.int64, (5, 4), elements=st.integers(-1000, 1000)))
def test_xywh_there_and_back(boxes: np.ndarray) -> None:
    before = boxes.copy()
    np.testing.assert_array_equal(boxes_to_xywh(boxes_from_xywh(boxes)), boxes)
    np.testing.assert_array_equal(boxes, before)
    twin = torch.from_numpy(boxes)
    np.testing.assert_array_equal(boxes_to_xywh(twin).numpy(), boxes_to_xywh(boxes))


def test_xywh_by_hand() -> None:
    assert boxes_from_xywh(np.array([10, 20, 3, 4])).tolist() == [10, 20, 13, 24]
    assert boxes_to_xywh(torch.tensor([[10, 20, 13, 24]])).tolist() == [[10, 20, 3, 4]]


@settings(deadline=None)
@given(hnp.arrays(np.float32, (5, 4), elements=st.floats(-50, 50, width=32)), sides, sides)
def test_clipping_stays_inside_and_is_idempotent(boxes: np.ndarray, h: int, w: int) -> None:
    clipped = clip_boxes(boxes, (h, w))
    assert clipped.dtype == np.float32
    assert (clipped >= 0).all()
    assert (clipped[:, 0::2] <= w).all()
    assert (clipped[:, 1::2] <= h).all()
    np.testing.assert_array_equal(clip_boxes(clipped, (h, w)), clipped)
    np.testing.assert_array_equal(clip_boxes(torch.from_numpy(boxes), (h, w)).numpy(), clipped)


@settings(deadline=None)
@given(masks)
def test_mask_to_box_is_tight(mask: np.ndarray) -> None:
    boxes = mask_to_box(mask)
    assert boxes.dtype == np.int64
    assert boxes.shape == (*mask.shape[:-2], 4)
    tensors = mask_to_box(torch.from_numpy(mask))
    assert tensors.dtype == torch.int64
    np.testing.assert_array_equal(tensors.numpy(), boxes)
    for index in itertools.product(*map(range, mask.shape[:-2])):
        rows, columns = np.nonzero(mask[index])
        if len(rows) == 0:
            expected = [0, 0, 0, 0]
        else:
            expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert boxes[index].tolist() == expected


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_mask_to_box_of_nothing(shape: tuple[int, ...]) -> None:
    boxes = mask_to_box(np.zeros(shape, dtype=bool))
    assert boxes.shape == (shape[0], 4)
    assert not boxes.any()
    assert mask_to_box(torch.zeros(shape, dtype=torch.bool)).shape == (shape[0], 4)


@pytest.mark.parametrize(
    "mask", [np.zeros((3, 4)), torch.zeros(3, 4), np.zeros((3, 4), np.uint8), np.zeros(3, bool)]
)
def test_mask_to_box_wants_bool(mask: Any) -> None:
    with pytest.raises(ValueError, match="wanted bool"):
        mask_to_box(mask)


def test_is_tensor() -> None:
    assert is_tensor(torch.zeros(1))
    assert not is_tensor(np.zeros(1))
