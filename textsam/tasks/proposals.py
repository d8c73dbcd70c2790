"""Object proposals: many masks, the likeliest first, in which every object should be (RECIPE 8).

    from textsam import TextSAM
    from textsam.tasks.proposals import proposals

    found = proposals(TextSAM.from_pretrained("tiny"), "street.jpg")
    found[:100].boxes

arXiv 2304.02643, Section 7.3 and Appendix D.3: automatic masks from a grid of 64 x 64 points on the
whole photo, no crops, no filters, box NMS at 0.9 (by predicted IoU, as in Appendix B); ranked by
the mean of predicted IoU and stability; the first 1000 are kept. Left open there, decided here: a
mask without a pixel is no proposal, and of equal ranks the higher predicted IoU goes first.

Memory: three masks a point are asked, 12,288 for the paper's grid. Logits are held for one batch of
points, and each mask is run-length coded at once (`automatic.generator`), so that memory
grows with the grid by the codes alone: with `tiny`, on a photo of 266 x 400 pixels, the peak was
the same for 64 x 64 points as for 32 x 32, and the 4532 masks that NMS left had 1.4 MB of codes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from textsam.errors import PromptError
from textsam.inference.automatic.generator import AutomaticSettings, automatic_masks
from textsam.inference.model import TextSAM
from textsam.inference.view import ImageView
from textsam.results.segmentation import Segmentation
from textsam.tasks.opening import opened
from textsam.values.images import ImageSource

__all__ = ["PAPER", "proposal_ranks", "proposals", "with_points"]

# Predicted IoU is a regression and may be below zero: only a bound that no number is below lets
# every mask through.
PAPER = AutomaticSettings(
    points_per_side=64,
    least_iou=-float("inf"),
    least_stability=0.0,
    nms=0.9,
)


def proposals(
    model: TextSAM | ImageView,
    image: ImageSource | None = None,
    *,
    settings: AutomaticSettings = PAPER,
    most: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> Segmentation:
    """Propose masks of objects, whatever they are, the likeliest first.

    Args:
        model: A model and then an image; or a photo that is open already, `model.open(image)`.
        image: Whatever `textsam.load_image` takes.
        settings: Grid, filters and NMS; the paper's by default. A grid of 64 x 64 takes minutes on
            a CPU: `with_points(16)` asks a sixteenth of it.
        most: Masks that are kept.
        progress: Called with (points done, points in all).

    Returns:
        At most `most` masks by falling `proposal_ranks`, with predicted IoU and stability. They
        have neither labels nor scores: a score is the probability of a label.

    Raises:
        PromptError: An image missing or too many, `most` below 1, or neither a model nor a photo.
        ImageError: If it is no image.
    """
    view = opened(model, image)
    if most < 1:
        raise PromptError(f"most is {most}; wanted at least 1 mask, e.g. most=1000")
    found = automatic_masks(view, settings=settings, progress=progress)
    found = found[found.areas > 0]
    order = np.lexsort((-found.iou, -proposal_ranks(found)))
    return found[order[:most]]


def proposal_ranks(found: Segmentation) -> NDArray[np.float32]:
    """The mean of predicted IoU and stability of each mask, (K,) float32: what ranks proposals.

    A measure of order and no probability, so a result does not hold it: predicted IoU and stability
    stay two figures there.
    """
    ranks: NDArray[np.float32] = np.mean([found.iou, found.stability], axis=0, dtype=np.float32)
    return ranks


def with_points(per_side: int) -> AutomaticSettings:
    """The paper's settings with a grid of per_side x per_side points.

    Raises:
        PromptError: Not a positive number.
    """
    return replace(PAPER, points_per_side=per_side)
