import json
import math
import sys
import types
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco
from pycocotools.coco import COCO

from textsam.errors import MissingExtraError
from textsam.results import interop
from textsam.results.segmentation import Segmentation

CATEGORIES = {"wheel": 7, "door": 3}


def some(count=3, *, seed=0, labels=("wheel", "door", "wheel"), **columns):
    rng = np.random.default_rng(seed)
    masks = rng.random((count, 12, 17)) < 0.4
    columns.setdefault("scores", [0.5, 0.25, math.nan][:count])
    return Segmentation.from_masks(masks, labels=labels and list(labels)[:count], **columns)


def test_coco_round_trip():
    seg = some()
    annotations = interop.to_coco(seg, image_id=5, categories=CATEGORIES, first_id=10)
    assert [a["id"] for a in annotations] == [10, 11, 12]
    assert [a["category_id"] for a in annotations] == [7, 3, 7]
    assert [a.get("score") for a in annotations] == [0.5, 0.25, None]
    annotations = json.loads(json.dumps(annotations))
    names = {number: name for name, number in CATEGORIES.items()}
    assert interop.from_coco(annotations, (12, 17), categories=names) == seg
    assert interop.from_coco(annotations, (12, 17)).labels == [None] * 3
    assert len(interop.from_coco([], (12, 17))) == 0


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_coco_is_read_by_pycocotools(tmp_path):
    seg = some()
    data = {
        "images": [{"id": 5, "height": 12, "width": 17}],
        "categories": [{"id": number, "name": name} for name, number in CATEGORIES.items()],
        "annotations": interop.to_coco(seg, image_id=5, categories=CATEGORIES),
    }
    (tmp_path / "a.json").write_text(json.dumps(data))
    read = COCO(tmp_path / "a.json")
    for annotation, item in zip(read.loadAnns(read.getAnnIds(imgIds=[5])), seg, strict=True):
        np.testing.assert_array_equal(read.annToMask(annotation), item.mask)
        assert annotation["bbox"] == coco.toBbox(annotation["segmentation"]).tolist()
        assert annotation["area"] == coco.area(annotation["segmentation"])


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.5, 2.0]))
@settings(max_examples=25, deadline=None)
def test_coco_polygons_keep_holes_and_parts(seed, tolerance):
    """Through pycocotools; area and box are those of what it reads."""
    rng = np.random.default_rng(seed)
    seg = Segmentation.from_masks(rng.random((1, 20, 30)) < rng.random(), labels=["wheel"])
    (annotation,) = interop.to_coco(
        seg, image_id=1, categories=CATEGORIES, polygons=True, tolerance=tolerance
    )
    again = interop.from_coco([annotation], (20, 30))
    if not tolerance:
        np.testing.assert_array_equal(again.masks, seg.masks)
    assert annotation["area"] == again.areas[0]
    x, y, width, height = annotation["bbox"]
    assert again.boxes[0].tolist() == ([x, y, x + width, y + height] if again.areas[0] else [0] * 4)


def test_numpy_integers_as_ids_are_json():
    ids = {"wheel": np.int64(7), "door": np.uint8(3)}
    annotations = interop.to_coco(
        some(), image_id=np.int32(4), categories=ids, first_id=np.int64(9)
    )
    (first, *_) = json.loads(json.dumps(annotations))
    assert (first["id"], first["image_id"], first["category_id"]) == (9, 4, 7)
    json.dumps(interop.to_sa1b(some(), image_id=np.int64(2), file_name="a.jpg"))


def test_coco_crowds_and_uncompressed_codes():
    crowd = {"segmentation": {"size": [2, 3], "counts": [1, 2, 3]}, "iscrowd": 1, "category_id": 3}
    seg = interop.from_coco([crowd], (2, 3), categories={3: "door"})
    assert seg.areas.tolist() == [2]
    assert seg.labels == ["door"]


