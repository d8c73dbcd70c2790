"""Which strategy answers a query.

`answer_query` asks a strategy, which answers each phrase with all masks that it considered and the
gate that dropped each; those that no gate dropped are the result (`to_segmentation`).

    auto    the phrase's map finds regions, points separate instances (`map_points`); where the
            model makes no map, another strategy (`choose_strategy`)
    prompt  as in the paper: the CLIP text embedding is the prompt, and means one object (arXiv
            2304.02643, Section 7.5, Appendix D.5)
    detect  a zero-shot detector finds boxes, the SAM core turns them into masks (`detect`)
    concept the model finds every instance by itself (`concept`): SAM 3
    rank    automatic masks, each scored by masked CLIP (`rank`): any SAM, any CLIP, no training
    like    examples instead of a phrase (`like`)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from textsam.inference.automatic.generator import automatic_masks
from textsam.inference.photo.encoded import EncodedPhoto, embed_phrases
from textsam.inference.photo.zoom import WindowCache
from textsam.inference.strategies.coloured import answer_by_colour
from textsam.inference.strategies.concept import concept_answers, concept_like
from textsam.inference.strategies.detect import detect_answers
from textsam.inference.strategies.exemplars import Example, ExamplePhotos, read_examples
from textsam.inference.strategies.like import (
    Concept,
    all_within,
    like_answer,
    make_concept,
    with_negatives,
)
from textsam.inference.strategies.map_points import curves_of, instances_of
from textsam.inference.strategies.overlap import without_overlap
from textsam.inference.strategies.prompt import prompt_answer
from textsam.inference.strategies.query import Query, make_query
from textsam.inference.strategies.rank import EmbeddedMasks, embed_masks, rank_answers
from textsam.results.mask_result import MaskResult
from textsam.results.segmentation import Segmentation
from textsam.values.judge import PhraseAnswer, threshold_of
from textsam.values.photo import Photo
from textsam.values.prompts import (
    ColourPhrase,
    split_colour,
)
from textsam.values.settings import AutomaticSettings, Overlap
from textsam.weights.parts import ModelParts


class PhraseParts(Protocol):
    """What decides how phrases are answered: `ModelParts`, or what files say of a model."""

    @property
    def has_dense_text(self) -> bool:
        """Whether a phrase gives a map, by the model's own pathway or by a map source."""

    @property
    def map_source(self) -> object | None:
        """The map source."""

    @property
    def concept_model(self) -> object | None:
        """The model that finds instances by itself."""

    @property
    def detector(self) -> object | None:
        """The detector."""

    @property
    def clip(self) -> object | None:
        """The CLIP."""


class StrategyChoice(NamedTuple):
    """What `strategy="auto"` means for a model, and why."""

    strategy: str  # "auto" is the strategy that starts from the phrase's map
    reason: str


def choose_strategy(parts: PhraseParts) -> StrategyChoice:
    """The strategy that answers phrases by default: the one place that decides it."""
    # What was trained with the core comes first: its levels are calibrated for it.
    if parts.has_dense_text:
        maker = "its own pathway" if parts.map_source is None else "its map source"
        return StrategyChoice("auto", f"{maker} makes a map of a phrase")
    if parts.concept_model is not None:
        return StrategyChoice("concept", "it finds the instances of a phrase by itself (SAM 3)")
    if parts.detector is not None:
        return StrategyChoice("detect", "it has a detector, and no pathway that makes a map")
    if parts.clip is not None:
        return StrategyChoice("rank", "it has a CLIP, but neither pathway nor detector")
    return StrategyChoice("rank", "it has neither pathway nor detector, and lacks the CLIP for it")


