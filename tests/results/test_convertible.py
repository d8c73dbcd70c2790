"""A result as other libraries take it, and what people type who come from one of them."""

from __future__ import annotations

import json
import math
import sys
import types
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.results.test_segmentation import H, W, results, some
from textsam.errors import ImageError, MissingExtraError
from textsam.results import interop
from textsam.results.polygons import ring_area
from textsam.results.segmentation import Segmentation
from textsam.values.geometry import boxes_from_xywh
from textsam.values.rle import encode_masks


@given(results())
@settings(max_examples=30, deadline=None)
def test_every_form_says_the_same(seg):
    np.testing.assert_array_equal(seg.xyxy, seg.boxes)
    np.testing.assert_array_equal(boxes_from_xywh(seg.xywh), seg.boxes)
    tensor = seg.masks_tensor()
    assert tensor.dtype == torch.bool and tensor.shape == (len(seg), *seg.size)
    np.testing.assert_array_equal(tensor.numpy(), seg.masks)
    polygons = seg.polygons()
    areas = [sum(ring_area(ring) for ring in rings) for rings in polygons]
    assert areas == seg.areas.tolist()
    for item, rings in zip(seg, polygons, strict=True):
        for own, ring in zip(item.polygons(), rings, strict=True):
            np.testing.assert_array_equal(own, ring)


def test_a_tensor_of_its_own():
    seg, masks = some()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch.from_numpy(seg.masks) warns
        tensor = seg.masks_tensor(device="cpu")
        tensor[:] = False
    np.testing.assert_array_equal(seg.masks, masks)


def test_pandas(monkeypatch):
    pytest.importorskip("pandas")
    seg, _ = some(iou=[0.5, math.nan, 1.0])
    for result in (seg, seg[:0]):
        frame = result.to_pandas()
        assert len(frame) == len(result)
        assert frame["label"].tolist() == result.labels
        np.testing.assert_array_equal(frame[["x0", "y0", "x1", "y1"]], result.boxes)
        np.testing.assert_array_equal(frame["iou"], result.iou)
        assert frame["score"].dtype == np.float32 and frame["area"].dtype == np.int64
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match="pip install"):
        seg.to_pandas()


def test_crops():
    masks = np.zeros((2, H, W), bool)
    masks[0, 3:5, 2:9] = True
    photo = np.random.default_rng(0).integers(1, 256, (H, W, 3), dtype=np.uint8)
    seg = Segmentation.from_masks(masks, image=photo)
    np.testing.assert_array_equal(np.asarray(seg.crop(0)), photo[3:5, 2:9])
    np.testing.assert_array_equal(np.asarray(seg[0].crop(margin=3)), photo[0:8, 0:12])
    assert seg.crop(-2, margin=99).size == (W, H)
    cutout = np.asarray(seg.crop(0, margin=1, cutout=True))
    np.testing.assert_array_equal(cutout[..., 3] > 0, masks[0, 2:6, 1:10])
    with pytest.raises(ValueError, match="mask 1 is empty"):
        seg.crop(1)
    with pytest.raises(IndexError, match="got position 2; there are 2 masks, 0 to 1"):
        seg.crop(2)
    with pytest.raises(ImageError, match="does not know its photo"):
        seg.without_image().crop(0)


def test_one_mask_is_drawn_and_saved_as_a_result_is(tmp_path):
    seg, _ = some(image=True)
    for suffix in ("png", "json", "npz", "geojson", "txt"):
        seg[1].save(tmp_path / f"one.{suffix}")
        seg[1:2].save(tmp_path / f"all.{suffix}")
    assert Segmentation.load(tmp_path / "one.json").rles == [seg.rles[1]]
    assert Segmentation.load(tmp_path / "one.npz").labels == [seg.labels[1]]
    assert json.loads((tmp_path / "all.geojson").read_text()) == seg[1:2].to_geojson()
    for kind in ("overlay", "cutout", "mask", "instances", "compare"):
        assert seg[1].picture(kind).tobytes() == seg[1:2].picture(kind).tobytes()
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "all.png").read_bytes()


def test_show_takes_the_viewer_or_the_notebook(monkeypatch):
    shown = []
    monkeypatch.setattr("PIL.Image.Image.show", lambda picture: shown.append(picture.size))
    seg, _ = some(image=True)
    seg.show()
    seg[0].show()
    assert shown == [(W, H)] * 2
    notebook = types.ModuleType("IPython.display")
    notebook.display = lambda picture: shown.append("notebook")
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", notebook)
    monkeypatch.setattr("builtins.get_ipython", lambda: None, raising=False)
    seg.show()
    assert shown[2:] == ["notebook"]


