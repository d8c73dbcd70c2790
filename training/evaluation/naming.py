"""Names for masks of everything: how often the best name is right, and none where none is.

    python -m training.evaluation.naming DATA.parquet ... [--limit N] [--kept-out]

Every label of the file competes for the automatic masks of each exhaustive photo,
`everything(names=[...])`. A mask belongs to the label that has more than half of its pixels, or to
none. "by CLIP" leaves the maps of the names out.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from textsam.inference.strategies.naming import check_names, name_maps, name_masks
from textsam.inference.strategies.rank import embed_masks
from textsam.results.segmentation import Segmentation
from textsam.values.calibration import Calibration
from textsam.values.rle import decode_rle, merge_rles, rle_areas, rle_common_areas, rle_iou

from ..data import Sample
from .command import EvaluationOptions, measure_sets, progress, run_command
from .data_sets import DataSet
from .figures.intervals import mean
from .figures.result_table import columns_of, show_figures
from .phrases.questions import NAMELESS, ignored_pixels

_ALL = 1e-6  # a threshold that leaves every mask its best name


@dataclass(frozen=True, kw_only=True)
class NamingOptions(EvaluationOptions):
    """Measure the names that masks of everything get."""


@dataclass(frozen=True, kw_only=True)
class _MaskTruth:
    """What the masks of a photo show."""

    counted: np.ndarray[Any, Any]  # (N,) bool, whether most of it has a truth
    owners: list[str | None]  # the label that more than half of it belongs to
    objects: list[str | None]  # the label of the object that it matches at IoU .5


def measure_set(model: Any, data: DataSet) -> dict[str, Any]:
    """Measure one file.

    Returns:
        `photos`, `seconds` (median of naming the masks of a photo, their embedding included), and
        by "with maps" and "by CLIP" the shares of masks whose best name is right: `object` of those
        that match an object, `inside` of those that lie inside a label; with none: `right` of all
        masks, `named` (the share that gets a name), `named_right` of these.
    """
    names = [label for label in data.labels if label not in NAMELESS]
    hits: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    seconds: list[float] = []
    photos = 0
    for sample in progress(data.samples, data.name):
        if not sample.exhaustive:
            continue
        photos += 1
        with model.open(sample.image()) as view:
            masks = view.everything()
            masks = masks[masks.areas > 0]
            started = time.perf_counter()
            embedded = embed_masks(view.photo, masks)
            query = check_names(view.photo.parts, names, None)
            forced = check_names(view.photo.parts, names, _ALL)
            assert query is not None
            assert forced is not None
            maps = name_maps(view.photo, query)
            truth = _truth_of(sample, masks)
            for way, own in {"with maps": maps, "by CLIP": None}.items():
                parts = view.photo.parts
                if own is None:  # its calibration weighs maps
                    parts = replace(parts, calibration=Calibration())
                named = name_masks(parts, embedded, query, own)
                if way == "with maps":
                    seconds.append(time.perf_counter() - started)
                best = name_masks(parts, embedded, forced, own)
                _count(hits[way], truth, named.labels, best.labels)
    figures = {
        way: {key: mean(values) for key, values in found.items()} for way, found in hits.items()
    }
    median = float(np.median(seconds)) if seconds else None
    return {"photos": photos, "names": len(names), "seconds": median, **figures}


def _truth_of(sample: Sample, masks: Segmentation) -> _MaskTruth:
    ignored = ignored_pixels(sample)
    objects = [item for item in sample.objects if not item.ignore and item.label not in NAMELESS]
    labels = list(dict.fromkeys(item.label for item in objects))
    areas = np.array([int((decode_rle(rle) & ~ignored).sum()) for rle in masks.rles])
    unions = [
        merge_rles([item.rle for item in objects if item.label == label], sample.size)
        for label in labels
    ]
    shares = np.zeros((len(masks), len(labels)))
    matches = np.zeros((len(masks), len(objects)))
    if labels and len(masks):
        shares = rle_common_areas(masks.rles, unions) / np.maximum(areas, 1)[:, None]
        matches = rle_iou(masks.rles, [item.rle for item in objects])
    return _MaskTruth(
        counted=2 * areas >= rle_areas(masks.rles),
        owners=[labels[int(row.argmax())] if row.max(initial=0) > 0.5 else None for row in shares],
        objects=[
            objects[int(row.argmax())].label if row.max(initial=0) >= 0.5 else None
            for row in matches
        ],
    )


def _count(
    hits: dict[str, list[bool]],
    truth: _MaskTruth,
    labels: Sequence[str | None],
    best: Sequence[str | None],
) -> None:
    rows = zip(truth.counted, truth.owners, truth.objects, labels, best, strict=True)
    for counted, owner, item, label, forced in rows:
        if not counted:
            continue
        if item is not None:
            hits["object"].append(forced == item)
        if owner is not None:
            hits["inside"].append(forced == owner)
        hits["right"].append(label == owner)
        hits["named"].append(label is not None)
        if label is not None:
            hits["named_right"].append(label == owner)


def _show(sets: Sequence[dict[str, Any]], *, model: str) -> None:
    rows = [
        {"set": f"{row['name']}, {way}", **row, **row[way]}
        for row in sets
        for way in ("with maps", "by CLIP")
        if way in row
    ]
    headings = {"set": "set", "photos": "photos", "names": "names", "object": "object"}
    headings |= {"inside": "inside", "right": "right", "named": "named", "of them": "named_right"}
    notes = [
        "object, inside: masks that match an object, that lie inside a label; share whose best "
        "name is right. right: of all masks, name or none right; named: share that gets a name; of "
        "them: share right",
        *(f"{row['name']}: {row['seconds']:.2f} s to name a photo's masks" for row in sets),
    ]
    show_figures(f"Names of masks, model {model}", columns_of("", headings), rows, notes=notes)


def _run(options: NamingOptions) -> None:
    _show(measure_sets(options, measure_set), model=options.model)


main = partial(run_command, NamingOptions, _run)

if __name__ == "__main__":
    sys.exit(main())
