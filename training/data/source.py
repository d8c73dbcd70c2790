"""What the loader reads: rows by number, or a stream."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from textsam.errors import TextSamError

from .sample import BROKEN, Sample


class NoMasksError(TextSamError, ValueError):
    """A source has nothing to train on or to measure: no mask, or no photo that can be read."""


@dataclass(frozen=True, kw_only=True)
class BrokenSample:
    """A photo that was skipped: name of its source, its row, and the reason."""

    source: str
    row: int
    reason: str


@runtime_checkable
class Source(Protocol):
    """Photos by number, for instance a list of `Sample`s.

    A source is copied to the loader's workers, so it must survive pickling and forking: open files
    in the process that reads them.
    """

    def __len__(self) -> int:
        """Number of photos."""

    def __getitem__(self, index: int, /) -> Sample:
        """Photo `index`; raises ValueError (ImageError) or OSError if it is broken."""


@runtime_checkable
class GroupedSource(Source, Protocol):
    """A source whose neighbouring rows are read together, like row groups of a Parquet file.

    The loader shuffles groups, and rows within `window` groups, which the source keeps in memory.
    """

    @property
    def groups(self) -> Sequence[int]:
        """Rows in each group, in order."""

    @property
    def window(self) -> int:
        """Groups that are mixed with each other."""


@runtime_checkable
class StreamSource(Protocol):
    """Photos one after the other, without numbers or a known length.

    The loader's main process reads `rows`, which are small and can be pickled; its workers turn
    them into samples, so that a broken row does not end the stream.
    """

    def rows(self, *, seed: int, epoch: int) -> Iterator[Any]:
        """All rows once, in an order that depends on (seed, epoch) alone."""

    def sample(self, row: Any) -> Sample:
        """The sample of a row; raises ValueError (ImageError) or OSError if it is broken."""

    def __iter__(self) -> Iterator[Sample]:
        """The sound samples of epoch 0 with seed 0."""


def sound_samples(source: StreamSource, *, seed: int = 0, epoch: int = 0) -> Iterator[Sample]:
    """The samples of a stream, broken ones left out."""
    for row in source.rows(seed=seed, epoch=epoch):
        try:
            yield source.sample(row)
        except BROKEN:
            continue


class PackedRecords(Sequence[Any]):
    """A long list of JSON values in one buffer.

    Millions of small Python objects cost ten times their text, and a forked worker copies them all
    as soon as it counts references; a buffer stays shared.
    """

    def __init__(self, records: Iterable[Any] = ()) -> None:
        self._buffer = bytearray()
        self._ends = array("q")
        for record in records:
            self.append(record)

    def append(self, record: Any) -> None:
        """Add a JSON value at the end."""
        self._buffer += json.dumps(record, separators=(",", ":")).encode()
        self._ends.append(len(self._buffer))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        index %= len(self)
        start = self._ends[index - 1] if index else 0
        return json.loads(self._buffer[start : self._ends[index]])
