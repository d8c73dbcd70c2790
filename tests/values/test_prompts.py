"""Prompts: what is accepted keeps its meaning, what cannot be meant is refused with advice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from textsam.errors import PromptError
from textsam.values.prompts import Prompt, make_prompt, normalize_phrases, plain_phrase

SIZE = (48, 64)  # height, width


def _mask() -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[3:9, 5:20] = True
    return mask


def test_everything_at_once() -> None:
    prompt = make_prompt(
        SIZE,
        text=" wheel ",
        points=[(1, 2), (3.5, 4)],
        labels=[1, 0],
        box=(1, 2, 30, 40),
        mask=_mask(),
    )
    assert prompt.text == "wheel"
    assert prompt.points.dtype == np.float32
    assert prompt.points.tolist() == [[1, 2], [3.5, 4]]
    assert prompt.labels.dtype == np.int64
    assert prompt.labels.tolist() == [1, 0]
    assert prompt.box is not None
    assert prompt.box.dtype == np.float32
    assert prompt.box.tolist() == [1, 2, 30, 40]
    assert prompt.mask is not None
    assert prompt.mask.dtype == np.bool_
    assert not prompt.is_empty


def test_one_thing_leaves_the_rest_empty_but_typed() -> None:
    prompt = make_prompt(SIZE, text="wheel")
    assert prompt.points.shape == (0, 2)
    assert prompt.labels.shape == (0,)
    assert prompt.box is None
    assert prompt.mask is None


def test_is_empty() -> None:
    assert Prompt().is_empty
    for given_ in ({"text": "a"}, {"points": [(1, 1)]}, {"box": (0, 0, 1, 1)}, {"mask": _mask()}):
        assert not make_prompt(SIZE, **given_).is_empty


@pytest.mark.parametrize("options", [{}, {"points": []}, {"points": [], "labels": []}])
def test_nothing_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(PromptError, match="there is no prompt"):
        make_prompt(SIZE, **options)


# Text ---------------------------------------------------------------------------------------------


def test_phrases() -> None:
    assert normalize_phrases("wheel") == ["wheel"]
    assert normalize_phrases(["a  red\n door", "wheel", "wheel"]) == [
        "a red door",
        "wheel",
        "wheel",
    ]
    assert normalize_phrases(("x",)) == ["x"]
    assert normalize_phrases(np.array(["x", "y"])) == ["x", "y"]  # type: ignore[arg-type]
    assert normalize_phrases("cafe\u0301") == ["caf\u00e9"]
    assert normalize_phrases("🐱") == ["🐱"]
    assert all(type(phrase) is str for phrase in normalize_phrases(np.array(["x"])))  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.text(min_size=1))
def test_phrases_are_normal_or_refused(text: str) -> None:
    try:
        (phrase,) = normalize_phrases(text)
    except PromptError:
        return
    assert phrase
    assert phrase == phrase.strip()
    assert normalize_phrases(phrase) == [phrase]


@pytest.mark.parametrize(
    "text", ["", "  ", "\n\t", "\u200b", "\u200b \u200b", 3, b"wheel", 1.5, True]
)
def test_texts_that_are_no_phrase(text: Any) -> None:
    with pytest.raises(PromptError, match="wanted a phrase"):
        make_prompt(SIZE, text=text)
    with pytest.raises(PromptError, match="wanted a phrase"):
        normalize_phrases(text)
    with pytest.raises(PromptError, match=r"text\[1\]"):
        normalize_phrases(["wheel", text])


@pytest.mark.parametrize("text", [[], (), None, {"wheel": 1}, {"wheel"}, iter(["wheel"])])
def test_lists_that_are_no_list_of_phrases(text: Any) -> None:
    with pytest.raises(PromptError, match="or a list"):
        normalize_phrases(text)


def test_one_prompt_is_one_phrase() -> None:
    with pytest.raises(PromptError, match="segment once for each"):
        make_prompt(SIZE, text=["wheel", "door"])  # type: ignore[arg-type]


# Points and labels --------------------------------------------------------------------------------

inside = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 5), st.just(2)),
    elements=st.floats(0, 48, allow_nan=False),
)


@settings(deadline=None)
@given(inside)
def test_points_of_any_kind_agree(points: np.ndarray) -> None:
    expected = points.astype(np.float32)
    for twin in (points, points.tolist(), [tuple(p) for p in points], torch.from_numpy(points)):
        prompt = make_prompt(SIZE, points=twin)
        np.testing.assert_array_equal(prompt.points, expected)
        assert prompt.labels.tolist() == [1] * len(points)
        assert not np.shares_memory(prompt.points, points)


def test_points_may_lie_on_the_far_edges() -> None:
    prompt = make_prompt(SIZE, points=[(0, 0), (64, 48)])
    assert prompt.points.tolist() == [[0, 0], [64, 48]]


def test_one_point_and_one_label() -> None:
    for labels in (0, [0], False, np.array(0), torch.tensor([0])):
        prompt = make_prompt(SIZE, points=(10, 20), labels=labels)
        assert prompt.points.tolist() == [[10, 20]]
        assert prompt.labels.tolist() == [0]


@pytest.mark.parametrize(
    "point", [(-0.1, 3), (64.01, 3), (3, -1), (3, 48.5), (1e300, 3), (-1e-3, 0)]
)
def test_points_outside(point: tuple[float, float]) -> None:
    with pytest.raises(PromptError, match=r"point 1 = .* outside .*<= 64 .*<= 48"):
        make_prompt(SIZE, points=[(1, 1), point])


def test_swapped_coordinates_are_suspected() -> None:
    with pytest.raises(PromptError, match="swapped"):
        make_prompt(SIZE, points=[(40, 60)])
    with pytest.raises(PromptError) as caught:
        make_prompt(SIZE, points=[(400, 600)])
    assert "swapped" not in str(caught.value)


@pytest.mark.parametrize(
    "points",
    [
        [(1, 2, 3)],
        [1, 2, 3],
        5,
        [[(1, 2)]],
        [(1, 2), (3,)],
        [("a", "b")],
        "1,2",
        [(1, None)],
        {"x": 1},
        [(np.nan, 1)],
        [(1, np.inf)],
        [(1j, 2)],
        torch.tensor([[1.0, float("nan")]]),
    ],
)
def test_points_that_are_none(points: Any) -> None:
    with pytest.raises(PromptError, match=r"wanted \(x, y\) pairs"):
        make_prompt(SIZE, points=points)


@pytest.mark.parametrize(
    "labels", [[1], [1, 0, 1], [1, 2], [1, -1], [1, 0.5], [1, np.nan], ["a", "b"], 1, [[1, 0]]]
)
def test_labels_that_do_not_fit(labels: Any) -> None:
    with pytest.raises(PromptError, match="wanted one label per point"):
        make_prompt(SIZE, points=[(1, 1), (2, 2)], labels=labels)


def test_labels_without_points() -> None:
    with pytest.raises(PromptError, match="without points"):
        make_prompt(SIZE, text="wheel", labels=[1])


# Boxes --------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.tuples(*[st.integers(-100, 100)] * 4).filter(lambda b: b[0] < b[2] and b[1] < b[3]),
)
def test_boxes_are_clipped_or_refused(box: tuple[int, int, int, int]) -> None:
    overlaps = box[0] < 64 and box[1] < 48 and box[2] > 0 and box[3] > 0
    if not overlaps:
        with pytest.raises(PromptError, match="outside the image"):
            make_prompt(SIZE, box=box)
        return
    expected = [max(box[0], 0), max(box[1], 0), min(box[2], 64), min(box[3], 48)]
    for twin in (box, list(box), np.array(box), torch.tensor(box)):
        clipped = make_prompt(SIZE, box=twin).box
        assert clipped is not None
        assert clipped.tolist() == expected


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (5, 5, 9, 5), (9, 5, 5, 9), (30, 20, 10, 15)])
def test_empty_boxes(box: tuple[int, ...]) -> None:
    with pytest.raises(PromptError, match=r"is empty.*boxes_from_xywh"):
        make_prompt(SIZE, box=box)


def test_slivers_that_round_to_nothing() -> None:
    with pytest.raises(PromptError, match="outside the image"):
        make_prompt(SIZE, box=(np.nextafter(64.0, 0), 0, 64, 10))


@pytest.mark.parametrize(
    "box",
    [
        (1, 2, 3),
        (1, 2, 3, 4, 5),
        [(1, 2, 3, 4)],
        5,
        "1,2,3,4",
        (1, 2, np.nan, 4),
        (1, 2, np.inf, 4),
        (1, 2, None, 4),
        [[1, 2], [3]],
        [],
    ],
)
def test_boxes_that_are_none(box: Any) -> None:
    with pytest.raises(PromptError, match="wanted x0, y0, x1, y1"):
        make_prompt(SIZE, box=box)


# Masks --------------------------------------------------------------------------------------------


def test_masks_of_any_kind_agree() -> None:
    mask = _mask()
    for twin in (
        mask,
        mask.tolist(),
        mask.astype(np.uint8),
        mask.astype(np.uint8) * 255,
        mask.astype(np.int64),
        torch.from_numpy(mask),
        np.asfortranarray(mask),
    ):
        made = make_prompt(SIZE, mask=twin).mask
        assert made is not None
        assert made.dtype == np.bool_
        assert made.flags.c_contiguous
        np.testing.assert_array_equal(made, mask)
        assert not (isinstance(twin, np.ndarray) and np.shares_memory(made, twin))


def test_logits_stay_logits() -> None:
    logits = np.random.default_rng(0).normal(size=SIZE)
    for twin in (logits, torch.from_numpy(logits), torch.from_numpy(logits).requires_grad_()):
        made = make_prompt(SIZE, mask=twin).mask
        assert made is not None
        assert made.dtype == np.float32
        np.testing.assert_allclose(made, logits, rtol=1e-6)
    half = make_prompt(SIZE, mask=torch.from_numpy(logits).bfloat16()).mask
    assert half is not None
    assert half.dtype == np.float32


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((64, 48), bool), r"wanted \(48, 64\)"),
        (np.ones((1, 48, 64), bool), r"wanted \(48, 64\)"),
        (np.zeros(SIZE, bool), "no pixel set"),
        (np.zeros(SIZE, np.uint8), "no pixel set"),
        (np.arange(48 * 64).reshape(SIZE), "label_map == number"),
        (np.full(SIZE, -1), "label_map == number"),
        (np.random.default_rng(0).random(SIZE), "mask > 0.5"),
        (np.full(SIZE, np.nan), "NaN"),
        (np.full(SIZE, -np.inf), "NaN or infinity"),
        (np.full(SIZE, "a"), "wanted bool"),
        (np.full(SIZE, 1j), "wanted bool"),
        (7, r"wanted \(48, 64\)"),
    ],
)
def test_masks_that_cannot_be_meant(mask: Any, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        make_prompt(SIZE, mask=mask)


def test_ragged_masks() -> None:
    with pytest.raises(PromptError, match="mask"):
        make_prompt(SIZE, mask=[[True], [True, False]])


@pytest.mark.parametrize("size", [None, 5, (5,), (1, 2, 3), (0, 4), (4.5, 3), ("a", "b"), "48"])
def test_sizes_that_are_none(size: Any) -> None:
    with pytest.raises(PromptError, match=r"wanted \(height, width\)"):
        make_prompt(size, text="wheel")


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("dog", "dog"),
        ('"dog"', "dog"),
        ("\u201cdog\u201d", "dog"),
        ("\u00abdog\u00bb", "dog"),
        ("dog.", "dog"),
        ("dog!?", "dog"),
        ("The dog", "dog"),
        ("all of the dogs", "of the dogs"),  # not a parser of English
        ("all the dogs", "dogs"),
        ("\ufeffdog", "dog"),
        ("d\u00adog\u200b", "dog"),
        ("\uff44og", "dog"),  # full width
        ("\u201cthe dog\u2019s tail.\u201d", "dog's tail"),
        ("the", "the"),
        ("?", "?"),
        ("a b", "b"),
        ("vitamin a", "vitamin a"),
    ],
)
def test_what_a_tower_reads_of_a_phrase(typed: str, read: str) -> None:
    assert plain_phrase(typed) == read


@given(st.text(min_size=1, max_size=30))
def test_plain_phrases_are_never_empty_and_stay_as_they_are(typed: str) -> None:
    read = plain_phrase(typed)
    assert read
    assert plain_phrase(read) == read
