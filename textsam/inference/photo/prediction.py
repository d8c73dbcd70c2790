"""What the decoder says about one prompt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Prediction"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """The decoder's raw answer to one prompt.

    Attributes:
        logits: (4, H, W) float32 in the original frame; a pixel is inside where they are positive.
        iou: (4,) float32 predicted IoU.
        low_res: (4, m, m) float32 in the padded model frame of the whole photo.

    Index 0 is the mask for unambiguous prompts, 1 to 3 are the readings of an ambiguous one. Give
    it back as `previous` to have one of its masks corrected.
    """

    logits: NDArray[np.float32]
    iou: NDArray[np.float32]
    low_res: NDArray[np.float32]