@pytest.mark.parametrize("segmentation", [None, 3, "abc", [[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6, 7]]])
def test_coco_without_a_mask_raises(segmentation):
    with pytest.raises(ValueError, match="wanted a run-length code or polygons"):
        interop.from_coco([{"segmentation": segmentation}], (4, 4))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"segmentation": None}, "1 row with no mask"),
        ({"segmentation": {"size": [12, 17], "counts": [5]}}, "1 row with a damaged run-length"),
        ({"segmentation": [[1e9, 1, 2, 2, 3, 3]]}, "1 row with a polygon far outside"),
        ({"segmentation": {"size": [17, 12], "counts": [204]}}, "1 row with a mask of another"),
        ({"category_id": 99}, "1 row with a category that has no name"),
        ({"category_id": "7", "score": "0.5", "segmentation": [1, 1, 5, 1, 5, 5]}, ""),
        ({"score": None}, ""),
    ],
)
def test_coco_a_row_costs_at_most_itself(change, told, caplog):
    annotations = interop.to_coco(some(), image_id=1, categories=CATEGORIES)
    annotations[1] |= change
    names = {number: name for name, number in CATEGORIES.items()}
    read = interop.from_coco(annotations, (12, 17), categories=names)
    assert read[0] == some()[0] and len(read) == (2 if told and "name" not in told else 3)
    assert told in caplog.text and bool(caplog.text) == bool(told)
    if told:
        with pytest.raises(ValueError, match="annotation 2"):
            interop.from_coco(annotations, (12, 17), categories=names, strict=True)


def test_coco_a_whole_file_says_what_is_wanted():
    with pytest.raises(ValueError, match="wanted a list: the rows of its"):
        interop.from_coco({"images": [], "annotations": []}, (4, 4))


def test_coco_names_must_fit():
    with pytest.raises(ValueError, match=r"label 'wheel'; wanted one of the categories \['door'\]"):
        interop.to_coco(some(), image_id=1, categories={"door": 1})
    with pytest.raises(ValueError, match="label None"):
        interop.to_coco(some(labels=None), image_id=1, categories=CATEGORIES)
    annotations = interop.to_coco(some(), image_id=1, categories=CATEGORIES)
    with pytest.raises(ValueError, match="category_id 7"):
        interop.from_coco(annotations, (12, 17), categories={3: "door"}, strict=True)
    with pytest.raises(ValueError, match="size"):
        interop.from_coco(annotations, (17, 12))


def test_sa1b_round_trip():
    seg = some(labels=None, scores=None, iou=[0.5, 0.75, math.nan], stability=[0.5, math.nan, 1])
    payload = json.loads(json.dumps(interop.to_sa1b(seg, image_id=1, file_name="sa_1.jpg")))
    assert interop.from_sa1b(payload) == seg
    assert payload["image"] == {"image_id": 1, "width": 17, "height": 12, "file_name": "sa_1.jpg"}
    first = payload["annotations"][0]
    x0, y0, x1, y1 = seg.boxes[0]
    assert first["bbox"] == [x0, y0, x1 - x0 - 1, y1 - y0 - 1]  # as `batched_mask_to_box`
    assert first["predicted_iou"] == 0.5
    assert "predicted_iou" not in payload["annotations"][2]
    for bad in ({}, {"image": {}, "annotations": []}, {"image": 3}, {"annotations": []}):
        with pytest.raises(ValueError, match="from_sa1b"):
            interop.from_sa1b(bad)


@dataclass
class Detections:
    """What `supervision.Detections` has of what is used here; older ones have no CompactMask."""

    xyxy: np.ndarray
    mask: np.ndarray | None = None
    confidence: np.ndarray | None = None
    class_id: np.ndarray | None = None
    data: dict = field(default_factory=dict)


@pytest.fixture
def supervision(monkeypatch):
    module = types.ModuleType("supervision")
    module.Detections = Detections
    monkeypatch.setitem(sys.modules, "supervision", module)


@pytest.mark.usefixtures("supervision")
def test_supervision_round_trip():
    seg = some(scores=[0.5, 0.25, 0.75])
    detections = interop.to_supervision(seg)
    np.testing.assert_array_equal(detections.xyxy[:, 2:], seg.boxes[:, 2:] - 1)  # inclusive ends
    np.testing.assert_array_equal(detections.class_id, [0, 1, 0])
    np.testing.assert_array_equal(detections.data["class_name"], seg.labels)
    detections.mask[:] = detections.mask  # writable, as its users expect
    assert interop.from_supervision(detections) == seg

    plain = interop.to_supervision(some(labels=None))
    assert plain.class_id is None
    assert plain.confidence is None  # one score is unknown
    nothing = interop.to_supervision(seg[:0])
    assert nothing.xyxy.shape == (0, 4)
    assert nothing.mask.shape == (0, 12, 17)
    assert nothing.class_id.dtype == int and nothing.data["class_name"].dtype.kind == "U"
    assert list(zip(nothing.data["class_name"], nothing.confidence, strict=True)) == []
    assert interop.from_supervision(nothing, (12, 17)) == Segmentation((12, 17), [])


