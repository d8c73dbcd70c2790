"""`training.evaluation.edges`: matching and scores with known answers, and the whole command."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.optimize import linear_sum_assignment

from training.evaluation import command as shared
from training.evaluation import edges as command
from training.evaluation.edge_detection import edge_benchmark, edge_runs
from training.evaluation.edge_detection.edge_benchmark import (
    Neighbours,
    curve_of,
    match_counts,
    ods_draws,
    score_edges,
    thresholds,
)
from training.evaluation.edge_detection.edge_runs import canny_edges, sobel_edges

SIZE = (96, 128)  # a diagonal of 160 pixels: matches reach 1.2 pixels
LEVELS = thresholds(9)


def match_pixels(drawn: np.ndarray, edge: np.ndarray, *, reach: float) -> int:
    """How many pixels of two (H, W) bool masks can be paired within `reach` pixels, each once."""
    places = np.argwhere(edge)
    near = Neighbours.find(np.argwhere(drawn), places, reach=reach)
    return len(near.match(np.ones(len(places), bool)))


def _line(column: int, rows: slice = slice(8, 88)) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[rows, column] = True
    return mask


def _edge(*masks: np.ndarray, strength: float = 1.0) -> np.ndarray:
    return (np.any(masks, axis=0) * strength).astype(np.float32)


def _scores(edge: np.ndarray, *people: np.ndarray) -> dict:
    return score_edges(match_counts(edge, people, levels=LEVELS)[None], LEVELS)


def test_the_same_lines_are_all_right():
    found = _scores(_edge(_line(40), _line(70)), _line(40) | _line(70))
    assert found["ods"] == found["ois"] == found["ods_precision"] == found["ods_recall"] == 1
    assert found["r50"] == 1
    assert (found["ods_low"], found["ods_high"]) == (1, 1)


@pytest.mark.parametrize(("shift", "right"), [(0, 80), (1, 80), (2, 0)])
def test_a_shift_counts_up_to_the_tolerance(shift, right, monkeypatch):
    counts = match_counts(_edge(_line(40 + shift)), [_line(40)], levels=LEVELS)
    assert counts.tolist() == [[right, 80, right, 80]] * 9
    monkeypatch.setattr(edge_benchmark, "TOLERANCE", 2 / 160)
    wider = match_counts(_edge(_line(40 + shift)), [_line(40)], levels=LEVELS)
    assert wider.tolist() == [[80, 80, 80, 80]] * 9


def test_one_drawn_pixel_takes_one_predicted_pixel():
    """Two lines in the reach of one drawn line: half of what is predicted is right."""
    counts = match_counts(_edge(_line(39), _line(41)), [_line(40)], levels=LEVELS)
    assert counts[0].tolist() == [80, 80, 80, 160]


def test_a_pixel_is_right_for_any_person_and_found_for_each():
    first, second = _line(40), _line(40) | _line(90)
    counts = match_counts(_edge(_line(40), _line(10)), [first, second], levels=LEVELS)
    # PhraseMasks: 80 of the first's 80 and 80 of the second's 160; right: 80 of 160, counted once.
    assert counts[0].tolist() == [160, 240, 80, 160]
    # Each person has one of the two lines: all right, half found.
    counts = match_counts(_edge(_line(40), _line(90)), [_line(40), _line(90)], levels=LEVELS)
    assert counts[0].tolist() == [160, 160, 160, 160]


def test_nothing_predicted_and_nothing_drawn():
    empty = np.zeros(SIZE, np.float32)
    assert match_counts(empty, [_line(40)], levels=LEVELS)[4].tolist() == [0, 80, 0, 0]
    drawn = _scores(empty, _line(40))
    assert (drawn["ods"], drawn["ois"], drawn["ap"], drawn["r50"]) == (0, 0, 0, None)
    nothing = np.zeros(SIZE, bool)
    counts = match_counts(_edge(_line(40)), [nothing], levels=LEVELS)
    assert counts[0].tolist() == [0, 0, 0, 80]
    # A photo without a drawing has no best threshold; OIS takes the one that predicts least there.
    both = np.stack([match_counts(_edge(_line(40)), [_line(40)], levels=LEVELS), counts])
    both[1, -1, 3] = 0
    found = score_edges(both, LEVELS)
    assert found["ois"] == 1 and found["ods"] == pytest.approx(1)


def test_a_pixel_counts_from_the_thresholds_that_it_reaches():
    edge = _edge(_line(40)) * 0.5 + _edge(_line(70)) * 0.25
    counts = match_counts(edge, [_line(40)], levels=LEVELS)
    assert counts[:, 3].tolist() == [160, 160, 80, 80, 80, 0, 0, 0, 0]
    found = score_edges(counts[None], LEVELS)
    assert found["ods"] == 1 and 0.3 <= found["ods_threshold"] <= 0.5
    # Precision 1 at recall 1 and, once more, half of it right at the lowest thresholds.
    precision, recall = curve_of(counts)
    assert precision[:6].tolist() == [0.5, 0.5, 1, 1, 1, 0]
    assert recall[:6].tolist() == [1, 1, 1, 1, 1, 0]


def _cheapest(drawn: np.ndarray, predicted: np.ndarray, reach: float) -> int:
    """Matches of the benchmark's own problem, solved densely: least sum of distances, where each
    pixel without a partner costs 100 reaches."""
    one, other = np.argwhere(drawn), np.argwhere(predicted)
    distance = np.hypot(*np.moveaxis(one[:, None] - other[None], -1, 0))
    n, m = distance.shape
    outlier = 100 * reach
    cost = np.full((n + m, n + m), 1e9)
    cost[:n, :m] = np.where(distance <= reach, distance, 1e9)
    cost[:n, m:] = np.where(np.eye(n, dtype=bool), outlier, 1e9)
    cost[n:, :m] = np.where(np.eye(m, dtype=bool), outlier, 1e9)
    cost[n:, m:] = 0
    rows, columns = linear_sum_assignment(cost)
    return int(((rows < n) & (columns < m)).sum())


@pytest.mark.parametrize("seed", range(12))
def test_there_are_as_many_matches_as_in_the_cheapest_assignment(seed):
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.02, 0.2, 2)
    drawn, predicted = (rng.random((24, 30)) < s for s in share)
    for reach in (1.0, 2.2, 4.3):
        assert match_pixels(drawn, predicted, reach=reach) == _cheapest(drawn, predicted, reach)


def test_where_pairs_must_move_for_one_more():
    """The nearest pair alone would leave two pixels over."""
    drawn, predicted = np.zeros((2, 1, 20), bool)
    drawn[0, [3, 6]] = True
    predicted[0, [1, 4]] = True  # 3 is nearer to 4, but 6 reaches nothing else
    assert match_pixels(drawn, predicted, reach=2) == 2
    assert match_pixels(drawn, predicted, reach=1) == 1


def test_a_bar_is_thinned_to_a_line_before_it_is_matched():
    """Three pixels wide, drawn as its middle line: nothing is left over on either side."""
    bar = _line(39) | _line(40) | _line(41)
    counts = match_counts(_edge(bar), [_line(40)], levels=LEVELS)
    found, drawn, right, predicted = counts[0].tolist()
    assert (found, drawn) == (predicted, 80) and right == predicted
    assert 76 <= predicted <= 80  # ends lose a pixel or two
    # A ring stays one ring, whose inside and outside are apart.
    y, x = np.mgrid[-48:48, -64:64]
    ring, middle = (np.abs(np.hypot(x, y) - 30) < width for width in (2.5, 0.5))
    found, drawn, right, predicted = match_counts(_edge(ring), [middle], levels=LEVELS)[0].tolist()
    assert right == predicted and 4 * np.sqrt(2) * 30 * 0.95 < predicted < 8 * 30


def test_f_is_of_sums_and_interpolated_between_thresholds():
    counts = np.array([[[90, 100, 30, 100], [30, 100, 27, 30]]])  # P, R: .3, .9 and .9, .3
    found = score_edges(counts, np.array([0.2, 0.4]))
    assert found["ods"] == pytest.approx(0.6, abs=1e-3)  # half way, .6 and .6
    assert found["ods_threshold"] == pytest.approx(0.3, abs=2e-3)
    assert found["ois"] == pytest.approx(0.45)
    # Recall .3 to .9 of precision .9 down to .3: 61 values of mean .6, over 100.
    assert found["ap"] == pytest.approx(0.366)
    assert found["r50"] == pytest.approx(0.7)


def test_a_bootstrap_draw_is_the_same_for_two_methods():
    rng = np.random.default_rng(3)
    one = rng.integers(1, 50, (12, 5, 1)) * np.array([1, 2, 1, 2])
    assert (ods_draws(one, seed=4) - ods_draws(one.copy(), seed=4) == 0).all()
    found = score_edges(one, thresholds(5), seed=4)
    assert found["ods_low"] <= found["ods"] <= found["ods_high"]


def test_baselines_find_the_step_of_a_photo():
    image = np.full((40, 60, 3), 60, np.uint8)
    image[:, 30:] = 180
    image[10, 10] = 90  # a speck
    levels = thresholds(9)
    for edge in (sobel_edges(image), canny_edges(image, levels=levels)):
        line = edge > 0.5
        assert (line.sum(1) == 1).all()
        assert set(np.nonzero(line)[1]) <= {29, 30}
    # Hysteresis: a weak piece of the line stays at thresholds where the rest of it is strong.
    image[15:25, 30:] = 120
    weak = canny_edges(image, levels=levels)
    assert (weak[18:22, 28:32].max(1) == weak.max()).all()
    alone = canny_edges(image, levels=levels, low=1.0)
    assert (alone[18:22, 28:32].max(1) < weak.max()).all()


def _write(path: Path, photos: int = 3, *, broken: bool = False) -> Path:
    """Photos with a step each, drawn by two people, one on either side of it."""
    rows = []
    for index in range(photos):
        column = 40 + 10 * index
        image = np.full((*SIZE, 3), 60, np.uint8)
        image[:, column:] = 180
        drawings = [_line(column, slice(0, 96)), _line(column - 1, slice(0, 96))]
        rows.append(
            {
                "image": {"bytes": _png(Image.fromarray(image)), "path": None},
                "image_id": f"photo {index}",
                "boundaries": [
                    {"bytes": _png(Image.fromarray(drawn)), "path": None} for drawn in drawings
                ],
            }
        )
    if broken:
        rows[1]["image"] = {"bytes": b"no picture", "path": None}
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def perfect(monkeypatch):
    """A model whose edges are where the photo's first row steps."""
    opened = []

    def fake_edges(view, *, settings):
        opened.append(settings)
        step = int(np.argmax(np.diff(view.image[0, :, 0].astype(int)))) + 1
        return _edge(_line(step, slice(0, 96)))

    monkeypatch.setattr(edge_runs, "edges", fake_edges)
    model = SimpleNamespace(open=lambda image: SimpleNamespace(image=image))
    monkeypatch.setattr(shared, "load_model", lambda name: model)
    return opened


