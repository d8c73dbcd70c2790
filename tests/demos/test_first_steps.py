"""The tour runs from top to bottom and shows what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image


def test_the_tour(repo: Path, tmp_path: Path) -> None:
    pytest.importorskip("lancedb", reason="the tour searches")
    done = subprocess.run(
        [sys.executable, str(repo / "demos" / "first_steps.py")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(repo), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    pictures = sorted((tmp_path / "first_steps").iterdir())
    assert [path.name[0] for path in pictures] == ["1", "2", "3", "4"]
    for path in pictures:
        with Image.open(path) as picture:
            picture.verify()
    assert "0 giraffes" in done.stdout
    assert "like the first wheel: ['wheel', 'wheel']" in done.stdout


def test_it_is_made_of_cells(repo: Path) -> None:
    lines = (repo / "demos" / "first_steps.py").read_text("utf-8").splitlines()
    assert lines[0] == "# %% [markdown]"
    assert sum(line == "# %%" for line in lines) >= 6
