"""`tiny` and `tiny_clip`: the shipped model, stage by stage.

    clip     distil the text tower, train the image head         -> clip/
    dense    the dense text head on the frozen CLIP trunk        -> dense/
    points   the SAM core on points and boxes, at 256 px         -> points/
    full     the same at 320 px, with phrases among the prompts  -> full/
    joint    masks and names in one backbone, at 384 px          -> joint/
    final    the same at the size of use, 512 px                 -> final/
    wide     on, the whole backbone, 32 photos a step: for a GPU -> wide/
    export   everything as one folder, fp16                      -> tiny/

Each stage resumes from its own folder and is passed over when it is done.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch

from ...data import Sample, load_samples
from ...engine import EngineConfig, TrainResult
from ..base import Job
from ..sources import DataMix
from .held_out_names import is_held_out
from .settings import SOURCES, StageName
from .stages import STAGES

__all__ = ["TinyClipRecipe", "TinyRecipe", "is_kept_out"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TinyRecipe:
    """The shipped model `tiny`, stage by stage.

    python -m training.train tiny --data ../shared/data/train --runs runs/tiny

    torchrun --nproc-per-node 2 -m training.train tiny --stages joint final

    Stages are clip, dense, points, full, joint, final, wide and export (docs/training.md).

    Attributes:
        data: Folder of the training Parquet files.
        runs: Takes a folder for each stage.
        stages: Those to go through, in their order; all of them by default.
        seed: Of every stage.
        text_epochs: Passes over the phrases that the text tower learns.
        head_steps: Length of the training of CLIP's image head.
        dense_steps: Length of the stage, as the others'.
        points_steps: At 256 px.
        full_steps: At 320 px.
        joint_steps: At 384 px.
        final_steps: At 512 px.
        wide_steps: Of 32 photos each: 0.2 s on an H200, 20 s on a CPU core.
        workers: Processes that make batches, for each training process.
        hold_out_names: Leave the 60 names of `held_out_names` out of everything, for
            `training.studies.unseen_names`.
        precision: "bf16" computes the forward pass of every stage in it.
        cpu: Stay on the CPU even where there is a GPU.
        seconds: Stop each stage after so long, with a checkpoint.
        threads: Of torch in each process.
    """

    NAME: ClassVar[str] = "tiny"

    data: Path = Path("../shared/data/train")
    runs: Path = Path("runs/tiny")
    stages: tuple[StageName, ...] = get_args(StageName)
    seed: int = 0
    text_epochs: float = 2.0
    head_steps: int = 3000
    dense_steps: int = 650
    points_steps: int = 2000
    full_steps: int = 1200
    joint_steps: int = 2000
    final_steps: int = 1500
    wide_steps: int = 2670
    workers: int = 0
    hold_out_names: bool = False
    precision: Literal["no", "bf16"] = "no"
    cpu: bool = False
    seconds: float = float("inf")
    threads: int = 2

    def prepare(self) -> Job:
        """Look at what there is; each stage reads its data when its turn comes."""
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
                    result = stage(self)
                    if result is not None and result.reason not in ("done", "seconds"):
                        return result  # stopped by a signal; a stage whose time is up is followed
            return None

        return job

    def samples(self) -> dict[str, list[Sample]]:
        """All training photos by file, without those names that are held out."""
        samples = {name: load_samples([self.data / f"{name}.parquet"]) for name in SOURCES}
        if not self.hold_out_names:
            return samples
        return {
            name: [kept for sample in rows if (kept := _without_names(sample)).objects]
            for name, rows in samples.items()
        }

    def mix(self, shares: Mapping[str, float], *, kept_out: bool = False) -> DataMix:
        """The training photos; with `kept_out` without those that `export` calibrates on."""
        samples = {
            name: [s for row, s in enumerate(rows) if not (kept_out and is_kept_out(row))]
            for name, rows in self.samples().items()
        }
        return DataMix(sources=samples, shares=shares)

    def kept_out(self) -> dict[str, list[Sample]]:
        """The photos that `wide` does not see and `export` chooses and calibrates on."""
        return {
            name: [s for row, s in enumerate(rows) if is_kept_out(row)]
            for name, rows in self.samples().items()
        }

    def steps_of(self, name: StageName) -> int:
        """Length of a stage."""
        return int(getattr(self, f"{name}_steps"))

    def engine(self, **others: Any) -> EngineConfig:
        """Rise, plateau and linear fall, unless told otherwise; a checkpoint every 100 steps."""
        fields: dict[str, Any] = {
            "seed": self.seed,
            "schedule": "linear",
            "weight_decay": 0.05,
            "precision": self.precision,
            "cpu": self.cpu,
            "checkpoint_every": 100,
            "seconds": self.seconds,
            "timeout": 24 * 3600.0,  # while the first process computes embeddings, the others wait
        }
        return EngineConfig(**{**fields, **others})


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


def is_kept_out(row: int) -> bool:
    """Whether a row of a training file is kept out of the last stage: one of twenty."""
    return row % 20 == 7


def _without_names(sample: Sample) -> Sample:
    """The photo without its objects of held-out names."""
    return replace(sample, objects=tuple(o for o in sample.objects if not is_held_out(o.label)))
