"""Edges of every photo of a set, by the model, Canny and Sobel, matched with drawn boundaries."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.errors import MissingExtraError
from textsam.pictures.contact_sheet import Cell
from textsam.tasks.edges import EdgeSettings, edges

from ...data.public.boundaries import BoundaryPhoto, open_boundaries
from ...data.sample import BROKEN
from ..command import load_model, progress
from ..data_sets import BadInputError, evenly_spaced, report_broken, with_unique_names
from ..figures.case_sheets import Gallery
from ..figures.intervals import percentiles
from .baselines import canny_edges, sobel_edges
from .boundary_matching import TOLERANCE, match_counts, thresholds
from .edge_scores import curve_of, f_measure, ods_draws, score_edges

METHODS = ("model", "canny", "sobel")


@dataclass(frozen=True, kw_only=True)
class EdgeConfig:
    """Settings of the measurement."""

    # Number of thresholds. The benchmark has 99; 33 of them give the same ODS to .001 or so, for
    # its best F is interpolated between thresholds, in a third of the time.
    levels: int = 33
    tolerance: float = TOLERANCE  # Farthest match, as a share of the photo's diagonal
    edges: EdgeSettings = field(default_factory=EdgeSettings)  # How the model's edges are made
    seed: int = 0  # Decides the bootstrap's draws


@dataclass(frozen=True, kw_only=True)
class BoundarySet:
    """Photos with boundaries, and the file or line that they are from."""

    name: str
    path: str
    photos: Sequence[BoundaryPhoto]
    indices: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class EdgeCase:
    """One photo for a picture sheet."""

    figure: float  # what it is ranked by
    photo: BoundaryPhoto  # the photo and its boundaries
    maps: dict[str, NDArray[np.uint8]]  # (H, W) uint8, 255 for the strongest edge, by method


@dataclass(frozen=True, kw_only=True)
class _PhotoEdges:
    """The figures of one photo."""

    image_id: str = ""  # its name
    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict)  # (T, 4) of each method
    seconds: float = 0.0  # of the model's edges
    maps: dict[str, NDArray[np.uint8]] = field(default_factory=dict)  # (H, W) uint8 of each method
    broken: str = ""  # why it could not be read, or empty


def read_boundary_sets(data: Iterable[str], *, limit: int | None = None) -> list[BoundarySet]:
    """Open every set before anything is measured; photos are read when their turn comes.

    Raises:
        BadInputError: No such file or folder, one without boundaries or masks, a set without a
            photo, or a package that it needs is not there.
    """
    sets = []
    for item in data:
        try:
            photos = open_boundaries(item)
        except (OSError, ValueError, MissingExtraError) as error:
            raise BadInputError(str(error)) from error
        if not len(photos):
            raise BadInputError(f"{item} has no photo")
        name = str(getattr(photos, "name", Path(item).stem))
        indices = evenly_spaced(len(photos), limit)
        sets.append(BoundarySet(name=name, path=item, photos=photos, indices=indices))
    return with_unique_names(sets)


def measure_edges(
    model: Any,
    data: BoundarySet,
    *,
    config: EdgeConfig,
    workers: int = 1,
    name: str = "",
    gallery: Gallery[EdgeCase] | None = None,
) -> dict[str, Any]:
    """Measure one set.

    Returns:
        `photos`, `broken`, `methods` (of each its scores and its curve), `gain` (ODS over Canny's
        with its paired interval), `seconds_per_photo` (the model's edges), and `items` (of each
        photo the best F of each method).
    """
    rows: list[_PhotoEdges] = []
    reasons: list[str] = []
    measure = _PhotoMeasure(model, data.photos, config)
    results = _each_photo(measure, data, workers=workers, model=name)
    for index, result in zip(data.indices, results, strict=True):
        if result.broken:
            reasons.append(result.broken)
            continue
        if gallery is not None:
            figure = _best_f(result.counts["model"])
            gallery.add(EdgeCase(figure=figure, photo=data.photos[index], maps=dict(result.maps)))
        result.maps.clear()  # or the maps of all photos would be held
        rows.append(result)
    report_broken(data.name, reasons, sound=len(rows))
    counts = {method: np.stack([row.counts[method] for row in rows]) for method in METHODS}
    methods = {method: _scores_and_curve(counts[method], config) for method in METHODS}
    # One seed draws the same photos for both, so the difference is paired.
    draws = [ods_draws(counts[method], seed=config.seed) for method in ("model", "canny")]
    gain = methods["model"]["ods"] - methods["canny"]["ods"]
    return {
        "photos": len(rows),
        "broken": len(reasons),
        "methods": methods,
        "gain": [gain, *percentiles(draws[0] - draws[1])],
        "seconds_per_photo": sum(row.seconds for row in rows) / len(rows),
        "items": [
            {"image_id": row.image_id, **{m: _best_f(row.counts[m]) for m in METHODS}}
            for row in rows
        ],
    }


class _PhotoMeasure:
    """Measures a photo by its number; one that cannot be read is reported in the result."""

    def __init__(self, model: Any, photos: Sequence[BoundaryPhoto], config: EdgeConfig) -> None:
        self.model, self.photos, self.config = model, photos, config

    def __call__(self, index: int) -> _PhotoEdges:
        try:
            photo = self.photos[index]
            image = photo.image()
        except BROKEN as error:
            return _PhotoEdges(broken=str(error))
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
        rounded = {method: (255 * strength).astype(np.uint8) for method, strength in maps.items()}
        return _PhotoEdges(image_id=photo.image_id, counts=counts, seconds=seconds, maps=rounded)


def _each_photo(
    measure: _PhotoMeasure, data: BoundarySet, *, workers: int, model: str
) -> Iterator[_PhotoEdges]:
    """The figures of every photo, in order."""
    if workers == 1:
        yield from map(measure, progress(data.indices, data.name))
        return
    context = multiprocessing.get_context("spawn")
    start = (model, measure.photos, measure.config)
    with context.Pool(min(workers, len(data.indices)), _start_worker, start) as pool:
        results = pool.imap(_measure_in_worker, data.indices)
        for _ in progress(data.indices, data.name):
            yield next(results)


_WORKER: list[_PhotoMeasure] = []  # of a worker process, its one


def _start_worker(model: str, photos: Sequence[BoundaryPhoto], config: EdgeConfig) -> None:
    """One thread for each process, and a model of its own."""
    import torch

    torch.set_num_threads(1)
    _WORKER[:] = [_PhotoMeasure(load_model(model), photos, config)]


def _measure_in_worker(index: int) -> _PhotoEdges:
    return _WORKER[0](index)


def _scores_and_curve(counts: NDArray[np.int64], config: EdgeConfig) -> dict[str, Any]:
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


def sheet_rows(gallery: Gallery[EdgeCase]) -> dict[str, list[Cell]]:
    """A row for each photo: itself, the model's edges, Canny's, and people's, dark on white."""
    rows = {}
    for case in (*gallery.highest, *reversed(gallery.lowest)):
        people = np.mean(case.photo.boundaries, axis=0, dtype=np.float32)
        maps = {name: case.maps[name] / np.float32(255) for name in ("model", "canny")}
        cells = [Cell(picture=Image.fromarray(case.photo.image()), caption="photo")]
        for name, strength in (maps | {"people": people}).items():
            pixels = np.asarray(255 * (1 - strength), dtype=np.uint8)
            inked = Image.fromarray(pixels).convert("RGB")
            cells.append(Cell(picture=inked, caption=name))
        rows[f"{case.photo.image_id}: best F {case.figure:.3f}"] = cells
    return rows
