"""`training.evaluation.instances` with masks whose figures are known before anything runs."""

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

from textsam.results.segmentation import Segmentation
from textsam.values.rle import encode_mask
from training.evaluation import command, instances
from training.evaluation.data_sets import BadInputError, read_sets
from training.evaluation.figures.average_precision import CocoRows, MaskAP
from training.evaluation.instances import DetectorFile, measure_set, true_boxes

pytest.importorskip("faster_coco_eval")

SIZE = (120, 160)
SMALL, MEDIUM, LARGE = (5, 5, 25, 25), (40, 5, 80, 45), (10, 15, 120, 115)
LABELS = {"cat": SMALL, "dog": MEDIUM, "bus": LARGE}


def _box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[round(y0) : round(y1), round(x0) : round(x1)] = True
    return mask


def _write(path: Path, photos: list[list[str]], *, void=None, crowd=None) -> Path:
    rows = []
    for index, labels in enumerate(photos):
        file = io.BytesIO()
        Image.new("RGB", SIZE[::-1], (index,) * 3).save(file, "PNG")
        objects = [
            {"label": label, "kind": "thing", "ignore": False}
            | {"rle": encode_mask(_box(*LABELS[label])).counts.decode()}
            for label in labels
        ]
        if crowd is not None:
            counts = encode_mask(_box(*crowd)).counts.decode()
            objects.append({"label": "cat", "kind": "thing", "ignore": True, "rle": counts})
        rows.append(
            {"image": {"bytes": file.getvalue(), "path": None}, "image_id": f"p{index}"}
            | {"source": "test", "license": "none", "height": SIZE[0], "width": SIZE[1]}
            | {"void": None if void is None else encode_mask(_box(*void)).counts.decode()}
            | {"exhaustive": True, "objects": objects}
        )
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


class FakeModel:
    """A photo is open as its number; `focus` as a TextSAM's."""

    def __init__(self, focus=None):
        self.focus, self.opened = focus, []

    @contextmanager
    def open(self, image):
        self.opened.append(int(image[0, 0, 0]))
        yield self.opened[-1]


@pytest.fixture
def answers(monkeypatch):
    """Masks of boxes: the box itself, moved by as many columns as the passes and place say."""
    shift = {(True, False): 0, (False, False): 0, (True, True): 0, (False, True): 0}

    def fake(view, boxes, *, labels, scores, refine, focus):
        by = shift[refine, focus]
        rles = [encode_mask(_box(x0 + by, y0, x1 + by, y1)) for x0, y0, x1, y1 in boxes]
        return Segmentation(SIZE, rles, labels=labels, scores=scores)

    monkeypatch.setattr(instances, "instances", fake)
    return shift


def _measure(path: Path, *, model=None, detector=None, **config):
    data = read_sets([path])[0]
    return measure_set(model or FakeModel(), data, detector=detector, **config)


def test_perfect_masks_are_1(tmp_path, answers):
    path = _write(tmp_path / "a.parquet", [["cat", "dog"], ["bus", "dog"]])
    result = _measure(path)
    assert set(result["ways"]) == {"whole, 1 pass", "whole, 2 passes"}
    for way in result["ways"].values():
        assert way["miou"].mean == way["ap"] == way["ap50"] == way["ap75"] == pytest.approx(1)
        assert way["ap_small"] == way["ap_medium"] == way["ap_large"] == pytest.approx(1)
        assert way["ap_interval"] == pytest.approx([1, 1])
    assert result["boxes"] == 4 and result["refinement"]["whole"].mean == 0


def test_a_shift_of_one_pass_is_seen_there_alone(tmp_path, answers):
    # 33 of 47 columns: .702, over 5 of the 10 levels.
    answers[False, False] = 7
    result = _measure(_write(tmp_path / "a.parquet", [["dog"]]))
    once, twice = result["ways"]["whole, 1 pass"], result["ways"]["whole, 2 passes"]
    assert once["ap"] == pytest.approx(0.5) and once["miou"].mean == pytest.approx(33 / 47)
    assert once["ap50"] == pytest.approx(1) and once["ap75"] == 0
    assert twice["ap"] == pytest.approx(1)
    assert result["refinement"]["whole"].mean == pytest.approx(14 / 47)


