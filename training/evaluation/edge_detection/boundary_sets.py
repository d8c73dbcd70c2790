"""Sets of photos with boundaries, drawn or of masks, opened for an evaluation command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from textsam.errors import MissingExtraError

from ...data.boundaries import BoundaryPhoto, open_boundaries
from ..clicks.protocol import evenly_spaced
from ..sets import BadInputError

__all__ = ["BoundarySet", "read_boundary_sets"]


@dataclass(frozen=True, kw_only=True)
class BoundarySet:
    """What is measured: a name, the file or line that it is from, and photos."""

    name: str
    path: str
    photos: Sequence[BoundaryPhoto]


def read_boundary_sets(data: Iterable[str], *, limit: int | None = None) -> list[BoundarySet]:
    """Open every set before anything is measured; photos are read when their turn comes.

    Args:
        data: Parquet files with `boundaries` or with masks, and lines like
            `bsds500:BSR?split=test` or `ade20k:ADEChallengeData2016`.
        limit: Photos to measure of each, spread evenly over it.

    Raises:
        BadInputError: No such file or folder, one without boundaries or masks, a set without a
            photo, or a package that it needs is not there.
    """
    sets = []
    for item in data:
        try:
            every = open_boundaries(item)
        except (OSError, ValueError, MissingExtraError) as error:
            raise BadInputError(str(error)) from error
        if not len(every):
            raise BadInputError(f"{item} has no photo")
        name = str(getattr(every, "name", Path(item).stem))
        photos = _Chosen(every, evenly_spaced(len(every), limit))
        sets.append(BoundarySet(name=name, path=item, photos=photos))
    names = Counter(each.name for each in sets)
    return [each if names[each.name] == 1 else replace(each, name=each.path) for each in sets]


class _Chosen(Sequence[BoundaryPhoto]):
    """Some of the photos of a set; each is read when it is asked for."""

    def __init__(self, every: Sequence[BoundaryPhoto], indices: Sequence[int]) -> None:
        self._every, self._indices = every, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return _Chosen(self._every, self._indices[index])
        return self._every[self._indices[index]]
