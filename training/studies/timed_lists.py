"""Time a list of photos against the same photos one by one.

python -m training.studies.timed_lists photos/*.jpg --counts 5 32 --rounds 5
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import torch
import tyro

from textsam import TextSAM
from textsam.inference.photo import encoded


@dataclass(frozen=True, kw_only=True)
class TimedListsOptions:
    """Time a list of photos against the same photos one by one."""

    photos: tuple[str, ...]  # files, repeated up to the counts
    model: str = "tiny"
    device: str = "cpu"
    text: str = "dog"
    counts: tuple[int, ...] = (5, 32)
    rounds: int = 3


def seconds(call: Callable[[], Any]) -> float:
    """How long a call takes."""
    start = perf_counter()
    call()
    return perf_counter() - start


def main() -> None:
    """Print medians, of ways that take turns."""
    options = tyro.cli(TimedListsOptions, config=(tyro.conf.PositionalRequiredArgs,))
    torch.set_num_threads(1)
    model = TextSAM.from_pretrained(options.model, device=options.device)
    model.segment(options.photos[0], options.text)
    ways: dict[str, Callable[[list[bytes]], Any]] = {
        "loop": lambda sources: [model.segment(one, options.text) for one in sources],
        "list": lambda sources: model.segment(sources, options.text),
    }
    for count in options.counts:
        photos = (options.photos * count)[:count]
        # Copies of a name are one photo to a list, so that each is read by itself.
        sources = [open(photo, "rb").read() for photo in photos]  # noqa: SIM115
        times: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            for name, ask in ways.items():
                times.setdefault(name, []).append(seconds(partial(ask, sources)))
        print(count, {name: round(median(each), 2) for name, each in times.items()}, flush=True)
    side = model.sam.config.image_size
    pixels = torch.rand(8, 3, side, side, device=model.device)

    def encode(size: int) -> None:
        for part in pixels.split(size):
            model.sam.encode_image(part)

    for size in (1, 2, 4, 8):
        with torch.no_grad():
            took = [seconds(partial(encode, size)) for _ in range(options.rounds)]
        print(f"encoder, batches of {size}: {median(took) / 8 * 1000:.0f} ms a photo")
    print(f"batches that segment uses here: {encoded.batch_size(model.parts)}")


if __name__ == "__main__":
    main()
