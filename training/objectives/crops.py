"""Square crops around the masks of a batch for CLIP (arXiv 2304.02643, Appendix D.5).

Crops are cut out of the view, so a jittered view gives a jittered crop. How far the box is expanded
and whether pixels outside the mask are zeroed is drawn anew for every view, or, for cached
embeddings, taken from a few fixed variants of each mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.clip.mask_crops import sample_crop_options, square_crops

from ..data import View
from ..data.batch import ViewBatch
from .randomness import photo_random

# Appendix D.5: masks of at least 100 x 100 pixels, in photos of 1024.
_LEAST_SIDE = 100 / 1024


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    """Random choices of crops."""

    # Number of fixed variants of each mask, one of which is drawn for each view; None for new
    # choices every time, as in the paper
    variants: int | None = None
    seed: int = 0  # Of the fixed variants

    def __post_init__(self) -> None:
        if self.variants is not None and self.variants < 1:
            raise ValueError(f"variants is {self.variants}; wanted at least 1, or None")


@dataclass(frozen=True, kw_only=True)
class CropOptions:
    """How P crops are cut."""

    expand: NDArray[np.float64]  # (P,) factors from 1 to 2
    zero_outside: NDArray[np.bool_]  # (P,) bool
    # (P,) int64, index of the fixed variant; None for new choices
    variant: NDArray[np.int64] | None


def min_crop_area(image_size: int) -> int:
    """Smallest mask that CLIP embeds, in pixels (Appendix D.5), for `ViewConfig.min_area`."""
    return round((_LEAST_SIDE * image_size) ** 2)


def choose_crops(batch: ViewBatch, *, config: CropConfig) -> CropOptions:
    """Draw the options of every mask of a batch, from its photo's seed."""
    drawn = photo_random(batch, stream="crops").uniform(3).double().numpy()
    if config.variants is None:
        return CropOptions(expand=1 + drawn[:, 0], zero_outside=drawn[:, 1] < 0.5, variant=None)
    variant = np.minimum((drawn[:, 2] * config.variants).astype(np.int64), config.variants - 1)
    expand, zeroed, start = np.empty(len(drawn)), np.empty(len(drawn), bool), 0
    for view, (source, row) in zip(batch.views, batch.origin, strict=True):
        for index in view.objects:
            factors, zeros = variant_options(source, row, index, config=config)
            expand[start], zeroed[start] = factors[variant[start]], zeros[variant[start]]
            start += 1
    return CropOptions(expand=expand, zero_outside=zeroed, variant=variant)


def variant_options(
    source: str, row: int, index: int, *, config: CropConfig
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The fixed variants of object `index` of a source's row: `expand` and `zero_outside` (V,)."""
    if config.variants is None:
        raise ValueError("variants is None: crops are drawn afresh. Type: CropConfig(variants=4)")
    rng = np.random.default_rng((config.seed, crc32(source.encode()), row, index))
    return sample_crop_options(config.variants, rng)


def cut_crops(
    views: Sequence[View], options: CropOptions, *, size: int, chosen: NDArray[np.bool_]
) -> tuple[Tensor, Tensor]:
    """Cut the crops of the `chosen` masks, (P,) bool, out of their views, on the CPU.

    Returns (n, 3, size, size) uint8 and the share of each pixel inside (n, size, size) float32, for
    the n chosen masks in their order; `size` is the side of CLIP's input.
    """
    crops, shares, start = [], [], 0
    for view in views:
        stop = start + len(view.masks)
        rows = np.flatnonzero(chosen[start:stop])
        height, width = view.pixels.shape[1:]
        if len(rows):
            pixels = view.pixels.permute(1, 2, 0).cpu().numpy()
            masks = view.masks[torch.from_numpy(rows).to(view.masks.device), :height, :width]
            crop, share = square_crops(
                np.ascontiguousarray(pixels),
                masks.cpu(),
                size=size,
                expand=options.expand[start + rows],
                zero_outside=options.zero_outside[start + rows],
            )
            crops.append(crop)
            shares.append(share)
        start = stop
    if not crops:
        return torch.empty(0, 3, size, size, dtype=torch.uint8), torch.empty(0, size, size)
    return torch.cat(crops), torch.cat(shares)
