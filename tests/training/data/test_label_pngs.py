"""Photos beside label pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from textsam.errors import ImageError
from textsam.values.rle import decode_rle
from training.data.label_pngs import LabelMapConfig, LabelPngSource, read_label_map, read_names

NAMES = {1: "dog", 2: "cat"}


def _map() -> np.ndarray:
    values = np.zeros((30, 40), np.uint8)
    values[2:8, 2:8] = 1
    values[20:25, 20:30] = 1
    values[8:12, 8:12] = 2  # touches the first dog at a corner
    values[0, :] = 255
    return values


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    images, labels = tmp_path / "images", tmp_path / "labels"
    for folder in (images / "sub", labels / "sub"):
        folder.mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(images / "sub" / "a.jpg")
    Image.new("RGB", (40, 30)).save(images / "unlabelled.jpg")
    label = Image.fromarray(_map(), "L").convert("P")
    label.putdata(_map().ravel().tolist())
    label.save(labels / "sub" / "a.png")
    return images, labels


def test_values_of_a_palette_are_classes(folders: tuple[Path, Path]) -> None:
    source = LabelPngSource(*folders, config=LabelMapConfig(names=NAMES, exhaustive=True))
    assert len(source) == 1
    sample = source[0]
    assert (sample.image_id, sample.size, sample.exhaustive) == ("sub/a", (30, 40), True)
    assert [o.label for o in sample.objects] == ["dog", "cat"]
    np.testing.assert_array_equal(decode_rle(sample.objects[0].rle), _map() == 1)
    np.testing.assert_array_equal(sample.void_mask(), _map() == 255)
    assert sample.image().shape == (30, 40, 3)


def test_regions_are_split_on_demand(folders: tuple[Path, Path]) -> None:
    sample = LabelPngSource(*folders, config=LabelMapConfig(names=NAMES, regions=True))[0]
    assert [o.label for o in sample.objects] == ["dog", "dog", "cat"]
    dogs = [decode_rle(o.rle) for o in sample.objects[:2]]
    assert not (dogs[0] & dogs[1]).any()
    np.testing.assert_array_equal(dogs[0] | dogs[1], _map() == 1)


def test_values_of_16_bits_are_objects(folders: tuple[Path, Path]) -> None:
    values = _map().astype(np.uint16) * 257
    Image.fromarray(values).save(folders[1] / "sub" / "a.png")
    config = LabelMapConfig(values="object", label="leaf", void=65535)
    sample = LabelPngSource(*folders, config=config)[0]
    assert [o.label for o in sample.objects] == ["leaf", "leaf"]
    np.testing.assert_array_equal(decode_rle(sample.objects[1].rle), _map() == 2)
    np.testing.assert_array_equal(sample.void_mask(), _map() == 255)


def test_what_cannot_be_told_is_refused(folders: tuple[Path, Path]) -> None:
    images, labels = folders
    with pytest.raises(ValueError, match="have no names"):
        LabelMapConfig()
    source = LabelPngSource(images, labels, config=LabelMapConfig(names={1: "dog"}))
    with pytest.raises(ValueError, match="holds 2, which has no name"):
        source[0]
    Image.new("RGB", (40, 30)).save(labels / "sub" / "a.png")
    with pytest.raises(ImageError, match="has colours"):
        source[0]
    (labels / "sub" / "a.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="cannot read the label picture"):
        source[0]
    Image.new("RGB", (4, 4)).save(images / "sub" / "a.png")
    with pytest.raises(ValueError, match="has both"):
        LabelPngSource(images, labels, config=LabelMapConfig(names=NAMES))


def test_a_label_picture_without_its_photo_is_a_broken_sample(folders: tuple[Path, Path]) -> None:
    (folders[0] / "sub" / "a.jpg").unlink()
    source = LabelPngSource(*folders, config=LabelMapConfig(names=NAMES))
    with pytest.raises(ImageError, match=r"no photo for .*a\.png"):
        source[0]


def test_names_are_read_from_text_and_json(tmp_path: Path) -> None:
    (tmp_path / "n.txt").write_text("background\ndog\n\ncat\n")
    assert read_names(tmp_path / "n.txt") == {0: "background", 1: "dog", 3: "cat"}
    for content in (["x", "dog"], {"0": "x", "1": "dog"}):
        (tmp_path / "n.json").write_text(json.dumps(content))
        assert read_names(tmp_path / "n.json") == {0: "x", 1: "dog"}
    (tmp_path / "n.json").write_text("3")
    with pytest.raises(ValueError, match="wanted a JSON list"):
        read_names(tmp_path / "n.json")


def test_one_bit_pictures_are_read(tmp_path: Path) -> None:
    Image.fromarray(_map() == 1).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.png"), _map() == 1)
