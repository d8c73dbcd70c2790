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
sum over many masks, of crops as well, averages out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.errors import PromptError
from textsam.images import ImageSource
from textsam.inference.automatic import AutomaticSettings, crop_windows
from textsam.inference.model import TextSAM
from textsam.inference.point_grid import box_nms, decode_points, inclusive_boxes, point_grid
from textsam.inference.view import ImageView
from textsam.presets import resolve_preset
from textsam.tasks.opening import opened
from textsam.tasks.outlines import Agreement, Outlines, Strongest, add_outlines, smooth_logits

__all__ = ["EdgeSettings", "Preset", "edges", "resolve_settings", "thin_edges"]

Floats = NDArray[np.float32]
Preset = Literal["paper", "agreement"]


@dataclass(frozen=True, kw_only=True)
class EdgeSettings:
    """Numbers of the grid and of what is made of the masks; the paper's by default.

    Attributes:
        points_per_side: Of the grid on the whole photo.
        points_per_batch: Prompts decoded at once.
        nms: Box IoU above which the mask with the lower predicted IoU is dropped; 1 for none.
        reach: Pixels from an outer boundary pixel within which a map's gradient counts.
        combine: "max": the strongest outline at a pixel; "sum": the sum of all.
        crop_layers: Layers of crops beside the whole photo; layer n has 2^n x 2^n of them.
        crop_points_per_side: Of the grid on each crop.
        crop_margin: Pixels from a crop's inner border within which its outlines do not count: masks
            end there that go on in the photo.
        border: As `crop_margin`, from the photo's border.
        smooth: Side of the square of decoder cells over which logits are averaged; odd, 1 for none.
    """

    points_per_side: int = 16
    points_per_batch: int = 32
    nms: float = 0.7
    reach: int = 1
    combine: Literal["max", "sum"] = "max"
    crop_layers: int = 0
    crop_points_per_side: int = 12
    crop_margin: int = 20
    border: int = 0
    smooth: int = 1

    def __post_init__(self) -> None:
        counts = (self.points_per_side, self.points_per_batch, self.crop_points_per_side)
        if min(counts) < 1 or min(self.reach, self.crop_layers, self.crop_margin, self.border) < 0:
            raise PromptError(
                "points_per_side, points_per_batch and crop_points_per_side are "
                f"{', '.join(map(str, counts))}, wanted at least 1; reach, crop_layers, "
                f"crop_margin and border are {self.reach}, {self.crop_layers}, {self.crop_margin}, "
                f"{self.border}, wanted at least 0"
            )
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
        """The sum of the outlines of the whole photo's masks and of four crops', smoothed a little.

        For small models; takes three times as long. With `tiny` on 12 training photos against
        their objects' borders, best F: the paper's way .413, the sum .444, with crops .484, without
        what lies near borders .503, with smooth logits .52; the maximum with crops .420.
        """
        return cls(combine="sum", crop_layers=1, border=5, smooth=3)


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
        (H, W) float32, original pixels: 0 no edge, 1 the strongest of this photo. All 0 if no mask
        has an outline.

    Raises:
        PromptError: A model without an image, an open photo with another one, or no such preset.
        ImageError: It is no image.
    """
    settings = resolve_settings(settings)
    view = opened(source, image)
    outlines: Outlines = Strongest(view.size) if settings.combine == "max" else Agreement(view.size)
    layers = AutomaticSettings(crop_layers=settings.crop_layers)
    for window, layer in crop_windows(view.size, settings=layers):
        x0, y0, x1, y1 = window
        inner = view
        if layer > 0:
            inner = ImageView(view.model, np.ascontiguousarray(view.image[y0:y1, x0:x1]))
        per_side = settings.points_per_side if layer == 0 else settings.crop_points_per_side
        logits = _distinct_masks(inner, per_side, settings)
        if settings.smooth > 1:
            logits = smooth_logits(logits, settings.smooth)
        add_outlines(
            outlines,
            logits,
            inner.frame,
            window=window,
            reach=settings.reach,
            margins=_margins(window, view.size, settings),
        )
    strength, gradient = outlines.result()
    top = strength.max()
    if top > 0:
        strength = strength / top
    return thin_edges(strength, gradient) if thin else strength


def thin_edges(strength: Floats, gradient: Floats) -> Floats:
    """Keep what is strongest across the edge: Canny's non-maximum suppression.

    The two pixels' worth before and behind a pixel along its gradient are interpolated between the
    neighbours that the direction points between. Of two equal ones side by side one stays,
    whichever way their gradients point.

    Args:
        strength: (H, W), at least 0.
        gradient: (2, H, W) x and y; only the direction counts.

    Returns:
        (H, W) float32: the strength where it is a crest, 0 elsewhere.
    """
    height, width = strength.shape
    # A line has two directions; take the one to the right, so that equals are told apart alike.
    turned = (gradient[0] < 0) | ((gradient[0] == 0) & (gradient[1] < 0))
    x, y = np.where(turned, -gradient, gradient)
    rows, columns = np.nonzero(strength > 0)
    x, y = x[rows, columns], y[rows, columns]
    flat = np.abs(x) >= np.abs(y)
    major, minor = np.where(flat, x, y), np.where(flat, y, x)
    share = np.abs(minor) / np.maximum(np.abs(major), np.finfo(np.float32).tiny)
    sign_x, sign_y = np.where(x < 0, -1, 1), np.where(y < 0, -1, 1)
    padded = np.pad(strength, 1)

    def beside(way: int) -> Floats:
        """Strength one step along the direction, or against it."""
        step_x, step_y = way * sign_x, way * sign_y
        straight = padded[
            rows + 1 + np.where(flat, 0, step_y), columns + 1 + np.where(flat, step_x, 0)
        ]
        diagonal = padded[rows + 1 + step_y, columns + 1 + step_x]
        mixed: Floats = (1 - share) * straight + share * diagonal
        return mixed

    own = strength[rows, columns]
    crest = (own > beside(-1)) & (own >= beside(1))
    thinned = np.zeros((height, width), np.float32)
    thinned[rows[crest], columns[crest]] = own[crest]
    return thinned


def _margins(
    window: tuple[int, int, int, int], size: tuple[int, int], settings: EdgeSettings
) -> tuple[int, int, int, int]:
    """Pixels to leave out at the left, top, right and bottom of a window."""
    x0, y0, x1, y1 = window
    at_border = (x0 == 0, y0 == 0, x1 == size[1], y1 == size[0])
    left, top, right, bottom = (
        settings.border if here else settings.crop_margin for here in at_border
    )
    return left, top, right, bottom


def _distinct_masks(view: ImageView, per_side: int, settings: EdgeSettings) -> Tensor:
    """Logits (N, m, m) of the masks that are left after box NMS, the best first; none is empty."""
    grid = point_grid(per_side)
    parts = list(decode_points(view, grid, batch=settings.points_per_batch))
    logits = torch.cat([part for part, _ in parts])
    scores = torch.cat([part for _, part in parts])
    # The padding is no part of the photo: what lies there alone is nothing.
    height, width = view.frame.resized
    side = logits.shape[-1]
    cell = side / view.frame.image_size
    inside = logits > 0
    inside[:, max(1, round(height * cell)) :] = False
    inside[:, :, max(1, round(width * cell)) :] = False
    filled = inside.flatten(1).any(1)
    logits, scores, inside = logits[filled], scores[filled], inside[filled]
    boxes = inclusive_boxes(inside.numpy())
    boxes[:, 2:] += 1  # half-open, so that a box of one cell has an area
    return logits[box_nms(boxes, scores, settings.nms)]
