"""The board of one user: the objects on a photo, each with its mask and the prompts for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from textsam.inference.dialogue import Dialogue
from textsam.pictures.draw import palette_color
from textsam.results.mask_result import MaskResult
from textsam.results.segmentation import Segmentation
from textsam.values.prompts import Prompt
from textsam.values.rle import rle_box, rle_runs

Origin = Literal["phrase", "hand", "everything", "like"]


@dataclass(frozen=True, kw_only=True, eq=False)
class BoardObject:
    """One object on the board."""

    number: int  # identifies the object for as long as the photo is open
    result: MaskResult
    name: str  # the phrase until the user renames it
    color: int  # index into the palette
    origin: Origin
    shown: bool = True  # drawn and exported
    dialogue: Dialogue | None = None  # the clicks and the box that made it

    @property
    def prompt(self) -> Prompt:
        """Points and box so far, pixels of the photo."""
        return self.dialogue.steps[-1].prompt if self.dialogue else Prompt()

    @property
    def readings(self) -> tuple[MaskResult, ...]:
        """The masks that a single click may mean; `result` is one of them."""
        if self.dialogue is None or len(self.dialogue.steps) > 1:
            return ()
        results = tuple(self.dialogue.result)
        return results if len(results) > 1 else ()

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Colour on the page and in exports."""
        return palette_color(self.color)

    def covers(self, x: float, y: float) -> bool:
        """Whether the mask contains a pixel; reads the run lengths without decoding the mask."""
        x0, y0, x1, y1 = rle_box(self.result.rle)
        if not (x0 <= x < x1 and y0 <= y < y1):
            return False
        height = self.result.rle.size[0]
        run_ends = np.cumsum(rle_runs(self.result.rle))
        # Runs go down the columns and start with background, so odd ones are foreground.
        return bool(np.searchsorted(run_ends, int(x) * height + int(y), side="right") % 2)


@dataclass(frozen=True, kw_only=True, eq=False)
class Board:
    """Everything that undo restores; never changed in place."""

    objects: tuple[BoardObject, ...] = ()
    active: int | None = None  # number of the object that clicks correct
    query: dict[str, Any] | None = None  # keywords of `ImageView.segment` for the last phrases
    presence: tuple[tuple[str, float], ...] = ()  # probability that each of them is in the photo
    next_number: int = 1  # numbers are not given out again after a deletion

    def get(self, number: int | None) -> BoardObject | None:
        """The object with a number; None if there is none."""
        return next((item for item in self.objects if item.number == number), None)

    @property
    def active_object(self) -> BoardObject | None:
        """The object that clicks correct."""
        return self.get(self.active)

    @property
    def chosen_object(self) -> BoardObject | None:
        """The active object, or the only visible one: the example for "more like this"."""
        visible = [item for item in self.objects if item.shown]
        return self.active_object or (visible[0] if len(visible) == 1 else None)

    def object_at(self, x: float, y: float) -> BoardObject | None:
        """The smallest visible object at a pixel."""
        hits = [item for item in self.objects if item.shown and item.covers(x, y)]
        return min(hits, key=lambda item: item.result.area, default=None)

    def add(
        self,
        results: Iterable[MaskResult],
        origin: Origin,
        *,
        name: str | None = None,
        **known: Any,
    ) -> Board:
        """Append masks as objects; if there are several labels, one label has one colour.

        The objects are called `name`, or else by their labels; `known` are further attributes.
        """
        results = list(results)
        by_label = len({result.label for result in results}) > 1
        board, colors = self, dict[str | None, int]()
        for count, result in enumerate(results, start=1):
            if not (by_label and result.label in colors):
                colors[result.label] = board.free_color()
            item = BoardObject(
                number=board.next_number,
                result=result,
                # Not "object 1": objects made by hand have such names.
                name=name or result.label or f"mask {count}",
                color=colors[result.label],
                origin=origin,
                **known,
            )
            objects = (*board.objects, item)
            board = replace(board, objects=objects, next_number=board.next_number + 1)
        return board

    def replaced(self, changed: BoardObject) -> Board:
        """With a changed object in place of the one with the same number."""
        objects = tuple(changed if old.number == changed.number else old for old in self.objects)
        return replace(self, objects=objects)

    def without(self, number: int) -> Board:
        """Without one object."""
        objects = tuple(item for item in self.objects if item.number != number)
        active = None if self.active == number else self.active
        return replace(self, objects=objects, active=active)

    def made_by_hand(self) -> Board:
        """Only the objects from clicks and boxes, none of them active."""
        objects = tuple(item for item in self.objects if item.origin == "hand")
        return replace(self, objects=objects, active=None, query=None, presence=())

    def to_segmentation(
        self, size: tuple[int, int], *, image: NDArray[np.uint8] | None
    ) -> Segmentation:
        """The visible objects as the library's result; labels are the objects' names."""
        shown = [item for item in self.objects if item.shown]
        names = {item.name for item in shown}
        return Segmentation(
            size,
            [item.result.rle for item in shown],
            scores=[item.result.score for item in shown],
            iou=[item.result.iou for item in shown],
            stability=[item.result.stability for item in shown],
            labels=[item.name for item in shown],
            # A renamed object is no longer an answer to its phrase.
            presence={phrase: chance for phrase, chance in self.presence if phrase in names},
            image=image,
        )

    def free_color(self) -> int:
        """The first colour of the palette that no object has."""
        used = {item.color for item in self.objects}
        return next(index for index in range(len(used) + 1) if index not in used)
