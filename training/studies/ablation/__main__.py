r"""Ablations as in the paper (arXiv 2304.02643, Section 7.6 and Figure 13), sized for one CPU core.

python -m training.studies.ablation --data ../shared/data/train --measure dev/grabcut.parquet \
        dev/coco_mval.parquet --ask dev/voc_val.parquet --out runs/ablation
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from ...evaluation.command import Options, run_command
from ...evaluation.data_sets import BadInputError
from .outcome_report import plot_outcomes, show_outcomes, write_reports
from .outcomes import Benchmark, StoppedError, run_variants
from .variant_training import PhotoPool
from .variants import CoreSettings, Group, PathwaySettings, Variant, ablation_variants


@dataclass(frozen=True, kw_only=True)
class AblationOptions(Options):
    """Train small cores and text pathways that differ in one thing, and measure them.

    Writes table.md, ablation.json and ablation.png. What has a result in --out is not trained
    again, and a run that was killed continues from its checkpoint.
    """

    minimum: ClassVar[Mapping[str, int]] = dict.fromkeys(
        ("steps", "pathway_steps", "objects", "phrases", "photos"), 1
    )

    # Photos to train on: Parquet files, a folder of them, or another source in the syntax of
    # training/data/specs.py.
    data: tuple[str, ...] = ()
    # Photos whose objects are clicked and boxed; never train on them.
    measure: tuple[Path, ...] = ()
    # Photos whose objects are asked by name; without it the group 'pathway' is left out.
    ask: tuple[Path, ...] = ()
    out: Path = Path("runs/ablation")  # Folder of the results
    only: tuple[Group, ...] = ()  # Groups to train; all by default
    steps: int = CoreSettings().steps  # Steps of each core
    pathway_steps: int = PathwaySettings().steps  # Steps of each pathway
    objects: int = 40  # Objects to click, in all files together
    phrases: int = 60  # Objects to ask for, in all files together
    photos: int | None = None  # Read at most this many photos of each source

    def check(self) -> None:
        """Also refuse a run without photos to train on or to measure."""
        super().check()
        if not (self.data and self.measure):
            raise BadInputError("wanted photos to train on and to measure: --data and --measure")
        if "pathway" in self.only and not self.ask:
            raise BadInputError("the group 'pathway' is measured by phrases; add --ask DEV.parquet")

    def variants(self) -> list[Variant]:
        """The variants of the groups that can be measured."""
        every = ablation_variants(
            core=CoreSettings(steps=self.steps), pathway=PathwaySettings(steps=self.pathway_steps)
        )
        if self.only:
            return [variant for variant in every if variant.group in self.only]
        return [variant for variant in every if variant.kind == "core" or self.ask]


def _run(options: AblationOptions) -> int:
    """Exit code 0; 1 if a variant failed, 130 if a signal ended the run."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        benchmark = Benchmark.read(
            options.measure, options.ask, objects=options.objects, phrases=options.phrases
        )
        pool = PhotoPool.read(options.data, limit=options.photos)
    except (ValueError, OSError) as error:
        raise BadInputError(str(error)) from error
    try:
        outcomes = run_variants(
            options.variants(),
            pool=pool,
            benchmark=benchmark,
            folder=options.out,
            report=lambda outcomes: write_reports(outcomes, options.out),
        )
    except StoppedError as error:
        print(f"{error}; type the same command again to continue", file=sys.stderr)
        return 130
    show_outcomes(outcomes)
    plot_outcomes(outcomes, options.out / "ablation.png")
    return 1 if any(outcome.failure for outcome in outcomes) else 0


main = partial(run_command, AblationOptions, _run)

if __name__ == "__main__":
    sys.exit(main())
