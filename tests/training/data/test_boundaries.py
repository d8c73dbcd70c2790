"""Photos with the contours of several annotators, from both forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.io import savemat

from textsam.errors import ImageError
from training.data import open_source
from training.data.public.boundaries import BoundaryPhoto, mask_borders, open_boundaries

from .conftest import disc, encoded, parquet_rows

SIZE = (6, 9)


def _contours(number: int) -> list[np.ndarray]:
    """A row for each annotator; the second photo has three of them, the first two."""
    drawn = []
    for annotator in range(2 + number):
        contour = np.zeros(SIZE, bool)
        contour[number + annotator] = True
        drawn.append(contour)
    return drawn


def _photo(number: int) -> np.ndarray:
    return np.full((*SIZE, 3), 100 + 50 * number, np.uint8)


@pytest.fixture
def bsds(tmp_path: Path) -> Path:
    """BSR/ with two photos of `val`."""
    data = tmp_path / "BSR" / "BSDS500" / "data"
    for folder in ("images/val", "groundTruth/val", "images/test", "groundTruth/test"):
        (data / folder).mkdir(parents=True)
    for number in range(2):
        Image.fromarray(_photo(number)).save(data / "images/val" / f"{100 + number}.jpg")
        contours = _contours(number)
        cell = np.empty((1, len(contours)), object)
        for index, contour in enumerate(contours):
            parts = np.cumsum(contour, axis=0).astype(np.uint16) + 1
            cell[0, index] = {"Segmentation": parts, "Boundaries": contour}
        savemat(data / "groundTruth/val" / f"{100 + number}.mat", {"groundTruth": cell})
    (data / "images/val" / "Thumbs.db").write_bytes(b"as in the archive")
    return tmp_path


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    rows = [
        {
            "image": {"bytes": encoded(_photo(number)), "path": None},
            "image_id": str(100 + number),
            "boundaries": [{"bytes": encoded(c), "path": None} for c in _contours(number)],
        }
        for number in range(2)
    ]
    path = tmp_path / "contours.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("place", [".", "BSR", "BSR/BSDS500", "BSR/BSDS500/data"])
def test_bsds_is_found_from_every_folder_that_leads_to_it(bsds: Path, place: str) -> None:
    photos = open_boundaries(f"bsds500:{bsds / place}?split=val")

    _check(list(photos))
    assert open_boundaries(Path(f"bsds500:{bsds / place}"))[1].image_id == "101"  # val by default


def test_parquet_says_the_same(parquet: Path) -> None:
    _check(list(open_boundaries(parquet)))
    _check(open_boundaries(str(parquet))[:])
    assert open_boundaries(parquet)[-1].image_id == "101"


def _check(photos: list[BoundaryPhoto]) -> None:
    assert [photo.image_id for photo in photos] == ["100", "101"]
    for number, photo in enumerate(photos):
        assert photo.size == SIZE
        assert all(b.dtype == bool for b in photo.boundaries)
        np.testing.assert_array_equal(np.stack(photo.boundaries), np.stack(_contours(number)))
        np.testing.assert_allclose(photo.image(), _photo(number), atol=2)  # JPEG


def test_a_photo_with_one_annotator_is_a_struct_without_a_cell(bsds: Path) -> None:
    truth = bsds / "BSR/BSDS500/data/groundTruth/val/100.mat"
    savemat(truth, {"groundTruth": {"Boundaries": _contours(0)[0]}})

    (contour,) = open_boundaries(f"bsds500:{bsds}")[0].boundaries

    np.testing.assert_array_equal(contour, _contours(0)[0])


def test_what_is_not_there_is_named(bsds: Path, parquet: Path, tmp_path: Path) -> None:
    data = bsds / "BSR/BSDS500/data"
    with pytest.raises(
        NotADirectoryError, match=r"no folder .*images/dev; beside it are test, val"
    ):
        open_boundaries(f"bsds500:{bsds}?split=dev")
    with pytest.raises(ValueError, match=r"groundTruth/test has no \*\.mat"):
        open_boundaries(f"bsds500:{bsds}?split=test")
    with pytest.raises(FileNotFoundError, match=r"looked in .*images, groundTruth"):
        open_boundaries(f"bsds500:{data / 'images'}")
    with pytest.raises(NotADirectoryError, match="no folder /nowhere"):
        open_boundaries("bsds500:/nowhere")
    with pytest.raises(FileNotFoundError, match=r"no file none\.parquet; wanted bsds500:ROOT"):
        open_boundaries("none.parquet")
    with pytest.raises(ValueError, match="has no option part; it has split"):
        open_boundaries(f"bsds500:{bsds}?part=val")
    pq.write_table(pa.table({"image_id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="has no column image, boundaries: it holds no contours"):
        open_boundaries(tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("no Parquet")
    with pytest.raises(ValueError, match=r"cannot read .*text\.parquet"):
        open_boundaries(tmp_path / "text.parquet")
    with pytest.raises(ValueError, match="contours and no masks"):
        open_source(f"bsds500:{bsds}")


def test_a_broken_photo_is_named_when_it_is_asked_for(bsds: Path) -> None:
    truths = bsds / "BSR/BSDS500/data/groundTruth/val"
    photos = open_boundaries(f"bsds500:{bsds}")
    savemat(truths / "100.mat", {"other": 1})
    with pytest.raises(ImageError, match=r"100\.mat holds \['other'\]; wanted .*groundTruth"):
        photos[0]
    (truths / "100.mat").write_bytes(b"no MATLAB file" * 20)
    with pytest.raises(ImageError, match=r"100\.mat cannot be read"):
        photos[0]
    savemat(truths / "101.mat", {"groundTruth": {"Boundaries": np.zeros((4, 4), bool)}})
    with pytest.raises(ImageError, match=r"101.*\(6, 9\).*boundaries are for \(4, 4\)"):
        photos[1].image()
    (bsds / "BSR/BSDS500/data/images/val/101.jpg").unlink()
    with pytest.raises(ImageError, match=r"no photo .*101\.jpg"):
        photos[1]
    with pytest.raises(IndexError):
        photos[2]


def test_contours_of_two_sizes_are_refused() -> None:
    sizes = (np.zeros((2, 3), bool), np.zeros((3, 2), bool))
    with pytest.raises(ValueError, match="all of the same"):
        BoundaryPhoto(image_id="a", encoded=b"", boundaries=sizes)
    with pytest.raises(ValueError, match="at least one"):
        BoundaryPhoto(image_id="a", encoded=b"", boundaries=())


def test_borders_of_masks_are_lines_of_one_pixel() -> None:
    """Two halves have one line between them; a thing on both adds its rim; the photo has none."""
    left = np.zeros((20, 31), bool)
    left[:, :14] = True
    line = mask_borders([left, ~left], left.shape)
    assert (np.argwhere(line)[:, 1] == 13).all() and line.sum() == 20
    thing = np.zeros_like(left)
    thing[5:12, 9:18] = True
    both = mask_borders([left, ~left, thing], left.shape)
    rows, columns = np.nonzero(both & ~line)
    assert {4, 11} <= set(rows) <= set(range(4, 12)) and {8, 17} <= set(columns)
    assert not mask_borders([np.ones((6, 7), bool)], (6, 7)).any()
    assert not mask_borders([], (6, 7)).any()
    # A slanted border is no staircase of two pixels a step.
    round_ = mask_borders([disc(60, 60, 30, 30, 20)], (60, 60))
    assert round_.sum() < 1.1 * 4 * np.sqrt(2) * 20
    rows, columns = np.nonzero(round_)
    assert np.abs(np.hypot(rows - 30, columns - 30) - 20).max() < 2


def test_a_set_of_masks_gives_their_borders(tmp_path: Path) -> None:
    rows = parquet_rows(2)
    path = tmp_path / "masks.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    by_path = open_boundaries(path)
    assert [photo.image_id for photo in by_path] == ["photo-0", "photo-1"]
    (contour,) = by_path[0].boundaries
    # The cat is marked as ignored, so only the dog's border is there.
    expected = mask_borders([disc(40, 80, 20, 20, 7)], (40, 80))
    np.testing.assert_array_equal(contour, expected)
    assert by_path[0].image().shape == (40, 80, 3)
    by_line = open_boundaries(f"parquet:{path}")
    np.testing.assert_array_equal(by_line[1].boundaries[0], by_path[1].boundaries[0])
    with pytest.raises(ValueError, match="is a stream"):
        open_boundaries(f"hf:{tmp_path}?streaming=true&masks=objects.rle")