def test_a_model_that_looks_closer_is_measured_both_ways(tmp_path, answers):
    answers[True, True] = 200  # nothing left
    path = _write(tmp_path / "a.parquet", [["dog"]])
    result = _measure(path, model=FakeModel(focus=object()))
    assert result["ways"]["closer, 2 passes"]["miou"].mean == 0
    assert result["ways"]["closer, 2 passes"]["ap"] == 0
    assert result["ways"]["closer, 1 pass"]["ap"] == pytest.approx(1)
    assert result["refinement"]["closer"].mean == -1


def test_sizes_are_apart(tmp_path, answers):
    # A shift by 10 leaves a third of the small one, 30 / 50 of the medium, 100 / 120 of the large.
    answers[False, False] = 10
    path = _write(tmp_path / "a.parquet", [["cat"], ["dog"], ["bus"]])
    way = _measure(path)["ways"]["whole, 1 pass"]
    assert way["ap_small"] == 0
    assert way["ap_medium"] == pytest.approx(0.3)  # .50 .55 .60
    assert way["ap_large"] == pytest.approx(0.7)  # .50 to .80
    assert way["ap"] == pytest.approx((0 + 0.3 + 0.7) / 3)


def test_void_counts_for_neither_and_crowds_are_not_asked(tmp_path, answers):
    answers[False, False] = 7
    x0, y0, _, y1 = MEDIUM
    void = (x0 - 1, y0, x0 + 7, y1)  # hides what the shift misses
    result = _measure(_write(tmp_path / "a.parquet", [["dog"]], void=void))
    assert result["ways"]["whole, 1 pass"]["miou"].mean == pytest.approx(33 / 40)
    result = _measure(_write(tmp_path / "b.parquet", [["dog"]], crowd=LARGE))
    assert result["boxes"] == 1 and result["ways"]["whole, 2 passes"]["ap"] == pytest.approx(1)


def test_noise_is_seeded_and_as_large_as_said(tmp_path, answers):
    path = _write(tmp_path / "a.parquet", [["bus"]] * 40)
    samples = read_sets([path])[0].samples
    exact = np.concatenate([true_boxes(s).boxes for s in samples])
    moved = np.concatenate([true_boxes(s, jitter=0.02, seed=1).boxes for s in samples])
    sides = np.tile(exact[:, 2:] - exact[:, :2], 2)
    assert ((moved - exact) / sides).std() == pytest.approx(0.02, rel=0.25)
    again = np.concatenate([true_boxes(s, jitter=0.02, seed=1).boxes for s in samples])
    other = np.concatenate([true_boxes(s, jitter=0.02, seed=2).boxes for s in samples])
    np.testing.assert_array_equal(moved, again)
    assert not np.array_equal(moved, other)
    wild = np.concatenate([true_boxes(s, jitter=1.0).boxes for s in samples])
    assert (wild[:, 2:] - wild[:, :2]).min() >= 1 and wild.min() >= 0
    assert wild[:, 0::2].max() <= 160 and wild[:, 1::2].max() <= 120
    lower = _measure(path, jitter=0.1)["ways"]["whole, 2 passes"]
    assert 0.4 < lower["miou"].mean < 0.95 and lower["ap"] < 0.9


def _row(photo: str, category, box, score: float) -> dict:
    x0, y0, x1, y1 = box
    return {"image_id": photo, "category_id": category, "score": score} | {
        "bbox": [x0, y0, x1 - x0, y1 - y0]
    }


