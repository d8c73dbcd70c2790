"""The simulated annotator: where to click next, and the number of clicks to an IoU (NoC).

Source: arXiv 2304.02643, Appendix D ("23 data sets") for the choice of clicks, and the
interactive-segmentation field for NoC. Where the paper's text leaves a choice open, the evaluation
of RITM (arXiv 2102.06583), which the field shares, decides: false negatives and false positives
have a distance transform each, the higher peak is clicked, a tie goes to the false positives, the
first peak in reading order wins, and no pixel is clicked twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from textsam.errors import require
from textsam.values.geometry import mask_to_box

from ..figures.matching import check_masks

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Click:
    """A click at a pixel's centre."""

    x: float  # original pixels, continuous: the centre of column c is c + 0.5
    y: float  # as `x`, for rows
    foreground: bool  # whether it says "this belongs to it"


def distance_inside(region: Mask) -> NDArray[np.float64]:
    """Euclidean distance of each region pixel to the nearest pixel outside; 0 elsewhere.

    The image is surrounded by outside, so that a mask cut by the border has a boundary there.
    Both are (H, W); inside the distance is at least 1 pixel.
    """
    distance = np.zeros(region.shape, dtype=np.float64)
    x0, y0, x1, y1 = mask_to_box(region).tolist()
    if x1 > x0:
        # The nearest outside pixel is never farther than the ring around the region's box, so the
        # box gives the same distances as the whole photo at a fraction of the time.
        edt = require("scipy.ndimage", "eval").distance_transform_edt
        distance[y0:y1, x0:x1] = edt(np.pad(region[y0:y1, x0:x1], 1))[1:-1, 1:-1]
    return distance


def next_click(
    prediction: Mask, truth: Mask, *, void: Mask | None = None, clicked: Iterable[Click] = ()
) -> Click | None:
    """The pixel of the error region that is farthest from its boundary.

    With an empty prediction it is the first click, the pixel of the mask farthest from its
    boundary.

    Args:
        prediction: (H, W) bool, the last mask; all false before the first click.
        truth: (H, W) bool.
        void: (H, W) bool, pixels that are never an error.
        clicked: Clicks so far, whose pixels are not clicked again.

    Returns:
        A foreground click in a false negative or a background click in a false positive; None if
        nothing is left to correct.

    Raises:
        ValueError: The masks differ in shape, or are not bool.
    """
    wrong = _errors(prediction, truth, void)
    missed, extra = distance_inside(wrong & truth), distance_inside(wrong & ~truth)
    for click in clicked:
        row, column = int(click.y), int(click.x)
        missed[row, column] = extra[row, column] = 0.0
    foreground = bool(missed.max() > extra.max())
    chosen = missed if foreground else extra
    if chosen.max() == 0.0:
        return None
    row, column = divmod(int(chosen.argmax()), truth.shape[1])
    return Click(column + 0.5, row + 0.5, foreground)


def random_click(
    prediction: Mask, truth: Mask, rng: np.random.Generator, *, void: Mask | None = None
) -> Click | None:
    """A click at a pixel drawn from the error region, as in training (Appendix A).

    Arguments, result and errors are those of `next_click`; `rng` draws the pixel.
    """
    places = np.flatnonzero(_errors(prediction, truth, void))
    if not len(places):
        return None
    row, column = divmod(int(rng.choice(places)), truth.shape[1])
    return Click(column + 0.5, row + 0.5, bool(truth[row, column]))


def iou_after(curve: Sequence[float], clicks: int) -> float:
    """IoU after a number of clicks, from the IoU after each (clicks 1, 2, ...).

    A curve ends early when nothing is left to correct; the mask then stays as it is.
    """
    return curve[min(clicks, len(curve)) - 1]


def clicks_needed(curve: Sequence[float], level: float, *, limit: int) -> int:
    """NoC: the first number of clicks at which the IoU reaches a level; `limit` if never."""
    for clicks, iou in enumerate(curve[:limit], start=1):
        if iou >= level:
            return clicks
    return limit


def _errors(prediction: Mask, truth: Mask, void: Mask | None) -> Mask:
    """Pixels that are wrong and have a truth, (H, W) bool."""
    check_masks(prediction, truth, void)
    wrong = prediction ^ truth
    return wrong if void is None else wrong & ~void
