"""Choose the thresholds of `strategy="auto"` on training photos, never on dev.

`threshold` is where the union of the map agrees best with the truth; `peak` is what separates
phrases that are in the photo from siblings that are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from textsam.inference.model import TextSAM
from textsam.inference.text import TextSettings
from textsam.rle import decode_rle, merge_rles

from ..data import Sample

__all__ = ["choose_settings"]

_LEVELS = np.arange(0.2, 0.85, 0.05)


def choose_settings(
    model: TextSAM, samples: Mapping[str, Sequence[Sample]], *, photos: int, seed: int
) -> tuple[TextSettings, dict[str, float]]:
    """Measure maps on `photos` photos of each exhaustive file.

    Returns:
        The settings, and the figures they were chosen by: mean IoU of the union at `threshold`,
        share of present and of absent phrases whose peak passes `peak`.
    """
    rng = np.random.default_rng(seed)
    overlaps: list[NDArray[np.float64]] = []
    present: list[float] = []
    absent: list[float] = []
    for rows in samples.values():
        usable = [s for s in rows if s.exhaustive and s.objects]
        vocabulary = sorted({o.label for s in usable for o in s.objects})
        for index in rng.permutation(len(usable))[:photos]:
            sample = usable[index]
            view = model.open(sample.encoded)
            there = sorted({o.label for o in sample.objects})
            for phrase in there:
                probability = view.text_map(phrase)
                present.append(float(probability.max()))
                overlaps.append(_overlaps(probability, sample, phrase))
            others = [name for name in vocabulary if name not in there]
            for phrase in rng.permutation(others)[: len(there)]:
                absent.append(float(view.text_map(str(phrase)).max()))
    mean = np.mean(overlaps, axis=0)
    level = float(_LEVELS[mean.argmax()])
    grid = np.arange(level, 0.96, 0.01)
    found = np.array([(np.array(present) >= g).mean() for g in grid])
    fooled = np.array([(np.array(absent) >= g).mean() for g in grid])
    best = int((found - fooled).argmax())
    settings = replace(TextSettings(), threshold=round(level, 2), peak=round(float(grid[best]), 2))
    return settings, {
        "union_iou": float(mean.max()),
        "present_found": float(found[best]),
        "absent_found": float(fooled[best]),
    }


def _overlaps(probability: NDArray[np.float32], sample: Sample, phrase: str) -> NDArray[np.float64]:
    """IoU of the map with the union of the phrase's objects, at every level."""
    counted = ~sample.void_mask()
    rles = [o.rle for o in sample.objects if o.label == phrase]
    truth = decode_rle(merge_rles(rles, sample.size)) & counted
    values = []
    for level in _LEVELS:
        mask = (probability >= level) & counted
        values.append((mask & truth).sum() / max(1, (mask | truth).sum()))
    return np.array(values)
