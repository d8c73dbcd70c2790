"""Zero-shot edges on BSDS500: ODS, OIS, AP and R50, beside Sobel's and Canny's.

    python -m training.evaluation.edges dev/bsds500_val.parquet --plot edges.png
    python -m training.evaluation.edges "bsds500:BSR?split=test" --model facebook/sam-vit-base
    python -m training.evaluation.edges train/coco_panoptic.parquet      # borders of masks

arXiv 2304.02643, Section 7.2 and Appendix D.2. All methods are thinned by the same code and matched
with the same annotators' drawings: see `edge_detection/edge_benchmark.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from textsam.tasks.edges import Preset, resolve_settings

from .command import EvaluationOptions, PlotOption, SheetOption, measure_sets, run_command
from .edge_detection.edge_benchmark import TOLERANCE, thresholds
from .edge_detection.edge_runs import (
    CANNY_LOW,
    CANNY_SIGMA,
    BoundarySet,
    measure_edges,
    read_boundary_sets,
    sheet_rows,
)
from .figures.case_sheets import Gallery, write_cells
from .figures.charts import PlottedCurve, write_curves
from .figures.result_table import Column, columns_of, show_figures

# arXiv 2304.02643, Table 3, on the test photos: ODS, OIS, AP, R50.
PUBLISHED = {
    "SAM ViT-H, zero-shot": (0.768, 0.786, 0.794, 0.928),
    "HED, trained on edges": (0.788, 0.808, 0.840, 0.923),
    "Canny": (0.600, 0.640, 0.580, None),
    "Sobel": (0.539, None, None, None),
}


@dataclass(frozen=True, kw_only=True)
class EdgeOptions(SheetOption, PlotOption, EvaluationOptions):
    """Measure zero-shot edges (the paper's Section 7.2) as the BSDS benchmark does.

    ODS, OIS, AP and R50, beside Sobel's filter and Canny's detector on the same photos. DATA are
    photos with people's boundaries: a Parquet file with the columns image, image_id, boundaries;
    "bsds500:ROOT?split=test"; or a set of masks, whose borders count (of value where masks cover
    the photos).
    """

    minimum: ClassVar[Mapping[str, int]] = {"thresholds": 1}

    # Points of the precision-recall curve. The benchmark has 99, which takes three times as long to
    # match and gives the same ODS to .001 or so, since its best F is interpolated between them.
    thresholds: int = 33
    # How the edges are made: "paper" (Appendix D.2), or "agreement", ours for small models, which
    # takes seven times as long.
    settings: Preset = "paper"


def _show(sets: Sequence[dict[str, Any]], options: EdgeOptions) -> None:
    rows: list[dict[str, Any]] = []
    notes = []
    for row in sets:
        for method, figures in row["methods"].items():
            ours = method == "model"
            title = f"{row['name']}: {options.model if ours else method}"
            seconds = row["seconds_per_photo"] if ours else None
            bounds = f"{figures['ods_low']:.3f} to {figures['ods_high']:.3f}"
            more = {"title": title, "photos": row["photos"], "bounds": bounds, "seconds": seconds}
            rows.append(figures | more)
        gain, low, high = row["gain"]
        notes.append(
            f"{row['name']}: {options.model} over Canny, ODS {gain:+.3f} "
            f"({low:+.3f} to {high:+.3f})"
        )
    for name, published in PUBLISHED.items():
        figures = dict(zip(("ods", "ois", "ap", "r50"), published, strict=True))
        rows.append({"title": f"published, test: {name}", "photos": 200, "bounds": "", **figures})
    notes += [
        "ODS, OIS: F at the best threshold for the set, for each photo; R50: recall at precision "
        ".5; P, R: at ODS; 95% intervals over photos",
        f"Canny: blur of {CANNY_SIGMA:.2f} pixels, Sobel, hysteresis down to {CANNY_LOW} of the "
        f"threshold; {options.thresholds} thresholds, matches over at most {TOLERANCE} of the "
        "diagonal",
    ]
    columns = [
        *columns_of("", {"set: method": "title", "photos": "photos", "ODS": "ods"}),
        *columns_of("", {"95%": "bounds", "OIS": "ois", "AP": "ap", "R50": "r50"}),
        *columns_of("", {"P": "ods_precision", "R": "ods_recall"}),
        Column("s/photo", "seconds", 1),
    ]
    show_figures(f"Edges, zero-shot, model {options.model}", columns, rows, notes=notes)


def _run(options: EdgeOptions) -> None:
    gallery: Gallery = Gallery(4)

    def measure(model: Any, data: BoundarySet) -> dict[str, Any]:
        kept = None if options.sheet is None else gallery
        return measure_edges(
            model,
            data,
            levels=thresholds(options.thresholds),
            settings=resolve_settings(options.settings),
            seed=options.seed,
            gallery=kept,
        )

    measured = measure_sets(options, measure, read=read_boundary_sets)
    if options.sheet is not None:
        write_cells(options.sheet, sheet_rows(gallery))
    curves = [
        PlottedCurve(
            name=f"{row['name']}: {options.model if method == 'model' else method}, "
            f"ODS {figures['ods']:.3f}",
            x=figures["recall"],
            y=figures["precision"],
            mark=(figures["ods_recall"], figures["ods_precision"]),
        )
        for row in measured
        for method, figures in row["methods"].items()
    ]
    write_curves(
        options.plot,
        curves,
        title=f"Edges, zero-shot, model {options.model}; the dot is ODS",
        axes_names=("recall", "precision"),
        limits=((0, 1), (0, 1)),
    )
    _show(measured, options)


main = partial(run_command, EdgeOptions, _run)

if __name__ == "__main__":
    sys.exit(main())
