"""`training.evaluation.points` on models whose figures are known before anything runs."""

from __future__ import annotations

import io
import json
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from textsam.errors import WeightsError
from textsam.values.geometry import mask_to_box
from textsam.values.rle import encode_mask
from training.evaluation import command, points
from training.evaluation.clicks.click_runs import ClickConfig, click_object, measure_clicks
from training.evaluation.data_sets import DataSet, read_sets

SIZE = (48, 64)


def _box(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def _object(mask: np.ndarray, label: str = "thing", *, ignore: bool = False) -> dict:
    counts = encode_mask(mask).counts.decode()
    return {"label": label, "kind": "thing", "rle": counts, "ignore": ignore}


def _write(path: Path, photos: list[tuple[list[dict], np.ndarray | None]]) -> Path:
    """A file in the schema, whose n-th photo is a plain grey of level n."""
    rows = []
    for index, (objects, void) in enumerate(photos):
        file = io.BytesIO()
        Image.new("RGB", SIZE[::-1], (index,) * 3).save(file, "PNG")
        rows.append(
            {
                "image": {"bytes": file.getvalue(), "path": None},
                "image_id": f"photo {index}",
                "source": "test",
                "license": "none",
                "height": SIZE[0],
                "width": SIZE[1],
                "exhaustive": True,
                "void": None if void is None else encode_mask(void).counts.decode(),
                "objects": objects,
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


class FakeView:
    """Answers every prompt with `answer(number of points, box)`: (4, H, W) bool, (4,) IoU."""

    def __init__(self, answer):
        self.answer, self.calls = answer, []

    def predict(self, *, points=None, labels=None, box=None, previous=None, reading=0):
        self.calls.append(
            SimpleNamespace(
                points=points, labels=labels, box=box, previous=previous, reading=reading
            )
        )
        masks, iou = self.answer(0 if points is None else len(points), box)
        # The low-res logits carry the call and the index, so that a test sees what comes back.
        code = 10 * len(self.calls) + np.arange(4)
        low_res = np.broadcast_to(code[:, None, None], (4, 2, 2)).astype(np.float32)
        logits = np.where(masks, 1, -1).astype(np.float32)
        return SimpleNamespace(logits=logits, iou=np.asarray(iou, np.float32), low_res=low_res)


class FakeModel:
    """Opens a photo by its grey level; `answers[level]` answers for it."""

    def __init__(self, answers):
        self.answers, self.opened, self.views = answers, [], []

    @contextmanager
    def open(self, image):
        level = int(image[0, 0, 0])
        self.opened.append(level)
        self.views.append(FakeView(self.answers[level]))
        yield self.views[-1]


def _always(mask: np.ndarray):
    return lambda count, box: (np.stack([mask] * 4), [0.5] * 4)


def _columns_more(count: int, box: np.ndarray | None) -> tuple[np.ndarray, list[float]]:
    """Ten columns of the truth `_box(10, 5, 20, 25)`, one more with each click."""
    mask = _box(10, 5, 10 + min(count, 10), 25)
    return np.stack([mask] * 4), [0.5] * 4


def test_a_perfect_model_needs_one_click():
    truth = _box(10, 5, 30, 40)
    view = FakeView(_always(truth))

    run = click_object(view, truth, config=ClickConfig())

    assert run is not None
    assert run.curve == [1.0]
    assert run.oracle == 1.0
    assert len(view.calls) == 1
    assert truth[int(run.clicks[0].y), int(run.clicks[0].x)]


def test_a_model_that_answers_nothing_gets_every_click():
    truth = _box(10, 5, 30, 40)
    view = FakeView(_always(np.zeros(SIZE, bool)))

    run = click_object(view, truth, config=ClickConfig())

    assert run is not None
    assert run.curve == [0.0] * 20
    assert run.oracle == 0.0
    assert len(set(run.clicks)) == 20
    assert all(click.foreground for click in run.clicks)


def test_one_click_takes_the_reading_with_the_highest_predicted_iou():
    truth, half = _box(10, 5, 30, 40), _box(10, 5, 20, 40)
    nothing = np.zeros(SIZE, bool)

    def answer(count, box):
        # The single mask would be best and sure of itself; at one click it is not to be used.
        return np.stack([truth, nothing, half, truth]), [0.99, 0.1, 0.6, 0.5]

    run = click_object(FakeView(answer), truth, config=ClickConfig(clicks=1))

    assert run is not None
    assert run.curve == [0.5]
    assert run.oracle == 1.0


def test_later_clicks_take_the_single_mask():
    truth, half = _box(10, 5, 30, 40), _box(10, 5, 20, 40)

    def answer(count, box):
        return np.stack([truth if count > 1 else half, half, half, half]), [0.1, 0.9, 0.8, 0.7]

    run = click_object(FakeView(answer), truth, config=ClickConfig())

    assert run is not None
    assert run.curve == [0.5, 1.0]


def test_the_chosen_logits_come_back_with_all_clicks_so_far():
    truth, wide = _box(10, 5, 20, 25), _box(10, 5, 40, 25)

    def answer(count, box):
        return np.stack([wide, truth & ~truth, wide, truth & ~truth]), [0.9, 0.1, 0.8, 0.2]

    view = FakeView(answer)
    run = click_object(view, truth, config=ClickConfig(clicks=3))

    assert run is not None
    first, second, third = view.calls
    assert first.previous is None
    assert (
        second.previous.low_res[second.reading] == 12
    ).all()  # first call, reading 2: the highest predicted IoU
    assert (third.previous.low_res[third.reading] == 20).all()  # second call, the single mask
    assert third.points.shape == (3, 2)
    assert third.points.dtype == np.float32
    assert third.labels.tolist() == [1, 0, 0]
    np.testing.assert_array_equal(third.points[:2], second.points)
    np.testing.assert_array_equal(third.points, [[c.x, c.y] for c in run.clicks])


def test_clicks_stop_once_no_figure_can_change():
    view = FakeView(_columns_more)

    run = click_object(view, _box(10, 5, 20, 25), config=ClickConfig())

    assert run is not None
    np.testing.assert_allclose(run.curve, np.arange(1, 10) / 10)  # 0.9 and the 9th click


def test_void_counts_neither_for_nor_against():
    truth, void = _box(10, 5, 30, 40), _box(25, 0, 64, 48)
    painted = FakeView(_always(truth | void))
    empty = FakeView(_always(truth & ~void))

    for view in (painted, empty):
        run = click_object(view, truth, void=void, config=ClickConfig())
        assert run is not None
        assert run.curve == [1.0]
        assert not void[int(run.clicks[0].y), int(run.clicks[0].x)]
    assert click_object(painted, truth, void=truth, config=ClickConfig()) is None


def _set(path: Path) -> DataSet:
    return read_sets([path])[0]


def test_figures_of_a_set(tmp_path):
    truth = _box(10, 5, 20, 25)
    path = _write(tmp_path / "shapes.parquet", [([_object(truth)], None)] * 2)
    model = FakeModel([_always(truth), _columns_more])

    result = measure_clicks(model, _set(path), config=ClickConfig())

    means = result["means"]
    assert result["objects"] == result["photos"] == 2
    assert means["iou@1"] == pytest.approx((1 + 0.1) / 2)
    assert means["iou@5"] == pytest.approx((1 + 0.5) / 2)
    assert means["iou@9"] == pytest.approx((1 + 0.9) / 2)
    assert means["oracle@1"] == pytest.approx((1 + 0.1) / 2)
    assert means["noc@0.85"] == means["noc@0.90"] == (1 + 9) / 2
    assert means["noc failed@0.90"] == 0
    assert means["box"] == 0.5  # `_columns_more` answers a box, 0 clicks, with nothing
    assert result["seconds_per_photo"] > 0


def test_levels_that_are_not_reached_cost_the_limit(tmp_path):
    path = _write(tmp_path / "shapes.parquet", [([_object(_box(10, 5, 20, 25))], None)])

    result = measure_clicks(
        FakeModel([_always(np.zeros(SIZE, bool))]), _set(path), config=ClickConfig()
    )

    assert {result["means"][f"iou@{n}"] for n in (1, 2, 3, 5, 9)} == {0.0}
    assert result["means"]["noc@0.85"] == result["means"]["noc@0.90"] == 20
    assert result["means"]["noc failed@0.85"] == 1
    assert result["means"]["box"] == 0


def test_the_box_is_the_true_half_open_box_and_mask_0_answers(tmp_path):
    truth = _box(10, 5, 20, 25)
    path = _write(tmp_path / "shapes.parquet", [([_object(truth)], None)])

    def answer(count, box):
        if box is None:
            return np.stack([truth] * 4), [0.5] * 4
        x0, y0, x1, y1 = box.astype(int)
        return np.stack([_box(x0, y0, x1, y1)] + [~truth] * 3), [0.1, 0.9, 0.9, 0.9]

    model = FakeModel([answer])
    result = measure_clicks(model, _set(path), config=ClickConfig())

    assert result["means"]["box"] == 1.0
    last = model.views[0].calls[-1]
    assert last.points is None
    np.testing.assert_array_equal(last.box, mask_to_box(truth))


def test_what_is_left_out_is_counted(tmp_path):
    truth = _box(10, 5, 20, 25)
    objects = [
        _object(truth),
        _object(_box(0, 0, 30, 30), ignore=True),
        _object(_box(0, 0, 5, 6)),  # 30 pixels
        _object(_box(40, 40, 60, 45)),
    ]
    void = _box(40, 40, 64, 48)
    path = _write(tmp_path / "shapes.parquet", [(objects, void), ([], None)])
    model = FakeModel([_always(truth)] * 2)

    result = measure_clicks(model, _set(path), config=ClickConfig())

    assert [item.object for item in result["items"]] == [0]
    assert result["skipped"] == {"ignore": 1, "small": 1, "void": 1, "over the cap": 0}
    assert model.opened == [0]  # a photo without an object is not encoded


def test_the_cap_draws_the_same_objects_again(tmp_path):
    objects = [_object(_box(x, 5, x + 6, 25)) for x in range(0, 60, 6)]
    path = _write(tmp_path / "shapes.parquet", [(objects, None)])

    def chosen(seed: int) -> list[int]:
        config = ClickConfig(per_photo=3, seed=seed, clicks=1)
        result = measure_clicks(FakeModel([_always(_box(0, 0, 1, 1))]), _set(path), config=config)
        assert result["skipped"]["over the cap"] == 7
        return [item.object for item in result["items"]]

    assert chosen(0) == chosen(0)
    assert len({tuple(chosen(seed)) for seed in range(5)}) > 1


@pytest.fixture
def perfect(monkeypatch):
    truth = _box(10, 5, 20, 25)
    model = FakeModel([_always(truth)] * 10)
    monkeypatch.setattr(command, "load_model", lambda name: model)
    return model


def test_the_command_prints_a_row_per_file_and_writes_json(tmp_path, perfect, capsys):
    truth = _object(_box(10, 5, 20, 25))
    one = _write(tmp_path / "one.parquet", [([truth], None)] * 6)
    two = _write(tmp_path / "two.parquet", [([truth], None)])
    report = tmp_path / "report.json"

    code = points.main([str(one), str(two), "--json", str(report), "--limit", "3"])

    assert code == 0
    assert perfect.opened == [0, 2, 4, 0]
    printed = capsys.readouterr().out
    assert "NoC@85" in printed
    assert "oracle" in printed
    rows = [line.split() for line in printed.splitlines() if line.split()[:1] in (["one"], ["two"])]
    assert [row[:3] for row in rows] == [["one", "3", "3"], ["two", "1", "1"]]
    # Five click columns, an interval behind the first, the oracle, two NoC, the box; the seconds.
    assert rows[0][3:5] == ["1.000", "1.000-1.000"]
    assert rows[0][5:-1] == ["1.000"] * 5 + ["1.00"] * 2 + ["1.000"] * 2
    data = json.loads(report.read_text())
    assert data["settings"]["model"] == "tiny"
    assert data["settings"]["limit"] == 3
    assert data["settings"]["clicks"] == 20
    assert {"textsam", "torch", "numpy", "scipy"} <= set(data["versions"])
    assert [entry["name"] for entry in data["sets"]] == ["one", "two"]
    assert data["sets"][0]["means"]["iou@1"] == 1.0
    assert data["sets"][0]["items"][0]["iou"] == [1.0]


def test_fewer_clicks_drop_columns(tmp_path, perfect, capsys):
    path = _write(tmp_path / "one.parquet", [([_object(_box(10, 5, 20, 25))], None)])

    assert points.main([str(path), "--clicks", "3"]) == 0

    printed = capsys.readouterr().out
    assert "IoU@3" in printed
    assert "IoU@5" not in printed


def test_files_of_one_stem_are_told_apart(tmp_path):
    paths = []
    for folder in ("dev", "train"):
        (tmp_path / folder).mkdir()
        paths.append(_write(tmp_path / folder / "cars.parquet", [([], None)]))

    assert [data.name for data in read_sets(paths)] == ["dev/cars", "train/cars"]


def _bad_inputs(folder: Path) -> dict[str, list[str]]:
    edges = folder / "edges.parquet"
    pq.write_table(pa.table({"image": [b""], "image_id": ["a"], "boundaries": [b""]}), edges)
    flat = folder / "flat.parquet"
    columns = ("image", "image_id", "height", "width", "exhaustive", "void", "objects")
    pq.write_table(pa.table({name: [1] for name in columns}), flat)
    text = folder / "text.parquet"
    text.write_text("no parquet")
    good = _write(folder / "good.parquet", [([], None)])
    return {
        "there is no file": [str(folder / "missing.parquet")],
        "has no column": [str(good), str(edges)],
        "column image holds int64": [str(flat)],
        "not a parquet file": [str(text)],
        "is a folder": [str(folder)],
        "--json": [str(good), "--json", str(folder / "no" / "report.json")],
    }


def test_bad_input_is_one_clear_line_and_exit_code_2(tmp_path, perfect, capsys):
    for message, arguments in _bad_inputs(tmp_path).items():
        assert points.main(arguments) == 2

        printed = capsys.readouterr()
        assert printed.out == ""
        assert len(printed.err.splitlines()) == 1
        assert message in printed.err
    assert perfect.opened == []


def test_a_model_that_is_not_there_is_one_clear_line(tmp_path, monkeypatch, capsys):
    def refuse(name, detector=None):
        raise WeightsError(f"no model {name!r};\nthere is tiny")

    fake = SimpleNamespace(TextSAM=SimpleNamespace(from_pretrained=refuse))
    monkeypatch.setitem(__import__("sys").modules, "textsam", fake)
    path = _write(tmp_path / "good.parquet", [([], None)])

    assert points.main([str(path), "--model", "nothing"]) == 2

    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    assert "no model 'nothing'; there is tiny" in printed.err


@pytest.mark.parametrize("option", ["--limit=0", "--clicks=0", "--per-photo=-1"])
def test_numbers_out_of_range_are_refused(option, tmp_path, capsys):
    assert points.main([str(tmp_path / "any.parquet"), option]) == 2
    assert f"{option.replace('=', ' ')}: wanted at least 1" in capsys.readouterr().err


def test_what_is_no_number_is_explained(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        points.main([str(tmp_path / "any.parquet"), "--clicks=many"])

    assert stopped.value.code == 2
    assert "--clicks" in capsys.readouterr().err


def test_help_names_the_protocol_and_every_option(capsys):
    with pytest.raises(SystemExit) as stopped:
        points.main(["--help"])

    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for word in ("--model", "--json", "--limit", "--seed", "--clicks", "--per-photo", "NoC"):
        assert word in shown
