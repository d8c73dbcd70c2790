"""Drawn photos with names: coloured shapes on a plain ground, for runs that need no data set."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .sample import ObjectMask, Sample

_COLOURS = {
    "red": (215, 50, 45),
    "green": (60, 175, 75),
    "blue": (55, 95, 215),
    "yellow": (240, 205, 50),
}
_Grid = NDArray[np.float64]
# Each is 1 wide and high around the origin; x and y are in units of its size.
_SHAPES: dict[str, Callable[[_Grid, _Grid], NDArray[np.bool_]]] = {
    "disc": lambda x, y: x**2 + y**2 <= 0.25,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) <= 0.45,
    "triangle": lambda x, y: (y <= 0.45) & (abs(x) <= (y + 0.5) * 0.52),
    "bar": lambda x, y: (abs(x) <= 0.5) & (abs(y) <= 0.3),
}


def draw_samples(count: int, *, seed: int = 0, side: int = 128) -> list[Sample]:
    """Square photos with two shapes each, side by side, so that no mask hides another.

    Photo n is the same whatever the count. Every shape is labelled, so photos are exhaustive.
    """
    return [_draw(number, seed=seed, side=side) for number in range(count)]


def _draw(number: int, *, seed: int, side: int) -> Sample:
    rng = np.random.default_rng((seed, number))
    y, x = np.mgrid[0:side, 0:side] + 0.5
    photo = np.empty((side, side, 3))
    photo[:] = rng.integers(90, 150) + rng.normal(0, 6, (side, side, 1))
    colours = rng.permutation(list(_COLOURS))
    objects = []
    for place in range(2):
        size = rng.uniform(0.42, 0.48) * side
        middle_x = (0.25 + 0.5 * place) * side + rng.uniform(-0.02, 0.02) * side
        middle_y = rng.uniform(0.3, 0.7) * side
        shape = str(rng.choice(list(_SHAPES)))
        mask = _SHAPES[shape]((x - middle_x) / size, (y - middle_y) / size)
        photo[mask] = _COLOURS[colours[place]] + rng.normal(0, 6, (int(mask.sum()), 1))
        objects.append(ObjectMask.of(mask, f"{colours[place]} {shape}"))
    buffer = io.BytesIO()
    Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return Sample(
        image_id=f"drawn-{number}",
        source="drawn",
        encoded=buffer.getvalue(),
        size=(side, side),
        exhaustive=True,
        void=None,
        objects=tuple(objects),
    )