def test_a_notebook_shows_a_small_picture_and_a_table():
    seg, _ = some(image=True, labels=["<b>", "door", None])
    page = seg._repr_html_()
    assert "data:image/jpeg;base64," in page and "&lt;b&gt;" in page and "<b>" not in page
    assert page.count("<tr>") == 1 + len(seg)
    assert seg[0]._repr_html_().count("<tr>") == 2
    many = Segmentation((H, W), seg.rles * 20)
    assert len(many._repr_html_()) < 30_000
    assert many._repr_html_().count("<tr>") < 30


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("bbox", "boxes"),
        ("conf", "scores"),
        ("names", r"class_names\(\)"),
        ("orig_img", "image"),
        ("path", "photo.source"),
        ("to_df", r"to_pandas\(\)"),
        ("xy", "polygons"),
        ("cpu", "masks_tensor"),
        ("save_txt", "save"),
        ("segmentation", "masks"),
        ("predicted_iou", "iou"),
        ("other", "It has .*boxes.*masks.*scores"),
    ],
)
def test_names_of_other_libraries_say_what_to_type(name, advice):
    seg, _ = some()
    with pytest.raises(AttributeError, match=f"no attribute '{name}'. .*{advice}"):
        getattr(seg, name)
    assert not hasattr(seg, name)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("bbox", "box"),
        ("segmentation", "mask"),
        ("conf", "score"),
        ("masks", "mask"),
        ("to_coco", "result"),
    ],
)
def test_names_of_one_mask_say_what_to_type(name, advice):
    with pytest.raises(AttributeError, match=f"no attribute '{name}'. Type: {advice}"):
        getattr(some()[0][0], name)


def test_what_is_not_there_says_what_is():
    seg, _ = some()
    with pytest.raises(IndexError, match="got position 5; there are 3 masks, 0 to 2"):
        seg[5]
    with pytest.raises(
        IndexError, match=r"position 0; there is no mask \(12x17: .*'cat' \(0.10\)\)"
    ):
        seg["cat"][0]
    with pytest.raises(KeyError, match=r"no label 'whel'.*Type: result\['wheel'\]"):
        seg["whel"]
    with pytest.raises(KeyError, match=r"no label 'dog'.*segment\(text=\['wheel', 'cat'.*'dog'\]"):
        seg["dog"]
    with pytest.raises(KeyError, match=r"Type: result\.masks"):
        seg["masks"]
    with pytest.raises(IndexError, match=r"wanted a position\. Type: result\['wheel'\].crop\(0\)"):
        seg.crop("wheel")
    with pytest.raises(KeyError, match="these masks have none"):
        Segmentation((H, W), encode_masks(np.zeros((1, H, W), bool)))["dog"]


@given(st.integers(-6, 5))
@settings(max_examples=12, deadline=None)
def test_positions_are_those_of_a_list(index):
    seg, _ = some(3)
    numbers = list(range(3))
    if -3 <= index < 3:
        assert seg[index].rle == seg.rles[numbers[index]]
    else:
        with pytest.raises(IndexError):
            seg[index]


@given(st.integers(0, 10**6), st.sampled_from([0.35, 0.6, 0.8]))
@settings(max_examples=25, deadline=None)
def test_geojson_keeps_holes_and_parts(seed, share):
    """Filled part by part, without its holes, it is the mask again."""
    mask = np.random.default_rng(seed).random((9, 11)) < share
    collection = json.loads(json.dumps(Segmentation.from_masks(mask[None]).to_geojson()))
    [feature] = collection["features"]
    assert feature["properties"] == {"label": None, "area": int(mask.sum())}
    kind, places = feature["geometry"]["type"], feature["geometry"]["coordinates"]
    parts = [places] if kind == "Polygon" else places
    filled = np.zeros(mask.shape, int)
    for part in parts:
        assert all(ring[0] == ring[-1] for ring in part)
        inside = [rings_to_mask([np.array(ring[:-1])], mask.shape) for ring in part]
        filled += inside[0].astype(int) - sum(hole.astype(int) for hole in inside[1:])
    np.testing.assert_array_equal(filled, mask)


def rings_to_mask(rings, size):
    """Even-odd at the centres of pixels, one by one."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]] + 0.5
    inside = np.zeros(size, bool)
    for ring in rings:
        for (x0, y0), (_, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            inside ^= (x < x0) & ((y0 > y) != (y1 > y))  # edges are vertical or horizontal
    return inside


def test_geojson_is_read_by_geopandas():
    geopandas = pytest.importorskip("geopandas")
    seg, _ = some(iou=[0.5, math.nan, 1.0])
    frame = geopandas.GeoDataFrame.from_features(seg.to_geojson())
    assert frame["label"].tolist() == seg.labels and frame.is_valid.all()
    np.testing.assert_allclose(frame.area, seg.areas)
    np.testing.assert_allclose(frame.bounds, seg.boxes)
    rough = geopandas.GeoDataFrame.from_features(seg.to_geojson(tolerance=1))
    assert rough.geometry.count_coordinates().sum() < frame.geometry.count_coordinates().sum()
    empty = Segmentation((3, 4), encode_masks(np.zeros((1, 3, 4), bool))).to_geojson()
    assert empty["features"][0]["geometry"] is None
    assert Segmentation((3, 4), []).to_geojson() == {"type": "FeatureCollection", "features": []}


def test_coco_has_ids_by_default():
    seg, _ = some(3)  # wheel, door, wheel; asked for: wheel, cat
    assert [a["category_id"] for a in seg.to_coco()] == [1, 3, 1]
    assert [a["id"] for a in seg.to_coco(first_id=5)] == [5, 6, 7]
    assert seg.to_coco(image_id=4, categories={"wheel": 8, "door": 9}) == interop.to_coco(
        seg, image_id=4, categories={"wheel": 8, "door": 9}
    )
    assert [a["category_id"] for a in some(2, labels=None, presence=None)[0].to_coco()] == [1, 1]
    with pytest.raises(ValueError, match="mask 1 has label None"):
        some(2, labels=["wheel", None])[0].to_coco()
    assert seg[:0].to_coco() == []
    json.dumps(seg.to_coco(image_id=np.int64(3), polygons=True))
