"""PASCAL VOC 2012 and SBD, which annotates 11,355 photos of it anew.

Sources: Everingham et al., IJCV 2010; Hariharan et al., ICCV 2011. VOC writes its names without
spaces ("pottedplant"); here they get them, for a name is also a phrase that a model is asked with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from textsam.errors import ImageError

from ..label_pngs import LabelMapConfig, objects_of_map
from ..sample import ObjectMask
from .listed import (
    Annotation,
    ListedSource,
    find_root,
    mat_field,
    named_objects,
    read_mat,
    read_split,
    read_values,
    structs_of,
    wanted_folder,
)

VOC_NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa"),
    *("train", "tv monitor"),
)

# Of both sets: 0 is background, classes are 1..20, 255 is the border that nobody drew through.
_NAMES = dict(enumerate(VOC_NAMES, start=1))
_VOID = 255
_CLASSES = LabelMapConfig(names=_NAMES, void=_VOID, background=0, exhaustive=True)


class VocSource(ListedSource):
    """`JPEGImages/ID.jpg`, `SegmentationClass/ID.png` and `SegmentationObject/ID.png`.

    With objects each instance is one, named by the class map under it; with classes all pixels of
    a class are one. 255 is void. All 20 classes are annotated, so photos are exhaustive.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        split: str = "val",
        masks: Literal["object", "class"] = "object",
        name: str | None = None,
    ) -> None:
        places = (".", "VOC2012", "VOCdevkit/VOC2012")
        marks = ("JPEGImages", "ImageSets/Segmentation")
        self.root = find_root(root, places, marks=marks, what="VOC")
        self.images = self.root / "JPEGImages"
        self.by_object = masks == "object"
        for folder in ("SegmentationClass", *(["SegmentationObject"] if self.by_object else [])):
            wanted_folder(self.root / folder, "VOC")
        photos = read_split(self.root / "ImageSets/Segmentation" / f"{split}.txt", "VOC")
        super().__init__(photos, name=name or f"voc_{split}", labels=VOC_NAMES, exhaustive=True)

    def truth(self, image_id: str) -> Annotation:
        """Read both pictures, or only that of classes; raises ImageError."""
        where = self.root / "SegmentationClass" / f"{image_id}.png"
        classes = read_values(where)
        if not self.by_object:
            return _class_truth(classes, where)
        where = self.root / "SegmentationObject" / f"{image_id}.png"
        numbers = read_values(where)
        void = numbers == _VOID
        numbers = np.where(void, 0, numbers)
        return named_objects(numbers, classes, names=_NAMES, where=where), void


class SbdSource(ListedSource):
    """`img/ID.jpg`, `inst/ID.mat` (`GTinst`) and `cls/ID.mat` (`GTcls`).

    `GTinst.Segmentation` numbers the objects, `GTinst.Categories` holds the class of each. Lists of
    photos, `train.txt` and `val.txt`, are beside the folders.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        split: str = "val",
        masks: Literal["object", "class"] = "object",
        name: str | None = None,
    ) -> None:
        self.by_object = masks == "object"
        self._truths = "inst" if self.by_object else "cls"
        places = (".", "dataset", "benchmark_RELEASE/dataset")
        self.root = find_root(root, places, marks=("img", self._truths), what="SBD")
        self.images = self.root / "img"
        photos = read_split(self.root / f"{split}.txt", "SBD")
        super().__init__(photos, name=name or f"sbd_{split}", labels=VOC_NAMES, exhaustive=True)

    def truth(self, image_id: str) -> Annotation:
        """Read the objects or the classes; raises ImageError."""
        path = self.root / self._truths / f"{image_id}.mat"
        variable = "GTinst" if self.by_object else "GTcls"
        (struct,) = structs_of(read_mat(path, variable), path=path)[:1]
        values = mat_field(struct, "Segmentation", path=path).astype(np.int64)
        if not self.by_object:
            return _class_truth(values, path)
        categories = mat_field(struct, "Categories", path=path).ravel().astype(np.int64).tolist()
        void = values == _VOID
        numbers = np.unique(values[(values != 0) & ~void]).tolist()
        if any(n > len(categories) or categories[n - 1] not in _NAMES for n in numbers):
            raise ImageError(
                f"{path} numbers objects {numbers} and has the categories {categories}; wanted a "
                f"category in 1..{len(VOC_NAMES)} for each"
            )
        names = {n: _NAMES[categories[n - 1]] for n in numbers}
        return tuple(ObjectMask.of(values == n, names[n]) for n in numbers), void


def _class_truth(classes: NDArray[np.int64], path: Path) -> Annotation:
    try:
        return objects_of_map(classes, config=_CLASSES)
    except ValueError as error:
        raise ImageError(f"{path}: {error}") from error
