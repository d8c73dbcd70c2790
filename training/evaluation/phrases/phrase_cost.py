"""The cost of a phrase: seconds with the photo encoded or not, and memory of many phrases."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...peak_memory import in_fresh_process, peak_bytes
from ..data_sets import DataSet

_PHOTOS = 5
_MANY = 20  # phrases in one call, for the memory


def measure_seconds(model: Any, data: DataSet) -> dict[str, Any]:
    """Open a few photos and ask for what is there, and then for what is not, one after the other.

    Returns:
        Medians in seconds, by strategy "auto" on this machine as it is: `encode` (opening a photo),
        `first` (a phrase right after), `phrase` (a further one), `absent` (one that is not there),
        `fresh` (opening and the first phrase); `share`: `phrase` / `encode`; `photos` and `phrases`
        (that are there). None where nothing could be asked.
    """
    encode, first, further, absent = [], [], [], []
    useful = [sample for sample in data.samples if sample.objects]
    step = max(1, len(useful) // (_PHOTOS + 1))
    for number, sample in enumerate(useful[::step][: _PHOTOS + 1]):
        labels = list(dict.fromkeys(o.label for o in sample.objects))
        others = [label for label in data.labels if label not in labels][:_PHOTOS]
        image = sample.image()
        start = time.perf_counter()
        with model.open(image) as view:
            opened = time.perf_counter()
            there = [_seconds(view, label) for label in labels]
            lacking = [_seconds(view, label) for label in others]
        if number:  # the first photo warms up: threads, caches of kernels, text embeddings
            encode.append(opened - start)
            first.append(there[0])
            further += there[1:]
            absent += lacking
    medians = {
        key: statistics.median(values) if values else None
        for key, values in {
            "encode": encode,
            "first": first,
            "phrase": further,
            "absent": absent,
            "fresh": [a + b for a, b in zip(encode, first, strict=True)],
        }.items()
    }
    phrase, opening = medians["phrase"], medians["encode"]
    return {
        "photos": len(encode),
        "phrases": len(first) + len(further),
        **medians,
        "share": phrase / opening if phrase and opening else None,
    }


def _seconds(view: Any, phrase: str) -> float:
    start = time.perf_counter()
    view.segment(text=phrase, strategy="auto")
    return time.perf_counter() - start


def measure_memory(name: str, data: DataSet, detector: str | None = None) -> dict[str, Any]:
    """Peak memory of one phrase and of twenty in one call, each in a fresh process.

    A process's peak never goes down again, so each loads the model and opens one photo anew.

    Returns:
        `one` and `many` in MiB, `ratio`, `phrases` (twenty); None each if there is no such photo.
    """
    sample = next((sample for sample in data.samples if sample.objects), None)
    if sample is None:
        return {"one": None, "many": None, "ratio": None, "phrases": _MANY}
    phrases = list(dict.fromkeys([*(o.label for o in sample.objects), *data.labels]))
    # Made-up names cost as much as real ones: each is embedded and searched for.
    phrases += [f"thing number {index}" for index in range(_MANY)]
    image = sample.image()
    one, many = (in_fresh_process(_peak, name, detector, image, phrases[:n]) for n in (1, _MANY))
    return {"one": one, "many": many, "ratio": many / one, "phrases": _MANY}


def _peak(name: str, detector: str | None, image: NDArray[np.uint8], phrases: list[str]) -> float:
    """MiB that the process has held after asking; run in a process of its own."""
    from textsam import TextSAM

    with TextSAM.from_pretrained(name, detector=detector).open(image) as view:
        view.segment(text=phrases)
    return peak_bytes() / 2**20
