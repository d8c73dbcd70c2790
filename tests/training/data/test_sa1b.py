"""SA-1B's folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from textsam.values.rle import decode_rle, encode_mask, rle_to_json
from training.data.sa1b import Sa1bSource


@pytest.fixture
def folder(tmp_path: Path, drawing: Callable, encode: Callable[..., bytes]) -> Path:
    for number in (3, 1, 2):
        image, masks = drawing(number)
        inside = tmp_path / f"part-{number % 2}"
        inside.mkdir(exist_ok=True)
        (inside / f"sa_{number}.jpg").write_bytes(encode(image, "JPEG"))
        content = {
            "image": {
                "image_id": number,
                "height": image.shape[0],
                "width": image.shape[1],
                "file_name": f"sa_{number}.jpg",
            },
            "annotations": [{"segmentation": rle_to_json(encode_mask(mask))} for mask in masks],
        }
        (inside / f"sa_{number}.json").write_text(json.dumps(content))
    return tmp_path


def test_masks_come_without_names(folder: Path, drawing: Callable) -> None:
    source = Sa1bSource(folder)
    found = [source[i] for i in range(len(source))]
    assert [s.image_id for s in found] == ["sa_2", "sa_1", "sa_3"]
    for sample, number in zip(found, (2, 1, 3), strict=True):
        _, masks = drawing(number)
        assert {o.label for o in sample.objects} == {""} and not sample.exhaustive
        for item, mask in zip(sample.objects, masks, strict=True):
            np.testing.assert_array_equal(decode_rle(item.rle), mask)
        assert isinstance(sample.encoded, Path)
        assert sample.image().shape[:2] == sample.size


def test_what_is_broken_names_itself(folder: Path) -> None:
    source = Sa1bSource(folder)
    (folder / "part-0" / "sa_2.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"sa_2\.jpg"):
        source[0]
    (folder / "part-1" / "sa_1.json").write_text('{"image": {}}')
    with pytest.raises(ValueError, match=r"sa_1\.json is not an annotation of SA-1B"):
        source[1]


def test_one_bad_mask_costs_itself(folder: Path, drawing: Callable) -> None:
    path = folder / "part-0" / "sa_2.json"
    content = json.loads(path.read_text())
    for row in (None, {}, {"segmentation": {"size": [1, 1], "counts": "0"}}):
        content["annotations"].insert(1, row)
    path.write_text(json.dumps(content))
    source = Sa1bSource(folder)
    sample = source[0]
    for item, mask in zip(sample.objects, drawing(2)[1], strict=True):
        np.testing.assert_array_equal(decode_rle(item.rle), mask)
    assert len(source.problems) == 3


def test_a_folder_without_annotations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no sa_\*\.json"):
        Sa1bSource(tmp_path)
    with pytest.raises(NotADirectoryError):
        Sa1bSource(tmp_path / "nowhere")
