"""The tour runs from top to bottom and shows what it says."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from PIL import Image


def test_the_tour(
    repo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("lancedb", reason="the tour searches")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(repo / "demos" / "first_steps.py"))
    printed = capsys.readouterr().out
    pictures = sorted((tmp_path / "first_steps").iterdir())
    assert [path.name[0] for path in pictures] == ["1", "2", "3", "4"]
    for path in pictures:
        with Image.open(path) as picture:
            picture.verify()
    assert "0 giraffes" in printed
    assert "like the first wheel: ['wheel', 'wheel']" in printed


def test_it_is_made_of_cells(repo: Path) -> None:
    lines = (repo / "demos" / "first_steps.py").read_text("utf-8").splitlines()
    assert lines[0] == "# %% [markdown]"
    assert sum(line == "# %%" for line in lines) >= 6
