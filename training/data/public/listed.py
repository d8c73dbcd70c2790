"""What the public sets share: folders, MATLAB's files, photos that are known before their masks.

MATLAB knows neither scalars nor lists: a struct comes as a (1, 1) array with named fields, and a
list of structs as a cell array (1, N) of those.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from textsam.errors import ImageError, require
from textsam.values.rle import encode_mask

from ..label_pngs import read_label_map
from ..sample import ObjectMask, Sample
from ..source import PackedRecords

# The objects of a photo, and its pixels without a truth, (H, W) bool.
Annotation: TypeAlias = tuple[tuple[ObjectMask, ...], NDArray[np.bool_]]


class ListedSource(ABC):
    """Photos of a set in its own order; photo and annotation are opened when they are asked for."""

    images: Path  # folder of the photos

    def __init__(
        self, photos: Sequence[str], *, name: str, labels: Sequence[str], exhaustive: bool
    ) -> None:
        # `labels` is every name that the set can give, whether or not a photo has it.
        self.name, self.labels, self.exhaustive = name, tuple(labels), exhaustive
        self._photos = PackedRecords(photos)

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, index: int) -> Sample:
        image_id = str(self._photos[index])
        photo = self.photo(image_id)
        if not photo.is_file():
            raise ImageError(f"{self.name}: there is no photo {photo}")
        objects, void = self.truth(image_id)
        return Sample(
            image_id=image_id,
            source=self.name,
            encoded=photo,
            size=(void.shape[0], void.shape[1]),
            exhaustive=self.exhaustive,
            void=encode_mask(void) if void.any() else None,
            objects=objects,
        )

    def photo(self, image_id: str) -> Path:
        """Where a photo should be."""
        return self.images / f"{image_id}.jpg"

    @abstractmethod
    def truth(self, image_id: str) -> Annotation:
        """Read a photo's annotation; raises ImageError if it is missing or damaged."""


def read_values(path: Path) -> NDArray[np.int64]:
    """The values of a label picture, (H, W) int64."""
    if not path.is_file():
        raise ImageError(f"there is no annotation {path}")
    return read_label_map(path)


def named_objects(
    numbers: NDArray[np.int64],
    classes: NDArray[np.int64],
    *,
    names: Mapping[int, str],
    kinds: Mapping[int, str] | None = None,
    where: Path,
) -> tuple[ObjectMask, ...]:
    """Objects from one picture that numbers them and one that holds the class of each pixel.

    An object has the class of most of its pixels, for the two pictures need not agree at borders.

    In `numbers` void must be 0, as where no object is. Values without a name are no class; kinds
    are "thing" where they are not said. `where` is the picture of the numbers, for errors.
    """
    if numbers.shape != classes.shape:
        raise ImageError(
            f"{where} is {numbers.shape} (height, width); the picture of classes {classes.shape}"
        )
    objects: list[ObjectMask] = []
    for number in np.unique(numbers[numbers != 0]).tolist():
        mask = numbers == number
        values, counts = np.unique(classes[mask], return_counts=True)
        pairs = zip(values.tolist(), counts.tolist(), strict=True)
        votes = {value: count for value, count in pairs if value in names}
        if not votes:
            raise ImageError(
                f"{where}: object {number} lies where the picture of classes has "
                f"{values.tolist()}, none of which has a name"
            )
        value = max(votes, key=lambda v: votes[v])
        objects.append(ObjectMask.of(mask, names[value], (kinds or {}).get(value, "thing")))
    return tuple(objects)


def find_root(root: Path | str, places: Sequence[str], *, marks: Sequence[str], what: str) -> Path:
    """The folder that holds all of `marks`: `root` itself, or one of `places` in it.

    So a user may name the folder that an archive was unpacked in, or any that leads to the data.
    """
    root = Path(root)
    if not root.is_dir():
        raise NotADirectoryError(f"{what}: there is no folder {root}")
    for place in places:
        folder = root / place
        if all((folder / mark).is_dir() for mark in marks):
            return folder
    looked = ", ".join(str(root / place) for place in places)
    raise FileNotFoundError(
        f"{what}: looked in {looked} for the folders {', '.join(marks)}, and none has them all. "
        f"Name the folder into which {what} was unpacked"
    )


def wanted_folder(folder: Path, what: str) -> Path:
    """The folder, if it is there."""
    if not folder.is_dir():
        beside = sorted(p.name for p in folder.parent.iterdir()) if folder.parent.is_dir() else []
        raise NotADirectoryError(
            f"{what}: there is no folder {folder}; beside it are {_first(beside)}"
        )
    return folder


def read_split(file: Path, what: str) -> list[str]:
    """The lines of a list of photos, without empty ones."""
    if not file.is_file():
        lists = sorted(p.stem for p in file.parent.glob("*.txt"))
        raise FileNotFoundError(
            f"{what}: there is no list {file}; "
            + (f"for split= there are {_first(lists)}" if lists else f"{file.parent} has no list")
        )
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    if not any(lines):
        raise ValueError(f"{what}: the list {file} is empty")
    return [line for line in lines if line]


def _first(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "") or "nothing"


def read_mat(path: Path, variable: str) -> NDArray[Any]:
    """One variable of a file of MATLAB 5 to 7."""
    if not path.is_file():
        raise ImageError(f"there is no file {path}; wanted the annotation {variable!r} in it")
    loadmat = require("scipy.io", "train").loadmat
    try:
        content = loadmat(path)
    except Exception as error:  # scipy raises whatever a damaged file leads it to
        raise ImageError(f"{path} cannot be read as a MATLAB file: {error}") from error
    if variable not in content:
        there = sorted(key for key in content if not key.startswith("__"))
        raise ImageError(f"{path} holds {there}; wanted the variable {variable!r}")
    return np.asarray(content[variable])


def structs_of(cells: NDArray[Any], *, path: Path) -> list[NDArray[Any]]:
    """The structs of a cell array, or the one struct that stands alone; `path` for errors."""
    found = [cells] if cells.dtype.names else [np.asarray(cell) for cell in cells.ravel()]
    if not found or any(struct.size != 1 or not struct.dtype.names for struct in found):
        raise ImageError(f"{path}: wanted a MATLAB struct, or a cell array of them")
    return found


def mat_field(struct: NDArray[Any], field: str, *, path: Path) -> NDArray[Any]:
    """A field of a struct as MATLAB has it, at least two-dimensional; `path` for errors."""
    if field not in (struct.dtype.names or ()):
        raise ImageError(f"{path}: its struct has {struct.dtype.names}; wanted the field {field!r}")
    return np.asarray(struct.ravel()[0][field])
