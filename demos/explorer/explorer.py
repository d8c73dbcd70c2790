"""One user's photo and board: every answer is a call of `ImageView`.

    explorer = Explorer(PhotoCache(lambda: model))
    explorer.open(read_photo(Path("bus.jpg")))
    explorer.find("wheel, -steering wheel")
    explorer.click(300, 285)
    explorer.undo()

Coordinates are pixels of the photo. What cannot be done raises `PromptError` and changes nothing.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from textsam.errors import PromptError
from textsam.values.prompts import make_prompt
from textsam.values.rle import rle_iou

from .board import Board, BoardObject
from .photo_cache import PhotoCache, UserPhoto

if TYPE_CHECKING:
    from textsam.inference.dialogue import Dialogue
    from textsam.inference.view import ImageView
    from textsam.results.explanation import Explanation
    from textsam.results.mask_result import MaskResult
    from textsam.results.segmentation import Segmentation

_MAX_NAME = 80  # characters of an object's name
_MAX_UNDO = 40  # steps
# A mask found by example that overlaps an object this much is that object, not another one like it.
_SAME_IOU = 0.7
_MIN_BOX = 2  # pixels; a smaller drag is a click with an unsteady hand
MAX_PHRASES = 40  # more than a screen shows, and each adds to the time of the answer
_MAX_LENGTH = 200  # characters; CLIP reads about 77 tokens

_SEPARATORS = re.compile(r"[,;\n]")
# Editors and phones turn a hyphen into a dash or a minus sign.
_MINUS = "-\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}"


class Explorer:
    """The photo and the board of one page. Not thread-safe: `Session.lock` guards it."""

    def __init__(self, photos: PhotoCache) -> None:
        self.photos = photos
        self.photo: UserPhoto | None = None
        self.note = ""  # about the last action, shown below the photo
        self._view: ImageView | None = None
        self._reset()

    def _reset(self) -> None:
        self.board = Board()
        # Whole boards, since renaming and deleting are steps too. It takes little memory: boards
        # share their objects, whose dialogues keep logits on the decoder's small grid.
        self._past: deque[Board] = deque(maxlen=_MAX_UNDO)
        self._future: deque[Board] = deque(maxlen=_MAX_UNDO)
        self._starts_new = False  # the next click starts an object, even on top of another one

    def open(self, photo: UserPhoto) -> None:
        """Open a photo with an empty board."""
        self._view = self.photos.open(photo)
        self.photo = photo
        self._reset()
        height, width = photo.size
        scaled = "at" if photo.size == photo.original_size else "scaled to"
        self.note = f"{photo.name} {scaled} {width} x {height} pixels. Type a phrase, or click"

    @property
    def view(self) -> ImageView:
        """The encoded photo."""
        if self._view is None:
            raise PromptError("Open a photo first: drop one on the page, or choose an example")
        return self._view

    def find(self, text: str | None, exclude: str | None = None, **options: Any) -> None:
        """Find every instance of phrases; replaces all objects that were not made by hand.

        `text` and `exclude` are what the user typed (`read_phrases`); the options are `strategy`,
        `threshold` and `overlap` of `ImageView.segment`.
        """
        view = self.view
        query = phrase_query(text, exclude, **options)
        result = view.segment(**query)
        board = self.board.made_by_hand().add(result, "phrase")
        self._commit(replace(board, query=query, presence=tuple(result.presence.items())))
        absent = [phrase for phrase in query["text"] if phrase not in result.labels]
        self.note = f"{len(result)} found" if len(result) else "Nothing found"
        if absent:
            if len(result):
                self.note += f"; no {', no '.join(absent[:3])}"
            self.note += "; press “Why?” for the reasons"

    def everything(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Segment everything; replaces all objects that were not made by hand."""
        result = self.view.everything(progress=progress)
        self._commit(self.board.made_by_hand().add(result, "everything"))
        self.note = f"{len(result)} objects" if len(result) else "No objects found"

    def like(self) -> None:
        """Find more objects like the chosen one: its mask is the example, in place of a phrase."""
        view, board = self.view, self.board
        example = board.chosen_object
        if example is None:
            raise PromptError("Choose an object first: click on it, or on its colour in the list")
        result = view.segment(like=replace(example.result, photo=view.photo.origin))
        on_board = [item.result.rle for item in board.objects]
        new = [mask for mask in result if max(rle_iou([mask.rle], on_board)[0]) < _SAME_IOU]
        self._commit(replace(board, active=None).add(new, "like", name=example.name))
        count = len(new) or "No"
        self.note = f"{count} more like {example.name!r}"

    def why(self) -> Explanation:
        """Explain what the last phrases found, or did not find."""
        view, query = self.view, self.board.query
        if query is None:
            raise PromptError("Only phrases can be explained: find something by a phrase first")
        return view.explain(**query)

    def click(self, x: float, y: float, *, foreground: bool = True) -> None:
        """Correct the active object, select the one at this place, or start a new one."""
        x, y = self._inside(x, y)
        target = self.board.active_object
        if target is None and not self._starts_new:
            target = self.board.object_at(x, y)
            if target is not None and foreground:
                self.select(target.number)
                return
        if target is not None:
            self._correct(target, x, y, foreground=foreground)
        elif foreground:
            self._add_by_hand(points=[(x, y)])
        else:
            raise PromptError("There is no object to remove this from; choose an object first")

    def box(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Segment the object in a box; the corners may come in any order."""
        (x0, y0), (x1, y1) = self._inside(x0, y0), self._inside(x1, y1)
        (x0, x1), (y0, y1) = sorted((x0, x1)), sorted((y0, y1))
        if min(x1 - x0, y1 - y0) < _MIN_BOX:
            raise PromptError("The box is too small; drag it around a whole object")
        self._add_by_hand(box=(x0, y0, x1, y1))

    def reading(self, index: int) -> None:
        """Replace the mask of a first click by another one that the click may mean."""
        active = self.board.active_object
        if active is None or not 0 <= index < len(active.readings):
            raise PromptError("Alternative masks exist only right after the first click")
        self._commit(self.board.replaced(replace(active, result=active.readings[index])))
        self.note = f"Mask {index + 1} of {len(active.readings)}"

    def put(self, result: MaskResult, name: str) -> None:
        """Add a mask that was found elsewhere, and make it the active object.

        The mask has the size of the photo's file, or the size shown here.
        """
        if self.photo is None:
            raise PromptError("Open a photo first, then a mask of it")
        result = replace(result, rle=self.photo.fit_mask(result.rle))
        board = self.board.add([result], "hand", name=name[:_MAX_NAME])
        self._commit(replace(board, active=board.objects[-1].number))

    def select(self, number: int | None) -> None:
        """Make an object the active one, or none of them."""
        chosen = self.board.get(number)
        self._starts_new = False
        self.board = replace(self.board, active=None if chosen is None else chosen.number)
        self.note = "" if chosen is None else f"Clicks now correct {chosen.name!r}"

    def start_new(self) -> None:
        """Let the next click start a new object, even on top of another one."""
        self.select(None)
        self._starts_new = True
        self.note = "The next click starts a new object"

    def show(self, number: int | None, shown: bool) -> None:
        """Show or hide an object, or all of them (None); this is no step that undo takes back."""
        for item in self.board.objects:
            if number in (None, item.number):
                self.board = self.board.replaced(replace(item, shown=shown))
        self.note = ""

    def rename(self, number: int, name: str) -> None:
        """Give an object another name; an empty one changes nothing."""
        item = self._object(number)
        clean = " ".join(str(name).split())[:_MAX_NAME]
        if clean and clean != item.name:
            self._commit(self.board.replaced(replace(item, name=clean)))
            self.note = f"Renamed to {clean!r}"

    def delete(self, number: int) -> None:
        """Remove an object."""
        name = self._object(number).name
        self._commit(self.board.without(number))
        self.note = f"{name!r} deleted; undo brings it back"

    def clear(self) -> None:
        """Remove all objects."""
        if self.board.objects or self.board.presence:
            self._commit(Board(next_number=self.board.next_number))
        self._starts_new = False
        self.note = ""

    def undo(self) -> None:
        """Take the last step back."""
        self._restore(self._past, self._future, "There is nothing to undo")

    def redo(self) -> None:
        """Repeat the step that was undone last."""
        self._restore(self._future, self._past, "There is nothing to redo")

    @property
    def undo_redo_counts(self) -> tuple[int, int]:
        """How many steps can be undone and redone."""
        return len(self._past), len(self._future)

    def result(self) -> Segmentation:
        """The visible objects as the library's result; labels are the objects' names."""
        return self.board.to_segmentation(self.view.size, image=self.view.image)

    def _correct(self, item: BoardObject, x: float, y: float, *, foreground: bool) -> None:
        """Add a click to an object; a correction that leaves nothing is refused."""
        dialogue = item.dialogue
        if dialogue is not None and item.result.rle == dialogue.result[0].rle:
            dialogue = dialogue.click(x, y, foreground=foreground)
        else:
            # The dialogue has no logits of this mask: start from the mask itself, with all prompts.
            has_pathway = self.view.photo.parts.pathway is not None
            dialogue = self._ask(
                text=item.result.label if has_pathway else None,
                points=[*item.prompt.points, (x, y)],
                labels=[*item.prompt.labels, int(foreground)],
                box=item.prompt.box,
                mask=item.result.mask,
            )
        if not len(dialogue.result):
            raise PromptError(f"Nothing would be left of {item.name!r}, so it was not changed")
        corrected = replace(dialogue.result[0], label=item.result.label)
        changed = replace(item, result=corrected, dialogue=dialogue)
        self._commit(replace(self.board.replaced(changed), active=item.number))
        self.note = f"{item.name!r} corrected"

    def _ask(self, **prompts: Any) -> Dialogue:
        return self.view.dialogue.ask(make_prompt(self.view.size, **prompts))

    def _add_by_hand(self, **prompts: Any) -> None:
        """Add the best mask of a click or box as the active object."""
        dialogue = self._ask(**prompts)
        result = dialogue.result
        if not len(result):
            raise PromptError("Nothing was found there; try another place, or drag a box")
        name = f"object {1 + sum(item.origin == 'hand' for item in self.board.objects)}"
        board = self.board.add(result[:1], "hand", name=name, dialogue=dialogue)
        self._commit(replace(board, active=board.objects[-1].number))
        self._starts_new = False
        more = "; keys 1, 2, 3: other masks" if len(result) > 1 else ""
        self.note = f"Click again to correct it{more}"

    def _inside(self, x: float, y: float) -> tuple[float, float]:
        """A place on the photo; one on or beyond its edge is moved inside."""
        if not all(isinstance(side, int | float) and math.isfinite(side) for side in (x, y)):
            raise PromptError(f"got the place {x!r}, {y!r}; wanted two numbers")
        height, width = self.view.size
        return min(max(float(x), 0.0), width - 0.01), min(max(float(y), 0.0), height - 0.01)

    def _commit(self, board: Board) -> None:
        self._past.append(self.board)
        self._future.clear()  # a new step replaces the steps that were undone
        self.board = board

    def _restore(self, source: deque[Board], target: deque[Board], empty: str) -> None:
        if not source:
            raise PromptError(empty)
        target.append(self.board)
        self.board = source.pop()
        self._starts_new = False
        self.note = ""

    def _object(self, number: int) -> BoardObject:
        item = self.board.get(number)
        if item is None:
            raise PromptError("This object does not exist any more")
        return item


def read_phrases(text: str | None, exclude: str | None = None) -> tuple[list[str], list[str]]:
    """Split what was typed, such as "wheel, window, -steering wheel".

    Phrases are separated by commas, semicolons or line ends. A leading minus excludes a phrase;
    in `exclude` it may be left out. Returns phrases to find and phrases to exclude.
    """
    parts = [(part, part[0] in _MINUS) for part in _split(text)]
    parts += [(part, True) for part in _split(exclude)]
    wanted: dict[str, None] = {}  # a dict keeps the order and drops repetitions
    excluded: dict[str, None] = {}
    for part, is_excluded in parts:
        if phrase := part.lstrip(_MINUS).strip():
            (excluded if is_excluded else wanted)[phrase] = None
    if not wanted:
        hint = " besides what is excluded" if excluded else ""
        raise PromptError(f"Type what to find{hint}, for example: wheel, window")
    if both := [phrase for phrase in wanted if phrase in excluded]:
        raise PromptError(f"{both[0]!r} is both to be found and excluded; remove one of the two")
    for phrase in (*wanted, *excluded):
        if len(phrase) > _MAX_LENGTH:
            raise PromptError(
                f"The phrase {phrase[:40]!r}... has {len(phrase)} characters; type at most "
                f"{_MAX_LENGTH}. Separate several phrases with commas"
            )
    if len(wanted) + len(excluded) > MAX_PHRASES:
        raise PromptError(f"{len(wanted) + len(excluded)} phrases; type at most {MAX_PHRASES}")
    return list(wanted), list(excluded)


def phrase_query(
    text: str | None,
    exclude: str | None = None,
    strategy: str = "auto",
    threshold: float | None = None,
    overlap: str = "allow",
) -> dict[str, Any]:
    """Keyword arguments of `ImageView.segment` and `explain` for what was typed and set."""
    wanted, excluded = read_phrases(text, exclude)
    return {
        "text": wanted,
        "exclude": excluded or None,
        "strategy": strategy,
        "threshold": threshold or None,  # the page sends 0 for the calibrated levels
        "overlap": overlap,
    }


def _split(text: str | None) -> list[str]:
    return [part for raw in _SEPARATORS.split(text or "") if (part := " ".join(raw.split()))]
