"""Compares "more like this" by example (`segment(like=)`) and by looks (`similar`).

    python -m demos.benchmarks.like_or_similar examples/bus.jpg=wheel examples/horses.jpg=horse

The example is the best mask of the phrase. The picture shows, from left to right, the example, the
answer of `segment(like=example)`, and that of `similar(example)`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image

from textsam.inference.model import TextSAM
from textsam.pictures import draw

from ..explorer.photo_cache import read_photo

_SIZE = (400, 300)  # pixels of each part of the picture


def main() -> None:
    """Print counts and seconds, and save the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="+", metavar="PHOTO=PHRASE")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("-o", "--out", type=Path, default=Path("like_or_similar.jpg"))
    options = parser.parse_args()
    model = TextSAM.from_pretrained(options.model)
    rows = []
    for pair in options.photos:
        path, _, phrase = pair.partition("=")
        view = model.open(read_photo(Path(path)).image)
        example = view.segment(text=phrase)[:1]
        if not len(example):
            raise SystemExit(f"no {phrase!r} in {path}; choose another phrase")
        # Processor time, so that other work on the machine does not count.
        start = time.process_time()
        like = view.segment(like=example[0])
        middle = time.process_time()
        similar = view.similar(example[0])
        end = time.process_time()
        print(f"{path}: like {len(like)} in {middle - start:.2f} s, ", end="")
        print(f"similar {len(similar)} in {end - middle:.2f} s")
        pictures = [draw.overlay(view.image, found.rles) for found in (example, like, similar)]
        rows.append(np.hstack([np.asarray(picture.resize(_SIZE)) for picture in pictures]))
    Image.fromarray(np.vstack(rows)).save(options.out, quality=88)


if __name__ == "__main__":
    main()
