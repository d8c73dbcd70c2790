"""Times of several ways to do the same work, in turns; FLOPs; the rate of large products."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

Way = Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one way, a number for each round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Slowest less fastest round, as a share of the median."""
        return (max(self.seconds) - min(self.seconds)) / self.median

    def times(self, other: Timing) -> float:
        """How many times as long the other takes: the median over rounds of both."""
        pairs = zip(other.seconds, self.seconds, strict=True)
        return statistics.median(theirs / ours for theirs, ours in pairs)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "median": self.median,
            "min": min(self.seconds),
            "spread": self.spread,
            "rounds": len(self.seconds),
        }


@dataclass(kw_only=True)
class Turns:
    """Times by way; what each returned, and its FLOPs, if there was a first run to count them."""

    timings: dict[str, Timing]
    results: dict[str, Any] = field(default_factory=dict)
    flops: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often a row is measured."""

    rounds: int = 9  # at most
    budget: float = 20.0  # seconds of a row after which no round begins
    min_rounds: int = 1


def take_turns(ways: Mapping[str, Way], patience: Patience, *, warm_up: bool = True) -> Turns:
    """Time ways in alternating order, so that other work on the machine slows all of them down.

    The first run of each is not timed: it warms up, gives the results, and counts the FLOPs.
    Without it (work of minutes) the results are those of the first round.
    """
    turns = Turns(timings={})
    names = list(ways)
    if warm_up:
        for name in names:
            turns.results[name], turns.flops[name] = counted(ways[name])
    seconds: dict[str, list[float]] = {name: [] for name in names}
    started = time.perf_counter()
    for number in range(patience.rounds):
        spent = time.perf_counter() - started
        if number >= patience.min_rounds and spent > patience.budget:
            break
        for name in names if number % 2 == 0 else reversed(names):
            begin = time.perf_counter()
            result = ways[name]()
            seconds[name].append(time.perf_counter() - begin)
            turns.results.setdefault(name, result)
            del result
    turns.timings = {name: Timing(seconds=tuple(values)) for name, values in seconds.items()}
    return turns


def counted(way: Way) -> tuple[Any, int]:
    """What a way returns, and the FLOPs of its products, convolutions and attention.

    One multiplication and one addition are two FLOPs, as in `training.studies.costs`.
    """
    # torch counts no fused attention on a CPU.
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

    def attention(q: Any, k: Any, v: Any, *rest: Any, **more: Any) -> int:
        return int(sdpa_flop_count(q, k, v))

    with FlopCounterMode(display=False, custom_mapping={fused: attention}) as counter:
        result = way()
    return result, int(counter.get_total_flops())


def gemm_rate(*, side: int = 2048, repeats: int = 5) -> float:
    """FLOP/s of the fastest of some (side x side) products in float32, with torch's threads.

    By the clock on the wall, as all rows here are.
    """
    a, b = torch.randn(side, side), torch.randn(side, side)
    seconds = []
    for _ in range(repeats + 1):  # the first warms up and may be the slowest
        begin = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - begin)
    return 2 * side**3 / min(seconds)
