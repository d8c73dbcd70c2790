"""From labelled photos to probabilities: what `textsam calibrate` does.

`choice` which photos are asked · `evidence` of a strategy with its gates open, for phrases that
they have and that they lack · `curves` through evidence and truth, from which level a probability
counts, and figures on photos left out, for one strategy · `fitting` for a model.
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
