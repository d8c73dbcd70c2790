"""The small loop: a run that is killed goes on as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.engine import LoopConfig, learning_rate_factor, load_checkpoint, parameter_groups, run


def _task() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    groups = parameter_groups([(model, 1e-2)], weight_decay=0.1)
    return model, torch.optim.AdamW(groups)


def _steps(model: nn.Module, die_at: int | None = None):  # type: ignore[no-untyped-def]
    def step_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        if step == die_at:
            raise KeyboardInterrupt
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        loss = (model(x)[:, 0] - x.sum(1)).square().mean()
        return loss, {"twice": 2 * loss.item()}

    return step_loss


CONFIG = LoopConfig(steps=30, warmup=5, checkpoint_every=7, log_every=5)


def test_resuming_is_exact(tmp_path: Path) -> None:
    straight, optimizer = _task()
    run(straight, optimizer, _steps(straight), config=CONFIG, folder=tmp_path / "a")

    killed, optimizer = _task()
    with pytest.raises(KeyboardInterrupt):
        run(killed, optimizer, _steps(killed, die_at=17), config=CONFIG, folder=tmp_path / "b")
    again, optimizer = _task()
    nn.init.zeros_(again[0].weight)
    done = run(again, optimizer, _steps(again), config=CONFIG, folder=tmp_path / "b")
    assert done == 30
    for name, value in straight.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_truncated_checkpoint_is_passed_over(tmp_path: Path) -> None:
    model, optimizer = _task()
    run(model, optimizer, _steps(model), config=CONFIG, folder=tmp_path)
    newest = tmp_path / "checkpoint.pt"
    newest.write_bytes(newest.read_bytes()[:500])
    fresh, optimizer = _task()
    assert load_checkpoint(tmp_path, fresh, optimizer) == 28
    newest.unlink()
    (tmp_path / "checkpoint-previous.pt").unlink()
    assert load_checkpoint(tmp_path, fresh, optimizer) == 0


def test_a_gradient_that_is_not_finite_changes_nothing(tmp_path: Path) -> None:
    model, optimizer = _task()
    before = {k: v.clone() for k, v in model.state_dict().items()}

    def broken(step: int) -> tuple[Tensor, dict[str, float]]:
        return model(torch.ones(1, 4)).sum() * float("nan"), {}

    run(model, optimizer, broken, config=LoopConfig(steps=3), folder=tmp_path)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_rate_rises_stays_and_falls() -> None:
    config = LoopConfig(steps=1000, warmup=100, decay=0.2)
    rates = [learning_rate_factor(step, config=config) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[99] == rates[500] == rates[799] == 1.0
    assert rates[900] == pytest.approx(0.5)
    assert rates[1000] == 0.0


def test_vectors_are_not_decayed() -> None:
    model, _ = _task()
    groups = parameter_groups([(model, 1e-2)], weight_decay=0.1)
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(2, 0.1), (2, 0.0)]
