"""Object proposals: class-agnostic average recall at 10, 100 and 1000 masks per photo.

    python -m training.evaluation.proposals dev/coco_instances.parquet --points-per-side 16

arXiv 2304.02643, Section 7.3 and Appendix D.3 (there on LVIS v1 at its photos' original size): a
grid of 64 x 64 points, ranked by the mean of predicted IoU and stability; see
`textsam.tasks.proposals`. Beside it, on the same photos: the masks of `everything("fast")` by
predicted IoU, and Felzenszwalb and Huttenlocher's graph-based segmentation (IJCV 59, 2004) at
several scales, as selective search starts from (Uijlings et al., IJCV 104, 2013, Section 3.1).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from textsam.errors import require
from textsam.tasks.proposals import proposals, with_points
from textsam.values.rle import RLE, encode_masks

from ..data import Sample
from .command import EvaluationOptions, PlotOption, measure_sets, progress, run_command
from .data_sets import DataSet
from .figures.average_recall import (
    LIMITS,
    PhotoRecall,
    mean_recall,
    photo_recall,
    recall_difference,
)
from .figures.charts import write_bars
from .figures.coco_eval import SIZES
from .figures.result_table import Column, columns_of, show_figures

_OURS, _FAST, _REGIONS = "proposals", 'everything("fast")', "Felzenszwalb"

SCALES = (1600, 800, 400, 200, 100, 50)
_SIGMA = 0.8  # scikit-image's default, and the authors'
_MIN_SIZE = 20  # pixels of a region; as `_SIGMA` the default of both
_BATCH = 32  # regions that are decoded at a time

# Ranked masks of a photo: from the open view and the photo itself.
Method = Callable[[Any, Sample], Sequence[RLE]]


@dataclass(frozen=True, kw_only=True)
class ProposalOptions(PlotOption, EvaluationOptions):
    """Measure object proposals: class-agnostic average recall at 10, 100 and 1000 masks.

    For all, small, medium and large objects, beside regions that need no model and the masks of
    everything('fast'). LVIS is measured at its photos' original size: store them so.
    """

    minimum: ClassVar[Mapping[str, int]] = {"points_per_side": 1}

    # Side of the grid of points; 64 is the paper's and takes minutes per photo on a CPU, 16 takes
    # seconds.
    points_per_side: int = 64
    baseline: bool = True  # Also measure Felzenszwalb's regions and everything('fast')


def methods_of(points_per_side: int, *, baseline: bool = True) -> dict[str, Method]:
    """What is measured, by name."""
    settings = with_points(points_per_side)
    count = max(LIMITS)
    methods: dict[str, Method] = {
        _OURS: lambda view, sample: proposals(view, settings=settings, max_masks=count).rles
    }
    if baseline:
        methods[_FAST] = lambda view, sample: view.everything("fast").rles
        methods[_REGIONS] = lambda view, sample: felzenszwalb_regions(sample.image(), count=count)
    return methods


def felzenszwalb_regions(image: NDArray[np.uint8], *, count: int = 1000) -> list[RLE]:
    """Regions of all scales, ranked: the coarsest scale first, within a scale the largest first.

    Of five orders tried on training photos this one has the highest AR@100.

    Args:
        image: (H, W, 3) uint8.
        count: Number of regions at most; each once, though several scales may have it.
    """
    segment = require("skimage.segmentation", "eval").felzenszwalb
    regions: dict[bytes, RLE] = {}
    for scale in SCALES:
        labels = segment(image, scale=scale, sigma=_SIGMA, min_size=_MIN_SIZE)
        order = np.argsort(-np.bincount(labels.ravel()), kind="stable")
        for start in range(0, len(order), _BATCH):
            if len(regions) >= count:
                return list(regions.values())[:count]
            batch = order[start : start + _BATCH]
            # The same region at two scales counts once, with the rank of the coarser one.
            for rle in encode_masks(labels[None] == batch[:, None, None]):
                regions.setdefault(rle.counts, rle)
    return list(regions.values())[:count]


def measure_set(
    model: Any, data: DataSet, *, methods: Mapping[str, Method], seed: int = 0
) -> dict[str, Any]:
    """Measure one file.

    Returns:
        `photos` (with an object), `objects` of each size, `ways` (for each method: `ar`,
        `"all@10"` -> mean and interval, None without such an object; `masks` and seconds per
        photo), `differences` (AR of the proposals minus that of each other method), `items`.
    """
    items: dict[str, list[PhotoRecall]] = {name: [] for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    for sample in progress(data.samples, data.name):
        if all(o.ignore for o in sample.objects):
            continue
        with model.open(sample.image()) as view:
            for name, method in methods.items():
                started = time.perf_counter()
                masks = method(view, sample)
                seconds[name] += time.perf_counter() - started
                items[name].append(photo_recall(sample, masks))
    first = next(iter(items.values()))
    keys = [f"{size}@{limit}" for size in SIZES for limit in LIMITS]
    return {
        "photos": len(first),
        "objects": {size: sum(photo.objects[size] for photo in first) for size in SIZES},
        "ways": {
            name: {
                "ar": {k: mean_recall(photos, k, seed=seed) for k in keys},
                "masks": sum(p.masks for p in photos) / len(photos) if photos else None,
                "seconds_per_photo": seconds[name] / len(photos) if photos else None,
            }
            for name, photos in items.items()
        },
        "differences": {
            name: {k: recall_difference(items[_OURS], photos, k, seed=seed) for k in keys}
            for name, photos in items.items()
            if name != _OURS and _OURS in items
        },
        "items": items,
    }


def _show(sets: Sequence[dict[str, Any]], options: ProposalOptions) -> None:
    columns = [
        *columns_of("", {"set": "name", "photos": "photos", "objects": "objects/all"}),
        *columns_of("", {"masks of": "method", "AR@10": "ar/all@10/mean"}),
        *columns_of("ar", {"AR@100": "all@100/mean", "95%": "all@100", "AR@1000": "all@1000/mean"}),
        *columns_of("ar", {size: f"{size}@1000/mean" for size in list(SIZES)[1:]}),
        Column("masks", "masks", 0),
        Column("s/photo", "seconds_per_photo", 2),
    ]
    rows = [
        {**{key: row[key] for key in ("name", "photos", "objects")}, "method": name, **figures}
        for row in sets
        for name, figures in row["ways"].items()
    ]
    notes = [
        f"{row['name']}: AR@100 of proposals - {name}: {d.mean:+.3f} "
        f"({d.low:+.3f} to {d.high:+.3f})"
        for row in sets
        for name, figures in row["differences"].items()
        if (d := figures["all@100"]) is not None
    ]
    notes.append(
        "AR: class-agnostic recall over IoU .50:.05:.95, crowds left out; small, medium, large: "
        "AR@1000 of objects up to 32^2, 96^2 and above, in pixels of the stored photo; 95%: "
        "bootstrap over photos, of AR@100"
    )
    title = f"Object proposals, model {options.model}, {options.points_per_side} points a side"
    show_figures(title, columns, rows, notes=notes)


def _run(options: ProposalOptions) -> None:
    require("faster_coco_eval", "eval")  # raised before hours are spent
    if options.baseline:
        require("skimage.segmentation", "eval")
    methods = methods_of(options.points_per_side, baseline=options.baseline)

    def measure(model: Any, data: DataSet) -> dict[str, Any]:
        return measure_set(model, data, methods=methods, seed=options.seed)

    measured = measure_sets(options, measure)
    _show(measured, options)
    panels = {
        f"{row['name']} AR@{limit}": {
            name: figure
            for name, figures in row["ways"].items()
            if (figure := figures["ar"][f"all@{limit}"]) is not None
        }
        for row in measured
        for limit in LIMITS
    }
    highest = max((bar.high for bars in panels.values() for bar in bars.values()), default=1.0)
    write_bars(
        options.plot,
        panels,
        title=f"Object proposals, model {options.model}",
        axis="average recall",
        limits=(0.0, min(1.0, 1.1 * highest + 0.01)),  # small recalls would be a stub of the axis
    )


main = partial(run_command, ProposalOptions, _run)

if __name__ == "__main__":
    sys.exit(main())
