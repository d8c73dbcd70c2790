"""What lies on a user's drawing board: objects, each with its mask and how it was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from textsam.errors import PromptError
from textsam.pictures.draw import Color, palette_color
from textsam.results.columns import MaskResult
from textsam.results.segmentation import Segmentation
from textsam.values.rle import rle_area, rle_box, rle_runs

__all__ = ["Board", "Origin", "Question", "Thing", "inside", "to_segmentation"]

Origin = Literal["phrase", "hand", "everything", "similar"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Thing:
    """One object on the board.

    Attributes:
        number: Names it for as long as the photo is open.
        found: Its mask, and what is known of it.
        name: What its owner calls it; a phrase until it is renamed.
        color: An index of the palette.
        origin: How it came here.
        shown: Whether it is drawn and exported.
        points: x, y and whether on the object, original pixels; the clicks so far.
        box: x0, y0, x1, y1, original pixels, if it was asked with one.
        readings: After one click, the masks that the click may mean; `found` is one of them.
    """

    number: int
    found: MaskResult
    name: str
    color: int
    origin: Origin
    shown: bool = True
    points: tuple[tuple[float, float, bool], ...] = ()
    box: tuple[float, float, float, float] | None = None
    readings: tuple[MaskResult, ...] = ()

    @property
    def rgb(self) -> Color:
        """Its colour."""
        return palette_color(self.color)

    def covers(self, x: float, y: float) -> bool:
        """Whether its mask has the pixel; asked of the runs, so nothing is decoded."""
        x0, y0, x1, y1 = rle_box(self.found.rle)
        if not (x0 <= x < x1 and y0 <= y < y1):
            return False
        height = self.found.rle.size[0]
        ends = np.cumsum(rle_runs(self.found.rle))
        # Runs go down the columns, zeros first: odd ones are inside.
        return bool(np.searchsorted(ends, int(x) * height + int(y), side="right") % 2)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What was last asked by phrases, to be asked again when a setting changes."""

    phrases: tuple[str, ...]
    options: tuple[tuple[str, Any], ...]

    def keywords(self) -> dict[str, Any]:
        """Arguments of `view.segment` and `view.explain`, but the phrases."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in self.options}


@dataclass(frozen=True, kw_only=True, eq=False)
class Board:
    """Everything that undo brings back; never changed in place.

    Attributes:
        things: In the order in which they came.
        active: Number of the one that clicks correct.
        question: The phrases that were asked last.
        presence: How probably each of them is in the photo.
    """

    things: tuple[Thing, ...] = ()
    active: int | None = None
    question: Question | None = None
    presence: tuple[tuple[str, float], ...] = ()

    @property
    def active_thing(self) -> Thing | None:
        """The one that clicks correct."""
        return self.get(self.active)

    def get(self, number: int | None) -> Thing | None:
        """A thing by its number; None if it is not here."""
        return next((thing for thing in self.things if thing.number == number), None)

    def under(self, x: float, y: float) -> Thing | None:
        """The smallest visible thing that covers a place."""
        hit = [thing for thing in self.things if thing.shown and thing.covers(x, y)]
        return min(hit, key=lambda thing: rle_area(thing.found.rle), default=None)

    def replaced(self, thing: Thing) -> Board:
        """With a thing in the place of the one of the same number."""
        things = tuple(thing if old.number == thing.number else old for old in self.things)
        return replace(self, things=things)

    def without(self, number: int) -> Board:
        """Without one thing."""
        things = tuple(thing for thing in self.things if thing.number != number)
        return replace(self, things=things, active=None if self.active == number else self.active)

    def free_color(self) -> int:
        """The first colour that nothing here has."""
        used = {thing.color for thing in self.things}
        return next(index for index in range(len(used) + 1) if index not in used)


def to_segmentation(
    things: Sequence[Thing] | Iterable[Thing],
    size: tuple[int, int],
    *,
    image: NDArray[np.uint8] | None,
    presence: Iterable[tuple[str, float]] = (),
) -> Segmentation:
    """Things as the library's result, labelled with their names."""
    chosen = list(things)
    names = {thing.name for thing in chosen}
    return Segmentation(
        size,
        [thing.found.rle for thing in chosen],
        scores=[thing.found.score for thing in chosen],
        iou=[thing.found.iou for thing in chosen],
        stability=[thing.found.stability for thing in chosen],
        labels=[thing.name for thing in chosen],
        presence={phrase: chance for phrase, chance in presence if phrase in names},
        image=image,
    )


def inside(x: float, y: float, size: tuple[int, int]) -> tuple[float, float]:
    """A place on the photo; one at its very edge is moved inside.

    Raises:
        PromptError: Not two finite numbers.
    """
    if not all(isinstance(side, int | float) and np.isfinite(side) for side in (x, y)):
        raise PromptError(f"got the place {x!r}, {y!r}; wanted two numbers")
    height, width = size
    return min(max(float(x), 0.0), width - 0.01), min(max(float(y), 0.0), height - 0.01)
