"""Instances from boxes: mask AP and mIoU, with and without the refinement pass, side by side.

    python -m training.evaluation.instances dev/coco_instances.parquet --jitter 0.1
    python -m training.evaluation.instances dev/coco_instances.parquet --boxes detections.json

arXiv 2304.02643, Section 7.4 and Appendix D.4; see `textsam.tasks.instances`. The boxes are the
truth's own by default, so the figures are an upper bound: every object is found, with score 1.
`--jitter` moves them as a detector might; `--boxes` takes a detector's. A model that zooms in on
small objects is measured both ways, on the whole photo and on windows.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textsam.errors import PromptError
from textsam.results.segmentation import Segmentation
from textsam.tasks.inputs import group_by_photo, read_results
from textsam.tasks.instances import instances
from textsam.values.geometry import boxes_from_xywh
from textsam.values.rle import decode_rle, rle_box, rle_iou

from ..data import Sample
from .command import EvaluationOptions, PlotOption, measure_sets, progress, run_command
from .data_sets import BadInputError, DataSet, seeded_rng
from .figures.average_precision import MaskAP, undecided_pixels
from .figures.charts import write_bars
from .figures.intervals import Interval, Score, mean_interval, paired_interval
from .figures.matching import masked_iou
from .figures.result_table import Column, columns_of, show_figures

_PIPE_COLUMNS = 156  # two intervals in a row
_MIN_SIDE = 1.0  # pixels: noise may not turn a box into nothing


@dataclass(frozen=True, kw_only=True)
class InstancesOptions(PlotOption, EvaluationOptions):
    """Measure masks from boxes: AP, AP50, AP75, AP by size and mIoU, in one pass and in two.

    The boxes are the truth's own (an upper bound), the same with noise, or a detector's; the second
    pass is the paper's refinement.
    """

    # COCO detection results in place of the true boxes; image_id is the photo's id in the set,
    # category_id a label of it, or a number that --categories names.
    boxes: Path | None = None
    # A COCO file with the categories that the numbers in --boxes mean.
    categories: Path | None = None
    # Noise of the true boxes' corners: standard deviation as a share of the side; 0.1 is that of
    # the paper's training.
    jitter: float = 0.0

    def check(self) -> None:
        """Also refuse options that contradict each other."""
        super().check()
        if not 0 <= self.jitter <= 1:
            raise BadInputError(f"--jitter {self.jitter}: wanted a number from 0 to 1")
        if self.boxes is None and self.categories is not None:
            raise BadInputError("--categories comes with --boxes")
        if self.boxes is not None and self.jitter:
            raise BadInputError("--jitter moves the true boxes; leave it out with --boxes")


@dataclass(frozen=True, kw_only=True, eq=False)
class Boxes:
    """N boxes of a photo."""

    boxes: NDArray[np.float64]  # (N, 4) float64 half-open x0, y0, x1, y1, original pixels
    labels: list[str]  # N names
    scores: list[float]  # N scores
    # For each box the index of its object in the photo; None for a detector's.
    objects: list[int] | None = None

    def __len__(self) -> int:
        """N."""
        return len(self.boxes)


def true_boxes(sample: Sample, *, jitter: float = 0.0, seed: int = 0) -> Boxes:
    """Boxes of the photo's objects, crowds left out, each with score 1.

    The jitter is the standard deviation of each coordinate's noise as a share of the box's side, as
    in the paper's training (Appendix A), but without its limit of 20 pixels. Boxes stay within the
    photo and at least a pixel long.
    """
    chosen = [k for k, o in enumerate(sample.objects) if not o.ignore and not o.rle.is_empty]
    boxes = np.array([rle_box(sample.objects[k].rle) for k in chosen], np.float64).reshape(-1, 4)
    if jitter > 0 and chosen:
        # (N, 4): the width for both x, the height for both y.
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        noise = seeded_rng(seed, sample.image_id).normal(size=boxes.shape)
        moved = boxes + jitter * sides * noise
        # Corners in order, inside the photo, at least a pixel apart.
        limit = np.array(sample.size[::-1], np.float64)
        low = np.clip(np.minimum(moved[:, :2], moved[:, 2:]), 0, limit - _MIN_SIDE)
        high = np.clip(np.maximum(moved[:, :2], moved[:, 2:]), low + _MIN_SIDE, limit)
        boxes = np.concatenate([low, high], axis=1)
    return Boxes(
        boxes=boxes,
        labels=[sample.objects[index].label for index in chosen],
        scores=[1.0] * len(chosen),
        objects=chosen,
    )


class DetectorFile:
    """COCO detection results whose `image_id` is the photo's id in the set."""

    def __init__(self, path: Path, *, categories: Path | None = None) -> None:
        self.path = path
        try:
            rows = read_results(path)
        except (OSError, ValueError) as error:
            raise BadInputError(f"--boxes: {error}") from error
        self._names = None if categories is None else _read_categories(categories)
        self._rows = {str(key): group for key, group in group_by_photo(rows).items()}

    def check(self, samples: Sequence[Sample], labels: Sequence[str]) -> None:
        """Refuse a file of other photos or other categories, before anything is encoded."""
        ids = {sample.image_id for sample in samples}
        if not ids & self._rows.keys():
            raise BadInputError(
                f"--boxes {self.path}: none of its {len(self._rows)} image ids "
                f"({', '.join(list(self._rows)[:3])}, ...) is a photo to measure "
                f"({', '.join(sorted(ids)[:3])}, ...)"
            )
        for group in self._rows.values():
            for row in group:
                name = self._name(row)
                if self._names is None and name not in labels:
                    raise BadInputError(
                        f"--boxes {self.path}: category {name!r} is no label of this set; wanted "
                        f"one of {', '.join(labels[:8])}, ...; or name the detector's own: "
                        "--categories ANNOTATIONS.json"
                    )

    def boxes(self, sample: Sample) -> Boxes:
        """The boxes of a photo; empty for one without rows."""
        rows = self._rows.get(sample.image_id, [])
        # COCO's boxes are x, y, width, height; ours are half-open corners.
        corners = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
        return Boxes(
            boxes=boxes_from_xywh(corners),
            labels=[self._name(row) for row in rows],
            scores=[float(row.get("score", 1.0)) for row in rows],
        )

    def _name(self, row: Mapping[str, Any]) -> str:
        category, names = row.get("category_id"), self._names
        if names is not None and category in names:
            return names[category]
        if isinstance(category, str) and (names is None or category in names.values()):
            return category
        if names is None:
            raise BadInputError(
                f"--boxes {self.path}: category {category!r} has no name; wanted names as "
                "category_id, or a COCO file that names the numbers: --categories ANNOTATIONS.json"
            )
        raise BadInputError(
            f"--boxes {self.path}: category {category!r} is unknown; --categories names "
            f"{sorted(names)[:8]}, ..."
        )


