"""Zero-shot edges on BSDS500: ODS, OIS, AP and R50, beside Sobel's and Canny's.

    python -m training.evaluation.edges dev/bsds500_val.parquet --workers 2 --plot edges.png
    python -m training.evaluation.edges "bsds500:BSR?split=test" --model facebook/sam-vit-base
    python -m training.evaluation.edges train/coco_panoptic.parquet      # borders of masks

arXiv 2304.02643, Section 7.2 and Appendix D.2. All methods are thinned by the same code and matched
with the same people's drawings; see `edge_matching.py` and `edge_scores.py` for the benchmark and
`edge_baselines.py` for what Sobel and Canny stand for here.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from textsam.errors import TextSamError
from textsam.tasks.edges import EdgeSettings, Preset, edges, resolve_settings

from ..data.boundaries import BoundaryPhoto
from ..data.sample import BROKEN
from .edge_detection.baselines import CANNY_LOW, CANNY_SIGMA, canny_edges, sobel_edges
from .edge_detection.boundary_matching import TOLERANCE, match_counts, thresholds
from .edge_detection.boundary_sets import BoundarySet, read_boundary_sets
from .edge_detection.edge_scores import curve_of, f_measure, ods_draws, score_edges
from .edge_detection.edge_sheet import EdgeGallery, EdgePicture
from .figures.bootstrap import percentiles
from .figures.charts import Curve, add_plot_option, write_curves
from .figures.sheet import add_sheet_option
from .table import (
    BadInputError,
    add_common_options,
    at_least,
    complain,
    load_model,
    measure_each,
    number,
    progress,
    show_table,
)

__all__ = ["EdgeConfig", "main", "measure_set"]

METHODS = ("model", "canny", "sobel")

# arXiv 2304.02643, Table 3, on the test photos: ODS, OIS, AP, R50.
PUBLISHED = {
    "SAM ViT-H, zero-shot": (0.768, 0.786, 0.794, 0.928),
    "HED, trained on edges": (0.788, 0.808, 0.840, 0.923),
    "Canny": (0.600, 0.640, 0.580, None),
    "Sobel": (0.539, None, None, None),
}


@dataclass(frozen=True, kw_only=True)
class EdgeConfig:
    """Settings of the measurement.

    Attributes:
        levels: Thresholds. The benchmark has 99; 33 of them give the same ODS to .001 or so, for
            its best F is interpolated between thresholds, in a third of the time.
        tolerance: Farthest match, as a share of the photo's diagonal.
        edges: How the model's edges are made.
        pictures: Whether the maps are kept for a picture sheet.
        seed: Decides the bootstrap's draws.
    """

    levels: int = 33
    tolerance: float = TOLERANCE
    edges: EdgeSettings = field(default_factory=EdgeSettings)
    pictures: bool = False
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class _PhotoEdges:
    """What one photo gave.

    Attributes:
        image_id: Its name.
        counts: (T, 4) of each method.
        seconds: What the model's edges took.
        maps: (H, W) uint8 for a picture sheet, by method; empty if there is none.
        broken: Why it could not be read, or empty.
    """

    image_id: str
    counts: dict[str, NDArray[np.int64]]
    seconds: float
    maps: dict[str, NDArray[np.uint8]]
    broken: str = ""


def measure_set(
    model: Any,
    data: BoundarySet,
    *,
    config: EdgeConfig,
    workers: int = 1,
    name: str = "",
    gallery: EdgeGallery | None = None,
) -> dict[str, Any]:
    """Measure one set.

    Args:
        model: A `TextSAM`.
        data: The photos.
        config: The protocol.
        workers: Processes; with more than one each loads the model by its name.
        name: What `TextSAM.from_pretrained` takes, for the processes.
        gallery: Takes the photos, for a picture sheet.

    Returns:
        `name`, `path`, `photos`, `broken`, `methods` (of each its scores and its curve), `gain`
        (ODS over Canny's with its paired interval), `seconds_per_photo` (the model's edges), and
        `items` (of each photo the best F of each method).

    Raises:
        BadInputError: Not one photo could be read.
    """
    found: list[_PhotoEdges] = []
    reasons: list[str] = []
    measure = _PhotoMeasure(model, data.photos, config)
    for index, result in enumerate(_answers(measure, data.name, workers=workers, model=name)):
        if result.broken:
            reasons.append(result.broken)
            continue
        found.append(replace(result, maps={}))
        if gallery is not None:
            gallery.add(_picture(data.photos[index], result))
    if not found:
        raise BadInputError(f"{data.name}: all photos are broken; the first: {reasons[0]}")
    if reasons:
        note = f"{data.name}: {len(reasons)} photos are broken and left out; the first: "
        print(" ".join((note + reasons[0]).split()), file=sys.stderr)
    counts = {method: np.stack([each.counts[method] for each in found]) for method in METHODS}
    methods = {m: _described(counts[m], config) for m in METHODS}
    gain = ods_draws(counts["model"], seed=config.seed) - ods_draws(
        counts["canny"], seed=config.seed
    )
    return {
        "name": data.name,
        "path": data.path,
        "photos": len(found),
        "broken": len(reasons),
        "methods": methods,
        "gain": [methods["model"]["ods"] - methods["canny"]["ods"], *percentiles(gain)],
        "seconds_per_photo": sum(each.seconds for each in found) / len(found),
        "items": [
            {"image_id": each.image_id, **{m: _best_f(each.counts[m]) for m in METHODS}}
            for each in found
        ],
    }


class _PhotoMeasure:
    """Measures a photo by its number; what it cannot read it says."""

    def __init__(self, model: Any, photos: Sequence[BoundaryPhoto], config: EdgeConfig) -> None:
        self.model, self.photos, self.config = model, photos, config

    def __call__(self, index: int) -> _PhotoEdges:
        try:
            photo = self.photos[index]
            image = photo.image()
        except BROKEN as error:
            return _PhotoEdges(image_id="", counts={}, seconds=0.0, maps={}, broken=str(error))
        levels = thresholds(self.config.levels)
        started = time.perf_counter()
        maps = {"model": edges(self.model.open(image), settings=self.config.edges)}
        seconds = time.perf_counter() - started
        maps |= {"canny": canny_edges(image, levels=levels), "sobel": sobel_edges(image)}
        counts = {
            method: match_counts(
                strength, photo.boundaries, levels=levels, tolerance=self.config.tolerance
            )
            for method, strength in maps.items()
        }
        kept = {m: (255 * v).astype(np.uint8) for m, v in maps.items() if self.config.pictures}
        return _PhotoEdges(image_id=photo.image_id, counts=counts, seconds=seconds, maps=kept)


def _answers(
    measure: _PhotoMeasure, title: str, *, workers: int, model: str
) -> Iterator[_PhotoEdges]:
    """What every photo gave, in order."""
    order = range(len(measure.photos))
    if workers == 1:
        yield from map(measure, progress(order, title))
        return
    context = multiprocessing.get_context("spawn")
    start = (model, measure.photos, measure.config)
    with context.Pool(min(workers, len(order)), _start_worker, start) as pool:
        results = pool.imap(_measure_there, order)
        for _ in progress(order, title):
            yield next(results)


_WORKER: list[_PhotoMeasure] = []  # of a worker process, its one


def _start_worker(model: str, photos: Sequence[BoundaryPhoto], config: EdgeConfig) -> None:
    """One thread each, and a model of its own."""
    import torch

    torch.set_num_threads(1)
    _WORKER[:] = [_PhotoMeasure(load_model(model), photos, config)]


def _measure_there(index: int) -> _PhotoEdges:
    return _WORKER[0](index)


def _described(counts: NDArray[np.int64], config: EdgeConfig) -> dict[str, Any]:
    """A method's scores and its curve."""
    levels = thresholds(config.levels)
    precision, recall = curve_of(counts.sum(0))
    return {
        **asdict(score_edges(counts, levels, seed=config.seed)),
        "thresholds": levels.tolist(),
        "precision": precision.tolist(),
        "recall": recall.tolist(),
    }


