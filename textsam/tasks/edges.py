"""Edges of a photo, by a model that was never trained on edges.

    from textsam import TextSAM
    from textsam.tasks.edges import edges

    strength = edges(TextSAM.from_pretrained("tiny"), "photo.jpg")  # (H, W), 0 to 1

arXiv 2304.02643, Section 7.2 and Appendix D.2: a 16 x 16 grid of points, three masks each, box NMS
and no other filter; the Sobel filter on every mask's map of probabilities, kept near the outer
boundary of the mask; the maximum over all masks; thinning as in Canny's detector. The paper leaves
three details open, which are decided here:

- Outer boundary pixels are pixels outside a mask with a neighbour (of 8) in it, also in holes. The
  gradient counts within `EdgeSettings.reach` pixels of them, by default the reach of the filter.
- The direction across an edge is the gradient of the mask that gave the pixel its strength.
- Boxes for the NMS are measured at the resolution of the decoder.

`EdgeSettings.agreement` is our addition: outlines of small models are unsteady, and a sum over many
masks, including those of crops and of the mirrored photo, averages that out.
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
from textsam.inference.automatic.generator import crop_windows
from textsam.inference.automatic.point_grid import box_nms, cell_boxes, decode_points, point_grid
from textsam.inference.model import TextSAM
from textsam.inference.photo.encoded import EncodedPhoto, encode_photo, encode_window
from textsam.inference.view import ImageView
from textsam.tasks.inputs import open_photo
from textsam.tasks.outlines import (
    Margins,
    MaxOutlines,
    SumOutlines,
    add_outlines,
    ridges,
    smooth_logits,
    thin_edges,
)
from textsam.values.geometry import Window
from textsam.values.images import ImageSource
from textsam.values.settings import AutomaticSettings, resolve_preset

__all__ = ["EdgeSettings", "Preset", "edges", "resolve_settings"]

Floats = NDArray[np.float32]
Preset = Literal["paper", "agreement"]

# Lengths in pixels grow with photos whose long side is above this, as the decoder's cells do.
_REFERENCE_SIDE = 512


@dataclass(frozen=True, kw_only=True)
class EdgeSettings:
    """Settings of the grid of points and of the outlines; the paper's by default.

    Lengths in pixels are for photos of up to 512 pixels on the long side, and grow with larger ones
    (except `reach`).

    Attributes:
        points_per_side: Points along a side of the grid on the whole photo.
        points_per_batch: Prompts decoded at once.
        box_nms_thresh: Box IoU above which the mask with the lower predicted IoU is dropped; 1 for
            no NMS.
        reach: Distance from an outer boundary pixel within which a gradient counts, pixels.
        combine: "max" for the strongest outline at a pixel; "sum" for the sum of all, averaged over
            the views (whole photo, mirrored photo, crops) that contain the pixel.
        crop_points_per_side: Points along a side of the grid on each crop, one number per layer;
            layer n, from 1, has 2^n x 2^n crops. Empty for no crops.
        crop_margin: Outlines within this many pixels of a crop's inner border are ignored, since
            masks are cut off there.
        border: Likewise for the border of the photo.
        mirror: Whether the mirrored photo is segmented too.
        smooth: Side of the square of decoder cells over which logits are averaged; odd, 1 for none.
        ridge: Scale in pixels, at least 0.5, of the ridges that lines are thinned to, which keeps
            faint lines beside strong ones. 0 for local maxima, as in Canny's detector.
    """

    points_per_side: int = 16
    points_per_batch: int = 32
    box_nms_thresh: float = 0.7
    reach: int = 1
    combine: Literal["max", "sum"] = "max"
    crop_points_per_side: tuple[int, ...] = ()
    crop_margin: int = 10
    border: int = 0
    mirror: bool = False
    smooth: int = 1
    ridge: float = 0.0

    def __post_init__(self) -> None:
        per_side = self.crop_points_per_side
        checks = (
            ("points_per_side", self.points_per_side >= 1, "at least 1"),
            ("points_per_batch", self.points_per_batch >= 1, "at least 1"),
            ("box_nms_thresh", 0 < self.box_nms_thresh <= 1, "more than 0, at most 1"),
            ("reach", self.reach >= 0, "at least 0"),
            ("combine", self.combine in ("max", "sum"), '"max" or "sum"'),
            (
                "crop_points_per_side",
                isinstance(per_side, tuple) and min(per_side, default=1) >= 1,
                "a tuple with a number of at least 1 per layer of crops, (12, 8) for two",
            ),
            ("crop_margin", self.crop_margin >= 0, "at least 0"),
            ("border", self.border >= 0, "at least 0"),
            ("smooth", self.smooth >= 1 and self.smooth % 2 == 1, "1, 3, 5, ..."),
            # A narrower Gaussian falls between the pixels.
            ("ridge", self.ridge == 0 or self.ridge >= 0.5, "0, or at least 0.5 pixels"),
        )
        for name, valid, wanted in checks:
            if not valid:
                raise PromptError(f"{name} is {getattr(self, name)!r}; wanted {wanted}")

    @classmethod
    def paper(cls) -> EdgeSettings:
        """The settings of Appendix D.2."""
        return cls()

    @classmethod
    def agreement(cls) -> EdgeSettings:
        """For small models: outlines of the photo, its mirror image and 4 + 16 crops, summed.

        Takes about seven times as long. Chosen on training photos (training/RUNS.md, "Edges").
        """
        return cls(
            combine="sum", crop_points_per_side=(12, 8), border=3, mirror=True, smooth=3, ridge=1.2
        )


def resolve_settings(settings: EdgeSettings | str | None) -> EdgeSettings:
    """Look up a preset by name; None is "paper".

    Raises:
        PromptError: There is no preset of that name.
    """
    presets = {"paper": EdgeSettings.paper(), "agreement": EdgeSettings.agreement()}
    return resolve_preset(settings, EdgeSettings, presets, default="paper")


def edges(
    model: TextSAM | ImageView,
    image: ImageSource | None = None,
    *,
    thin: bool = True,
    settings: EdgeSettings | Preset | None = None,
) -> Floats:
    """Strength of an edge at each pixel.

    Args:
        model: A model, with an image; or a photo that is open already, `model.open(image)`.
        image: Anything that `textsam.load_image` takes.
        thin: Whether lines are thinned to a width of about one pixel.
        settings: "paper" (default), "agreement" (for small models), or your own.

    Returns:
        (H, W) float32, original pixels, 0 for no edge. If outlines are combined by "max", 1 is the
        strongest edge of this photo; by "sum", strengths are below 1 and comparable between photos.
        All 0 if no mask has an outline.

    Raises:
        PromptError: The image is missing, or one was given with an open photo; or there is no such
            preset.
        ImageError: The image cannot be read.
    """
    settings = resolve_settings(settings)
    view = open_photo(model, image)
    scale = max(1.0, max(view.size) / _REFERENCE_SIDE)
    outlines: MaxOutlines | SumOutlines = MaxOutlines(view.size)
    if settings.combine == "sum":
        outlines = SumOutlines(view.size, unit=scale)
    for photo, window, points_per_side, mirrored in _grid_photos(view.photo, settings):
        logits = _distinct_masks(photo, points_per_side, settings)
        if settings.smooth > 1:
            logits = smooth_logits(logits, settings.smooth)
        add_outlines(
            outlines,
            logits,
            photo.frame,
            window=window,
            reach=settings.reach,
            margins=_margins(window, view.size, settings, scale),
            mirrored=mirrored,
        )
    strength, gradient = outlines.result()
    if not thin:
        return strength
    if settings.ridge == 0:
        return thin_edges(strength, gradient)
    # Ridges say where a line is; its strength is still that of the outlines.
    crests = thin_edges(ridges(strength, settings.ridge * scale), gradient)
    return np.where(crests > 0, strength, np.float32(0))


def _grid_photos(
    photo: EncodedPhoto, settings: EdgeSettings
) -> Iterator[tuple[EncodedPhoto, Window, int, bool]]:
    """The whole photo, its mirror image and crops, each encoded only when it is reached.

    With its window, the points per side of its grid, and whether it is mirrored.
    """
    grids = (settings.points_per_side, *settings.crop_points_per_side)
    layers = AutomaticSettings(crop_n_layers=len(settings.crop_points_per_side))
    for window, layer in crop_windows(photo.size, settings=layers):
        if layer > 0:
            yield encode_window(photo, window), window, grids[layer], False
            continue
        yield photo, window, grids[0], False
        if settings.mirror:
            mirror = encode_photo(photo.parts, np.ascontiguousarray(photo.image[:, ::-1]))
            yield mirror, window, grids[0], True


def _margins(
    window: Window, size: tuple[int, int], settings: EdgeSettings, scale: float
) -> Margins:
    """Pixels to leave out at the left, top, right and bottom of a window."""
    x0, y0, x1, y1 = window
    at_border = (x0 == 0, y0 == 0, x1 == size[1], y1 == size[0])
    sides = (x1 - x0, y1 - y0, x1 - x0, y1 - y0)
    left, top, right, bottom = (
        # At most a quarter on each side, so that half of a small crop is left.
        min(round(scale * (settings.border if outer else settings.crop_margin)), (side - 1) // 4)
        for outer, side in zip(at_border, sides, strict=True)
    )
    return left, top, right, bottom


def _distinct_masks(photo: EncodedPhoto, points_per_side: int, settings: EdgeSettings) -> Tensor:
    """Logits (N, m, m) of the masks that box NMS keeps, the best first; none is empty."""
    grid = point_grid(points_per_side)
    parts = list(decode_points(photo, grid, batch=settings.points_per_batch))
    logits = torch.cat([part.logits for part in parts])
    scores = torch.cat([part.iou for part in parts])
    filled, boxes = cell_boxes(logits, photo.frame)
    logits, scores, boxes = logits[filled], scores[filled], boxes[filled]
    return logits[box_nms(boxes, scores, settings.box_nms_thresh)]
