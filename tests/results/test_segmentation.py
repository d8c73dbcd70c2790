import json
import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from textsam.results.mask_result import MaskResult
from textsam.results.polygons import fill_polygons
from textsam.results.segmentation import Segmentation
from textsam.values.files import PART_SUFFIX, write_atomically
from textsam.values.judge import Candidate, PhraseAnswer
from textsam.values.rle import encode_masks

H, W = 12, 17


def some(count=3, *, seed=0, image=False, **columns):
    rng = np.random.default_rng(seed)
    masks = rng.random((count, H, W)) < 0.4
    columns.setdefault("scores", rng.random(count, dtype=np.float32))
    columns.setdefault("labels", ["wheel", "door", "wheel", None, "roof"][:count])
    columns.setdefault("presence", {"wheel": 0.9, "cat": 0.1})
    photo = rng.integers(0, 256, (H, W, 3), dtype=np.uint8) if image else None
    return Segmentation((H, W), encode_masks(masks), image=photo, **columns), masks


@st.composite
def results(draw):
    count = draw(st.integers(0, 4))
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    bits = draw(
        st.lists(st.booleans(), min_size=count * height * width, max_size=count * height * width)
    )
    masks = np.array(bits, dtype=bool).reshape(count, height, width)
    number = st.one_of(st.just(math.nan), st.floats(-2, 2, width=32))
    column = st.lists(number, min_size=count, max_size=count)
    return Segmentation(
        (height, width),
        encode_masks(masks),
        scores=draw(column),
        iou=draw(column),
        stability=draw(column),
        similarity=draw(column),
        labels=draw(st.lists(st.none() | st.text(max_size=5), min_size=count, max_size=count)),
        presence=draw(st.dictionaries(st.text(max_size=5), st.floats(0, 1), max_size=3)),
    )


# A sequence ------------------------------------------------------------------------------------


def test_indexing_chooses_the_same_as_numpy():
    seg, masks = some(5)
    assert len(seg) == 5
    assert [item.label for item in seg] == seg.labels
    np.testing.assert_array_equal(seg[1].mask, masks[1])
    np.testing.assert_array_equal(seg[-1].mask, masks[-1])
    np.testing.assert_array_equal(seg[np.int64(2)].mask, masks[2])
    for key in (
        slice(1, 4),
        slice(None, None, -2),
        np.array([True, False, True, True, False]),
        np.array([3, 0, -1]),
        np.array([], dtype=np.int64),
    ):
        chosen = seg[key]
        np.testing.assert_array_equal(chosen.masks, masks[key])
        np.testing.assert_array_equal(chosen.scores, seg.scores[key])
        np.testing.assert_array_equal(chosen.boxes, seg.boxes[key])
    assert seg[[3, 0]] == seg[np.array([3, 0])] == seg[torch.tensor([3, 0])]
    assert len(seg[[]]) == 0
    assert seg[[True, False, False, False, False]] == seg[:1]


def test_index_by_label():
    seg, _ = some(5)
    assert seg["wheel"].labels == ["wheel", "wheel"]
    assert len(seg["cat"]) == 0  # asked for, not found
    with pytest.raises(KeyError, match=r"no label 'dog'.*wheel"):
        seg["dog"]


@pytest.mark.parametrize(
    "key",
    [5, -6, np.array([0, 5]), np.array([True]), np.array([0.5]), np.zeros((2, 2), int), None, 1.0],
)
def test_wrong_index_raises(key):
    with pytest.raises(IndexError):
        some(5)[0][key]


def test_single_mask():
    seg, masks = some(3, iou=[0.5, math.nan, 1.0])
    item = seg[0]
    assert isinstance(item, MaskResult)
    assert item.area == masks[0].sum() == seg.areas[0]
    assert item.mask.dtype == bool
    assert item.box.dtype == np.float32
    np.testing.assert_array_equal(item.box, seg.boxes[0])
    assert item.iou == 0.5
    assert math.isnan(item.stability)
    assert item.mask is item.mask
    assert item in seg
    assert repr(some(3, scores=[0.6, 0, 0])[0][0]).startswith(
        "<MaskResult 'wheel' score=0.60 area="
    )


