from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the explorer needs gradio")
pytest.importorskip("pyarrow", reason="rows need pyarrow")

from demos.explorer.photo_cache import LONG_SIDE, PhotoCache
from demos.explorer.searching import Indexes
from demos.page.search_tab import _open_index, _open_result
from demos.page.sessions import Session, close_session
from textsam.inference.model import TextSAM
from textsam.search.records import MaskRow
from textsam.values.rle import encode_mask


def row_of(image: str, mask: np.ndarray) -> MaskRow:
    return MaskRow(dataset="set", image=image, rle=encode_mask(mask), label="thing")


def left_half(height: int, width: int) -> np.ndarray:
    return np.arange(width)[None].repeat(height, 0) < width // 2


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
        uri, gallery, rows, status, datasets = _open_index(Indexes(lambda: model), typed)
        assert words in status and status.startswith("⚠"), status
        assert all("__type__" in other for other in (uri, gallery, rows, datasets))  # gr.skip()
    assert not any((tmp_path / "photos").iterdir())


def test_a_result_of_a_large_photo_lies_where_it_lies_in_the_file(
    tmp_path: Path, photos: PhotoCache
) -> None:
    path = tmp_path / "wide.png"
    Image.new("RGB", (2 * LONG_SIDE, 100), (9, 90, 200)).save(path)
    page = Session(photos)
    first = SimpleNamespace(index=0)  # what Gradio tells of the click
    try:
        scene, *_ = _open_result(page, "", [row_of(str(path), left_half(100, 3200))], first)
        assert (scene["photo"]["width"], scene["photo"]["height"]) == (LONG_SIDE, 50)
        assert scene["objects"][0]["box"] == [0, 0, LONG_SIDE // 2, 50] and not scene["error"]
        thin = np.zeros((100, 2 * LONG_SIDE), bool)
        thin[51, 100:140] = True
        _open_result(page, "", [row_of(str(path), thin)], first)
        assert page.explorer.board.objects[0].result.box.tolist() == [50, 25, 70, 26]
        scene, *_ = _open_result(page, "", [row_of(str(path), left_half(90, 90))], first)
        assert scene["error"] and "3200 x 100 pixels now" in scene["message"]
        assert not scene["objects"]
    finally:
        close_session(page)
