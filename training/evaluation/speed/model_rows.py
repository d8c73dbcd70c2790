"""Rows of a whole model, `tiny` by default: loading, a photo, a click, phrases, everything."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from textsam import TextSAM

from .core_rows import SpeedRow
from .equal_networks import OURS
from .stopwatch import Patience, Timing, Turns, counted, take_turns

# torch is imported by whoever uses a network, so the clock starts after it.
_LOAD = """
import sys, time
import torch
torch.set_num_threads(int(sys.argv[2]))
start = time.perf_counter()
from textsam import TextSAM
TextSAM.from_pretrained(sys.argv[1])
print(time.perf_counter() - start)
"""
# On examples/bus.jpg, the default: two that are there, one that is not, a place on the bus.
PHRASES = {"first phrase": "wheel", "further phrase": "bus", "absent phrase": "giraffe"}
CLICK = (0.47, 0.47)  # shares of the sides
_LIST = 4  # photos in a list
_SIZE = (640, 480)  # of the photo that is encoded


def model_rows(
    name: str, photo: NDArray[np.uint8], patience: Patience, *, loads: int
) -> Iterator[SpeedRow]:
    """Loading in fresh processes, then everything that is asked of one open photo.

    More than one load asks for the slow rows, too.
    """
    if loads:
        seconds = tuple(_load_seconds(name) for _ in range(loads))
        yield _row(name, "load, torch imported", Turns(timings={OURS: Timing(seconds=seconds)}))
    model = TextSAM.from_pretrained(name)
    for network in (model.sam, model.pathway, model.clip and model.clip.model):
        if isinstance(network, torch.nn.Module):
            network.requires_grad_(False)  # torch's counter of FLOPs trips over views of weights
    small = np.asarray(Image.fromarray(photo).resize(_SIZE))
    turns = take_turns({OURS: partial(model.open, small)}, patience)
    yield _row(name, "encode {} x {}".format(*_SIZE), turns)
    view = model.open(photo)
    height, width = photo.shape[:2]
    click = partial(view.segment, points=[(width * CLICK[0], height * CLICK[1])])
    yield _row(name, "click", take_turns({OURS: click}, patience))
    if model.clip is not None:
        yield from _phrase_rows(model, name, photo, patience)
    if loads > 1:
        yield from _list_rows(model, name, photo, patience)
    # A view keeps its masks, so each run gets a view of its own.
    turns = take_turns({OURS: lambda: view.fork().everything("fast")}, patience)
    yield _row(name, "everything, fast", turns, note=f"{len(turns.results[OURS])} masks")


def _list_rows(
    model: TextSAM, name: str, photo: NDArray[np.uint8], patience: Patience
) -> Iterator[SpeedRow]:
    """A list of photos against the same photos one by one; the encoder alone in batches."""
    phrase = PHRASES["first phrase"]
    # Pixels that differ are photos of their own to a list.
    photos = [np.roll(photo, step, axis=1) for step in range(_LIST)]
    turns = take_turns(
        {
            "one by one": lambda: [model.segment(each, phrase) for each in photos],
            "as a list": lambda: model.segment(photos, phrase),
        },
        patience,
        warm_up=False,
    )
    for way, timing in turns.timings.items():
        title = f"{_LIST} photos {way}, per photo"
        yield _row(name, title, Turns(timings={OURS: timing}), each=_LIST)
    side = model.sam.config.image_size
    pixels = torch.rand(_LIST, 3, side, side, device=model.device)
    for size in (1, _LIST):
        turns = take_turns({OURS: partial(_encode_in_batches, model, pixels, size)}, patience)
        yield _row(name, f"encoder, batches of {size}, per photo", turns, each=_LIST)


@torch.no_grad()
def _encode_in_batches(model: TextSAM, pixels: torch.Tensor, size: int) -> None:
    for part in pixels.split(size):
        model.sam.encode_image(part)


def _phrase_rows(
    model: TextSAM, name: str, photo: NDArray[np.uint8], patience: Patience
) -> Iterator[SpeedRow]:
    """A photo's first phrase, a further one, one that is not there; phrases embedded anew."""
    steps: dict[str, list[float]] = {}
    flops: dict[str, int] = {}

    def ask() -> None:
        view = model.open(photo)
        assert model.clip is not None
        model.clip.clear_cache()
        for step, phrase in PHRASES.items():
            turns = take_turns(
                {OURS: partial(view.segment, text=phrase)}, Patience(rounds=1), warm_up=False
            )
            steps.setdefault(step, []).append(turns.timings[OURS].median)

    ask()
    view = model.open(photo)
    for step, phrase in PHRASES.items():
        _, flops[step] = counted(partial(view.segment, text=phrase))
    steps.clear()
    take_turns({OURS: ask}, patience, warm_up=False)
    for step, seconds in steps.items():
        turns = Turns(timings={OURS: Timing(seconds=tuple(seconds))}, flops={OURS: flops[step]})
        yield _row(name, step, turns)


def text_rows(name: str, patience: Patience, *, many: int) -> Iterator[SpeedRow]:
    """The text tower alone, one phrase and many."""
    clip = TextSAM.from_pretrained(name).clip
    if clip is None:
        return
    for count in (1, many):
        phrases = [f"thing number {index}" for index in range(count)]

        def embed(phrases: list[str] = phrases) -> torch.Tensor:
            clip.clear_cache()
            return clip.encode_text(phrases)

        title = "1 phrase" if count == 1 else f"{count} phrases, per phrase"
        turns = take_turns({OURS: embed}, patience)
        yield _row(name, f"text tower: {title}", turns, group="text", each=count)


def _row(
    model: str, name: str, turns: Turns, *, group: str = "tiny", each: int = 1, note: str = ""
) -> SpeedRow:
    return SpeedRow(
        group=group,
        name=f"{model}: {name}",
        timings=turns.timings,
        flops={library: count for library, count in turns.flops.items() if count},
        each=each,
        note=note,
    )


def _load_seconds(name: str) -> float:
    """Seconds from `import torch` to a model that answers, in a process of its own."""
    command = [sys.executable, "-c", _LOAD, name, str(torch.get_num_threads())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])
