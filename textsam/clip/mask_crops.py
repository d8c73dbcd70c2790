"""Square crops around masks, as CLIP's image tower takes them (arXiv 2304.02643, Appendix D.5)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from textsam.errors import ImageError, PromptError
from textsam.values.geometry import mask_to_box
from textsam.values.rle import RLE, decode_rle

__all__ = ["MaskSource", "crop_batches", "sample_crop_options", "square_crops"]

MaskSource = RLE | NDArray[np.bool_] | Tensor | Sequence[RLE | NDArray[np.bool_] | Tensor]


def sample_crop_options(
    count: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Draw the paper's random `expand`, [1, 2), and `zero_outside` for training (Appendix D.5)."""
    return rng.uniform(1.0, 2.0, count), rng.random(count) < 0.5


def square_crops(
    image: NDArray[np.uint8],
    masks: MaskSource,
    *,
    size: int,
    expand: float | Sequence[float] | NDArray[np.float64] = 1.0,
    zero_outside: bool | Sequence[bool] | NDArray[np.bool_] = False,
    fill: tuple[int, int, int] = (0, 0, 0),
) -> tuple[Tensor, Tensor]:
    """Cut one square around each mask and resize it to CLIP's input.

    The window is square in original pixels and centred on the mask's box; its side is the longer
    side of the box times `expand`. Where it leaves the image, the crop is `fill`.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: (H, W) bool masks or RLEs: one, a sequence of n, or an array or tensor (n, H, W).
        size: Side S of the crops, CLIP pixels.
        expand: Factor of at least 1, one for all or one per mask; the paper trains with 1 to 2.
        zero_outside: Replace the pixels outside the mask by `fill`; one for all or one per mask.
        fill: RGB, 0..255; the paper's zeros by default.

    Returns:
        crops: (n, 3, S, S) uint8 RGB, bicubic with antialias, as CLIP's own preprocessing.
        shares: (n, S, S) float32, the share of each crop pixel that the mask covers, 0..1.

    Raises:
        ImageError: The image is not (H, W, 3) uint8.
        PromptError: A mask has another size, is not boolean or is empty; a factor is below 1; the
            number of factors is not the number of masks.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ImageError(
            f"square_crops: image is {image.dtype} {image.shape}; wanted uint8 (H, W, 3) RGB. "
            "Type: textsam.load_image(source)"
        )
    single = isinstance(masks, RLE) or (isinstance(masks, np.ndarray | Tensor) and masks.ndim == 2)
    sources: list[Any] = [masks] if single else list(masks)  # type: ignore[arg-type]
    factors = _per_mask(expand, len(sources), name="expand")
    zeroed = _per_mask(zero_outside, len(sources), name="zero_outside")
    if not all(math.isfinite(factor) and factor >= 1 for factor in factors):
        raise PromptError(f"expand={expand!r}; wanted factors of at least 1, e.g. 1.5")
    crops = np.empty((len(sources), 3, size, size), dtype=np.uint8)
    shares = np.empty((len(sources), size, size), dtype=np.float32)
    for index, source in enumerate(sources):
        mask = _bool_mask(source, image.shape[:2], index=index)
        window = _square_window(mask_to_box(mask), expand=float(factors[index]))
        inside, pixels = _cut(mask, window, fill=False), _cut(image, window, fill=fill)
        if zeroed[index]:
            # Before resizing, so that no pixel from outside bleeds into the crop.
            pixels[~inside] = fill
        resized = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
        crops[index] = np.asarray(resized).transpose(2, 0, 1)
        # BOX gives the exact covered area when shrinking and the nearest pixel when enlarging, so
        # a share is above zero only where the mask is.
        share = Image.fromarray(inside.astype(np.float32))
        shares[index] = np.asarray(share.resize((size, size), Image.Resampling.BOX))
    return torch.from_numpy(crops), torch.from_numpy(shares)


def crop_batches(
    photos: Iterable[tuple[NDArray[np.uint8], Sequence[RLE]]],
    *,
    size: int,
    expand: float,
    fill: tuple[int, int, int] = (0, 0, 0),
    batch: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut a square around each mask of many photos, as `square_crops`; one batch is in memory."""
    pairs: list[tuple[Tensor, Tensor]] = []
    for image, rles in photos:
        for rle in rles:
            pairs.append(square_crops(image, rle, size=size, expand=expand, fill=fill))
            if len(pairs) == batch:
                yield _concatenate(pairs)
                pairs = []
    if pairs:
        yield _concatenate(pairs)


def _concatenate(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    crops, shares = zip(*pairs, strict=True)
    return torch.cat(crops), torch.cat(shares)


def _per_mask(value: Any, count: int, *, name: str) -> NDArray[Any]:
    """A scalar or one value per mask -> (count,)."""
    values = np.asarray(value)
    if values.shape not in ((), (count,)):
        raise PromptError(
            f"{name} has shape {values.shape} for {count} masks; wanted one value or {count}"
        )
    return np.broadcast_to(values, (count,))


def _bool_mask(source: Any, size: tuple[int, ...], *, index: int) -> NDArray[np.bool_]:
    """A mask in any accepted form -> (H, W) bool with at least one True pixel."""
    if isinstance(source, RLE):
        source = decode_rle(source)
    mask = np.asarray(source.detach().cpu() if isinstance(source, Tensor) else source)
    if mask.dtype != np.bool_:
        raise PromptError(f"mask {index} is {mask.dtype}; wanted bool. Type: mask > 0")
    if mask.shape != size:
        raise PromptError(
            f"mask {index} has shape {mask.shape}, the image {size}; wanted the image's own size"
        )
    if not mask.any():
        raise PromptError(f"mask {index} is empty: there is nothing to crop. Leave out empty masks")
    return mask


def _square_window(box: NDArray[np.int64], *, expand: float) -> tuple[int, int, int]:
    """Half-open box (4,) -> left, top and side of the square window, original pixels."""
    x0, y0, x1, y1 = (int(value) for value in box)
    # Not round(), which rounds halves to even and would make crops of 3 and 5 pixels unlike.
    side = math.floor(max(x1 - x0, y1 - y0) * expand + 0.5)
    left, top = (math.floor((a + b - side) / 2 + 0.5) for a, b in ((x0, x1), (y0, y1)))
    return left, top, side


def _cut(array: NDArray[Any], window: tuple[int, int, int], *, fill: Any) -> NDArray[Any]:
    """Copy a window (side, side, ...) out of (H, W, ...); `fill` where it leaves the array."""
    left, top, side = window
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + side, array.shape[1]), min(top + side, array.shape[0])
    canvas = np.full((side, side, *array.shape[2:]), fill, dtype=array.dtype)
    canvas[y0 - top : y1 - top, x0 - left : x1 - left] = array[y0:y1, x0:x1]
    return canvas