def test_boxes_are_half_open_and_enclose():
    masks = np.zeros((2, H, W), dtype=bool)
    masks[0, 3:5, 2:9] = True
    seg = Segmentation.from_masks(masks)
    np.testing.assert_array_equal(seg.boxes, [[2, 3, 9, 5], [0, 0, 0, 0]])
    np.testing.assert_array_equal(seg.areas, [14, 0])
    np.testing.assert_array_equal(seg.mask, masks.any(0))


@given(results())
@settings(max_examples=30, deadline=None)
def test_types_are_the_same_when_empty(seg):
    for one in (seg, seg[:0]):
        count, size = len(one), one.size
        for name, shape, dtype in (
            ("masks", (count, *size), np.bool_),
            ("mask", size, np.bool_),
            ("boxes", (count, 4), np.float32),
            ("areas", (count,), np.int64),
            ("scores", (count,), np.float32),
            ("iou", (count,), np.float32),
            ("stability", (count,), np.float32),
            ("similarity", (count,), np.float32),
        ):
            array = getattr(one, name)
            assert (array.shape, array.dtype) == (shape, dtype), name
            assert not array.flags.writeable
        assert isinstance(one.labels, list)
        assert isinstance(one.rles, list)
        assert one.presence == seg.presence


def test_masks_are_decoded_once_and_late(monkeypatch):
    from textsam.results import segmentation

    calls = []
    real = segmentation.decode_rles
    monkeypatch.setattr(segmentation, "decode_rles", lambda *a: calls.append(1) or real(*a))
    seg, _ = some(3)
    assert seg.boxes is seg.boxes
    assert not calls
    assert seg.masks is seg.masks
    assert len(calls) == 1


def test_nothing_can_be_changed():
    seg, _ = some(3, image=True)
    seg.labels.append("x")
    seg.presence["x"] = 1.0
    seg.rles.clear()
    assert len(seg) == 3
    assert seg.labels == ["wheel", "door", "wheel"]
    assert "x" not in seg.presence
    for array in (
        seg.masks,
        seg.scores,
        seg.image,
        seg[0].mask,
        pickle.loads(pickle.dumps(seg)).iou,
    ):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(AttributeError):
        seg.scores = np.zeros(3)


def test_is_a_value():
    seg, _ = some(3, image=True)
    same, _ = some(3)
    again = pickle.loads(pickle.dumps(seg.with_image()))
    assert seg == same == again == pickle.loads(pickle.dumps(seg))
    assert hash(seg) == hash(same)
    np.testing.assert_array_equal(again.image, seg.image)
    assert seg != seg[:2]
    assert seg != some(3, seed=1)[0]
    assert seg != "seg"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"scores": [0.5]}, r"scores of shape \(1,\); wanted \(3,\)"),
        ({"iou": [0, 1, math.inf]}, "finite"),
        ({"labels": ["a"]}, "1 labels for 3 masks"),
        ({"labels": "abc"}, "str or None per mask"),
        ({"labels": [1, 2, 3]}, "str or None per mask"),
        ({"presence": {"a": 1.5}}, "presence 1.5 of 'a'"),
        ({"presence": {"a": math.nan}}, "from 0 to 1"),
    ],
)
def test_wrong_columns_raise(columns, message):
    with pytest.raises(ValueError, match=message):
        some(3, **columns)


def test_wrong_sizes_raise():
    seg, _ = some(2)
    with pytest.raises(ValueError, match=r"mask 0 has size \(12, 17\); wanted \(3, 4\)"):
        Segmentation((3, 4), seg.rles)
    with pytest.raises(ValueError, match="not the photo that they were made from"):
        Segmentation((H, W), seg.rles, image=np.zeros((W, H, 3), np.uint8))
    with pytest.raises(ValueError, match="size"):
        Segmentation((0, 4), [])


def test_tensors_are_taken():
    masks = torch.zeros(1, 4, 5, dtype=torch.bool)
    masks[0, 1, 2] = True
    scores = torch.tensor([0.5], dtype=torch.bfloat16, requires_grad=True)
    seg = Segmentation.from_masks(masks, scores=scores)
    assert seg.scores.tolist() == [0.5]
    assert seg.areas.tolist() == [1]


