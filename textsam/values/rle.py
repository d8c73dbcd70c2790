"""Run-length masks in COCO's compressed code, by `pycocotools`.

An `RLE` is an immutable value that can be hashed, compared, pickled and written as JSON. The code
of a 640 x 480 mask takes some hundred bytes, its array 300,000.

Masks are bool; sizes are (H, W) original pixels; boxes are half-open (x0, y0, x1, y1), int64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textsam.values.geometry import boxes_from_xywh

# pycocotools needs masks in column order, so that encoding copies them; this limits the copy of
# 1,000 masks of a 12-megapixel photo.
_COPY_BYTES = 64 * 1024 * 1024

_AREAS_AT_ONCE = 255  # see `rle_areas`

# The C code of pycocotools counts pixels in 32 bits.
_MAX_PIXELS = 2**32 - 1


@cache
def coco_code() -> Any:
    """The module of pycocotools that codes masks.

    Imported at the first mask: `textsam.export.runtime`, whose masks are arrays, needs none.
    """
    from pycocotools import mask

    return mask


@dataclass(frozen=True)
class RLE:
    """A binary mask as a COCO compressed run-length code.

    Attributes:
        size: (H, W) of the mask, original pixels.
        counts: COCO's ASCII code of the runs in column order, the first a run of zeros.

    Raises:
        ValueError: The size is not two positive integers, or the counts are not bytes. The code
            itself is not checked: read codes from outside with `rle_from_json`.
    """

    size: tuple[int, int]
    counts: bytes

    def __post_init__(self) -> None:
        """Make the size a tuple of Python integers."""
        object.__setattr__(self, "size", _checked_size(self.size))
        if not isinstance(self.counts, bytes):
            raise ValueError(
                f"RLE: counts is {type(self.counts).__name__}; wanted bytes. For str or list "
                "counts use rle_from_json"
            )

    @property
    def is_empty(self) -> bool:
        """Whether no pixel is set."""
        return rle_area(self) == 0


def encode_mask(mask: NDArray[np.bool_]) -> RLE:
    """Encode one mask (H, W); a ValueError if it is not bool, or has no pixels."""
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(
            f"encode_mask: got shape {mask.shape}; wanted (H, W). For (K, H, W) use encode_masks"
        )
    return encode_masks(mask[None])[0]


def encode_masks(masks: NDArray[np.bool_]) -> list[RLE]:
    """Encode masks (K, H, W); a ValueError if they are not bool, or have no pixels."""
    masks = np.asarray(masks)
    if masks.dtype != np.bool_:
        raise ValueError(
            f"encode_masks: got {masks.dtype}; wanted bool. "
            "Type: encode_masks(logits > 0), or encode_masks(masks.astype(bool))"
        )
    if masks.ndim != 3:
        raise ValueError(
            f"encode_masks: got shape {masks.shape}; wanted (K, H, W). "
            "For one mask (H, W) use encode_mask"
        )
    size = _checked_size(masks.shape[1:])
    step = max(1, _COPY_BYTES // (size[0] * size[1]))
    rles: list[RLE] = []
    for start in range(0, len(masks), step):
        chunk = masks[start : start + step].view(np.uint8).transpose(1, 2, 0)
        rles += [_from_coco(code) for code in coco_code().encode(np.asfortranarray(chunk))]
    return rles


def decode_rle(rle: RLE) -> NDArray[np.bool_]:
    """Decode one run-length code to a bool mask (H, W), row-major and writable."""
    mask: NDArray[np.bool_] = decode_rles([rle], rle.size)[0]
    return mask


def decode_rles(rles: Sequence[RLE], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode run-length codes to bool masks (K, H, W), row-major and writable; (0, H, W) for none.

    A ValueError if a code is damaged or of another size than `size` (H, W).
    """
    height, width = _check_same_size(rles, size)
    masks = np.empty((len(rles), height, width), dtype=np.bool_)
    for index, rle in enumerate(rles):
        runs = rle_runs(rle)
        # Not `coco.decode`, whose arrays make numpy 2 raise a DeprecationWarning in every caller.
        filled = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        masks[index] = filled.reshape(width, height).T
    return masks


def rle_area(rle: RLE) -> int:
    """Number of true pixels."""
    return int(coco_code().area(_to_coco(rle)))


