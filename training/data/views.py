"""From a photo to a view: scaled, cropped, mirrored, with some of its masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from torch import Tensor

from textsam.values.rle import rle_box

from .cut import draw_cut
from .sample import Sample


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """How a photo is shown to the network.

    `scale` is the range of large-scale jitter: with `jitter` probability the long side becomes that
    share of the frame and a random window of the frame's size is cut out. The defaults suit small
    photos; the paper's numbers are `large_scale_jitter()` and `unchanged()`.
    """

    image_size: int = 384  # Side S of the model's frame, pixels
    # Most masks of a photo. The paper has up to 64 a GPU (Appendix A): with k photos on a GPU
    # that is 64 // k. It is counted per photo so that a batch does not depend on the number of
    # GPUs.
    max_masks: int = 5
    jitter: float = 0.5  # Probability of scaling and cutting
    scale: tuple[float, float] = (0.5, 1.8)  # Range of the long side, as a share of S
    # Probability of cutting a window around one of the objects instead, as `photo.zoom` does in
    # use: its side is 1.15 to 2.6 times the long side of the object's box
    focus: float = 0.0
    flip: float = 0.5  # Probability of mirroring
    # Brightness, contrast and saturation are scaled by a random factor of 1 - colour to 1 +
    # colour each. The paper has none.
    colour: float = 0.0
    min_area: int = 40  # Masks with fewer pixels in the frame are dropped
    max_share: float = 0.9  # Masks over this share of the picture are dropped (Appendix A: 90%)

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale={self.scale}; wanted 0 < low <= high, e.g. (0.1, 2.0)")
        if min(self.image_size, self.max_masks) < 1 or self.min_area < 0:
            raise ValueError(
                f"image_size={self.image_size}, max_masks={self.max_masks}, min_area="
                f"{self.min_area}; wanted at least 1, 1 and 0"
            )
        for name in ("jitter", "focus", "flip", "colour", "max_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}; wanted a share, 0 to 1")

    @classmethod
    def large_scale_jitter(cls, *, image_size: int = 1024, max_masks: int = 64) -> ViewConfig:
        """The paper's view of manually annotated data: every photo at [0.1, 2.0] (Appendix A)."""
        return cls(image_size=image_size, max_masks=max_masks, jitter=1.0, scale=(0.1, 2.0))

    @classmethod
    def unchanged(cls, *, image_size: int = 1024, max_masks: int = 64) -> ViewConfig:
        """The paper's view of SA-1B: the whole photo, no augmentation (Appendix A)."""
        return cls(image_size=image_size, max_masks=max_masks, jitter=0.0, flip=0.0)


@dataclass(frozen=True, kw_only=True)
class View:
    """One augmented photo in the model frame."""

    pixels: Tensor  # (3, h, w) uint8, h and w at most S
    masks: Tensor  # (M, S, S) bool, padded like the image
    void: Tensor  # (S, S) bool, pixels without a truth
    objects: tuple[int, ...]  # index of each mask's object in the sample
    flipped: bool  # whether the view is mirrored


def make_view(
    sample: Sample,
    rng: np.random.Generator,
    *,
    config: ViewConfig,
    candidates: Sequence[int] | None = None,
) -> View | None:
    """Scale, cut and mirror a photo with a random choice of its masks.

    Returns:
        The view, or None when no mask of a useful size is left in it.
    """
    side = config.image_size
    if candidates is None:
        candidates = [i for i, o in enumerate(sample.objects) if not o.ignore]
    share = rng.uniform(*config.scale) if rng.random() < config.jitter else 1.0
    around: Sequence[float] | None = None
    if config.focus and len(candidates) and rng.random() < config.focus:
        one = sample.objects[candidates[int(rng.integers(len(candidates)))]]
        around = [float(value) for value in rle_box(one.rle)]
    cut = draw_cut(sample.size, rng, side=side, share=share, around=around, flip=config.flip)
    masks: list[NDArray[np.bool_]] = []
    chosen: list[int] = []
    # In random order: `max_masks` keeps the first ones of a useful size.
    for index in rng.permutation(np.asarray(candidates, dtype=np.int64)).tolist():
        mask = cut.mask(sample.objects[index].rle)
        if config.min_area <= mask.sum() <= config.max_share * cut.window[0] * cut.window[1]:
            masks.append(_pad(mask, side))
            chosen.append(index)
        if len(masks) == config.max_masks:
            break
    if not masks:
        return None
    # Only after the masks: most of the time of a view without any is saved.
    void = np.zeros(cut.window, bool) if sample.void is None else cut.mask(sample.void)
    return View(
        pixels=torch.from_numpy(_tinted(cut.picture(sample.open()), rng, config.colour)).permute(
            2, 0, 1
        ),
        masks=torch.from_numpy(np.stack(masks)),
        void=torch.from_numpy(_pad(void, side)),
        objects=tuple(chosen),
        flipped=cut.mirror,
    )


def _tinted(
    picture: NDArray[np.uint8], rng: np.random.Generator, strength: float
) -> NDArray[np.uint8]:
    """Change brightness, contrast and saturation of (h, w, 3)."""
    if not strength:
        return picture
    image = Image.fromarray(picture)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(rng.uniform(1 - strength, 1 + strength))
    return np.array(image)


def _pad(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    height, width = mask.shape
    return np.pad(mask, ((0, side - height), (0, side - width)))
