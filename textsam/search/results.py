"""`SearchResults`: the rows that a search returns, best first, shown as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from textsam.errors import require, unknown_attribute
from textsam.search.records import COSINE, ROW_COLUMNS, MaskRow, VectorSpace, read_rows

_MAX_SHOWN = 20  # rows of a printed table
_MAX_CHARACTERS = 40  # of a cell
_ADVICE = {
    "limit": "index.search(..., k=5), or results[:5]",
    "scores": 'results.cosines; results["score"] for the scores of the labels',
    "where": "index.search(..., where=Where(min_area=500))",
}


@dataclass(frozen=True, kw_only=True)
class SearchResult(MaskRow):
    """One row that a search returned: a `MaskRow` and how close it is to the query.

    Its columns can also be read by name: `result["label"]`.

    Attributes:
        cosine: Cosine of the angle to the query, -1 to 1. (`score` is that of the label.)
    """

    cosine: float

    def __getitem__(self, column: str) -> Any:
        """A column by name: `cosine` or one of `ROW_COLUMNS`."""
        if column not in (COSINE, *ROW_COLUMNS):
            raise KeyError(f"{column!r}; wanted one of {[COSINE, *ROW_COLUMNS]}")
        return getattr(self, column)

    __repr__ = MaskRow.__repr__  # a dataclass would write one that shows the run-length code


@dataclass(frozen=True, eq=False, repr=False)
class SearchResults(Sequence[SearchResult]):
    """What a search returned, best first: a sequence of `SearchResult`, and a table.

    `results[0].label` and `results["label"][0]` are the same; `results[:5]` are results again.

    Attributes:
        table: Arrow table of `ROW_COLUMNS` and `cosine`.
        space: The space that was searched.
    """

    table: Any
    space: VectorSpace

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, index: int) -> SearchResult: ...
    @overload
    def __getitem__(self, index: slice) -> SearchResults: ...
    @overload
    def __getitem__(self, index: str) -> list[Any]: ...
    def __getitem__(self, index: int | slice | str) -> SearchResult | SearchResults | list[Any]:
        """One result by its position, results by a slice, or a column by its name."""
        if isinstance(index, str):
            if index not in self.table.column_names:
                raise KeyError(f"{index!r}; wanted one of {self.table.column_names}")
            column: list[Any] = self.table.column(index).to_pylist()
            return column
        if isinstance(index, slice):
            return SearchResults(self.table.take(np.arange(len(self))[index]), self.space)
        if not -len(self) <= index < len(self):
            raise IndexError(f"got position {index}; there are {len(self)} results")
        return next(_read_results(self.table.slice(index % len(self), 1)))

    def __iter__(self) -> Iterator[SearchResult]:
        return _read_results(self.table)

    @property
    def cosines(self) -> list[float]:
        """Cosines of the angles to the query, highest first."""
        return [float(value) for value in self[COSINE]]

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with the columns of a row and `cosine`.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        require("pandas", "search")  # Arrow's own error would not say what to install
        return self.table.to_pandas()

    def to_dataset(self) -> Any:
        """A `datasets.Dataset` with the columns of a row and `cosine`; RLEs as COCO's JSON.

        Raises:
            MissingExtraError: datasets is not installed.
        """
        datasets = require("datasets", "search")
        # Our metadata would otherwise be copied into every file that is written from it.
        return datasets.Dataset(self.table.replace_schema_metadata(None))

    def __repr__(self) -> str:
        lines = _cells(self[:_MAX_SHOWN])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        return "\n".join([self._title(), *(text if len(self) else []), *self._rest()])

    def _repr_html_(self) -> str:
        """The table as a notebook shows it."""
        header, *lines = _cells(self[:_MAX_SHOWN])
        rows = ["".join(f"<th>{escape(cell)}</th>" for cell in header)]
        rows += ["".join(f"<td>{escape(cell)}</td>" for cell in line) for line in lines]
        body = "".join(f"<tr>{row}</tr>" for row in rows) if lines else ""
        rest = "".join(f"<p>{escape(line)}</p>" for line in self._rest())
        return f"<p>{escape(self._title())}</p><table>{body}</table>{rest}"

    def _title(self) -> str:
        count = f"{len(self)} mask{'' if len(self) == 1 else 's'}" if len(self) else "no masks"
        return f"SearchResults: {count}, space {self.space.name!r}"

    def _rest(self) -> list[str]:
        return [f"... {len(self) - _MAX_SHOWN} more"] if len(self) > _MAX_SHOWN else []

    if not TYPE_CHECKING:  # a type checker should know of the real attributes only

        def __getattr__(self, name: str) -> Any:
            raise unknown_attribute(self, name, _ADVICE)


def _read_results(table: Any) -> Iterator[SearchResult]:
    cosines = table.column(COSINE).to_pylist()
    for row, cosine in zip(read_rows(table), cosines, strict=True):
        # The row is new, so no cached property is among its variables.
        yield SearchResult(**vars(row), cosine=cosine)


def _cells(results: SearchResults) -> list[list[str]]:
    """The header and the lines of a table of results."""
    # Given masks have no scores; a column of dashes would only take room.
    scored = any(score is not None for score in results["score"])
    header = ["", COSINE, "label", *(["score"] if scored else [])]
    lines = [[*header, "dataset", "image", "box x0 y0 x1 y1", "area"]]
    for number, result in enumerate(results):
        line = [str(number), f"{result.cosine:.3f}", _shorten(result.label or "-")]
        line += [f"{result.score:.2f}"] if scored else []
        line += [_shorten(result.dataset), _shorten(result.image)]
        line += [" ".join(str(side) for side in result.box), f"{result.area:,}"]
        lines.append(line)
    return lines


def _shorten(text: str) -> str:
    """The end of a long text: paths differ in their last part."""
    return text if len(text) <= _MAX_CHARACTERS else "..." + text[3 - _MAX_CHARACTERS :]