def rle_areas(rles: Sequence[RLE]) -> NDArray[np.int64]:
    """Number of true pixels of each, (K,) int64."""
    if not rles:
        return np.zeros(0, dtype=np.int64)
    # pycocotools returns the number of masks in a byte, which fails with numpy 2.
    parts = [rles[start : start + _AREAS_AT_ONCE] for start in range(0, len(rles), _AREAS_AT_ONCE)]
    areas = [np.asarray(coco_code().area([_to_coco(rle) for rle in part])) for part in parts]
    return np.concatenate(areas).astype(np.int64)


def rle_box(rle: RLE) -> NDArray[np.int64]:
    """Smallest half-open box around the true pixels, (4,) int64; zeros if there are none."""
    box: NDArray[np.int64] = rle_boxes([rle])[0]
    return box


def rle_boxes(rles: Sequence[RLE]) -> NDArray[np.int64]:
    """Smallest half-open box of each, (K, 4) int64; zeros where no pixel is true."""
    if not rles:
        return np.zeros((0, 4), dtype=np.int64)
    # Whole numbers, although pycocotools returns float64.
    xywh = np.asarray(coco_code().toBbox([_to_coco(rle) for rle in rles])).astype(np.int64)
    boxes = boxes_from_xywh(xywh)
    boxes[(xywh[:, 2:] == 0).any(axis=1)] = 0
    return boxes


def rle_iou(a: Sequence[RLE], b: Sequence[RLE]) -> NDArray[np.float64]:
    """Intersection over union of every pair, (A, B) float64; 0 for two empty masks."""
    if not a or not b:
        return np.zeros((len(a), len(b)), dtype=np.float64)
    _check_same_size([*a, *b], a[0].size)
    left, right = [_to_coco(rle) for rle in a], [_to_coco(rle) for rle in b]
    # iscrowd = 0: plain IoU, not COCO's intersection over the area of the detection.
    return np.asarray(coco_code().iou(left, right, [0] * len(right)), dtype=np.float64)


def rle_common_areas(a: Sequence[RLE], b: Sequence[RLE]) -> NDArray[np.int64]:
    """Pixels that every pair shares, (A, B) int64; a ValueError for different sizes."""
    iou = rle_iou(a, b)  # I / (A + B - I), so that I = iou / (1 + iou) x (A + B)
    total = rle_areas(a)[:, None] + rle_areas(b)[None, :]
    return np.rint(iou / (1 + iou) * total).astype(np.int64)


def merge_rles(rles: Sequence[RLE], size: tuple[int, int]) -> RLE:
    """Union of masks; an empty mask of `size` (H, W) for none. A ValueError for another size."""
    size = _check_same_size(rles, size)
    if not rles:  # pycocotools would return a mask of size 0 x 0
        return encode_mask(np.zeros(size, dtype=np.bool_))
    return _from_coco(coco_code().merge([_to_coco(rle) for rle in rles], intersect=False))


def intersect_rles(rles: Sequence[RLE]) -> RLE:
    """Intersection of masks of one size; a ValueError without a mask or for several sizes."""
    if not rles:
        raise ValueError("intersect_rles: got no mask; wanted at least one")
    _check_same_size(rles, rles[0].size)
    return _from_coco(coco_code().merge([_to_coco(rle) for rle in rles], intersect=True))


def rle_to_json(rle: RLE) -> dict[str, Any]:
    """COCO's JSON form: `{"size": [H, W], "counts": "..."}`."""
    return {"size": list(rle.size), "counts": rle.counts.decode("ascii")}


