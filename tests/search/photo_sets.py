"""Small data sets of noise, and a random model, for this process and for Ray's workers.

No test module: loaded by its path, and pickled by value.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from textsam.search.data_photos import DataMask, DataPhoto, ListedPhotos
from textsam.search.records import MaskVectors, SpaceName, VectorSpace
from textsam.values.rle import RLE, encode_mask

SIZE = (40, 60)


def encoded(number: int) -> bytes:
    """A PNG of noise."""
    pixels = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def masks(number: int) -> tuple[DataMask, ...]:
    """One to three boxes and an empty mask; one of two labels, or none."""
    found = []
    for index in range(number % 3 + 1):
        mask = np.zeros(SIZE, np.bool_)
        mask[5 : 15 + index, 3 + number % 7 : 20 + 4 * index] = True
        found.append(DataMask(rle=encode_mask(mask), label=("sail", None)[index % 2]))
    return (*found, DataMask(rle=encode_mask(np.zeros(SIZE, np.bool_))))


def photos(count: int, *, given: bool = True) -> list[DataPhoto]:
    """Photos of a data set "noise"."""
    return [
        DataPhoto(
            dataset="noise",
            image=f"photo {number}",
            encoded=encoded(number),
            masks=masks(number) if given else (),
        )
        for number in range(count)
    ]


class Stream:
    """The same as a stream; the process that opens photo `deadly` dies once, if `mark` is given."""

    total = None
    has_masks = True

    def __init__(self, count: int, *, deadly: int | None = None, mark: Path | None = None) -> None:
        self._inner = ListedPhotos(photos(count))
        self.deadly, self.mark = deadly, mark

    def rows(self) -> Iterator[Any]:
        """Numbers."""
        return self._inner.rows()

    def name(self, row: Any, /) -> str:
        """Of the photo."""
        return self._inner.name(row)

    def photo(self, row: Any, /) -> DataPhoto:
        """The photo, or the end."""
        if row == self.deadly and self.mark is not None and not self.mark.exists():
            self.mark.touch()
            os._exit(1)
        return self._inner.photo(row)


class HashEmbedder:
    """Vectors that follow from the bytes of a mask: what an `Embedder` is to a job, but no network.

    Processes that use it are ready in a second.
    """

    def __init__(self, *, preprocessing: str = "a") -> None:
        self.spaces: dict[SpaceName, VectorSpace] = {
            "sam": VectorSpace(name="sam", width=8, model="hash", preprocessing=preprocessing)
        }

    def photos(self, photos: list[tuple[np.ndarray, list[RLE]]]) -> list[MaskVectors]:
        """One vector per mask."""
        found = []
        for _, rles in photos:
            rows = [np.random.default_rng([*rle.counts]).normal(size=8) for rle in rles]
            unit = [(row / np.linalg.norm(row)).astype(np.float32) for row in rows]
            found.append(MaskVectors(spaces=self.spaces, vectors={"sam": np.stack(unit)}))
        return found
