r"""Train every variant, measure it, and write one table and one plot.

python -m training.studies.ablation --data ../shared/data/train --measure dev/grabcut.parquet \
    dev/coco_mval.parquet --ask dev/voc_val.parquet --out runs/ablation
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from textsam.errors import TextSamError

from ...evaluation.table import BadInputError, at_least, complain
from .measure import Benchmark
from .photos import PhotoPool
from .plot import plot_outcomes
from .report import show_outcomes, write_reports
from .run import Outcome, StoppedError, run_variants
from .variants import GROUPS, CoreSettings, PathwaySettings, Variant, ablation_variants

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    core, pathway = CoreSettings(), PathwaySettings()
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}",
        description="Train small cores and text pathways that differ in one thing, measure them on "
        "the same objects, and write table.md, ablation.json and ablation.png. What has a result "
        "in --out is not trained again, and a run that was killed goes on from its checkpoint.",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        required=True,
        metavar="SPEC",
        help="photos to train on: Parquet files, a folder of them, or another source that "
        "training/data/specs.py knows",
    )
    parser.add_argument(
        "--measure",
        nargs="+",
        type=Path,
        required=True,
        metavar="DEV.parquet",
        help="photos whose objects are clicked and boxed; never train on them",
    )
    parser.add_argument(
        "--ask",
        nargs="+",
        type=Path,
        default=[],
        metavar="DEV.parquet",
        help="photos whose objects are asked by name; without it the group 'pathway' is left out",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--only", nargs="+", choices=tuple(GROUPS), metavar="GROUP", help=f"of {', '.join(GROUPS)}"
    )
    counts = {
        "--steps": (core.steps, "steps of each core"),
        "--pathway-steps": (pathway.steps, "steps of each pathway"),
        "--objects": (40, "objects to click, in all files together"),
        "--phrases": (60, "objects to ask for, in all files together"),
    }
    for option, (default, what) in counts.items():
        parser.add_argument(
            option, type=at_least(1), default=default, metavar="N", help=f"{what} ({default})"
        )
    parser.add_argument(
        "--photos", type=at_least(1), metavar="N", help="read at most N photos of each source"
    )
    return parser


def _variants(options: argparse.Namespace) -> list[Variant]:
    wanted = options.only or [g for g in GROUPS if g != "pathway" or options.ask]
    if "pathway" in wanted and not options.ask:
        raise BadInputError("the group 'pathway' is measured by phrases; add --ask DEV.parquet")
    every = ablation_variants(
        core=replace(CoreSettings(), steps=options.steps),
        pathway=replace(PathwaySettings(), steps=options.pathway_steps),
    )
    return [variant for variant in every if variant.group in wanted]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0; 1 if a variant failed, 2 if the input is at fault, 130 if a signal ended it.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        variants = _variants(options)
        options.out.mkdir(parents=True, exist_ok=True)
        benchmark = Benchmark.read(
            options.measure, options.ask, objects=options.objects, phrases=options.phrases
        )
        pool = PhotoPool.read(options.data, limit=options.photos)
    except (BadInputError, TextSamError, ValueError, OSError) as error:
        return complain(parser, error)

    def report(outcomes: Sequence[Outcome]) -> None:
        write_reports(outcomes, options.out)

    try:
        outcomes = run_variants(
            variants, pool=pool, benchmark=benchmark, folder=options.out, report=report
        )
    except StoppedError as error:
        complain(parser, StoppedError(f"{error}; type the same command again to go on"))
        return 130
    show_outcomes(outcomes)
    if any(outcome.scores for outcome in outcomes):
        plot_outcomes(outcomes, options.out / "ablation.png")
    return 1 if any(outcome.failure for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
