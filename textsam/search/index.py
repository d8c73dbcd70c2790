"""`MaskIndex`: masks of many photos, found again by a phrase, a mask, a crop, or another photo.

index = MaskIndex.open("masks.lance", model=TextSAM.from_pretrained("tiny"))
index.add(rows, index.model.masks(photo, rles))
found = index.search(text="striped sail", k=20, where=Where(min_area=500))
best = found[0].score, found[0].row.image, found[0].row.box
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from textsam.errors import PromptError, require
from textsam.results.columns import MaskResult
from textsam.search import queries
from textsam.search.engines.opening import EngineName, open_engine
from textsam.search.engines.protocol import Engine
from textsam.search.queries import Embedder, LikeSource, MaskSource
from textsam.search.records import (
    ROW_COLUMNS,
    MaskRow,
    distinct,
    make_schema,
    make_table,
    read_vectors,
    spaces_of,
)
from textsam.search.results import SearchResult, SearchResults
from textsam.search.spaces import MaskVectors, SpaceName, VectorSpace
from textsam.search.stats import IndexStats, measure_recall
from textsam.search.where import Where
from textsam.values.images import load_image

if TYPE_CHECKING:
    from textsam.inference.model import TextSAM

__all__ = ["MaskIndex"]

_EVERYTHING = Where()
_BATCH = 8_192  # rows at once when all are read


class MaskIndex:
    """An index of masks. Make one with `MaskIndex.open`; close it, or use it in a `with`.

    Searching is safe from several threads and processes, also while another adds.
    """

    def __init__(self, engine: Engine, *, model: Embedder | None = None) -> None:
        """Wrap an engine; `MaskIndex.open` finds the one that fits a URI."""
        self.engine = engine
        self.model = model

    @classmethod
    def open(
        cls,
        uri: str | Path,
        *,
        model: Embedder | TextSAM | None = None,
        engine: EngineName | None = None,
        storage_options: Mapping[str, str] | None = None,
        address: str | None = None,
    ) -> MaskIndex:
        """Open an index, or begin one: it comes to be with the first row.

        Args:
            uri: A folder, `s3://bucket/path`, `gs://`, `az://`, or `memory://`.
            model: What embeds phrases and masks that are looked for: a model, which then embeds as
                the rows of the index were, or an embedder; None where only rows and vectors are.
            engine: "ray" builds search structures on a Ray cluster; None as the URI says.
            storage_options: Keys, region and endpoint of an object store.
            address: Of the Ray cluster; None for one on this machine.

        Raises:
            ValueError: A URI that no engine opens.
            MissingExtraError: A package is not installed.
        """
        opened = open_engine(
            str(uri), engine=engine, storage_options=storage_options, address=address
        )
        if model is not None and not isinstance(model, Embedder):
            from textsam.search.embed import Embedder as ModelEmbedder  # it imports the networks

            model = ModelEmbedder.of_spaces(model, opened.spaces())
        return cls(opened, model=model)

    @property
    def spaces(self) -> Mapping[SpaceName, VectorSpace]:
        """The spaces of its vectors; empty while nothing has ever been added."""
        return self.engine.spaces()

    def add(self, rows: Sequence[MaskRow], vectors: MaskVectors) -> int:
        """Add rows, all of them or, if this is interrupted, none.

        Rows that are there already, by their ids, stay as they are: adding twice is adding once.

        Args:
            rows: N masks. Some thousand at a time make the best files; each call is a commit.
            vectors: Theirs; of the index's spaces, all of them, or of the ones it shall have.

        Returns:
            How many rows were new.

        Raises:
            ValueError: Vectors of other spaces than the index's, or ones that do not fit the rows.
        """
        return self.add_table(make_table(rows, vectors))

    def add_table(self, table: Any) -> int:
        """Add the rows of an Arrow table of `records.make_table`; as `add`.

        Raises:
            ValueError: As `add`; or a table that is none of ours.
        """
        theirs = spaces_of(table.schema)
        began = not self.spaces
        self.check_spaces(theirs)
        added = self.engine.add(distinct(table)) if table.num_rows else 0
        if began and table.num_rows:
            # Another writer may have begun the index with other spaces in between.
            self.check_spaces(theirs)
        return added

    def check_spaces(self, theirs: Mapping[SpaceName, VectorSpace]) -> None:
        """Refuse spaces that are not those of this index; one without rows takes all.

        Raises:
            ValueError: Other spaces, or more or less of them.
        """
        ours = self.spaces
        if not ours:
            return
        if ours.keys() ^ theirs.keys():
            raise ValueError(
                f"got vectors of {sorted(theirs)}; this index holds {sorted(ours)}, and every row "
                "has them all"
            )
        for name, space in ours.items():
            queries.check_same(theirs[name], space)

    def search(
        self,
        *,
        text: str | None = None,
        image: Any | None = None,
        mask: MaskSource | MaskResult | None = None,
        like: LikeSource | None = None,
        vector: npt.ArrayLike | MaskVectors | None = None,
        k: int = 10,
        where: Where = _EVERYTHING,
        space: SpaceName = "clip",
        exact: bool = False,
    ) -> SearchResults:
        """Find the rows nearest to one thing.

        Args:
            text: A phrase; space "clip" only.
            image: A photo, or a crop of one; all of it, or the `mask` in it.
            mask: A mask (H, W) of `image`; or a `MaskResult`, which knows its photo.
            like: Results of a search, or masks that know their photo, one or several: their mean.
            vector: (width,) of the space; or `MaskVectors`, whose space is checked: their mean.
            k: How many at most.
            where: Which rows are meant.
            space: "clip" for what a thing is, "sam" for what it looks like.
            exact: Compare with every row.

        Raises:
            PromptError: Not one thing to look for, or one that cannot be embedded.
            ValueError: An index without rows, a space that it has not, vectors of another space.
        """
        if k < 1:
            raise ValueError(f"got k={k}; wanted 1 or more")
        ours = self.spaces.get(space)
        if ours is None:
            have = ", ".join(map(repr, self.spaces)) or "no rows yet"
            raise ValueError(f"this index has no vectors of space {space!r}; it has {have}")
        query = self._vector(ours, text=text, image=image, mask=mask, like=like, vector=vector)
        [found] = self.engine.search(space, query[None], k=k, where=where, exact=exact)
        return SearchResults(found, ours)

    def _vector(self, ours: VectorSpace, **given: Any) -> npt.NDArray[np.float32]:
        """The query (width,): of exactly one of `text`, `image` with or without `mask`, ..."""
        asked = [name for name, value in given.items() if value is not None]
        text, image, mask = given["text"], given["image"], given["mask"]
        like, vector = given["like"], given["vector"]
        if isinstance(mask, MaskResult) and image is None:
            asked, like = ["like" if name == "mask" else name for name in asked], mask
        if asked == ["mask"]:
            raise PromptError("got a mask without its photo. Type: search(image=photo, mask=mask)")
        if len(asked) != 1 and asked != ["image", "mask"]:
            raise PromptError(
                f"got {' and '.join(asked) or 'nothing'} to look for; wanted one of text, image "
                "(with or without mask), like, vector"
            )
        if isinstance(vector, MaskVectors):
            return queries.only_vector(vector, ours.name, ours)
        if vector is not None:
            return queries.unit(vector, width=ours.width)
        if like is not None:
            return self._like(like, ours)
        if text is not None:
            return queries.text_vector(self._embedder(), text, ours)
        if isinstance(mask, MaskResult):
            mask = mask.rle
        return queries.mask_vector(self._embedder(), load_image(image), mask, ours)

    def _like(self, like: LikeSource, ours: VectorSpace) -> npt.NDArray[np.float32]:
        """The mean direction of rows of this index and of masks that know their photo."""
        single = isinstance(like, SearchResult | MaskResult)
        items = [like] if single else list(cast("Sequence[SearchResult | MaskResult]", like))
        rows = [item.id for item in items if isinstance(item, SearchResult)]
        examples = [item for item in items if isinstance(item, MaskResult)]
        if not items or len(rows) + len(examples) != len(items):
            raise PromptError(
                f"got like={like!r}; wanted results of a search, or masks that know their photo"
            )
        vectors = []
        if rows:
            stored = self.vectors(rows, space=ours.name)
            vectors += [stored[name] for name in rows]
        if examples:
            vectors += [queries.examples_vector(self._embedder(), [e], ours) for e in examples]
        return queries.unit(np.mean(vectors, axis=0), width=ours.width)

    def _embedder(self) -> Embedder:
        if self.model is None:
            raise PromptError(
                "this index was opened without a model, so it can only search for its own rows and "
                "for vectors. Type: MaskIndex.open(uri, model=...)"
            )
        return self.model

    def vectors(
        self, ids: Sequence[str], *, space: SpaceName = "clip"
    ) -> dict[str, npt.NDArray[np.float32]]:
        """The stored vectors (width,) of rows, by id.

        Raises:
            ValueError: An id that is not there.
        """
        found: dict[str, npt.NDArray[np.float32]] = {}
        for batch in self.engine.read(["id", space], where=Where(ids=ids), batch=_BATCH):
            names = batch.column("id").to_pylist()
            found.update(zip(names, read_vectors(batch, space), strict=True))
        missing = [name for name in ids if name not in found]
        if missing:
            raise ValueError(f"there is no row {missing[0]!r} in this index (any more)")
        return found

    def delete(self, where: Where) -> int:
        """Remove rows; how many.

        Raises:
            ValueError: No condition at all, which would empty the index by accident.
        """
        if where.is_open:
            raise ValueError("delete(Where()) would remove every row; name what is meant")
        return self.engine.delete(where)

    def count(self, where: Where = _EVERYTHING) -> int:
        """How many rows are meant."""
        return self.engine.count(where)

    def datasets(self) -> dict[str, int]:
        """Number of rows of each data set, by name."""
        counts: Counter[str] = Counter()
        for batch in self.engine.read(["dataset"], where=_EVERYTHING, batch=_BATCH):
            told = batch.column("dataset").value_counts()
            counts.update({pair["values"]: pair["counts"] for pair in told.to_pylist()})
        return dict(sorted(counts.items()))

    def stats(
        self, *, recall: bool = False, k: int = 10, sample: int = 50, seed: int = 0
    ) -> IndexStats:
        """What the index holds.

        Args:
            recall: Measure also what share of the exact k nearest a search finds.
            k: See `recall`.
            sample: Rows, drawn at random, that are looked for to measure it.
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
        """Fold small files together, and build or update the search structures.

        Rows that were added since are found without it, only more slowly. Others may search
        meanwhile.
        """
        self.engine.compact()

    def rows(self, where: Where = _EVERYTHING) -> Iterator[Any]:
        """Arrow record batches of whole rows, vectors included, in no promised order."""
        columns = [*ROW_COLUMNS, *sorted(self.spaces)]
        yield from self.engine.read(columns, where=where, batch=_BATCH)

    def export(self, path: str | Path, *, where: Where = _EVERYTHING) -> int:
        """Write rows with their vectors to a Parquet file; how many.

        `datasets.load_dataset("parquet", data_files=...)` and anything else reads it.

        Raises:
            OSError: The file cannot be written.
        """
        parquet = require("pyarrow.parquet", "search")
        schema = make_schema(self.spaces)
        count = 0
        with parquet.ParquetWriter(path, schema) as writer:
            for batch in self.rows(where):
                writer.write_batch(batch.cast(schema))
                count += batch.num_rows
        return count

    def close(self) -> None:
        """Let go of files and memory."""
        self.engine.close()

    def __enter__(self) -> MaskIndex:
        """Give the index itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()
