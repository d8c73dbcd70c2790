"""Two gloo processes are one process with the same global batches."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.warm_python import run_group
from training.engine import CheckpointStore, EngineConfig, Trainer, load_weights

SETTINGS: dict[str, Any] = {
    "steps": 6,
    "peak_rate": 1e-2,
    "warmup": 2,
    "log_every": 2,
    "checkpoint_every": 3,
    "milestones": (),
    "clip_norm": 0.5,
}
AVERAGED = {"ema_decay": 0.9, "evaluate_every": 3}
CASES: dict[str, dict[str, Any]] = {
    "even": {"config": SETTINGS},
    "uneven": {"config": SETTINGS, "uneven": True},
    "uneven, accumulated": {"config": {**SETTINGS, "accumulation": 3}, "uneven": True},
    "sharded": {"config": {**SETTINGS, **AVERAGED, "parallel": "fsdp2", "shard_size": 20}},
    "sharded, uneven, accumulated": {
        "config": {**SETTINGS, "accumulation": 3, "parallel": "fsdp2", "shard_size": 10**9},
        "uneven": True,
    },
}
for each in CASES.values():
    each["evaluate"] = "evaluate_every" in each["config"]


def config_of(case: dict[str, Any], **changes: Any) -> EngineConfig:
    return EngineConfig(cpu=True, tensorboard=False, **{**case["config"], **changes})


@pytest.fixture(scope="module")
def pair(toy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All cases by two processes, one after the other in the same launch."""
    folders = {name: tmp_path_factory.mktemp("pair") for name in CASES}
    cases = [{**case, "folder": str(folders[name])} for name, case in CASES.items()]
    run_group(str(toy.__file__), json.dumps(cases), cwd=folders["even"])
    return folders


@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(
    toy: ModuleType, pair: dict[str, Path], tmp_path: Path, name: str
) -> None:
    objective = toy.Objective()
    config = config_of(CASES[name])
    evaluate = None
    if CASES[name]["evaluate"]:
        evaluate = lambda module, step, _: {"error": module(toy.global_batch(0)).loss.item()}  # noqa: E731
    Trainer(objective, toy.batches_of(), config=config, folder=tmp_path, evaluate=evaluate).train()
    found = torch.load(pair[name] / "gradients.pt")
    assert found.keys() == toy.gradients(objective).keys()
    for key, gradient in toy.gradients(objective).items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-4, atol=1e-6)
    assert toy.losses(pair[name]) == pytest.approx(toy.losses(tmp_path), rel=1e-5)
    trained, expected = toy.Objective(), toy.Objective()
    assert load_weights(pair[name], trained) == load_weights(tmp_path, expected) == 6
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[key], value, rtol=1e-4, atol=1e-5)


def test_the_global_gradient_is_that_of_the_mean_over_all_items(
    toy: ModuleType, pair: dict[str, Path], tmp_path: Path
) -> None:
    """By autograd alone: the last step of the accumulated case, from the weights before it."""
    objective = toy.Objective()
    case = CASES["uneven, accumulated"]
    five = config_of(case, steps=5)
    Trainer(objective, toy.batches_of(), config=five, folder=tmp_path).train()
    objective.zero_grad()
    parts = [toy.global_batch(number) for number in (15, 16, 17)]
    batch = toy.Batch(0, torch.cat([p.x for p in parts]), torch.cat([p.y for p in parts]))
    objective(batch).loss.backward()
    torch.nn.utils.clip_grad_norm_(objective.parameters(), 0.5)
    found = torch.load(pair["uneven, accumulated"] / "gradients.pt")
    for name, gradient in toy.gradients(objective).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_sharded_checkpoints_are_whole_and_one_process_goes_on(
    toy: ModuleType, pair: dict[str, Path], tmp_path: Path
) -> None:
    case = CASES["sharded"]
    path = CheckpointStore(pair["sharded"]).newest()
    assert path is not None
    saved = CheckpointStore.read(path)
    shapes = {name: value.shape for name, value in toy.Objective().state_dict().items()}
    assert {name: value.shape for name, value in saved["model"].items()} == shapes
    longer = config_of(case, steps=10)
    Trainer(toy.Objective(), toy.batches_of(), config=longer, folder=pair["sharded"]).train()
    Trainer(toy.Objective(), toy.batches_of(), config=longer, folder=tmp_path).train()
    assert toy.losses(pair["sharded"]) == pytest.approx(toy.losses(tmp_path), rel=1e-4)