def _best_f(counts: NDArray[np.int64]) -> float:
    return float(f_measure(*curve_of(counts)).max())


def _picture(photo: BoundaryPhoto, result: _PhotoEdges) -> EdgePicture:
    maps: dict[str, NDArray[np.float32]] = {
        name: result.maps[name].astype(np.float32) / np.float32(255) for name in ("model", "canny")
    }
    maps["people"] = np.mean(photo.boundaries, axis=0, dtype=np.float32)
    return EdgePicture(
        image_id=photo.image_id,
        figure=_best_f(result.counts["model"]),
        image=photo.image(),
        maps=maps,
    )


def _show(sets: Sequence[dict[str, Any]], *, model: str, config: EdgeConfig) -> None:
    keys = ("ods", "ois", "ap", "r50")
    rows, notes = [], []
    for data in sets:
        for method, found in data["methods"].items():
            rows.append(
                [
                    f"{data['name']}: {model if method == 'model' else method}",
                    str(data["photos"]),
                    number(found["ods"]),
                    f"{found['ods_low']:.3f} to {found['ods_high']:.3f}",
                    *(number(found[key]) for key in keys[1:]),
                    number(found["ods_precision"]),
                    number(found["ods_recall"]),
                    number(data["seconds_per_photo"] if method == "model" else None, digits=1),
                ]
            )
        gain, low, high = data["gain"]
        notes.append(
            f"{data['name']}: {model} over Canny, ODS {gain:+.3f} ({low:+.3f} to {high:+.3f})"
        )
    for name, figures in PUBLISHED.items():
        shown = [number(figure) for figure in figures]
        rows.append([f"published, test: {name}", "200", shown[0], "", *shown[1:], "-", "-", "-"])
    notes += [
        "ODS, OIS: F at the best threshold for the set, for each photo; R50: recall at precision "
        ".5; P, R: at ODS; 95% intervals over photos",
        f"Canny: blur of {CANNY_SIGMA:.2f} pixels, Sobel, hysteresis down to {CANNY_LOW} of the "
        f"threshold; {config.levels} thresholds, matches over at most {config.tolerance} of the "
        "diagonal",
    ]
    columns = ["set: method", "photos", "ODS", "95%", "OIS", "AP", "R50", "P", "R", "s/photo"]
    show_table(f"Edges, zero-shot, model {model}", columns, rows, notes=notes)


