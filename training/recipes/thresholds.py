"""Choose the thresholds of `strategy="auto"` on training photos, never on dev.

`threshold` is where the union of the map agrees best with the truth; `peak` is as high as it can be
while a set share of the phrases that are in a photo still pass it.
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
    model: TextSAM,
    samples: Mapping[str, Sequence[Sample]],
    *,
    photos: int,
    seed: int,
    recall: float = 0.85,
) -> tuple[TextSettings, dict[str, float]]:
    """Measure maps on `photos` photos of each exhaustive file.

    Args:
        model: With a dense text head.
        samples: Training files.
        photos: How many of each file.
        seed: Decides which.
        recall: Share of present phrases that must pass `peak`.

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
    peak = max(level, float(np.quantile(present, 1 - recall)))
    settings = replace(TextSettings(), threshold=round(level, 2), peak=round(peak, 3))
    return settings, {
        "union_iou": float(mean.max()),
        "present_found": float(np.mean(np.array(present) >= peak)),
        "absent_found": float(np.mean(np.array(absent) >= peak)),
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
