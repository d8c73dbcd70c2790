"""Edges of a photo, by a model that was never trained on edges.

    from textsam import TextSAM
    from textsam.tasks.edges import edges

    strength = edges(TextSAM.from_pretrained("tiny"), "photo.jpg")  # (H, W), 0 to 1

arXiv 2304.02643, Section 7.2 and Appendix D.2: a 16 x 16 grid of points, three masks each, box NMS
and no other filter; the Sobel filter on every mask's map of probabilities, kept where it meets the
outer boundary of the mask; the maximum over all masks; thinning as in Canny's detector. Where the
paper leaves a choice open:

- Outer boundary pixels are those outside a mask that touch it (8 neighbours), in its holes too. An
  edge meets them within `EdgeSettings.reach` pixels, by default the reach of the filter itself.
- The direction across an edge is that of the mask's gradient which gave the pixel its strength.
- Boxes of the NMS are taken at the decoder's resolution.

`EdgeSettings.agreement` is ours and not the paper's: small models draw unsteady outlines, which a
sum over many masks, of crops and of the mirrored photo as well, averages out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.errors import PromptError
from textsam.inference.automatic.generator import AutomaticSettings, crop_windows, open_crop
from textsam.inference.automatic.point_grid import box_nms, cell_boxes, decode_points, point_grid
from textsam.inference.model import TextSAM
from textsam.inference.view import ImageView
from textsam.tasks.opening import opened
from textsam.tasks.outlines import (
    Agreement,
    Margins,
    Outlines,
    Strongest,
    add_outlines,
    smooth_logits,
)
from textsam.tasks.thinning import ridges, thin_edges
from textsam.values.images import ImageSource
from textsam.values.presets import resolve_preset

__all__ = ["EdgeSettings", "Preset", "edges", "resolve_settings"]

Floats = NDArray[np.float32]
Preset = Literal["paper", "agreement"]


# Long side of a photo from which on lengths grow with it: what a decoder's cell is then grows too.
_FULL_SIDE = 512


@dataclass(frozen=True, kw_only=True)
class EdgeSettings:
    """Numbers of the grid and of what is made of the masks; the paper's by default.

    Lengths in pixels hold for photos of up to 512 pixels on the long side and grow with larger ones
    (not `reach`).

    Attributes:
        points_per_side: Of the grid on the whole photo.
        points_per_batch: Prompts decoded at once.
        nms: Box IoU above which the mask with the lower predicted IoU is dropped; 1 for none.
        reach: Pixels from an outer boundary pixel within which a map's gradient counts.
        combine: "max": the strongest outline at a pixel; "sum": the sum of all, as a mean over the
            looks (whole photo, mirrored photo, crops) that a pixel is in.
        crop_points_per_side: Of the grid on each crop, layer by layer; layer n, from 1, has
            2^n x 2^n crops. Empty for no crops.
        crop_margin: Pixels from a crop's inner border within which its outlines do not count: masks
            end there that go on in the photo.
        border: As `crop_margin`, from the photo's border.
        mirror: Whether the mirrored photo is asked as well.
        smooth: Side of the square of decoder cells over which logits are averaged; odd, 1 for none.
        ridge: Pixels, at least 0.5; lines are thinned to the ridges of the map at this scale, which
            keeps faint lines beside strong ones. 0: to its crests, as in Canny's detector.
    """

    points_per_side: int = 16
    points_per_batch: int = 32
    nms: float = 0.7
    reach: int = 1
    combine: Literal["max", "sum"] = "max"
    crop_points_per_side: tuple[int, ...] = ()
    crop_margin: int = 10
    border: int = 0
    mirror: bool = False
    smooth: int = 1
    ridge: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.crop_points_per_side, tuple):
            raise PromptError(
                f"crop_points_per_side is {self.crop_points_per_side!r}; wanted a tuple with a "
                "number for each layer of crops, (12, 8) for two"
            )
        counts = (self.points_per_side, self.points_per_batch, *self.crop_points_per_side)
        if min(counts) < 1:
            raise PromptError(
                "points_per_side, points_per_batch and crop_points_per_side are "
                f"{self.points_per_side}, {self.points_per_batch}, {self.crop_points_per_side}; "
                "wanted at least 1 each"
            )
        if min(self.reach, self.crop_margin, self.border) < 0:
            raise PromptError(
                f"reach, crop_margin and border are {self.reach}, {self.crop_margin}, "
                f"{self.border}; wanted at least 0 each"
            )
        if self.ridge != 0 and not self.ridge >= 0.5:
            raise PromptError(f"ridge is {self.ridge}; wanted 0, or a scale of at least 0.5 pixels")
        if self.smooth < 1 or self.smooth % 2 == 0:
            raise PromptError(f"smooth is {self.smooth}; wanted 1, 3, 5, ...")
        if not 0 < self.nms <= 1:
            raise PromptError(f"nms is {self.nms}; wanted more than 0, at most 1")
        if self.combine not in ("max", "sum"):
            raise PromptError(f'combine is {self.combine!r}; wanted "max" or "sum"')

    @classmethod
    def paper(cls) -> EdgeSettings:
        """Appendix D.2."""
        return cls()

    @classmethod
    def agreement(cls) -> EdgeSettings:
        """The sum of the outlines of the photo's masks, its mirror image's and 4 + 16 crops'.

        For small models; takes some seven times as long. Chosen on training photos
        (training/RUNS.md, "Edges").
        """
        return cls(
            combine="sum",
            crop_points_per_side=(12, 8),
            border=3,
            mirror=True,
            smooth=3,
            ridge=1.2,
        )


def resolve_settings(given: EdgeSettings | str | None) -> EdgeSettings:
    """Settings, the name of a preset, or None for "paper".

    Raises:
        PromptError: Another name.
    """
    presets = {"paper": EdgeSettings.paper, "agreement": EdgeSettings.agreement}
    return resolve_preset(given, EdgeSettings, presets, default="paper")


def edges(
    source: TextSAM | ImageView,
    image: ImageSource | None = None,
    *,
    thin: bool = True,
    settings: EdgeSettings | Preset | None = None,
) -> Floats:
    """How much of an edge each pixel is.

    Args:
        source: A model, with the image; or a photo that is open already (`TextSAM.open`), alone.
        image: Whatever `textsam.load_image` takes.
        thin: Whether lines are reduced to their crest, about one pixel wide.
        settings: "paper" (default), "agreement" (for small models), or your own.

    Returns:
        (H, W) float32, original pixels, 0 no edge. If outlines are combined by "max", 1 is the
        strongest of this photo; by "sum", strengths compare between photos and stay below 1. All 0
        if no mask has an outline.

    Raises:
        PromptError: A model without an image, an open photo with another one, or no such preset.
        ImageError: It is no image.
    """
    settings = resolve_settings(settings)
    view = opened(source, image)
    growth = max(1.0, max(view.size) / _FULL_SIDE)
    outlines: Outlines = Strongest(view.size)
    if settings.combine == "sum":
        outlines = Agreement(view.size, unit=growth)
    for look in _looks(view, settings):
        logits = _distinct_masks(look.view, look.per_side, settings)
        if settings.smooth > 1:
            logits = smooth_logits(logits, settings.smooth)
        add_outlines(
            outlines,
            logits,
            look.view.frame,
            window=look.window,
            reach=settings.reach,
            margins=_margins(look.window, view.size, settings, growth),
            mirrored=look.mirrored,
        )
    strength, gradient = outlines.result()
    if not thin:
        return strength
    if settings.ridge == 0:
        return thin_edges(strength, gradient)
    crests = thin_edges(ridges(strength, settings.ridge * growth), gradient)
    return np.where(crests > 0, strength, np.float32(0))


@dataclass(frozen=True, kw_only=True)
class _Look:
    """A part of the photo that is asked by a grid of its own."""

    view: ImageView
    window: tuple[int, int, int, int]
    per_side: int
    mirrored: bool = False


def _looks(view: ImageView, settings: EdgeSettings) -> Iterator[_Look]:
    """The whole photo, its mirror image, and crops, each opened when its turn comes."""
    grids = (settings.points_per_side, *settings.crop_points_per_side)
    layers = AutomaticSettings(crop_layers=len(settings.crop_points_per_side))
    for window, layer in crop_windows(view.size, settings=layers):
        if layer > 0:
            yield _Look(view=open_crop(view, window), window=window, per_side=grids[layer])
            continue
        yield _Look(view=view, window=window, per_side=grids[0])
        if settings.mirror:
            mirror = ImageView(view.model, np.ascontiguousarray(view.image[:, ::-1]))
            yield _Look(view=mirror, window=window, per_side=grids[0], mirrored=True)


def _margins(
    window: tuple[int, int, int, int],
    size: tuple[int, int],
    settings: EdgeSettings,
    growth: float,
) -> Margins:
    """Pixels to leave out at a window's left, top, right and bottom; no more than half is."""
    x0, y0, x1, y1 = window
    at_border = (x0 == 0, y0 == 0, x1 == size[1], y1 == size[0])
    sides = (x1 - x0, y1 - y0, x1 - x0, y1 - y0)
    left, top, right, bottom = (
        min(round(growth * (settings.border if here else settings.crop_margin)), (side - 1) // 4)
        for here, side in zip(at_border, sides, strict=True)
    )
    return left, top, right, bottom


def _distinct_masks(view: ImageView, per_side: int, settings: EdgeSettings) -> Tensor:
    """Logits (N, m, m) of the masks that are left after box NMS, the best first; none is empty."""
    grid = point_grid(per_side)
    parts = list(decode_points(view, grid, batch=settings.points_per_batch))
    logits = torch.cat([part.logits for part in parts])
    scores = torch.cat([part.iou for part in parts])
    filled, boxes = cell_boxes(logits, view.frame)
    logits, scores, boxes = logits[filled], scores[filled], boxes[filled]
    return logits[box_nms(boxes, scores, settings.nms)]