def answer_query(
    photo: EncodedPhoto,
    query: Query,
    *,
    windows: WindowCache,
    embedded: Callable[[], EmbeddedMasks],
) -> list[PhraseAnswer]:
    """Answer each phrase, or the examples, before masks compete for pixels; not one object.

    `windows` is the photo's cache, for "prompt"; `embedded` gives its automatic masks, for "rank".

    Raises:
        PromptError: Examples without their photo, or of another model.
        WeightsError: The model cannot answer by that strategy.
    """
    parts = photo.parts
    query = query.settled(parts)
    if query.like is not None:
        return [_like_answer(photo, query, embedded=embedded)]
    if query.strategy == "auto":
        strategy, reason = choose_strategy(parts)
    else:
        strategy, reason = query.strategy, ""

    def ask(
        phrases: tuple[str, ...],
        exclude: tuple[str, ...],
        background: tuple[str, ...],
        *,
        typed: str | None = None,  # "red car", where the only phrase is "car"
    ) -> list[PhraseAnswer]:
        own = replace(query, phrases=phrases, exclude=exclude, background=background)
        if typed is not None:
            own = replace(own, threshold=threshold_of(query.threshold, typed))
        return _answer_by(strategy, photo, own, windows=windows, embedded=embedded)

    asked = query.phrases, query.exclude, query.background
    colours = _colours(parts, query) if strategy in ("auto", "rank") else {}
    # Most phrases have no colour and pass it by.
    answers = answer_by_colour(photo, *asked, ask, colours=colours) if colours else ask(*asked)
    return [replace(answer, chosen=reason) for answer in answers]


def _colours(parts: ModelParts, query: Query) -> dict[str, ColourPhrase]:
    """The phrases of a query that begin with a colour, if the model measures colours."""
    if not parts.text_settings.measure_colours:
        return {}
    known = {} if parts.clip is None else parts.clip.aliases
    phrases = (*query.phrases, *query.exclude, *query.background)
    pairs = ((phrase, split_colour(phrase, known)) for phrase in phrases)
    return {phrase: split for phrase, split in pairs if split is not None}


def learn_concept(
    parts: ModelParts,
    like: Example | Concept,
    unlike: Example | None = None,
    *,
    photos: ExamplePhotos | None = None,
) -> Concept:
    """Embed examples of what is meant and of what is not; see `SegmentOptions`.

    Raises:
        PromptError: No example, an empty one, one without its photo, or several labels.
    """
    photos = photos or ExamplePhotos(parts)
    others = _examples(photos, unlike, "unlike")
    if isinstance(like, Concept):
        return with_negatives(photos, like, others) if others else like
    return make_concept(photos, _examples(photos, like, "like"), others)


def _examples(photos: ExamplePhotos, given: Example | None, name: str) -> list[MaskResult]:
    def find(photo: EncodedPhoto, phrase: str) -> Segmentation:
        query = make_query(text=phrase)
        # Made for this photo only: a model without maps ranks its automatic masks.
        answers = answer_query(
            photo,
            query,
            windows=WindowCache(),
            embedded=lambda: embed_masks(
                photo, automatic_masks(photo, settings=AutomaticSettings.from_preset("fast"))
            ),
        )
        return to_segmentation(photo.origin, answers)

    return [] if given is None else read_examples(photos, given, name=name, find=find)


def _like_answer(
    photo: EncodedPhoto, query: Query, *, embedded: Callable[[], EmbeddedMasks]
) -> PhraseAnswer:
    """The answer to examples."""
    assert query.like is not None
    photos = ExamplePhotos(photo.parts, photo)
    if isinstance(query.like, Concept) or photo.parts.concept_model is None:
        concept = learn_concept(photo.parts, query.like, query.unlike, photos=photos)
    else:
        like, unlike = (
            _examples(photos, query.like, "like"),
            _examples(photos, query.unlike, "unlike"),
        )
        if all_within(photo, [*like, *unlike]):
            return concept_like(photo, like, unlike, threshold=threshold_of(query.threshold, ""))
        concept = make_concept(photos, like, unlike)
    threshold = threshold_of(query.threshold, "")
    return like_answer(photo, concept, threshold=threshold, embedded=embedded)


