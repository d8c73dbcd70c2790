"""The front of an index: what is asked for, what is refused, and what comes back."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from textsam.errors import PromptError
from textsam.results.mask_result import MaskResult
from textsam.search.index import MaskIndex
from textsam.search.queries import MaskEmbedder
from textsam.search.records import MaskRow, MaskVectors, VectorSpace, read_rows, read_vectors
from textsam.search.where import Where
from textsam.values.photo import Photo
from textsam.values.rle import encode_mask


@pytest.fixture
def index(known: ModuleType) -> MaskIndex:
    """Rows 0 to 39, and one row per embedding that `KnownEmbedder` gives in the tests."""
    made = MaskIndex.open("memory://", model=known.KnownEmbedder())
    rows = known.make_rows("ships", range(40))
    made.add(rows, known.vectors_of(rows))
    return made


def photo(value: int) -> np.ndarray:
    return np.full((6, 9, 3), value, dtype=np.uint8)


def mask_of(area: int) -> np.ndarray:
    mask = np.zeros(54, dtype=np.bool_)
    mask[:area] = True
    return mask.reshape(6, 9)


def nearest(index: MaskIndex, vector: np.ndarray, **options: Any) -> list[str]:
    return [result.id for result in index.search(vector=vector, **options)]


def ids(results: Any) -> list[str]:
    return [result.id for result in results]


def test_the_fake_is_an_embedder(known: ModuleType) -> None:
    assert isinstance(known.KnownEmbedder(), MaskEmbedder)


def test_text(index: MaskIndex, known: ModuleType) -> None:
    query = known.vector("striped sail", known.CLIP)
    assert ids(index.search(text="striped sail", k=7)) == nearest(index, query, k=7)
    with pytest.raises(PromptError, match="which has no phrases"):
        index.search(text="striped sail", space="sam")
    with pytest.raises(PromptError, match="wanted a phrase"):
        index.search(text=" ")


@pytest.mark.parametrize("space", ["clip", "sam"])
def test_photo_and_mask(index: MaskIndex, known: ModuleType, space: str) -> None:
    def key(text: str) -> list[str]:
        return nearest(index, known.vector(text, known.SPACES[space]), space=space)

    mask = mask_of(5)
    assert ids(index.search(image=photo(3), space=space)) == key("3#54")
    assert ids(index.search(image=photo(3), mask=mask, space=space)) == key("3#5")
    assert ids(index.search(image=photo(3), mask=encode_mask(mask), space=space)) == key("3#5")
    knows = MaskResult(encode_mask(mask), photo=Photo(photo(4)))
    assert ids(index.search(mask=knows, space=space)) == key("4#5")
    assert ids(index.search(like=knows, space=space)) == key("4#5")
    assert ids(index.search(mask=knows, image=photo(2), space=space)) == key("2#5")


def test_like(index: MaskIndex, known: ModuleType) -> None:
    rows = known.make_rows("ships", range(40))
    first, second = (index.search(vector=known.vector(f"{n}#q", known.CLIP))[0] for n in (1, 2))
    stored = [
        known.vector(known.key_of(row), known.SAM)
        for row in rows
        if row.id in (first.id, second.id)
    ]
    assert nearest(index, stored[0] + stored[1], space="sam") == ids(
        index.search(like=[first, second], space="sam")
    )
    # A row is the nearest to itself, in a space that it was not found in, and without a model.
    bare = MaskIndex(index.engine)
    assert bare.search(like=first, space="sam")[0].id == first.id
    mixed = index.search(like=[first, MaskResult(encode_mask(mask_of(5)), photo=Photo(photo(3)))])
    both = index.vectors([first.id])[first.id] + known.vector("3#5", known.CLIP)
    assert ids(mixed) == nearest(index, both)
    index.delete(Where(ids=[first.id]))
    with pytest.raises(ValueError, match="no row"):
        index.search(like=first)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({}, "nothing to look for"),
        ({"text": "a", "image": photo(1)}, "text and image"),
        ({"vector": np.ones(32), "like": []}, "like and vector"),
        ({"mask": mask_of(3)}, "without its photo"),
        ({"text": "a", "mask": mask_of(3)}, "text and mask"),
        ({"like": []}, "wanted results of a search"),
        ({"like": ["an id"]}, "wanted results of a search"),
        ({"like": MaskResult(encode_mask(mask_of(3)))}, "does not know its photo"),
        ({"image": photo(1), "mask": np.ones((3, 3), dtype=np.bool_)}, "size"),
        ({"image": photo(1), "mask": np.zeros((6, 9), dtype=np.bool_)}, "empty"),
        ({"vector": np.ones(31)}, r"wanted \(32,\)"),
        ({"vector": np.zeros(32)}, "has a direction"),
        ({"vector": np.full(32, np.nan)}, "has a direction"),
        ({"text": "a", "k": 0}, "k=0"),
    ],
)
def test_what_is_no_question(index: MaskIndex, asked: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        index.search(**asked)


def other(space: VectorSpace, **changes: Any) -> VectorSpace:
    return VectorSpace(**{**vars(space), **changes})


@pytest.mark.parametrize(
    "change", [{"model": "another/one"}, {"preprocessing": "c3"}, {"width": 24}]
)
def test_vectors_of_another_space(
    index: MaskIndex, known: ModuleType, change: dict[str, Any]
) -> None:
    """Refused when added and when asked for; the error tells both spaces and what differs."""
    foreign = other(known.CLIP, **change)
    rows = known.make_rows("ports", range(3))
    vectors = {"clip": np.eye(3, foreign.width, dtype=np.float32)}
    alone = MaskVectors(spaces={"clip": foreign}, vectors=vectors)
    both = MaskVectors(
        spaces={"clip": foreign, "sam": known.SAM},
        vectors={**vectors, "sam": known.vectors_of(rows).vectors["sam"]},
    )
    [(name, value)] = change.items()
    says = rf"(?s)(?=.*{value}.*{getattr(known.CLIP, name)}).*differ in {name},"
    with pytest.raises(ValueError, match=says):
        index.add(rows, both)
    with pytest.raises(ValueError, match=says):
        index.search(vector=alone)
    with pytest.raises(ValueError, match="every row needs all of them"):
        index.add(rows, alone)
    assert index.count() == 40

    embedder = known.KnownEmbedder()
    embedder.spaces = {"clip": foreign}
    asking = MaskIndex(index.engine, model=embedder)
    with pytest.raises(ValueError, match=says):
        asking.search(text="sail")
    with pytest.raises(ValueError, match=says):
        asking.search(image=photo(1))
    with pytest.raises(ValueError, match="no vectors of space 'sam'"):
        asking.search(image=photo(1), space="sam")


def test_vectors_that_do_not_fit(index: MaskIndex, known: ModuleType) -> None:
    rows = known.make_rows("ports", range(3))
    good = known.vectors_of(rows)

    def with_clip(array: np.ndarray) -> MaskVectors:
        return MaskVectors(spaces=good.spaces, vectors={**good.vectors, "clip": array})

    with pytest.raises(ValueError, match="one per row"):
        index.add(rows[:2], good)
    with pytest.raises(ValueError, match="length 2"):
        index.add(rows, with_clip(2 * good.vectors["clip"]))
    with pytest.raises(ValueError, match="length nan"):
        index.add(rows, with_clip(np.full((3, 32), np.nan, dtype=np.float32)))
    empty = MaskRow(dataset="ports", image="9", rle=encode_mask(np.zeros((8, 12), dtype=np.bool_)))
    with pytest.raises(ValueError, match="mask 1 of 3 is empty"):
        index.add([rows[0], empty, rows[2]], good)
    assert index.count() == 40


def test_an_index_of_one_space(known: ModuleType) -> None:
    rows = known.make_rows("ships", range(5))
    vectors = known.vectors_of(rows)
    index = MaskIndex.open("memory://")
    index.add(rows, MaskVectors(spaces={"sam": known.SAM}, vectors={"sam": vectors.vectors["sam"]}))
    assert index.search(vector=vectors.vectors["sam"][2], space="sam")[0].id == rows[2].id
    with pytest.raises(ValueError, match="no vectors of space 'clip'; it has 'sam'"):
        index.search(vector=vectors.vectors["clip"][2])


def test_export(index: MaskIndex, known: ModuleType, tmp_path: Path) -> None:
    """A Parquet file with everything, from which the same index can be made."""
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "masks.parquet"
    assert index.export(path, where=Where(labels=["sail", None])) == 20
    table = parquet.read_table(path)
    copy = MaskIndex.open("memory://")
    rows = list(read_rows(table))
    vectors = {name: read_vectors(table, name) for name in known.SPACES}
    assert copy.add(rows, MaskVectors(spaces=known.SPACES, vectors=vectors)) == 20
    query, where = known.vector("3#x", known.CLIP), Where(labels=["sail", None])
    assert nearest(copy, query) == nearest(index, query, where=where)


def test_row_ids() -> None:
    """From data set, photo, mask and label, and from nothing else."""
    row = MaskRow(dataset="a", image="b", rle=encode_mask(mask_of(3)), label="c")
    same = MaskRow(dataset="a", image="b", rle=encode_mask(mask_of(3)), label="c", score=0.5)
    others = [
        MaskRow(dataset="ab", image="", rle=row.rle, label="c"),
        MaskRow(dataset="a", image="b", rle=row.rle),
        MaskRow(dataset="a", image="b", rle=row.rle, label=""),
        MaskRow(dataset="a", image="b", rle=encode_mask(mask_of(4)), label="c"),
        MaskRow(dataset="a", image="b", rle=encode_mask(mask_of(3).T), label="c"),
    ]
    assert row.id == same.id and len(row.id) == 32
    assert len({row.id, *(one.id for one in others)}) == 6


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"labels": "sail"}, r"labels=\['sail'\]"),
        ({"datasets": []}, "no row can match"),
        ({"datasets": [None]}, "wanted strings"),
        ({"min_area": -1}, "from 0 up"),
        ({"max_aspect": float("nan")}, "from 0 up"),
        ({"max_area": float("inf")}, "no bound"),
        ({"min_area": 5, "max_area": 4}, "above"),
    ],
)
def test_conditions_that_cannot_be_meant(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Where(**given)


@pytest.mark.parametrize(
    ("uri", "engine"),
    [
        ("http://x/y", None),
        ("memory://x", None),
        ("memory://", "lance"),
        ("a", "memory"),
        ("", None),
    ],
)
def test_what_no_engine_opens(uri: str, engine: Any) -> None:
    with pytest.raises(ValueError, match="wanted"):
        MaskIndex.open(uri, engine=engine)


def test_a_table_of_others(tmp_path: Path) -> None:
    lancedb = pytest.importorskip("lancedb")
    lancedb.connect(tmp_path).create_table("masks", [{"id": "a"}])
    with pytest.raises(ValueError, match="no index of masks"):
        _ = MaskIndex.open(tmp_path).spaces
