from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demos.explorer.photo_cache import LONG_SIDE, PhotoCache, UserPhoto, example_photos, read_photo
from textsam.errors import ImageError
from textsam.inference.model import TextSAM


def test_a_photo_is_read_as_it_is(photo: UserPhoto, photo_file: Path) -> None:
    assert photo.size == photo.original_size == (50, 90)
    assert photo.name == "noise" and photo.file_name == "noise.png"
    assert np.array_equal(photo.image, np.asarray(Image.open(photo_file)))
    assert not photo.image.flags.writeable


def test_a_large_photo_is_worked_on_at_a_smaller_size(tmp_path: Path) -> None:
    Image.new("RGB", (2 * LONG_SIDE, 800), (9, 90, 200)).save(tmp_path / "wide.png")
    photo = read_photo(tmp_path / "wide.png")
    assert photo.size == (400, LONG_SIDE) and photo.original_size == (800, 2 * LONG_SIDE)


def test_the_key_is_of_the_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    for name, array in (("a", pixels), ("b", pixels), ("c", pixels[::-1])):
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    a, b, c = (read_photo(tmp_path / f"{name}.png") for name in "abc")
    assert a.key == b.key != c.key


def test_bad_files_are_told_without_the_servers_folders(
    tmp_path: Path, huge_png: bytes, photo_file: Path
) -> None:
    files = {
        "words.jpg": (b"this is no photo", "not an image"),
        "empty.png": (b"", "0 bytes"),
        "huge.png": (huge_png, "megapixels"),
        "cut.png": (photo_file.read_bytes()[:4000], "damaged or cut off"),
    }
    for name, (data, words) in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match=words) as caught:
            read_photo(tmp_path / name, name)
        assert str(tmp_path) not in str(caught.value)
        assert name in str(caught.value)
    with pytest.raises(ImageError, match="not here any more"):
        read_photo(tmp_path / "gone.png")


def test_a_photo_between_the_two_limits_is_refused_by_its_header(tmp_path: Path) -> None:
    Image.new("1", (10_000, 7_000)).save(tmp_path / "big.png")  # 70 megapixels, some kilobytes
    with pytest.raises(ImageError, match="has 70 megapixels; the explorer takes 64"):
        read_photo(tmp_path / "big.png")


def test_a_photo_is_encoded_once_for_all(
    photos: PhotoCache, photo: UserPhoto, model: TextSAM, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, encode = [], TextSAM.open
    monkeypatch.setattr(TextSAM, "open", lambda *given: calls.append(1) or encode(*given))
    views: list = []
    threads = [threading.Thread(target=lambda: views.append(photos.open(photo))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 and len(views) == 8
    assert len({id(view) for view in views}) == 8
    assert all(view.photo is views[0].photo for view in views)


def test_views_of_one_photo_have_dialogues_of_their_own(
    photos: PhotoCache, photo: UserPhoto
) -> None:
    one, other = photos.open(photo), photos.open(photo)
    one.segment(points=[(20, 20)])
    assert one.dialogue.steps and not other.dialogue.steps
    assert not photos.open(photo).dialogue.steps
    one.everything()
    assert one._automatic and not other._automatic


def test_the_cache_is_bounded_by_count_and_by_bytes(model: TextSAM, tmp_path: Path) -> None:
    read = []
    for number in range(6):
        pixels = np.full((40, 60, 3), number, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        read.append(read_photo(tmp_path / f"{number}.png"))
    by_count = PhotoCache(lambda: model, max_photos=3)
    for photo in read:
        by_count.open(photo)
    count, each = by_count.size[0], by_count.size[1] // 3
    assert count == 3
    by_bytes = PhotoCache(lambda: model, max_bytes=2 * each)
    for photo in read:
        by_bytes.open(photo)
    assert by_bytes.size == (2, 2 * each)
    tight = PhotoCache(lambda: model, max_bytes=1)
    tight.open(read[0])
    assert tight.size[0] == 1  # the one that is used stays


def test_examples_come_along() -> None:
    assert {path.stem for path in example_photos()} >= {"bus", "cat", "dog"}
