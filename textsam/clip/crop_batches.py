"""Crops around the masks of many photos, a full batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.clip.masked import square_crops
from textsam.values.rle import RLE

__all__ = ["crop_batches"]


def crop_batches(
    photos: Iterable[tuple[NDArray[np.uint8], Sequence[RLE]]],
    *,
    size: int,
    expand: float,
    fill: tuple[int, int, int] = (0, 0, 0),
    batch: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut a square around each mask; batches go across photos, and only one is in memory.

    Args:
        photos: Images (H, W, 3) uint8 RGB, each with its masks.
        size: Side S of a crop, pixels.
        expand: As `square_crops`.
        fill: As `square_crops`.
        batch: Crops of a batch; the last one may have fewer.

    Yields:
        Crops (n, 3, S, S) uint8 and shares (n, S, S) float32, in the order of the masks.

    Raises:
        ImageError: As `square_crops`.
        PromptError: As `square_crops`.
    """
    crops: list[Tensor] = []
    shares: list[Tensor] = []
    for image, rles in photos:
        for rle in rles:
            crop, share = square_crops(image, rle, size=size, expand=expand, fill=fill)
            crops.append(crop)
            shares.append(share)
            if len(crops) == batch:
                yield torch.cat(crops), torch.cat(shares)
                crops.clear()
                shares.clear()
    if crops:
        yield torch.cat(crops), torch.cat(shares)
