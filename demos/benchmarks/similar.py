"""By example or by looks: the two answers of the library to "similar things here", side by side.

    python -m demos.benchmarks.similar examples/bus.jpg=wheel examples/horses.jpg=horse

The best mask of the phrase is the example; left it, then `segment(like=it)`, then `similar(it)`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from textsam.inference.model import TextSAM
from textsam.pictures import draw
from textsam.results.segmentation import Segmentation

from ..explorer.photos import read_photo

_SIZE = (400, 300)  # pixels of a picture


def main() -> None:
    """Print counts and seconds, and save the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="+", metavar="PHOTO=PHRASE")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("-o", "--out", type=Path, default=Path("similar.jpg"))
    options = parser.parse_args()
    model = TextSAM.from_pretrained(options.model)
    rows = []
    for pair in options.photos:
        path, _, phrase = pair.partition("=")
        view = model.open(read_photo(Path(path)).image)
        example = view.segment(text=phrase)[:1]
        if not len(example):
            raise SystemExit(f"no {phrase!r} in {path}; choose another phrase")
        like, by_example = _timed(partial(view.segment, like=example[0]))
        looks, by_looks = _timed(partial(view.similar, example[0]))
        print(f"{path}: like {len(like)} in {by_example:.2f} s, similar {len(looks)} in ", end="")
        print(f"{by_looks:.2f} s")
        pictures = [draw.overlay(view.image, found.rles) for found in (example, like, looks)]
        rows.append(np.hstack([np.asarray(picture.resize(_SIZE)) for picture in pictures]))
    Image.fromarray(np.vstack(rows)).save(options.out, quality=88)


def _timed(work: Callable[[], Segmentation]) -> tuple[Segmentation, float]:
    """An answer, and the seconds of this process that it took, so that others do not count."""
    start = time.process_time()
    return work(), time.process_time() - start


if __name__ == "__main__":
    main()
