"""Exclusive masks: every pixel belongs to at most one, parts win from wholes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textsam.inference.strategies.overlap import without_overlap
from textsam.values.judge import Candidate, PhraseAnswer
from textsam.values.rle import decode_rle, encode_masks


def _answer(phrase: str, *items: tuple[np.ndarray, float]) -> PhraseAnswer:
    candidates = tuple(Candidate(rle=encode_masks(m[None])[0], score=s) for m, s in items)
    return PhraseAnswer(phrase=phrase, strategy="auto", candidates=candidates)


def _box(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((20, 30), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def _masks(answer: PhraseAnswer) -> list[np.ndarray]:
    return [decode_rle(c.rle) for c in answer.kept]


def test_the_better_score_wins() -> None:
    a, b = _box(0, 0, 10, 10), _box(6, 0, 16, 10)
    low, high = without_overlap([_answer("a", (a, 0.6)), _answer("b", (b, 0.9))])
    np.testing.assert_array_equal(_masks(high)[0], b)
    np.testing.assert_array_equal(_masks(low)[0], a & ~b)


def test_a_part_keeps_its_pixels_from_the_whole() -> None:
    car, wheel = _box(0, 0, 20, 15), _box(2, 10, 6, 14)
    first, second = without_overlap([_answer("car", (car, 0.95)), _answer("wheel", (wheel, 0.6))])
    np.testing.assert_array_equal(_masks(second)[0], wheel)
    np.testing.assert_array_equal(_masks(first)[0], car & ~wheel)


def test_a_mask_that_loses_most_of_itself_is_dropped_with_its_gate() -> None:
    a, b = _box(0, 0, 10, 10), _box(1, 0, 11, 10)
    low, high = without_overlap([_answer("a", (a, 0.6)), _answer("b", (b, 0.9))])
    assert low.kept == () and low.gate == "overlap" and "belongs to other" in low.reason
    assert len(high.kept) == 1


@given(st.integers(0, 10_000))
def test_no_pixel_is_shared_and_none_appears(seed: int) -> None:
    rng = np.random.default_rng(seed)
    answers, before = [], np.zeros((20, 30), bool)
    for name in "abc":
        items = []
        for _ in range(int(rng.integers(0, 4))):
            x0, y0 = rng.integers(0, 25), rng.integers(0, 15)
            mask = _box(x0, y0, x0 + int(rng.integers(1, 12)), y0 + int(rng.integers(1, 12)))
            items.append((mask, float(rng.random())))
            before |= mask
        answers.append(_answer(name, *items))
    masks = [m for answer in without_overlap(answers) for m in _masks(answer)]
    total = np.sum(masks, axis=0) if masks else np.zeros((20, 30))
    assert total.max() <= 1
    assert not (total.astype(bool) & ~before).any()


def test_one_mask_stays_as_it_is() -> None:
    answers = [_answer("a", (_box(0, 0, 5, 5), 0.5)), _answer("b")]
    assert without_overlap(answers)[0].candidates[0] is answers[0].candidates[0]


def test_dropped_candidates_take_nothing() -> None:
    mask = _box(0, 0, 10, 10)
    dropped = Candidate(rle=encode_masks(mask[None])[0], score=0.99, gate="score")
    answer = PhraseAnswer(phrase="x", strategy="auto", candidates=(dropped,), gate="score")
    other = _answer("a", (mask, 0.5), (_box(20, 0, 25, 5), 0.4))
    result = without_overlap([answer, other])
    np.testing.assert_array_equal(_masks(result[1])[0], mask)


@pytest.mark.parametrize("overlap", ["allow", "exclusive"])
def test_a_model_takes_the_option(model, photo, overlap: str) -> None:  # type: ignore[no-untyped-def]
    result = model.open(photo).segment(text=["a", "b"], threshold=0.01, overlap=overlap)
    if overlap == "exclusive" and len(result):
        assert result.masks.sum(0).max() <= 1
