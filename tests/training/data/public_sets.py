"""Miniatures of public sets in the folders in which they are given out, 6 x 8 pixels a photo.

Each function writes a set below a folder and returns the folder that its spec names.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

SIZE = (6, 8)


def boxes(*parts: tuple[int, slice, slice]) -> np.ndarray:
    """A label picture, (6, 8) uint8: (value, rows, columns) painted one over the other."""
    values = np.zeros(SIZE, np.uint8)
    for value, rows, columns in parts:
        values[rows, columns] = value
    return values


# VOC and SBD: two objects, a person (15) and a sheep (17), a void column between them.
NUMBERS = boxes((1, slice(0, 4), slice(0, 3)), (2, slice(1, 6), slice(4, 8)))
CLASSES = boxes((15, slice(0, 4), slice(0, 3)), (17, slice(1, 6), slice(4, 8)))
VOID = boxes((255, slice(0, 6), slice(3, 4)))
# ADE20K: wall (1) above floor (4) with two beds (8) on it; the corner is none of the 150.
SCENE = boxes(
    *((1, slice(0, 3), slice(0, 8)), (4, slice(3, 6), slice(0, 8))),
    *((8, slice(4, 6), slice(0, 2)), (8, slice(4, 6), slice(3, 5)), (0, slice(0, 1), slice(7, 8))),
)
BEDS = boxes((3, slice(4, 6), slice(0, 2)), (9, slice(4, 6), slice(3, 5)))
OBJECT_INFO = (
    "Idx\tRatio\tTrain\tVal\tName\n1\t0.1576\t11664\t1172\twall\n"
    "4\t0.0621\t9336\t917\tfloor, flooring\n"
    "8\t0.0231\t1906\t199\tbed \n22 \t0.0074\t709\t75\twater\n"
)


def photo(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(path)


def picture(path: Path, values: np.ndarray, *, palette: bool = False) -> None:
    """A label picture; with `palette` in colours that have nothing to do with the values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette:
        image.putpalette([0, 0, 0, *(np.arange(255 * 3) * 7 % 251 + 1).tolist()])
    image.save(path)


def voc(folder: Path) -> Path:
    root = folder / "VOCdevkit" / "VOC2012"
    for name in ("2007_000033", "2007_000042", "2007_000061"):
        photo(root / "JPEGImages" / f"{name}.jpg")
    for name, flip in (("2007_000033", 1), ("2007_000042", -1)):
        classes, numbers = (np.where(VOID, VOID, p)[:, ::flip] for p in (CLASSES, NUMBERS))
        picture(root / "SegmentationClass" / f"{name}.png", classes, palette=True)
        picture(root / "SegmentationObject" / f"{name}.png", numbers, palette=True)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("2007_000033\n2007_000042\n")
    (lists / "train.txt").write_text("2007_000061\n")
    return folder


def sbd(folder: Path) -> Path:
    root = folder / "benchmark_RELEASE" / "dataset"
    for name in ("2008_000002", "2008_000003"):
        photo(root / "img" / f"{name}.jpg")
        for inside in ("inst", "cls"):
            (root / inside).mkdir(exist_ok=True)
        categories = np.array([[15], [17]], np.uint8)
        inst = {"Segmentation": NUMBERS, "Boundaries": np.zeros((2, 1)), "Categories": categories}
        savemat(root / "inst" / f"{name}.mat", {"GTinst": inst})
        savemat(root / "cls" / f"{name}.mat", {"GTcls": {"Segmentation": CLASSES}})
    (root / "val.txt").write_text("2008_000003\n2008_000002\n")
    return folder


def davis(folder: Path) -> Path:
    """Both years: `goat` has one object or two; the first edition's lists are beside."""
    root = folder / "DAVIS"
    for sequence in ("goat", "dance"):
        for frame in ("00000", "00001"):
            photo(root / "JPEGImages/480p" / sequence / f"{frame}.jpg")
            truth = root / "Annotations/480p" / sequence / f"{frame}.png"
            picture(truth, NUMBERS, palette=True)
    for year in ("2016", "2017"):
        (root / "ImageSets" / year).mkdir(parents=True)
        (root / "ImageSets" / year / "val.txt").write_text("goat\n")
    return folder


def frames(folder: Path) -> Path:
    """The interactive field's form of DAVIS: masks in colour, no sequences."""
    for name in ("bear_00012", "bus_00003"):
        photo(folder / "img" / f"{name}.jpg")
        red = np.stack([NUMBERS * 100, np.zeros_like(NUMBERS), np.zeros_like(NUMBERS)], axis=-1)
        picture(folder / "gt" / f"{name}.png", red)
    return folder


def grabcut(folder: Path) -> Path:
    photo(folder / "data_GT" / "banana1.bmp")
    photo(folder / "data_GT" / "106024.jpg")
    (folder / "data_GT" / "Thumbs.db").write_bytes(b"as in the archive")
    trimap = np.where(VOID, 128, (NUMBERS == 1) * 255).astype(np.uint8)
    for name in ("banana1", "106024"):
        picture(folder / "boundary_GT" / f"{name}.bmp", trimap)
    return folder


def berkeley(folder: Path) -> Path:
    """Two objects in one photo, and a photo that is there once for each of its objects."""
    for name in ("12003", "3063", "24077#1"):
        photo(folder / "images" / f"{name}.jpg")
    first, second = (np.uint8(255) * (number == NUMBERS) for number in (1, 2))
    picture(folder / "masks" / "12003.png", first)
    picture(folder / "masks" / "3063#1.png", first)
    picture(folder / "masks" / "3063#2.png", np.stack([second] * 3, axis=-1))
    picture(folder / "masks" / "24077#1.png", second)
    return folder


def ade20k(folder: Path) -> Path:
    root = folder / "ADEChallengeData2016"
    for split, short in (("training", "train"), ("validation", "val")):
        for number in (1, 2):
            name = f"ADE_{short}_0000000{number}"
            photo(root / "images" / split / f"{name}.jpg")
            picture(root / "annotations" / split / f"{name}.png", SCENE)
            category = (BEDS > 0).astype(np.uint8)  # red: the class in the order of the 100
            channels = np.stack([category, BEDS, np.zeros_like(BEDS)], axis=-1)
            picture(root / "annotations_instance" / split / f"{name}.png", channels)
    (root / "objectInfo150.txt").write_text(OBJECT_INFO)
    return folder
