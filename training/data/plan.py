"""Which photo is at which place of which batch, as a function of the seed.

Nothing has to be replayed to find it: a run resumes at step n at once, and workers and ranks agree
without communication. Within a source, no photo comes twice before all have come once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Number of draws in which every source has exactly its share; shares are rounded to 1 in this many.
_BLOCK = 1 << 14

# Up to this length an order is drawn as a table; longer ones are computed row by row.
_TABLE = 1 << 16

# Rounds of the Feistel network; four suffice for a pseudorandom permutation (Luby, Rackoff 1988).
_ROUNDS = 4


def is_kept_out(row: int) -> bool:
    """Whether a row of a training file is kept out of the last stages of `tiny`: one of twenty."""
    return row % 20 == 7


class Use(IntEnum):
    """What random numbers are used for: the first word of their seed, so that uses share none."""

    VIEW = 1
    PHOTO = 2
    MIX = 3
    ORDER = 4
    SUBSTITUTE = 5


class Draw(NamedTuple):
    """One place of a batch: its position, its source, and the number of the draw in the source."""

    position: int
    source: str
    ordinal: int


def random_for(use: Use, *key: int) -> np.random.Generator:
    """The generator of a use; equal keys give equal numbers."""
    return np.random.default_rng((int(use), *key))


def photo_seed(seed: int, step: int, position: int) -> int:
    """63-bit seed for everything random about the photo at a place of a global batch."""
    words = np.random.SeedSequence((int(Use.PHOTO), seed, step, position))
    return int(words.generate_state(1, np.uint64)[0] >> np.uint64(1))


class Plan:
    """Sources of the places of every batch, in fixed shares.

    Draws are divided into blocks; in each block every source has the same number of draws.
    """

    def __init__(self, shares: Mapping[str, float], *, seed: int, photos: int) -> None:
        for name, share in shares.items():
            if not share > 0 or not np.isfinite(share):
                raise ValueError(f"shares[{name!r}]={share}; wanted a positive number, or leave it")
        self.names = tuple(shares)
        self.seed = seed
        self.photos = photos
        self.counts = _rounded(np.array([shares[name] for name in self.names], dtype=np.float64))
        self._block = lru_cache(maxsize=4)(self._new_block)

    def __getstate__(self) -> dict[str, object]:
        return {k: v for k, v in self.__dict__.items() if k != "_block"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._block = lru_cache(maxsize=4)(self._new_block)

    def draws(self, step: int) -> list[Draw]:
        """All places of global batch `step`."""
        found: list[Draw] = []
        for position in range(self.photos):
            block, slot = divmod(step * self.photos + position, _BLOCK)
            sources, ranks = self._block(block)
            source = int(sources[slot])
            # In every block a source has the same number of draws, so no block has to be replayed.
            ordinal = block * int(self.counts[source]) + int(ranks[slot])
            found.append(Draw(position, self.names[source], ordinal))
        return found

    def _new_block(self, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Source of each slot of a block, and how many of that source stand before it."""
        slots = np.repeat(np.arange(len(self.names)), self.counts)
        sources = random_for(Use.MIX, self.seed, block).permutation(slots)
        ranks = np.empty(_BLOCK, dtype=np.int64)
        for source, count in enumerate(self.counts):
            ranks[sources == source] = np.arange(count)
        return sources, ranks


class RowOrder:
    """The rows of a source, epoch after epoch, each epoch in another order.

    Groups of rows that are read together are shuffled, then rows within `window` groups.
    """

    def __init__(self, groups: Sequence[int], *, window: int, key: tuple[int, ...]) -> None:
        self._sizes = np.asarray(groups, dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)])
        self._window = min(window, len(self._sizes))
        self._key = key

    def row(self, ordinal: int) -> int:
        """The row of draw `ordinal`, counted over all epochs."""
        epoch, place, start, size = self._within(ordinal)
        key = (*self._key, epoch, start)
        return self._at(epoch, start + _shuffled(place - start, size, key))

    def substitute(self, ordinal: int, rng: np.random.Generator) -> int:
        """A substitute for the row of draw `ordinal`, from the groups in memory at that time."""
        epoch, _, start, size = self._within(ordinal)
        return self._at(epoch, start + int(rng.integers(size)))

    def _within(self, ordinal: int) -> tuple[int, int, int, int]:
        """Epoch, place in it, and start and size of the window of groups around that place."""
        epoch, place = divmod(ordinal, int(self._starts[-1]))
        if self._window == len(self._sizes):
            return epoch, place, 0, int(self._starts[-1])
        _, ends = self._grouped(epoch)
        window = int(np.searchsorted(ends, place, side="right")) // self._window * self._window
        start = int(ends[window - 1]) if window else 0
        last = min(window + self._window, len(ends)) - 1
        return epoch, place, start, int(ends[last]) - start

    def _at(self, epoch: int, place: int) -> int:
        """The row at a place of the epoch's shuffled groups."""
        if self._window == len(self._sizes):
            return place
        order, ends = self._grouped(epoch)
        position = int(np.searchsorted(ends, place, side="right"))
        group = int(order[position])
        return int(self._starts[group]) + place - int(ends[position] - self._sizes[group])

    def _grouped(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The epoch's order of groups, and where each ends."""
        order = _table(len(self._sizes), (*self._key, epoch))
        return order, np.cumsum(self._sizes[order])


def _rounded(shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole numbers in these proportions that sum to a block, each at least one."""
    if len(shares) > _BLOCK:
        raise ValueError(f"{len(shares)} sources; at most {_BLOCK} can be mixed")
    exact = shares / shares.sum() * _BLOCK
    # A source with a tiny share still gets one draw in each block.
    counts = np.maximum(1, np.floor(exact)).astype(np.int64)
    while counts.sum() > _BLOCK:  # many tiny shares, rounded up
        counts[int(np.argmax(counts - exact))] -= 1
    order = np.argsort(counts - exact, kind="stable")
    counts[order[: _BLOCK - int(counts.sum())]] += 1
    return counts


@lru_cache(maxsize=32)
def _table(count: int, key: tuple[int, ...]) -> NDArray[np.int64]:
    return random_for(Use.ORDER, *key).permutation(count)


def _shuffled(index: int, count: int, key: tuple[int, ...]) -> int:
    """Place of `index` in a permutation of `count`, determined by the key.

    A large permutation is a Feistel network on the next power of four, repeated until the result is
    below `count`; it needs no memory.
    """
    if count <= _TABLE:
        return int(_table(count, key)[index])
    half = ((count - 1).bit_length() + 1) // 2
    mask = (1 << half) - 1
    keys = _round_keys(key)
    while True:
        left, right = index >> half, index & mask
        for round_key in keys:
            left, right = right, left ^ (_mixed(right ^ round_key) & mask)
        index = left << half | right
        if index < count:
            return index


@lru_cache(maxsize=32)
def _round_keys(key: tuple[int, ...]) -> tuple[int, ...]:
    words = np.random.SeedSequence((int(Use.ORDER), *key)).generate_state(_ROUNDS, np.uint64)
    return tuple(words.tolist())


def _mixed(value: int) -> int:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014)."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    value = (value ^ value >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return value ^ value >> 31
