"""Data sets of other tools: round trips by their own readers, ids, files, and what is refused."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from textsam import read_set, write_set
from textsam.results.formats.geo_files import _polygons
from textsam.results.formats.label_studio import pack_mask, unpack_mask
from textsam.results.formats.set_photo import make_photos
from textsam.results.segmentation import Segmentation
from training.studies import round_trips

SHAPES = {name: r for name, r in round_trips.shapes().items() if name != "1,000 masks"}
FORMATS = ["coco", "yolo", "labelme", "cvat", "voc", "geojson", "gpkg", "labelstudio", "parquet"]
NEEDS = {"gpkg": "pyogrio", "parquet": "pyarrow", "yolo": "yaml"}


def skip_without(name):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize("row", round_trips.ROWS, ids=lambda row: row[0])
@pytest.mark.filterwarnings("ignore")  # theirs
def test_round_trip_by_the_other_library(row, tmp_path):
    name, options, read, needs = row
    skip_without(needs)
    found = round_trips.round_trip(SHAPES, tmp_path, options, read)
    for kind, (worst, exact, large) in found.items():
        assert exact or name not in round_trips.EXACT, (kind, worst)
        # Half of all pixels at random is no thing: one line more or less is one in four pixels.
        assert large >= (0.98 if kind == "noise" else 0.99), (kind, large)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_read_back(format, tmp_path):
    """Without tolerance, all that is not joined or drawn over is exact."""
    skip_without(NEEDS.get(format, "PIL"))
    found = round_trips.round_trip(
        SHAPES,
        tmp_path,
        {"format": format, "tolerance": 0.0},
        round_trips.by_textsam,
    )
    joined = {"parts", "noise"} if format == "yolo" else set()
    assert {kind for kind, (_, exact, _) in found.items() if not exact} <= joined
    again = dict(read_set(tmp_path / "set"))
    assert len(again) == len(SHAPES)
    for path, result in again.items():
        if format != "parquet":
            assert path.is_file()
        (own,) = (
            r for name, r in SHAPES.items() if name.replace(" ", "_").replace(",", "") == path.stem
        )
        assert result.labels == own.labels
        assert result.size == own.size


@pytest.fixture
def bus(tmp_path):
    masks = np.zeros((2, 20, 30), dtype=bool)
    masks[0, 3:9, 4:19], masks[1, 12:15, 2:8] = True, True
    Image.new("RGB", (30, 20)).save(tmp_path / "bus.png")
    result = Segmentation.from_masks(masks, labels=["wheel", None], scores=[0.5, np.nan])
    return tmp_path / "bus.png", result


@pytest.mark.parametrize("format", FORMATS)
def test_photos_are_copied_linked_or_left(format, bus, tmp_path):
    skip_without(NEEDS.get(format, "PIL"))
    for place in ("copy", "link", "none"):
        folder = write_set([bus], tmp_path / place, format=format, photos=place)
        found = [path for path in folder.rglob("*.png") if "Segm" not in path.parent.name]
        # Parquet holds the photos itself.
        assert len(found) == (place != "none" and format != "parquet")
        assert all(path.is_symlink() == (place == "link") for path in found)
        if format != "yolo" or place != "none":
            ((path, result),) = read_set(folder)
            assert result.labels == ["wheel", "object"]
            if place == "none" and format not in ("cvat",):
                assert path.resolve() == bus[0].resolve()


def test_yolo_without_photos_says_what_is_missing(bus, tmp_path):
    folder = write_set([bus], tmp_path / "set", format="yolo", photos="none")
    with pytest.raises(ValueError, match="put the photos there"):
        list(read_set(folder))


@pytest.mark.parametrize("format", ["coco", "labelme", "cvat", "geojson", "labelstudio"])
def test_scores_are_kept(format, bus, tmp_path):
    ((_, result),) = read_set(write_set([bus], tmp_path / "set", format=format))
    np.testing.assert_allclose(result.scores, [0.5, np.nan])


def test_classes_are_in_the_order_asked_for(bus, tmp_path):
    folder = write_set([bus], tmp_path / "set", format="yolo", names=["door", "wheel"])
    yaml = (folder / "data.yaml").read_text()
    assert yaml.splitlines()[2:] == ["names:", '  0: "door"', '  1: "wheel"', '  2: "object"']
    lines = (folder / "labels" / "bus.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2"]


def test_ids_stay_when_photos_come(bus, tmp_path):
    path, result = bus
    other = tmp_path / "aaa.png"
    other.write_bytes(path.read_bytes())
    ids = []
    for items in ([bus], [(other, result), bus]):
        folder = write_set(items, tmp_path / "set", format="coco")
        data = json.loads((folder / "annotations.json").read_bytes())
        (image,) = [image for image in data["images"] if image["file_name"] == "bus.png"]
        numbers = [a["id"] for a in data["annotations"] if a["image_id"] == image["id"]]
        ids.append((image["id"], numbers))
        everything = [a["id"] for a in data["annotations"]]
        assert len(set(everything)) == len(everything)
        assert max(everything) < 2**53
    assert ids[0] == ids[1]


@given(
    st.lists(st.sampled_from(["a/1.jpg", "1.jpg", "1.png", "01.jpg", "b.jpg", "b.png", "B.tif"]))
)
@settings(max_examples=50, deadline=None)
def test_names_and_ids_are_different(names):
    photos = make_photos([(Path(name), name, lambda: None) for name in names])
    assert len({photo.id for photo in photos}) == len(names)
    assert len({photo.stem.casefold() for photo in photos}) == len(names)


def test_cocos_own_numbers_stay():
    (photo,) = make_photos([(Path("000000397133.jpg"), "000000397133.jpg", lambda: None)])
    assert photo.id == 397133


def test_what_an_earlier_set_left_is_removed(bus, tmp_path):
    path, result = bus
    other = tmp_path / "gone.png"
    other.write_bytes(path.read_bytes())
    folder = write_set([bus, (other, result)], tmp_path / "set", format="yolo")
    (folder / "notes.txt").write_text("mine")
    write_set([bus], folder, format="yolo")
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    expected = {"images/bus.png", "labels/bus.txt", "data.yaml", "notes.txt"}
    assert {name for name in files if not name.startswith(".textsam")} == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "cocoo"}, 'Type: format="coco"'),
        ({"format": "fiftyone"}, "FiftyOne reads COCO"),
        ({"format": "yolo", "polygons": False}, "has polygons only"),
        ({"format": "parquet", "polygons": True}, "exact masks only"),
        ({"format": "coco", "tolerance": -1}, "wanted pixels"),
        ({"format": "coco", "photos": "move"}, 'wanted "copy", "link" or "none"'),
    ],
)
def test_wrong_options_say_what_to_type(options, message, bus, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_set([bus], tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()


def test_what_is_no_set_is_said(tmp_path):
    with pytest.raises(ValueError, match="no data set that is known"):
        read_set(tmp_path)


@given(st.integers(1, 9), st.integers(1, 9), st.floats(0, 1), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_brushes_of_label_studio(height, width, share, seed):
    mask = np.random.default_rng(seed).random((height, width)) < share
    np.testing.assert_array_equal(unpack_mask(pack_mask(mask), mask.shape), mask)


def test_a_large_brush():
    mask = np.zeros((300, 400), dtype=bool)
    mask[10:290, :] = True
    np.testing.assert_array_equal(unpack_mask(pack_mask(mask), mask.shape), mask)


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 1), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_geometries_are_valid(height, width, share, seed):
    shapely = pytest.importorskip("shapely.geometry")
    mask = np.random.default_rng(seed).random((height, width)) < share
    polygons = [[ring.tolist() for ring in polygon] for polygon in _polygons(mask, 0.0)]
    shape = shapely.MultiPolygon([(polygon[0], polygon[1:]) for polygon in polygons])
    assert shape.is_valid
    assert shape.area == mask.sum()


@pytest.mark.parametrize("format", ["geojson", "gpkg"])
@pytest.mark.filterwarnings("ignore")
def test_maps_get_map_coordinates(format, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    geopandas = pytest.importorskip("geopandas")
    transform = rasterio.transform.from_origin(500_000, 5_400_000, 2.0, 2.0)
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "width": 60, "height": 40}
    path = tmp_path / "map.tif"
    with rasterio.open(path, "w", crs="EPSG:32632", transform=transform, **profile) as file:
        file.write(np.zeros((3, 40, 60), dtype=np.uint8))
    mask = np.zeros((1, 40, 60), dtype=bool)
    mask[0, 5:15, 10:30] = True
    mask[0, 8:10, 12:15] = False
    result = Segmentation.from_masks(mask, labels=["field"])
    folder = write_set([(path, result)], tmp_path / "set", format=format, tolerance=0)
    frame = geopandas.read_file(folder / f"masks.{format}")
    assert str(frame.crs) == ("EPSG:4326" if format == "geojson" else "EPSG:32632")
    metres = frame.to_crs("EPSG:32632").geometry[0]
    assert metres.area == pytest.approx(mask.sum() * 4, rel=2e-3)
    np.testing.assert_allclose(metres.bounds, (500_020, 5_399_970, 500_060, 5_399_990), atol=0.01)
    ((_, again),) = read_set(folder)
    np.testing.assert_array_equal(again.masks, mask)


def test_labelme_polygons_of_other_people(tmp_path):
    """A rectangle, a circle and two parts of a group, with Windows' path of the photo."""
    shapes = [
        {"label": "a", "points": [[1, 1], [3, 2]], "shape_type": "rectangle", "group_id": None},
        {"label": "b", "points": [[0, 5], [2, 5], [2, 7]], "shape_type": "polygon", "group_id": 4},
        {"label": "b", "points": [[6, 5], [8, 5], [8, 7]], "shape_type": "polygon", "group_id": 4},
    ]
    data = {"shapes": shapes, "imagePath": "..\\x.jpg", "imageHeight": 10, "imageWidth": 12}
    (tmp_path / "x.json").write_text(json.dumps(data))
    ((path, result),) = read_set(tmp_path)
    assert os.path.normpath(path) == str(tmp_path.parent / "x.jpg")
    assert result.labels == ["a", "b"]
    assert result.areas.tolist() == [6, 12]
