"""Levels of single phrases, learnt on a few labelled photos, beside the common ones.

    python -m training.evaluation.own_levels DATA.parquet ... [--calibrate-on 10 30]

What `textsam calibrate --per-phrase` gains: some photos of each set are calibrated on, the others
are asked, several times over with other photos. Every photo is asked once, so that the splits cost
nothing. Photos that a model was trained on flatter both: `--kept-out` for `tiny`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from ..calibration.choice import CalibrationSet
from ..calibration.curves import fit_curves
from ..calibration.evidence import PhraseEvidence, gather
from ..calibration.fitting import default_strategies
from ..calibration.phrase_levels import count_masks, f1_of, learn_levels
from .command import EvaluationOptions, measure_sets, run_command
from .data_sets import BadInputError, DataSet
from .figures.intervals import mean
from .figures.result_table import columns_of, show_figures
from .phrases.questions import NAMELESS


@dataclass(frozen=True, kw_only=True)
class OwnLevelsOptions(EvaluationOptions):
    """Measure what levels by phrase gain, learnt on a few labelled photos."""

    minimum: ClassVar[dict[str, int]] = {"absent": 1, "splits": 1, "calibrate_on": 5}

    calibrate_on: tuple[int, ...] = (10, 30)  # Photos that are calibrated on
    absent: int = 15  # Absent names that a photo is asked for
    splits: int = 8  # Random choices of these photos, which figures are the mean of


def measure_set(
    model: Any, data: DataSet, *, counts: Sequence[int], absent: int, splits: int, seed: int
) -> dict[str, Any]:
    """Measure one file.

    Returns:
        `photos`, and `rows` with `calibrated_on`, `own` (phrases with levels of their own), and the
        F1 of instances on the other photos, masks of absent names counted as wrong, `f1_common` and
        `f1_own`.
    """
    samples = tuple(sample for sample in data.samples if sample.exhaustive)
    labels = tuple(sorted({o.label for s in samples for o in s.objects} - NAMELESS))
    asked = CalibrationSet(name=data.name, samples=samples, labels=labels)
    [strategy] = default_strategies(model)
    [phrases] = gather(model, [asked], strategies=[strategy], absent=absent, seed=seed).values()
    key = model.parts.phrase_key
    rows = [
        split_levels(phrases, photos=photos, key=key, splits=splits, seed=seed)
        for photos in counts
        if photos < len(samples)
    ]
    if not rows:
        raise BadInputError(f"{data.name} has {len(samples)} exhaustive photos; wanted more")
    return {"photos": len(samples), "rows": rows}


def split_levels(
    phrases: Sequence[PhraseEvidence], *, photos: int, key: Any, splits: int, seed: int
) -> dict[str, Any]:
    """Calibrate on some photos and judge the others; a row of `measure_set`."""
    names = sorted({phrase.photo for phrase in phrases})
    found: list[tuple[int, float, float]] = []
    for split in range(splits):
        order = np.random.default_rng([seed, split]).permutation(len(names))
        chosen = {names[index] for index in order[:photos]}
        inside = [phrase for phrase in phrases if phrase.photo in chosen]
        outside = [phrase for phrase in phrases if phrase.photo not in chosen]
        try:
            curves = fit_curves(inside, recall=0.9)
        except ValueError:  # these few photos do not show enough
            continue
        levels, _ = learn_levels(inside, curves, key=key)
        own = replace(curves, phrases=levels)
        f1 = [f1_of(count_masks(outside, each, key=key)) for each in (curves, own)]
        found.append((len(levels), f1[0], f1[1]))
    return {
        "calibrated_on": photos,
        "splits": len(found),
        "own": mean(row[0] for row in found),
        "f1_common": mean(row[1] for row in found),
        "f1_own": mean(row[2] for row in found),
    }


def _run(options: OwnLevelsOptions) -> None:
    measure = partial(
        measure_set,
        counts=options.calibrate_on,
        absent=options.absent,
        splits=options.splits,
        seed=options.seed,
    )
    sets = measure_sets(options, measure)
    rows = [{"name": each["name"], **row} for each in sets for row in each["rows"]]
    columns = columns_of(
        "",
        {
            "set": "name",
            "photos": "calibrated_on",
            "splits": "splits",
            "own": "own",
            "F1 common": "f1_common",
            "F1 own": "f1_own",
        },
    )
    notes = ["own: phrases with levels of their own; F1 of instances on the other photos"]
    show_figures(f"Levels by phrase, model {options.model}", columns, rows, notes=notes)


main = partial(run_command, OwnLevelsOptions, _run)

if __name__ == "__main__":
    sys.exit(main())
