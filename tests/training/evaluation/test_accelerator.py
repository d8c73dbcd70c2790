"""The prepared run for a GPU: a rehearsal on the CPU, and a device that computes wrongly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from textsam import TextSAM
from training.evaluation import accelerator
from training.evaluation.accelerator import AcceleratorOptions
from training.evaluation.speed.core_rows import debug_config
from training.evaluation.speed.equal_networks import random_sam


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """No `tiny`, and no minutes of compiling."""
    core = TextSAM(random_sam(debug_config()), name="random")
    monkeypatch.setattr(accelerator, "load_models", lambda _: {"core": core})
    monkeypatch.setenv("CXX", "no-such-compiler")


def test_a_rehearsal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    options = AcceleratorOptions(device="cpu", quick=True, rounds=1, json=file)
    assert accelerator.run(options) == 0
    (content,) = json.loads(file.read_text())["sets"]
    parts = {(row["part"], row["dtype"]): row for row in content["parity"]}
    assert {part for part, _ in parts} == {"encoder", "decoder", "automatic masks"}
    assert all(
        row["error"] == 0 and row["passed"] for (_, t), row in parts.items() if t == "float32"
    )
    assert 0 < parts["encoder", "bfloat16"]["error"] < 0.2
    timed = {(row["part"], row["batch"]) for row in content["times"]}
    assert timed == {("encode", 1), ("encode", 2), ("decode", 1), ("decode", 64)}
    assert all(row["seconds"] > 0 for row in content["times"])
    printed = capsys.readouterr().out
    assert "no C++ compiler" in printed and "Time of one call" in printed


def test_a_wrong_device(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = accelerator._moved

    def broken(model: TextSAM, device: torch.device, dtype: torch.dtype) -> TextSAM:
        there = moved(model, device, dtype)
        with torch.no_grad():
            # A norm follows the neck's convolutions, so a factor would not show.
            there.sam.image_encoder.neck[3].bias.add_(0.1)
        return there

    monkeypatch.setattr(accelerator, "_moved", broken)
    monkeypatch.setattr(accelerator, "_time", lambda *_, **__: iter(()))
    assert accelerator.run(AcceleratorOptions(device="cpu", quick=True)) == 1
    assert "DIFFERS" in capsys.readouterr().out


def test_no_such_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert accelerator.run_command(AcceleratorOptions, accelerator.run, ["--device", "xpu"]) == 2
    assert "torch sees no xpu here" in capsys.readouterr().err
