"""Time a list of photos against the same photos one by one.

python -m training.studies.timed_lists photos/*.jpg --counts 5 32 --rounds 5
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import torch

from textsam import TextSAM
from textsam.inference.photo import encoded


def seconds(call: Callable[[], Any]) -> float:
    """How long a call takes."""
    start = perf_counter()
    call()
    return perf_counter() - start


def main() -> None:
    """Print medians, of ways that take turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="+")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--text", default="dog")
    parser.add_argument("--counts", type=int, nargs="+", default=[5, 32])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = TextSAM.from_pretrained(options.model, device=options.device)
    model.segment(options.photos[0], options.text)
    for count in options.counts:
        photos = (options.photos * count)[:count]
        # Copies of a name are one photo to a list, so that each is read by itself.
        sources = [open(photo, "rb").read() for photo in photos]  # noqa: SIM115
        times: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            for name, call in (
                ("loop", lambda s=sources: [model.segment(one, options.text) for one in s]),
                ("list", lambda s=sources: model.segment(s, options.text)),
            ):
                times.setdefault(name, []).append(seconds(call))
        print(count, {name: round(median(each), 2) for name, each in times.items()}, flush=True)
    side = model.sam.config.image_size
    pixels = torch.rand(8, 3, side, side, device=model.device)
    for size in (1, 2, 4, 8):
        with torch.no_grad():
            took = [
                seconds(lambda n=size: [model.sam.encode_image(part) for part in pixels.split(n)])
                for _ in range(options.rounds)
            ]
        print(f"encoder, batches of {size}: {median(took) / 8 * 1000:.0f} ms a photo")
    print(f"batches that segment uses here: {encoded.batch_size(model.parts)}")


if __name__ == "__main__":
    main()
