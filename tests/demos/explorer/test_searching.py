from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="rows need pyarrow")

from demos.explorer.photo_cache import PhotoCache
from demos.explorer.searching import Indexes, photo_of, result_picture
from textsam.errors import PromptError
from textsam.inference.model import TextSAM
from textsam.search.records import MaskRow
from textsam.values.rle import encode_mask


def row_of(image: str, mask: np.ndarray) -> MaskRow:
    return MaskRow(dataset="set", image=image, rle=encode_mask(mask), label="thing")


def left_half(height: int, width: int) -> np.ndarray:
    return np.arange(width)[None].repeat(height, 0) < width // 2


def test_an_index_is_opened_once_however_it_is_typed(model: TextSAM) -> None:
    indexes = Indexes(lambda: model)
    first = indexes.at("masks.lance")
    assert indexes.at(" 'masks.lance' ") is first
    assert indexes.at("~/masks.lance").uri == str(Path.home() / "masks.lance")
    for number in range(8):
        indexes.at(f"{number}.lance")
    assert indexes.at("masks.lance") is not first  # dropped: pages cannot fill the memory


def test_photos_are_found_by_what_rows_hold(tmp_path: Path, photo_file: Path) -> None:
    index, mask = str(tmp_path / "masks.lance"), left_half(50, 90)
    assert photo_of(row_of(str(photo_file), mask), index) == photo_file
    assert photo_of(row_of(f"file://{photo_file}", mask), index) == photo_file
    assert photo_of(row_of("noise.png", mask), index) == photo_file
    assert photo_of(row_of("noise.png", mask), "s3://bucket/masks.lance") is None
    assert photo_of(row_of("photos.parquet#3:noise", mask), index) is None


def test_a_result_without_a_whole_photo_shows_its_shape(photo_file: Path) -> None:
    row = row_of(str(photo_file), left_half(50, 90))
    assert result_picture(row, photo_file).size != (45, 50)  # with what is around the mask
    photo_file.write_bytes(photo_file.read_bytes()[:2000])
    assert result_picture(row, photo_file).size == (45, 50)


def test_masks_of_no_photo_are_refused(photos: PhotoCache) -> None:
    from demos.explorer.explorer import Explorer

    with pytest.raises(PromptError, match="Open a photo first"):
        Explorer(photos).put(row_of("x", left_half(5, 5)), "x")  # type: ignore[arg-type]
