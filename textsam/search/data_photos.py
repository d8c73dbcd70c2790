"""Photos of a data set as an index takes them: still encoded, with the masks that they bring."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from textsam.values.rle import RLE

__all__ = ["DataPhoto", "GivenMask", "ListedPhotos", "PhotoSource", "batches"]


@dataclass(frozen=True, kw_only=True)
class GivenMask:
    """A mask that the data set brings along; None for a label that it does not tell."""

    rle: RLE
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class DataPhoto:
    """One photo.

    Attributes:
        dataset: Name of the collection.
        image: Id or URI with which it is found again; unique in the collection.
        encoded: The bytes of the image file, or where the file is.
        masks: Masks of the upright photo's size; empty ones are passed over.
    """

    dataset: str
    image: str
    encoded: bytes | Path
    masks: tuple[GivenMask, ...] = ()


class PhotoSource(Protocol):
    """A data set, read row by row, by several processes if need be.

    It is copied to workers, so it must survive pickling: files are opened by who reads them.
    """

    @property
    def total(self) -> int | None:
        """Number of photos; None for a stream, whose end is not known."""

    @property
    def has_masks(self) -> bool:
        """Whether its photos come with masks."""

    def rows(self) -> Iterator[Any]:
        """What `photo` takes, in the same order each time: small, and it can be pickled."""

    def name(self, row: Any, /) -> str:
        """What a row is called where it cannot be opened."""

    def photo(self, row: Any, /) -> DataPhoto:
        """The photo of a row; raises ValueError (ImageError) or OSError where it is broken."""


class ListedPhotos:
    """A `PhotoSource` of photos that are at hand."""

    def __init__(self, photos: Sequence[DataPhoto]) -> None:
        self._photos = list(photos)
        self.total = len(self._photos)
        self.has_masks = any(photo.masks for photo in self._photos)

    def rows(self) -> Iterator[int]:
        """Their places."""
        return iter(range(self.total))

    def name(self, row: int, /) -> str:
        """Id or URI of a photo."""
        return self._photos[row].image

    def photo(self, row: int, /) -> DataPhoto:
        """The photo."""
        return self._photos[row]


def batches(rows: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Rows in lists of `size`, the last one shorter."""
    while batch := list(itertools.islice(rows, size)):
        yield batch
