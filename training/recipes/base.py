"""Base of recipes: how they are run, and how an objective is trained on named sources."""

from __future__ import annotations

import itertools
import logging
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import ClassVar, NoReturn, Protocol, TypeAlias

import numpy as np

from textsam.inference.model import TextSAM

from ..data import LoaderConfig, Sample, ViewConfig, ViewLoader, make_view
from ..data.fetch import Finish
from ..engine import EngineConfig, PictureSheet, Trainer, TrainResult, load_weights
from ..engine.sharding import is_sharded
from ..engine.trainer import Evaluate
from ..objectives.base import Objective
from .sources import DataMix

logger = logging.getLogger(__name__)

_SHOWN = 8  # photos on a page of pictures

# What `prepare` gives back: trains, and says how it ended (None for a recipe of several trainings).
Job: TypeAlias = Callable[[], TrainResult | None]


class Recipe(Protocol):
    """Typed settings of a training, and how to run it.

    `python -m training.train --help` shows the first line of the docstring.
    """

    NAME: ClassVar[str]

    def prepare(self) -> Job:
        """Check all settings and open data and weights, without training yet."""


def end_process(status: int) -> NoReturn:
    """Exit; the last line of a program that may have trained in several processes."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        sys.exit(status)
    if status == 0:  # after a failure the others may be gone, and waiting for them would hang
        dist.destroy_process_group()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: a model wrapped for DDP keeps gloo's threads even after `destroy_process_group`,
    # and one that runs while the interpreter shuts down aborts the process ("terminate called
    # without an active exception"), so that a finished run would count as failed.
    os._exit(status)


def place_in_run() -> tuple[int, int]:
    """Rank of this process and number of processes, from torchrun; (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True, kw_only=True)
class ObjectiveRun:
    """One objective on one mix of sources."""

    mix: DataMix  # sources and their shares
    loader: LoaderConfig  # settings of the loader, except shares
    engine: EngineConfig  # settings of the run
    folder: Path  # for checkpoints and logs
    # Turns the loader's batches into those of the objective, see `ViewLoader`
    finish: Finish | None = None

    def batches(self, *, rank: int, world: int) -> ViewLoader:
        """The loader of one process."""
        config = replace(self.loader, shares=self.mix.shares)
        return ViewLoader(
            self.mix.sources, config=config, rank=rank, world=world, finish=self.finish
        )

    def train(self, objective: Objective, *, evaluate: Evaluate | None = None) -> TrainResult:
        """Train, or resume the run in the folder."""
        rank, world = place_in_run()
        loader = self.batches(rank=rank, world=world)
        trainer = Trainer(
            objective,
            loader.batches,
            config=self.engine,
            folder=self.folder,
            evaluate=evaluate,
            identity=self._identity(loader),
        )
        # Broken photos are reported once, at the end.
        result = trainer.train()
        for name, count in sorted(loader.skipped.items()):
            logger.warning("%s: %d times a broken photo was passed over", name, count)
        return result

    def _identity(self, loader: ViewLoader) -> str:
        """Text of everything that the batches depend on."""
        free = ("workers", "prefetch", "start_method")  # they change no batch
        settings = {f.name: getattr(loader.config, f.name) for f in fields(loader.config)}
        decisive = {name: value for name, value in settings.items() if name not in free}
        finish = "" if self.finish is None else f", {self.finish}"
        return f"{decisive}, {self.mix.describe()}{finish}"


@dataclass(frozen=True, kw_only=True)
class ObjectiveRecipe:
    """Fields of every recipe that trains one objective on sources."""

    folder: Path  # Takes checkpoints, logs and what is trained
    images: int  # Photos in a step, over all processes and all accumulated batches
    workers: int = 0  # Processes that make views, on each GPU
    engine: EngineConfig  # Optimisation, processes and files

    def run_on(self, mix: DataMix, view: ViewConfig) -> ObjectiveRun:
        """The run on these sources, whose lengths and shares are looked at."""
        loader = LoaderConfig(
            photos_per_step=photos_per_batch(self.images, self.engine),
            workers=self.workers,
            seed=self.engine.seed,
            view=view,
        )
        run = ObjectiveRun(mix=mix, loader=loader, engine=self.engine, folder=self.folder)
        run.batches(rank=0, world=place_in_run()[1])
        return run


def is_finished(result: TrainResult) -> bool:
    """Whether this process, the first, should write the model of a run that was not stopped."""
    return result.reason in ("done", "seconds") and place_in_run()[0] == 0


def photos_per_batch(images: int, engine: EngineConfig) -> int:
    """Photos of each of the batches that are accumulated to one step."""
    if images < 1 or images % engine.accumulation:
        raise ValueError(
            f"images={images}, engine.accumulation={engine.accumulation}; wanted a step's photos "
            "as a multiple of its batches"
        )
    return images // engine.accumulation


def picture_sheet(samples: Iterable[Sample], view: ViewConfig, *, name: str) -> PictureSheet | None:
    """An evaluation that draws the first eight photos with a mask, uncropped; None without any."""
    whole = replace(view, jitter=0.0, flip=0.0)
    rng = np.random.default_rng(0)
    made = (make_view(sample, rng, config=whole) for sample in samples)
    views = list(itertools.islice((shown for shown in made if shown is not None), _SHOWN))
    return PictureSheet(views, name=name) if views else None


def trained_weights(
    folder: Path, objective: Objective, *, build: Callable[[], Objective]
) -> Objective:
    """The objective with the newest checkpoint's weights, averaged if the run averages them."""
    whole = build() if is_sharded(objective) else objective
    load_weights(folder, whole)
    return whole.eval()


def save_model(model: TextSAM, folder: Path) -> Path:
    """Write a model folder and log how to load it."""
    path = model.save_pretrained(folder)
    logger.info('wrote %s: TextSAM.from_pretrained("%s") reads it', path, path)
    return path
