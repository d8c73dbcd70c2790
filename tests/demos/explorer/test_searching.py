from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the explorer needs gradio")
pytest.importorskip("pyarrow", reason="rows need pyarrow")

from demos.explorer.photos import LONG_SIDE, PhotoCache
from demos.explorer.searching import Indexes, photo_of, result_picture
from demos.page.search_tab import _open_index, _open_result
from demos.page.sessions import Session, close_session
from textsam.errors import PromptError
from textsam.inference.model import TextSAM
from textsam.search.records import MaskRow
from textsam.values.rle import encode_mask


def row_of(image: str, mask: np.ndarray) -> MaskRow:
    return MaskRow(dataset="set", image=image, rle=encode_mask(mask), label="thing")


def half(height: int, width: int) -> np.ndarray:
    """A mask of the left half."""
    mask = np.zeros((height, width), bool)
    mask[:, : width // 2] = True
    return mask


def test_a_bad_path_is_told_and_nothing_changes(tmp_path: Path, model: TextSAM) -> None:
    pytest.importorskip("lancedb", reason="the index needs lancedb")
    (tmp_path / "photos").mkdir()
    (tmp_path / "file.lance").write_bytes(b"no index")
    for typed, words in (
        ("", "Type the path"),
        (str(tmp_path / "nowhere.lance"), "There is no index at"),
        (str(tmp_path / "file.lance"), "There is no index at"),
        (str(tmp_path / "photos"), "is not an index, or it has no masks yet"),
        ("ftp://host/masks.lance", "cannot be opened"),
    ):
        address, status, *others = _open_index(Indexes(lambda: model), typed)
        assert words in status and status.startswith("⚠"), status
        assert all("__type__" in other for other in (address, *others))  # gr.skip(): as it was
    assert not any((tmp_path / "photos").iterdir())


def test_an_index_is_opened_once_however_it_is_typed(model: TextSAM) -> None:
    indexes = Indexes(lambda: model)
    first = indexes.at("masks.lance")
    assert indexes.at(" 'masks.lance' ") is first
    assert indexes.at("~/masks.lance").uri == str(Path.home() / "masks.lance")
    for number in range(8):
        indexes.at(f"{number}.lance")
    assert indexes.at("masks.lance") is not first  # dropped: pages cannot fill the memory


def test_photos_are_found_by_what_rows_hold(tmp_path: Path, photo_file: Path) -> None:
    index, mask = str(tmp_path / "masks.lance"), half(50, 90)
    assert photo_of(row_of(str(photo_file), mask), index) == photo_file
    assert photo_of(row_of(f"file://{photo_file}", mask), index) == photo_file
    assert photo_of(row_of("noise.png", mask), index) == photo_file
    assert photo_of(row_of("noise.png", mask), "s3://bucket/masks.lance") is None
    assert photo_of(row_of("photos.parquet#3:noise", mask), index) is None


def test_a_result_without_a_whole_photo_shows_its_shape(photo_file: Path) -> None:
    row = row_of(str(photo_file), half(50, 90))
    assert result_picture(row, photo_file).size != (45, 50)  # with what is around the mask
    photo_file.write_bytes(photo_file.read_bytes()[:2000])
    assert result_picture(row, photo_file).size == (45, 50)


def test_a_result_of_a_large_photo_lies_where_it_lies_in_the_file(
    tmp_path: Path, photos: PhotoCache
) -> None:
    path = tmp_path / "wide.png"
    Image.new("RGB", (2 * LONG_SIDE, 100), (9, 90, 200)).save(path)
    page = Session(photos)
    try:
        scene, *_ = _open_result(page, "", [row_of(str(path), half(100, 3200))], 0)
        assert (scene["photo"]["width"], scene["photo"]["height"]) == (LONG_SIDE, 50)
        assert scene["objects"][0]["box"] == [0, 0, LONG_SIDE // 2, 50] and not scene["error"]
        thin = np.zeros((100, 2 * LONG_SIDE), bool)
        thin[51, 100:140] = True
        _open_result(page, "", [row_of(str(path), thin)], 0)
        assert page.explorer.board.objects[0].result.box.tolist() == [50, 25, 70, 26]
        scene, *_ = _open_result(page, "", [row_of(str(path), half(90, 90))], 0)
        assert scene["error"] and "3200 x 100 pixels now" in scene["message"]
        assert not scene["objects"]
    finally:
        close_session(page)


def test_masks_of_no_photo_are_refused(photos: PhotoCache) -> None:
    from demos.explorer.explorer import Explorer

    with pytest.raises(PromptError, match="Open a photo first"):
        Explorer(photos).put(row_of("x", half(5, 5)), "x")  # type: ignore[arg-type]
