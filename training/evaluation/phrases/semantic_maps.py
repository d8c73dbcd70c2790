"""Semantic maps: mIoU of `view.label_map(phrases)` over a set.

As PASCAL VOC and ADE20K do it: intersections and unions of each label are summed over all photos of
the set, and the mean over labels is taken of their ratios. Asked twice: with every label of the
file, as those sets do, and with the labels only that the photo has, which shows the borders alone.
"Nothing" is no label; its own IoU is reported beside the mean. Pixels with two labels count
nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data import Sample
from .questions import NAMELESS, Phrase, ignored_pixels


class Confusion:
    """Pixels by true label and painted label; 0 is nothing, labels count from 1."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self.counts = np.zeros((len(labels) + 1,) * 2, dtype=np.int64)

    def add(
        self, truth: NDArray[np.int64], painted: NDArray[np.int64], counted: NDArray[np.bool_]
    ) -> None:
        """Add a photo: two maps (H, W) of label numbers, and which pixels count."""
        size = len(self.counts)
        # One number for each (true, painted) pair, counted in one pass.
        pairs = truth[counted] * size + painted[counted]
        self.counts += np.bincount(pairs, minlength=size * size).reshape(size, size)

    def figures(self) -> dict[str, Any]:
        """`miou` over labels that some photo has, `nothing` (its IoU), `accuracy`, `labels`."""
        hits = np.diag(self.counts)
        there = self.counts.sum(axis=1)
        union = there + self.counts.sum(axis=0) - hits
        iou = hits / np.maximum(union, 1)
        # As VOC and ADE20K: a label that no photo has counts nowhere, even where it is painted.
        known = [index for index in range(1, len(iou)) if there[index]]
        total = int(self.counts.sum())
        return {
            "miou": float(np.mean(iou[known])) if known else None,
            "nothing": float(iou[0]) if union[0] else None,
            "accuracy": float(hits.sum() / total) if total else None,
            "labels": {self.labels[index - 1]: float(iou[index]) for index in known},
        }


def truth_map(
    sample: Sample, phrases: Sequence[Phrase], numbers: dict[str, int]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Label numbers (H, W) of what a photo has, and which pixels have one truth at most."""
    truth = np.zeros(sample.size, dtype=np.int64)
    layers = np.zeros(sample.size, dtype=np.int64)
    for phrase in phrases:
        truth[phrase.truth] = numbers[phrase.label]
        layers += phrase.truth
    return truth, (layers <= 1) & ~ignored_pixels(sample)


class MapTally:
    """The maps of a set so far."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = [label for label in labels if label not in NAMELESS]
        self.photos = 0
        self._all = Confusion(self.labels)
        self._present = Confusion(self.labels)
        self._numbers = {label: index for index, label in enumerate(self.labels, start=1)}

    def add_photo(self, view: Any, sample: Sample, phrases: Sequence[Phrase]) -> None:
        """Ask an exhaustive photo for both maps."""
        if not phrases:
            return
        self.photos += 1
        truth, counted = truth_map(sample, phrases, self._numbers)
        present = [phrase.label for phrase in phrases]
        for confusion, labels in ((self._all, self.labels), (self._present, present)):
            painted = np.asarray(view.label_map(labels).labels)
            # The map numbers the labels in the order of the question; the table in the file's.
            numbers = np.array([0, *(self._numbers[label] for label in labels)], dtype=np.int64)
            confusion.add(truth, numbers[painted], counted)

    def figures(self) -> dict[str, Any]:
        """`photos`, and `Confusion.figures` as `all` and `present`."""
        return {
            "photos": self.photos,
            "all": self._all.figures(),
            "present": self._present.figures(),
        }
