"""Answers stay what they were: masks to the pixel, scores to 1e-6.

`golden.json` holds the answers to the questions in `answers.py`. On another CPU, or with other
versions of torch, numpy and pillow, the last digits of floats differ, and with them a few pixels
and the masks at a threshold. There the comparison is rough, and `test_exact_comparison` is skipped
with a message that says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.golden import answers
from tests.golden.record import RECORD

GOLDEN = json.loads(RECORD.read_text(encoding="utf-8"))
EXACT = GOLDEN["machine"] == answers.machine()

_DIGITS = 1e-6
_ROUGH_SCORE = 1e-3
_ROUGH_AREA = 0.02
_ROUGH_SIDE = 3  # pixels of a box
_ROUGH_LOST = 0.1  # share of masks that may be others on another machine


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums are split among threads, and so are rounded otherwise with another number of them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_exact_comparison() -> None:
    if not EXACT:
        pytest.skip(
            f"compared roughly: recorded on {GOLDEN['machine']}, run on {answers.machine()}"
        )


def test_every_question_is_recorded() -> None:
    assert list(GOLDEN["answers"]) == list(answers.QUESTIONS)


@pytest.mark.parametrize("name", answers.QUESTIONS)
def test_answers(name: str) -> None:
    got = json.loads(json.dumps(answers.QUESTIONS[name]()))
    wanted = GOLDEN["answers"][name]
    differences = list(compare(got, wanted, name) if EXACT else compare_roughly(got, wanted, name))
    assert not differences, "\n".join(differences[:20])


def compare(got: Any, wanted: Any, where: str) -> Iterator[str]:
    """Everything that differs."""
    if isinstance(got, dict) and isinstance(wanted, dict) and list(got) == list(wanted):
        for key in wanted:
            yield from compare(got[key], wanted[key], f"{where}.{key}")
    elif isinstance(got, list) and isinstance(wanted, list) and len(got) == len(wanted):
        for place, (one, other) in enumerate(zip(got, wanted, strict=True)):
            yield from compare(one, other, f"{where}[{place}]")
    elif isinstance(got, float) and isinstance(wanted, float):
        if not math.isclose(got, wanted, rel_tol=_DIGITS, abs_tol=_DIGITS):
            yield f"{where}: got {got}, recorded {wanted}"
    elif got != wanted:
        yield f"{where}:\n  got      {got}\n  recorded {wanted}"


def compare_roughly(got: Any, wanted: Any, where: str) -> Iterator[str]:
    """Phrases whose presence differs, and results most of whose masks have no counterpart."""
    if isinstance(wanted, list):
        for place, (one, other) in enumerate(zip(got, wanted, strict=True)):
            if isinstance(other, dict):
                yield from compare_roughly(one, other, f"{where}[{place}]")
    elif isinstance(wanted, dict) and "masks" in wanted and "presence" in wanted:
        for phrase, presence in wanted["presence"].items():
            if not _is_near(got["presence"].get(phrase), presence):
                yield f"{where}: presence of {phrase!r} {got['presence']}, recorded {presence}"
        lost = [mask for mask in wanted["masks"] if not _has_counterpart(mask, got["masks"])]
        surplus = abs(len(got["masks"]) - len(wanted["masks"]))
        if max(len(lost), surplus) > 1 + _ROUGH_LOST * len(wanted["masks"]):
            yield f"{where}: {len(got['masks'])} masks; lost {lost}"
    elif isinstance(wanted, dict):
        for key, value in wanted.items():
            if isinstance(value, dict | list):
                yield from compare_roughly(got[key], value, f"{where}.{key}")


def _has_counterpart(mask: dict[str, Any], others: list[dict[str, Any]]) -> bool:
    return any(
        mask["label"] == other["label"]
        and abs(mask["area"] - other["area"]) <= _ROUGH_SIDE + _ROUGH_AREA * mask["area"]
        and all(abs(a - b) <= _ROUGH_SIDE for a, b in zip(mask["box"], other["box"], strict=True))
        and _is_near(mask["score"], other["score"])
        for other in others
    )


def _is_near(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= _ROUGH_SCORE
