"""`tiny` and `tiny_clip`: the shipped model, stage by stage, on one process.

    clip     distil the text tower, train the image head         -> clip/
    dense    the dense text head on the frozen CLIP trunk        -> dense/
    points   the SAM core on points and boxes, at 256 px         -> points/
    full     the same at 320 px, with phrases among the prompts  -> full/
    joint    masks and words in one backbone, at 384 px          -> joint/
    final    the same at the size of use, 512 px                 -> final/
    wide     on, the whole backbone, 32 photos a step: for a GPU -> wide/
    export   everything as one folder, fp16                      -> tiny/

Each stage resumes from its own folder and is passed over when it is done.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from ..data import Sample
from ..engine import EngineConfig, TrainResult
from .base import Job
from .held_out import is_held_out
from .steps import refuse_processes
from .tiny import SOURCES, load_train
from .tiny_stages import STAGES, StageName

__all__ = ["TinyClipRecipe", "TinyRecipe", "is_kept"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TinyRecipe:
    """The shipped model `tiny`, stage by stage, on one process.

    python -m training.train tiny --data ../shared/data/train --runs runs/tiny

    python -m training.train tiny --stages joint export

    Stages are clip, dense, points, full, joint, final, wide and export (docs/training.md).

    Attributes:
        data: Folder of the training Parquet files.
        runs: Takes a folder for each stage.
        stages: Those to go through, in their order; all of them by default.
        seed: Of every stage.
        text_epochs: Passes over the phrases that the text tower learns.
        dense_steps: Length of the stage, as the others'.
        points_steps: At 256 px.
        full_steps: At 320 px.
        joint_steps: At 384 px.
        final_steps: At 512 px.
        wide_steps: Of 32 photos each, on a GPU if there is one: 0.2 s on an H200, 20 s on a core.
        workers: Processes that draw batches for `wide`; none by default.
        hold_out_names: Leave the 60 names of `recipes/held_out.py` out of everything, for
            `training.studies.unseen_names`.
        seconds: Stop each stage after so long, with a checkpoint.
        threads: Of torch.
    """

    NAME: ClassVar[str] = "tiny"

    data: Path = Path("../shared/data/train")
    runs: Path = Path("runs/tiny")
    stages: tuple[StageName, ...] = (
        "clip",
        "dense",
        "points",
        "full",
        "joint",
        "final",
        "wide",
        "export",
    )
    seed: int = 0
    text_epochs: float = 2.0
    dense_steps: int = 650
    points_steps: int = 2000
    full_steps: int = 1200
    joint_steps: int = 2000
    final_steps: int = 1500
    wide_steps: int = 2670
    workers: int = 0
    hold_out_names: bool = False
    seconds: float = float("inf")
    threads: int = 2

    def prepare(self) -> Job:
        """Look at what there is; each stage reads its data when its turn comes."""
        refuse_processes()
        if not self.stages:
            raise ValueError(f"no stage to go through; there are {', '.join(STAGES)}")
        lacking = [name for name in SOURCES if not (self.data / f"{name}.parquet").is_file()]
        if lacking:
            raise FileNotFoundError(
                f"{self.data} lacks {', '.join(f'{name}.parquet' for name in lacking)}. Type: "
                "--data FOLDER"
            )
        torch.set_num_threads(self.threads)

        def job() -> TrainResult | None:
            for name, stage in STAGES.items():
                if name in self.stages:
                    logger.info("stage %s", name)
                    stage(self)
            return None

        return job

    def samples(self) -> dict[str, list[Sample]]:
        """All training files."""
        return load_train(self.data, without=is_held_out if self.hold_out_names else None)

    def seen(self) -> dict[str, list[Sample]]:
        """The photos that `wide` trains on: all but the kept ones."""
        return {
            n: [s for i, s in enumerate(rows) if not is_kept(i)]
            for n, rows in self.samples().items()
        }

    def kept(self) -> dict[str, list[Sample]]:
        """The photos that `wide` does not see and `export` chooses and calibrates on."""
        return {
            n: [s for i, s in enumerate(rows) if is_kept(i)] for n, rows in self.samples().items()
        }

    def engine(self, *, steps: int, warmup: int, tail: float, config: Any) -> EngineConfig:
        """Rise, plateau and linear fall; a checkpoint every 100 steps.

        Args:
            steps: Length of the stage.
            warmup: Steps of the rise.
            tail: Share of the steps in which the rate falls.
            config: Of the stage: `seed`, `weight_decay`, and `decoder_rate` or `rate`, the peak.
        """
        return EngineConfig(
            steps=steps,
            seed=config.seed,
            peak_rate=getattr(config, "decoder_rate", None) or config.rate,
            warmup=warmup,
            schedule="linear",
            tail=tail,
            weight_decay=config.weight_decay,
            cpu=True,
            checkpoint_every=100,
            seconds=self.seconds,
        )


@dataclass(frozen=True, kw_only=True)
class TinyClipRecipe:
    """The CLIP of `tiny` alone: text tower and image head.

    python -m training.train tiny_clip --data ../shared/data/train --runs runs/tiny

    It is the first stage of `tiny`, in the same folder, so that `tiny` goes on from it.

    Attributes:
        data: Folder of the training Parquet files.
        runs: Takes `clip/`.
        seed: Of every random choice.
        text_epochs: Passes over the phrases that the text tower learns.
        threads: Of torch.
    """

    NAME: ClassVar[str] = "tiny_clip"

    data: Path = Path("../shared/data/train")
    runs: Path = Path("runs/tiny")
    seed: int = 0
    text_epochs: float = 2.0
    threads: int = 2

    def prepare(self) -> Job:
        """See `TinyRecipe`."""
        return TinyRecipe(
            data=self.data,
            runs=self.runs,
            stages=("clip",),
            seed=self.seed,
            text_epochs=self.text_epochs,
            threads=self.threads,
        ).prepare()


def is_kept(row: int) -> bool:
    """Whether a row of a training file is kept out of the last stage: one of twenty."""
    return row % 20 == 7
