"""Charts show every figure they are given, and refuse to show nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.evaluation.figures.charts import PlottedCurve, write_bars, write_curves
from training.evaluation.figures.intervals import Interval


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def _share(path: Path, color: tuple[int, int, int]) -> int:
    return int((np.abs(_pixels(path) - color).sum(-1) < 12).sum())


def test_a_bar_is_as_long_as_its_figure(tmp_path: Path) -> None:
    blue = (0x00, 0x72, 0xB2)
    areas = []
    for value in (0.2, 0.8):
        bar = Interval(value, value - 0.05, value + 0.05, 9)
        path = tmp_path / "b.png"
        write_bars(path, {"a set": {"1 click": bar}}, title="T", axis="IoU")
        areas.append(_share(path, blue))
    assert areas[1] / areas[0] == pytest.approx(4, rel=0.35)  # the figure is written on it


def test_every_group_has_its_bars(tmp_path: Path) -> None:
    bar = Interval(0.5, 0.4, 0.6, 9)
    one, two = tmp_path / "1.png", tmp_path / "2.png"
    write_bars(one, {"a": {"x": bar}}, title="T", axis="IoU")
    write_bars(two, {"a": {"x": bar, "y": bar}, "b": {"x": bar}}, title="T", axis="IoU")
    assert _pixels(two).shape[0] > _pixels(one).shape[0]
    assert _share(two, (0xE6, 0x9F, 0x00)) > 500
    assert _share(one, (0xE6, 0x9F, 0x00)) == 0


def test_curves_and_their_marks(tmp_path: Path) -> None:
    curves = [PlottedCurve(name=f"c{i}", x=[0, 1], y=[i / 9, 1], mark=(0.5, 0.5)) for i in range(9)]
    path = tmp_path / "c.png"
    write_curves(
        path,
        curves,
        title="T",
        axes_names=("recall", "precision"),
        limits=((0, 1), (0, 1)),
    )
    assert _share(path, (0x00, 0x72, 0xB2)) > 100


def test_without_a_path_or_a_figure_nothing_is_drawn(tmp_path: Path) -> None:
    bar = Interval(0.5, 0.4, 0.6, 9)
    write_bars(None, {"a": {"x": bar}}, title="T", axis="IoU")
    write_bars(tmp_path / "b.png", {"a": {}}, title="T", axis="IoU")
    write_curves(tmp_path / "c.png", [], title="T", axes_names=("x", "y"))
    assert not list(tmp_path.iterdir())
