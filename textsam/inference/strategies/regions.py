"""Where in a map to ask: its connected regions, and points on what may be one thing each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from textsam.inference.photo.postprocess import connected_components, depth_inside
from textsam.values.settings import TextSettings

__all__ = ["Region", "find_regions", "one_region", "tidied"]

# A thing's peak hides lower ones nearer than this, in cells, or than 0.9 of its distance to the
# region's border: chosen on training photos (F of instances on VOC .855 for one point, .885).
_LEAST_RADIUS = 4.0
_RADIUS_SHARE = 0.9
_LEAST_RELATIVE = 0.25  # of the highest peak of the region
_LARGEST_HOLE = 0.02  # share of the mask's cells; Appendix B fills those under 100 px
_LEAST_HOLE = 4  # cells


@dataclass(frozen=True, kw_only=True, eq=False)
class Region:
    """A connected region of a map.

    Attributes:
        cells: (m, m) bool.
        points: (N, 2) float32 x, y in cells, best first; a cell's middle is at +0.5.
        peak: Highest probability in it.
    """

    cells: Tensor
    points: Tensor
    peak: float


def find_regions(
    probability: Tensor,
    *,
    level: float,
    settings: TextSettings,
    beside: Sequence[Region] = (),
) -> list[Region]:
    """Regions of a map above a level, highest peak first, with the points to ask.

    Args:
        probability: (m, m) on the grid of mask prompts, zero on padding.
        level: Probability from which a cell belongs.
        settings: Sizes and counts; all regions together have at most `max_points` points.
        beside: Regions that were found before, whose points count; what touches them is left out.
    """
    labels = connected_components(probability > level)
    counts = torch.bincount(labels.flatten())
    known = {int(i) for region in beside for i in labels[region.cells].unique()}
    large = torch.nonzero(counts >= settings.min_cells)[:, 0].tolist()
    numbers = [i for i in large if i > 0 and i not in known]
    peaks = {i: float(probability[labels == i].max()) for i in numbers}
    numbers.sort(key=lambda i: -peaks[i])
    found: list[Region] = []
    left = settings.max_points - sum(len(region.points) for region in beside)
    for number in numbers:
        if left <= 0:
            break
        cells = labels == number
        points = _peaks(probability, cells, most=min(settings.points, left))
        left -= len(points)
        found.append(Region(cells=cells, points=points, peak=peaks[number]))
    return found


def one_region(logits: Tensor, region: Tensor, all_regions: Tensor) -> Tensor:
    """The map (m, m) with all other regions turned to "absent"."""
    return torch.where(all_regions & ~region, -logits.abs(), logits)


def tidied(logits: Tensor, region: Tensor) -> Tensor:
    """Logits (m, m) without the pieces that do not touch their region, and without small holes.

    Seen in trials: asked for one wheel, the decoder paints a little of the other one, too; and it
    leaves out a sticker on a banana. Holes of up to 2% of the mask are filled; the paper fills
    those under 100 px in its automatic masks (Appendix B).
    """
    mask = logits.clone()
    pieces = connected_components(mask > 0)
    own = pieces[region & (pieces > 0)].unique()
    if len(own):
        mask[(pieces > 0) & ~torch.isin(pieces, own)] = -1.0
    gaps = connected_components(mask <= 0)
    sizes = torch.bincount(gaps.flatten())
    limit = max(_LEAST_HOLE, int(_LARGEST_HOLE * int((mask > 0).sum())))
    holes = torch.nonzero(sizes <= limit)[:, 0]
    mask[(gaps > 0) & torch.isin(gaps, holes)] = 1.0
    return mask


def _peaks(probability: Tensor, cells: Tensor, *, most: int) -> Tensor:
    """Peaks of a region, (N, 2) x, y in cells: the best first, each hiding its surroundings.

    The map is smoothed, so that a peak lies in the middle of a good part, not at a border.
    """
    size = probability.shape[-1]
    inside = torch.where(cells, probability, 0.0)
    height = F.avg_pool2d(inside[None, None], 5, stride=1, padding=2)[0, 0] * cells
    reach = depth_inside(cells)
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    least = _LEAST_RELATIVE * float(height.max())
    points: list[tuple[float, float]] = []
    while len(points) < most:
        best = int(height.argmax())
        y, x = divmod(best, size)
        if float(height[y, x]) <= 0 or float(height[y, x]) < least:
            break
        points.append((x + 0.5, y + 0.5))
        radius = max(_LEAST_RADIUS, _RADIUS_SHARE * float(reach[y, x]))
        height[(row - y) ** 2 + (column - x) ** 2 <= radius**2] = -1.0
    return torch.tensor(points, dtype=torch.float32).reshape(-1, 2)
