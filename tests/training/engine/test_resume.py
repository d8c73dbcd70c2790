"""kill -9 at any moment, start again: the losses go on bit for bit."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from training.engine import CheckpointStore, EngineConfig, Trainer

SETTINGS: dict[str, Any] = {
    "steps": 20,
    "peak_rate": 1e-2,
    "warmup": 5,
    "log_every": 1,
    "checkpoint_every": 5,
    "ema_decay": 0.9,
}
DROPOUT = 0.3  # draws from torch's own generator


def train(toy: ModuleType, folder: Path) -> torch.nn.Module:
    objective: torch.nn.Module = toy.Objective(dropout=DROPOUT)
    config = EngineConfig(cpu=True, tensorboard=False, **SETTINGS)
    Trainer(objective, toy.batches_of(), config=config, folder=folder).train()
    return objective


@pytest.fixture(scope="module")
def straight(toy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight")
    train(toy, folder)
    return folder


@pytest.mark.parametrize(
    ("death", "left", "logged"),
    [
        ({"kill_at_batch": 13}, 10, 13),  # between two steps
        ({"kill_in_write": {"after": 4000, "checkpoints": 1}}, 5, 10),  # inside the second file
    ],
    ids=["between two steps", "while writing"],
)
def test_a_killed_run_goes_on_bit_for_bit(
    toy: ModuleType,
    launch: Callable[..., Any],
    straight: Path,
    tmp_path: Path,
    death: dict[str, Any],
    left: int,
    logged: int,
) -> None:
    done = launch({"folder": tmp_path, "config": SETTINGS, "dropout": DROPOUT, **death})
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "checkpoint.part").exists() == ("kill_in_write" in death)
    newest = CheckpointStore(tmp_path).newest()
    assert newest is not None and CheckpointStore.read(newest)["step"] == left
    assert toy.losses(tmp_path) == toy.losses(straight)[:logged]

    objective = train(toy, tmp_path)
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").open()]
    assert steps == list(range(1, 21))
    assert toy.losses(tmp_path) == toy.losses(straight)
    whole, resumed = (
        CheckpointStore.read(path)
        for folder in (straight, tmp_path)
        if (path := CheckpointStore(folder).newest()) is not None
    )
    for part in ("model", "average"):
        assert whole[part].keys() == resumed[part].keys()
        for name, value in whole[part].items():
            assert torch.equal(value, resumed[part][name]), name
    assert torch.equal(objective.state_dict()["head.weight"], whole["model"]["head.weight"])


@pytest.mark.parametrize("harm", ["truncated", "altered"])
def test_a_damaged_checkpoint_is_passed_over(
    toy: ModuleType,
    straight: Path,
    tmp_path: Path,
    harm: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    train(toy, tmp_path)
    newest, before = CheckpointStore(tmp_path).paths()
    content = bytearray(newest.read_bytes())
    if harm == "altered":
        content[len(content) // 2] ^= 1
    newest.write_bytes(content[:3000] if harm == "truncated" else content)
    train(toy, tmp_path)
    assert f"{newest} is damaged" in caplog.text
    assert toy.losses(tmp_path) == toy.losses(straight)
    assert [CheckpointStore.read(p)["step"] for p in CheckpointStore(tmp_path).paths()] == [20, 15]
    assert before in CheckpointStore(tmp_path).paths()
