"""Each kind of photo is read as it was written, or refused with what to type."""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from textsam.errors import ImageError, ImageNote
from textsam.values import images, tiff
from textsam.values.images import load_image

sys.path.insert(0, str(Path(__file__).parent))
import photo_kinds as kinds

pytest.importorskip("tifffile")
pytest.importorskip("imagecodecs")


def _read(kind: kinds.Kind) -> tuple[Any, list[str]]:
    """The pixels or the error of a kind, and what was said about it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            read: Any = load_image(kind.write(), **kind.options)
        except ImageError as error:
            read = str(error)
    return read, [str(item.message) for item in caught if item.category is ImageNote]


def _check(kind: kinds.Kind) -> None:
    read, notes = _read(kind)
    if isinstance(kind.wanted, str):
        assert isinstance(read, str), read
        assert re.search(kind.wanted, read), read
        return
    assert not isinstance(read, str), read
    assert read.dtype == np.uint8 and read.shape == kind.wanted.shape and read.flags.c_contiguous
    assert np.abs(read.astype(float) - kind.wanted).max() <= kind.tolerance
    if kind.note is None:
        assert not notes
    else:
        (note,) = notes
        assert kind.note in note


@pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda kind: kind.name)
def test_kinds(kind: kinds.Kind) -> None:
    if "Geo" in kind.name:
        pytest.importorskip("rasterio")
    if kind.name.startswith("HEIC"):
        pytest.importorskip("pillow_heif")
    if kind.name.startswith("JPEG XL"):
        pytest.importorskip("pillow_jxl")
    _check(kind)


TIFFS = [kind for kind in kinds.KINDS if "TIFF" in kind.name]


def _without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(tiff, "find_spec", lambda name: None if name in modules else find(name))


@pytest.mark.parametrize(
    "kind", [kind for kind in TIFFS if kind.name.startswith("Geo")], ids=lambda kind: kind.name
)
def test_maps_without_rasterio(kind: kinds.Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rasterio")
    _without(monkeypatch, "rasterio")
    _check(kind)


@pytest.mark.parametrize("kind", TIFFS, ids=lambda kind: kind.name)
def test_without_the_extras_nothing_is_read_wrong(
    kind: kinds.Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right, or an error that says what to install; a map may show what it has no data for."""
    pytest.importorskip("rasterio")
    _without(monkeypatch, "rasterio", "tifffile", "imagecodecs")
    read, _ = _read(kind)
    if isinstance(read, str):
        assert 'pip install "textsam[photos]"' in read or isinstance(kind.wanted, str)
    elif not kind.name.startswith("GeoTIFF"):
        assert not isinstance(kind.wanted, str)
        # Pillow cuts 16 bits to 8 without rounding.
        assert np.abs(read.astype(float) - kind.wanted).max() <= kind.tolerance + 1


@pytest.mark.parametrize(("name", "module"), [("HEIC", "pillow_heif"), ("JPEG XL", "pillow_jxl")])
def test_formats_without_their_plugin(
    name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(module)
    data = next(kind for kind in kinds.KINDS if kind.name == name).write()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImageError, match=r'pip install "textsam\[photos\]"'):
        load_image(data)


def test_auto_white_is_what_few_values_exceed() -> None:
    kind = next(kind for kind in kinds.KINDS if "reflectance" in kind.name)
    with pytest.warns(ImageNote, match="white is"):
        read = load_image(kind.write(), white="auto")
    assert 0.001 < (read == 255).mean() < 0.05


def test_notes_point_at_the_callers_line() -> None:
    data = next(kind for kind in kinds.KINDS if kind.name == "TIFF 3 pages").write()
    with pytest.warns(ImageNote) as caught:
        load_image(data)
    assert Path(caught[0].filename) == Path(__file__)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bands": (0, 1, 2)}, "counted from 1"),
        ({"bands": (1, 2)}, "one number or three"),
        ({"bands": "3,2,1"}, "one number or three"),
        ({"bands": (9, 2, 1)}, "has 3 bands"),
        ({"page": 0}, "counted from 1"),
        ({"page": 2}, "has 1 page"),
        ({"white": 0}, "number > 0"),
        ({"white": "bright"}, 'or "auto"'),
        ({"alpha": "whitish"}, '"ignore" or a colour'),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load_image(kinds._pil(kinds.RGB, "PNG")(), **options)


def test_arrays_with_a_white_level() -> None:
    np.testing.assert_array_equal(load_image(kinds.RGB12, white=4095), kinds.RGB)
    float_255 = kinds.RGB.astype(np.float32)
    np.testing.assert_array_equal(load_image(float_255, white=255), kinds.RGB)
    with pytest.raises(ImageError, match="for files"):
        load_image(kinds.RGB, bands=(3, 2, 1))


def test_too_many_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images.Image, "MAX_IMAGE_PIXELS", 100)
    for name in ("TIFF RGB 16", "GeoTIFF RGB 16", "TIFF RGB 8, BigTIFF big-endian", "PNG RGB 16"):
        data = next(kind for kind in kinds.KINDS if kind.name == name).write()
        with pytest.raises(ImageError, match="MAX_IMAGE_PIXELS"):
            load_image(data)


def test_camera_raw_is_not_its_preview() -> None:
    data = kinds._tiff(kinds.RGB, extratags=[(50706, 1, 4, (1, 4, 0, 0), True)])()
    with pytest.raises(ImageError, match="rawpy"):
        load_image(data)


def test_cut_off_tiffs() -> None:
    for name in ("TIFF RGB 16", "GeoTIFF RGB 16", "TIFF float RGB"):
        data = next(kind for kind in kinds.KINDS if kind.name == name).write()
        with pytest.raises(ImageError):
            load_image(data[: len(data) // 2])


def test_keywords_of_reading_are_not_those_of_asking() -> None:
    from textsam.inference.strategies.query import check_keywords

    with pytest.raises(TypeError, match=r"Type: load_image\(photo, bands=\.\.\.\) first"):
        check_keywords(["bands"])
