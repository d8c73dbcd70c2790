"""Public sets in the folders in which they are given out, on miniatures of them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from textsam.errors import ImageError
from textsam.values.rle import decode_rle
from training.data import Sample, Source, open_source
from training.data.public.ade20k import read_object_info
from training.data.public.voc import VOC_NAMES

from . import public_sets as made
from .public_sets import BEDS, CLASSES, NUMBERS, SCENE, VOID


def _open(spec: str) -> Source:
    source = open_source(spec)
    assert isinstance(source, Source)
    return source


def _masks(sample: Sample) -> list[np.ndarray]:
    return [decode_rle(o.rle) for o in sample.objects]


def _check(sample: Sample, masks: list[np.ndarray], void: np.ndarray) -> None:
    assert len(sample.objects) == len(masks)
    for found, wanted in zip(_masks(sample), masks, strict=True):
        np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(sample.void_mask(), void)
    assert sample.image().shape == (*made.SIZE, 3)


NOTHING = np.zeros(made.SIZE, bool)


@pytest.mark.parametrize("place", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_voc_objects(tmp_path: Path, place: str) -> None:
    source = _open(f"voc:{made.voc(tmp_path) / place}?split=val")

    assert [s.image_id for s in (source[0], source[1])] == ["2007_000033", "2007_000042"]
    assert len(source) == 2 and source.name == "voc_val"  # type: ignore[attr-defined]
    _check(source[0], [NUMBERS == 1, NUMBERS == 2], VOID > 0)
    flipped = NUMBERS[:, ::-1]
    _check(source[1], [flipped == 1, flipped == 2], VOID[:, ::-1] > 0)
    for sample in (source[0], source[1]):
        assert [(o.label, o.kind, o.ignore) for o in sample.objects] == [
            ("person", "thing", False),
            ("sheep", "thing", False),
        ]
        assert sample.exhaustive


def test_voc_classes(tmp_path: Path) -> None:
    root = made.voc(tmp_path)
    classes = np.where(VOID, VOID, np.where(CLASSES == 17, 15, CLASSES)).astype(np.uint8)
    made.picture(root / "VOCdevkit/VOC2012/SegmentationClass/2007_000033.png", classes)
    sample = _open(f"voc:{root}?masks=class")[0]

    _check(sample, [classes == 15], VOID > 0)
    assert [o.label for o in sample.objects] == ["person"] and sample.exhaustive


def test_an_object_has_the_class_of_most_of_its_pixels(tmp_path: Path) -> None:
    root = made.voc(tmp_path)
    classes = np.where(NUMBERS == 1, 3, 0).astype(np.uint8)  # object 1 is a bird ...
    classes[0] = 12  # ... but for a row of a dog,
    classes[2:][NUMBERS[2:] == 2] = 255  # and object 2 a dog where it is not void
    classes[1][NUMBERS[1] == 2] = 12
    made.picture(root / "VOCdevkit/VOC2012/SegmentationClass/2007_000033.png", classes)

    assert [o.label for o in _open(f"voc:{root}")[0].objects] == ["bird", "dog"]


def test_voc_has_its_twenty_names(tmp_path: Path) -> None:
    # The numbers of the development kit, which the colour map of the pictures follows.
    assert len(VOC_NAMES) == 20 and list(VOC_NAMES[:4]) == ["aeroplane", "bicycle", "bird", "boat"]
    assert [VOC_NAMES[n - 1] for n in (11, 15, 16, 20)] == [
        *("dining table", "person", "potted plant", "tv monitor"),
    ]
    assert _open(f"voc:{made.voc(tmp_path)}").labels == VOC_NAMES  # type: ignore[attr-defined]


@pytest.mark.parametrize("place", ["", "benchmark_RELEASE", "benchmark_RELEASE/dataset"])
@pytest.mark.parametrize("masks", ["object", "class"])
def test_sbd(tmp_path: Path, place: str, masks: str) -> None:
    source = _open(f"sbd:{made.sbd(tmp_path) / place}?split=val&masks={masks}")

    assert [source[i].image_id for i in range(len(source))] == ["2008_000003", "2008_000002"]
    _check(source[0], [NUMBERS == 1, NUMBERS == 2], NOTHING)
    assert [o.label for o in source[0].objects] == ["person", "sheep"]
    assert source[0].exhaustive


def test_sbd_refuses_an_object_without_a_category(tmp_path: Path) -> None:
    inst = made.sbd(tmp_path) / "benchmark_RELEASE/dataset/inst"
    for name, categories in (("2008_000003", [15]), ("2008_000002", [15, 21])):
        truth = {"Segmentation": NUMBERS, "Categories": np.array([categories]).T}
        savemat(inst / f"{name}.mat", {"GTinst": truth})
    source = _open(f"sbd:{tmp_path}")
    for index in range(2):
        with pytest.raises(ImageError, match=r"numbers objects \[1, 2\].*category in 1\.\.20"):
            source[index]
    savemat(inst / "2008_000003.mat", {"GTinst": {"Segmentation": NUMBERS}})
    with pytest.raises(ImageError, match="wanted the field 'Categories'"):
        source[0]


def test_davis_numbers_objects_in_2017_and_joins_them_in_2016(tmp_path: Path) -> None:
    root = made.davis(tmp_path)
    for place in (root, root / "DAVIS"):
        later = _open(f"davis:{place}?year=2017&resolution=480p&split=val")
        assert [later[i].image_id for i in range(len(later))] == ["goat/00000", "goat/00001"]
        _check(later[1], [NUMBERS == 1, NUMBERS == 2], NOTHING)
        first = _open(f"davis:{place}?year=2016")
        _check(first[1], [NUMBERS > 0], NOTHING)
        assert [o.label for o in first[0].objects] == ["object"] and not first[0].exhaustive
    assert (later.name, first.name) == ("davis2017_val", "davis2016_val")  # type: ignore[attr-defined]


def test_davis_2017_has_void_and_frames_without_an_object(tmp_path: Path) -> None:
    truths = made.davis(tmp_path) / "DAVIS/Annotations/480p/goat"
    made.picture(truths / "00000.png", np.where(VOID, VOID, NUMBERS), palette=True)
    made.picture(truths / "00001.png", NUMBERS * 0, palette=True)

    _check(_open(f"davis:{tmp_path}")[0], [NUMBERS == 1, NUMBERS == 2], VOID > 0)
    for year in (2016, 2017):
        _check(_open(f"davis:{tmp_path}?year={year}")[1], [], NOTHING)


def test_davis_2016_is_not_taken_for_2017(tmp_path: Path) -> None:
    root = made.davis(tmp_path)
    truth = root / "DAVIS/Annotations/480p/goat/00000.png"
    made.picture(truth, ((NUMBERS > 0) * 255).astype(np.uint8))

    with pytest.raises(ImageError, match="Type year=2016"):
        _open(f"davis:{root}?year=2017")[0]
    _check(_open(f"davis:{root}?year=2016")[0], [NUMBERS > 0], NOTHING)


def test_davis_2016_has_lists_of_frames_in_its_first_edition(tmp_path: Path) -> None:
    lists = made.davis(tmp_path) / "DAVIS/ImageSets"
    (lists / "2016/val.txt").unlink()
    (lists / "480p").mkdir()
    line = "/JPEGImages/480p/{0}/{1}.jpg /Annotations/480p/{0}/{1}.png\n"
    text = "".join(line.format(s, f) for s in ("goat", "dance") for f in ("00000", "00001"))
    (lists / "480p/val.txt").write_text(text)

    source = _open(f"davis:{tmp_path}?year=2016")

    assert [source[i].image_id for i in range(len(source))] == [
        *("goat/00000", "goat/00001", "dance/00000", "dance/00001"),
    ]


def test_davis_of_the_interactive_field(tmp_path: Path) -> None:
    source = _open(f"davis:{made.frames(tmp_path)}")

    assert [source[i].image_id for i in range(len(source))] == ["bear_00012", "bus_00003"]
    _check(source[0], [NUMBERS > 0], NOTHING)
    with pytest.raises(ValueError, match=r"345 frames .* which have no split, year"):
        open_source(f"davis:{tmp_path}?year=2016&split=val")


def test_grabcut(tmp_path: Path) -> None:
    source = _open(f"grabcut:{made.grabcut(tmp_path)}")

    assert [source[i].image_id for i in range(len(source))] == ["106024", "banana1"]
    for index in range(2):
        _check(source[index], [NUMBERS == 1], VOID > 0)
        assert [(o.label, o.kind) for o in source[index].objects] == [("object", "salient")]
        assert not source[index].exhaustive
    (tmp_path / "data_GT").rename(tmp_path / "images")
    (tmp_path / "boundary_GT").rename(tmp_path / "masks")
    assert _open(f"grabcut:{tmp_path}")[0].image_id == "106024"


@pytest.mark.parametrize(
    ("value", "message"), [(64, "lasso masks, which are input"), (200, "wanted 0, 128")]
)
def test_grabcut_refuses_other_values(tmp_path: Path, value: int, message: str) -> None:
    mask = made.grabcut(tmp_path) / "boundary_GT/banana1.bmp"
    made.picture(mask, np.where(NUMBERS == 2, value, 255).astype(np.uint8))
    with pytest.raises(ImageError, match=message):
        _open(f"grabcut:{tmp_path}")[1]
    made.picture(mask, np.stack([NUMBERS, NUMBERS * 0, NUMBERS], axis=-1))
    with pytest.raises(ImageError, match="has colours"):
        _open(f"grabcut:{tmp_path}")[1]


def test_berkeley(tmp_path: Path) -> None:
    source = _open(f"berkeley:{made.berkeley(tmp_path)}")

    assert [source[i].image_id for i in range(len(source))] == ["12003", "24077#1", "3063"]
    _check(source[0], [NUMBERS == 1], NOTHING)
    _check(source[1], [NUMBERS == 2], NOTHING)
    _check(source[2], [NUMBERS == 1, NUMBERS == 2], NOTHING)


def test_photos_and_masks_must_belong_together(tmp_path: Path) -> None:
    root = made.berkeley(tmp_path)
    (root / "masks/12003.png").unlink()
    with pytest.raises(ImageError, match=r"there is no mask .*masks/12003\.png"):
        _open(f"berkeley:{root}")[0]
    made.picture(root / "masks/3063#3.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(ImageError, match="masks of '3063' have the sizes"):
        _open(f"berkeley:{root}")[2]
    made.picture(root / "masks/404#1.png", NUMBERS)
    with pytest.raises(ValueError, match=r"no photo for .*404#1\.png"):
        open_source(f"berkeley:{root}")
    made.photo(root / "images/12003.bmp")
    with pytest.raises(ValueError, match="two photos '12003'"):
        open_source(f"berkeley:{root}")


@pytest.mark.parametrize("place", ["", "ADEChallengeData2016"])
def test_ade20k_scene_classes(tmp_path: Path, place: str) -> None:
    source = _open(f"ade20k:{made.ade20k(tmp_path) / place}?split=validation")

    assert [source[i].image_id for i in range(len(source))] == [
        *("ADE_val_00000001", "ADE_val_00000002"),
    ]
    _check(source[0], [SCENE == 1, SCENE == 4, SCENE == 8], SCENE == 0)
    assert [o.label for o in source[0].objects] == ["wall", "floor", "bed"]
    assert source[0].exhaustive
    assert source.labels == ("wall", "floor", "bed", "water")  # type: ignore[attr-defined]
    training = _open(f"ade20k:{tmp_path}?split=training")
    assert training[0].image_id == "ADE_train_00000001"


def test_ade20k_instances(tmp_path: Path) -> None:
    sample = _open(f"ade20k:{made.ade20k(tmp_path)}?masks=object")[0]

    _check(sample, [BEDS == 3, BEDS == 9], NOTHING)
    assert [o.label for o in sample.objects] == ["bed", "bed"]
    assert not sample.exhaustive


def test_ade20k_names(tmp_path: Path) -> None:
    path = tmp_path / "objectInfo150.txt"
    path.write_text(
        "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1\t5\t4\t1\twall\n2\t0.1\t5\t4\t0\tscreen;door\n"
        "3\t0.1\t5\t4\t0\tscreen, silver screen\n\n"
    )
    assert read_object_info(path) == (
        {1: "wall", 2: "screen, door", 3: "screen, silver screen"},
        {1: "stuff", 2: "thing", 3: "thing"},
    )
    for text, message in (("Name\nwall\n", "columns"), ("Idx\tName\nx\twall\n", "no number")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_object_info(path)


def test_ade20k_refuses_what_has_no_name(tmp_path: Path) -> None:
    folder = made.ade20k(tmp_path) / "ADEChallengeData2016/annotations/validation"
    made.picture(folder / "ADE_val_00000001.png", np.full(made.SIZE, 77, np.uint8))
    with pytest.raises(ImageError, match=r"holds \[77\]; wanted 0\.\.22"):
        _open(f"ade20k:{tmp_path}")[0]
    with pytest.raises(ImageError, match=r"object 3 lies where .* \[77\], none of which"):
        _open(f"ade20k:{tmp_path}?masks=object")[0]


MISSING: list[tuple[Callable[[Path], Path], str, str, str]] = [
    # what, the file or folder that is taken away, options, what is said
    (
        made.voc,
        "VOCdevkit/VOC2012/SegmentationObject",
        "",
        "no folder .*SegmentationObject; beside",
    ),
    (made.voc, "VOCdevkit/VOC2012/JPEGImages", "", "looked in .* for the folders JPEGImages"),
    (made.voc, "", "?split=test", r"no list .*test\.txt; for split= there are train, val"),
    (made.sbd, "benchmark_RELEASE/dataset/inst", "", "for the folders img, inst"),
    (made.sbd, "", "?split=dev", r"no list .*dev\.txt; for split= there are val"),
    (made.davis, "", "?resolution=1080p", "no folder .*1080p; beside it are 480p"),
    (made.davis, "", "?split=train", r"no list .*2017/train\.txt; for split= there are val"),
    (made.davis, "DAVIS/JPEGImages/480p/goat", "", "no folder .*goat; beside it are dance"),
    (made.davis, "DAVIS/ImageSets", "", "for the folders JPEGImages, Annotations, ImageSets"),
    (made.grabcut, "boundary_GT", "", r"images, masks.*\(data_GT/ and boundary_GT/ or images/"),
    (made.berkeley, "images", "", "for the folders images, masks"),
    (made.ade20k, "", "?split=testing", "no folder .*testing; beside it are training, validation"),
    (made.ade20k, "ADEChallengeData2016/objectInfo150.txt", "", "no .*objectInfo150"),
    (
        *(made.ade20k, "ADEChallengeData2016/annotations_instance", "?masks=object"),
        "no folder .*annotations_instance/validation",
    ),
]


@pytest.mark.parametrize(("make", "gone", "options", "message"), MISSING)
def test_what_is_not_there_is_named(
    tmp_path: Path, make: Callable[[Path], Path], gone: str, options: str, message: str
) -> None:
    root = make(tmp_path / "set")
    assert len(_open(f"{make.__name__}:{root}")) > 0  # it is whole until something is gone
    if gone:
        (root / gone).rename(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=message):
        open_source(f"{make.__name__}:{root}{options}")
    with pytest.raises(OSError, match=r"no folder .*nowhere|looked in .*nowhere"):
        open_source(f"{make.__name__}:{tmp_path / 'nowhere'}")


BROKEN: list[tuple[Callable[[Path], Path], str, str]] = [
    (made.voc, "JPEGImages/2007_000033.jpg", ""),
    (made.voc, "SegmentationClass/2007_000033.png", ""),
    (made.voc, "SegmentationObject/2007_000033.png", ""),
    (made.sbd, "img/2008_000003.jpg", ""),
    (made.sbd, "inst/2008_000003.mat", ""),
    (made.sbd, "cls/2008_000003.mat", "?masks=class"),
    (made.davis, "Annotations/480p/goat/00000.png", ""),
    (made.davis, "Annotations/480p/goat/00000.png", "?year=2016"),
    (made.ade20k, "annotations/validation/ADE_val_00000001.png", ""),
    (made.ade20k, "annotations_instance/validation/ADE_val_00000001.png", "?masks=object"),
    (made.grabcut, "boundary_GT/106024.bmp", ""),
]


@pytest.mark.parametrize(("make", "file", "options"), BROKEN)
def test_a_broken_row_is_named_and_the_others_stay(
    tmp_path: Path, make: Callable[[Path], Path], file: str, options: str
) -> None:
    source = _open(f"{make.__name__}:{make(tmp_path)}{options}")
    (path,) = tmp_path.rglob(file)
    if path.suffix != ".jpg":  # a photo is opened by whoever wants its pixels
        path.write_bytes(b"no picture" * 50)
        with pytest.raises(ImageError, match=f"cannot .*{path.stem}|{path.stem}.* cannot"):
            source[0]
    path.unlink()
    with pytest.raises(ImageError, match=f"there is no .*{path.stem}"):
        source[0]
    assert source[1].objects


def test_pictures_of_two_sizes_are_refused(tmp_path: Path) -> None:
    root = made.voc(tmp_path) / "VOCdevkit/VOC2012"
    made.picture(root / "SegmentationClass/2007_000033.png", np.zeros((3, 3), np.uint8))
    with pytest.raises(ImageError, match=r"is \(6, 8\) .*picture of classes \(3, 3\)"):
        _open(f"voc:{root}")[0]


def test_instances_must_be_in_colour(tmp_path: Path) -> None:
    folder = made.ade20k(tmp_path) / "ADEChallengeData2016/annotations_instance/validation"
    Image.fromarray(BEDS).save(folder / "ADE_val_00000001.png")
    with pytest.raises(ImageError, match="mode L; wanted RGB"):
        _open(f"ade20k:{tmp_path}?masks=object")[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("voc:{}?masks=part", "wanted class or object"),
        ("voc:{}?year=2012", "has no option year; it has name, split, masks"),
        ("davis:{}?year=2018", "wanted 2016 or 2017"),
        ("davis:{}?year=last", "wanted a whole number"),
        ("sbd:", "Type: sbd:BENCHMARK_RELEASE"),
    ],
)
def test_wrong_options_say_what_is_wanted(tmp_path: Path, options: str, message: str) -> None:
    made.davis(made.voc(tmp_path))
    with pytest.raises(ValueError, match=message):
        open_source(options.format(tmp_path))


@pytest.mark.parametrize(
    "make", [made.voc, made.sbd, made.davis, made.grabcut, made.berkeley, made.ade20k]
)
def test_a_source_travels_to_a_worker(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    source = _open(f"{make.__name__}:{make(tmp_path)}?name=mine")
    copy = pickle.loads(pickle.dumps(source))
    assert [copy[i] for i in range(len(copy))] == [source[i] for i in range(len(source))]
    assert source[0].source == "mine"
