"""Big photos by tiles: seconds, peak memory, and how many objects are found.

    python -m training.evaluation.big_photos DATA.parquet --label horse --megapixels 12 100

Photos of the file that have the label are laid out as a mosaic of the given size, each at its own
size, and `model.open_tiled(mosaic).segment(text=label)` is asked in a fresh process, whose highest
resident size is reported: the library's, the mosaic's and the answer's together.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from textsam.values.rle import RLE, rle_iou
from textsam.values.rle_ops import paste_rle

from ..data import Sample
from ..peak_memory import in_fresh_process, peak_bytes
from .command import EvaluationOptions, measure_sets, run_command
from .data_sets import BadInputError, DataSet, seeded_rng
from .figures.matching import take_objects
from .figures.result_table import Column, show_figures

_LEVEL = 0.5  # lowest IoU of a match


@dataclass(frozen=True, kw_only=True)
class BigPhotoOptions(EvaluationOptions):
    """Ask mosaics of a file's photos for a label, by tiles: seconds, peak memory, objects found."""

    minimum: ClassVar[Mapping[str, int]] = {"megapixels": 1, "tile": 64}

    label: str = ""  # What to ask for
    megapixels: tuple[int, ...] = (12, 100)  # Sizes of mosaics
    # Side of a tile, a quarter of which overlaps; that of open_tiled by default.
    tile: int | None = None

    def check(self) -> None:
        """Also refuse a missing label."""
        super().check()
        if not self.label:
            raise BadInputError("no label to ask for. Type: --label horse")


def mosaic(
    samples: Sequence[Sample], label: str, *, pixels: float, seed: int
) -> tuple[NDArray[np.uint8], list[RLE]]:
    """Photos that have the label side by side, repeated as often as needed; the rest is black.

    The mosaic has about so many pixels, its sides as 4 to 3. Returns it (H, W, 3), and the label's
    objects in its pixels.
    """
    usable = [s for s in samples if any(o.label == label and not o.ignore for o in s.objects)]
    if not usable:
        raise BadInputError(f"no photo has an object labelled {label!r}")
    width = round((pixels * 4 / 3) ** 0.5)
    height = round(pixels / width)
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    objects: list[RLE] = []
    order = seeded_rng(seed, label).permutation(len(usable))
    x = y = tallest = index = 0
    # Row by row, as text is set: the tallest photo of a row gives the row's height.
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
        objects += [paste_rle(rle, x, y, size=(height, width)) for rle in own]
        x += columns
        tallest = max(tallest, rows)
    if not objects:
        raise BadInputError(f"no photo fits into {width} x {height} pixels. Type: --megapixels 12")
    return picture, objects


def measure_size(
    name: str, data: DataSet, *, label: str, megapixels: float, tile: int | None, seed: int
) -> dict[str, Any]:
    """Ask one mosaic.

    Returns:
        `megapixels`, `height`, `width`, `tiles`, `seconds` (opening and asking), `peak` and
        `photo` (MiB), `objects`, `masks`, `recall`, `precision` at IoU .5.
    """
    picture, truths = mosaic(data.samples, label, pixels=megapixels * 1e6, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        # As a file: an argument would be pickled, and count twice in the process's memory.
        file = Path(folder) / "mosaic.npy"
        np.save(file, picture)
        answer = in_fresh_process(_segment_tiled, name, file, label, tile)
    rles: list[RLE] = answer.pop("rles")
    overlap = rle_iou(rles, truths) if rles else np.zeros((0, len(truths)))
    matched = int((take_objects(overlap, level=_LEVEL) >= 0).sum())
    return {
        "megapixels": megapixels,
        "height": picture.shape[0],
        "width": picture.shape[1],
        **answer,
        "photo": picture.nbytes / 2**20,
        "objects": len(truths),
        "masks": len(rles),
        "recall": matched / len(truths),
        "precision": matched / len(rles) if rles else None,
    }


def _segment_tiled(name: str, file: Path, label: str, tile: int | None) -> dict[str, Any]:
    """Masks, time and memory; run in a process of its own."""
    from textsam import TextSAM

    model = TextSAM.from_pretrained(name)
    picture = np.load(file)
    started = time.perf_counter()
    view = model.open_tiled(picture, tile=tile, overlap=None if tile is None else tile // 4)
    masks = view.segment(text=label)
    seconds = time.perf_counter() - started
    return {
        "rles": masks.rles,
        "tiles": len(view.windows),
        "seconds": seconds,
        "peak": peak_bytes() / 2**20,
    }


def _run(options: BigPhotoOptions) -> None:
    def measure(model: Any, data: DataSet) -> dict[str, Any]:
        return {
            "sizes": [
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
        }

    rows = [
        {"title": f"{item['name']}, {row['width']} x {row['height']}", **row}
        for item in measure_sets(options, measure)
        for row in item["sizes"]
    ]
    columns = [
        Column("mosaic", "title"),
        Column("tiles", "tiles"),
        Column("s", "seconds", 0),
        Column("photo MiB", "photo", 0),
        Column("peak MiB", "peak", 0),
        *(Column(key, key) for key in ("objects", "masks", "recall", "precision")),
    ]
    notes = ["peak: highest resident size of a fresh process; recall, precision: at IoU .5"]
    title = f"Big photos, {options.label!r}, model {options.model}"
    show_figures(title, columns, rows, notes=notes)


main = partial(run_command, BigPhotoOptions, _run)

if __name__ == "__main__":
    sys.exit(main())
