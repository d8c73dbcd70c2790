"""Object proposals: many masks, the likeliest first, which should include every object.

    from textsam import TextSAM
    from textsam.tasks.proposals import proposals

    masks = proposals(TextSAM.from_pretrained("tiny"), "street.jpg")
    masks[:100].boxes

arXiv 2304.02643, Section 7.3 and Appendix D.3: automatic masks from a grid of 64 x 64 points on the
whole photo, no crops, no filters, box NMS at 0.9 by predicted IoU; ranked by the mean of predicted
IoU and stability; the first 1000 are kept. The paper leaves two details open: here empty masks are
dropped, and of equally ranked masks the one with the higher predicted IoU comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from textsam.errors import PromptError
from textsam.inference.automatic.generator import automatic_masks
from textsam.inference.model import TextSAM
from textsam.inference.view import ImageView
from textsam.results.segmentation import Segmentation
from textsam.tasks.inputs import open_photo
from textsam.values.images import ImageSource
from textsam.values.settings import AutomaticSettings

__all__ = ["PAPER", "proposal_ranks", "proposals", "with_points"]

# Predicted IoU is the output of a regression and may be negative, so 0 would still drop some masks.
PAPER = AutomaticSettings(
    points_per_side=64,
    pred_iou_thresh=-float("inf"),
    stability_score_thresh=0.0,
    box_nms_thresh=0.9,
)


def proposals(
    model: TextSAM | ImageView,
    image: ImageSource | None = None,
    *,
    settings: AutomaticSettings = PAPER,
    max_masks: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> Segmentation:
    """Propose masks of objects of any kind, the likeliest first.

    Args:
        model: A model and then an image; or a photo that is open already, `model.open(image)`.
        image: Anything that `textsam.load_image` takes.
        settings: Grid, filters and NMS; the paper's by default. A grid of 64 x 64 points takes
            minutes on a CPU; `with_points(16)` takes a sixteenth of that.
        max_masks: Number of masks to keep.
        progress: Called with (points done, number of points).

    Returns:
        At most `max_masks` masks by decreasing `proposal_ranks`, with predicted IoU and stability.
        They have neither labels nor scores, since a score is the probability of a label.

    Raises:
        PromptError: The image is missing, or one was given with an open photo; or `max_masks` is
            below 1.
        ImageError: The image cannot be read.
    """
    view = open_photo(model, image)
    if max_masks < 1:
        raise PromptError(f"max_masks is {max_masks}; wanted at least 1, e.g. max_masks=1000")
    masks = automatic_masks(view.photo, settings=settings, progress=progress)
    masks = masks[masks.areas > 0]
    # lexsort sorts by its last key first.
    order = np.lexsort((-masks.iou, -proposal_ranks(masks)))
    return masks[order[:max_masks]]


def proposal_ranks(masks: Segmentation) -> NDArray[np.float32]:
    """The mean of predicted IoU and stability of each mask, (K,) float32, by which they are ranked.

    It is not a probability, so it is not the `scores` of a result.
    """
    ranks: NDArray[np.float32] = np.mean([masks.iou, masks.stability], axis=0, dtype=np.float32)
    return ranks


def with_points(per_side: int) -> AutomaticSettings:
    """The paper's settings with a grid of per_side x per_side points."""
    return replace(PAPER, points_per_side=per_side)
