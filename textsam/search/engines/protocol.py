"""What an engine is: where rows lie, and how the nearest of them are found.

An engine knows Arrow tables and plain vectors, no model and no photo. `MaskIndex` checks what goes
in; engines may rely on it. `tests/search/test_conformance.py` says what they promise, and runs for
every one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from textsam.search.spaces import SpaceName, VectorSpace
from textsam.search.where import Where

__all__ = ["COSINE", "Engine"]

# Column of a result: cosine of the angle between the query and the row, -1 to 1, highest first.
COSINE = "cosine"


class Engine(Protocol):
    """Rows and their vectors, somewhere.

    Reading and searching are safe from several threads. A write is whole or has not been.
    """

    def spaces(self) -> Mapping[SpaceName, VectorSpace]:
        """The spaces of the vectors; empty while nothing has ever been added."""

    def add(self, rows: Any) -> int:
        """Add the rows of a table whose ids are not there yet, in one transaction.

        Args:
            rows: Arrow table of `make_table`, ids distinct, spaces those of the index.

        Returns:
            How many were new.
        """

    def search(
        self,
        space: SpaceName,
        vectors: npt.NDArray[np.float32],
        *,
        k: int,
        where: Where,
        exact: bool = False,
    ) -> Sequence[Any]:
        """The nearest rows to each of some vectors.

        Args:
            space: The column of vectors.
            vectors: (Q, width) unit vectors.
            k: How many at most for each.
            where: Which rows are meant; filtered before, so that k come if k are there.
            exact: Compare with every row, as no index does.

        Returns:
            Q Arrow tables of `ROW_COLUMNS` and `cosine`, highest first.
        """

    def read(self, columns: Sequence[str], *, where: Where, batch: int) -> Iterator[Any]:
        """Record batches of some columns of the rows that are meant, in no promised order."""

    def sample(self, space: SpaceName, count: int, *, seed: int) -> npt.NDArray[np.float32]:
        """(n, width) vectors of rows drawn at random, n the smaller of `count` and all rows."""

    def delete(self, where: Where) -> int:
        """Remove rows, in one transaction; how many."""

    def count(self, where: Where) -> int:
        """How many rows are meant."""

    def compact(self) -> None:
        """Fold small writes together and bring the search structure up to date."""

    def describe(self) -> Mapping[str, Any]:
        """What kind of engine, and how its search structures are set up; for people and tests."""

    def close(self) -> None:
        """Let go of files and memory; the engine is not used any more."""
