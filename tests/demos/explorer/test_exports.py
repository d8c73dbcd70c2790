from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demos.explorer.explorer import Explorer
from demos.explorer.exports import FORMATS, export
from demos.explorer.photo_cache import PhotoCache, UserPhoto, read_photo
from textsam.errors import PromptError
from textsam.results.interop import from_coco
from textsam.results.segmentation import Segmentation


@pytest.fixture
def result(explorer: Explorer) -> Segmentation:
    """Two things, one of them named by hand."""
    explorer.click(20, 20)
    explorer.start_new()
    explorer.click(70, 40)
    explorer.rename(2, "left/thing")
    return explorer.result()


def test_rle_is_the_librarys_own_file(
    result: Segmentation, photo: UserPhoto, tmp_path: Path
) -> None:
    assert Segmentation.load(export(result, photo, "rle", tmp_path)) == result


def test_coco_reads_back(result: Segmentation, photo: UserPhoto, tmp_path: Path) -> None:
    coco = json.loads(export(result, photo, "coco", tmp_path).read_text("utf-8"))
    names = {category["id"]: category["name"] for category in coco["categories"]}
    again = from_coco(coco["annotations"], photo.size, categories=names)
    assert again.rles == result.rles and again.labels == result.labels
    assert coco["images"][0]["file_name"] == "noise.png"


def test_overlay_follows_opacity_and_outline(
    result: Segmentation, photo: UserPhoto, tmp_path: Path
) -> None:
    path = export(result, photo, "overlay", tmp_path, opacity=0.2, outline=False)
    expected = np.asarray(result.plot(alpha=0.2, outline=False))
    assert np.array_equal(np.asarray(Image.open(path)), expected)


def test_cutouts_hold_the_masks_pixels_and_nothing_else(
    result: Segmentation, photo: UserPhoto, tmp_path: Path
) -> None:
    with zipfile.ZipFile(export(result, photo, "cutouts", tmp_path)) as archive:
        names = archive.namelist()
        assert names == ["001_object_1.png", "002_left_thing.png"]
        for name, item in zip(names, result, strict=True):
            cut = np.asarray(Image.open(io.BytesIO(archive.read(name))))
            x0, y0, x1, y1 = (int(side) for side in item.box)
            inside = item.mask[y0:y1, x0:x1]
            assert np.array_equal(cut[..., 3] > 0, inside)
            assert np.array_equal(cut[..., :3][inside], photo.image[y0:y1, x0:x1][inside])


def test_yolo_names_its_classes(result: Segmentation, photo: UserPhoto, tmp_path: Path) -> None:
    with zipfile.ZipFile(export(result, photo, "yolo", tmp_path)) as archive:
        assert archive.read("classes.txt").decode().splitlines() == ["object 1", "left/thing"]
        lines = archive.read("labels/noise.txt").decode().splitlines()
    assert {line.split()[0] for line in lines} == {"0", "1"}
    assert all(0 <= float(side) <= 1 for line in lines for side in line.split()[1:])


def test_a_photo_that_was_made_smaller_is_exported_at_its_own_size(
    photos: PhotoCache, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (1200, 2000, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "big.png")
    photo = read_photo(tmp_path / "big.png")
    explorer = Explorer(photos)
    explorer.open(photo)
    explorer.click(300, 300)
    small = explorer.result()
    again = Segmentation.load(export(small, photo, "rle", tmp_path))
    assert again.size == (1200, 2000)
    assert again.areas[0] == pytest.approx(small.areas[0] * (2000 / 1600) ** 2, rel=0.02)
    with Image.open(export(small, photo, "overlay", tmp_path)) as picture:
        assert picture.size == (2000, 1200)


def test_what_cannot_be_exported_says_so(
    result: Segmentation, photo: UserPhoto, tmp_path: Path
) -> None:
    with pytest.raises(PromptError, match="nothing to export"):
        export(result[:0], photo, "coco", tmp_path)
    with pytest.raises(PromptError, match="wanted one of"):
        export(result, photo, "gif", tmp_path)  # type: ignore[arg-type]
    for format in FORMATS.values():
        assert export(result, photo, format, tmp_path).is_file()
