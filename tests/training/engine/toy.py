"""A tiny objective on drawn numbers, and a script that trains it in processes of its own.

python toy.py '{"folder": "...", "config": {"steps": 5}}'
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

import torch
from torch import Tensor, nn

import training.engine.checkpoint as checkpoint
from training.engine import EngineConfig, RatedPart, Trainer
from training.objectives.base import LossOutput
from training.recipes.base import end_process

ITEMS = 12  # of a global batch


@dataclass(frozen=True)
class Batch:
    step: int
    x: Tensor
    y: Tensor

    @property
    def weight(self) -> int:
        return len(self.x)

    def to(self, device: torch.device) -> Batch:
        return Batch(self.step, self.x.to(device), self.y.to(device))


class Objective(nn.Module):
    """Squared error of a small MLP with dropout."""

    def __init__(self, *, dropout: float = 0.0, config: str = "toy") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = config
        block = nn.ModuleList([nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(2)])
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), *block, nn.Dropout(dropout))
        self.head = nn.Linear(8, 1)
        self.fixed = nn.Linear(3, 3).requires_grad_(False)

    def rates(self) -> list[RatedPart]:
        return [RatedPart(module=self.net), RatedPart(module=self.head, share=2.0)]

    def forward(self, batch: Batch) -> LossOutput:
        error = self.head(self.net(batch.x))[:, 0] - batch.y
        return LossOutput(error.square().mean(), {"absolute": error.detach().abs().mean()})


def global_batch(step: int) -> Batch:
    x = torch.randn(ITEMS, 4, generator=torch.Generator().manual_seed(step))
    return Batch(step, x, x.sum(1))


def batches_of(
    *,
    rank: int = 0,
    world: int = 1,
    uneven: bool = False,
    before: Callable[[int], None] = lambda step: None,
) -> Callable[[int], Iterator[Batch]]:
    """One rank's batches; uneven gives rank 0 a sixth of the items."""

    def batches(start: int) -> Iterator[Batch]:
        step = start
        while True:
            before(step)
            whole = global_batch(step)
            if uneven and world == 2:
                rows = slice(0, 2) if rank == 0 else slice(2, None)
            else:
                rows = slice(rank, None, world)
            yield Batch(step, whole.x[rows], whole.y[rows])
            step += 1

    return batches


def gradients(objective: nn.Module) -> dict[str, Tensor]:
    """What is left of the last step, whole."""
    return {
        name: p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad.clone()
        for name, p in objective.named_parameters()
        if p.grad is not None
    }


def losses(folder: Path) -> list[float]:
    """The loss of every record."""
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [record["loss"] for record in map(json.loads, lines) if "loss" in record]


def kill_at_batch(number: int) -> Callable[[int], None]:
    def before(step: int) -> None:
        if step == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return before


def kill_in_write(folder: Path, *, after: int, checkpoints: int) -> None:
    """SIGKILL once `after` bytes of a checkpoint are written and there are others before it."""
    write = checkpoint._Summed.write
    written = 0

    def deadly(self: Any, data: bytes) -> int:
        nonlocal written
        if len(list(folder.glob("checkpoint-*.pt"))) == checkpoints:
            written += len(data)
            if written > after:
                self.file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
        return write(self, data)

    checkpoint._Summed.write = deadly  # type: ignore[method-assign]


def train(case: dict[str, Any]) -> None:
    """One run, as JSON describes it."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    folder = Path(case["folder"])
    before = lambda step: None  # noqa: E731
    if rank == case.get("kill_rank", 0):
        if "kill_at_batch" in case:
            before = kill_at_batch(case["kill_at_batch"])
        if "kill_in_write" in case:
            kill_in_write(folder, **case["kill_in_write"])
    objective = Objective(dropout=case.get("dropout", 0.0))
    if rank:  # the weights of rank 0 count
        nn.init.zeros_(objective.head.weight)
    evaluate = None
    if case.get("evaluate"):
        evaluate = lambda module, step, folder: {"error": module(global_batch(0)).loss.item()}  # noqa: E731
    config = EngineConfig(cpu=True, tensorboard=False, **case["config"])
    batches = batches_of(rank=rank, world=world, uneven=case.get("uneven", False), before=before)
    Trainer(objective, batches, config=config, folder=folder, evaluate=evaluate).train()
    found = gradients(objective)
    if rank == 0:
        torch.save(found, folder / "gradients.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for each in json.loads(sys.argv[1]):
        train(each)
    end_process(0)
