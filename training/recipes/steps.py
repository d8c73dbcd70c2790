"""Trainers that make their own batches, as objectives of the engine.

The stages of `tiny` draw everything from (seed, step) themselves: their batch is a number. So each
process would draw the whole batch, and several would only repeat each other: one process only.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from textsam.errors import TextSamError

from ..engine import EngineConfig, RatedPart, Trainer, TrainResult
from ..objectives.base import LossOutput
from .base import place_in_run

__all__ = [
    "StepNumber",
    "StepObjective",
    "StepTrainer",
    "StoppedError",
    "refuse_processes",
    "train_steps",
]


class StepTrainer(Protocol):
    """One stage: its loss at a step, and what it trains."""

    @property
    def config(self) -> Any:
        """Settings, which a checkpoint remembers."""

    def step_loss(self, step: int) -> tuple[Tensor, Mapping[str, float]]:
        """Loss of step n and figures to log; all its randomness comes from n and the settings."""

    def rates(self) -> Sequence[RatedPart]:
        """What is trained, and at which share of the peak rate."""


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

    def forward(self, batch: StepNumber) -> LossOutput:
        """Loss of a step."""
        loss, figures = self.trainer.step_loss(batch.step)
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
) -> TrainResult:
    """Train a stage, or go on with what its folder holds.

    Args:
        trainer: The stage.
        parts: Modules whose whole state is in the checkpoints.
        engine: See there.
        folder: Of the stage.

    Raises:
        ValueError: There are several processes.
        StoppedError: SIGTERM or SIGINT came.
    """
    refuse_processes()

    def batches(start: int) -> Iterator[StepNumber]:
        return map(StepNumber, itertools.count(start))

    result = Trainer(StepObjective(trainer, parts), batches, config=engine, folder=folder).train()
    if result.reason not in ("done", "seconds"):
        raise StoppedError(
            f"{result.reason} at step {result.step}; {result.checkpoint} is written. Start the "
            "same command again to go on"
        )
    return result


def refuse_processes() -> None:
    """Refuse to run under torchrun with several processes."""
    world = place_in_run()[1]
    if world > 1:
        raise ValueError(
            f"torchrun started {world} processes; the stages of tiny train in one, since each step "
            "draws its own batch. Type: python -m training.train tiny"
        )
