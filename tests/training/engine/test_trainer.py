"""One process: what a step does, when a run ends, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from training.engine import EngineConfig, Trainer, TrainResult, load_weights
from training.engine.checkpoint import CheckpointError
from training.engine.optim import rate_factor


def config_of(**changes: Any) -> EngineConfig:
    values: dict[str, Any] = {
        "steps": 4,
        "peak_rate": 1e-2,
        "warmup": 2,
        "clip_norm": float("inf"),
        "log_every": 1,
        "checkpoint_every": 2,
        "milestones": (),
        "cpu": True,
        "tensorboard": False,
    }
    return EngineConfig(**{**values, **changes})


def weights_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_a_step_is_adamw_on_the_mean_loss(toy: ModuleType, tmp_path: Path) -> None:
    config = config_of(weight_decay=0.0)
    plain = toy.Objective()
    groups = [
        {"params": list(plain.net.parameters()), "share": 1.0},
        {"params": list(plain.head.parameters()), "share": 2.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=config.betas, weight_decay=0.0)
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.peak_rate * group["share"] * rate_factor(step, config=config)
        optimizer.zero_grad()
        plain(toy.global_batch(step)).loss.backward()
        optimizer.step()
    trained = toy.Objective()
    Trainer(trained, toy.batches_of(), config=config, folder=tmp_path).train()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], value, rtol=1e-5, atol=1e-7)


def test_accumulation_equals_a_bigger_batch(toy: ModuleType, tmp_path: Path) -> None:
    cut = (5, 1, 6)  # unequal parts of one batch

    def parts(start: int) -> Iterator[Any]:
        assert start % len(cut) == 0
        step = start // len(cut)
        while True:
            whole = toy.global_batch(step)
            for x, y in zip(whole.x.split(cut), whole.y.split(cut), strict=True):
                yield toy.Batch(step, x, y)
            step += 1

    bigger, accumulated = toy.Objective(), toy.Objective()
    Trainer(bigger, toy.batches_of(), config=config_of(), folder=tmp_path / "a").train()
    config = config_of(accumulation=len(cut))
    Trainer(accumulated, parts, config=config, folder=tmp_path / "b").train()
    for name, value in toy.gradients(bigger).items():
        torch.testing.assert_close(toy.gradients(accumulated)[name], value, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(toy.losses(tmp_path / "a"), toy.losses(tmp_path / "b"))


def test_the_gradient_is_clipped_and_its_norm_recorded(toy: ModuleType, tmp_path: Path) -> None:
    free, clipped = toy.Objective(), toy.Objective()
    Trainer(free, toy.batches_of(), config=config_of(steps=1), folder=tmp_path / "a").train()
    config = config_of(steps=1, clip_norm=0.25)
    result = Trainer(clipped, toy.batches_of(), config=config, folder=tmp_path / "b").train()
    norm = torch.stack([g.norm() for g in toy.gradients(free).values()]).norm()
    assert norm > 0.25
    assert result.figures["norm"] == pytest.approx(norm.item())
    for name, gradient in toy.gradients(free).items():
        expected = gradient * 0.25 / norm
        torch.testing.assert_close(toy.gradients(clipped)[name], expected, rtol=1e-4, atol=1e-7)


def test_a_gradient_that_is_not_finite_changes_nothing(toy: ModuleType, tmp_path: Path) -> None:
    def broken(start: int) -> Iterator[Any]:
        for batch in toy.batches_of()(start):
            bad = batch.step in (1, 2)
            yield toy.Batch(batch.step, batch.x * float("nan") if bad else batch.x, batch.y)

    good = toy.Objective()
    Trainer(good, toy.batches_of(), config=config_of(steps=1), folder=tmp_path / "a").train()
    objective = toy.Objective()
    config = config_of(steps=3, ema_decay=0.5)
    result = Trainer(objective, broken, config=config, folder=tmp_path / "b").train()
    assert result.skipped == 2
    assert weights_of(objective).keys() == weights_of(good).keys()
    for name, value in weights_of(good).items():
        assert torch.equal(weights_of(objective)[name], value), name
    records = [json.loads(line) for line in (tmp_path / "b/log.jsonl").read_text().splitlines()]
    assert [record["loss"] is None for record in records] == [False, True, True]


def test_the_average_is_evaluated_and_exported(toy: ModuleType, tmp_path: Path) -> None:
    seen: list[tuple[int, bool, dict[str, torch.Tensor]]] = []

    def evaluate(module: nn.Module, step: int, folder: Path) -> dict[str, float]:
        assert folder.is_dir() and not torch.is_grad_enabled()
        seen.append((step, module.training, weights_of(module)))
        return {"error": float(step)}

    objective = toy.Objective(dropout=0.5)
    config = config_of(ema_decay=0.9, evaluate_every=2)
    trainer = Trainer(
        objective, toy.batches_of(), config=config, folder=tmp_path, evaluate=evaluate
    )
    result = trainer.train()
    assert [(step, training) for step, training, _ in seen] == [(2, False), (4, False)]
    assert result.figures["error"] == 4.0
    assert objective.training
    averaged, last = toy.Objective(), toy.Objective()
    assert load_weights(tmp_path, averaged) == load_weights(tmp_path, last, averaged=False) == 4
    for name, value in weights_of(objective).items():
        assert torch.equal(last.state_dict()[name], value)
        assert torch.equal(averaged.state_dict()[name], seen[-1][2][name])
    assert not torch.equal(averaged.head.weight, last.head.weight)


def test_bf16_computes_in_bf16_and_keeps_float32_weights(toy: ModuleType, tmp_path: Path) -> None:
    kinds = []

    class Watched(toy.Objective):  # type: ignore[name-defined, misc]
        def forward(self, batch: Any) -> Any:
            kinds.append(self.net(batch.x).dtype)
            return super().forward(batch)

    objective = Watched()
    Trainer(
        objective, toy.batches_of(), config=config_of(precision="bf16"), folder=tmp_path
    ).train()
    assert set(kinds) == {torch.bfloat16}
    assert objective.head.weight.dtype == torch.float32
    losses = toy.losses(tmp_path)
    plain = toy.Objective()
    Trainer(plain, toy.batches_of(), config=config_of(), folder=tmp_path / "plain").train()
    assert losses != toy.losses(tmp_path / "plain")
    assert losses == pytest.approx(toy.losses(tmp_path / "plain"), rel=0.05)


def test_fp16_is_refused_on_a_cpu(toy: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"fp16.*needs a GPU"):
        Trainer(
            toy.Objective(),
            toy.batches_of(),
            config=config_of(precision="fp16"),
            folder=tmp_path,
        )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_with_a_checkpoint(
    toy: ModuleType, tmp_path: Path, number: signal.Signals
) -> None:
    def before(step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    config = config_of(steps=6, checkpoint_every=100)
    batches = toy.batches_of(before=before)
    result = Trainer(toy.Objective(dropout=0.3), batches, config=config, folder=tmp_path).train()
    assert (result.reason, result.step) == (number.name, 3)
    assert signal.getsignal(number) == handler
    straight = _run(toy, tmp_path / "straight", config, dropout=0.3)
    again = _run(toy, tmp_path, config, dropout=0.3)
    assert (again.reason, again.step) == ("done", 6)
    assert toy.losses(tmp_path) == toy.losses(tmp_path / "straight")
    assert straight.figures["loss"] == again.figures["loss"]


def test_the_time_limit_ends_the_run_with_a_checkpoint(toy: ModuleType, tmp_path: Path) -> None:
    result = _run(toy, tmp_path, config_of(seconds=0.0))
    assert (result.reason, result.step) == ("seconds", 0)
    assert _run(toy, tmp_path, config_of()).step == 4


def test_means_of_a_window_go_on_after_a_stop(toy: ModuleType, tmp_path: Path) -> None:
    def before(step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    config = config_of(steps=4, log_every=4)
    Trainer(toy.Objective(), toy.batches_of(before=before), config=config, folder=tmp_path).train()
    assert not (tmp_path / "log.jsonl").exists()
    _run(toy, tmp_path, config)
    _run(toy, tmp_path / "straight", config)
    assert len(toy.losses(tmp_path)) == 1
    assert toy.losses(tmp_path) == toy.losses(tmp_path / "straight")


def test_an_evaluation_that_was_cut_off_is_made_up_for(toy: ModuleType, tmp_path: Path) -> None:
    steps = []

    def evaluate(module: nn.Module, step: int, folder: Path) -> dict[str, float]:
        steps.append(step)
        if len(steps) == 1:
            raise KeyboardInterrupt
        return {}

    for _ in range(3):
        trainer = Trainer(
            toy.Objective(),
            toy.batches_of(),
            config=config_of(evaluate_every=2),
            folder=tmp_path,
            evaluate=evaluate,
        )
        if not steps:
            with pytest.raises(KeyboardInterrupt):
                trainer.train()
        else:
            trainer.train()
    assert steps == [2, 2, 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peak_rate": 2e-2}, r"peak_rate=0.01, not 0.02"),
        ({"ema_decay": 0.9}, r"ema_decay=None, not 0.9"),
        ({"warmup": 4}, r"other rates up to step 4 \(warmup changed\)"),
    ],
)
def test_a_checkpoint_of_another_config_is_refused(
    toy: ModuleType, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    _run(toy, tmp_path, config_of())
    with pytest.raises(CheckpointError, match=message):
        _run(toy, tmp_path, config_of(**changes))


def test_a_checkpoint_of_another_objective_is_refused(toy: ModuleType, tmp_path: Path) -> None:
    _run(toy, tmp_path, config_of())
    other = toy.Objective(config="another")
    with pytest.raises(CheckpointError, match=r"objective Objective\(toy\), not .*another"):
        Trainer(other, toy.batches_of(), config=config_of(), folder=tmp_path).train()
    wider = toy.Objective()
    wider.head = nn.Linear(8, 2)
    with pytest.raises(CheckpointError, match=r"other trained parameters.*head.bias"):
        Trainer(wider, toy.batches_of(), config=config_of(), folder=tmp_path).train()
    with pytest.raises(CheckpointError, match=r"others , not 8 photos"):
        Trainer(
            toy.Objective(),
            toy.batches_of(),
            config=config_of(),
            folder=tmp_path,
            identity="8 photos",
        ).train()


def test_a_run_can_be_made_longer_while_the_rates_stay(toy: ModuleType, tmp_path: Path) -> None:
    _run(toy, tmp_path, config_of(steps=4))
    assert _run(toy, tmp_path, config_of(steps=6)).step == 6
    _run(toy, tmp_path / "straight", config_of(steps=6))
    assert toy.losses(tmp_path) == toy.losses(tmp_path / "straight")


def test_batches_that_end_or_are_empty_are_errors(toy: ModuleType, tmp_path: Path) -> None:
    def short(start: int) -> Iterator[Any]:
        yield from (toy.global_batch(step) for step in range(2))

    def empty(start: int) -> Iterator[Any]:
        yield toy.Batch(0, torch.zeros(0, 4), torch.zeros(0))

    for batches, message in ((short, "lack 1 and 0"), (empty, "lack 0 and 1")):
        with pytest.raises(ValueError, match=message):
            Trainer(toy.Objective(), batches, config=config_of(), folder=tmp_path / message).train()


def _run(toy: ModuleType, folder: Path, config: EngineConfig, dropout: float = 0.0) -> TrainResult:
    return Trainer(
        toy.Objective(dropout=dropout), toy.batches_of(), config=config, folder=folder
    ).train()
