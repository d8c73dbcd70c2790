"""BSDS matching and figures on drawings whose answer is known."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import linear_sum_assignment

from training.evaluation import edges as command
from training.evaluation.edge_baselines import canny_edges, sobel_edges
from training.evaluation.edge_matching import match_counts, match_pixels, thresholds
from training.evaluation.edge_scores import score_edges

SIZE = (60, 80)  # a diagonal of 100 pixels: the benchmark's tolerance is .75 of one
LEVELS = thresholds(9)


def _line(column: int) -> NDArray[np.bool_]:
    mask = np.zeros(SIZE, bool)
    mask[5:55, column] = True
    return mask


def _scores(strength: NDArray[np.bool_], *drawn: NDArray[np.bool_], tolerance: float = 0.0075):  # type: ignore[no-untyped-def]
    counts = match_counts(strength.astype(np.float32), drawn, levels=LEVELS, tolerance=tolerance)
    return score_edges(counts[None], LEVELS)


def test_equal_lines_are_all_right() -> None:
    found = _scores(_line(40), _line(40))
    assert found.ods == found.ois == found.ods_precision == found.ods_recall == 1


def test_average_precision_goes_over_the_recalls_that_are_reached() -> None:
    strength = _line(40).astype(np.float32)
    strength[5:55, 40] = np.linspace(0.05, 0.95, 50)  # a line that fades, and nothing else
    counts = match_counts(strength, [_line(40)], levels=LEVELS)
    found = score_edges(counts[None], LEVELS)
    reached = counts[:, 0] / counts[:, 1]
    assert found.ap == pytest.approx(reached.max() - reached.min(), abs=0.03)
    assert found.r50 == pytest.approx(reached.max())


def test_the_tolerance_decides() -> None:
    assert _scores(_line(40), _line(42), tolerance=0.021).ods == pytest.approx(1)
    assert _scores(_line(40), _line(42), tolerance=0.019).ods == 0


def test_a_pixel_counts_once() -> None:
    """Two predicted lines beside one drawn line: only one of them is right."""
    two = _line(39) | _line(41)
    found = _scores(two, _line(40), tolerance=0.015)
    assert found.ods_recall == pytest.approx(1)
    assert found.ods_precision == pytest.approx(0.5)


def test_any_annotator_makes_it_right_and_all_are_to_be_found() -> None:
    found = _scores(_line(20), _line(20), _line(60))
    assert found.ods_precision == pytest.approx(1)
    assert found.ods_recall == pytest.approx(0.5)
    assert found.r50 == pytest.approx(0.5)


def test_nothing_drawn_and_nothing_predicted() -> None:
    empty = np.zeros(SIZE, bool)
    assert _scores(empty, _line(40)).ods == 0
    assert _scores(_line(40), empty).ods == 0


def test_a_photo_with_its_own_threshold_is_better_off() -> None:
    """Two photos whose noise is weaker than their line, at different strengths: OIS above ODS."""
    rng = np.random.default_rng(0)
    counts = []
    for line, noise in ((0.85, 0.65), (0.45, 0.25)):
        strength = np.where(rng.random(SIZE) < 0.05, noise, 0).astype(np.float32)
        strength[_line(40)] = line
        counts.append(match_counts(strength, [_line(40)], levels=LEVELS))
    found = score_edges(np.stack(counts), LEVELS)
    assert found.ois > 0.99 > found.ods > 0.5


@pytest.mark.parametrize("seed", range(6))
def test_as_many_pairs_as_the_best_assignment(seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn, edge = rng.random((2, 14, 14)) < 0.15
    reach = 2.3
    a, b = np.argwhere(drawn), np.argwhere(edge)
    distance = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1))
    cost = np.where(distance <= reach, distance, 1e4)
    rows, columns = linear_sum_assignment(cost)
    assert match_pixels(drawn, edge, reach=reach) == int((cost[rows, columns] < 1e4).sum())


def test_baselines_find_a_step() -> None:
    image = np.full((*SIZE, 3), 40, np.uint8)
    image[:, 40:] = 200
    for strength in (sobel_edges(image), canny_edges(image, levels=LEVELS)):
        assert strength.shape == SIZE and strength.max() <= 1
        columns = np.nonzero(strength[30])[0]
        assert len(columns) == 1 and abs(int(columns[0]) - 39.5) <= 1


def _write(path: Path) -> Path:
    rows = []
    for index in range(2):
        image = np.full((*SIZE, 3), 40, np.uint8)
        image[:, 30 + 10 * index :] = 200
        photo, drawn = io.BytesIO(), io.BytesIO()
        Image.fromarray(image).save(photo, "PNG")
        Image.fromarray(_line(30 + 10 * index)).save(drawn, "PNG")
        rows.append(
            {
                "image": {"bytes": photo.getvalue(), "path": None},
                "image_id": f"photo {index}",
                "boundaries": [drawn.getvalue()],
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_the_command_shows_model_and_baselines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _write(tmp_path / "set.parquet")
    report, plot = tmp_path / "r.json", tmp_path / "p.png"
    options = ["--json", str(report), "--plot", str(plot), "--thresholds", "9"]
    assert command.main([str(data), *options]) == 0
    printed = capsys.readouterr().out.lower()
    assert "canny" in printed and "sobel" in printed and "ods" in printed
    assert plot.exists()
    (row,) = json.loads(report.read_text())["sets"]
    assert row["photos"] == 2


def test_a_file_without_boundaries_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.table({"image_id": ["a"]}), path)
    assert command.main([str(path)]) == 2
    assert str(path) in capsys.readouterr().err
