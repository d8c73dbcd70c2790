"""The keywords of `segment`: the same everywhere, checked once, with advice for a wrong one."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import textsam
from textsam.batch.folders import segment_folder
from textsam.errors import PromptError, UnknownKeywordError
from textsam.inference.model import TextSAM, segment
from textsam.inference.strategies.query import (
    ObjectOptions,
    PhraseOptions,
    PromptOptions,
    Query,
    QueryOptions,
    SegmentOptions,
    make_query,
)
from textsam.inference.tiled.tiled_view import TiledView
from textsam.inference.view import ImageView

# Each function that takes keywords of a query, and its typed dictionary.
TAKES = {
    segment: SegmentOptions,
    TextSAM.segment: SegmentOptions,
    TextSAM.__call__: SegmentOptions,
    ImageView.segment: SegmentOptions,
    ImageView.__call__: SegmentOptions,
    ImageView.explain: PhraseOptions,
    TiledView.segment: PhraseOptions,
    TiledView.explain: PhraseOptions,
    segment_folder: PromptOptions,
}


@pytest.mark.parametrize(("function", "options"), TAKES.items())
def test_editors_and_help_see_the_same_keywords(function: Any, options: Any) -> None:
    assert function.__annotations__["options"] == f"Unpack[{options.__name__}]"
    parameters = inspect.signature(function).parameters
    assert options.__annotations__.keys() <= parameters.keys()
    assert all(p.kind is not p.VAR_KEYWORD for p in parameters.values())
    assert parameters["strategy"].default == "auto" and parameters["overlap"].default == "allow"


def test_each_keyword_is_documented_once_and_has_a_field() -> None:
    fields = Query.__dataclass_fields__.keys() - {"phrases"} | {"text"}
    assert QueryOptions.__annotations__.keys() == fields
    documented = (PhraseOptions, ObjectOptions, PromptOptions, SegmentOptions)
    texts = [options.__doc__ or "" for options in documented]
    for keyword in QueryOptions.__annotations__:
        assert sum(len(re.findall(rf"^ +{keyword}: ", text, re.M)) for text in texts) == 1


@pytest.mark.parametrize(
    ("typed", "keyword"),
    [
        ("bboxes", "boxes"),
        ("bbox", "box"),
        ("prompt", "text"),
        ("text_prompt", "text"),
        ("conf", "threshold"),
        ("box_threshold", "threshold"),
        ("point_coords", "points"),
        ("point_labels", "labels"),
        ("multimask_output", "multimask"),
        ("treshold", "threshold"),
        ("exlude", "exclude"),
    ],
)
def test_an_unknown_keyword_names_the_nearest(typed: str, keyword: str) -> None:
    with pytest.raises(UnknownKeywordError, match=f"'{typed}'. Type: {keyword}=") as caught:
        make_query(**{typed: 1})
    assert isinstance(caught.value, PromptError) and isinstance(caught.value, TypeError)


def test_a_keyword_like_no_other_lists_all() -> None:
    with pytest.raises(UnknownKeywordError, match=r"'zzz'; wanted some of text, .*exclude"):
        make_query(zzz=1)


def test_an_unknown_keyword_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    """With a model that does not exist and a photo that does not exist, the keyword is named."""
    with pytest.raises(UnknownKeywordError):
        segment("nowhere.jpg", model="nowhere", bbox=(0, 0, 4, 4))
    with pytest.raises(UnknownKeywordError, match="Type: text="):
        segment_folder(None, "nowhere", tmp_path, prompt="wheel")
    # A folder of photos takes no mask, which belongs to one photo.
    with pytest.raises(UnknownKeywordError, match="'mask'"):
        segment_folder(None, "nowhere", tmp_path, mask=np.ones((2, 2)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to segment"),
        ({"text": None, "box": None}, "nothing to segment"),
        ({"text": "a", "labels": [1]}, "labels belong to points"),
        ({"text": "a", "threshold": 1.5}, "threshold is 1.5"),
        ({"text": "a", "threshold": "high"}, "threshold is 'high'"),
        ({"text": "a", "strategy": "guess"}, "strategy is 'guess'; wanted one of 'auto'"),
        ({"text": "a", "overlap": "maybe"}, "overlap is 'maybe'"),
        ({"text": "a", "exclude": "a"}, "'a' is in text and in exclude"),
        ({"text": "a", "background": " "}, "empty"),
        ({"text": "a", "exclude": "b", "strategy": "prompt"}, "exclude does not work with"),
        ({"text": "a", "box": (0, 0, 2, 2), "background": "b"}, "background goes with phrases"),
        ({"text": ["a", "b"], "points": [(1, 1)]}, "2 phrases with points"),
        ({"like": object(), "text": "a"}, "like replaces text"),
        ({"like": object(), "strategy": "rank"}, "like replaces text"),
    ],
)
def test_what_does_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        make_query(**options)


def test_a_query_has_one_form() -> None:
    query = make_query(text=["a", " a ", "b  c"], exclude="d", threshold=0.25)
    assert query.phrases == ("a", "b c") and query.exclude == ("d",)
    assert not query.is_placed
    query = make_query(text="a", box=[0, 1, 2, 3], strategy="auto", overlap=None)
    assert query.is_placed and query.overlap == "allow"
    assert query.prompt((5, 5)).box.tolist() == [0, 1, 2, 3]


def test_a_query_is_answered_by_a_view(model: TextSAM, photo: Any) -> None:
    query = textsam.Query(phrases=("dog",), strategy="rank")
    result = model.open(photo).ask(query)
    assert result.rles == model.segment(photo, text="dog", strategy="rank").rles


# What the documentation calls --------------------------------------------------------------------


def test_keywords_of_the_documentation_exist(repo: Path) -> None:
    known = QueryOptions.__annotations__.keys() | {"model", "progress", "format", "kind"}
    known |= {"overwrite", "on_progress"}
    count = 0
    for page in [repo / "README.md", *(repo / "docs").glob("*.md")]:
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.M | re.S):
            for call in (node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)):
                name = getattr(call.func, "attr", getattr(call.func, "id", ""))
                if name in ("segment", "explain", "segment_folder"):
                    count += 1
                    assert {word.arg for word in call.keywords if word.arg} <= known, page.name
    assert count > 10