def test_the_command_from_a_file_to_its_figures(tmp_path, perfect, capsys):
    pytest.importorskip("matplotlib")
    data = _write(tmp_path / "steps.parquet")
    report, plot, sheet = (tmp_path / name for name in ("f.json", "curves.png", "sheet.png"))
    arguments = [str(data), "--json", str(report), "--plot", str(plot), "--sheet", str(sheet)]
    assert command.main(arguments) == 0
    out = capsys.readouterr().out
    assert "steps: canny" in out and "published, test: Canny" in out and "0.600" in out
    told = json.loads(report.read_text())
    assert told["settings"]["thresholds"] == 33
    (found,) = told["sets"]
    assert found["photos"] == 3 and found["broken"] == 0 and len(perfect) == 3
    for method in ("model", "canny", "sobel"):
        assert found["methods"][method]["ods"] == pytest.approx(1)
        assert len(found["methods"][method]["precision"]) == 33
    assert found["gain"] == [0, 0, 0]
    assert [item["image_id"] for item in found["items"]] == ["photo 0", "photo 1", "photo 2"]
    assert Image.open(plot).format == Image.open(sheet).format == "PNG"


def test_limit_thresholds_and_a_broken_photo(tmp_path, perfect, capsys):
    data = _write(tmp_path / "steps.parquet", 4, broken=True)
    report = tmp_path / "f.json"
    options = ["--limit", "2", "--thresholds", "5", "--json", str(report)]
    assert command.main([str(data), *options]) == 0
    (found,) = json.loads(report.read_text())["sets"]
    assert [item["image_id"] for item in found["items"]] == ["photo 0", "photo 2"]
    assert len(found["methods"]["model"]["thresholds"]) == 5
    assert command.main([str(data), "--json", str(report)]) == 0
    (found,) = json.loads(report.read_text())["sets"]
    assert found["photos"] == 3 and found["broken"] == 1
    assert "1 of 4 photos are broken and left out" in capsys.readouterr().err


def test_a_file_without_boundaries_is_one_clear_line(tmp_path, perfect, capsys):
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"image_id": ["a"]}), path)
    assert command.main([str(path)]) == 2
    error = capsys.readouterr().err
    assert "boundaries" in error and error.count("\n") == 1
    assert command.main([str(tmp_path / "none.parquet")]) == 2
    assert "there is no file" in capsys.readouterr().err