def _detector(path: Path, rows: list[dict], categories=None) -> DetectorFile:
    path.write_text(json.dumps(rows))
    if categories is None:
        return DetectorFile(path)
    names = path.with_suffix(".names.json")
    names.write_text(json.dumps({"categories": categories}))
    return DetectorFile(path, categories=names)


def test_a_detectors_file_by_name_and_by_number(tmp_path, answers):
    path = _write(tmp_path / "a.parquet", [["cat", "dog"], ["dog"]])
    rows = [
        _row("p0", "cat", SMALL, 0.9),
        _row("p0", "dog", LARGE, 0.8),  # wrong, and better than the right one
        _row("p1", "dog", MEDIUM, 0.7),
        _row("elsewhere", "dog", MEDIUM, 1.0),
    ]
    by_name = _measure(path, detector=_detector(tmp_path / "n.json", rows))
    way = by_name["ways"]["whole, 2 passes"]
    assert by_name["boxes"] == 3
    # cat: 1. dog: one of two is found, at precision 1/2: 51 of 101 recalls.
    assert way["ap"] == pytest.approx((1 + 0.5 * 51 / 101) / 2)
    inside = 40 * 30 / (110 * 100 + 40 * 40 - 40 * 30)  # of the dog of p0 with the bus's box
    assert way["miou"].mean == pytest.approx((1 + 1 + inside) / 3)

    number = {"cat": 17, "dog": 18}
    coded = [row | {"category_id": number[row["category_id"]]} for row in rows]
    coded.append(_row("p1", 90, LARGE, 0.9))  # a category that the set does not label
    names = [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}, {"id": 90, "name": "brush"}]
    by_number = _measure(path, detector=_detector(tmp_path / "i.json", coded, names))
    assert by_number["ways"]["whole, 2 passes"]["ap"] == way["ap"]


@pytest.mark.parametrize(
    ("row", "names", "message"),
    [
        (_row("p0", "cow", SMALL, 1), None, "category 'cow' is no label of this set; wanted"),
        (_row("p0", 17, SMALL, 1), None, "category 17 has no name.*--categories"),
        (_row("p0", 3, SMALL, 1), [{"id": 17, "name": "cat"}], r"category 3 is unknown.*\[17\]"),
        (_row("q", "cat", SMALL, 1), None, r"none of its 1 image ids \(q, ...\)"),
        (_row("p0", "cat", (300, 0, 310, 9), 1), None, "photo 'p0': box 0: .*outside"),
        ({"image_id": "p0"}, None, "row 0"),
    ],
)
def test_a_detectors_file_at_fault(tmp_path, row, names, message, monkeypatch):
    path = _write(tmp_path / "a.parquet", [["cat"]])

    def checked(view, boxes, **given):  # the real one refuses boxes before it asks a model
        from textsam.tasks.detections import read_boxes

        read_boxes(boxes, SIZE)
        raise AssertionError("nothing was refused")

    monkeypatch.setattr(instances, "instances", checked)
    with pytest.raises(BadInputError, match=message):
        _measure(path, detector=_detector(tmp_path / "r.json", [row], names))


def _evaluated(boxes: list[tuple], scores: list[float]):
    """Photos with a dog each, and a mask of the given box in each."""
    rows = CocoRows(["dog"])
    for number, (box, score) in enumerate(zip(boxes, scores, strict=True)):
        photo = f"photo {number}"
        rows.add_photo(photo, (120, 160))
        rows.add_object(photo, "dog", encode_mask(_box(*MEDIUM)))
        rows.add_mask(photo, "dog", encode_mask(_box(*box)), score)
    return rows.evaluate()


def test_photos_drawn_again_are_as_if_they_were_there_as_often():
    boxes, scores = [MEDIUM, LARGE, (47, 5, 87, 45), SMALL], [0.3, 0.9, 0.6, 0.5]
    evaluation = _evaluated(boxes, scores)
    whole = evaluation.arrays()
    for drawn in ([0, 1, 2, 3], [0, 0, 2, 1], [3, 3, 3, 0], [2]):
        wanted = _evaluated([boxes[k] for k in drawn], [scores[k] for k in drawn]).arrays()
        got = evaluation.arrays(drawn)
        for key in ("precision", "recall"):
            np.testing.assert_allclose(got[key], wanted[key])
    np.testing.assert_array_equal(evaluation.arrays()["precision"], whole["precision"])


