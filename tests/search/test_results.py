"""What a search returns: rows, columns, a printed table; and calls that other libraries teach."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from textsam.inference.model import TextSAM
from textsam.results.mask_result import MaskResult
from textsam.search import Embedder, MaskIndex, MaskRow, SearchResults, Where
from textsam.values.rle import encode_mask


@pytest.fixture
def index(known: ModuleType) -> MaskIndex:
    made = MaskIndex.open("memory://", model=known.KnownEmbedder())
    rows = known.make_rows("ships", range(40))
    made.add(rows, known.vectors_of(rows))
    return made


@pytest.fixture
def results(index: MaskIndex, known: ModuleType) -> SearchResults:
    return index.search(vector=known.vector("3#x", known.CLIP), k=6)


def test_a_sequence_of_rows(results: SearchResults) -> None:
    assert len(results) == 6 and list(results[1:3]) == [results[1], results[2]]
    assert results[-1] == results[5] and results[::2].cosines == results.cosines[::2]
    assert results.cosines == sorted(results.cosines, reverse=True)
    assert [result.id for result in results] == [results[i].id for i in range(6)]
    assert all(isinstance(result, MaskRow) for result in results)
    with pytest.raises(IndexError, match="there are 6"):
        results[6]


def test_columns_by_name(results: SearchResults) -> None:
    for name in ("label", "cosine", "image", "area"):
        assert results[name] == [getattr(result, name) for result in results]
        assert results[2][name] == results[name][2]
    for part in (results, results[0]):
        with pytest.raises(KeyError, match="wanted one of"):
            part["colour"]


def test_tables_of_others(results: SearchResults) -> None:
    dataset, frame = results.to_dataset(), results.to_pandas()
    assert len(dataset) == len(frame) == results.table.num_rows == 6
    assert [label or None for label in frame["label"].fillna("")] == results["label"]
    for row, result in zip(dataset, results, strict=True):
        assert row["id"] == result.id and row["cosine"] == result.cosine
        assert row["rle"]["counts"].encode() == result.rle.counts
        assert row["rle"]["size"] == [8, 12] and row["box"] == result.box.tolist()
        assert (row["area"], row["label"]) == (result.area, result.label)


def test_printed_as_a_table(index: MaskIndex, known: ModuleType, results: SearchResults) -> None:
    lines = repr(results).splitlines()
    assert lines[0] == "SearchResults: 6 masks, space 'clip'" and len(lines) == 8
    assert lines[1].split()[:2] == ["cosine", "label"]
    for line, result in zip(lines[2:], results, strict=True):
        assert f"{result.cosine:.3f}" in line and result.image in line
        assert " ".join(map(str, result.box)) in line
    assert max(map(len, lines)) < 120
    query = known.vector("3#x", known.CLIP)
    many = repr(index.search(vector=query, k=40))
    assert many.count("\n") == 22 and many.endswith("... 20 more")
    none = index.search(vector=query, where=Where(datasets=["none"]))
    assert repr(none) == "SearchResults: no masks, space 'clip'"
    assert "<td>" not in none._repr_html_()
    one = repr(results[0])
    assert one.startswith(f"SearchResult(cosine={results[0].cosine:.3f}, label=")
    assert "counts" not in one and "nan" not in one


def test_a_notebook_shows_text_not_markup(known: ModuleType) -> None:
    row = MaskRow(
        dataset="<b>",
        image="x" * 60 + "/last.jpg",
        rle=known.make_rows("", [0])[0].rle,
        label="<i>",
    )
    index = MaskIndex.open("memory://")
    index.add([row], known.vectors_of([known.make_rows("ships", [0])[0]]))
    html = index.search(vector=np.ones(32))._repr_html_()
    assert "<i>" not in html and "&lt;i&gt;" in html and "&lt;b&gt;" in html
    assert "x" * 40 not in html and "/last.jpg" in html


def test_results_can_be_copied(results: SearchResults) -> None:
    for other in (copy.copy(results), pickle.loads(pickle.dumps(results))):
        assert list(other) == list(results)


def test_a_row_of_results_is_a_row(index: MaskIndex, known: ModuleType) -> None:
    """It can be looked for and added like any other."""
    [found] = index.search(vector=known.vector("3#x", known.CLIP), k=1)
    assert index.search(like=found, k=1)[0] == index.search(like=MaskRow(**plain(found)), k=1)[0]
    assert index.add([found], known.vectors_of([found])) == 0


def plain(row: MaskRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("dataset", "image", "rle", "label")}


def test_what_users_of_other_libraries_type(index: MaskIndex, known: ModuleType) -> None:
    """A phrase and k by position (sentence-transformers), lengths, an index as truth value."""
    assert index.search("sail", 3).cosines == index.search(text="sail", k=3).cosines
    assert len(index) == index.count() == 40
    assert MaskIndex.open("memory://") and len(MaskIndex.open("memory://")) == 0
    assert repr(index) == "MaskIndex('memory://', 40 masks, clip: 'tests/clip', sam: 'tests/sam')"
    vectors = known.vectors_of(known.make_rows("ships", range(3)))
    assert repr(vectors) == "MaskVectors(clip (3, 32), sam (3, 16))"
    assert vectors["clip"] is vectors.vectors["clip"]


QUERY = np.zeros(32, np.float32)
MASK = MaskResult(encode_mask(np.ones((2, 2), np.bool_)))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda index, _: index.search(QUERY), r"search\(vector=query\)"),
        (lambda index, _: index.search(QUERY[None], 5), r"search\(vector=query\[0\]"),
        (lambda index, _: index.search(MASK), r"search\(like=query\)"),
        (lambda index, _: index.search([MASK]), r"search\("),
        (lambda index, _: index.search(Path("crop.jpg")), r"search\(image=query\)"),
        (lambda index, _: index.search(like="crop.jpg"), "type: image=photo"),
        (lambda index, _: index.search("sail", where="area > 500"), r"Where\(labels="),
        (lambda index, _: index.search("sail", where={"label": "sail"}), r"Where\(labels="),
        (
            lambda index, _: index.search("sail", limit=5),
            "'limit'. Type: k=; wanted some of text, k",
        ),
        (lambda index, _: index.search("sail", wher=None), "'wher'. Type: where="),
        (lambda index, _: index.search("sail").limit(5), r"k=5\), or results\[:5\]"),
        (lambda index, _: index.search("sail").scores, r"results\.cosines"),
        (lambda index, _: index.search("sail").select([0]), "It has cosines, .*to_pandas"),
        (lambda index, _: index.ntotal, r"len\(index\)"),
        (lambda index, _: index.model, r"index\.embedder\.model"),
        (lambda index, _: index.get_nearest_examples("clip", QUERY), "It has add, .*search"),
        (lambda index, _: MaskIndex("masks.lance"), r"MaskIndex\.open\('masks\.lance'\)"),
        (lambda index, _: MaskIndex.open("memory://").search("sail"), "textsam embed PHOTOS"),
        (lambda index, model: Embedder(model).encode("sail"), r"embedder\.text\(phrase\)"),
        (lambda index, model: Embedder(model).text(["sail", "boat"]), r"np\.stack"),
        (lambda index, _: Embedder(3), "wanted a name such as 'tiny'"),
    ],
)
def test_what_works_otherwise_is_said(
    index: MaskIndex, model: TextSAM, call: Any, says: str
) -> None:
    with pytest.raises((ValueError, AttributeError, TypeError), match=says):
        call(index, model)
