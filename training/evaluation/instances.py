"""Instances from boxes: mask AP and mIoU, with and without the refinement pass, side by side.

    python -m training.evaluation.instances dev/coco_instances.parquet --jitter 0.1
    python -m training.evaluation.instances dev/coco_instances.parquet --boxes detections.json

arXiv 2304.02643, Section 7.4 and Appendix D.4; see `textsam.tasks.instances`. The boxes are the
truth's own by default, so the figures are an upper bound: every object is found, with score 1.
`--jitter` moves them as a detector might; `--boxes` takes a detector's. A model that looks closer
is measured both ways, on the whole photo and on windows.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from textsam.errors import PromptError, TextSamError
from textsam.results.segmentation import Segmentation
from textsam.tasks.instances import instances
from textsam.values.rle import decode_rle, rle_iou

from ..data import Sample
from .clicks.box_sources import Boxes, DetectorFile, true_boxes
from .clicks.protocol import masked_iou
from .figures.bootstrap import Interval, Score, mean_interval, paired_interval
from .figures.charts import add_plot_option, write_bars
from .figures.mask_ap import MaskAP, undecided_pixels
from .table import (
    BadInputError,
    DataSet,
    add_common_options,
    check_output,
    complain,
    measure_files,
    number,
    numbers,
    progress,
    show_table,
)

__all__ = ["BoxConfig", "main", "measure_set", "ways_of"]

_COLUMNS = 156  # of a pipe: two intervals a row
_AP = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")

# Masks of a photo's boxes: from the open view and the boxes.
Way = Callable[[Any, Boxes], Segmentation]


@dataclass(frozen=True, kw_only=True)
class BoxConfig:
    """Settings: noise of the true boxes (share of the side), and the seed of noise and draws."""

    jitter: float = 0.0
    seed: int = 0


def ways_of(model: Any) -> dict[str, Way]:
    """What is measured, by name: one pass and two, on the whole photo and closer."""
    places = {"whole": False}
    if getattr(model, "focus", None) is not None:
        places["closer"] = True
    return {
        f"{place}, {passes}": partial(_masks, refine=refine, focus=focus)
        for place, focus in places.items()
        for passes, refine in (("1 pass", False), ("2 passes", True))
    }


def measure_set(
    model: Any, data: DataSet, *, config: BoxConfig, detector: DetectorFile | None = None
) -> dict[str, Any]:
    """Measure one file.

    Args:
        model: A `TextSAM`: `open(image)` gives a context manager.
        data: The photos.
        config: The settings.
        detector: Boxes in place of the truth's.

    Returns:
        `name`, `path`, `photos`, `boxes`, `ways` (for each, the figures of `MaskAP`, `miou` with
        its interval, seconds a photo, encoding included), `refinement` (for each place, the mean
        IoU that the second pass adds, with its interval) and `items`, an IoU for each object and
        way. A detector's object has the IoU of the best mask of its label, 0 without one.
    """
    ways = ways_of(model)
    if detector is not None:
        detector.check(data.samples, data.labels)
    tables = {name: MaskAP(data.labels) for name in ways}
    scores: dict[str, list[Score]] = {name: [] for name in ways}
    seconds, photos, count = dict.fromkeys(ways, 0.0), 0, 0
    for sample in progress(data.samples, data.name):
        if detector is None:
            boxes = true_boxes(sample, jitter=config.jitter, seed=config.seed)
        else:
            boxes = detector.boxes(sample)
        if not sample.objects and not len(boxes):
            continue
        photos, count = photos + 1, count + len(boxes)
        image = sample.image()
        for name, way in ways.items():
            started = time.perf_counter()
            # Opened anew each time: a view keeps its last window, which would serve the next way.
            with model.open(image) as view:
                try:
                    found = way(view, boxes)
                except PromptError as error:
                    raise BadInputError(f"photo {sample.image_id!r}: {error}") from error
            seconds[name] += time.perf_counter() - started
            tables[name].add(sample, found.rles, labels=boxes.labels, scores=boxes.scores)
            scores[name] += _object_ious(sample, boxes, found)
    figures = {
        name: {
            **tables[name].figures(seed=config.seed),
            "miou": _figure(scores[name], seed=config.seed),
            "seconds_per_photo": seconds[name] / photos if photos else None,
        }
        for name in ways
    }
    return {
        "name": data.name,
        "path": str(data.path),
        "photos": photos,
        "boxes": count,
        "ways": figures,
        "refinement": _refinement(scores, seed=config.seed),
        "items": {name: [asdict(score) for score in own] for name, own in scores.items()},
    }


def _masks(view: Any, boxes: Boxes, *, refine: bool, focus: bool) -> Segmentation:
    return instances(
        view, boxes.boxes, labels=boxes.labels, scores=boxes.scores, refine=refine, focus=focus
    )


def _object_ious(sample: Sample, boxes: Boxes, found: Segmentation) -> list[Score]:
    """IoU of each object with its mask: of its own box, or the best mask of its label."""
    void = undecided_pixels(sample)
    if boxes.objects is not None:
        answer = dict(zip(boxes.objects, found.rles, strict=True))
    else:
        answer = {}
        for index, o in enumerate(sample.objects):
            own = [rle for rle, k in zip(found.rles, boxes.labels, strict=True) if k == o.label]
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


def _refinement(scores: dict[str, list[Score]], *, seed: int) -> dict[str, Any]:
    """What the second pass adds, by place."""
    added = {}
    for name, after in scores.items():
        place, _, passes = name.partition(", ")
        if passes == "2 passes" and after:
            before = scores[f"{place}, 1 pass"]
            added[place] = paired_interval(after, before, seed=seed)._asdict()
    return added


def _figure(scores: Sequence[Score], *, seed: int) -> dict[str, float] | None:
    return mean_interval(scores, seed=seed)._asdict() if scores else None


def _show(sets: Sequence[dict[str, Any]], *, model: str, boxes: str) -> None:
    columns = ["set", "photos", "boxes", "masks of", "mIoU", "95%", "AP", "95%", "AP50", "AP75"]
    columns += ["small", "medium", "large", "s/photo"]
    rows, notes = [], []
    for row in sets:
        for name, way in row["ways"].items():
            miou, bounds = way["miou"], way["ap_interval"]
            ap, *others = numbers(way, _AP)
            rows.append(
                [
                    *(row["name"], str(row["photos"]), str(row["boxes"]), name),
                    number(None if miou is None else miou["mean"]),
                    "-" if miou is None else f"{miou['low']:.3f}-{miou['high']:.3f}",
                    ap,
                    "-" if bounds is None else f"{bounds[0]:.3f}-{bounds[1]:.3f}",
                    *others,
                    number(way["seconds_per_photo"], digits=2),
                ]
            )
        for place, added in row["refinement"].items():
            notes.append(
                f"{row['name']}, {place}: the refinement pass adds {added['mean']:+.4f} mIoU "
                f"({added['low']:+.4f} to {added['high']:+.4f})"
            )
    notes.append(
        "whole: all boxes on the whole photo; closer: small ones on a window around them. "
        "AP: IoU .50:.05:.95, labels apart; small, medium, large: AP of objects up to 32^2, 96^2 "
        "and above; 95%: bootstrap over photos"
    )
    title = f"Instances from boxes ({boxes}), model {model}"
    show_table(title, columns, rows, notes=notes, width=_COLUMNS)


def _plot(options: argparse.Namespace, sets: Sequence[dict[str, Any]]) -> None:
    panels = {
        row["name"]: {
            name: Interval(**way["miou"])
            for name, way in row["ways"].items()
            if way["miou"] is not None
        }
        for row in sets
    }
    panels = {name: bars for name, bars in panels.items() if bars}
    if options.plot is not None and panels:
        title = f"Instances from boxes, model {options.model}"
        write_bars(options.plot, panels, title=title, axis="mIoU")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.instances",
        description="Measure masks from boxes: AP, AP50, AP75, AP of small, medium and large "
        "objects, and mIoU, with and without the paper's refinement pass. The boxes are the "
        "truth's own (an upper bound), the same with noise, or a detector's.",
    )
    add_common_options(parser)
    parser.add_argument(
        "--boxes",
        type=Path,
        metavar="R.json",
        help="COCO detection results in place of the true boxes; image_id is the photo's id in "
        "the set, category_id a label of it, or a number that --categories names",
    )
    parser.add_argument(
        "--categories",
        type=Path,
        metavar="A.json",
        help="a COCO file with the categories that the numbers in --boxes mean",
    )
    parser.add_argument(
        "--jitter",
        type=_share,
        default=0.0,
        metavar="SD",
        help="noise of the true boxes' corners: standard deviation as a share of the side; 0.1 is "
        "that of the paper's training (default: 0)",
    )
    add_plot_option(parser, "mIoU of each way")
    return parser


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; wanted a number from 0 to 1")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (2: the input or the model is at fault)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    config = BoxConfig(jitter=options.jitter, seed=options.seed)
    try:
        check_output(options.plot, "--plot")
        if options.boxes is None and options.categories is not None:
            raise BadInputError("--categories comes with --boxes")
        if options.boxes is not None and options.jitter:
            raise BadInputError("--jitter moves the true boxes; leave it out with --boxes")
        detector = None
        if options.boxes is not None:
            detector = DetectorFile(options.boxes, categories=options.categories)
        measured = measure_files(
            options,
            lambda model, data: measure_set(model, data, config=config, detector=detector),
            protocol=asdict(config),
        )
        kind = f"true, noise {config.jitter:g} of the side" if config.jitter else "true"
        _show(measured, model=options.model, boxes=kind if detector is None else str(options.boxes))
        _plot(options, measured)
    except (BadInputError, TextSamError) as error:
        return complain(parser, error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
