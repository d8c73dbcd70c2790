"""The photos of all variants, read into memory once: the same ones, a share of them, a few."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...data import Sample, StreamSource, open_source
from ...data.sample import BROKEN
from ...evaluation.data_sets import evenly_spaced

logger = logging.getLogger(__name__)

# Of the choice of photos; not a setting, so that shares are nested whatever the run's seed is.
_SUBSET_SEED = 0


@dataclass(frozen=True, kw_only=True)
class PhotoPool:
    """Photos by source, in memory."""

    samples: Mapping[str, Sequence[Sample]]  # source -> its sound photos

    @classmethod
    def read(cls, specs: Sequence[str], *, limit: int | None = None) -> PhotoPool:
        """Read what specs (`data.specs`) name, encoded as the photos are."""
        samples: dict[str, Sequence[Sample]] = {}
        for spec in specs:
            source = open_source(spec)
            if isinstance(source, StreamSource):
                raise ValueError(f"{spec} is a stream; an ablation needs photos by number")
            name = str(getattr(source, "name", spec))
            if name in samples:
                raise ValueError(f"two sources are called {name!r}. Type: {spec}?name=ANOTHER")
            sound = []
            for row in evenly_spaced(len(source), limit):
                try:
                    sound.append(source[row])
                except BROKEN as error:
                    logger.warning("%s, row %d is broken: %s", name, row, error)
            if not sound:
                raise ValueError(f"{spec} has no sound photo")
            samples[name] = sound
        return cls(samples=samples)

    def share(self, share: float) -> dict[str, Sequence[Sample]]:
        """A share of each source's photos; a smaller share is a part of every larger one."""
        if not 0 < share <= 1:
            raise ValueError(f"data_share is {share}; wanted a share above 0, at most 1")
        chosen: dict[str, Sequence[Sample]] = {}
        for name, samples in self.samples.items():
            # A prefix of one permutation: so a smaller share is part of every larger one.
            order = np.random.default_rng(_SUBSET_SEED).permutation(len(samples))
            rows = np.sort(order[: math.ceil(share * len(samples))])
            chosen[name] = [samples[row] for row in rows]
        return chosen

    def some(self, count: int) -> dict[str, Sequence[Sample]]:
        """About `count` photos, the same share of each source."""
        total = sum(len(samples) for samples in self.samples.values())
        return self.share(min(1.0, count / total))

    def lengths(self) -> dict[str, float]:
        """Number of photos by source: how often each is drawn, whatever the share."""
        return {name: float(len(samples)) for name, samples in self.samples.items()}

    def about(self) -> dict[str, Any]:
        """JSON values that distinguish this pool from another one."""
        objects = sum(len(s.objects) for samples in self.samples.values() for s in samples)
        return {"photos": self.lengths(), "objects": objects}
