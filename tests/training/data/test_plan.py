"""Which photo comes when."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest

from training.data.plan import Plan, RowOrder, Use, _shuffled, photo_seed, random_for


def test_shares_are_kept_and_every_ordinal_comes_once_in_order() -> None:
    plan = Plan({"a": 5, "b": 3, "c": 1e-9}, seed=3, photos=64)
    draws = [draw for step in range(2 * 16384 // 64) for draw in plan.draws(step)]
    counts = Counter(draw.source for draw in draws)
    assert counts["c"] == 2  # at least one in a block
    assert counts["a"] / len(draws) == pytest.approx(5 / 8, abs=2e-4)
    for name in plan.names:
        ordinals = [draw.ordinal for draw in draws if draw.source == name]
        assert ordinals == list(range(counts[name]))


def test_a_step_is_the_same_in_whatever_order_and_process_it_is_asked_for() -> None:
    plan = Plan({"a": 1, "b": 1}, seed=3, photos=48)
    late = plan.draws(5000)
    other = pickle.loads(pickle.dumps(Plan({"a": 1, "b": 1}, seed=3, photos=48)))
    for step in range(3):
        other.draws(step)
    assert other.draws(5000) == late
    assert Plan({"a": 1, "b": 1}, seed=4, photos=48).draws(5000) != late


def test_shares_that_cannot_be_meant_are_refused() -> None:
    for share in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="wanted a positive number"):
            Plan({"a": share}, seed=0, photos=1)


@pytest.mark.parametrize("count", [1, 2, 37, 70_001])
def test_an_epoch_shows_every_row_once(count: int) -> None:
    order = RowOrder([count], window=1, key=(1,))
    step = 1 if count < 100 else 1009  # of a large set the permutation is sampled
    first = [order.row(i) for i in range(0, count, step)]
    assert len(set(first)) == len(first) and min(first) >= 0 and max(first) < count
    if count > 2:
        second = [order.row(i) for i in range(count, 2 * count, step)]
        assert first != second and first != sorted(first)


def test_a_computed_permutation_is_one() -> None:
    count = (1 << 16) + 3
    seen = np.zeros(count, bool)
    places = [_shuffled(i, count, (7,)) for i in range(count)]
    seen[places] = True
    assert seen.all()
    # Neighbours do not stay together: ranks of a shuffle are uncorrelated.
    assert abs(np.corrcoef(np.arange(count), places)[0, 1]) < 0.02


def test_groups_are_read_a_window_at_a_time() -> None:
    groups = [4, 1, 7, 3, 5, 2, 6]
    order = RowOrder(groups, window=2, key=(2,))
    total = sum(groups)
    owner = np.repeat(np.arange(len(groups)), groups)
    for epoch in range(2):
        rows = [order.row(epoch * total + i) for i in range(total)]
        assert sorted(rows) == list(range(total))
        place = 0
        windows = []
        while place < total:
            held = set(owner[rows[place : place + 1]])
            end = place
            while end < total and len(held | {owner[rows[end]]}) <= 2:
                held |= {owner[rows[end]]}
                end += 1
            windows.append(held)
            place = end
        assert len(windows) == 4 and not set.intersection(*windows)
    rng = np.random.default_rng(0)
    window = {owner[order.row(i)] for i in range(3)}
    assert {owner[order.substitute(0, rng)] for _ in range(50)} <= window | {
        owner[order.row(i)] for i in range(12)
    }


def test_uses_and_places_share_no_numbers() -> None:
    # numpy pads short keys with zeros, so uses are told apart by their first word.
    numbers = {random_for(use, 5).integers(2**62) for use in Use}
    assert len(numbers) == len(Use)
    seeds = {photo_seed(1, step, place) for step in range(20) for place in range(20)}
    assert len(seeds) == 400 and all(0 <= seed < 2**63 for seed in seeds)
