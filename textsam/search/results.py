"""What a search finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

from textsam.errors import require
from textsam.search.engines.protocol import COSINE
from textsam.search.records import MaskRow, read_rows
from textsam.search.spaces import VectorSpace

__all__ = ["SearchResult", "SearchResults"]


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """One row that was found.

    Attributes:
        row: The mask, and what is known of it; `row.score` is its label's.
        score: Cosine of the angle to the query, -1 to 1.
    """

    row: MaskRow
    score: float

    @property
    def id(self) -> str:
        """Id of the row."""
        return self.row.id


@dataclass(frozen=True, eq=False)
class SearchResults(Sequence[SearchResult]):
    """What was found, best first.

    Attributes:
        table: Arrow table of `records.ROW_COLUMNS` and `cosine`.
        space: In which space it was found.
    """

    table: Any
    space: VectorSpace

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, index: int) -> SearchResult: ...
    @overload
    def __getitem__(self, index: slice) -> SearchResults: ...
    def __getitem__(self, index: int | slice) -> SearchResult | SearchResults:
        """One result, or a slice as `SearchResults`."""
        if isinstance(index, slice):
            chosen = range(*index.indices(len(self)))
            return SearchResults(self.table.take(list(chosen)), self.space)
        if not -len(self) <= index < len(self):
            raise IndexError(f"got position {index}; there are {len(self)} results")
        one = self.table.slice(index % len(self), 1)
        return SearchResult(row=next(read_rows(one)), score=one.column(COSINE)[0].as_py())

    @property
    def scores(self) -> list[float]:
        """Cosines, best first."""
        return [float(value) for value in self.table.column(COSINE).to_pylist()]

    def to_dataset(self) -> Any:
        """A `datasets.Dataset` with the columns of a row and `cosine`; RLE as COCO's JSON.

        Raises:
            MissingExtraError: datasets is not installed.
        """
        datasets = require("datasets", "search")
        # Our own metadata would be copied into every file written from it.
        return datasets.Dataset(self.table.replace_schema_metadata(None))
