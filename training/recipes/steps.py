"""Trainers that make their own batches, as objectives of the engine.

The stages of `tiny` draw everything from (seed, step) themselves: their batch is a number or, where
drawing needs no network, what worker processes drew for it. So each training process would draw the
whole batch, and several would only repeat each other: one process only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from textsam.errors import TextSamError

from ..engine import EngineConfig, RatedPart, Trainer, TrainResult
from ..objectives.base import LossOutput
from .base import place_in_run

__all__ = [
    "DrawnTrainer",
    "StepNumber",
    "StepObjective",
    "StepTrainer",
    "StoppedError",
    "draw_ahead",
    "refuse_processes",
    "train_steps",
]


B = TypeVar("B")


class StepTrainer(Protocol):
    """One stage: its loss at a step, and what it trains."""

    @property
    def config(self) -> Any:
        """Settings, which a checkpoint remembers."""

    def step_loss(self, step: int) -> tuple[Tensor, Mapping[str, float]]:
        """Loss of step n and figures to log; all its randomness comes from n and the settings."""

    def rates(self) -> Sequence[RatedPart]:
        """What is trained, and at which share of the peak rate."""


@runtime_checkable
class DrawnTrainer(StepTrainer, Protocol):
    """A stage whose batches are drawn without its networks, by other processes if need be."""

    @property
    def draw(self) -> Callable[[int], Any]:
        """Batch of step n."""

    def batch_loss(self, batch: Any) -> tuple[Tensor, Mapping[str, float]]:
        """Loss of a batch that lies on the networks' device."""


class StoppedError(TextSamError):
    """A stage was interrupted by a signal; its checkpoint is written."""


@dataclass(frozen=True)
class StepNumber:
    """A batch that its trainer makes itself."""

    step: int
    weight: float = 1.0

    def to(self, device: torch.device | str) -> StepNumber:
        """Itself: the trainer's data stay where its model is."""
        return self


class StepObjective(nn.ModuleDict):
    """What a stage trains, by name, and how: `load_weights` reads it into a plain ModuleDict.

    Norms with statistics keep them, whatever mode the engine switches to.
    """

    def __init__(self, trainer: StepTrainer, parts: Mapping[str, nn.Module]) -> None:
        super().__init__(dict(parts))
        self.trainer = trainer
        self.config = trainer.config

    def forward(self, batch: Any) -> LossOutput:
        """Loss of a step: of its number, or of what was drawn for it."""
        if isinstance(batch, StepNumber):
            loss, figures = self.trainer.step_loss(batch.step)
        else:
            assert isinstance(self.trainer, DrawnTrainer)
            loss, figures = self.trainer.batch_loss(batch)
        return LossOutput(loss, dict(figures))

    def rates(self) -> list[RatedPart]:
        """The trainer's."""
        return list(self.trainer.rates())

    def train(self, mode: bool = True) -> StepObjective:
        """Switch to training, but for batch norms."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def train_steps(
    trainer: StepTrainer,
    parts: Mapping[str, nn.Module],
    *,
    engine: EngineConfig,
    folder: Path,
    workers: int = 0,
) -> TrainResult:
    """Train a stage, or go on with what its folder holds.

    Args:
        trainer: The stage.
        parts: Modules whose whole state is in the checkpoints.
        engine: See there.
        folder: Of the stage.
        workers: Processes that draw batches ahead, of a `DrawnTrainer`; 0 for none.

    Raises:
        ValueError: There are several processes.
        StoppedError: SIGTERM or SIGINT came.
    """
    refuse_processes()

    def batches(start: int) -> Iterator[Any]:
        if isinstance(trainer, DrawnTrainer):
            return draw_ahead(trainer.draw, start, workers=workers)
        return map(StepNumber, itertools.count(start))

    result = Trainer(StepObjective(trainer, parts), batches, config=engine, folder=folder).train()
    if result.reason not in ("done", "seconds"):
        raise StoppedError(
            f"{result.reason} at step {result.step}; {result.checkpoint} is written. Start the "
            "same command again to go on"
        )
    return result


def draw_ahead(draw: Callable[[int], B], start: int, *, workers: int) -> Iterator[B]:
    """Batches of step `start` on, without end, in order, drawn by `workers` processes."""
    loader = DataLoader(
        _Draws(draw),
        batch_size=None,
        sampler=_From(start),
        num_workers=workers,
        prefetch_factor=2 if workers else None,
    )
    return iter(loader)


class _Draws(Dataset[B]):
    """A batch for every step number."""

    def __init__(self, draw: Callable[[int], B]) -> None:
        self.draw = draw

    def __getitem__(self, step: int) -> B:
        return self.draw(step)


class _From(Sampler[int]):
    """Whole numbers from one on."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start)


def refuse_processes() -> None:
    """Refuse to run under torchrun with several processes."""
    world = place_in_run()[1]
    if world > 1:
        raise ValueError(
            f"torchrun started {world} processes; the stages of tiny train in one, since each step "
            "draws its own batch. Type: python -m training.train tiny"
        )
