"""Edges of every photo of a set, by the model, Canny and Sobel, matched with drawn boundaries.

Sobel's filter and Canny's detector need no model; they work on the grey photo and are thinned by
the same code as a model's edges. Published on the test photos of BSDS500 (the table of arXiv
2304.02643, Section 7.2): ODS .539 and .600.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from textsam.errors import MissingExtraError, require
from textsam.pictures.contact_sheet import Cell
from textsam.tasks.edges import EdgeSettings, edges
from textsam.tasks.outlines import sobel, thin_edges

from ...data.public.boundaries import BoundaryPhoto, open_boundaries
from ...data.sample import BROKEN
from ..command import progress
from ..data_sets import BadInputError, evenly_spaced, report_broken, with_unique_names
from ..figures.case_sheets import Gallery
from ..figures.intervals import percentiles
from .edge_benchmark import curve_of, f_measure, match_counts, ods_draws, score_edges

Floats = NDArray[np.float32]

METHODS = ("model", "canny", "sobel")
CANNY_SIGMA = 2.0  # pixels
CANNY_LOW = 0.4  # the low threshold as a share of the high one


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


def read_boundary_sets(data: Iterable[str], *, limit: int | None = None) -> list[BoundarySet]:
    """Open every set before anything is measured; photos are read when their turn comes."""
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
    levels: NDArray[np.float64],
    settings: EdgeSettings,
    seed: int = 0,
    gallery: Gallery | None = None,
) -> dict[str, Any]:
    """Measure one set, matched at rising thresholds (T,).

    Returns:
        `photos`, `broken`, `methods` (of each its scores and its curve), `gain` (ODS over Canny's
        with its paired interval), `seconds_per_photo` (the model's edges), and `items` (of each
        photo the best F of each method).
    """
    # Counts (T, 4) of each photo, by method.
    every: dict[str, list[NDArray[np.int64]]] = {method: [] for method in METHODS}
    items: list[dict[str, Any]] = []
    reasons: list[str] = []
    seconds = 0.0
    for index in progress(data.indices, data.name):
        try:
            photo = data.photos[index]
            image = photo.image()
        except BROKEN as error:
            reasons.append(str(error))
            continue
        started = time.perf_counter()
        maps = {"model": edges(model.open(image), settings=settings)}
        seconds += time.perf_counter() - started
        maps |= {"canny": canny_edges(image, levels=levels), "sobel": sobel_edges(image)}
        counts = {m: match_counts(maps[m], photo.boundaries, levels=levels) for m in METHODS}
        for method in METHODS:
            every[method].append(counts[method])
        best = {m: float(f_measure(*curve_of(counts[m])).max()) for m in METHODS}
        items.append({"image_id": photo.image_id, **best})
        if gallery is not None:
            # As bytes: the gallery holds the maps of several photos.
            rounded = {m: (255 * strength).astype(np.uint8) for m, strength in maps.items()}
            gallery.add(EdgeCase(figure=best["model"], photo=photo, maps=rounded))
    report_broken(data.name, reasons, sound=len(items))
    stacked = {method: np.stack(counts) for method, counts in every.items()}
    methods = {method: _scores_and_curve(stacked[method], levels, seed=seed) for method in METHODS}
    # One seed draws the same photos for both, so the difference is paired.
    draws = [ods_draws(stacked[method], seed=seed) for method in ("model", "canny")]
    gain = methods["model"]["ods"] - methods["canny"]["ods"]
    return {
        "photos": len(items),
        "broken": len(reasons),
        "methods": methods,
        "gain": [gain, *percentiles(draws[0] - draws[1])],
        "seconds_per_photo": seconds / len(items),
        "items": items,
    }


def _scores_and_curve(
    counts: NDArray[np.int64], levels: NDArray[np.float64], *, seed: int
) -> dict[str, Any]:
    precision, recall = (values.tolist() for values in curve_of(counts.sum(0)))
    curve = {"thresholds": levels.tolist(), "precision": precision, "recall": recall}
    return score_edges(counts, levels, seed=seed) | curve


def sheet_rows(gallery: Gallery) -> dict[str, list[Cell]]:
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


def sobel_edges(image: NDArray[np.uint8]) -> Floats:
    """Magnitude of Sobel's gradient, thinned, the strongest of the photo 1: (H, W)."""
    return _crests(_grey(image))


def canny_edges(
    image: NDArray[np.uint8],
    *,
    levels: NDArray[np.float64],
    sigma: float = CANNY_SIGMA,
    low: float = CANNY_LOW,
) -> Floats:
    """Canny's detector at several thresholds, as one map.

    Gaussian blur, Sobel's gradient, non-maximum suppression, hysteresis: of the pixels over the low
    threshold those stay that are connected (8 neighbours) to one over the high threshold.

    Levels are high thresholds, rising, as shares of the photo's strongest gradient.

    Returns:
        (H, W) the highest threshold at which a pixel is in Canny's answer; 0 for none.
    """
    ndimage = require("scipy.ndimage", "eval")
    crests = _crests(ndimage.gaussian_filter(_grey(image), sigma, mode="nearest"))
    answer = np.zeros_like(crests)
    # Rising levels: the last one that a pixel survives stays in the map.
    for level in levels:
        pieces, count = ndimage.label(crests >= low * level, structure=np.ones((3, 3)))
        strongest = ndimage.maximum(crests, pieces, np.arange(count + 1))
        kept = np.asarray(strongest) >= level
        kept[0] = False
        answer[kept[pieces]] = level
    return answer


def _grey(image: NDArray[np.uint8]) -> Floats:
    """ITU-R 601 luma, 0 to 255: (H, W)."""
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    grey: Floats = image.astype(np.float32) @ weights
    return grey


def _crests(grey: Floats) -> Floats:
    gradient = sobel(torch.from_numpy(grey)[None])[0].numpy()
    strength = np.hypot(gradient[0], gradient[1])
    return thin_edges(strength / max(float(strength.max()), 1e-12), gradient)
