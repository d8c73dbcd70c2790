"""`tiny` and `tiny_clip`: the shipped model, stage by stage.

    clip     distil the text tower, train the image head         -> clip/
    dense    the dense text head on the frozen CLIP trunk        -> dense/
    points   the SAM core on points and boxes, at 256 px         -> points/
    full     the same at 320 px, with phrases among the prompts  -> full/
    joint    masks and names in one backbone, at 384 px          -> joint/
    final    the same at the size of use, 512 px                 -> final/
    wide     on, the whole backbone, 32 photos a step: for a GPU -> wide/
    words    the dense text head alone: all files, kinds, colours -> words/
    broad    the same with the core                              -> broad/
    export   everything as one folder, fp16                      -> tiny/

Each stage resumes from its own folder and is skipped when it is done.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from ...engine import TrainResult
from ..base import Job
from .stage_settings import FILES, TinySettings
from .stages import STAGES

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TinyRecipe(TinySettings):
    """The shipped model `tiny`, stage by stage.

    python -m training.train tiny --data ../shared/data/train --runs runs/tiny

    torchrun --nproc-per-node 2 -m training.train tiny --stages joint final

    Stages are clip, dense, points, full, joint, final, wide, words, broad and export: see
    docs/training.md.
    """

    NAME: ClassVar[str] = "tiny"

    def prepare(self) -> Job:
        """Check the settings; each stage reads its data when its turn comes."""
        if not self.stages:
            raise ValueError(f"no stage to go through; there are {', '.join(STAGES)}")
        lacking = [name for name in FILES if not (self.data / f"{name}.parquet").is_file()]
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


@dataclass(frozen=True, kw_only=True)
class TinyClipRecipe:
    """The CLIP of `tiny` alone: text tower and image head.

    python -m training.train tiny_clip --data ../shared/data/train --runs runs/tiny

    It is the first stage of `tiny`, in the same folder, so that `tiny` goes on from it.
    """

    NAME: ClassVar[str] = "tiny_clip"

    data: Path = Path("../shared/data/train")  # Folder of the training Parquet files
    runs: Path = Path("runs/tiny")  # Takes `clip/`
    seed: int = 0  # Of every random choice
    text_epochs: float = 2.0  # Passes over the phrases that the text tower learns
    threads: int = 2  # Of torch

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