@pytest.mark.usefixtures("supervision")
def test_supervision_keeps_class_ids():
    seg = some(scores=[0.5, 0.25, 0.75])
    names = dict(zip((3, 7), seg.class_names(), strict=True))
    detections = seg.to_supervision(names=names)
    np.testing.assert_array_equal(detections.class_id, [3, 7, 3])
    del detections.data["class_name"]
    again = interop.from_supervision(detections, names=names)
    assert again == Segmentation(seg.size, seg.rles, scores=seg.scores, labels=seg.labels)
    np.testing.assert_array_equal(again.to_supervision(names=names).class_id, [3, 7, 3])
    assert interop.from_supervision(detections).labels == ["3", "7", "3"]
    with pytest.raises(ValueError, match="class id 3 has no name"):
        interop.from_supervision(detections, names=["a"])
    with pytest.raises(ValueError, match="is not in names"):
        seg.to_supervision(names=["a"])


def test_supervision_itself(monkeypatch):
    """Its own reader: compact masks, loops over an empty result, annotators."""
    supervision = pytest.importorskip("supervision")
    seg = some(scores=[0.5, 0.25, 0.75])
    for result in (seg, seg[:0], some(labels=None)):
        detections = result.to_supervision()
        np.testing.assert_array_equal(np.asarray(detections.mask), result.masks)
        np.testing.assert_array_equal(detections.area, result.areas)
        dense = result.to_supervision(compact=False)
        assert isinstance(dense.mask, np.ndarray) and dense.mask.flags.writeable
        if None not in result.labels:
            assert interop.from_supervision(detections, result.size)[:] == (
                interop.from_supervision(dense, result.size)
            )
            pairs = zip(detections["class_name"], detections.confidence, strict=True)
            assert [f"{name} {value:.2f}" for name, value in pairs] == [
                f"{item.label} {item.score:.2f}" for item in result
            ]
    scene = np.zeros((12, 17, 3), np.uint8)
    for result in (seg, seg[:0]):
        supervision.MaskAnnotator().annotate(scene.copy(), result.to_supervision())
    assert isinstance(seg.to_supervision().mask, supervision.CompactMask)


@pytest.mark.usefixtures("supervision")
def test_supervision_refuses():
    with pytest.raises(ValueError, match="some masks have a label"):
        interop.to_supervision(some(labels=["a", None, "b"]))
    with pytest.raises(ValueError, match="no masks"):
        interop.from_supervision(Detections(xyxy=np.zeros((1, 4))))
    with pytest.raises(ValueError, match="size="):
        interop.from_supervision(Detections(xyxy=np.zeros((0, 4))))


def test_supervision_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingExtraError, match="pip install supervision"):
        interop.to_supervision(some())


def test_label_map_round_trip():
    numbers = np.zeros((6, 8), np.uint8)
    numbers[1:3, 1:5] = 2
    numbers[4:, 6:] = 9
    numbers[0, 0] = 255
    seg = interop.from_label_map(numbers, labels={2: "cat", 9: "dog"}, ignore=[255])
    assert seg.labels == ["cat", "dog"]
    assert seg.areas.tolist() == [8, 4]
    np.testing.assert_array_equal(seg.label_map() > 0, (numbers > 0) & (numbers < 255))
    again = interop.from_label_map(seg.label_map(), labels={1: "cat", 2: "dog"})
    assert again == seg
    assert len(interop.from_label_map(np.zeros((2, 2), int))) == 0
    assert interop.from_label_map(numbers > 0).areas.tolist() == [13]
    with pytest.raises(ValueError, match=r"\[255\] have no label"):
        interop.from_label_map(numbers, labels={2: "cat", 9: "dog"})
    for bad in (np.zeros((2, 2)), np.zeros((2, 2, 3), int)):
        with pytest.raises(ValueError, match="wanted integers"):
            interop.from_label_map(bad)
