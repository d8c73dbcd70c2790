"""What an engine is: where rows are stored, and how the nearest of them are found.

An engine knows Arrow tables and vectors, but no model and no photo. `MaskIndex` checks what goes
in. `tests/search/test_conformance.py` holds every engine to what is promised here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from textsam.search.records import FloatArray, SpaceName, VectorSpace
from textsam.search.where import Where

__all__ = ["Engine"]


class Engine(Protocol):
    """Rows with their vectors.

    Reading and searching are safe from several threads. A write is complete or has no effect.

    Attributes:
        uri: What opens it again.
    """

    uri: str

    def spaces(self) -> Mapping[SpaceName, VectorSpace]:
        """The spaces of the vectors; empty until rows have been added."""

    def add(self, rows: Any) -> int:
        """Add the rows whose ids are new, in one transaction.

        Args:
            rows: Arrow table of `make_table` with distinct ids and the spaces of the index.

        Returns:
            Number of new rows.
        """

    def search(
        self,
        space: SpaceName,
        vectors: FloatArray,
        *,
        k: int,
        where: Where,
        exact: bool = False,
    ) -> Sequence[Any]:
        """Find the rows nearest to each of Q vectors.

        Args:
            space: The column of vectors.
            vectors: (Q, width) unit vectors.
            k: Maximum number of rows for each vector.
            where: Applied before the search, so that k rows come back if k rows match.
            exact: Compare with every row instead of using a search structure.

        Returns:
            Q Arrow tables of `ROW_COLUMNS` and `cosine`, highest cosine first.
        """

    def read(self, columns: Sequence[str], *, where: Where, batch: int) -> Iterator[Any]:
        """Record batches of some columns of the matching rows, in no particular order."""

    def sample(self, space: SpaceName, count: int, *, seed: int) -> FloatArray:
        """Vectors (n, width) of random rows, n the smaller of `count` and the number of rows."""

    def delete(self, where: Where) -> int:
        """Remove the matching rows in one transaction; returns their number."""

    def count(self, where: Where) -> int:
        """Number of matching rows."""

    def compact(self) -> None:
        """Merge small writes, and bring the search structures up to date."""

    def describe(self) -> Mapping[str, Any]:
        """The kind of engine and its search structures, for people and tests."""

    def close(self) -> None:
        """Release files and memory; the engine cannot be used afterwards."""
