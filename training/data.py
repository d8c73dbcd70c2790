"""Photos with masks: the Parquet schema of textsam, and how a photo becomes a training view.

A row has `image` (bytes), `image_id`, `source`, `license`, `height`, `width`, `exhaustive`, `void`
(COCO counts or null) and `objects`: `label`, `kind`, `rle` (COCO counts), `area`, `bbox`, `ignore`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from textsam.images import load_image
from textsam.rle import RLE, decode_rle, rle_area

__all__ = ["ObjectMask", "Sample", "View", "ViewConfig", "load_samples", "make_view"]


@dataclass(frozen=True, kw_only=True)
class ObjectMask:
    """One annotated object: its name, kind (thing, stuff, part, salient) and mask."""

    label: str
    kind: str
    rle: RLE
    ignore: bool


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One photo with its masks; `exhaustive` means that a label not listed is absent."""

    image_id: str
    source: str
    encoded: bytes
    size: tuple[int, int]
    exhaustive: bool
    void: RLE | None
    objects: tuple[ObjectMask, ...]

    def image(self) -> NDArray[np.uint8]:
        """Decode to (H, W, 3) uint8 RGB."""
        return load_image(self.encoded)

    def void_mask(self) -> NDArray[np.bool_]:
        """Pixels to ignore, (H, W) bool."""
        return np.zeros(self.size, dtype=bool) if self.void is None else decode_rle(self.void)


def load_samples(paths: Sequence[Path | str]) -> list[Sample]:
    """Read Parquet files of the schema above; images stay encoded until they are asked for.

    Raises:
        ValueError: If a file lacks a column that the schema names.
    """
    samples: list[Sample] = []
    for path in paths:
        table = pq.read_table(path)
        missing = {"image", "image_id", "height", "width", "exhaustive", "void", "objects"}
        missing -= set(table.column_names)
        if missing:
            raise ValueError(
                f"{path} has no column {sorted(missing)}: it is not a file of photos with masks"
            )
        samples.extend(_sample(row) for row in table.to_pylist())
    return samples


def _sample(row: dict[str, Any]) -> Sample:
    size = (row["height"], row["width"])
    return Sample(
        image_id=row["image_id"],
        source=row.get("source") or "",
        encoded=row["image"]["bytes"],
        size=size,
        exhaustive=row["exhaustive"],
        void=None if row["void"] is None else RLE(size, row["void"].encode()),
        objects=tuple(
            ObjectMask(
                label=o["label"],
                kind=o["kind"],
                rle=RLE(size, o["rle"].encode()),
                ignore=bool(o["ignore"]),
            )
            for o in row["objects"]
        ),
    )


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """How a photo is shown to the network.

    `scale` is the range of large-scale jitter (the paper: [0.1, 2.0], Appendix A, for manually
    annotated data): with `jitter` probability the long side becomes that share of the frame and a
    random window of the frame's size is cut out.
    """

    image_size: int = 384
    max_masks: int = 5
    jitter: float = 0.5
    scale: tuple[float, float] = (0.5, 1.8)
    flip: float = 0.5
    min_area: int = 40
    max_share: float = 0.9  # Appendix A: masks over 90% of the image are dropped


@dataclass(frozen=True, kw_only=True)
class View:
    """One augmented photo in the model frame.

    Attributes:
        pixels: (3, h, w) uint8, h and w at most S.
        masks: (M, S, S) bool, padded like the image.
        void: (S, S) bool, pixels without a truth.
        objects: Index of each mask's object in the sample.
        flipped: Whether the view is mirrored.
    """

    pixels: Tensor
    masks: Tensor
    void: Tensor
    objects: tuple[int, ...]
    flipped: bool


def make_view(
    sample: Sample,
    rng: np.random.Generator,
    *,
    config: ViewConfig,
    candidates: Sequence[int] | None = None,
) -> View | None:
    """Scale, cut and mirror a photo with a random choice of its masks.

    Args:
        sample: The photo.
        rng: Source of every random choice, so that a seed gives the same view again.
        config: Sizes and probabilities.
        candidates: Indices of objects to choose from; all that are not `ignore` when None.

    Returns:
        The view, or None when no mask of a useful size is left in it.
    """
    side = config.image_size
    height, width = sample.size
    share = rng.uniform(*config.scale) if rng.random() < config.jitter else 1.0
    factor = side * share / max(height, width)
    scaled = (max(1, round(height * factor)), max(1, round(width * factor)))
    window = (min(side, scaled[0]), min(side, scaled[1]))
    top = int(rng.integers(0, scaled[0] - window[0] + 1))
    left = int(rng.integers(0, scaled[1] - window[1] + 1))
    mirror = bool(rng.random() < config.flip)
    box = (left / factor, top / factor, (left + window[1]) / factor, (top + window[0]) / factor)
    box = (box[0], box[1], min(box[2], width), min(box[3], height))

    def warp(picture: Image.Image) -> NDArray[np.uint8]:
        size = (window[1], window[0])
        array = np.asarray(picture.resize(size, Image.Resampling.BILINEAR, box=box))
        return np.array(array[:, ::-1] if mirror else array)

    if candidates is None:
        candidates = [i for i, o in enumerate(sample.objects) if not o.ignore]
    masks: list[NDArray[np.bool_]] = []
    chosen: list[int] = []
    for index in rng.permutation(np.asarray(candidates, dtype=np.int64)):
        mask = _pad(_warp_mask(sample.objects[index].rle, warp), side)
        if config.min_area <= mask.sum() <= config.max_share * window[0] * window[1]:
            masks.append(mask)
            chosen.append(int(index))
        if len(masks) == config.max_masks:
            break
    if not masks:
        return None
    image = Image.open(io.BytesIO(sample.encoded)).convert("RGB")
    void = np.zeros((side, side), bool)
    if sample.void is not None and rle_area(sample.void):
        void = _pad(_warp_mask(sample.void, warp), side)
    return View(
        pixels=torch.from_numpy(warp(image)).permute(2, 0, 1),
        masks=torch.from_numpy(np.stack(masks)),
        void=torch.from_numpy(void),
        objects=tuple(chosen),
        flipped=mirror,
    )


def _warp_mask(rle: RLE, warp: Any) -> NDArray[np.bool_]:
    grey = Image.fromarray(decode_rle(rle).view(np.uint8) * 255)
    return np.asarray(warp(grey)) > 127


def _pad(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    height, width = mask.shape
    return np.pad(mask, ((0, side - height), (0, side - width)))
