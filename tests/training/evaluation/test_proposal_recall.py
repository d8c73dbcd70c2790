"""`training.evaluation.proposals` with ways whose figures are known before anything runs."""

from __future__ import annotations

import contextlib
import io
import json
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from textsam.values.rle import (
    RLE,
    decode_rles,
    encode_mask,
    encode_masks,
    rle_area,
    rle_box,
    rle_to_json,
)
from training.evaluation import command, proposals
from training.evaluation.data_sets import read_sets
from training.evaluation.figures.average_precision import SIZES
from training.evaluation.proposals import (
    LIMITS,
    felzenszwalb_regions,
    mean_recall,
    measure_set,
    photo_recall,
    recall_difference,
)

pytest.importorskip("faster_coco_eval")

SIZE = (120, 160)
SMALL, MEDIUM, LARGE = (5, 5, 25, 25), (40, 5, 80, 45), (10, 15, 120, 115)


def _box(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def _write(path: Path, photos: list[list[tuple[int, int, int, int]]], *, crowd=None) -> Path:
    rows = []
    for index, boxes in enumerate(photos):
        file = io.BytesIO()
        Image.new("RGB", SIZE[::-1], (index,) * 3).save(file, "PNG")
        objects = [
            {"label": f"label {k}", "kind": "thing", "ignore": False}
            | {"rle": encode_mask(_box(*box)).counts.decode()}
            for k, box in enumerate(boxes)
        ]
        if crowd is not None:
            counts = encode_mask(_box(*crowd)).counts.decode()
            objects.append({"label": "label 0", "kind": "thing", "ignore": True, "rle": counts})
        rows.append(
            {"image": {"bytes": file.getvalue(), "path": None}, "image_id": f"photo {index}"}
            | {"source": "test", "license": "none", "height": SIZE[0], "width": SIZE[1]}
            | {"exhaustive": True, "void": None, "objects": objects}
        )
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


class FakeModel:
    """A view is nothing but its photo's number."""

    def __init__(self):
        self.opened = []

    @contextmanager
    def open(self, image):
        self.opened.append(int(image[0, 0, 0]))
        yield self.opened[-1]


def _perfect(view, sample) -> list[RLE]:
    return [o.rle for o in sample.objects if not o.ignore]


def _measure(path: Path, **ways):
    return measure_set(FakeModel(), read_sets([path])[0], methods=ways)


def _ar(result, way: str, key: str) -> float | None:
    figure = result["ways"][way]["ar"][key]
    return None if figure is None else figure.mean


def test_perfect_masks_recall_everything(tmp_path):
    path = _write(tmp_path / "a.parquet", [[SMALL, MEDIUM], [LARGE]])
    result = _measure(path, proposals=_perfect)
    assert result["objects"] == {"all": 3, "small": 1, "medium": 1, "large": 1}
    assert {f.mean for f in result["ways"]["proposals"]["ar"].values()} == {1.0}
    assert result["photos"] == 2 and result["ways"]["proposals"]["masks"] == 1.5


def test_shifted_masks_recall_as_many_levels_as_their_iou_reaches(tmp_path):
    # Of 40 columns 7 are wrong on either side: 33 / 47 = .702, over .50 .55 .60 .65 .70.
    path = _write(tmp_path / "a.parquet", [[MEDIUM]])
    x0, y0, x1, y1 = MEDIUM
    shifted = encode_mask(_box(x0 + 7, y0, x1 + 7, y1))
    result = _measure(path, proposals=lambda view, sample: [shifted])
    assert _ar(result, "proposals", "all@10") == pytest.approx(0.5)
    assert _ar(result, "proposals", "medium@10") == pytest.approx(0.5)
    assert _ar(result, "proposals", "small@10") is None


def test_sizes_are_apart(tmp_path):
    path = _write(tmp_path / "a.parquet", [[SMALL, MEDIUM, LARGE]] * 2)
    result = _measure(
        path, proposals=lambda v, s: [o.rle for o in s.objects if o.label != "label 0"]
    )
    got = {size: _ar(result, "proposals", f"{size}@100") for size in SIZES}
    assert got == {"all": pytest.approx(2 / 3), "small": 0, "medium": 1, "large": 1}


def test_only_the_first_count(tmp_path):
    path = _write(tmp_path / "a.parquet", [[MEDIUM]])
    wrong = [
        encode_mask(_box(100 + k % 40, 60 + k // 40, 103 + k % 40, 62 + k // 40))
        for k in range(120)
    ]

    def way(place):
        return lambda v, s: [*wrong[:place], s.objects[0].rle, *wrong[place:]]

    result = _measure(path, proposals=way(9), late=way(10), later=way(100))
    keys = [f"all@{limit}" for limit in LIMITS]
    assert [_ar(result, "proposals", key) for key in keys] == [1, 1, 1]
    assert [_ar(result, "late", key) for key in keys] == [0, 1, 1]
    assert [_ar(result, "later", key) for key in keys] == [0, 0, 1]
    assert result["differences"]["later"]["all@100"].mean == 1
    assert result["differences"]["late"]["all@1000"].mean == 0


def test_crowds_are_no_objects_and_photos_without_one_are_not_opened(tmp_path):
    path = _write(tmp_path / "a.parquet", [[]], crowd=LARGE)
    model = FakeModel()
    data = read_sets([path])[0]
    result = measure_set(model, data, methods={"proposals": _perfect})
    assert model.opened == [] and result["photos"] == 0
    assert _ar(result, "proposals", "all@100") is None
    path = _write(tmp_path / "b.parquet", [[SMALL]], crowd=LARGE)
    assert _measure(path, proposals=_perfect)["objects"]["all"] == 1


def test_nothing_found_recalls_nothing(tmp_path):
    path = _write(tmp_path / "a.parquet", [[SMALL], [MEDIUM]])
    result = _measure(path, proposals=lambda v, s: [], right=_perfect)
    assert _ar(result, "proposals", "all@1000") == 0
    assert result["differences"]["right"]["all@10"].mean == -1


def _sample(masks: np.ndarray, number: int) -> SimpleNamespace:
    objects = [SimpleNamespace(rle=rle, ignore=False) for rle in encode_masks(masks)]
    return SimpleNamespace(image_id=f"{number}", size=masks.shape[1:], objects=objects)


def _blobs(rng: np.random.Generator, count: int) -> np.ndarray:
    masks = np.zeros((count, 150, 170), bool)
    for mask in masks:
        x, y = rng.integers(0, 140), rng.integers(0, 120)
        mask[y : y + rng.integers(3, 140), x : x + rng.integers(3, 140)] = True
    return masks


@settings(max_examples=15)
def _row(rle: RLE) -> dict:
    x0, y0, x1, y1 = rle_box(rle).tolist()
    box = [x0, y0, x1 - x0, y1 - y0]
    return {"segmentation": rle_to_json(rle), "area": rle_area(rle), "bbox": box}


@given(seed=st.integers(0, 2**32 - 1))
def test_photos_add_up_to_what_pycocotools_says_of_all(seed):
    """Measured photo by photo, and all at once by the reference implementation."""
    rng = np.random.default_rng(seed)
    photos, annotations, found = [], [], []
    for number in (1, 2, 3):
        truths = _blobs(rng, int(rng.integers(1, 5)))
        masks = np.concatenate([truths ^ (rng.random(truths.shape) < 0.2), _blobs(rng, 12)])
        masks = masks[rng.permutation(len(masks))]
        rles = encode_masks(masks)
        photos.append(photo_recall(_sample(truths, number), rles))
        for rle in encode_masks(truths):
            annotations.append(
                _row(rle)
                | {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 0}
            )
        found += [
            _row(rle) | {"image_id": number, "category_id": 1, "score": 1 - k / 1000}
            for k, rle in enumerate(rles)
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": n, "height": 150, "width": 170} for n in (1, 2, 3)],
            "categories": [{"id": 1, "name": "object"}],
            "annotations": annotations,
        }
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(found), "segm")
        run.params.maxDets = list(LIMITS)
        run.evaluate()
        run.accumulate()
    recall = run.eval["recall"][:, 0]  # (IoU, size, limit); pycocotools has the same sizes
    for k, size in enumerate(SIZES):
        for n, limit in enumerate(LIMITS):
            wanted = recall[:, k, n].mean()
            got = mean_recall(photos, f"{size}@{limit}")
            if wanted < 0:
                assert got is None
            else:
                assert got is not None and got.mean == pytest.approx(wanted)
                assert got.low <= got.mean + 1e-9 and got.high >= got.mean - 1e-9


def test_a_difference_is_of_the_same_photos():
    one, two = (photo_recall(_sample(_box(*SMALL)[None], n), []) for n in (1, 2))
    with pytest.raises(ValueError, match="same photos"):
        recall_difference([one], [two], "all@10")


def test_felzenszwalb_regions_are_ranked_and_each_is_there_once():
    pytest.importorskip("skimage")
    image = np.full((*SIZE, 3), 40, np.uint8)
    image[_box(*LARGE)] = 200
    image[_box(30, 30, 60, 60)] = (250, 20, 20)
    regions = felzenszwalb_regions(image)
    masks = decode_rles(regions, SIZE)
    assert len({rle.counts for rle in regions}) == len(regions)
    # Each of the three plain areas is a region, to within the smoothed border.
    inner = _box(30, 30, 60, 60)
    for truth in (inner, _box(*LARGE) & ~inner, ~_box(*LARGE)):
        overlap = (masks & truth).sum((1, 2)) / (masks | truth).sum((1, 2))
        assert overlap.max() > 0.7
    assert regions[:2] == felzenszwalb_regions(image, count=2)
    assert masks[0].sum() >= masks[1].sum()


@pytest.fixture
def fakes(monkeypatch):
    """The command with perfect proposals and empty baselines."""
    model = FakeModel()
    monkeypatch.setattr(command, "load_model", lambda name: model)
    asked = []

    def methods(points_per_side):
        asked.append(points_per_side)
        return {"proposals": _perfect, "Felzenszwalb": lambda v, s: []}

    monkeypatch.setattr(proposals, "methods_of", methods)
    return SimpleNamespace(model=model, asked=asked)


def test_the_command_prints_a_row_per_way_and_writes_json_and_plot(tmp_path, fakes, capsys):
    path = _write(tmp_path / "one.parquet", [[SMALL], [MEDIUM], [LARGE], [SMALL]])
    report, plot = tmp_path / "r.json", tmp_path / "p.png"

    code = proposals.main(
        [
            *(str(path), "--limit", "2", "--points-per-side", "3", "--seed", "5"),
            *("--json", str(report), "--plot", str(plot)),
        ]
    )

    assert code == 0 and fakes.model.opened == [0, 2]
    assert fakes.asked == [3]
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if line.split()[:1] == ["one"]]
    first, second = (" ".join(row[:8]) for row in rows)
    assert first == "one 2 2 proposals 1.000 1.000 1.000-1.000 1.000"
    assert second == "one 2 2 Felzenszwalb 0.000 0.000 0.000-0.000 0.000"
    assert "AR@100 of proposals - Felzenszwalb: +1.000" in printed
    data = json.loads(report.read_text())
    assert data["sets"][0]["ways"]["proposals"]["ar"]["all@1000"]["mean"] == 1
    assert data["settings"]["points_per_side"] == 3
    assert Image.open(plot).size[0] > 100


def test_ways_are_the_papers_settings_and_two_baselines():
    assert list(proposals.methods_of(64)) == ["proposals", 'everything("fast")', "Felzenszwalb"]


def test_the_way_of_the_proposals_asks_the_task(monkeypatch):
    seen = {}

    def fake(view, *, settings, max_masks):
        seen.update(
            view=view, side=settings.points_per_side, nms=settings.box_nms_thresh, most=max_masks
        )
        return SimpleNamespace(rles=["masks"])

    monkeypatch.setattr(proposals, "proposals", fake)
    way = proposals.methods_of(7)["proposals"]
    assert way("view", None) == ["masks"]
    assert seen == {"view": "view", "side": 7, "nms": 0.9, "most": 1000}


def test_bad_input_is_one_clear_line(tmp_path, fakes, capsys):
    path = _write(tmp_path / "one.parquet", [[SMALL]])
    for message, arguments in (
        ("there is no file", [str(tmp_path / "no.parquet")]),
        ("--plot", [str(path), "--plot", str(tmp_path / "no" / "p.png")]),
    ):
        assert proposals.main(arguments) == 2
        printed = capsys.readouterr()
        assert len(printed.err.splitlines()) == 1 and message in printed.err
    assert fakes.model.opened == []
