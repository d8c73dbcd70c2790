"""Photos that a run is measured on and does not see."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import numpy as np

from ..data import Sample, Source, StreamSource
from ..data.sample import BROKEN
from .sources import DataMix

__all__ = ["SomeRows", "split_mix"]


class SomeRows(Sequence[Sample]):
    """Some rows of a source, in a given order."""

    def __init__(self, source: Source | Sequence[Sample], rows: Sequence[int]) -> None:
        self.source = source
        self.rows = tuple(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        return self.source[self.rows[index]]


def split_mix(mix: DataMix, *, share: float, seed: int) -> tuple[DataMix, list[Sample]]:
    """Hold out a share of each source's photos; which ones, the seed and its name decide.

    Args:
        mix: Sources by row.
        share: From 0 to below 1; a source keeps at least one photo, and gives one if it has two.
        seed: Of the run.

    Returns:
        The mix without them, and those of them whose photo can be read, from all sources in turn.

    Raises:
        ValueError: There is a stream, or a source of a single photo.
    """
    if not share:
        return mix, []
    kept: dict[str, SomeRows] = {}
    parts: list[list[Sample]] = []
    for name, source in mix.sources.items():
        if isinstance(source, StreamSource):
            raise ValueError(
                f"{name!r} is a stream, of which no photos can be held out. Type: --held-out 0"
            )
        count = len(source)
        if count < 2:
            raise ValueError(
                f"{name!r} has {count} photos; to hold one out it takes two. Type: --held-out 0"
            )
        order = np.random.default_rng((seed, crc32(name.encode()))).permutation(count).tolist()
        out = min(count - 1, max(1, round(share * count)))
        kept[name] = SomeRows(source, sorted(order[out:]))
        parts.append([sample for row in order[:out] if (sample := _sound(source, row)) is not None])
    longest = max(len(part) for part in parts)
    mixed = [part[i] for i in range(longest) for part in parts if i < len(part)]
    return DataMix(sources=kept, shares=mix.shares, kinds=mix.kinds), mixed


def _sound(source: Source | Sequence[Sample], row: int) -> Sample | None:
    try:
        sample = source[row]
        sample.image()
        return sample if any(not item.ignore for item in sample.objects) else None
    except BROKEN:
        return None
