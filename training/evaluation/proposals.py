"""Object proposals: class-agnostic average recall at 10, 100 and 1000 masks a photo.

    python -m training.evaluation.proposals dev/coco_instances.parquet --points-per-side 16

arXiv 2304.02643, Section 7.3 and Appendix D.3 (there on LVIS v1 at its photos' original size): a
grid of 64 x 64 points, ranked by the mean of predicted IoU and stability; see
`textsam.tasks.proposals`. Beside it, on the same photos: the masks of `everything("fast")` by
predicted IoU, and Felzenszwalb's regions (`superpixels.py`), which need no model.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from textsam.errors import TextSamError, require
from textsam.tasks.proposals import proposals, with_points
from textsam.values.rle import RLE

from ..data import Sample
from .figures.average_recall import (
    LIMITS,
    PhotoRecall,
    mean_recall,
    photo_recall,
    recall_difference,
)
from .figures.bootstrap import Interval
from .figures.charts import add_plot_option, write_bars
from .figures.coco_eval import SIZES
from .superpixels import felzenszwalb_regions
from .table import (
    BadInputError,
    DataSet,
    add_common_options,
    at_least,
    check_output,
    complain,
    measure_files,
    number,
    progress,
    show_table,
)

__all__ = ["ProposalConfig", "main", "measure_set", "ways_of"]

_OURS, _FAST, _REGIONS = "proposals", 'everything("fast")', "Felzenszwalb"
_SHOWN = (*(f"all@{limit}" for limit in LIMITS), *(f"{size}@1000" for size in list(SIZES)[1:]))


@dataclass(frozen=True, kw_only=True)
class ProposalConfig:
    """Settings: points per side of the grid, whether baselines are measured, the draws' seed."""

    points_per_side: int = 64
    baseline: bool = True
    seed: int = 0


# Ranked masks of a photo: from the open view and the photo itself.
Way = Callable[[Any, Sample], Sequence[RLE]]


def ways_of(config: ProposalConfig) -> dict[str, Way]:
    """What is measured, by name."""
    settings = with_points(config.points_per_side)
    ways: dict[str, Way] = {
        _OURS: lambda view, sample: proposals(view, settings=settings, most=max(LIMITS)).rles
    }
    if config.baseline:
        ways[_FAST] = lambda view, sample: view.everything("fast").rles
        ways[_REGIONS] = lambda view, sample: felzenszwalb_regions(sample.image(), most=max(LIMITS))
    return ways


def measure_set(
    model: Any, data: DataSet, *, config: ProposalConfig, ways: Mapping[str, Way] | None = None
) -> dict[str, Any]:
    """Measure one file.

    Args:
        model: A `TextSAM`: `open(image)` gives a context manager.
        data: The photos.
        config: The settings.
        ways: What to measure; `ways_of(config)` by default.

    Returns:
        `name`, `path`, `photos` (with an object), `objects` of each size, `ways` (for each: `ar`,
        `"all@10"` -> mean and interval, None without such an object; `masks` a photo; seconds a
        photo), `differences` (AR of the proposals minus each other way's), `items`.
    """
    ways = ways_of(config) if ways is None else ways
    items: dict[str, list[PhotoRecall]] = {name: [] for name in ways}
    seconds = dict.fromkeys(ways, 0.0)
    for sample in progress(data.samples, data.name):
        if all(o.ignore for o in sample.objects):
            continue
        with model.open(sample.image()) as view:
            for name, way in ways.items():
                started = time.perf_counter()
                masks = way(view, sample)
                seconds[name] += time.perf_counter() - started
                items[name].append(photo_recall(sample, masks))
    first = next(iter(items.values()))
    keys = [f"{size}@{limit}" for size in SIZES for limit in LIMITS]
    return {
        "name": data.name,
        "path": str(data.path),
        "photos": len(first),
        "objects": {size: sum(photo.objects[size] for photo in first) for size in SIZES},
        "ways": {
            name: {
                "ar": {k: _figure(mean_recall(photos, k, seed=config.seed)) for k in keys},
                "masks": sum(p.masks for p in photos) / len(photos) if photos else None,
                "seconds_per_photo": seconds[name] / len(photos) if photos else None,
            }
            for name, photos in items.items()
        },
        "differences": {
            name: {
                k: _figure(recall_difference(items[_OURS], photos, k, seed=config.seed))
                for k in keys
            }
            for name, photos in items.items()
            if name != _OURS and _OURS in items
        },
        "items": {name: [asdict(photo) for photo in photos] for name, photos in items.items()},
    }