def rle_from_json(value: Mapping[str, Any]) -> RLE:
    """Read COCO's JSON form and check it.

    Args:
        value: `{"size": [H, W], "counts": ...}`; the counts are a string if compressed, a list of
            runs if not.

    Raises:
        ValueError: Keys are missing, the counts are damaged, or they do not add up to H x W.
    """
    if not isinstance(value, Mapping) or not {"size", "counts"} <= value.keys():
        got = sorted(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
        raise ValueError(
            f'rle_from_json: got {got}; wanted a mapping {{"size": [H, W], "counts": ...}}'
        )
    size, counts = _checked_size(value["size"]), value["counts"]
    # Checked here, because pycocotools reads past the end of its buffer for some damaged codes.
    if isinstance(counts, str | bytes):
        try:
            code = counts.encode("ascii") if isinstance(counts, str) else counts
        except UnicodeEncodeError as error:
            raise ValueError(f"rle_from_json: counts are not ASCII: {error}") from error
        _check_runs(_runs(code), size)
        return RLE(size, code)
    runs = list(_integers(counts))
    _check_runs(np.asarray(runs, dtype=np.int64), size)
    return _from_coco(coco_code().frPyObjects({"size": list(size), "counts": runs}, *size))


def rle_runs(rle: RLE) -> NDArray[np.int64]:
    """Run lengths in column order, zeros first, then ones; a ValueError for a damaged code."""
    runs = _runs(rle.counts)
    _check_runs(runs, rle.size)
    return runs


def _runs(code: bytes) -> NDArray[np.int64]:
    """Run lengths of a compressed code, as `rleFrString` of pycocotools, but with checks.

    Each character has 5 bits of a number, low bits first, and a sixth bit for "more follows"; the
    fifth bit of the last one is the sign. From the fourth run on, the difference to the run two
    places before is stored.
    """
    symbols = np.frombuffer(code, dtype=np.uint8) - np.uint8(48)  # those below 48 wrap around
    if symbols.size == 0 or symbols.max() > 63 or symbols[-1] & 0x20:
        raise ValueError(
            f"damaged RLE: counts {code[:20]!r}... is not a complete COCO compressed code"
        )
    last = np.flatnonzero(symbols < 32)  # the last character of each number
    first = np.concatenate([[0], last[:-1] + 1])
    more = last - first
    if more.max() > 6:  # 7 x 5 bits hold any 32-bit run; more would overflow int64 below
        raise ValueError("damaged RLE: counts hold a run longer than 32 bits")
    values: NDArray[np.int64] = (symbols[first] & 0x1F).astype(np.int64)
    for place in range(1, int(more.max()) + 1):
        longer = np.flatnonzero(more >= place)
        bits = (symbols[first[longer] + place] & 0x1F).astype(np.int64)
        values[longer] |= bits << (5 * place)
    negative = np.flatnonzero(symbols[last] & 0x10)
    values[negative] -= 1 << (5 * (more[negative] + 1))
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    return values


def _check_runs(runs: NDArray[np.int64], size: tuple[int, int]) -> None:
    if (runs < 0).any() or int(runs.sum()) != size[0] * size[1]:
        raise ValueError(
            f"damaged RLE: its runs cover {int(runs.sum())} pixels, the shortest "
            f"{int(runs.min(initial=0))}; size {size} has {size[0] * size[1]}"
        )


def _integers(counts: Any) -> Iterator[int]:
    if not isinstance(counts, Sequence | np.ndarray):
        raise ValueError(
            f"rle_from_json: counts is {type(counts).__name__}; wanted str, bytes or a list of "
            "integers"
        )
    for count in counts:
        whole = isinstance(count, Integral) and not isinstance(count, bool)
        if not whole or not 0 <= int(count) <= _MAX_PIXELS:
            raise ValueError(
                f"rle_from_json: counts hold {count!r}; wanted integers from 0 to {_MAX_PIXELS}"
            )
        yield int(count)


def _checked_size(size: Any) -> tuple[int, int]:
    sides = tuple(size) if isinstance(size, Sequence | np.ndarray) else ()
    if len(sides) != 2 or not all(isinstance(side, Integral) and int(side) > 0 for side in sides):
        raise ValueError(f"got mask size {size!r}; wanted (height, width), two positive integers")
    height, width = int(sides[0]), int(sides[1])
    if height * width > _MAX_PIXELS:
        raise ValueError(
            f"got mask size {(height, width)}: more than {_MAX_PIXELS} pixels; cut it into tiles"
        )
    return height, width


def _check_same_size(rles: Sequence[RLE], size: tuple[int, int]) -> tuple[int, int]:
    size = _checked_size(size)
    for index, rle in enumerate(rles):
        if rle.size != size:
            raise ValueError(
                f"mask {index} has size {rle.size}; wanted {size} (height, width), as all "
                "masks of its image"
            )
    return size


def _to_coco(rle: RLE) -> dict[str, Any]:
    return {"size": list(rle.size), "counts": rle.counts}


def _from_coco(code: Mapping[str, Any]) -> RLE:
    return RLE((code["size"][0], code["size"][1]), code["counts"])
