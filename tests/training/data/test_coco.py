"""COCO and LVIS files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.training.data.coco_faults import FAULTS, CocoFault, square_mask, write_coco
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
        (5, "annotation 0: a segmentation that is no mask"),
    ],
)
def test_if_strict_a_broken_row_is_an_error(
    tmp_path: Path, segmentation: Any, message: str
) -> None:
    path = _write(tmp_path, [{"segmentation": segmentation}])
    source = CocoSource(path, tmp_path / "images", strict=True)
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
    assert len(CocoSource(path, tmp_path / "images")) == 1


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_row_costs_at_most_itself(
    fault: CocoFault, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = CocoSource(write_coco(tmp_path, fault.change), tmp_path / "images", exhaustive=True)
    sample = source[0]
    wanted = decode_rle(sample.objects[0].rle)  # of the sound row
    assert wanted.sum() == square_mask().sum() and not sample.objects[0].ignore
    assert sample.image().shape[:2] == sample.size
    assert len(sample.objects) == (1 if fault.fate == "out" else 2)
    if fault.fate != "out":
        np.testing.assert_array_equal(decode_rle(sample.objects[1].rle), wanted)
        assert sample.objects[1].ignore == (fault.fate == "box")
    # An object without a place may be anywhere, so its name is not absent.
    assert sample.exhaustive or (fault.fate == "out" and "among" not in fault.told)
    assert fault.told in caplog.text and (fault.told or fault.fate == "box" or not caplog.text)
    told = str(source.problems)
    assert str(source[0]) == str(sample) and str(source.problems) == told  # counted once


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_turn_as_their_photo_does(tmp_path: Path, orientation: int) -> None:
    """Drawn on the stored pixels of a photo that EXIF lays on its side."""
    mask = np.zeros((40, 80), bool)
    mask[5:15, 10:30] = True
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = _write(tmp_path, [{"segmentation": [SQUARE]}], file_name="b.png")
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "images" / "b.png", exif=exif)
    sample = CocoSource(path, tmp_path / "images")[0]
    shown = sample.image()[..., 0] > 127
    if orientation > 4:  # of a photo that is only mirrored the size does not tell
        np.testing.assert_array_equal(decode_rle(sample.objects[0].rle), shown)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800\0"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(JUNK, st.sampled_from(["segmentation", "bbox", "iscrowd", "category_id", "id", "counts"]))
def test_no_value_of_a_row_costs_another_row(tmp_path: Path, junk: Any, key: str) -> None:
    def spoil(content: dict[str, Any], folder: Path) -> None:
        row = content["annotations"][1]
        row |= (
            {"segmentation": {"size": [40, 80], "counts": junk}} if key == "counts" else {key: junk}
        )

    sample = CocoSource(write_coco(tmp_path, spoil), tmp_path / "images")[0]
    np.testing.assert_array_equal(decode_rle(sample.objects[0].rle), square_mask())


def test_one_line_counts_what_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def spoil(content: dict[str, Any], folder: Path) -> None:
        rows = [{**content["annotations"][0], "id": n, "image_id": 50 + n} for n in range(2, 7)]
        content["annotations"] += [*rows, {"id": 7, "image_id": 7, "bbox": [1, 1, 2, 2]}]

    CocoSource(write_coco(tmp_path, spoil), tmp_path / "images")
    (record,) = caplog.records
    assert record.getMessage() == (
        "instances: of 3 annotations 1 have a bbox and no mask; 5 rows with a photo that is not "
        "among the images (the first: annotation 2, which belongs to photo 52)"
    )