def _figure(value: Interval | None) -> dict[str, float] | None:
    return None if value is None else value._asdict()


def _show(sets: Sequence[dict[str, Any]], *, model: str, config: ProposalConfig) -> None:
    columns = ["set", "photos", "objects", "masks of", "AR@10", "AR@100", "95%", "AR@1000"]
    columns += ["small", "medium", "large", "masks", "s/photo"]
    rows, notes = [], []
    for row in sets:
        for name, way in row["ways"].items():
            means = [None if way["ar"][k] is None else way["ar"][k]["mean"] for k in _SHOWN]
            cells = [number(value) for value in means]
            middle = way["ar"]["all@100"]
            cells.insert(2, "-" if middle is None else f"{middle['low']:.3f}-{middle['high']:.3f}")
            rows.append(
                [
                    *(row["name"], str(row["photos"]), str(row["objects"]["all"]), name, *cells),
                    number(way["masks"], digits=0),
                    number(way["seconds_per_photo"], digits=2),
                ]
            )
        for name, figures in row["differences"].items():
            if (d := figures["all@100"]) is not None:
                notes.append(
                    f"{row['name']}: AR@100 of proposals - {name}: {d['mean']:+.3f} "
                    f"({d['low']:+.3f} to {d['high']:+.3f})"
                )
    notes.append(
        "AR: class-agnostic recall over IoU .50:.05:.95, crowds left out; small, medium, large: "
        "AR@1000 of objects up to 32^2, 96^2 and above, in pixels of the stored photo; 95%: "
        "bootstrap over photos, of AR@100"
    )
    title = f"Object proposals, model {model}, {config.points_per_side} points a side"
    show_table(title, columns, rows, notes=notes)


def _plot(options: argparse.Namespace, sets: Sequence[dict[str, Any]]) -> None:
    panels = {
        f"{row['name']} AR@{limit}": {
            name: Interval(**figure)
            for name, way in row["ways"].items()
            if (figure := way["ar"][f"all@{limit}"]) is not None
        }
        for row in sets
        for limit in LIMITS
    }
    panels = {name: bars for name, bars in panels.items() if bars}
    if options.plot is not None and panels:
        title = f"Object proposals, model {options.model}"
        most = max(bar.high for bars in panels.values() for bar in bars.values())
        limits = (0.0, min(1.0, 1.1 * most + 0.01))
        write_bars(options.plot, panels, title=title, axis="average recall", limits=limits)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.proposals",
        description="Measure object proposals: class-agnostic average recall at 10, 100 and 1000 "
        "masks a photo, for all, small, medium and large objects, beside regions that need no "
        "model and the masks of everything('fast'). LVIS is measured at its photos' original size: "
        "store them so.",
    )
    add_common_options(parser)
    parser.add_argument(
        "--points-per-side",
        type=at_least(1),
        default=64,
        metavar="N",
        help="side of the grid of points; 64 is the paper's and takes minutes a photo on a CPU, "
        "16 seconds (default: 64)",
    )
    parser.add_argument(
        "--baseline",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also measure Felzenszwalb's regions and everything('fast') (default: yes)",
    )
    add_plot_option(parser, "AR of each way")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (2: the input or the model is at fault)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    config = ProposalConfig(
        points_per_side=options.points_per_side, baseline=options.baseline, seed=options.seed
    )

    def measure(model: Any, data: DataSet) -> dict[str, Any]:
        return measure_set(model, data, config=config)

    try:
        require("faster_coco_eval", "eval")  # said before hours are spent
        if config.baseline:
            require("skimage.segmentation", "eval")
        check_output(options.plot, "--plot")
        measured = measure_files(options, measure, protocol=asdict(config))
        _show(measured, model=options.model, config=config)
        _plot(options, measured)
    except (BadInputError, TextSamError) as error:
        return complain(parser, error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
