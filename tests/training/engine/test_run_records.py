"""Log, TensorBoard, progress bar."""

from __future__ import annotations

import io
import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from training.engine.run_records import FigureMeans, RunRecords, TrainingBar


def same(values: list[float]) -> list[float]:
    return list(values)


def test_means_are_weighted_and_leave_out_what_is_not_finite(tmp_path: Path) -> None:
    window = FigureMeans()
    window.add({"loss": torch.tensor(1.0), "iou": math.nan}, weight=3)
    window.add({"loss": 5.0, "iou": math.nan, "rest": 2.0}, weight=1)
    window.add({"loss": math.inf}, weight=100)
    with RunRecords(tmp_path, step=0, tensorboard=False) as records:
        records.write(7, window.totals(same), rate=0.5)
    line = json.loads((tmp_path / "log.jsonl").read_text())
    assert line == {"step": 7, "rate": 0.5, "loss": 2.0, "iou": None, "rest": 2.0}


def test_records_of_a_killed_run_are_not_doubled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "log.jsonl"
    with RunRecords(tmp_path, step=0, tensorboard=False) as records:
        for step in (1, 2, 3):
            records.write(step, {"loss": [float(step), 1.0]})
        records.write_evaluation(2, {"miou": 0.5}, tmp_path / "none")
        records.write_evaluation(3, {"miou": math.nan}, tmp_path / "none")
    log.write_text(log.read_text() + '{"step": 4, "lo')
    with caplog.at_level(logging.WARNING), RunRecords(tmp_path, step=2, tensorboard=False) as again:
        assert again.evaluated == {2}
        assert again.last == {"step": 2, "loss": 2.0, "miou": 0.5}
        again.write(3, {"loss": [30.0, 1.0]})
    assert "cut short" in caplog.text
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == [1, 2, 2, 3]


def test_tensorboard_has_figures_and_pictures(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(np.full((6, 8, 3), 200, dtype=np.uint8)).save(pictures / "views.png")
    (pictures / "notes.txt").write_text("no picture")
    with RunRecords(tmp_path, step=0, tensorboard=True) as records:
        records.write(1, {"loss": [2.0, 1.0], "none": [0.0, 0.0]}, rate=0.1)
        records.write_evaluation(1, {"miou": 0.25}, pictures)
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"train/loss", "train/rate", "evaluation/miou"}
    assert events.Scalars("evaluation/miou")[0].value == 0.25
    assert events.Tags()["images"] == ["views"]
    picture = events.Images("views")[0]
    assert (picture.width, picture.height, picture.step) == (8, 6, 1)


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_shows_the_time_left_on_terminals_only(terminal: bool) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=80)
    with TrainingBar(10, done=4, show=True, console=console) as bar:
        bar.show(5, 0.25)
    shown = text.getvalue()
    assert ("loss 0.2500" in shown and "5/10" in shown) == terminal
    if not terminal:
        assert shown.strip() == ""