def _plot(path: Path, sets: Sequence[dict[str, Any]], *, model: str) -> None:
    curves = [
        Curve(
            name=f"{data['name']}: {model if method == 'model' else method}, ODS {f['ods']:.3f}",
            x=f["recall"],
            y=f["precision"],
            mark=(f["ods_recall"], f["ods_precision"]),
        )
        for data in sets
        for method, f in data["methods"].items()
    ]
    write_curves(
        path,
        curves,
        title=f"Edges, zero-shot, model {model}; the dot is ODS",
        axes_names=("recall", "precision"),
        limits=((0, 1), (0, 1)),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.edges",
        description="Measure zero-shot edges (the paper's Section 7.2) as the BSDS benchmark does: "
        "ODS, OIS, AP and R50, beside Sobel's filter and Canny's detector on the same photos.",
    )
    add_common_options(
        parser,
        data="photos with people's boundaries, each some table rows: a Parquet file with the "
        'columns image, image_id, boundaries; "bsds500:ROOT?split=test"; or a set of masks, whose '
        "borders count (of value where masks cover the photos)",
    )
    defaults = EdgeConfig()
    parser.add_argument(
        "--thresholds",
        type=at_least(1),
        default=defaults.levels,
        metavar="N",
        help=f"points of the precision-recall curve (default: {defaults.levels}; the benchmark has "
        "99, which takes three times as long to match and gives the same ODS to .001 or so)",
    )
    parser.add_argument(
        "--workers",
        type=at_least(1),
        default=1,
        metavar="N",
        help="processes, each with a model of its own (default: 1)",
    )
    parser.add_argument(
        "--settings",
        choices=get_args(Preset),
        default="paper",
        help='how the edges are made: "paper" (Appendix D.2), or "agreement", ours for small '
        "models, which takes seven times as long (default: paper)",
    )
    add_plot_option(parser, "precision over recall")
    add_sheet_option(parser, "best F: the photo, the model's edges, Canny's and people's")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (2: the input or the model is at fault)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    config = EdgeConfig(
        levels=options.thresholds,
        edges=resolve_settings(options.settings),
        pictures=options.sheet is not None,
        seed=options.seed,
    )
    gallery = EdgeGallery() if options.sheet else None

    def measure(model: Any, data: BoundarySet) -> dict[str, Any]:
        return measure_set(
            model,
            data,
            config=config,
            workers=options.workers,
            name=options.model,
            gallery=gallery,
        )

    try:
        measured = measure_each(options, read_boundary_sets, measure, protocol=asdict(config))
        if gallery is not None:
            gallery.write(options.sheet, figure="best F")
        if options.plot is not None:
            _plot(options.plot, measured, model=options.model)
    except (BadInputError, TextSamError) as error:
        return complain(parser, error)
    _show(measured, model=options.model, config=config)
    return 0


if __name__ == "__main__":
    sys.exit(main())
