"""Random numbers for masks that depend on their photo alone.

Every photo of a batch has its own seed, and all numbers about its masks are drawn from it. The
result is then the same however a batch is split over ranks, micro-batches or workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from ..data.batch import ViewBatch


class PhotoRandom:
    """Draws numbers for the P masks of a batch, each photo's from its own generator.

    Every call advances the generators of all photos, so no call may depend on what is in the batch:
    draw first, then choose.
    """

    def __init__(self, seeds: Sequence[int], counts: Sequence[int], *, stream: str) -> None:
        if len(seeds) != len(counts):
            raise ValueError(f"{len(seeds)} seeds for {len(counts)} photos; wanted one per photo")
        name = crc32(stream.encode())
        self._generators = [np.random.default_rng((seed, name)) for seed in seeds]
        self._counts = tuple(counts)

    def __len__(self) -> int:
        """Number of masks P."""
        return sum(self._counts)

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1), (P, *shape) float32, on the CPU."""
        drawn = [
            generator.random((count, *shape), dtype=np.float32)
            for generator, count in zip(self._generators, self._counts, strict=True)
        ]
        return _joined(drawn, shape)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, (P, *shape) float32, on the CPU."""
        drawn = [
            generator.standard_normal((count, *shape), dtype=np.float32)
            for generator, count in zip(self._generators, self._counts, strict=True)
        ]
        return _joined(drawn, shape)


def _joined(drawn: list[np.ndarray], shape: tuple[int, ...]) -> Tensor:
    empty = np.empty((0, *shape), dtype=np.float32)
    return torch.from_numpy(np.concatenate([empty, *drawn]))


def photo_random(batch: ViewBatch, *, stream: str) -> PhotoRandom:
    """Random numbers for the masks of a batch."""
    return PhotoRandom(batch.seeds, [len(view.masks) for view in batch.views], stream=stream)