def _answer_by(
    strategy: str,
    photo: EncodedPhoto,
    query: Query,
    *,
    windows: WindowCache,
    embedded: Callable[[], EmbeddedMasks],
) -> list[PhraseAnswer]:
    """The answers of one strategy to phrases."""
    parts = photo.parts
    if strategy in ("detect", "concept"):
        answer = detect_answers if strategy == "detect" else concept_answers
        return answer(
            photo,
            query.phrases,
            threshold=query.threshold,
            exclude=query.exclude,
            background=query.background,
        )
    # A SAM without CLIP says how to get one, whatever the strategy.
    if parts.map_source is None or strategy == "rank":
        parts.require_clip()
    if strategy == "prompt":
        parts.require_text_prompts()
        return [prompt_answer(photo, phrase, windows=windows) for phrase in query.phrases]
    if strategy == "rank":
        return rank_answers(
            photo,
            embedded(),
            query.phrases,
            curves=parts.calibration.strategies.get("rank"),
            threshold=query.threshold,
            exclude=query.exclude,
            background=query.background,
        )
    return _map_answers(photo, query)


def _map_answers(photo: EncodedPhoto, query: Query) -> list[PhraseAnswer]:
    """The answers that start from the map of each phrase."""
    parts = photo.parts
    exclude = embed_phrases(parts, query.exclude) if query.exclude else None
    background = embed_phrases(parts, query.background) if query.background else None
    embeddings = embed_phrases(parts, query.phrases)
    return [
        instances_of(
            photo,
            embedding,
            phrase,
            curves=curves_of(parts, phrase),
            threshold=threshold_of(query.threshold, phrase),
            exclude=exclude,
            background=background,
        )
        for phrase, embedding in zip(query.phrases, embeddings, strict=True)
    ]


def _strategy_of(parts: ModelParts, query: Query) -> str:
    return choose_strategy(parts).strategy if query.strategy == "auto" else query.strategy


def reads_boxes(parts: ModelParts, query: Query) -> bool:
    """Whether the model's detector answers a query."""
    is_phrases = not query.is_placed and query.like is None
    return is_phrases and _strategy_of(parts, query) == "detect"


def find_together(photos: Sequence[EncodedPhoto], query: Query) -> None:
    """Let the detector look at several photos of one model at once, before each is asked."""
    detector = photos[0].parts.require_detector()
    phrases = [*query.phrases, *query.exclude, *query.background]
    detector.find_many([photo.detector_photo for photo in photos], phrases)


def compete(answers: Sequence[PhraseAnswer], overlap: Overlap) -> Sequence[PhraseAnswer]:
    """The answers after their masks have competed for pixels, if they may not share any."""
    return without_overlap(answers) if overlap == "exclusive" else answers


def to_segmentation(photo: Photo, answers: Sequence[PhraseAnswer]) -> Segmentation:
    """The candidates that no gate dropped, in the order of the phrases, without their logits."""
    kept = [(answer.phrase, candidate) for answer in answers for candidate in answer.kept]
    return Segmentation(
        photo.size,
        [candidate.rle for _, candidate in kept],
        scores=[candidate.score for _, candidate in kept],
        iou=[candidate.iou for _, candidate in kept],
        stability=[candidate.stability for _, candidate in kept],
        labels=[phrase for phrase, _ in kept],
        presence={
            # Of a red car: that of a car, unless no car is red.
            a.phrase: a.rivaled.get("colour", a.presence)
            for a in answers
            if not math.isnan(a.presence)
        },
        image=photo,
        # A dialogue has the logits: those of 20 masks that were considered take a megabyte.
        answers=[_without_logits(answer) for answer in answers],
    )


def _without_logits(answer: PhraseAnswer) -> PhraseAnswer:
    return replace(answer, candidates=tuple(replace(c, low_res=None) for c in answer.candidates))