def test_the_interval_holds_the_figure_and_depends_on_the_seed_alone(tmp_path):
    table_ = MaskAP(["dog"])
    path = _write(tmp_path / "a.parquet", [["dog"]] * 12)
    for index, sample in enumerate(read_sets([path])[0].samples):
        x0, y0, x1, y1 = MEDIUM
        mask = _box(x0 + index, y0, x1 + index, y1)
        table_.add(sample, [encode_mask(mask)], labels=["dog"], scores=[1 - index / 100])
    one, again, other = (table_.figures(seed=seed) for seed in (0, 0, 1))
    low, high = one["ap_interval"]
    assert low < one["ap"] < high and one == again
    assert other["ap"] == one["ap"] and other["ap_interval"] != one["ap_interval"]


def test_the_command(tmp_path, answers, monkeypatch, capsys):
    model = FakeModel()
    monkeypatch.setattr(command, "load_model", lambda name: model)
    answers[False, False] = 7
    path = _write(tmp_path / "one.parquet", [["dog"]] * 4)
    report, plot = tmp_path / "r.json", tmp_path / "p.png"

    code = instances.main(
        [str(path), "--limit", "2", "--json", str(report), "--plot", str(plot), "--seed", "3"]
    )

    assert code == 0 and model.opened == [0, 0, 2, 2]  # anew for each way
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if line.split()[:1] == ["one"]]
    assert [row[:7] for row in rows] == [
        ["one", "2", "2", "whole,", "1", "pass", "0.702"],
        ["one", "2", "2", "whole,", "2", "passes", "1.000"],
    ]
    assert "the refinement pass adds +0.2979 mIoU" in printed
    data = json.loads(report.read_text())
    assert (data["settings"]["jitter"], data["settings"]["seed"]) == (0.0, 3)
    assert data["sets"][0]["ways"]["whole, 2 passes"]["ap"] == pytest.approx(1)
    assert Image.open(plot).size[0] > 100


def test_options_that_do_not_go_together_are_one_clear_line(tmp_path, capsys):
    path = _write(tmp_path / "one.parquet", [["dog"]])
    rows = tmp_path / "r.json"
    rows.write_text(json.dumps([_row("p0", "dog", MEDIUM, 1)]))
    for message, more in (
        ("--categories comes with --boxes", ["--categories", str(rows)]),
        ("from 0 to 1", ["--jitter", "2"]),
        ("--jitter moves the true boxes", ["--boxes", str(rows), "--jitter", "0.1"]),
        ("--boxes", ["--boxes", str(tmp_path / "no.json")]),
        ("--categories", ["--boxes", str(rows), "--categories", str(tmp_path / "no.json")]),
        ("--plot", ["--plot", str(tmp_path / "no" / "p.png")]),
    ):
        assert instances.main([str(path), *more]) == 2
        printed = capsys.readouterr()
        assert len(printed.err.splitlines()) == 1 and message in printed.err


def test_a_real_view_is_asked_as_the_task_wants(monkeypatch):
    seen = {}

    def fake(view, boxes, **given):
        seen.update(given, view=view, boxes=boxes)

    monkeypatch.setattr(instances, "instances", fake)
    boxes = SimpleNamespace(boxes="boxes", labels=["a"], scores=[1.0])
    instances.methods_of(FakeModel(focus=object()))["closer, 1 pass"]("view", boxes)
    assert seen == {
        **{"view": "view", "boxes": "boxes", "labels": ["a"], "scores": [1.0]},
        **{"refine": False, "focus": True},
    }
