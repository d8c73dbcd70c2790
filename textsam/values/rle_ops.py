"""Operations on run-length masks of large photos, without dense masks of the photo's size.

A dense mask of a 100-megapixel photo takes 100 MB, its run-length code some kilobytes. Functions
here work on the runs, or decode one band of columns at a time. Windows are half-open
(x0, y0, x1, y1), whole pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from textsam.values.rle import (
    RLE,
    coco_code,
    decode_rle,
    encode_mask,
    intersect_rles,
    merge_rles,
    rle_box,
    rle_runs,
)

__all__ = [
    "crop_rle",
    "enlarge_rle",
    "paste_rle",
    "subtract_rle",
]

# Maximum memory of a band of columns of an enlarged mask, with its float32 intermediate values.
_BAND_BYTES = 16 * 1024 * 1024


class _ColumnRuns(NamedTuple):
    """The runs of ones of a mask, split at the ends of columns; each array is (R,) int64."""

    column: NDArray[np.int64]
    top: NDArray[np.int64]
    bottom: NDArray[np.int64]


def paste_rle(rle: RLE, x: int, y: int, *, size: tuple[int, int]) -> RLE:
    """The mask (h, w) of a part of a photo as a mask of the photo, `size` (H, W).

    The part begins at column `x` and row `y`; a ValueError if it does not lie inside the photo.
    """
    height, width = rle.size
    _check_inside((x, y, x + width, y + height), size)
    runs = _column_runs(rle)
    return _encode(
        _ColumnRuns(runs.column + x, runs.top + y, runs.bottom + y),
        size,
    )


def crop_rle(rle: RLE, window: tuple[int, int, int, int]) -> RLE:
    """The part of a mask in a window; a ValueError if the window is empty or lies outside."""
    x0, y0, x1, y1 = (int(side) for side in window)
    _check_inside((x0, y0, x1, y1), rle.size)
    runs = _column_runs(rle)
    top, bottom = runs.top.clip(y0, y1), runs.bottom.clip(y0, y1)
    inside = (runs.column >= x0) & (runs.column < x1) & (bottom > top)
    return _encode(
        _ColumnRuns(runs.column[inside] - x0, top[inside] - y0, bottom[inside] - y0),
        (y1 - y0, x1 - x0),
    )


def subtract_rle(rle: RLE, others: Sequence[RLE]) -> RLE:
    """The mask without the pixels of other masks; a ValueError if the sizes differ."""
    if not others:
        return rle
    taken = rle_runs(merge_rles(others, rle.size))
    # Runs alternate, zeros first: an empty run in front inverts the mask.
    free = taken[1:] if taken[0] == 0 else np.concatenate([[0], taken])
    return intersect_rles([rle, _from_runs(free, rle.size)])


def enlarge_rle(rle: RLE, size: tuple[int, int]) -> RLE:
    """The mask of a downscaled photo at the photo's size (H, W), by bilinear interpolation."""
    if size == rle.size:
        return rle
    (h, w), (height, width) = rle.size, size
    if height < h or width < w:
        raise ValueError(
            f"enlarge_rle: got a mask of {rle.size} and size {size}; wanted a larger one"
        )
    x0, y0, x1, y1 = (int(side) for side in rle_box(rle))
    if x1 == x0:
        return _encode(_column_runs(rle), size)
    small = _with_border(rle, (x0, y0, x1, y1))
    # Interpolation reaches half a pixel beyond the box.
    top, bottom = _reach(y0, y1, height / h, height)
    left, right = _reach(x0, x1, width / w, width)
    row, down = _between(np.arange(top, bottom), h / height, y0, last=len(small) - 1)
    rows = bottom - top
    step = max(1, _BAND_BYTES // (12 * rows))
    parts = []
    for start in range(left, right, step):
        columns = np.arange(start, min(start + step, right))
        column, across = _between(columns, w / width, x0, last=small.shape[1] - 1)
        band = small[:, column] * (1 - across) + small[:, column + 1] * across
        filled = band[row] * (1 - down[:, None]) + band[row + 1] * down[:, None] > 0.5
        runs = _column_runs(encode_mask(filled))
        parts.append(_ColumnRuns(runs.column + start, runs.top + top, runs.bottom + top))
    return _encode(
        _ColumnRuns(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True))), size
    )


def _with_border(rle: RLE, box: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """The mask in its box as 0 and 1, with a border of 0, or of its edge at the photo's edge."""
    h, w = rle.size
    x0, y0, x1, y1 = box
    inner = decode_rle(crop_rle(rle, box)).astype(np.float32)
    small = np.pad(inner, 1)
    if y0 == 0:
        small[0] = small[1]
    if y1 == h:
        small[-1] = small[-2]
    if x0 == 0:
        small[:, 0] = small[:, 1]
    if x1 == w:
        small[:, -1] = small[:, -2]
    return small


def _reach(start: int, end: int, scale: float, limit: int) -> tuple[int, int]:
    """Pixels of the large picture that a range of the small one reaches."""
    return max(0, int((start - 0.5) * scale)), min(limit, int(np.ceil((end + 0.5) * scale)))


def _between(
    places: NDArray[np.int64], scale: float, start: int, *, last: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The pixel of the small bordered picture before each place, and the fraction beyond it."""
    source = ((places + 0.5) * scale - 0.5 - (start - 1)).clip(0, last)
    before = np.floor(source).astype(np.int64).clip(max=last - 1)
    return before, (source - before).astype(np.float32)


def _column_runs(rle: RLE) -> _ColumnRuns:
    edges = rle_runs(rle).cumsum()
    starts, ends = edges[0::2], edges[1::2]
    starts = starts[: len(ends)]
    some = ends > starts
    starts, ends = starts[some], ends[some]
    height = rle.size[0]
    first = starts // height
    spans = (ends - 1) // height - first + 1
    number = np.arange(int(spans.sum())) - np.repeat(spans.cumsum() - spans, spans)
    column = np.repeat(first, spans) + number
    offset = column * height
    top = np.maximum(np.repeat(starts, spans) - offset, 0)
    bottom = np.minimum(np.repeat(ends, spans) - offset, height)
    return _ColumnRuns(column, top, bottom)


def _encode(runs: _ColumnRuns, size: tuple[int, int]) -> RLE:
    """A mask (H, W) of disjoint runs in the order of columns and rows."""
    height, width = size
    starts = runs.column * height + runs.top
    ends = runs.column * height + runs.bottom
    apart = np.flatnonzero(starts[1:] > ends[:-1])
    starts = starts[np.concatenate([[0], apart + 1])] if len(starts) else starts
    ends = np.concatenate([ends[apart], ends[-1:]])
    edges = np.stack([starts, ends], axis=1).ravel()
    lengths = np.diff(np.concatenate([[0], edges, [height * width]]))
    # No empty run at the end, as in codes of pycocotools, so that equal masks have equal codes.
    return _from_runs(lengths[:-1] if lengths[-1] == 0 else lengths, size)


def _from_runs(runs: NDArray[np.int64], size: tuple[int, int]) -> RLE:
    code = coco_code().frPyObjects({"size": list(size), "counts": runs}, *size)
    return RLE(size, code["counts"])


def _check_inside(window: tuple[int, int, int, int], size: tuple[int, int]) -> None:
    x0, y0, x1, y1 = window
    if not (0 <= x0 < x1 <= size[1] and 0 <= y0 < y1 <= size[0]):
        raise ValueError(
            f"got window {window}; wanted x0, y0, x1, y1 inside a mask of {size} (height, width)"
        )
