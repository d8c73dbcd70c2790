"""Everyday phrases: verdicts by points, and the command on the examples."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from textsam.values.rle import RLE, encode_mask
from training.evaluation import everyday
from training.evaluation.command import run_command
from training.evaluation.everyday import EverydayOptions, judge


def _mask(*cells: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros((10, 20), bool)
    for x, y in cells:
        mask[y, 2 * x : 2 * x + 2] = True
    return mask


def test_verdicts() -> None:
    truth = "15,15 35,15 55,15 | 75,75"
    assert judge(_mask(), truth) == "nothing"
    assert judge(_mask((1, 1), (3, 1)), truth) == "right"
    assert judge(_mask((1, 1)), truth) == "wrong"  # one of three points
    assert judge(_mask((1, 1), (3, 1), (7, 7)), truth) == "wrong"  # spilt over a point off
    assert judge(_mask(), "") == "right"
    assert judge(_mask((1, 1)), "") == "wrong"


def test_every_point_lies_on_its_photo() -> None:
    truths = json.loads(Path(everyday.__file__).with_suffix(".json").read_text(encoding="utf-8"))
    assert {len(phrases) for phrases in truths.values()} == {10}
    assert sum(name.startswith("examples/") for name in truths) == 5
    for phrases in truths.values():
        for phrase, truth in phrases.items():
            pairs = truth.replace("|", " ").split()
            assert all(0 <= float(v) < 100 for pair in pairs for v in pair.split(",")), phrase
            assert bool(truth) == ("|" in truth), phrase


@dataclass(frozen=True)
class _Answer:
    masks: NDArray[np.bool_]
    rles: list[RLE]

    def __len__(self) -> int:
        return len(self.rles)


def test_the_command_counts_and_draws(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class AllOfIt:
        """Answers every phrase but one with the whole photo."""

        def open(self, image: NDArray[np.uint8]) -> AllOfIt:
            self.mask = np.ones(image.shape[:2], bool)
            return self

        def segment(self, *, text: str) -> Any:
            kept = [] if text == "sky" else [self.mask]
            return _Answer(masks=np.array(kept), rles=[encode_mask(m) for m in kept])

    monkeypatch.setattr(everyday, "load_model", lambda name: AllOfIt())
    sheet, report = tmp_path / "sheet.png", tmp_path / "verdicts.json"
    assert not run_command(
        EverydayOptions,
        everyday._run,
        ["--sheet", str(sheet), "--json", str(report)],
    )
    printed = capsys.readouterr().out
    assert "3 more photos with --photos FOLDER" in printed
    # The sky of the bus is answered with nothing; horses show none, and it is right there.
    assert printed.split("all")[1].split()[:3] == ["1", "48", "1"]
    rows = {row["name"]: row["verdicts"] for row in json.loads(report.read_text())["sets"]}
    assert rows["examples/bus.jpg"]["sky"] == "nothing"
    assert rows["examples/horses.jpg"]["sky"] == "right"
    with Image.open(sheet) as picture:
        assert picture.width > 1000 and picture.height > 2000


def test_photos_that_are_not_there_are_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(everyday, "_ROOT", tmp_path)
    assert run_command(EverydayOptions, everyday._run, ["--photos", str(tmp_path)]) == 2
    assert "Type: --photos FOLDER" in capsys.readouterr().err
