"""What the sets share: a list of photos that is known before any annotation is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from textsam.errors import ImageError
from textsam.values.rle import encode_mask

from ..label_pngs import read_label_map
from ..sample import ObjectMask, Sample
from ..source import PackedRecords


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """What a set says about one photo."""

    objects: tuple[ObjectMask, ...]  # what is annotated
    void: NDArray[np.bool_]  # (H, W) bool, pixels without a truth; its size is the photo's


class ListedSource(ABC):
    """Photos of a set in its own order; photo and annotation are opened when they are asked for.

    Attributes:
        name: What the source is called.
        labels: Every name that the set can give, whether or not a photo has it.
        exhaustive: Whether a label that a photo does not list is absent from it.
    """

    def __init__(
        self, photos: Sequence[str], *, name: str, labels: Sequence[str], exhaustive: bool
    ) -> None:
        """Take the names of the photos; the set's own class finds their files."""
        self.name, self.labels, self.exhaustive = name, tuple(labels), exhaustive
        self._photos = PackedRecords(photos)

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, index: int) -> Sample:
        image_id = str(self._photos[index])
        photo = self.photo(image_id)
        if not photo.is_file():
            raise ImageError(f"{self.name}: there is no photo {photo}")
        truth = self.truth(image_id)
        return Sample(
            image_id=image_id,
            source=self.name,
            encoded=photo,
            size=(truth.void.shape[0], truth.void.shape[1]),
            exhaustive=self.exhaustive,
            void=encode_mask(truth.void) if truth.void.any() else None,
            objects=truth.objects,
        )

    @abstractmethod
    def photo(self, image_id: str) -> Path:
        """Where a photo should be."""

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

    Args:
        numbers: (H, W) int64, 0 where no object is. Void must be 0 too.
        classes: (H, W) int64.
        names: Name of each class; values without one are no class.
        kinds: Kind of each class, thing where it is not said.
        where: The picture of the numbers, for errors.
    """
    if numbers.shape != classes.shape:
        raise ImageError(
            f"{where} is {numbers.shape} (height, width); the picture of classes {classes.shape}"
        )
    objects: list[ObjectMask] = []
    for number in np.unique(numbers[numbers != 0]).tolist():
        mask = numbers == number
        values, counts = np.unique(classes[mask], return_counts=True)
        votes = {
            value: count
            for value, count in zip(values.tolist(), counts.tolist(), strict=True)
            if value in names
        }
        if not votes:
            raise ImageError(
                f"{where}: object {number} lies where the picture of classes has "
                f"{values.tolist()}, none of which has a name"
            )
        value = max(votes, key=lambda v: votes[v])
        objects.append(
            ObjectMask(
                label=names[value],
                kind=(kinds or {}).get(value, "thing"),
                rle=encode_mask(mask),
                ignore=False,
            )
        )
    return tuple(objects)
