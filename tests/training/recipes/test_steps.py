"""Trainers with batches of their own, on the engine."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.engine import EngineConfig, RatedPart, load_weights
from training.recipes.steps import StepNumber, StepObjective, StoppedError, train_steps

ENGINE = EngineConfig(
    steps=12, peak_rate=1e-2, warmup=2, checkpoint_every=5, log_every=1, cpu=True, tensorboard=False
)


class Line:
    """Fits a line; batch n is drawn from n."""

    def __init__(self, die_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.config = "line"
        self.die_at = die_at
        self.asked: list[int] = []

    def rates(self) -> list[RatedPart]:
        return [RatedPart(module=self.net, share=0.5)]

    def step_loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        self.asked.append(step)
        if step == self.die_at:
            os.kill(os.getpid(), signal.SIGTERM)
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        loss = (self.net(x)[:, 0] - x.sum(1)).square().mean()
        return loss, {"twice": 2 * loss.item()}


def losses(folder: Path) -> list[float]:
    return [r["loss"] for r in map(json.loads, (folder / "log.jsonl").open()) if "loss" in r]


def test_steps_are_asked_in_order_and_a_stopped_stage_goes_on(tmp_path: Path) -> None:
    straight = Line()
    train_steps(straight, {"net": straight.net}, engine=ENGINE, folder=tmp_path / "a")
    assert straight.asked == list(range(12))
    killed = Line(die_at=6)
    with pytest.raises(StoppedError, match="SIGTERM at step 7"):
        train_steps(killed, {"net": killed.net}, engine=ENGINE, folder=tmp_path / "b")
    again = Line()
    result = train_steps(again, {"net": again.net}, engine=ENGINE, folder=tmp_path / "b")
    assert result.reason == "done" and again.asked == list(range(7, 12))
    assert losses(tmp_path / "a") == losses(tmp_path / "b")

    loaded = Line()
    nn.init.zeros_(loaded.net[0].weight)
    assert load_weights(tmp_path / "a", nn.ModuleDict({"net": loaded.net})) == 12
    assert torch.equal(loaded.net[0].weight, again.net[0].weight)


def test_batch_norms_keep_their_statistics() -> None:
    line = Line()
    objective = StepObjective(line, {"net": line.net}).train()
    assert objective.training and line.net[0].training and not line.net[1].training
    before = line.net[1].running_mean.clone()
    loss, figures = objective(StepNumber(0))
    assert figures == {"twice": 2 * loss.item()}
    assert torch.equal(line.net[1].running_mean, before)


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    line = Line()
    with pytest.raises(ValueError, match="torchrun started 2 processes"):
        train_steps(line, {"net": line.net}, engine=ENGINE, folder=tmp_path)
    assert line.asked == []
