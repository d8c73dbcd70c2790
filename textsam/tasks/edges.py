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
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from textsam.errors import PromptError
from textsam.geometry import Frame
from textsam.images import ImageSource
from textsam.inference.model import TextSAM
from textsam.inference.point_grid import box_nms, decode_points, inclusive_boxes, point_grid
from textsam.inference.postprocess import to_original_frame
from textsam.inference.view import ImageView
from textsam.tasks.opening import opened

__all__ = ["EdgeSettings", "edges", "outline_gradients", "sobel", "strongest_outline", "thin_edges"]

Floats = NDArray[np.float32]

# Of one float map of several masks at the photo's size; some six of them are there at a time.
_UPSCALED_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class EdgeSettings:
    """Numbers of the paper's Appendix D.2.

    Attributes:
        points_per_side: Of the grid.
        points_per_batch: Prompts decoded at once.
        nms: Box IoU above which the mask with the lower predicted IoU is dropped; 1 for none.
        reach: Pixels from an outer boundary pixel within which a map's gradient counts.
    """

    points_per_side: int = 16
    points_per_batch: int = 32
    nms: float = 0.7
    reach: int = 1

    def __post_init__(self) -> None:
        if min(self.points_per_side, self.points_per_batch) < 1 or self.reach < 0:
            raise PromptError(
                f"points_per_side, points_per_batch and reach are {self.points_per_side}, "
                f"{self.points_per_batch} and {self.reach}; wanted at least 1, 1 and 0"
            )
        if not 0 < self.nms <= 1:
            raise PromptError(f"nms is {self.nms}; wanted more than 0, at most 1")


def edges(
    source: TextSAM | ImageView,
    image: ImageSource | None = None,
    *,
    thin: bool = True,
    settings: EdgeSettings | None = None,
) -> Floats:
    """How much of an edge each pixel is.

    Args:
        source: A model, with the image; or a photo that is open already (`TextSAM.open`), alone.
        image: Whatever `textsam.load_image` takes.
        thin: Whether lines are reduced to their crest, about one pixel wide.
        settings: The paper's by default.

    Returns:
        (H, W) float32, original pixels: 0 no edge, 1 the strongest of this photo. All 0 if no mask
        has an outline.

    Raises:
        PromptError: A model without an image, or an open photo with another one.
        ImageError: It is no image.
    """
    settings = settings or EdgeSettings()
    view = opened(source, image)
    logits = _distinct_masks(view, settings)
    strength, gradient = strongest_outline(logits, view.frame, reach=settings.reach)
    top = strength.max()
    if top > 0:
        strength = strength / top
    return thin_edges(strength, gradient) if thin else strength


def strongest_outline(logits: Tensor, frame: Frame, *, reach: int = 1) -> tuple[Floats, Floats]:
    """The strongest outline at each pixel over all masks; few masks at the photo's size at a time.

    Args:
        logits: (N, m, m) of the padded frame, unthresholded.
        frame: Of the photo.
        reach: See `EdgeSettings`.

    Returns:
        Strength (H, W), as `sobel` measures it, and the gradient (2, H, W), x and y, of the
        mask that it is from; zeros where no mask has an outline.
    """
    height, width = frame.size
    strength = torch.zeros(height, width)
    gradient = torch.zeros(2, height, width)
    step = max(1, _UPSCALED_BYTES // (4 * height * width))
    for start in range(0, len(logits), step):
        full = to_original_frame(logits[start : start + step], frame)
        found = outline_gradients(full, reach=reach)
        own, index = found.square().sum(1).sqrt().max(0)
        chosen = found.gather(0, index.expand(1, 2, height, width))[0]
        better = own > strength
        strength = torch.where(better, own, strength)
        gradient = torch.where(better, chosen, gradient)
    return strength.numpy(), gradient.numpy()


def outline_gradients(logits: Tensor, *, reach: int = 1) -> Tensor:
    """Gradients of the maps of probabilities where they meet their masks' outer boundaries.

    Args:
        logits: (K, H, W) at the photo's size; positive inside a mask.
        reach: See `EdgeSettings`.

    Returns:
        (K, 2, H, W) x and y, toward the inside of the mask; 0 away from its outer boundary.
    """
    inside = (logits > 0).float()[:, None]
    outer = F.max_pool2d(inside, 3, stride=1, padding=1) - inside
    side = 2 * reach + 1
    near = F.max_pool2d(outer, side, stride=1, padding=reach)
    return sobel(logits.sigmoid()) * near


def sobel(maps: Tensor) -> Tensor:
    """Sobel filter: (K, H, W) -> (K, 2, H, W), change per pixel along x and y.

    What lies beyond the border is as the pixel at the border, so that a border is no edge.
    """
    padded = F.pad(maps[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    rows = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    columns = (padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]) / 4
    x = (rows[..., 2:] - rows[..., :-2]) / 2
    y = (columns[:, 2:] - columns[:, :-2]) / 2
    return torch.stack([x, y], dim=1)


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


def _distinct_masks(view: ImageView, settings: EdgeSettings) -> Tensor:
    """Logits (N, m, m) of the masks that are left after box NMS, the best first; none is empty."""
    grid = point_grid(settings.points_per_side)
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
