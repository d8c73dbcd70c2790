"""`python -m training.evaluation.speed`: turns, medians, and a run on a core of two blocks."""

from __future__ import annotations

import json

import pytest
import torch

from training.evaluation.speed.__main__ import main
from training.evaluation.speed.equal_networks import OFFICIAL, OURS
from training.evaluation.speed.stopwatch import Patience, Timing, counted, take_turns


def test_ways_take_turns_and_the_order_alternates():
    order: list[str] = []
    ways = {name: (lambda name=name: order.append(name) or name) for name in "ab"}
    turns = take_turns(ways, Patience(rounds=3, budget=60))
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"  # the first pair warms up
    assert turns.results == {"a": "a", "b": "b"}
    assert [len(timing.seconds) for timing in turns.timings.values()] == [3, 3]


def test_a_row_ends_when_its_budget_is_spent():
    turns = take_turns({"a": lambda: None}, Patience(rounds=9, budget=0.0), warm_up=False)
    assert len(turns.timings["a"].seconds) == 1


def test_ratios_are_taken_within_a_round():
    ours, theirs = Timing(seconds=(1, 2, 10)), Timing(seconds=(3, 6, 20))
    assert ours.times(theirs) == 3
    assert ours.median == 2 and ours.spread == 4.5


def test_fused_attention_is_counted():
    q = torch.randn(1, 2, 32, 8)
    _, flops = counted(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q))
    assert flops == 2 * 2 * (2 * 32 * 32 * 8)  # two products of both heads
    a = torch.randn(4, 5)
    assert counted(lambda: a @ a.T)[1] == 2 * 4 * 5 * 4


@pytest.mark.slow
def test_a_core_beside_its_peers(tmp_path, capsys):
    pytest.importorskip("segment_anything")
    report = tmp_path / "speed.json"
    words = [
        "--core",
        "debug",
        "--peers",
        "--quick",
        "--rounds",
        "1",
        "--threads",
        "1",
        "--markdown",
    ]
    groups = ["encode", "decode", "automatic"]
    threads = torch.get_num_threads()
    try:
        assert main([*words, "--rows", *groups, "--json", str(report)]) == 0
    finally:
        torch.set_num_threads(threads)
    rows = {row["name"]: row for row in json.loads(report.read_text())["sets"]}
    assert {row["group"] for row in rows.values()} == set(groups)
    for row in rows.values():
        assert all(error <= 1e-4 for error in row["errors"].values()), row
        assert row["scale"] is None or row["scale"] > 0.1, "the comparison would say nothing"
    encode = rows["encode debug at 128"]
    assert encode["gflops"][OURS] > 0 and encode["times_faster"][OFFICIAL] > 0
    note = rows["automatic 4 x 4, debug"]["note"]
    kept = int(note.rpartition("nms ")[2].partition(";")[0])
    assert kept >= 3 and f"{kept} of {kept} masks equal" in note
    printed = capsys.readouterr().out
    assert "| encode debug at 128 |" in printed and note in printed
