"""Prompts as typed values, checked once when they come in.

All coordinates are continuous (x, y) pixels of the ORIGINAL image, where pixel (0, 0) covers
[0, 1) x [0, 1); boxes are half-open (x0, y0, x1, y1); sizes are (H, W).
`textsam.values.geometry.Frame` converts them to model pixels.
"""

from __future__ import annotations

import math
import operator
import unicodedata
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from textsam.errors import PromptError
from textsam.values.geometry import as_array, clip_boxes

if TYPE_CHECKING:
    import torch

__all__ = [
    "COLOURS",
    "ArrayLike",
    "ColourPhrase",
    "Prompt",
    "check_pixels",
    "make_prompt",
    "make_prompts",
    "nesting",
    "normalize_phrases",
    "plain_phrase",
    "split_colour",
]

# Colours that a phrase may begin with, other words for them, and shades that are passed over.
COLOURS = (
    *("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown"),
    *("black", "white", "grey"),
)
_SYNONYMS = {"gray": "grey", "violet": "purple", "crimson": "red", "scarlet": "red"}
_SHADES = ("dark", "light", "bright", "pale", "deep")

ArrayLike: TypeAlias = "Sequence[Any] | NDArray[Any] | torch.Tensor"


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompt:
    """One object, named by any mix of a phrase, points, a box and a mask.

    Made by `make_prompt`, which checks the values; here they are trusted.

    Attributes:
        text: A phrase such as "wheel".
        points: (N, 2) float32 (x, y), original pixels.
        labels: (N,) int64; 1 on the object, 0 beside it.
        box: (4,) float32 half-open (x0, y0, x1, y1), original pixels, inside the image.
        mask: (H, W) bool, or (H, W) float32 logits (positive inside).
    """

    text: str | None = None
    points: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    box: NDArray[np.float32] | None = None
    mask: NDArray[np.bool_] | NDArray[np.float32] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is no prompt of any kind."""
        return (
            self.text is None and len(self.points) == 0 and self.box is None and self.mask is None
        )


def make_prompt(
    size: tuple[int, int],
    *,
    text: str | None = None,
    points: ArrayLike | None = None,
    labels: ArrayLike | int | None = None,
    box: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> Prompt:
    """Check prompts and convert them to arrays.

    Args:
        size: (H, W) of the original image.
        text: One phrase.
        points: (N, 2) of (x, y), or one (x, y); 0 <= x <= W, 0 <= y <= H. An empty list is none.
        labels: N labels, 1 (on the object) or 0 (beside it); all 1 by default.
        box: x0, y0, x1, y1, half-open; it is clipped at the image's border.
        mask: (H, W) bool, or 0/1 or 0/255 integers, or float logits with positive inside.

    Returns:
        A `Prompt` with copies of the arrays.

    Raises:
        PromptError: A prompt has a wrong type, shape or value, or there is none.
    """
    size = _checked_size(size)
    prompt_points, prompt_labels = _make_points(points, labels, size)
    prompt = Prompt(
        text=None if text is None else _make_phrase(text),
        points=prompt_points,
        labels=prompt_labels,
        box=None if box is None else _make_box(box, size),
        mask=None if mask is None else _make_mask(mask, size),
    )
    if prompt.is_empty:
        raise PromptError(
            "there is no prompt; give text, points, a box or a mask. "
            'Type: text="wheel", points=[(x, y)] or box=(x0, y0, x1, y1)'
        )
    return prompt


def make_prompts(
    size: tuple[int, int],
    *,
    text: str | None = None,
    points: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    boxes: ArrayLike | None = None,
) -> list[Prompt]:
    """Check the prompts of K objects: a box, a set of points, or both for each.

    Args:
        size: (H, W) of the original image.
        text: One phrase, for all of them.
        points: (K, N, 2) of (x, y), or K lists of (x, y) of any lengths.
        labels: (K, N), or K lists as long as the points'; all 1 by default.
        boxes: (K, 4) of half-open x0, y0, x1, y1; may be empty.

    Raises:
        PromptError: As `make_prompt`, with the number of the object; or lengths that differ.
    """
    columns: dict[str, list[Any]] = {}
    for name, values, depths, wanted in (
        ("boxes", boxes, (2,), "boxes=[[x0, y0, x1, y1], ...], one for each object"),
        ("points", points, (3,), "points=[[[x, y], ...], ...], a set of points for each object"),
        ("labels", labels, (1, 2), "labels=[[1, 0], ...], as many as points"),
    ):
        if values is None:
            continue
        depth = nesting(values)
        rows = list(values) if depth else []
        if depth not in depths and (rows or depth != 1):
            hint = ""
            if depth > max(depths):
                hint = (
                    ", of one photo. Where each photo of a list has its own type: "
                    f'segment_pairs([(photo, {{"{name}": ...}}), ...])'
                )
            raise PromptError(f"{name} = {values!r:.80}; wanted {wanted}{hint}")
        columns[name] = rows
    counts = {name: len(rows) for name, rows in columns.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise PromptError(f"got {listed}; wanted as many of each, in the order of the objects")
    names = {"boxes": "box", "points": "points", "labels": "labels"}
    what = "box" if "boxes" in columns else "point set"
    prompts = []
    for index in range(max(counts.values())):
        one = {names[name]: rows[index] for name, rows in columns.items()}
        try:
            prompts.append(make_prompt(size, text=text, **one))
        except PromptError as error:
            raise PromptError(f"{what} {index}: {error}") from error
    return prompts


def nesting(values: Any) -> int:
    """Axes of a table that may be ragged: 1 for (x, y), 2 for a list of them, 0 for a number."""
    if hasattr(values, "ndim"):
        return int(values.ndim)
    if not isinstance(values, list | tuple):
        return 0
    return 1 + max(map(nesting, values), default=0)


# Photos up to this side, pixels, are icons, in which a box may well lie in the first pixel.
_ICON = 8


def check_pixels(name: str, values: Any, size: tuple[int, int]) -> None:
    """Ask whether fractions of the photo were meant by coordinates that all lie in 0..1.

    They are taken as typed if they are whole numbers (integers), or on an icon.

    Raises:
        PromptError: With the pixels to type.
    """
    height, width = size
    try:
        array = as_array(values)
        leaves = array.ravel().tolist() if array.dtype.kind in "iuf" else []
    except (ValueError, TypeError):  # ragged
        leaves = _leaves(values)
    if max(size) <= _ICON or not leaves or any(not 0 <= value <= 1 for value in leaves):
        return
    if all(isinstance(value, int) for value in leaves):
        return
    sides = [width, height]
    pixels = [round(value * sides[index % 2]) for index, value in enumerate(leaves)]
    pairs = [tuple(pixels[i : i + 2]) for i in range(0, len(pixels), 2)]
    fours = [tuple(pixels[i : i + 4]) for i in range(0, len(pixels), 4)]
    meant: Any = pairs if name == "points" else fours[0] if name == "box" else fours
    whole = "whole numbers" if name == "points" else "whole numbers: box=(0, 0, 1, 1)"
    raise PromptError(
        f"{name} = {values!r:.80} lies in 0..1, which is one pixel at the corner. Were fractions "
        f"of the photo meant? Type: {name}={meant!r:.80}. For that pixel type {whole}"
    )


def _leaves(values: Any) -> list[Any]:
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, list | tuple):
        return [leaf for item in values for leaf in _leaves(item)]
    return [values] if isinstance(values, int | float) else [math.nan]


def normalize_phrases(text: str | Sequence[str], name: str = "text") -> list[str]:
    """One phrase or several as a list of clean phrases in the same order, with repeats.

    White space becomes one space and accents their composed form (NFC), so that phrases that look
    the same are equal.

    Args:
        text: A phrase or a list of phrases.
        name: Name of the argument, for errors.

    Raises:
        PromptError: It is neither a string nor a list of strings, or a phrase is empty.
    """
    if isinstance(text, str):
        return [_make_phrase(text, where=name)]
    if not isinstance(text, list | tuple | np.ndarray) or len(text) == 0:
        what = "an empty list" if isinstance(text, list | tuple) else type(text).__name__
        raise PromptError(
            f'{name} is {what}; wanted a phrase such as "wheel", or a list: ["wheel", "door"]'
        )
    return [_make_phrase(phrase, where=f"{name}[{index}]") for index, phrase in enumerate(text)]


# Straight and typographic quotes, and what ends a sentence, also in East Asian writing.
_QUOTES = (
    "\"'`\u00ab\u00bb\u00b4\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f"
    "\u2039\u203a\u300c\u300d\u300e\u300f"
)
_SENTENCE_END = ".,;:!?\u2026\u3001\u3002"
_DETERMINERS = {
    *("a", "an", "the", "some", "any", "all", "every", "each", "this", "that", "these", "those")
}


def plain_phrase(phrase: str) -> str:
    """What a text tower reads of a phrase: "The  'dogs'." -> "dogs".

    Compatible forms of characters (NFKC), no invisible characters (zero-width spaces, byte order
    marks, soft hyphens, marks of direction), no quotes around it, no punctuation at its end, no
    articles and the like in front, one space between words. A tower was trained on names, and to it
    "the dog." is another phrase than "dog". What would be empty then stays as it is.
    """
    text = unicodedata.normalize("NFKC", phrase)
    text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    text = text.replace("\u2019", "'")  # an apostrophe inside, as in "dog's tail"
    words = text.strip(_QUOTES + _SENTENCE_END + " \t\n").split()
    while len(words) > 1 and words[0].lower() in _DETERMINERS:
        words = words[1:]
    plain = " ".join(words) or phrase
    return plain if plain == phrase else plain_phrase(plain)  # the "dog": the quotes come last


class ColourPhrase(NamedTuple):
    """A phrase that begins with a colour."""

    colour: str  # one of `COLOURS`
    name: str  # the rest


def split_colour(phrase: str, known: Container[str] = ()) -> ColourPhrase | None:
    """Split "dark red car" into red and "car"; None for other phrases.

    Args:
        phrase: The phrase.
        known: Phrases in lower case that are names in spite of their colour ("red wine").
    """
    words = phrase.split()
    if words and words[0].lower() in ("a", "an", "the"):
        words = words[1:]
    if " ".join(words).lower() in known:
        return None
    if len(words) > 2 and words[0].lower() in _SHADES:
        words = words[1:]
    if len(words) < 2:
        return None
    colour = _SYNONYMS.get(words[0].lower(), words[0].lower())
    return ColourPhrase(colour, " ".join(words[1:])) if colour in COLOURS else None


def _make_phrase(text: object, *, where: str = "text") -> str:
    if not isinstance(text, str):
        hint = ""
        if isinstance(text, list | tuple):
            hint = (
                ". A prompt has one phrase: segment once for each; or, where each photo has its "
                'own, type: segment_pairs([(photo, "dog"), (other, "cat")])'
            )
        elif isinstance(text, bytes):
            hint = '. Type: text.decode("utf-8")'
        raise PromptError(
            f'{where} is {type(text).__name__}; wanted a phrase such as "wheel"{hint}'
        )
    # A phrase of invisible characters only (zero-width spaces, say) is empty, too.
    phrase = " ".join(unicodedata.normalize("NFC", text).split())
    if not any(letter.isprintable() and letter != " " for letter in phrase):
        raise PromptError(f'{where} is {text[:40]!r}, which is empty; wanted a phrase: "wheel"')
    return phrase


def _make_points(
    points: Any, labels: Any, size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    height, width = size
    wanted = "wanted (x, y) pairs, e.g. points=[(410, 220)]"
    array = _to_floats([] if points is None else points, "points", wanted)
    if array.size == 0:  # an empty list has shape (0,)
        array = array.reshape(0, 2)
    elif array.shape == (2,):
        array = array[None]
    if array.ndim != 2 or array.shape[1] != 2:
        hint = ""
        if array.ndim == 3:
            hint = ". For several objects type: segment(photo, points=...)"
        raise PromptError(f"points have shape {array.shape}; {wanted}{hint}")
    for index, (x, y) in enumerate(array):
        if not (0 <= x <= width and 0 <= y <= height):
            hint = ""
            # numpy indexes rows first, so that swapped coordinates are the usual mistake.
            if 0 <= y <= width and 0 <= x <= height:
                hint = ". Are x and y swapped? Points are (x, y), not (row, column)"
            raise PromptError(
                f"point {index} = ({x:g}, {y:g}) lies outside the image; wanted 0 <= x <= {width} "
                f"(width) and 0 <= y <= {height} (height), in pixels{hint}"
            )
    return array.astype(np.float32), _make_labels(labels, len(array), has_points=points is not None)


def _make_labels(labels: Any, count: int, *, has_points: bool) -> NDArray[np.int64]:
    if labels is None:
        return np.ones(count, dtype=np.int64)
    wanted = "wanted one label per point, 1 (on the object) or 0 (not), e.g. labels=[1, 0]"
    array = np.atleast_1d(_to_floats(labels, "labels", wanted))
    if not has_points and array.size:
        raise PromptError(f"labels were given without points; {wanted}")
    if array.size == 0:
        array = array.reshape(0)
    if array.shape != (count,):
        raise PromptError(f"labels have shape {array.shape} for {count} points; {wanted}")
    wrong = array[(array != 0) & (array != 1)]
    if wrong.size:
        raise PromptError(f"labels hold {wrong[0]:g}; {wanted}")
    return array.astype(np.int64)


def _make_box(box: Any, size: tuple[int, int]) -> NDArray[np.float32]:
    height, width = size
    wanted = "wanted x0, y0, x1, y1 in pixels, e.g. box=(30, 40, 200, 180)"
    array = _to_floats(box, "box", wanted)
    if array.shape != (4,):
        hint = ". For several boxes type: segment(photo, boxes=...)" if array.ndim == 2 else ""
        raise PromptError(f"box has shape {array.shape}; {wanted}{hint}")
    shown = "(" + ", ".join(f"{side:g}" for side in array) + ")"
    if array[2] <= array[0] or array[3] <= array[1]:
        raise PromptError(
            f"box = {shown} is empty: x1 <= x0 or y1 <= y0; {wanted}. If it is x, y, width, "
            "height, type: textsam.values.geometry.boxes_from_xywh(np.array(box))"
        )
    # Rounded to float32 before it is judged: a sliver at the edge may round to nothing.
    clipped = clip_boxes(array, size).astype(np.float32)
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        raise PromptError(
            f"box = {shown} lies outside the image of width {width} and height {height}; {wanted}"
        )
    return clipped


def _make_mask(mask: Any, size: tuple[int, int]) -> NDArray[np.bool_] | NDArray[np.float32]:
    try:
        array = as_array(mask)
    except (ValueError, TypeError) as error:  # lists of unequal length
        raise PromptError(f"mask is no array ({error}); wanted bool of shape {size}") from error
    if array.shape != size:
        raise PromptError(
            f"mask has shape {array.shape}; wanted {size}, the (height, width) of the image"
        )
    if array.dtype.kind in "iu":
        # Other integers are a label map, and its numbers must not become one mask.
        values = np.unique(array)
        if not (np.isin(values, (0, 1)).all() or np.isin(values, (0, 255)).all()):
            raise PromptError(
                f"mask is {array.dtype} with {len(values)} values up to {values[-1]}; wanted bool, "
                "0/1 or 0/255. For one object of a label map type: mask=label_map == number"
            )
        array = array != 0
    if array.dtype == np.bool_:
        if not array.any():
            raise PromptError("mask has no pixel set; wanted at least one. Leave it out instead")
        return np.array(array, dtype=np.bool_, order="C")
    if array.dtype.kind != "f":
        raise PromptError(f"mask is {array.dtype}; wanted bool, or float logits (positive inside)")
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        raise PromptError("mask holds NaN or infinity; wanted bool, or finite float logits")
    # As logits, probabilities would all lie inside the mask.
    if low >= 0 and high <= 1:
        raise PromptError(
            f"mask is {array.dtype} in {low:g}..{high:g}: probabilities, not logits. "
            "Type: mask=mask > 0.5"
        )
    return np.array(array, dtype=np.float32, order="C")


def _to_floats(values: Any, name: str, wanted: str) -> NDArray[np.float64]:
    """Numbers as float64; text, ragged lists and NaN are errors."""
    try:
        array = as_array(values)
    except (ValueError, TypeError) as error:  # lists of unequal length
        raise PromptError(f"{name} = {values!r:.80} is not a table of numbers; {wanted}") from error
    if array.dtype.kind not in "biuf":
        raise PromptError(f"{name} = {values!r:.80} are not numbers; {wanted}")
    floats = array.astype(np.float64)
    if not np.isfinite(floats).all():
        raise PromptError(f"{name} = {values!r:.80} hold NaN or infinity; {wanted}")
    return floats


def _checked_size(size: Any) -> tuple[int, int]:
    try:
        height, width = (operator.index(side) for side in size)
    except (TypeError, ValueError) as error:
        raise PromptError(f"size is {size!r}; wanted (height, width) of the image") from error
    if height < 1 or width < 1:
        raise PromptError(f"size is {size!r}; wanted (height, width) of the image, both positive")
    return height, width