def _read_categories(path: Path) -> dict[int, str]:
    try:
        rows = json.loads(path.read_bytes())
        rows = rows["categories"] if isinstance(rows, dict) else rows
        return {row["id"]: str(row["name"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInputError(
            f"--categories {path}: wanted a COCO file with categories "
            f'[{{"id": 1, "name": "person"}}, ...] ({type(error).__name__}: {error})'
        ) from error


# Masks of a photo's boxes: from the open view and the boxes.
Method = Callable[[Any, Boxes], Segmentation]


def methods_of(model: Any) -> dict[str, Method]:
    """What is measured, by name: one pass and two, on the whole photo and on windows of it."""
    places = {"whole": False}
    if getattr(model, "focus", None) is not None:
        places["closer"] = True
    return {
        f"{place}, {passes}": partial(_masks, refine=refine, focus=focus)
        for place, focus in places.items()
        for passes, refine in (("1 pass", False), ("2 passes", True))
    }


def measure_set(
    model: Any,
    data: DataSet,
    *,
    jitter: float = 0.0,
    seed: int = 0,
    detector: DetectorFile | None = None,
) -> dict[str, Any]:
    """Measure one file.

    Returns:
        `photos`, `boxes`, `ways` (for each method, the figures of `MaskAP`, `miou` with its
        interval, seconds per photo, encoding included), `refinement` (for each place, the mean IoU
        that the second pass adds, with its interval) and `items`, an IoU for each object and
        method. A detector's object has the IoU of the best mask of its label, 0 without one.
    """
    methods = methods_of(model)
    if detector is not None:
        detector.check(data.samples, data.labels)
    tables = {name: MaskAP(data.labels) for name in methods}
    scores: dict[str, list[Score]] = {name: [] for name in methods}
    seconds, photos, count = dict.fromkeys(methods, 0.0), 0, 0
    for sample in progress(data.samples, data.name):
        if detector is None:
            boxes = true_boxes(sample, jitter=jitter, seed=seed)
        else:
            boxes = detector.boxes(sample)
        if not sample.objects and not len(boxes):
            continue
        photos, count = photos + 1, count + len(boxes)
        image = sample.image()
        for name, method in methods.items():
            started = time.perf_counter()
            # Opened anew each time: a view keeps its last window, which would serve the next one.
            with model.open(image) as view:
                try:
                    masks = method(view, boxes)
                except PromptError as error:
                    raise BadInputError(f"photo {sample.image_id!r}: {error}") from error
            seconds[name] += time.perf_counter() - started
            tables[name].add(sample, masks.rles, labels=boxes.labels, scores=boxes.scores)
            scores[name] += _object_ious(sample, boxes, masks)
    figures = {
        name: {
            **tables[name].figures(seed=seed),
            "miou": mean_interval(scores[name], seed=seed) if scores[name] else None,
            "seconds_per_photo": seconds[name] / photos if photos else None,
        }
        for name in methods
    }
    return {
        "photos": photos,
        "boxes": count,
        "ways": figures,
        "refinement": _refinement(scores, seed=seed),
        "items": scores,
    }


def _masks(view: Any, boxes: Boxes, *, refine: bool, focus: bool) -> Segmentation:
    return instances(
        view, boxes.boxes, labels=boxes.labels, scores=boxes.scores, refine=refine, focus=focus
    )


def _object_ious(sample: Sample, boxes: Boxes, masks: Segmentation) -> list[Score]:
    """IoU of each object with its mask: of its own box, or the best mask of its label."""
    void = undecided_pixels(sample)
    answer = {}
    if boxes.objects is not None:
        answer = dict(zip(boxes.objects, masks.rles, strict=True))
    else:
        for index, o in enumerate(sample.objects):
            own = [rle for rle, k in zip(masks.rles, boxes.labels, strict=True) if k == o.label]
            if own:
                answer[index] = own[int(rle_iou(own, [o.rle])[:, 0].argmax())]
    rows = []
    for index, o in enumerate(sample.objects):
        truth = decode_rle(o.rle)
        if o.ignore or not (truth if void is None else truth & ~void).any():
            continue
        mask = decode_rle(answer[index]) if index in answer else np.zeros_like(truth)
        iou = masked_iou(mask, truth, exclude=void)
        rows.append(Score(photo=sample.image_id, object=str(index), value=iou))
    return rows


def _refinement(scores: dict[str, list[Score]], *, seed: int) -> dict[str, Interval]:
    """What the second pass adds, by place."""
    added = {}
    # Object by object, since both passes start from the same boxes.
    for name, after in scores.items():
        place, _, passes = name.partition(", ")
        if passes == "2 passes" and after:
            added[place] = paired_interval(after, scores[f"{place}, 1 pass"], seed=seed)
    return added


def _show(sets: Sequence[dict[str, Any]], *, model: str, boxes: str) -> None:
    columns = [
        *columns_of("", {"set": "name", "photos": "photos", "boxes": "boxes"}),
        *columns_of("", {"masks of": "method", "mIoU": "miou/mean", "95%": "miou", "AP": "ap"}),
        *columns_of("", {"95%": "ap_interval", "AP50": "ap50", "AP75": "ap75"}),
        *columns_of("", {size: f"ap_{size}" for size in ("small", "medium", "large")}),
        Column("s/photo", "seconds_per_photo", 2),
    ]
    rows = [
        {**{key: row[key] for key in ("name", "photos", "boxes")}, "method": name, **figures}
        for row in sets
        for name, figures in row["ways"].items()
    ]
    notes = [
        f"{row['name']}, {place}: the refinement pass adds {added.mean:+.4f} mIoU "
        f"({added.low:+.4f} to {added.high:+.4f})"
        for row in sets
        for place, added in row["refinement"].items()
    ]
    notes.append(
        "whole: all boxes on the whole photo; closer: small ones on a window around them. "
        "AP: IoU .50:.05:.95, labels apart; small, medium, large: AP of objects up to 32^2, 96^2 "
        "and above; 95%: bootstrap over photos"
    )
    title = f"Instances from boxes ({boxes}), model {model}"
    show_figures(title, columns, rows, notes=notes, width=_PIPE_COLUMNS)


def _run(options: InstancesOptions) -> None:
    kind = f"true, noise {options.jitter:g} of the side" if options.jitter else "true"
    detector = None
    if options.boxes is not None:
        kind = str(options.boxes)
        detector = DetectorFile(options.boxes, categories=options.categories)

    def measure(model: Any, data: DataSet) -> dict[str, Any]:
        return measure_set(model, data, jitter=options.jitter, seed=options.seed, detector=detector)

    measured = measure_sets(options, measure)
    _show(measured, model=options.model, boxes=kind)
    panels = {
        row["name"]: {
            name: figures["miou"] for name, figures in row["ways"].items() if figures["miou"]
        }
        for row in measured
    }
    title = f"Instances from boxes, model {options.model}"
    write_bars(options.plot, panels, title=title, axis="mIoU")


main = partial(run_command, InstancesOptions, _run)

if __name__ == "__main__":
    sys.exit(main())
