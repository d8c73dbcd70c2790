"""From labelled photos to probabilities: what `textsam calibrate` does.

`choice` which photos are asked · `evidence` of a strategy with its gates open, for phrases that
they have and that they lack · `logistic` a curve through evidence and truth · `levels` from which a
probability counts · `curves` all of it for one strategy, with figures on photos left out ·
`fitting` for a model.
"""

from __future__ import annotations

from .choice import choose_photos, open_sets
from .fitting import CalibrationConfig, calibrate, check_strategies, default_strategies

__all__ = [
    "CalibrationConfig",
    "calibrate",
    "check_strategies",
    "choose_photos",
    "default_strategies",
    "open_sets",
]
