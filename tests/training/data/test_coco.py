"""COCO and LVIS files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from textsam.errors import ImageError
from textsam.values.rle import decode_rle, encode_mask, rle_area, rle_to_json
from training.data.coco import CocoSource

SQUARE = [10.0, 5.0, 30.0, 5.0, 30.0, 15.0, 10.0, 15.0]


def _write(tmp_path: Path, annotations: list[dict[str, Any]], **image: Any) -> Path:
    (tmp_path / "images").mkdir(exist_ok=True)
    Image.new("RGB", (80, 40)).save(tmp_path / "images" / "a.png")
    content = {
        "images": [{"id": 7, "file_name": "a.png", "height": 40, "width": 80, **image}],
        "categories": [{"id": 3, "name": "baseball_bat"}, {"id": 9, "name": "cat"}],
        "annotations": [
            {"id": n, "image_id": 7, "category_id": 3, "bbox": [10, 5, 20, 10], **annotation}
            for n, annotation in enumerate(annotations)
        ],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return path


def test_polygons_and_both_run_length_codes_say_the_same(tmp_path: Path) -> None:
    mask = np.zeros((40, 80), bool)
    mask[5:15, 10:30] = True
    flat = mask.T.ravel().astype(int)
    runs = np.diff([0, *(np.flatnonzero(np.diff(flat)) + 1), len(flat)]).tolist()
    path = _write(
        tmp_path,
        [
            {"segmentation": [SQUARE]},
            {"segmentation": {"size": [40, 80], "counts": runs}, "iscrowd": 1},
            {"segmentation": rle_to_json(encode_mask(mask)), "category_id": 9},
        ],
    )
    sample = CocoSource(path, tmp_path / "images", exhaustive=True)[0]
    for item in sample.objects:
        np.testing.assert_array_equal(decode_rle(item.rle), mask)
    assert [o.ignore for o in sample.objects] == [False, True, False]
    assert [o.label for o in sample.objects] == ["baseball_bat", "baseball_bat", "cat"]
    assert (sample.image_id, sample.size, sample.exhaustive) == ("7", (40, 80), True)
    assert sample.encoded == tmp_path / "images" / "a.png"
    assert sample.image().shape == (40, 80, 3)


def test_several_polygons_are_one_mask(tmp_path: Path) -> None:
    other = [50.0, 20.0, 60.0, 20.0, 60.0, 30.0, 50.0, 30.0]
    path = _write(tmp_path, [{"segmentation": [SQUARE, other]}])
    (item,) = CocoSource(path, tmp_path / "images")[0].objects
    assert rle_area(item.rle) == 300


def test_a_degenerate_polygon_leaves_its_box_to_be_ignored(tmp_path: Path) -> None:
    path = _write(tmp_path, [{"segmentation": [[1.0, 2.0, 3.0, 4.0]]}])
    (item,) = CocoSource(path, tmp_path / "images")[0].objects
    assert item.ignore and rle_area(item.rle) == 200


def test_lvis_knows_what_is_absent_and_is_never_exhaustive(tmp_path: Path) -> None:
    url = "http://images.cocodataset.org/train2017/a.png"
    path = _write(
        tmp_path, [{"segmentation": [SQUARE]}], coco_url=url, file_name=None, neg_category_ids=[9]
    )
    sample = CocoSource(path, tmp_path / "images")[0]
    assert sample.absent == ("cat",) and not sample.exhaustive
    assert sample.objects[0].label == "baseball bat"
    assert sample.encoded == tmp_path / "images" / "a.png"
    with pytest.raises(ValueError, match="is LVIS"):
        CocoSource(path, tmp_path / "images", exhaustive=True)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [40, 81], "counts": [3240]}, r"size \(40, 81\); wanted \(40, 80\)"),
        ({"size": [40, 80], "counts": [5]}, "damaged RLE"),
        ([[1.0, 2.0, float("nan"), 2.0, 3.0, 3.0]], "not finite"),
        (5, "lacks or garbles"),
    ],
)
def test_broken_annotations_name_themselves(
    tmp_path: Path, segmentation: Any, message: str
) -> None:
    source = CocoSource(_write(tmp_path, [{"segmentation": segmentation}]), tmp_path / "images")
    with pytest.raises(ValueError, match=message):
        source[0]


def test_a_missing_photo_and_missing_files_are_named(tmp_path: Path) -> None:
    path = _write(tmp_path, [{"segmentation": [SQUARE]}])
    with pytest.raises(NotADirectoryError, match="nowhere"):
        CocoSource(path, tmp_path / "nowhere")
    (tmp_path / "images" / "a.png").unlink()
    with pytest.raises(ImageError, match=r"there is no photo .*a\.png"):
        CocoSource(path, tmp_path / "images")[0]
    path.write_text("[1]")
    with pytest.raises(ValueError, match="wanted the lists images, annotations, categories"):
        CocoSource(path, tmp_path / "images")


def test_construction_opens_no_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path, [{"segmentation": [SQUARE]}])

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a photo was opened")

    monkeypatch.setattr(Image, "open", refuse)
    assert CocoSource(path, tmp_path / "images")[0].image_id == "7"
