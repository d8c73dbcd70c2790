"""What one user's explorer holds and does: every answer is a call of `ImageView`.

    explorer = Explorer(EncodedPhotos(lambda: model))
    explorer.open(read_photo(Path("bus.jpg")))
    explorer.find("wheel, -steering wheel")
    explorer.click(300, 285)
    explorer.undo()

A click corrects the active object, or else makes the object under it the active one, or else begins
a new one. Of the decoder's logits only the active object's are kept, so that a user costs one
prediction and not one a click; an older object is corrected from its mask.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from textsam.errors import PromptError
from textsam.inference.strategies.overlap import Overlap
from textsam.inference.strategies.query import Strategy
from textsam.values.rle import rle_iou

from .board import Board, Origin, Question, Thing, inside, to_segmentation
from .photos import EncodedPhotos, Photo
from .phrases import read_phrases
from .steps import Steps

if TYPE_CHECKING:
    from textsam.inference.view import ImageView
    from textsam.results.columns import MaskResult
    from textsam.results.explanation import Explanation
    from textsam.results.segmentation import Segmentation

__all__ = ["Explorer"]

_LONGEST_NAME = 80
# Of what `similar` finds, a mask that is the example itself.
_SAME = 0.7


class Explorer:
    """One user's photo and board; a method at a time.

    Attributes:
        photos: Where photos are encoded.
        photo: The open photo, or None.
        board: What lies on it.
        note: What to tell the user about the last thing done.
    """

    def __init__(self, photos: EncodedPhotos) -> None:
        self.photos = photos
        self.photo: Photo | None = None
        self.board = Board()
        self.note = ""
        self.lock = threading.RLock()
        self._view: ImageView | None = None
        self._steps = Steps()
        self._next = 1
        self._dialogue: int | None = None  # the thing that the view's dialogue is about
        self._fresh = False  # whether the next click begins a new object, whatever lies under it

    def open(self, photo: Photo) -> None:
        """Begin with a photo; what was there before is forgotten."""
        with self.lock:
            view = self.photos.open(photo)
            self.photo, self._view, self.board = photo, view, Board()
            self._steps, self._dialogue, self._fresh = Steps(), None, False
            height, width = photo.size
            smaller = "" if photo.size == photo.original_size else ", worked on"
            self.note = f"{photo.name}{smaller} at {width} x {height}. Type a phrase, or click"

    @property
    def view(self) -> ImageView:
        """The open photo.

        Raises:
            PromptError: There is none.
        """
        if self._view is None:
            raise PromptError("Open a photo first: drop one on the page, or choose an example")
        return self._view

    @property
    def steps(self) -> tuple[int, int]:
        """How many steps can be undone and redone."""
        return self._steps.counts

    def find(
        self,
        text: str | None,
        unwanted: str | None = None,
        *,
        strategy: Strategy = "auto",
        threshold: float | None = None,
        overlap: Overlap = "allow",
    ) -> None:
        """Find every instance of phrases, in place of what was not made by hand."""
        with self.lock:
            view = self.view
            wanted, excluded = read_phrases(text, unwanted)
            options: dict[str, Any] = {
                "strategy": strategy,
                "threshold": threshold,
                "overlap": overlap,
            }
            if excluded:
                options["exclude"] = tuple(excluded)
            question = Question(phrases=tuple(wanted), options=tuple(options.items()))
            self._dialogue = None
            result = view.segment(text=wanted, **question.keywords())
            presence = tuple(result.presence.items())
            board = replace(self._by_hand(), active=None, question=question, presence=presence)
            self._commit(self._with_found(board, result, origin="phrase"))
            absent = [phrase for phrase in wanted if phrase not in result.labels]
            self.note = _found_note(len(result), absent)

    def click(self, x: float, y: float, *, foreground: bool = True) -> None:
        """Correct the active object, choose the one under the click, or begin a new one."""
        with self.lock:
            view = self.view
            x, y = inside(x, y, view.size)
            thing = self.board.active_thing
            if thing is None and not self._fresh:
                thing = self.board.under(x, y)
                if thing is not None and foreground:
                    self.select(thing.number)
                    return
            if thing is not None:
                self._correct(thing, x, y, foreground=foreground)
            elif foreground:
                result = view.segment(points=[(x, y)])
                self._add_by_hand(result, points=((x, y, True),), readings=tuple(result))
            else:
                raise PromptError(
                    "There is nothing to take away from here; click on an object, or choose one"
                )

    def box(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Begin a new object with a box around it."""
        with self.lock:
            view = self.view
            (x0, x1), (y0, y1) = sorted((x0, x1)), sorted((y0, y1))
            x0, y0 = inside(x0, y0, view.size)
            x1, y1 = inside(x1, y1, view.size)
            if x1 - x0 < 2 or y1 - y0 < 2:
                raise PromptError("That box is too small; drag it around a whole object")
            result = view.segment(box=(x0, y0, x1, y1))
            self._add_by_hand(result, box=(x0, y0, x1, y1))

    def reading(self, index: int) -> None:
        """Take another of the things that a single click may mean: 0 is the likeliest."""
        with self.lock:
            thing = self.board.active_thing
            if thing is None or not 0 <= index < len(thing.readings):
                raise PromptError("Only right after a first click there are several readings")
            self._dialogue = None  # it goes on from another mask now
            self._commit(self.board.replaced(replace(thing, found=thing.readings[index])))
            self.note = f"Reading {index + 1} of {len(thing.readings)}"

    def everything(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Find everything, in place of what was not made by hand."""
        with self.lock:
            result = self.view.everything(progress=progress)
            board = replace(self._by_hand(), active=None, question=None, presence=())
            self._commit(self._with_found(board, result, origin="everything"))
            self.note = f"{len(result)} things" if len(result) else "Nothing stood out"

    def similar(self) -> None:
        """Find what looks like the active object, or like the only one, in the photo."""
        with self.lock:
            view, board = self.view, self.board
            visible = [thing for thing in board.things if thing.shown]
            thing = board.active_thing or (visible[0] if len(visible) == 1 else None)
            if thing is None:
                raise PromptError("Choose the object that others shall be similar to")
            self._dialogue = None
            result = view.segment(like=replace(thing.found, image=view.image))
            new = [
                item
                for item in result
                if max(rle_iou([item.rle], [t.found.rle for t in board.things])[0]) < _SAME
            ]
            kept = replace(board, active=None)
            self._commit(self._with_found(kept, new, origin="similar", like=thing))
            self.note = (
                f"{len(new)} more like {thing.name!r}"
                if new
                else (f"Nothing else here is like {thing.name!r}")
            )

    def put(self, found: MaskResult, name: str) -> None:
        """Put a mask of this photo on the board that was found elsewhere, and choose it.

        Args:
            found: Its mask may be of the photo's own size, or of the one that is worked on.
            name: What to call it.

        Raises:
            PromptError: The mask is none of this photo.
        """
        with self.lock:
            photo = self.photo
            if photo is None:
                raise PromptError("Open a photo first, then a mask of it")
            found = replace(found, rle=photo.mask_here(found.rle))
            thing = Thing(
                number=self._number(),
                found=found,
                name=name[:_LONGEST_NAME],
                color=self.board.free_color(),
                origin="hand",
            )
            things = (*self.board.things, thing)
            self._commit(replace(self.board, things=things, active=thing.number))

    def why(self) -> Explanation:
        """The reasons of what the last phrases found, or did not."""
        with self.lock:
            view, question = self.view, self.board.question
            if question is None:
                raise PromptError("Reasons are given for phrases: find something by a phrase first")
            history = view.history
            try:
                return view.explain(list(question.phrases), **question.keywords())
            finally:
                view.history = history

    def select(self, number: int | None) -> None:
        """Make an object the one that clicks correct, or none."""
        with self.lock:
            thing = self.board.get(number)
            self._fresh = False
            self.board = replace(self.board, active=None if thing is None else thing.number)
            self.note = "" if thing is None else f"Clicks correct {thing.name!r} now"

    def begin_new(self) -> None:
        """Let the next click begin a new object, also on top of another."""
        with self.lock:
            self.select(None)
            self._fresh = True
            self.note = "The next click begins a new object"

    def show(self, number: int | None, shown: bool) -> None:
        """Show or hide an object, or all of them (None)."""
        with self.lock:
            things = tuple(
                replace(thing, shown=shown) if number in (None, thing.number) else thing
                for thing in self.board.things
            )
            self.board = replace(self.board, things=things)
            self.note = ""

    def rename(self, number: int, name: str) -> None:
        """Give an object another name."""
        with self.lock:
            thing = self._thing(number)
            clean = " ".join(str(name).split())[:_LONGEST_NAME]
            if clean and clean != thing.name:
                self._commit(self.board.replaced(replace(thing, name=clean)))
                self.note = f"Called {clean!r}"

    def delete(self, number: int) -> None:
        """Take an object off the board."""
        with self.lock:
            thing = self._thing(number)
            self._commit(self.board.without(number))
            self.note = f"{thing.name!r} is gone; undo brings it back"

    def clear(self) -> None:
        """Take everything off the board."""
        with self.lock:
            if self.board.things or self.board.presence:
                self._commit(Board())
            self._fresh = False
            self.note = ""

    def undo(self) -> None:
        """Take the last step back."""
        with self.lock:
            self._restore(self._steps.back(self.board))

    def redo(self) -> None:
        """Do what was undone again."""
        with self.lock:
            self._restore(self._steps.forth(self.board))

    def result(self) -> Segmentation:
        """What is shown, as the library's result, labelled with names."""
        with self.lock:
            view, board = self.view, self.board
            shown = [thing for thing in board.things if thing.shown]
            return to_segmentation(shown, view.size, image=view.image, presence=board.presence)

    def _correct(self, thing: Thing, x: float, y: float, *, foreground: bool) -> None:
        view = self.view
        points = (*thing.points, (x, y, foreground))
        if self._dialogue == thing.number and view.history:
            result = view.click(x, y, foreground=foreground)
        else:
            phrase = thing.found.label if view.model.pathway is not None else None
            result = view.segment(
                text=phrase,
                points=[point[:2] for point in points],
                labels=[int(point[2]) for point in points],
                box=thing.box,
                mask=thing.found.mask,
            )
        view.history = view.history[-1:]
        self._dialogue = thing.number
        if not len(result):
            self._dialogue = None
            raise PromptError(f"Nothing would be left of {thing.name!r}, so it stays as it was")
        found = replace(result[0], label=thing.found.label)
        changed = replace(thing, found=found, points=points, readings=())
        self._commit(replace(self.board.replaced(changed), active=thing.number))
        self.note = f"{thing.name!r} corrected"

    def _add_by_hand(self, result: Segmentation, **asked: Any) -> None:
        """Add the first mask of an answer as the active object, which the next click corrects."""
        if not len(result):
            raise PromptError("Nothing was found there; try another place, or a box")
        view = self.view
        view.history = view.history[-1:]
        thing = Thing(
            number=self._number(),
            found=result[0],
            name=f"object {1 + sum(t.origin == 'hand' for t in self.board.things)}",
            color=self.board.free_color(),
            origin="hand",
            **asked,
        )
        board = replace(self.board, things=(*self.board.things, thing), active=thing.number)
        self._commit(board)
        self._dialogue, self._fresh = thing.number, False
        more = len(thing.readings) > 1
        self.note = "Click again to correct it" + ("; 1, 2, 3: other readings" if more else "")

    def _with_found(
        self,
        board: Board,
        found: Segmentation | list[MaskResult],
        *,
        origin: Origin,
        like: Thing | None = None,
    ) -> Board:
        """Add masks; of several phrases each has a colour, else each mask."""
        phrases = list(dict.fromkeys(item.label for item in found))
        colors: dict[str | None, int] = {}
        for number, item in enumerate(found, start=1):
            by_phrase = len(phrases) > 1 and item.label in colors
            color = colors[item.label] if by_phrase else board.free_color()
            colors[item.label] = color
            if origin == "similar" and like is not None:
                name = like.name
            else:
                name = item.label or f"thing {number}"
            thing = Thing(number=self._number(), found=item, name=name, color=color, origin=origin)
            board = replace(board, things=(*board.things, thing))
        return board

    def _by_hand(self) -> Board:
        """The board with what was made by hand."""
        things = tuple(thing for thing in self.board.things if thing.origin == "hand")
        return replace(self.board, things=things)

    def _commit(self, board: Board) -> None:
        self._steps.add(self.board)
        self.board = board

    def _restore(self, board: Board) -> None:
        self.board = board
        self._dialogue, self._fresh = None, False
        self.note = ""

    def _thing(self, number: int) -> Thing:
        thing = self.board.get(number)
        if thing is None:
            raise PromptError("That object is not here any more")
        return thing

    def _number(self) -> int:
        self._next += 1
        return self._next - 1


def _found_note(count: int, absent: list[str]) -> str:
    found = f"{count} found" if count else "Nothing found"
    missing = f"; no {', no '.join(absent[:3])}" if count and absent else ""
    return found + missing + ("; “Why?” tells the reasons" if absent else "")
