"""What is asked of a photo: the keywords of `segment`, checked.

The keywords are declared here once, as typed dictionaries (PEP 692); every function that takes them
says `**options: Unpack[QueryOptions]`, so that editors and type checkers show the same names
everywhere. `make_query` turns them into a `Query`, once, where they enter the library.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict, TypeVar, Unpack, get_args

from textsam.errors import PromptError, UnknownKeywordError, unknown_keyword
from textsam.inference.strategies.exemplars import Example
from textsam.inference.strategies.like import (
    Concept,
)
from textsam.values.judge import Threshold
from textsam.values.pixels import READING_KEYWORDS
from textsam.values.prompts import (
    ArrayLike,
    Prompt,
    check_pixels,
    make_prompt,
    make_prompts,
    nesting,
    normalize_phrases,
)
from textsam.values.settings import Overlap, Strategy
from textsam.weights.parts import ModelParts

Function = TypeVar("Function", bound=Callable[..., Any])


class PhraseOptions(TypedDict, total=False):
    """How phrases become masks.

    Attributes:
        exclude: Phrases that are not wanted: "wheel" without "steering wheel". They compete with
            `text` for each pixel, and what they win is removed from the masks.
        background: Phrases that compete with `text` for each pixel and get no mask.
        strategy: "auto", every instance: the phrase's map finds, points separate; "prompt", one
            object in its three readings, with the CLIP text embedding as the prompt (arXiv
            2304.02643, Section 7.5); "detect", every instance, by the model's detector; "concept",
            every instance, as a SAM 3 finds them; "rank", automatic masks ranked by masked CLIP,
            which needs no training. "auto" means "concept", "detect" or "rank" for a model that
            makes no map of a phrase.
        threshold: Minimum probability, in (0, 1), that a phrase is in the photo and that it
            describes a mask; one for all phrases, or by phrase: `{"wheel": 0.3}`. By default, and
            for phrases that are not named, the two levels of the model's calibration.
        overlap: "allow", or "exclusive": each pixel belongs to at most one mask. Parts win over
            their wholes, then the higher score wins.
    """

    exclude: str | Sequence[str] | None
    background: str | Sequence[str] | None
    strategy: Strategy
    threshold: Threshold
    overlap: Overlap


class ObjectOptions(PhraseOptions, total=False):
    """How phrases become masks, or which object, in original pixels; the same for every photo.

    Attributes:
        points: (N, 2) x, y of one object, or one (x, y). (K, N, 2), or K lists of points, for K
            objects.
        labels: (N,) 1 on the object, 0 not on it; all 1 by default. (K, N) for K objects.
        box: (4,) half-open x0, y0, x1, y1 of one object.
        boxes: (K, 4) boxes of K objects, one mask for each, in order. They go with one phrase for
            all of them, and with K sets of points.
    """

    points: ArrayLike | None
    labels: ArrayLike | int | None
    box: ArrayLike | None
    boxes: ArrayLike | None


class PromptOptions(ObjectOptions, total=False):
    """What to segment in every photo, and how.

    Attributes:
        text: A phrase or several. A phrase alone means every instance; with points, a box or a mask
            it means one object.
    """

    text: str | Sequence[str] | None


class SegmentOptions(ObjectOptions, total=False):
    """The keywords of `segment` beside `text`.

    Attributes:
        mask: (H, W) bool, or float logits: a rough mask to start from.
        multimask: Whether to return all three readings of an ambiguous prompt, best predicted IoU
            first. By default only for a single point. Of several objects: three masks of the first,
            then three of the next; by default one mask of each.
        like: Examples instead of text: `segmentation[0]`, a `Segmentation` of one label, a list of
            masks, or a `Concept` that `TextSAM.concept` made of them; or a photo with the place of
            the thing in it: `("dog.jpg", (x0, y0, x1, y1))`, a point, a mask or a phrase in place
            of the box; or several of these. Boxes, points and masks alone are in the photo that is
            segmented. Goes with `unlike`, `threshold` and `overlap` only.
        unlike: Examples of what is not meant, given as those of `like`. A mask that looks more like
            one of them than like the examples of `like` is dropped.
    """

    mask: ArrayLike | None
    multimask: bool | None
    like: Example | Concept | None
    unlike: Example | None


class QueryOptions(SegmentOptions, total=False):
    """All keywords of `segment`: `text` as in `PromptOptions`, and those of `SegmentOptions`."""

    text: str | Sequence[str] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Query:
    """What is asked of a photo, checked as far as possible without the photo.

    Made by `make_query`. Phrases alone (`is_placed` is False, `like` is None) mean every instance;
    points, a box or a mask mean one object; boxes or sets of points one object each; `like` means
    everything like the examples.

    Attributes:
        phrases: Each phrase once, in order.
        points: As typed, like the next three; `prompt` checks them against the photo.
        labels: Labels of the points.
        box: A box.
        boxes: Boxes of several objects, also if they were given as `box`.
        mask: A mask.
        like: Examples.
        unlike: Examples of what is not meant.
        exclude: Phrases that are not wanted.
        background: Phrases that compete with the others and get no mask.
        strategy: How phrases become masks.
        threshold: Minimum probability, one or by phrase; None for the levels of the model's
            calibration.
        overlap: Whether masks may share pixels.
        multimask: Whether to return all readings; None to decide by the prompt.
    """

    phrases: tuple[str, ...] = ()
    points: ArrayLike | None = None
    labels: ArrayLike | int | None = None
    box: ArrayLike | None = None
    boxes: ArrayLike | None = None
    mask: ArrayLike | None = None
    like: Example | Concept | None = None
    unlike: Example | None = None
    exclude: tuple[str, ...] = ()
    background: tuple[str, ...] = ()
    strategy: Strategy = "auto"
    threshold: Threshold = None
    overlap: Overlap = "allow"
    multimask: bool | None = None

    @property
    def is_placed(self) -> bool:
        """Whether the query means one object or several by where they are."""
        places = (self.points, self.box, self.boxes, self.mask)
        return any(value is not None for value in places)

    @property
    def is_several_objects(self) -> bool:
        """Whether the query means several objects, by boxes or sets of points."""
        return self.boxes is not None or nesting(self.points) > 2

    def settled(self, parts: ModelParts) -> Query:
        """The query with thresholds under its own phrases, where they were typed in other words.

        Raises:
            PromptError: A threshold of a phrase that is not asked for.
        """
        if not isinstance(self.threshold, Mapping):
            return self
        phrases = {parts.phrase_key(phrase): phrase for phrase in reversed(self.phrases)}
        found: dict[str, float] = {}
        for name, value in self.threshold.items():
            phrase = name if name in self.phrases else phrases.get(parts.phrase_key(name))
            if phrase is None:
                asked = ", ".join(map(repr, self.phrases)) or "no phrase"
                raise PromptError(
                    f"threshold names {name!r}, and the phrases are {asked}; name one of them, or "
                    "give one number for all"
                )
            found[phrase] = value if name == phrase else found.get(phrase, value)
        return replace(self, threshold=found)

    def changed(self, *, text: Sequence[str] | None = None, threshold: Threshold) -> Query:
        """The same query for some of its phrases, or with another threshold."""
        phrases = self.phrases if text is None else tuple(text)
        return replace(self, phrases=phrases, threshold=threshold)

    def prompt(self, size: tuple[int, int]) -> Prompt:
        """The prompt of one object for a photo (H, W).

        Raises:
            PromptError: As `make_prompt`; fractions in place of pixels; or only points that are not
                on the object.
        """
        self._check_pixels(size)
        prompt = make_prompt(
            size,
            text=self.phrases[0] if self.phrases else None,
            points=self.points,
            labels=self.labels,
            box=self.box,
            mask=self.mask,
        )
        _check_foreground(prompt)
        return prompt

    def prompts(self, size: tuple[int, int]) -> list[Prompt]:
        """The prompts of several objects, with the errors of `prompt`."""
        self._check_pixels(size)
        prompts = make_prompts(
            size,
            text=self.phrases[0] if self.phrases else None,
            points=self.points,
            labels=self.labels,  # type: ignore[arg-type]
            boxes=self.boxes,
        )
        for number, prompt in enumerate(prompts):
            _check_foreground(prompt, f"point set {number}: ")
        return prompts

    def _check_pixels(self, size: tuple[int, int]) -> None:
        for name in ("points", "box", "boxes"):
            if getattr(self, name) is not None:
                check_pixels(name, getattr(self, name), size)


def _check_foreground(prompt: Prompt, where: str = "") -> None:
    """Refuse points that only say where the object is not."""
    named = any(value is not None for value in (prompt.text, prompt.box, prompt.mask))
    if len(prompt.points) and not prompt.labels.any() and not named:
        raise PromptError(
            f"{where}all points have label 0, beside the object, and nothing says what the object "
            "is. Give a point on it with label 1, or text=, box= or mask= too"
        )


def make_query(**options: Unpack[QueryOptions]) -> Query:
    """Check the keywords of `segment`; None means the same as leaving a keyword out.

    Raises:
        UnknownKeywordError: There is no such keyword; the message names the nearest one. It is a
            `PromptError` and a `TypeError`.
        PromptError: Nothing to segment, an empty phrase, an unknown strategy, a threshold that is
            not a probability, or keywords that do not go together.
    """
    check_keywords(options)
    values: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    for name, choices in (("strategy", Strategy), ("overlap", Overlap)):
        if name in values and values[name] not in get_args(choices):
            wanted = ", ".join(map(repr, get_args(choices)))
            raise PromptError(f"{name} is {values[name]!r}; wanted one of {wanted}")
    if "threshold" in values:
        values["threshold"] = check_threshold(values["threshold"])
    if nesting(values.get("box")) > 1:
        if "boxes" in values:
            raise PromptError("box and boxes both hold several boxes; give boxes alone")
        values["boxes"] = values.pop("box")
    _check_combination(values)
    for name in ("text", "exclude", "background"):
        if name in values:
            values[name] = tuple(dict.fromkeys(normalize_phrases(values[name], name)))
    query = Query(phrases=values.pop("text", ()), **values)
    for name in ("exclude", "background"):
        both = [phrase for phrase in query.phrases if phrase in getattr(query, name)]
        if both:
            raise PromptError(f"{both[0]!r} is in text and in {name}, so no pixel would be left")
    if query.is_placed and len(query.phrases) > 1:
        raise PromptError(
            f"{len(query.phrases)} phrases with points, boxes or a mask, which mean one object "
            "each; give one phrase for all, or the phrases alone"
        )
    return query


def check_threshold(threshold: Any) -> Threshold:
    """One probability, or one by phrase, as floats; a `PromptError` for anything else."""
    if isinstance(threshold, Mapping):
        names = normalize_phrases(list(threshold), "threshold") if threshold else []
        values = [_probability(value, f"threshold[{name!r}]") for name, value in threshold.items()]
        return dict(zip(names, values, strict=True)) or None
    return _probability(threshold, "threshold")


def _probability(value: Any, name: str) -> float:
    hint = ', or one by phrase: {"wheel": 0.3}' if name == "threshold" else ""
    wanted = f"{name} is {value!r}; wanted a probability, between 0 and 1{hint}"
    try:
        number = math.nan if isinstance(value, str | bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < 1:
        raise PromptError(wanted)
    return number


def _check_combination(values: dict[str, Any]) -> None:
    """Refuse keywords that do not go together."""
    if isinstance(values.get("threshold"), Mapping) and "text" not in values:
        raise PromptError("threshold by phrase goes with text; without it give one number")
    if "like" in values:
        others = values.keys() - {"like", "unlike", "threshold", "overlap", "strategy"}
        # "auto" is the default, so that giving it says nothing.
        if others or values.get("strategy", "auto") != "auto":
            raise PromptError(
                "like replaces text, points, box and mask; give segment(like=...) with unlike, "
                "threshold and overlap only"
            )
        return
    if "unlike" in values:
        raise PromptError(
            'unlike goes with like; to leave out what a phrase names, type exclude="steering wheel"'
        )
    is_placed = bool(values.keys() & {"points", "box", "boxes", "mask"})
    if not is_placed and "text" not in values:
        raise PromptError(
            'nothing to segment; type text="wheel", points=[(x, y)], box=(x0, y0, x1, y1), '
            "boxes=[[x0, y0, x1, y1], ...], mask=... or like=..."
        )
    several = [name for name in ("boxes", "points") if _means_several(values, name)]
    single = [name for name in ("box", "mask", "points") if name in values and name not in several]
    if several and single:
        raise PromptError(
            f"{several[0]} means several objects and {single[0]} one; give one box and one set of "
            "points for each object: boxes=[[x0, y0, x1, y1], ...], points=[[[x, y]], ...]"
        )
    if "labels" in values and "points" not in values:
        raise PromptError("labels belong to points; give points=[(x, y), ...] too")
    for name in ("exclude", "background"):
        if name in values and is_placed:
            raise PromptError(f"{name} goes with phrases alone; leave out points, boxes and mask")
        if name in values and values.get("strategy") == "prompt":
            raise PromptError(
                f'{name} does not work with strategy "prompt", which gives one object for one '
                'phrase, as in the paper. Type strategy="auto"'
            )


def _means_several(values: dict[str, Any], name: str) -> bool:
    return name in values and (name == "boxes" or nesting(values[name]) > 2)


# What other libraries call a keyword here.
_FOREIGN_NAMES = {
    "text": "prompt prompts text_prompt texts phrase phrases query classes class_names",
    "threshold": "conf confidence box_threshold text_threshold score_threshold",
    "points": "point point_coords click clicks input_points",
    "labels": "label point_labels input_labels",
    "box": "bbox",
    "boxes": "bboxes input_boxes boxes_xyxy xyxy",
    "mask": "masks mask_input",
    "multimask": "multimask_output",
    "exclude": "negative negatives negative_prompt",
    "like": "example examples reference exemplar exemplars visual_prompts positives refer_image",
    "unlike": "dislike not_like negative_examples negative_exemplars",
}


def check_keywords(options: Iterable[str], known: Any = QueryOptions) -> None:
    """Raise an `UnknownKeywordError` with the nearest keyword for one that is not known."""
    keywords = list_keywords(known)
    for name in options:
        if name in READING_KEYWORDS and name not in keywords:
            raise UnknownKeywordError(
                f"{name}= says how a photo is read. Type: load_image(photo, {name}=...) first; for "
                f'folders reading={{"{name}": ...}}'
            )
        if name not in keywords:
            raise unknown_keyword(name, keywords, _FOREIGN_NAMES)


def list_keywords(options: Any) -> list[str]:
    """The keywords of a typed dictionary in the order of `Query`, the most used ones first."""
    order = ["text", *Query.__dataclass_fields__]
    return sorted(options.__annotations__, key=order.index)


def show_keywords(options: Any) -> Callable[[Function], Function]:
    """Make the signature of a function list the keywords that its `**options` stand for.

    Type checkers read `Unpack`; `help()` and notebooks read `__signature__`.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        for name in list_keywords(options):
            if name in signature.parameters:
                continue
            kind = inspect.Parameter.KEYWORD_ONLY
            annotation = options.__annotations__[name]
            # As text: a typed dictionary keeps its annotations unevaluated.
            text = getattr(annotation, "__forward_arg__", annotation)
            # The defaults of Query: "auto", "allow", and None.
            default = getattr(Query, name, None) or None
            parameters.append(inspect.Parameter(name, kind, default=default, annotation=text))
        function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return function

    return decorate
