"""`MaskIndex`: masks of many photos, searched by phrase, mask, photo, example or vector.

index = MaskIndex.open("masks.lance", model="tiny")
index.add(rows, index.embedder.masks(photo, [row.rle for row in rows]))
results = index.search("striped sail", k=20, where=Where(min_area=500))
results[0].cosine, results[0].image, results[0].box
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Never, NoReturn, get_args

import numpy as np
import numpy.typing as npt

from textsam.errors import PromptError, require, unknown_attribute, unknown_keyword
from textsam.results.mask_result import MaskResult
from textsam.search import queries
from textsam.search.lance_engine import (
    IN_MEMORY,
    IndexStats,
    LanceEngine,
    RayLanceEngine,
    measure_recall,
)
from textsam.search.queries import LikeSource, MaskEmbedder, MaskSource, ModelSource, QueryModel
from textsam.search.records import (
    ROW_COLUMNS,
    FloatArray,
    MaskRow,
    MaskVectors,
    SpaceName,
    VectorSpace,
    check_same_space,
    distinct_rows,
    make_schema,
    make_table,
    read_vectors,
    spaces_of,
)
from textsam.search.results import SearchResults
from textsam.search.where import Where
from textsam.values.images import load_image

EngineName = Literal["memory", "lance", "ray"]

_ALL_ROWS = Where()
_BATCH = 8_192  # rows that are read at once
_STORES = ("s3", "gs", "az")
_ADVICE = {
    "model": "index.embedder.model",
    "ntotal": "len(index)",
    "to_pandas": 'index.export("masks.parquet"), and pandas.read_parquet("masks.parquet")',
}


class MaskIndex:
    """An index of masks. Open it with `MaskIndex.open`; close it, or use it in a `with` statement.

    Several threads and processes may search at the same time, also while another one adds rows.
    """

    def __init__(self, engine: LanceEngine, *, model: ModelSource | None = None) -> None:
        """Wrap an engine; `MaskIndex.open` chooses the engine of a URI.

        Raises:
            TypeError: A path in place of an engine.
        """
        if isinstance(engine, str | Path):
            raise TypeError(f"got {engine!r}; wanted an engine. Type: MaskIndex.open({engine!r})")
        self.engine = engine
        self._query_model = QueryModel(model, uri=engine.uri)

    @classmethod
    def open(
        cls,
        uri: str | Path,
        *,
        model: ModelSource | None = None,
        engine: EngineName | None = None,
        storage_options: Mapping[str, str] | None = None,
        address: str | None = None,
    ) -> MaskIndex:
        """Open an index; it is created when the first rows are added.

        Args:
            uri: A folder, `s3://bucket/path`, `gs://`, `az://`, or `memory://`.
            model: What embeds queries: a name, folder or file, as `TextSAM.from_pretrained` takes
                it; a `TextSAM`; or an `Embedder`. By default the model whose name is stored in the
                index. It is loaded when a query needs it, and embeds queries in the same way as the
                rows were embedded.
            engine: "ray" to build search structures on a Ray cluster; by default "memory" or
                "lance", depending on the URI.
            storage_options: Keys, region and endpoint of an object store.
            address: Of the Ray cluster; None for one on this machine.

        Raises:
            ValueError: A URI that no engine opens, or an engine that cannot open this URI.
            MissingExtraError: A package is not installed.
        """
        opened = _open_engine(str(uri), engine, storage_options=storage_options, address=address)
        return cls(opened, model=model)

    @property
    def spaces(self) -> Mapping[SpaceName, VectorSpace]:
        """The spaces of its vectors; empty until rows have been added."""
        return self.engine.spaces()

    @property
    def embedder(self) -> MaskEmbedder:
        """What embeds masks and phrases in the spaces of this index; loads the model at first use.

        Raises:
            WeightsError: The model cannot be loaded, or is not the one that made the index.
            PromptError: There is neither a model nor a row that names one.
        """
        return self._query_model.embedder(self.spaces)

    def add(self, rows: Sequence[MaskRow], vectors: MaskVectors) -> int:
        """Add rows: all of them or, if this is interrupted, none.

        A row whose id is in the index already stays as it is, so adding twice is adding once.

        Args:
            rows: N masks. Each call is a commit; some thousand rows at a time make the best files.
            vectors: Their vectors, in all spaces of the index. The first call decides the spaces.

        Returns:
            Number of new rows.

        Raises:
            ValueError: Vectors of other spaces than the index's, or not one for each row.
        """
        return self.add_tables([make_table(rows, vectors)])

    def add_tables(self, tables: Iterable[Any]) -> int:
        """Add the rows of Arrow tables of `make_table` in one commit; see `add`.

        None is a table without rows.
        """
        present = [table for table in tables if table is not None]
        if not present:
            return 0
        table = require("pyarrow", "search").concat_tables(present)
        spaces = spaces_of(table.schema)
        is_first = not self.spaces
        self.check_spaces(spaces)
        added = self.engine.add(distinct_rows(table)) if table.num_rows else 0
        if is_first and table.num_rows:
            # Another process may have created the index with other spaces in the meantime.
            self.check_spaces(spaces)
        return added

    def check_spaces(self, spaces: Mapping[SpaceName, VectorSpace]) -> None:
        """Refuse spaces that differ from those of the index; an empty index accepts all."""
        stored = self.spaces
        if not stored:
            return
        if stored.keys() != spaces.keys():
            raise ValueError(
                f"got vectors of {sorted(spaces)}; this index holds {sorted(stored)}, and every "
                "row needs all of them"
            )
        for name, space in stored.items():
            check_same_space(spaces[name], space)

    def search(
        self,
        text: str | None = None,
        k: int = 10,
        *,
        image: Any | None = None,
        mask: MaskSource | MaskResult | None = None,
        like: LikeSource | None = None,
        vector: npt.ArrayLike | MaskVectors | None = None,
        where: Where = _ALL_ROWS,
        space: SpaceName = "clip",
        exact: bool = False,
        **unknown: Never,
    ) -> SearchResults:
        """Find the rows nearest to one query.

        Args:
            text: A phrase; only in the space "clip".
            k: Maximum number of results.
            image: A photo or a crop, whatever `load_image` takes: all of it, or its `mask`.
            mask: A mask (H, W) of `image`; or a `MaskResult` that knows its photo.
            like: Results of a search or other rows of the index, or masks that know their photo, as
                those of `TextSAM.segment` do; one or several, of which the mean is taken.
            vector: (width,) of the space; or `MaskVectors`, whose space is checked: their mean.
            where: Conditions on rows.
            space: "clip" compares what things are, "sam" what they look like.
            exact: Compare with every row.
            **unknown: Names such as `limit`, which are refused with the one to type.

        Raises:
            UnknownKeywordError: The message names the nearest keyword.
            PromptError: Not exactly one query, or one that cannot be embedded.
            WeightsError: The model cannot be loaded, or is not the one that made the index.
            ValueError: The index is empty or has no vectors of this space, or the query is a vector
                of another space.
        """
        for name in unknown:
            keywords = [*signature(self.search).parameters][:-1]
            raise unknown_keyword(name, keywords, queries.FOREIGN_NAMES)
        if text is not None and not isinstance(text, str):
            queries.refuse_query(text)
        if not isinstance(k, int | np.integer) or k < 1:
            raise ValueError(f"got k={k!r}; wanted 1 or more")
        if not isinstance(where, Where):
            raise PromptError(
                f'got where={where!r}; wanted conditions. Type: where=Where(labels=["sail"], '
                "min_area=500), with from textsam.search import Where"
            )
        stored = self.spaces.get(space)
        if stored is None:
            self._refuse_space(space)
        query = self._query_vector(
            stored, {"text": text, "image": image, "mask": mask, "like": like, "vector": vector}
        )
        table = self.engine.search(space, query, k=k, where=where, exact=exact)
        return SearchResults(table, stored)

    def _refuse_space(self, space: str) -> NoReturn:
        if not self.spaces:
            raise ValueError(
                f"the index {self.engine.uri!r} has no rows yet. Type: textsam embed PHOTOS -o "
                f"{self.engine.uri}, or index.add(rows, vectors)"
            )
        names = ", ".join(map(repr, self.spaces))
        raise ValueError(f"this index has no vectors of space {space!r}; it has {names}")

    def _query_vector(self, stored: VectorSpace, query: dict[str, Any]) -> FloatArray:
        """The vector (width,) of exactly one of `text`, `image` and `mask`, `like`, `vector`."""
        names = [name for name, value in query.items() if value is not None]
        image, mask, like, vector = (query[n] for n in ("image", "mask", "like", "vector"))
        # A mask that knows its photo is an example, so `mask=` and `like=` are the same for it.
        if isinstance(mask, MaskResult) and image is None:
            names, like = ["like" if name == "mask" else name for name in names], mask
        if names == ["mask"]:
            raise PromptError("got a mask without its photo. Type: search(image=photo, mask=mask)")
        if len(names) != 1 and names != ["image", "mask"]:
            raise PromptError(
                f"got {' and '.join(names) or 'nothing'} to look for; wanted one of text, image "
                "(with or without mask), like, vector"
            )
        if isinstance(vector, MaskVectors):
            return queries.mean_vector(vector, stored)
        if vector is not None:
            return queries.unit(vector, width=stored.width)
        if like is not None:
            return self._like_vector(like, stored)
        if query["text"] is not None and stored.name != "clip":
            raise PromptError(
                f"got text={query['text']!r} for space {stored.name!r}, which has no phrases. "
                'Type: space="clip"'
            )
        # Only the space that is searched: the others would be embedded in vain.
        embedder = self._query_model.embedder(self.spaces, stored.name)
        if query["text"] is not None:
            return queries.text_vector(embedder, query["text"], stored)
        rle = mask.rle if isinstance(mask, MaskResult) else mask
        return queries.mask_vector(embedder, load_image(image), rle, stored)

    def _like_vector(self, like: LikeSource, stored: VectorSpace) -> FloatArray:
        """The mean direction of rows of this index and of masks that know their photo."""
        items = [like] if isinstance(like, MaskRow | MaskResult) else list(like)
        row_ids = [item.id for item in items if isinstance(item, MaskRow)]
        examples = [item for item in items if isinstance(item, MaskResult)]
        if not items or len(row_ids) + len(examples) != len(items):
            raise PromptError(
                f"got like={like!r}; wanted results of a search, or masks that know their photo. "
                "For a photo type: image=photo, for a phrase: text=phrase"
            )
        vectors = []
        if row_ids:
            by_id = self.vectors(row_ids, space=stored.name)
            vectors += [by_id[row_id] for row_id in row_ids]
        if examples:
            embedder = self._query_model.embedder(self.spaces, stored.name)
            vectors += [queries.example_vector(embedder, item, stored) for item in examples]
        return queries.unit(np.mean(vectors, axis=0), width=stored.width)

    def vectors(self, ids: Sequence[str], *, space: SpaceName = "clip") -> dict[str, FloatArray]:
        """The stored vectors (width,) of rows, by id.

        Raises:
            ValueError: There is no row with one of the ids.
        """
        by_id: dict[str, FloatArray] = {}
        for batch in self.engine.read(["id", space], where=Where(ids=ids), batch=_BATCH):
            row_ids = batch.column("id").to_pylist()
            by_id.update(zip(row_ids, read_vectors(batch, space), strict=True))
        missing = [row_id for row_id in ids if row_id not in by_id]
        if missing:
            raise ValueError(f"there is no row {missing[0]!r} in this index (any more)")
        return by_id

    def delete(self, where: Where) -> int:
        """Remove the matching rows; returns their number.

        Raises:
            ValueError: No condition, which would empty the index by accident.
        """
        if where.matches_all:
            raise ValueError("delete(Where()) would remove every row; give a condition")
        return self.engine.delete(where)

    def count(self, where: Where = _ALL_ROWS) -> int:
        """Number of matching rows; `len(index)` is that of all."""
        return self.engine.count(where)

    def __len__(self) -> int:
        return self.count()

    def __bool__(self) -> bool:
        """True, also for an index without rows: `if index` asks whether there is an index."""
        return True

    def datasets(self) -> dict[str, int]:
        """Number of rows of each data set, by name."""
        counts: Counter[str] = Counter()
        for batch in self.engine.read(["dataset"], where=_ALL_ROWS, batch=_BATCH):
            pairs = batch.column("dataset").value_counts().to_pylist()
            counts.update({pair["values"]: pair["counts"] for pair in pairs})
        return dict(sorted(counts.items()))

    def stats(
        self, *, recall: bool = False, k: int = 10, sample: int = 50, seed: int = 0
    ) -> IndexStats:
        """Rows, data sets, spaces and search structures of the index.

        Args:
            recall: Also measure which share of the exact k nearest rows a search returns.
            k: Results per search of this measurement.
            sample: Number of rows, drawn at random, that are searched for.
            seed: Of the draw.
        """
        rows, spaces = self.count(), self.spaces
        return IndexStats(
            rows=rows,
            datasets=self.datasets(),
            spaces=spaces,
            engine=self.engine.describe(),
            recall={
                name: measure_recall(self.engine, name, k=k, queries=sample, seed=seed)
                for name in (spaces if recall and rows else ())
            },
        )

    def compact(self) -> None:
        """Merge small files, and build or update the search structures.

        A search also finds rows that were added later, only more slowly. Others may search
        meanwhile.
        """
        self.engine.compact()

    def rows(self, where: Where = _ALL_ROWS) -> Iterator[Any]:
        """Arrow record batches of whole rows with their vectors, in no particular order."""
        columns = [*ROW_COLUMNS, *sorted(self.spaces)]
        yield from self.engine.read(columns, where=where, batch=_BATCH)

    def export(self, path: str | Path, *, where: Where = _ALL_ROWS) -> int:
        """Write rows with their vectors to a Parquet file; returns their number.

        `datasets.load_dataset("parquet", data_files=...)`, pandas and others read it.
        """
        parquet = require("pyarrow.parquet", "search")
        schema = make_schema(self.spaces)
        count = 0
        with parquet.ParquetWriter(path, schema) as writer:
            for batch in self.rows(where):
                # Batches of an engine may lack the metadata or differ in nullability.
                writer.write_batch(batch.cast(schema))
                count += batch.num_rows
        return count

    def close(self) -> None:
        """Release files and memory."""
        self.engine.close()

    def __enter__(self) -> MaskIndex:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        models = {name: space.model for name, space in sorted(self.spaces.items())}
        made_by = ", ".join(f"{name}: {model!r}" for name, model in models.items())
        rows = f"{self.count():,} masks" + (f", {made_by}" if made_by else "")
        return f"MaskIndex({self.engine.uri!r}, {rows})"

    if not TYPE_CHECKING:  # a type checker should know of the real attributes only

        def __getattr__(self, name: str) -> Any:
            raise unknown_attribute(self, name, _ADVICE)


def _open_engine(
    uri: str,
    engine: EngineName | None,
    *,
    storage_options: Mapping[str, str] | None,
    address: str | None,
) -> LanceEngine:
    """The engine of a URI; see `MaskIndex.open`."""
    if engine not in (None, *get_args(EngineName)):
        raise ValueError(f"got engine {engine!r}; wanted 'memory', 'lance' or 'ray'")
    scheme = (re.match(r"([a-z0-9+]+)://", uri) or ["", ""])[1]
    # Lance also opens file:// and stores whose commits go through DynamoDB.
    is_stored = bool(uri) and scheme in ("", *_STORES, "s3+ddb", "file")
    in_memory = uri == IN_MEMORY and engine in (None, "memory")
    if not in_memory and (not is_stored or engine == "memory"):
        raise ValueError(
            f"cannot open {uri!r} with engine {engine!r}; wanted 'memory://' alone, a folder, or "
            f"{', '.join(f'{store}://' for store in _STORES)}"
        )
    if engine == "ray":
        return RayLanceEngine(uri, storage_options=storage_options, address=address)
    return LanceEngine(uri, storage_options=storage_options)
