"""Command lines of people who come from another tool: they work, or the error says what to type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from textsam.cli.app import app


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command line, given as one string, in a folder that holds `bus.jpg`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Image.new("RGB", (40, 30), "grey").save("bus.jpg")
    return lambda line: CliRunner().invoke(app, line.split())


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("bus.jpg -t wheel", "Type: textsam segment bus.jpg -t PHRASE"),
        ("predict model=yolo11n-seg.pt source=bus.jpg", "Type: textsam segment ..."),
        ("segment source=bus.jpg conf=0.25", "Type: textsam segment PHOTO"),
        ("segment bus.jpg conf=0.25", "Type: --threshold"),
        ("segment bus.jpg model=tiny -t wheel", "Type: --model"),
        ("segment bus.jpg --text-prompt wheel", "--text-prompt is not an option. Type: --text"),
        ("segment bus.jpg --text_prompt=wheel", "--text_prompt is not an option. Type: --text"),
        ("segment bus.jpg -t wheel --box_threshold 0.3", "Type: --threshold"),
        ("segment bus.jpg --points 100,200", "Type: --point"),
        ("segment bus.jpg -t wheel --imgsz 640", "Each model has one input size"),
        ("everything --input bus.jpg --output out", "Type: textsam everything PHOTO"),
        ("everything bus.jpg --checkpoint sam.pth", "Type: --model"),
        ("everything bus.jpg --convert-to-rle", "Type: --format json"),
        ("amg bus.jpg", "Type: textsam everything ..."),
        ("i bus.jpg out.png", "Type: textsam segment ..."),
        ("segmet bus.jpg -t wheel", "'segment'"),
        ("help", "Type: textsam --help"),
        ("segment help", "Type: textsam segment --help"),
        ("segment -i bus.jpg -t wheel", "Type: textsam segment PHOTO"),
        ("segment --source bus.jpg --classes wheel", "Type: textsam segment PHOTO"),
        ("segment bus.jpg --classes wheel", "Type: --text"),
        ("segment bus.jpg --prompt wheel", "Type: --text"),
        ("segment bus.jpg -t wheel --output a.png", "Type: --out"),
        ("segment bus.jpg -t wheel --conf 0.3", "Type: --threshold"),
        ("segment bus.jpg -t wheel -c 0.3", "Type: --threshold 0.3"),
        ("segment bus.jpg -t wheel -f json", "Type: --format"),
        ("segment bus.jpg -t wheel --save-txt", "Type: --format txt"),
        # Slips of the pen: the nearest one.
        ("segment bus.jpg --treshold 0.3", "Type: --threshold"),
        ("segment bus.jpg --txt wheel", "Type: --text"),
        ("segment bus.jpg -t wheel --band 3,2,1", "Type: --bands"),
        ("segment bus.jpg -t wheel --excude cat", "Type: --exclude"),
    ],
)
def test_names_of_other_tools_are_answered(run: Any, line: str, advice: str) -> None:
    result = run(line)
    assert result.exit_code == 2
    assert advice in result.stderr


@pytest.mark.parametrize("line", ["-b 1 2.5 30 20", "--box 1 2.5 30 20", "--box 1,2.5,30,20"])
def test_numbers_may_be_separated_by_spaces(run: Any, replace_model: Any, line: str) -> None:
    seen: list[Any] = []

    class StandIn:
        name = "stand-in"

        def segment(self, image: Any, *, box: Any, **_: Any) -> Any:
            seen.append(box)
            raise ValueError("far enough")

    replace_model(lambda *_, **__: StandIn())
    run(f"segment bus.jpg {line} -o a.png")
    assert seen == [[1, 2.5, 30, 20]]
    # An option without numbers after it is left alone.
    assert "wanted X0,Y0,X1,Y1" in run("segment bus.jpg --box 1 -o a.png").stderr


def test_bands_may_be_separated_by_spaces(run: Any) -> None:
    for line in ("--bands 3 2 1", "--bands 3,2,1"):
        result = run(f"segment bus.jpg -t wheel {line} --page 9 -o a.png")
        assert "the photo has 1 page" in result.stderr
