"""Memory that kept results and dialogues take, for photos of 12 megapixels.

    python -m training.studies.result_memory --results 100 --clicks 100

Each row is measured in a process of its own: what its resident size grows by while results are
kept, after a first one has warmed everything up. The growth is scaled to a thousand.
"""

from __future__ import annotations

import gc
import pickle
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image

from textsam import TextSAM, load_image

from ..peak_memory import in_fresh_process

_SIZE = (4000, 3000)  # width, height
_PHRASES = ["bus", "wheel"]
_SCALE = 1000
_WARM = 5  # first results: the latest photos stay in memory, as many as fit into 128 MB


def resident_bytes() -> int:
    """Resident size of this process, bytes (Linux)."""
    gc.collect()
    _trim()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _trim() -> None:
    """Give freed memory back, so that what remains is in use."""
    import ctypes

    ctypes.CDLL("libc.so.6").malloc_trim(0)


def kept_growth(ask: Callable[[int], Any], count: int) -> tuple[float, float]:
    """Bytes per kept result of `ask(index)`, and of its pickle."""
    kept = [ask(index) for index in range(_WARM)]
    before = resident_bytes()
    kept += [ask(_WARM + index) for index in range(count)]
    growth = resident_bytes() - before
    return growth / count, len(pickle.dumps(kept[-1]))


def measure(row: str, photo: str, count: int) -> tuple[float, float]:
    """One row of the table: bytes per result or click, and of a pickle."""
    model = TextSAM.from_pretrained("tiny")
    if row == "clicks on one photo":
        return _clicks(model, photo, count)
    if row == "predictions, logits looked at":
        view = model.open(photo)

        def predict(index: int) -> Any:
            prediction = view.predict(points=[(1500 + index, 2000)])
            _ = prediction.logits
            return prediction

        return kept_growth(predict, count)

    def ask(index: int) -> Any:
        if row == "arrays, photo dropped":
            result = model.segment(load_image(photo), text=_PHRASES)
            drop = getattr(result, "without_image", lambda: result)
            return drop()
        if row == "arrays":
            return model.segment(load_image(photo), text=_PHRASES)
        if row == "explained phrases":
            return model.open(photo).segment(text=[*_PHRASES, "window", "person", "tree"])
        result = model.segment([photo], text=_PHRASES)[0]
        if row == "masks looked at":
            _ = result.masks, result[0].mask
        if row == "drawn":
            result.plot()
        return result

    return kept_growth(ask, count)


def _clicks(model: TextSAM, photo: str, count: int) -> tuple[float, float]:
    view = model.open(photo)
    places = _places(view.size)
    for _ in range(3):
        view.click(*next(places))
    before = resident_bytes()
    for _ in range(count):
        view.click(*next(places))
    return (resident_bytes() - before) / count, len(pickle.dumps(view.dialogue.result))


def _places(size: tuple[int, int]) -> Iterator[tuple[float, float]]:
    """Points around the middle of a photo (H, W), all on the bus."""
    rng = np.random.default_rng(0)
    while True:
        x, y = rng.uniform(0.4, 0.6, 2) * (size[1], size[0])
        yield float(x), float(y)


ROWS = (
    "paths",
    "masks looked at",
    "drawn",
    "explained phrases",
    "arrays",
    "arrays, photo dropped",
    "clicks on one photo",
    "predictions, logits looked at",
)


@dataclass(frozen=True, kw_only=True)
class ResultMemoryOptions:
    """Memory and pickles of a thousand results, clicks and predictions."""

    photo: str = "examples/bus.jpg"  # enlarged to 12 megapixels
    results: int = 20  # that are made, for the figure of a thousand
    clicks: int = 100
    rows: tuple[str, ...] = ROWS


def main() -> None:
    """Print the table."""
    options = tyro.cli(ResultMemoryOptions)
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.jpg"
        Image.fromarray(load_image(options.photo)).resize(_SIZE).save(photo, quality=90)
        print(f"| kept | MB each | MB per {_SCALE} | MB of a pickle |\n|---|---|---|---|")
        for row in options.rows:
            count = options.clicks if row.startswith("clicks") else options.results
            each, pickled = in_fresh_process(measure, row, str(photo), count)
            mb, packed = each / 1e6, pickled / 1e6
            print(f"| {row} | {mb:.3f} | {mb * _SCALE:,.0f} | {packed:.3f} |", flush=True)


if __name__ == "__main__":
    main()
