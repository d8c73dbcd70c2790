"""`points` and `fairness`, on a model that each click helps by a known amount."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from textsam.values.rle import encode_mask
from training.evaluation import command, fairness, points
from training.evaluation.clicks.simulated_clicks import random_click
from training.evaluation.fairness import groups_of

SIZE = (48, 64)
Mask = NDArray[np.bool_]


def _box(x0: int, y0: int, x1: int, y1: int) -> Mask:
    mask = np.zeros(SIZE, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


class Growing:
    """Paints `start` columns of a 10 x 20 truth at x = 10, one more with each click."""

    def __init__(self, start: int) -> None:
        self.start = start

    @contextmanager
    def open(self, image: Any) -> Iterator[Growing]:
        yield self

    def predict(self, *, points: Any = None, box: Any = None, **rest: Any) -> Any:
        width = 10 if points is None else min(10, self.start + len(points) - 1)
        logits = np.where(np.stack([_box(10, 5, 10 + width, 25)] * 4), 1, -1).astype(np.float32)
        return SimpleNamespace(logits=logits, iou=np.full(4, 0.5, np.float32), low_res=None)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are named by the columns that they paint at the first click."""
    monkeypatch.setattr(command, "load_model", lambda name: Growing(int(name)))


def _write(path: Path, groups: list[str | None], masks: list[Mask] | None = None) -> Path:
    rows = []
    for index, group in enumerate(groups):
        file = io.BytesIO()
        Image.new("RGB", SIZE[::-1]).save(file, "PNG")
        mask = _box(10, 5, 20, 25) if masks is None else masks[index]
        counts = encode_mask(mask).counts.decode()
        thing = {"label": "person", "kind": "thing", "rle": counts, "ignore": False}
        if group is not None:
            thing["group"] = group
        row = {
            "image": {"bytes": file.getvalue(), "path": None},
            "image_id": f"photo {index}",
            "source": "test",
            "license": "none",
            "height": SIZE[0],
            "width": SIZE[1],
            "exhaustive": True,
            "void": None,
            "objects": [thing],
        }
        rows.append(row)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.usefixtures("models")
def test_interactive_counts_clicks_and_draws_the_curve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _write(tmp_path / "set.parquet", [None, None])
    report, plot = tmp_path / "r.json", tmp_path / "p.png"
    arguments = [str(data), "--model", "3", "--json", str(report), "--plot", str(plot)]
    assert points.main([*arguments, "--interactive"]) == 0
    (row,) = json.loads(report.read_text())["sets"]
    curve = [row["means"][f"iou@{n}"] for n in range(1, 21)]
    np.testing.assert_allclose(curve[:8], np.arange(3, 11) / 10)
    assert curve[8:] == [1.0] * 12
    assert row["means"]["noc@0.85"] == 7 and row["means"]["noc@0.90"] == 7
    assert "every further click raises the mean IoU" in capsys.readouterr().out
    assert Image.open(plot).width > 500


def test_a_fall_of_the_curve_is_told() -> None:
    falls = points.falls_of({"iou@1": 0.5, "iou@2": 0.75, "iou@3": 0.5}, 3)
    assert falls == [(3, 0.25)]


def test_groups_of_an_object() -> None:
    assert groups_of("gender=female; age=young") == [("gender", "female"), ("age", "young")]
    assert groups_of("dark") == [("", "dark")]
    assert groups_of("") == groups_of(" ; age=") == []


@pytest.mark.usefixtures("models")
def test_fairness_compares_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Truths of the second group are half as wide, so the same masks are worse or better."""
    wide, narrow = _box(10, 5, 20, 25), _box(10, 5, 15, 25)
    data = _write(
        tmp_path / "people.parquet",
        ["tone=a", "tone=a", "tone=b", "tone=b", None],
        [wide, wide, narrow, narrow, wide],
    )
    plot = tmp_path / "p.png"
    report = tmp_path / "r.json"
    arguments = [str(data), "--model", "5", "--plot", str(plot), "--json", str(report)]
    assert fairness.main(arguments) == 0
    (row,) = json.loads(report.read_text())["sets"]
    assert row["objects"] == 4
    a, b = row["groups"]["tone"]["a"], row["groups"]["tone"]["b"]
    assert a["1"]["mean"] == pytest.approx(0.5) and a["3"]["mean"] == pytest.approx(0.7)
    assert b["1"]["mean"] == pytest.approx(1.0)
    printed = capsys.readouterr().out
    assert "b over a by 0.500" in printed and "do not overlap" in printed
    assert plot.exists()


@pytest.mark.usefixtures("models")
def test_fairness_without_groups_says_what_is_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _write(tmp_path / "people.parquet", [None])
    assert fairness.main([str(data), "--model", "5"]) == 2
    assert "no object has a group" in capsys.readouterr().err


@pytest.mark.usefixtures("models")
def test_points_compares_checkpoints_object_by_object(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _write(tmp_path / "set.parquet", [None] * 3)
    report, plot = tmp_path / "r.json", tmp_path / "p.png"
    arguments = [
        str(data),
        "--model",
        "4",
        "--compare",
        "6",
        "--json",
        str(report),
        "--plot",
        str(plot),
    ]
    assert points.main(arguments) == 0
    first, second = json.loads(report.read_text())["sets"]
    assert (first["model"], second["model"]) == ("4", "6")
    assert "differences" not in first
    difference = second["differences"]["iou@1"]
    assert tuple(difference.values()) == pytest.approx((0.2, 0.2, 0.2, 3))
    assert second["differences"]["box"]["mean"] == 0
    printed = capsys.readouterr().out
    assert "+0.200*" in printed
    assert plot.exists()
    assert points.main([str(data), "--model", "4", "--compare", "4"]) == 2
    assert "named twice" in capsys.readouterr().err


@pytest.mark.usefixtures("models")
def test_points_draws_bars_and_clicks_at_random(tmp_path: Path) -> None:
    data = _write(tmp_path / "set.parquet", [None] * 2)
    report, plot = tmp_path / "r.json", tmp_path / "p.png"
    arguments = [str(data), "--model", "4", "--sampling", "random", "--plot", str(plot)]
    assert points.main([*arguments, "--json", str(report)]) == 0
    assert plot.exists()
    saved = json.loads(report.read_text())
    assert saved["settings"]["sampling"] == "random"
    assert tuple(saved["sets"][0]["intervals"]["iou@1"].values()) == pytest.approx(
        (0.4, 0.4, 0.4, 2)
    )


def test_random_clicks_lie_in_the_error_and_say_which() -> None:
    rng = np.random.default_rng(0)
    truth, painted = _box(10, 5, 20, 25), _box(15, 5, 30, 25)
    void = _box(0, 0, 64, 10)
    clicks = [random_click(painted, truth, rng, void=void) for _ in range(200)]
    seen = {click.foreground for click in clicks if click is not None}
    assert seen == {True, False}
    for click in clicks:
        assert click is not None
        row, column = int(click.y), int(click.x)
        assert truth[row, column] != painted[row, column] and not void[row, column]
        assert click.foreground == truth[row, column]
    assert random_click(truth, truth, rng) is None