def answered(seg, phrase="wheel", **values):
    """An answer that considered every mask of a result."""
    candidates = tuple(Candidate(rle=rle, score=0.5) for rle in seg.rles)
    return PhraseAnswer(phrase=phrase, strategy="auto", candidates=candidates, **values)


def test_a_mask_knows_its_photo():
    known = {"iou": [0.5] * 3, "stability": [0.5] * 3}
    seg, _ = some(3, image=True, **known)
    bare, _ = some(3, **known)
    for item in (
        seg[0],
        seg[1:][0],
        seg.top(1)[0],
        pickle.loads(pickle.dumps(seg.with_image()))[0],
    ):
        np.testing.assert_array_equal(item.image, seg.image)
        assert not item.image.flags.writeable
    assert np.shares_memory(seg[0].image, seg.image)  # a photo of 12 megapixels is 36 MB
    assert bare[0].image is None
    assert seg[0] == bare[0]
    assert hash(seg[0]) == hash(bare[0])
    assert "array" not in repr(seg[0])


def test_answers_stay_with_what_is_chosen():
    plain, _ = some(4)
    answers = (answered(plain), answered(plain, "cat"))
    seg = Segmentation(
        plain.size, plain.rles, labels=plain.labels, presence=plain.presence, answers=answers
    )
    for kept in (
        seg[1:],
        seg[[True, False, False, False]],
        seg["wheel"],
        seg["cat"],
        seg.filter(min_area=10**6),
        seg.top(1),
        seg.merge(),
        Segmentation.concatenate([seg[:2], seg[2:]]),  # each once
        Segmentation.concatenate([plain, seg]),
    ):
        assert kept.answers == answers
    other = answered(plain, "door")
    joined = Segmentation.concatenate([seg, Segmentation(plain.size, [], answers=[other])])
    assert joined.answers == (*answers, other)
    again = pickle.loads(pickle.dumps(seg[:1])).answers
    assert [answer.phrase for answer in again] == ["wheel", "cat"]
    assert again[0].candidates[3].rle == seg.rles[3]


def test_answers_are_no_part_of_the_value(tmp_path):
    plain, _ = some(3)
    seg = Segmentation.concatenate([plain, Segmentation(plain.size, [], answers=[answered(plain)])])
    assert len(seg.answers) == 1
    assert seg == plain
    for suffix in (".json", ".npz"):
        loaded = Segmentation.load(seg.save(tmp_path / f"a{suffix}"))
        assert loaded == plain
        assert loaded.answers == ()


def test_answers_about_another_image_raise():
    plain, _ = some(2)
    with pytest.raises(
        ValueError, match=r"about 'wheel' with a mask of \(12, 17\); wanted \(3, 4\)"
    ):
        Segmentation((3, 4), [], answers=[answered(plain)])


# Choosing --------------------------------------------------------------------------------------


def test_top_orders_and_puts_unknown_last():
    seg, _ = some(4, scores=[0.2, math.nan, 0.9, 0.2])
    assert seg.top(2).scores.tolist() == pytest.approx([0.9, 0.2])
    assert seg.top(9)[3].rle == seg[1].rle
    assert seg.top(4)[1].rle == seg[0].rle  # equal ones keep their order
    assert len(seg.top(0)) == 0
    assert seg.top(1, by="areas").areas[0] == seg.areas.max()
    with pytest.raises(ValueError, match="k=-1"):
        seg.top(-1)


def test_filter():
    seg, _ = some(4, scores=[0.2, math.nan, 0.9, 0.5], iou=[1, 1, 0, 1])
    assert seg.filter(min_score=0.5) == seg[[2, 3]]
    assert seg.filter(min_score=0.5, min_iou=0.5) == seg[[3]]
    assert seg.filter() == seg
    assert seg.filter(min_area=10**6).masks.shape == (0, H, W)


