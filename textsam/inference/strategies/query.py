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
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from textsam.errors import PromptError
from textsam.inference.photo.phrase_map import embed_phrases, require_clip, require_text
from textsam.inference.photo.postprocess import stability_score
from textsam.inference.photo.prediction import Prediction
from textsam.inference.strategies import map_points as auto
from textsam.inference.strategies import rank
from textsam.inference.strategies.overlap import Overlap, check_overlap, without_overlap
from textsam.results.segmentation import Segmentation
from textsam.values.calibration import StrategyCurves
from textsam.values.candidates import Candidate, Levels, PhraseAnswer
from textsam.values.judge import judge
from textsam.values.prompts import normalize_phrases
from textsam.values.rle import encode_masks

if TYPE_CHECKING:
    from textsam.inference.view import ImageView

__all__ = [
    "Question",
    "Strategy",
    "answer",
    "check_strategy",
    "check_threshold",
    "curves_of",
    "make_question",
    "score_masks",
    "to_segmentation",
]

Strategy = Literal["auto", "prompt", "rank"]

_NO_GATES = Levels(fixed=True)


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


def answer(view: ImageView, question: Question) -> list[PhraseAnswer]:
    """What the strategy says about each phrase, before masks compete for pixels.

    Raises:
        WeightsError: If the model cannot be asked that way.
    """
    require_clip(view.model)
    if question.strategy == "prompt":
        require_text(view.model)
        return [_prompted(view, phrase) for phrase in question.phrases]
    if question.strategy == "rank" or not view.model.has_dense_text:
        return rank.rank_answers(
            view,
            question.phrases,
            curves=view.model.calibration.strategies.get("rank"),
            threshold=question.threshold,
            exclude=question.exclude,
            background=question.background,
        )
    curves = curves_of(view, "auto")
    model = view.model
    exclude = embed_phrases(model, question.exclude) if question.exclude else None
    background = embed_phrases(model, question.background) if question.background else None
    embeddings = embed_phrases(model, question.phrases)
    return [
        auto.instances_of(
            view,
            embedding,
            phrase,
            curves=curves,
            threshold=question.threshold,
            exclude=exclude,
            background=background,
        )
        for phrase, embedding in zip(question.phrases, embeddings, strict=True)
    ]


def curves_of(view: ImageView, strategy: str) -> StrategyCurves:
    """The model's calibration of a strategy that works from the map, or the map at its word."""
    return view.model.calibration.strategies.get(strategy, auto.DEFAULT_CURVES)


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


def _prompted(view: ImageView, phrase: str) -> PhraseAnswer:
    """`prompt`: one object, three readings of it, with no gate.

    In the order of predicted IoU, which knows nothing of the phrase. A map of the phrase says more:
    the phrase is asked again with a point where its map peaks, as the paper asks again where a
    phrase alone failed (Section 7.5, Figure 12), and of its masks the one that agrees best with the
    map comes first. (On 110 training photos: .532 for its mask 0, .540 chosen so.)
    """
    prediction = view.predict(text=phrase)
    order = [1 + int(i) for i in np.argsort(-prediction.iou[1:], kind="stable")]
    if not view.model.has_dense_text:
        candidates = _read(view, prediction, order, None)
        return judge(
            PhraseAnswer(
                phrase=phrase,
                strategy="prompt",
                levels=_NO_GATES,
                candidates=candidates,
                searched=True,
            )
        )
    [embedding] = embed_phrases(view.model, [phrase])
    seen = auto.look(view, embedding, phrase, curves=curves_of(view, "auto"))
    probability = view.text_map(phrase)
    row, column = np.unravel_index(probability.argmax(), view.size)
    point = (float(column) + 0.5, float(row) + 0.5)
    pointed = view.predict(text=phrase, points=[point])
    agreed = [_agreement(mask > 0, probability) for mask in pointed.logits]
    first = int((np.maximum(pointed.iou, 0) * np.sqrt(agreed)).argmax())
    candidates = (
        *_read(view, pointed, [first], probability, point=point),
        *_read(view, prediction, order[:2], probability),
    )
    return judge(
        replace(seen, strategy="prompt", levels=_NO_GATES, candidates=candidates, searched=True)
    )


def _agreement(mask: NDArray[np.bool_], probability: NDArray[np.float32]) -> float:
    """Soft IoU of a mask (H, W) with a map of probabilities."""
    common = float(probability[mask].sum())
    return common / max(1e-6, float(mask.sum()) + float(probability.sum()) - common)


def _read(
    view: ImageView,
    prediction: Prediction,
    order: Sequence[int],
    probability: NDArray[np.float32] | None,
    *,
    point: tuple[float, float] | None = None,
) -> tuple[Candidate, ...]:
    """Readings of a prediction, scored by the phrase's map; empty ones are left out."""
    order = [k for k in order if (prediction.logits[k] > 0).any()]
    masks = prediction.logits[list(order)] > 0
    found = []
    for k, mask, (evidence, score) in zip(
        order, masks, score_masks(view, masks, probability), strict=True
    ):
        found.append(
            Candidate(
                rle=encode_masks(mask[None])[0],
                score=score,
                iou=float(prediction.iou[k]),
                stability=float(stability_score(torch.from_numpy(prediction.logits[k][None]))[0]),
                evidence=evidence,
                point=point,
                low_res=prediction.low_res[k].astype(np.float16),
            )
        )
    return tuple(found)


def score_masks(
    view: ImageView, masks: NDArray[np.bool_], probability: NDArray[np.float32] | None
) -> list[tuple[dict[str, float], float]]:
    """Evidence and probability that a phrase describes each mask (K, H, W), none of them empty.

    Args:
        view: The photo; its model's calibration says what the evidence means.
        masks: What is scored.
        probability: (H, W), the phrase's map; without one, no evidence and NaN.
    """
    if probability is None:
        return [({}, math.nan) for _ in masks]
    curve = curves_of(view, "auto").score
    values = [probability[mask] for mask in masks]
    evidence = [auto.mask_evidence(float(v.mean()), float(v.max())) for v in values]
    return [(item, curve.probability(item)) for item in evidence]
