"""A calibration for a model, from labelled photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from textsam import __version__
from textsam.inference.strategies.answering import choose_strategy
from textsam.values.calibration import Calibration
from textsam.values.judge import StrategyCurves

from .choice import CalibrationSet
from .curves import fit_curves, measure_curves
from .evidence import STRATEGIES, PhraseEvidence, Progress, gather
from .phrase_levels import add_levels


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """Settings."""

    photos: int = 60  # Photos of each set
    # Absent phrases that a photo is asked for, half of them the nearest in CLIP's text space to
    # what it has. How many there are decides what a presence of 0.5 means: where people ask less
    # for what is not there, phrases are likelier than it says.
    absent: int = 10
    # Share of the phrases that are there which the default level of presence lets pass.
    recall: float = 0.9
    # Share of the masks that match an object which the default level of scores lets pass; None for
    # the level with the best F1 of instances.
    keep: float | None = None
    # Also learn levels of single phrases, for those with enough photos: see `phrase_levels`.
    per_phrase: bool = False
    seed: int = 0  # Decides photos, absent phrases and folds

    def __post_init__(self) -> None:
        if self.photos < 1 or self.absent < 1:
            raise ValueError(f"photos={self.photos}, absent={self.absent}; wanted at least 1 each")
        if not 0 < self.recall < 1:
            raise ValueError(f"recall is {self.recall}; it is a share, between 0 and 1")
        if self.keep is not None and not 0 < self.keep < 1:
            raise ValueError(f"keep is {self.keep}; it is a share, between 0 and 1")


# Share of the names that are there which pass the level of presence. On photos kept out of the
# training of `tiny` .9 gives .88 of them a mask, .98 .96; of the names given .89 and .88 are right.
_NAMES_RECALL = 0.98


def default_strategies(model: Any) -> tuple[str, ...]:
    """How phrases are answered by default: "auto", or what stands in for it without a map."""
    return (choose_strategy(model).strategy,)


def check_strategies(strategies: Sequence[str]) -> tuple[str, ...]:
    """The strategies without doubles; a `ValueError` for one that cannot be calibrated."""
    unknown = [name for name in strategies if name not in STRATEGIES]
    if unknown:
        raise ValueError(
            f"strategy {unknown[0]!r} cannot be calibrated; those that can are "
            f"{', '.join(STRATEGIES)} (prompt is read with auto's)"
        )
    return tuple(dict.fromkeys(strategies))


def calibrate(
    model: Any,
    sets: Sequence[CalibrationSet],
    *,
    strategies: Sequence[str] | None = None,
    config: CalibrationConfig | None = None,
    kept: Calibration | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Fit the curves of a `TextSAM` that takes phrases; the model itself is left as it is.

    The photos should not be those that it was trained on, which it knows too well. Curves of
    strategies that are not fitted come from `kept`, the model's by default. `fitted_on` has by
    strategy the `model`, `textsam` (its version), the settings, `sets` (photos of each), and
    cross-validated `figures` by set (see `training.calibration.curves.judge`); with `per_phrase`
    also what `add_levels` says.
    """
    config = config or CalibrationConfig()
    chosen = check_strategies(strategies or default_strategies(model))
    if "detect" in chosen:
        model.parts.require_detector()
    if "concept" in chosen:
        model.parts.require_concept()
    # These need no CLIP; without one all absent phrases are drawn at random.
    without_clip = {"detect", "concept", *(["auto"] if model.map_source is not None else [])}
    if set(chosen) - without_clip:
        model.parts.require_clip()
    if "auto" in chosen and not model.has_dense_text:
        own = choose_strategy(model).strategy
        raise ValueError(
            f"{model.name} has no map of a phrase, so its auto is {own}. Calibrate {own}"
        )
    evidence = gather(
        model, sets, strategies=chosen, absent=config.absent, seed=config.seed, progress=progress
    )
    kept = model.calibration if kept is None else kept
    curves, fitted_on = dict(kept.strategies), dict(kept.fitted_on)
    for strategy, phrases in evidence.items():
        fitted, by_phrase = _fit(model, strategy, phrases, config)
        curves[strategy] = fitted
        fitted_on[strategy] = {
            "model": model.name,
            "textsam": __version__,
            **asdict(config),
            "sets": {item.name: len(item.samples) for item in sets},
            "figures": measure_curves(phrases, **_levels_of(strategy, config), seed=config.seed),
            **by_phrase,
        }
    return Calibration(strategies=curves, fitted_on=fitted_on)


def _fit(
    model: Any, strategy: str, phrases: Sequence[PhraseEvidence], config: CalibrationConfig
) -> tuple[StrategyCurves, dict[str, Any]]:
    """The curves of a strategy, and facts about its levels by phrase."""

    def fit(rows: Sequence[PhraseEvidence]) -> StrategyCurves:
        return fit_curves(rows, **_levels_of(strategy, config))

    fitted = fit(phrases)
    # An example is no phrase that could be looked up.
    if not config.per_phrase or strategy == "like":
        return fitted, {}
    return add_levels(phrases, fitted, key=model.parts.phrase_key, fit=fit, seed=config.seed)


def _levels_of(strategy: str, config: CalibrationConfig) -> dict[str, Any]:
    """How the levels of a strategy are chosen."""
    if strategy == "everything":
        # A name that is likelier right than wrong. Matching one to one would count a second mask of
        # one thing as wrong, which for names it is not.
        # Names compete for each mask already, so that presence drops only what is hopeless.
        return {"recall": max(config.recall, _NAMES_RECALL), "min_score": 0.5}
    return {"recall": config.recall, "keep": config.keep}
