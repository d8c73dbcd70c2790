"""Photos are known without their pixels being kept, and read again when they are needed."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from textsam.errors import ImageError
from textsam.values import photo as photo_module
from textsam.values.images import load_image
from textsam.values.photo import Photo, Remade, as_photo

H, W = 150, 200  # 90 kB, more than what is always kept


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (H, W, 3), dtype=np.uint8)


def write(path: Path, seed: int = 0) -> Path:
    Image.fromarray(picture(seed)).save(path)
    return path


@pytest.fixture
def short_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the very last array stays."""
    monkeypatch.setattr(photo_module, "_LATEST_BYTES", 1)


def test_pixels_of_a_file_are_let_go_and_read_again(tmp_path: Path, short_memory: None) -> None:
    first = Photo.open(write(tmp_path / "a.png"))
    pixels = weakref.ref(first.pixels())
    assert pixels() is first.pixels()  # the latest stays
    second = Photo.open(write(tmp_path / "b.png", seed=1))
    gc.collect()
    assert pixels() is None
    np.testing.assert_array_equal(first.pixels(), picture())
    np.testing.assert_array_equal(second.pixels(), picture(1))
    assert not first.pixels().flags.writeable


def test_pixels_in_use_are_shared(tmp_path: Path, short_memory: None) -> None:
    photo = Photo.open(write(tmp_path / "a.png"))
    held = photo.pixels()
    Photo.open(write(tmp_path / "b.png", seed=1))
    (tmp_path / "a.png").unlink()
    assert photo.pixels() is held  # not read again while somebody has them


@pytest.mark.parametrize("kind", ["array", "pil", "file", "bytearray"])
def test_what_cannot_be_read_again_stays(tmp_path: Path, kind: str, short_memory: None) -> None:
    path = write(tmp_path / "a.png")
    with path.open("rb") as file:
        sources = {
            "array": picture(),
            "pil": Image.fromarray(picture()),
            "file": file,
            "bytearray": bytearray(path.read_bytes()),
        }
        photo = Photo.open(sources[kind])
    path.unlink()
    Photo.open(write(tmp_path / "b.png", seed=1))
    np.testing.assert_array_equal(photo.pixels(), picture())
    assert photo.source is None
    assert pickle.loads(pickle.dumps(photo)) is None


def test_bytes_are_kept_encoded(tmp_path: Path, short_memory: None) -> None:
    data = write(tmp_path / "a.png").read_bytes()
    photo = Photo.open(data)
    Photo.open(write(tmp_path / "b.png", seed=1))
    assert photo.source is data
    np.testing.assert_array_equal(photo.pixels(), picture())
    assert pickle.loads(pickle.dumps(photo)) is None


def test_a_relative_path_is_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_memory: None
) -> None:
    write(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    photo = Photo.open("a.png")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir("other")
    Photo.open(write(tmp_path / "b.png", seed=1))
    np.testing.assert_array_equal(photo.pixels(), picture())


def test_a_pickle_has_the_path_or_the_pixels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png")
    photo = Photo.open(path)
    assert len(pickle.dumps(photo)) < 1000
    again = pickle.loads(pickle.dumps(photo))
    np.testing.assert_array_equal(again.pixels(), picture())
    assert again.source == str(path)
    for pinned in (photo.pin(), Photo(picture()).pin()):
        kept = pickle.loads(pickle.dumps(pinned))
        path.unlink(missing_ok=True)
        np.testing.assert_array_equal(kept.pixels(), picture())
        assert len(pickle.dumps(kept)) > picture().nbytes  # also in the next pickle
    assert copy.deepcopy(photo) is copy.copy(photo) is photo


def test_a_file_that_is_gone_or_changed_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png")
    photo = pickle.loads(pickle.dumps(Photo.open(path)))
    write(path, seed=1)
    with pytest.raises(ImageError, match=r"another picture than .* \(150x200.*plot\("):
        photo.pixels()
    Image.fromarray(picture()[:, :-1]).save(path)
    with pytest.raises(ImageError, match="another picture"):
        photo.pixels()
    path.unlink()
    with pytest.raises(ImageError, match=r"cannot read .* again.*there is no file.*plot\("):
        photo.pixels()
    write(path)  # and it is back
    np.testing.assert_array_equal(photo.pixels(), picture())


def test_a_photo_of_another_size_is_refused() -> None:
    assert as_photo(None, (3, 4)) is None
    photo = Photo(picture())
    assert as_photo(photo, (H, W)) is photo
    for image in (photo, picture()):
        with pytest.raises(ValueError, match="not the photo that they were made from"):
            as_photo(image, (W, H))


def test_small_arrays_are_always_kept(short_memory: None) -> None:
    made = []
    owners = [Remade() for _ in range(5)]
    for owner in owners * 2:
        owner.get(lambda: made.append(1) or np.zeros(100))
    assert len(made) == len(owners)


def test_the_latest_arrays_stay_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 100_000
    monkeypatch.setattr(photo_module, "_LATEST_BYTES", 3 * size)
    monkeypatch.setattr(photo_module, "_latest", photo_module._Latest())
    owners = [Remade() for _ in range(5)]
    for owner in owners:
        owner.get(lambda: np.zeros(size, np.uint8))
    assert [owner._array is not None for owner in owners] == [False, False, True, True, True]
    owners[2].get(lambda: np.ones(size, np.uint8))  # used again: now the latest
    owners[0].get(lambda: np.zeros(size, np.uint8))
    assert [owner._array is not None for owner in owners] == [True, False, True, False, True]


def test_loading_gives_the_same_pixels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png")
    np.testing.assert_array_equal(Photo.open(path).pixels(), load_image(path))