def test_concatenate_and_merge():
    seg, masks = some(5)
    other, _ = some(
        2, seed=3, labels=["cat", "wheel"], presence={"cat": 0.6, "wheel": 0.2}, image=True
    )
    both = Segmentation.concatenate([seg, other])
    assert both[:5].rles == seg.rles
    assert both[5:].rles == other.rles
    assert both.presence == {"wheel": 0.9, "cat": 0.6}
    assert both.image is not None
    assert Segmentation.concatenate([seg]) == seg
    assert len(Segmentation.concatenate([seg[:0], seg[:0]])) == 0

    merged = seg.merge()
    assert merged.labels == ["wheel", "door", None, "roof"]
    np.testing.assert_array_equal(merged["wheel"].masks[0], masks[0] | masks[2])
    assert merged["wheel"].scores[0] == max(seg.scores[0], seg.scores[2])
    np.testing.assert_array_equal(merged.mask, seg.mask)
    assert math.isnan(Segmentation((H, W), seg.rles).merge().scores[0])
    assert len(seg[:0].merge()) == 0

    for parts in ([], [seg, Segmentation((3, 4), [])]):
        with pytest.raises(ValueError, match="results of one image"):
            Segmentation.concatenate(parts)


def test_label_map():
    masks = np.zeros((3, 4, 6), dtype=bool)
    masks[0, 1:3, 1:3] = True  # small, inside the large one, seen all the same
    masks[1] = True
    masks[1, 0] = False
    masks[2, 0, 0] = True
    seg = Segmentation.from_masks(masks, labels=["a", "b", "a"])
    by_mask, by_label = seg.label_map(), seg.label_map(by="label")
    assert by_mask[1, 1] == 1
    assert by_mask[3, 5] == 2
    assert by_mask[0, 0] == 3
    assert by_mask[0, 5] == 0
    assert by_label[0, 0] == by_label[1, 1] == 1
    assert by_label[3, 5] == 2
    with pytest.raises(ValueError, match="has no label"):
        Segmentation.from_masks(masks).label_map(by="label")


def test_repr_says_what_matters():
    seg, _ = some(3, scores=[0.96, 0.8, 0.91])
    expected = "<Segmentation 12x17: 'wheel' x2 (0.96, 0.91), 'door' x1 (0.80); no 'cat' (0.10)>"
    assert repr(seg) == expected
    assert repr(Segmentation((3, 4), [])) == "<Segmentation 3x4: no masks>"
    assert (
        repr(some(2, labels=None, scores=None, presence={})[0])
        == "<Segmentation 12x17: unlabelled x2>"
    )


# Files -----------------------------------------------------------------------------------------


@given(seg=results())
@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_save_and_load_round_trip(tmp_path_factory, suffix, seg):
    path = tmp_path_factory.mktemp("round") / f"seg{suffix}"
    assert seg.save(path) == path
    assert Segmentation.load(path) == seg
    first = path.read_bytes()
    seg.save(path)
    assert path.read_bytes() == first


def test_json_is_coco_inside(tmp_path):
    from pycocotools import mask as coco

    seg, masks = some(2, iou=[math.nan, 0.1])
    seg.save(tmp_path / "a.json")
    data = json.loads((tmp_path / "a.json").read_text())
    assert (data["format"], data["version"], data["size"]) == ("textsam.segmentation", 1, [H, W])
    assert data["masks"][0]["iou"] is None
    assert data["masks"][1]["iou"] == 0.1
    np.testing.assert_array_equal(coco.decode(data["masks"][1]["rle"]), masks[1])
    assert data["masks"][0]["area"] == masks[0].sum()
    assert data == seg.to_dict()


def test_files_without_similarity_are_read(tmp_path):
    seg, _ = some(2, similarity=[0.5, math.nan])
    data = seg.to_dict()
    assert [mask.pop("similarity") for mask in data["masks"]] == [0.5, None]
    (tmp_path / "a.json").write_text(json.dumps(data))
    assert np.isnan(Segmentation.load(tmp_path / "a.json").similarity).all()
    with np.load(seg.save(tmp_path / "a.npz")) as file:
        np.savez(tmp_path / "b.npz", **{k: v for k, v in file.items() if k != "similarity"})
    assert np.isnan(Segmentation.load(tmp_path / "b.npz").similarity).all()


