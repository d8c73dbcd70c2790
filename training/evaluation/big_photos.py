"""Big photos by tiles: seconds, peak memory, and how many of the things in it come back.

    python -m training.evaluation.big_photos DATA.parquet --label horse --megapixels 12 100

Photos of the file that have the label are laid out as a mosaic of the wanted size, each as it is,
and `model.open_tiled(mosaic).segment(text=label)` is asked in a fresh process. Its highest resident
size counts: the library's, the mosaic's and the answer's together.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textsam.errors import TextSamError
from textsam.values.rle import RLE, rle_iou
from textsam.values.rle_ops import paste_rle

from ..data import Sample
from ..memory import peak_bytes
from .clicks.protocol import seeded_rng
from .figures.matching import take_objects
from .table import (
    BadInputError,
    DataSet,
    add_common_options,
    at_least,
    complain,
    measure_files,
    number,
    show_table,
)

__all__ = ["main", "measure_size", "mosaic"]

_MEBI = 2**20
_LEVEL = 0.5  # least IoU of a match


def mosaic(
    samples: Sequence[Sample], label: str, *, pixels: float, seed: int
) -> tuple[NDArray[np.uint8], list[RLE]]:
    """Photos side by side, each as often as it takes; what is left at the borders stays black.

    Args:
        samples: Photos; those with the label are used.
        label: What will be asked for.
        pixels: About how many the mosaic has; its sides are as 4 to 3.
        seed: Decides the order.

    Returns:
        (H, W, 3) uint8, and the label's objects in its pixels.

    Raises:
        BadInputError: No photo has the label, or none fits in.
    """
    usable = [s for s in samples if any(o.label == label and not o.ignore for o in s.objects)]
    if not usable:
        raise BadInputError(f"no photo has an object labelled {label!r}")
    width = round((pixels * 4 / 3) ** 0.5)
    height = round(pixels / width)
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    found: list[RLE] = []
    order = seeded_rng(seed, label).permutation(len(usable))
    x = y = tallest = index = 0
    while True:
        sample = usable[order[index % len(usable)]]
        index += 1
        rows, columns = sample.size
        if x + columns > width:
            x, y, tallest = 0, y + tallest, 0
        if x + columns > width or y + rows > height:
            break
        picture[y : y + rows, x : x + columns] = sample.image()
        own = [o.rle for o in sample.objects if o.label == label and not o.ignore]
        found += [paste_rle(rle, x, y, size=(height, width)) for rle in own]
        x += columns
        tallest = max(tallest, rows)
    if not found:
        raise BadInputError(f"no photo fits into {width} x {height} pixels. Type: --megapixels 12")
    return picture, found


def measure_size(
    name: str, data: DataSet, *, label: str, megapixels: float, tile: int | None, seed: int
) -> dict[str, Any]:
    """Ask one mosaic.

    Args:
        name: What `TextSAM.from_pretrained` takes.
        data: The photos.
        label: What is asked for.
        megapixels: Size of the mosaic.
        tile: Side of a tile, pixels, a quarter of which overlaps; `open_tiled`'s own by default.
        seed: Decides the order of its photos.

    Returns:
        `megapixels`, `height`, `width`, `tiles`, `seconds` (opening and asking), `peak` and
        `photo` (MiB), `objects`, `masks`, `recall`, `precision` at IoU .5.
    """
    picture, truths = mosaic(data.samples, label, pixels=megapixels * 1e6, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mosaic.npy"
        np.save(file, picture)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            answer = pool.apply(_ask, (name, file, label, tile))
    rles: list[RLE] = answer.pop("rles")
    overlap = rle_iou(rles, truths) if rles else np.zeros((0, len(truths)))
    matched = int((take_objects(overlap, level=_LEVEL) >= 0).sum())
    return {
        "megapixels": megapixels,
        "height": picture.shape[0],
        "width": picture.shape[1],
        **answer,
        "photo": picture.nbytes / _MEBI,
        "objects": len(truths),
        "masks": len(rles),
        "recall": matched / len(truths),
        "precision": matched / len(rles) if rles else None,
    }


def _ask(name: str, file: Path, label: str, tile: int | None) -> dict[str, Any]:
    """In a process of its own."""
    from textsam import TextSAM

    model = TextSAM.from_pretrained(name)
    picture = np.load(file)
    started = time.perf_counter()
    view = model.open_tiled(picture, tile=tile, overlap=None if tile is None else tile // 4)
    found = view.segment(text=label)
    seconds = time.perf_counter() - started
    return {
        "rles": found.rles,
        "tiles": len(view.windows),
        "seconds": seconds,
        "peak": peak_bytes() / 2**20,
    }


def _show(sets: Sequence[dict[str, Any]], *, model: str, label: str) -> None:
    rows = [
        [
            f"{item['name']}, {row['width']} x {row['height']}",
            str(row["tiles"]),
            *(number(row[key], digits=0) for key in ("seconds", "photo", "peak")),
            *(str(row[key]) for key in ("objects", "masks")),
            *(number(row[key]) for key in ("recall", "precision")),
        ]
        for item in sets
        for row in item["sizes"]
    ]
    columns = ["mosaic", "tiles", "s", "photo MiB", "peak MiB", "objects", "masks"]
    columns += ["recall", "precision"]
    notes = ["peak: highest resident size of a fresh process; recall, precision: at IoU .5"]
    show_table(f"Big photos, {label!r}, model {model}", columns, rows, notes=notes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (2: the input or the model is at fault)."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.big_photos",
        description="Ask mosaics of a file's photos for a label, by tiles: seconds, peak memory, "
        "and how many objects come back.",
    )
    add_common_options(parser)
    parser.add_argument("--label", required=True, metavar="NAME", help="what to ask for")
    parser.add_argument(
        "--megapixels",
        nargs="+",
        type=at_least(1),
        default=[12, 100],
        metavar="N",
        help="sizes of mosaics (default: 12 100)",
    )
    parser.add_argument(
        "--tile",
        type=at_least(64),
        metavar="N",
        help="side of a tile, a quarter of which overlaps (default: that of open_tiled)",
    )
    options = parser.parse_args(arguments)

    def measure(model: Any, data: DataSet) -> dict[str, Any]:
        sizes = [
            measure_size(
                options.model,
                data,
                label=options.label,
                megapixels=size,
                tile=options.tile,
                seed=options.seed,
            )
            for size in options.megapixels
        ]
        return {"name": data.name, "path": str(data.path), "sizes": sizes}

    try:
        measured = measure_files(options, measure, protocol={"level": _LEVEL})
    except (BadInputError, TextSamError) as error:
        return complain(parser, error)
    _show(measured, model=options.model, label=options.label)
    return 0


if __name__ == "__main__":
    sys.exit(main())
