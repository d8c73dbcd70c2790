"""Object proposals: class-agnostic average recall at 10, 100 and 1000 masks per photo.

    python -m training.evaluation.proposals dev/coco_instances.parquet --points-per-side 16

arXiv 2304.02643, Section 7.3 and Appendix D.3 (there on LVIS v1 at its photos' original size): a
grid of 64 x 64 points, ranked by the mean of predicted IoU and stability; see
`textsam.tasks.proposals`. Beside it, on the same photos: the masks of `everything("fast")` by
predicted IoU, and Felzenszwalb and Huttenlocher's graph-based segmentation (IJCV 59, 2004) at
several scales, as selective search starts from (Uijlings et al., IJCV 104, 2013, Section 3.1).

AR@n is the recall of the n first masks of a photo, averaged over IoU .50:.05:.95 (cocodataset.org,
"Detection Evaluation"; the paper uses n = 1000). Objects of all labels are one category; crowds
(`ignore`) are none of them. Recall is a share of objects, so photos add up.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from textsam.errors import require
from textsam.tasks.proposals import proposals, with_points
from textsam.values.rle import RLE, encode_masks, rle_areas

from ..data import Sample
from .command import EvaluationOptions, PlotOption, measure_sets, progress, run_command
from .data_sets import DataSet
from .figures.average_precision import SIZES, CocoRows
from .figures.charts import write_bars
from .figures.intervals import Interval, ratio_interval
from .figures.result_table import Column, columns_of, show_figures

_OURS, _FAST, _REGIONS = "proposals", 'everything("fast")', "Felzenszwalb"

LIMITS = (10, 100, 1000)
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


def methods_of(points_per_side: int) -> dict[str, Method]:
    """What is measured, by name."""
    settings = with_points(points_per_side)
    count = max(LIMITS)
    return {
        _OURS: lambda view, sample: proposals(view, settings=settings, max_masks=count).rles,
        _FAST: lambda view, sample: view.everything("fast").rles,
        _REGIONS: lambda view, sample: felzenszwalb_regions(sample.image(), count=count),
    }


def felzenszwalb_regions(image: NDArray[np.uint8], *, count: int = 1000) -> list[RLE]:
    """Regions of a photo (H, W, 3), ranked: the coarsest scale first, then the largest."""
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


@dataclass(frozen=True, kw_only=True)
class PhotoRecall:
    """Recall of the masks of one photo."""

    image_id: str  # the photo
    masks: int  # number of masks
    objects: Mapping[str, int]  # number of objects of each size
    # `"all@10"` -> objects found, averaged over the IoU levels, for each size and limit.
    found: Mapping[str, float]


def photo_recall(sample: Sample, masks: Sequence[RLE]) -> PhotoRecall:
    """Measure the ranked masks of one photo."""
    truths = [o.rle for o in sample.objects if not o.ignore and not o.rle.is_empty]
    areas = rle_areas(truths) if truths else np.zeros(0, np.int64)
    counts = {
        name: int(((areas >= low) & (areas <= high)).sum()) for name, (low, high) in SIZES.items()
    }
    found = {f"{name}@{limit}": 0.0 for name in SIZES for limit in LIMITS}
    kept = [rle for rle in masks[: max(LIMITS)] if not rle.is_empty]
    if truths and kept:
        rows = CocoRows(["object"])
        rows.add_photo(sample.image_id, sample.size)
        for rle in truths:
            rows.add_object(sample.image_id, "object", rle)
        # COCO ranks by score; the scores only say the order here.
        for rank, rle in enumerate(kept, start=1):
            rows.add_mask(sample.image_id, "object", rle, len(kept) - rank)
        recall = rows.evaluate(limits=LIMITS).arrays()["recall"][:, 0]
        for k, name in enumerate(SIZES):
            for n, limit in enumerate(LIMITS):
                if counts[name]:
                    found[f"{name}@{limit}"] = float(recall[:, k, n].mean()) * counts[name]
    return PhotoRecall(image_id=sample.image_id, masks=len(masks), objects=counts, found=found)


def mean_recall(photos: Iterable[PhotoRecall], key: str, *, seed: int = 0) -> Interval | None:
    """AR over all objects of the photos, e.g. of `"small@100"`, with its 95% interval over photos.

    None where no photo has such an object.
    """
    size = key.partition("@")[0]
    rows = [(p.image_id, p.found[key], float(p.objects[size])) for p in photos]
    bounds = ratio_interval(rows, seed=seed)
    if bounds is None:
        return None
    objects = sum(row[2] for row in rows)
    return Interval(sum(row[1] for row in rows) / objects, *bounds, int(objects))


def recall_difference(
    photos: Sequence[PhotoRecall], reference: Sequence[PhotoRecall], key: str, *, seed: int = 0
) -> Interval | None:
    """AR of one method minus that of another on the same photos, drawn together."""
    if [p.image_id for p in photos] != [p.image_id for p in reference]:
        raise ValueError("a difference needs the same photos in the same order; these are others")
    differences = (
        PhotoRecall(
            image_id=p.image_id,
            masks=p.masks,
            objects=p.objects,
            found={key: p.found[key] - q.found[key]},
        )
        for p, q in zip(photos, reference, strict=True)
    )
    return mean_recall(differences, key, seed=seed)


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
    require("skimage.segmentation", "eval")
    methods = methods_of(options.points_per_side)

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