def test_npz_needs_no_textsam(tmp_path):
    seg, masks = some(3)
    with np.load(seg.save(tmp_path / "a.npz"), allow_pickle=False) as file:
        h, w = file["size"]
        bits = np.unpackbits(file["masks"], axis=1, count=h * w).reshape(-1, h, w)
    np.testing.assert_array_equal(bits.astype(bool), masks)


def test_load_refuses_what_it_cannot_read(tmp_path):
    seg, _ = some(2)
    good = seg.to_dict()
    bad = {
        "a.png": b"",
        "empty.json": b"",
        "coco.json": b'{"annotations": []}',
        "list.json": b"[1]",
        "new.json": json.dumps({**good, "version": 2}).encode(),
        "keys.json": json.dumps({**good, "masks": [{"label": "a"}]}).encode(),
        "kinds.json": json.dumps({**good, "masks": 3}).encode(),
        "size.json": json.dumps({**good, "size": [3, 3]}).encode(),
        "half.json": (json.dumps(good))[:-9].encode(),
        "binary.json": b"\xff\xfe\x00",
        "empty.npz": b"",
        "half.npz": seg.save(tmp_path / "x.npz").read_bytes()[:300],
    }
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match="cannot load") as caught:
            Segmentation.load(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(FileNotFoundError):
        Segmentation.load(tmp_path / "none.json")


@pytest.mark.parametrize("at", [5, 40, 400, -200, -60, -1])
def test_a_damaged_npz_never_gives_another_result(tmp_path, at):
    seg, _ = some(3)
    data = bytearray(seg.save(tmp_path / "a.npz").read_bytes())
    data[at] ^= 0xFF
    (tmp_path / "a.npz").write_bytes(data)
    try:
        again = Segmentation.load(tmp_path / "a.npz")
    except ValueError:
        return
    assert again == seg  # the flipped bit was in a field that nobody reads, such as a date


def test_pictures_by_suffix(tmp_path):
    seg, masks = some(3, image=True)
    for name, fmt, mode in (
        ("a.png", "PNG", "RGB"),
        ("a.JPG", "JPEG", "RGB"),
        ("a.jpeg", "JPEG", "RGB"),
        ("a.webp", "WEBP", "RGB"),
    ):
        with Image.open(seg.save(tmp_path / name)) as picture:
            assert (picture.format, picture.mode, picture.size) == (fmt, mode, (W, H))
    with Image.open(seg.save(tmp_path / "cut.png", kind="cutout")) as picture:
        rgba = np.asarray(picture)
    np.testing.assert_array_equal(rgba[..., 3] == 255, masks.any(0))
    np.testing.assert_array_equal(rgba[masks.any(0), :3], seg.image[masks.any(0)])
    for suffix in (".png", ".webp"):
        with Image.open(seg.save(tmp_path / f"m{suffix}", kind="mask")) as picture:
            np.testing.assert_array_equal(np.asarray(picture.convert("L")) > 0, masks.any(0))
    for kind, by in (("instances", "mask"), ("classes", "label")):
        with Image.open(seg.save(tmp_path / "n.png", kind=kind)) as picture:
            np.testing.assert_array_equal(np.asarray(picture), seg.label_map(by=by))
    with Image.open(seg.save(tmp_path / "c.png", kind="compare")) as picture:
        assert picture.size[0] > 2 * W


def test_save_refuses_what_makes_no_sense(tmp_path):
    seg, _ = some(3, image=True)
    for name, options, message in (
        ("a.bmp", {}, r"suffix.*\.png.*\.json, \.npz, \.geojson, \.txt"),
        ("a", {}, "suffix"),
        ("a.json", {"kind": "mask"}, "kinds are for pictures"),
        ("a.png", {"names": ["x"]}, r"\.txt"),
        ("a.jpg", {"kind": "cutout"}, "no transparency"),
        ("a.jpg", {"kind": "instances"}, "blurs"),
        ("a.webp", {"kind": "classes"}, "no palette"),
        ("a.png", {"kind": "cutuot"}, "wanted one of"),
        ("a.png", {"image": np.zeros((5, 4, 3), np.uint8)}, "not the photo"),
    ):
        with pytest.raises(ValueError, match=message):
            seg.save(tmp_path / name, **options)
    with pytest.raises(FileNotFoundError, match="mkdir -p"):
        seg.save(tmp_path / "no" / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_a_result_without_its_photo(tmp_path):
    seg, _ = some(2)
    with pytest.raises(ValueError, match=r'plot\("photo.jpg"\)'):
        seg.plot()
    photo = np.full((H, W, 3), 200, np.uint8)
    assert seg.plot(photo).size == (W, H)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    seg.save(tmp_path / "a.json")
    loaded = Segmentation.load(tmp_path / "a.json", image=tmp_path / "photo.png")
    assert loaded.plot().tobytes() == seg.plot(photo).tobytes()
    assert seg._repr_html_().startswith("<img")
    assert Segmentation((2000, 10), [])._repr_html_().startswith("<img")
    three_high = Segmentation((3, 4), [])
    assert three_high.plot(np.zeros((3, 4, 3), np.uint8)).size == (4, 3)


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    some(1)[0].save(path)
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        some(3)[0].save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    monkeypatch.undo()
    (tmp_path / f".x{PART_SUFFIX}").write_bytes(b"")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask():
    import os

    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("label", ["a\ud800b", "a\0b", np.str_("cat"), " \u200b", "Größe\n"])
@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_labels_of_any_text_come_back(tmp_path, label, suffix):
    seg = Segmentation.from_masks(np.ones((1, 4, 5), bool), labels=[label])
    (read,) = Segmentation.load(seg.save(tmp_path / f"a{suffix}")).labels
    assert read == label and type(seg.labels[0]) is str


@pytest.mark.parametrize("name", ["a\0b.json", "a\ud800.json"])
def test_a_name_that_is_no_text_is_said(tmp_path, name):
    with pytest.raises(ValueError, match="the name holds a NUL or half a character"):
        Segmentation.from_masks(np.ones((1, 4, 5), bool)).save(tmp_path / name)


def test_a_name_in_another_encoding_can_be_written(tmp_path):
    """Linux has names that are no UTF-8; Python shows their bytes as halves of characters."""
    seg = Segmentation.from_masks(np.ones((1, 4, 5), bool))
    name = os.fsdecode(b"caf\xe9.json")
    assert len(Segmentation.load(seg.save(tmp_path / name))) == 1


def test_yolo_text(tmp_path):
    masks = np.zeros((3, 10, 20), dtype=bool)
    masks[0, 2:4, 5:10] = True
    masks[1, 5:9, 0:8] = True
    masks[1, 6:8, 3:5] = False  # a hole
    seg = Segmentation.from_masks(masks, labels=["b", "a", "b"], presence={"a": 1, "b": 1})
    path = seg.save(tmp_path / "a.txt")
    lines = [line.split() for line in path.read_text().splitlines()]
    assert [line[0] for line in lines] == ["1", "0"]  # as asked for; the empty mask is left out
    # The numbers of the outermost pixels, 5 to 9 and 2 to 3, and a quarter that readers cut.
    corners = {(float(x), float(y)) for x, y in zip(lines[0][1::2], lines[0][2::2], strict=True)}
    assert corners == {(0.2625, 0.225), (0.4625, 0.225), (0.4625, 0.325), (0.2625, 0.325)}
    ring = np.array(lines[1][1:], dtype=np.float64).reshape(-1, 2) * [20, 10]
    np.testing.assert_array_equal(fill_polygons([ring], (10, 20), centres=True), masks[1])

    assert seg.save(path, names=["x", "b", "a"]).read_text()[0] == "1"
    with pytest.raises(ValueError, match="label 'b'; wanted one of the class names"):
        seg.save(path, names=["a"])
    assert seg[:0].save(path).read_text() == ""
    assert Segmentation.from_masks(masks).save(path).read_text().startswith("0 ")
    with pytest.raises(ValueError, match="None"):
        Segmentation.from_masks(masks, labels=["a", None, "a"]).save(path)


def test_module_imports_are_light():
    import subprocess
    import sys

    code = (
        "import sys, textsam.results.segmentation; "
        "print('torch' in sys.modules, 'rich' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert out.stdout.split() == ["False", "False"], out.stderr
