"""ADE20K as the scene parsing challenge gives it out (Zhou et al., CVPR 2017).

`annotations/` holds the class of each pixel, 1..150, and 0 for what is none of these. The instances
of the 100 classes that can be counted are another archive, `annotations_instance/`: its green
channel numbers them. Its red one counts classes in an order of its own; here the class is read off
`annotations/`, so that one list of names serves both.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.errors import ImageError

from ..sample import ObjectMask
from .listed import (
    Annotation,
    ListedSource,
    find_root,
    named_objects,
    read_values,
    wanted_folder,
)


class AdeSource(ListedSource):
    """`images/SPLIT/ID.jpg`, `annotations/SPLIT/ID.png` and `objectInfo150.txt`.

    Scene classes: one object a class, 0 is void, photos are exhaustive. Instances: one object each,
    nothing is void, and photos are not exhaustive, for 50 classes have no instances.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        split: str = "validation",
        masks: Literal["class", "object"] = "class",
        name: str | None = None,
    ) -> None:
        places = (".", "ADEChallengeData2016")
        self.root = find_root(root, places, marks=("images", "annotations"), what="ADE20K")
        self.split, self.by_object = split, masks == "object"
        if self.by_object:
            wanted_folder(self.root / "annotations_instance" / split, "ADE20K")
        wanted_folder(self.root / "annotations" / split, "ADE20K")
        self.images = wanted_folder(self.root / "images" / split, "ADE20K")
        photos = sorted(path.stem for path in self.images.glob("*.jpg"))
        if not photos:
            raise ValueError(f"ADE20K: {self.images} has no *.jpg; wanted photos")
        self._names, self._kinds = read_object_info(self.root / "objectInfo150.txt")
        super().__init__(
            photos,
            name=name or f"ade20k_{split}",
            labels=tuple(self._names.values()),
            exhaustive=not self.by_object,
        )

    def truth(self, image_id: str) -> Annotation:
        """Read the classes, and the numbers of instances; raises ImageError."""
        where = self.root / "annotations" / self.split / f"{image_id}.png"
        classes = read_values(where)
        if self.by_object:
            where = self.root / "annotations_instance" / self.split / f"{image_id}.png"
            numbers, names, kinds = _instances(where), self._names, self._kinds
            objects = named_objects(numbers, classes, names=names, kinds=kinds, where=where)
            return objects, np.zeros(classes.shape, dtype=bool)
        values = np.unique(classes[classes != 0]).tolist()
        unknown = [value for value in values if value not in self._names]
        if unknown:
            raise ImageError(f"{where} holds {unknown}; wanted 0..{max(self._names)}")
        objects = tuple(
            ObjectMask.of(classes == value, self._names[value], self._kinds[value])
            for value in values
        )
        return objects, classes == 0


def read_object_info(path: Path) -> tuple[dict[int, str], dict[int, str]]:
    """Names and kinds of the classes by number, from `objectInfo150.txt`.

    A line has columns parted by tabs, the first line their headings: `Idx`, `Name` with synonyms
    after commas or semicolons, and in some editions `Stuff`, 0 or 1. The first synonym is the name,
    unless two classes share it; then each keeps all of its own.
    """
    if not path.is_file():
        raise FileNotFoundError(f"ADE20K: there is no {path}; wanted the names of the classes")
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    head = [column.strip() for column in rows[0]] if rows else []
    if not {"Idx", "Name"} <= set(head):
        raise ValueError(f"{path} begins with the columns {head}; wanted Idx and Name among them")
    every: dict[int, list[str]] = {}
    kinds: dict[int, str] = {}
    for row in rows[1:]:
        fields = dict(zip(head, (field.strip() for field in row), strict=False))
        if not any(fields.values()):
            continue
        if not fields.get("Idx", "").isdecimal() or not fields.get("Name"):
            raise ValueError(f"{path}: the line {row} has no number or no name")
        value = int(fields["Idx"])
        every[value] = [part.strip() for part in fields["Name"].replace(";", ",").split(",")]
        kinds[value] = {"0": "thing", "1": "stuff"}.get(fields.get("Stuff", ""), "unknown")
    firsts = Counter(names[0] for names in every.values())
    names = {v: n[0] if firsts[n[0]] == 1 else ", ".join(n) for v, n in every.items()}
    return names, kinds


def _instances(path: Path) -> NDArray[np.int64]:
    """Number of the instance at each pixel, 0 for none, (H, W) int64."""
    if not path.is_file():
        raise ImageError(f"there is no annotation {path}")
    try:
        with Image.open(path) as picture:
            mode, channels = picture.mode, np.asarray(picture)
    except Exception as error:  # PIL's readers raise whatever a damaged file leads them to
        raise ImageError(f"cannot read {path}: {error}") from error
    if mode not in ("RGB", "RGBA"):
        raise ImageError(f"{path} has mode {mode}; wanted RGB: green numbers the instances")
    return channels[..., 1].astype(np.int64)
