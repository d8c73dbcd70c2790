"""Georeferences come back as rasterio wrote them, and photos without one give None."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from textsam.errors import ImageError
from textsam.values.georeference import read_georeference

rasterio = pytest.importorskip("rasterio")
Affine = rasterio.Affine


def _write(path: Path, transform: object = None, crs: str | None = None) -> None:
    options = {"driver": "GTiff", "height": 4, "width": 5, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", crs=crs, transform=transform, **options) as file:
        file.write(np.zeros((3, 4, 5), np.uint8))


_number = st.floats(-1e6, 1e6, allow_nan=False).filter(lambda number: abs(number) > 1e-3)


@settings(deadline=None, max_examples=25)
@given(st.tuples(*[_number] * 6), st.sampled_from(["EPSG:32633", "EPSG:4326", "EPSG:3857"]))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, numbers: tuple, crs: str) -> None:
    path = tmp_path_factory.mktemp("geo") / "a.tif"
    a, b, c, d, e, f = numbers
    _write(path, Affine(a, b, c, d, e, f), crs)
    for source in (path, str(path), path.read_bytes()):
        found = read_georeference(source)
        assert found is not None
        assert found.crs == crs
        assert found.transform == pytest.approx(numbers)


def test_none_where_there_is_none(tmp_path: Path) -> None:
    Image.new("RGB", (5, 4)).save(tmp_path / "a.jpg")
    Image.new("RGB", (5, 4)).save(tmp_path / "plain.tif")
    assert read_georeference(tmp_path / "a.jpg") is None
    assert read_georeference(tmp_path / "plain.tif") is None
    assert read_georeference((tmp_path / "a.jpg").read_bytes()) is None


def test_world_files_and_unknown_systems(tmp_path: Path) -> None:
    Image.new("RGB", (5, 4)).save(tmp_path / "a.jpg")
    # A world file gives the centre of the first pixel, the transform its corner.
    (tmp_path / "a.jgw").write_text("2\n0\n0\n-2\n101\n199\n")
    found = read_georeference(tmp_path / "a.jpg")
    assert found == (None, (2, 0, 100, 0, -2, 200))
    local = 'LOCAL_CS["here",UNIT["metre",1]]'
    _write(tmp_path / "b.tif", Affine(1, 0, 5, 0, -1, 7), local)
    found = read_georeference(tmp_path / "b.tif")
    assert found is not None
    assert "here" in str(found.crs)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no\.tif"):
        read_georeference(tmp_path / "no.tif")
    (tmp_path / "bad.tif").write_bytes(b"II*\0rubbish")
    with pytest.raises(ImageError, match=r"bad\.tif"):
        read_georeference(tmp_path / "bad.tif")
