"""From phrases to masks: the strategies of `ImageView.segment(text=...)`.

    auto    text finds, points separate (`map_points`); `rank` where the model's pathway
            makes no map
    prompt  the paper's way: the CLIP text embedding as the prompt (arXiv 2304.02643, Section 7.5,
            Appendix D.5), one object
    rank    automatic masks, each scored by masked CLIP (`rank`): any SAM, any
            CLIP, nothing trained

Each answers a phrase with every mask it considered and the gate that closed on it; what no gate
dropped becomes the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from textsam.errors import PromptError
from textsam.inference.photo.encoded import EncodedPhoto
from textsam.inference.photo.phrase_map import embed_phrases
from textsam.inference.photo.zoom import WindowCache
from textsam.inference.strategies.map_points import curves_of, instances_of
from textsam.inference.strategies.overlap import Overlap, check_overlap, without_overlap
from textsam.inference.strategies.prompt import prompt_answer
from textsam.inference.strategies.rank import EmbeddedMasks, rank_answers
from textsam.results.segmentation import Segmentation
from textsam.values.candidates import PhraseAnswer
from textsam.values.prompts import normalize_phrases

__all__ = [
    "Question",
    "Strategy",
    "answer",
    "check_strategy",
    "check_threshold",
    "make_question",
    "to_segmentation",
]

Strategy = Literal["auto", "prompt", "rank"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """Phrases and how they are meant, checked.

    Attributes:
        phrases: Each once, in order.
        exclude: Phrases whose pixels are not wanted.
        background: Phrases that the others compete with.
        strategy: See this module.
        threshold: Least presence of a phrase and least score of a mask; None for the calibration's.
        overlap: Whether masks may share pixels.
    """

    phrases: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    background: tuple[str, ...] = ()
    strategy: Strategy = "auto"
    threshold: float | None = None
    overlap: Overlap = "allow"


def make_question(
    text: str | Sequence[str],
    *,
    exclude: str | Sequence[str] | None,
    background: str | Sequence[str] | None,
    strategy: str,
    threshold: float | None,
    overlap: str,
) -> Question:
    """Check what a person typed.

    Raises:
        PromptError: With what came and what was wanted.
    """
    check_strategy(strategy)
    check_overlap(overlap)
    check_threshold(threshold)
    phrases = tuple(dict.fromkeys(normalize_phrases(text)))
    others = {
        name: () if given is None else tuple(dict.fromkeys(normalize_phrases(given, name)))
        for name, given in (("exclude", exclude), ("background", background))
    }
    for name, listed in others.items():
        both = [phrase for phrase in phrases if phrase in listed]
        if both:
            raise PromptError(f"{both[0]!r} is in text and in {name}; nothing would be left of it")
        if listed and strategy == "prompt":
            raise PromptError(
                f'{name} works with strategy "auto" and "rank"; "prompt" is the paper\'s one '
                "object for one phrase"
            )
    return Question(
        phrases=phrases,
        exclude=others["exclude"],
        background=others["background"],
        strategy=strategy,  # type: ignore[arg-type]
        threshold=threshold,
        overlap=overlap,  # type: ignore[arg-type]
    )


def check_strategy(strategy: str) -> None:
    """Refuse an unknown strategy.

    Raises:
        PromptError: With those there are.
    """
    if strategy not in get_args(Strategy):
        raise PromptError(f"strategy is {strategy!r}; it can be {', '.join(get_args(Strategy))}")


def check_threshold(threshold: float | None) -> None:
    """Refuse what is no probability; None stands for the calibration's levels.

    Raises:
        PromptError: With what came.
    """
    if threshold is not None and not 0 < threshold < 1:
        raise PromptError(f"threshold is {threshold}; it is a probability, between 0 and 1")


def answer(
    photo: EncodedPhoto,
    question: Question,
    *,
    windows: WindowCache,
    embedded: Callable[[], EmbeddedMasks],
) -> list[PhraseAnswer]:
    """Answer each phrase by the query's strategy, before masks compete for pixels.

    Args:
        photo: The photo.
        question: Phrases and options.
        windows: The photo's cache, for `strategy="prompt"`.
        embedded: Gives the photo's automatic masks, for `strategy="rank"`.

    Raises:
        WeightsError: If the model cannot be asked that way.
    """
    photo.parts.require_clip()
    if question.strategy == "prompt":
        photo.parts.require_text()
        return [prompt_answer(photo, phrase, windows=windows) for phrase in question.phrases]
    if question.strategy == "rank" or not photo.parts.has_dense_text:
        return rank_answers(
            photo,
            embedded(),
            question.phrases,
            curves=photo.parts.calibration.strategies.get("rank"),
            threshold=question.threshold,
            exclude=question.exclude,
            background=question.background,
        )
    parts = photo.parts
    curves = curves_of(parts)
    exclude = embed_phrases(parts, question.exclude) if question.exclude else None
    background = embed_phrases(parts, question.background) if question.background else None
    embeddings = embed_phrases(parts, question.phrases)
    return [
        instances_of(
            photo,
            embedding,
            phrase,
            curves=curves,
            threshold=question.threshold,
            exclude=exclude,
            background=background,
        )
        for phrase, embedding in zip(question.phrases, embeddings, strict=True)
    ]


def to_segmentation(
    image: NDArray[np.uint8], answers: Sequence[PhraseAnswer], *, overlap: Overlap
) -> Segmentation:
    """The candidates that no gate dropped, in the phrases' order; image (H, W, 3)."""
    if overlap == "exclusive":
        answers = without_overlap(answers)
    kept = [(item.phrase, candidate) for item in answers for candidate in item.kept]
    return Segmentation(
        (image.shape[0], image.shape[1]),
        [c.rle for _, c in kept],
        scores=[c.score for _, c in kept],
        iou=[c.iou for _, c in kept],
        stability=[c.stability for _, c in kept],
        labels=[phrase for phrase, _ in kept],
        presence={a.phrase: a.presence for a in answers if not math.isnan(a.presence)},
        image=image,
        answers=answers,
    )
