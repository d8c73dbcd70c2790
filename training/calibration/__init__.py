"""From labelled photos to probabilities: what `textsam calibrate` does.

`choice` which photos are asked · `evidence` of a strategy with its gates open, for phrases that
they have and that they lack · `logistic` a curve through evidence and truth · `levels` from which a
probability counts · `curves` all of it for one strategy, with figures on photos left out ·
`fitting` for a model.
"""

from __future__ import annotations

from .choice import CalibrationSet, choose_photos, open_sets
from .curves import fit_curves, measure_curves
from .evidence import MaskEvidence, PhraseEvidence, gather
from .fitting import CalibrationConfig, calibrate, check_strategies, default_strategies
from .levels import presence_level, score_level
from .logistic import fit_logistic

__all__ = [
    "CalibrationConfig",
    "CalibrationSet",
    "MaskEvidence",
    "PhraseEvidence",
    "calibrate",
    "check_strategies",
    "choose_photos",
    "default_strategies",
    "fit_curves",
    "fit_logistic",
    "gather",
    "measure_curves",
    "open_sets",
    "presence_level",
    "score_level",
]
