"""Run-length masks moved between a big picture and its parts, without a dense picture in between.

A dense mask of a 100-megapixel photo takes 100 MB; its run-length code, some kilobytes. Everything
here works on the runs of a mask, which lie in the columns that the mask itself spans, or decodes
one band of columns at a time.

Windows are half-open (x0, y0, x1, y1), whole pixels of the big picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from textsam.values.rle import RLE, encode_mask, merge_rles, rle_area, rle_box, rle_runs

__all__ = [
    "common_area",
    "crop_rle",
    "enlarge_rle",
    "intersect_rles",
    "paste_rle",
    "subtract_rle",
]

# What a band of columns of an enlarged mask may take, with its float32 intermediate values.
_BAND_BYTES = 16 * 1024 * 1024


class _Pieces(NamedTuple):
    """The runs of a mask, cut at the ends of columns; each array is (R,) int64.

    Attributes:
        column: Where the run is.
        top: Its first row.
        bottom: The row after its last one.
    """

    column: NDArray[np.int64]
    top: NDArray[np.int64]
    bottom: NDArray[np.int64]


def paste_rle(rle: RLE, x: int, y: int, *, size: tuple[int, int]) -> RLE:
    """Put the mask of a part into a big picture, which is empty elsewhere.

    Args:
        rle: A mask of (h, w).
        x: Column of the big picture at which the part begins.
        y: Row.
        size: (H, W) of the big picture.

    Raises:
        ValueError: The part does not lie inside.
    """
    height, width = rle.size
    _check_inside((x, y, x + width, y + height), size)
    pieces = _pieces(rle)
    return _encode(
        _Pieces(pieces.column + x, pieces.top + y, pieces.bottom + y),
        size,
    )


def crop_rle(rle: RLE, window: tuple[int, int, int, int]) -> RLE:
    """Cut a window out of a mask.

    Returns:
        A mask of the window's size.

    Raises:
        ValueError: The window is empty, or does not lie inside.
    """
    x0, y0, x1, y1 = (int(side) for side in window)
    _check_inside((x0, y0, x1, y1), rle.size)
    pieces = _pieces(rle)
    top, bottom = pieces.top.clip(y0, y1), pieces.bottom.clip(y0, y1)
    inside = (pieces.column >= x0) & (pieces.column < x1) & (bottom > top)
    return _encode(
        _Pieces(pieces.column[inside] - x0, top[inside] - y0, bottom[inside] - y0),
        (y1 - y0, x1 - x0),
    )


def intersect_rles(rles: Sequence[RLE]) -> RLE:
    """What one or more masks of one size have in common.

    Raises:
        ValueError: No masks, or of several sizes.
    """
    sizes = {rle.size for rle in rles}
    if len(sizes) != 1:
        raise ValueError(f"intersect_rles: got masks of sizes {sorted(sizes)}; wanted one size")
    code = coco.merge([_to_coco(rle) for rle in rles], intersect=True)
    return RLE(rles[0].size, code["counts"])


def common_area(a: RLE, b: RLE) -> int:
    """Pixels that two masks of one size share.

    Raises:
        ValueError: They are of two sizes.
    """
    return rle_area(intersect_rles([a, b]))


def subtract_rle(rle: RLE, others: Sequence[RLE]) -> RLE:
    """The mask without the pixels of others.

    Raises:
        ValueError: They are not of one size.
    """
    if not others:
        return rle
    taken = rle_runs(merge_rles(others, rle.size))
    # Runs alternate, zeros first: one empty run put before them turns zeros into ones.
    free = taken[1:] if taken[0] == 0 else np.concatenate([[0], taken])
    return intersect_rles([rle, _from_runs(free, rle.size)])


def enlarge_rle(rle: RLE, size: tuple[int, int]) -> RLE:
    """The mask of a shrunk picture as one of the picture itself.

    Bilinear between the middles of pixels, cut at one half: outlines are slanted where nearest
    neighbours would make stairs. Decoded a band of columns at a time.

    Args:
        rle: A mask of (h, w).
        size: (H, W), each at least as large.

    Raises:
        ValueError: It would be shrunk.
    """
    if size == rle.size:
        return rle
    (h, w), (height, width) = rle.size, size
    if height < h or width < w:
        raise ValueError(f"enlarge_rle: got a mask of {rle.size} and size {size}; wanted a larger")
    x0, y0, x1, y1 = (int(side) for side in rle_box(rle))
    if x1 == x0:
        return _encode(_pieces(rle), size)
    small = _with_border(rle, (x0, y0, x1, y1))
    # Half a pixel around the box is all that interpolation can reach.
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
        found = _pieces(encode_mask(filled))
        parts.append(_Pieces(found.column + start, found.top + top, found.bottom + top))
    return _encode(_Pieces(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True))), size)


def _with_border(rle: RLE, box: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """The mask inside its box as 0 and 1, with a border of one pixel.

    The border shows what is there: nothing, or beyond the picture's edge the edge once more.
    """
    h, w = rle.size
    x0, y0, x1, y1 = box
    inner = coco.decode(_to_coco(crop_rle(rle, box))).astype(np.float32)
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
    """Pixels of the large picture that a range of the small one can colour."""
    return max(0, int((start - 0.5) * scale)), min(limit, int(np.ceil((end + 0.5) * scale)))


def _between(
    places: NDArray[np.int64], scale: float, start: int, *, last: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For pixels of the large picture: the bordered small pixel before each, and how far past."""
    source = ((places + 0.5) * scale - 0.5 - (start - 1)).clip(0, last)
    before = np.floor(source).astype(np.int64).clip(max=last - 1)
    return before, (source - before).astype(np.float32)


def _pieces(rle: RLE) -> _Pieces:
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
    return _Pieces(column, top, bottom)


def _encode(pieces: _Pieces, size: tuple[int, int]) -> RLE:
    """Pieces in the order of columns and rows, apart from each other, as a mask (H, W)."""
    height, width = size
    starts = pieces.column * height + pieces.top
    ends = pieces.column * height + pieces.bottom
    apart = np.flatnonzero(starts[1:] > ends[:-1])
    starts = starts[np.concatenate([[0], apart + 1])] if len(starts) else starts
    ends = np.concatenate([ends[apart], ends[-1:]])
    edges = np.stack([starts, ends], axis=1).ravel()
    runs = np.diff(np.concatenate([[0], edges, [height * width]]))
    # As pycocotools itself encodes: no empty run at the end.
    return _from_runs(runs[:-1] if runs[-1] == 0 else runs, size)


def _from_runs(runs: NDArray[np.int64], size: tuple[int, int]) -> RLE:
    code = coco.frPyObjects({"size": list(size), "counts": runs}, *size)
    return RLE(size, code["counts"])


def _check_inside(window: tuple[int, int, int, int], size: tuple[int, int]) -> None:
    x0, y0, x1, y1 = window
    if not (0 <= x0 < x1 <= size[1] and 0 <= y0 < y1 <= size[0]):
        raise ValueError(
            f"got window {window}; wanted x0, y0, x1, y1 inside a mask of {size} (height, width)"
        )


def _to_coco(rle: RLE) -> dict[str, object]:
    return {"size": list(rle.size), "counts": rle.counts}
