"""`strategy="prompt"`: the phrase as the prompt, one object (arXiv 2304.02643, Section 7.5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from textsam.inference.photo.encoded import EncodedPhoto, embed_phrases, text_map
from textsam.inference.photo.prediction import Prediction, stability_score
from textsam.inference.photo.zoom import WindowCache, predict
from textsam.inference.strategies.map_points import curves_of, look, mask_evidence
from textsam.values.judge import Candidate, Levels, PhraseAnswer, judge
from textsam.values.prompts import make_prompt
from textsam.values.rle import encode_masks

_NO_GATES = Levels(fixed=True)


def prompt_answer(photo: EncodedPhoto, phrase: str, *, windows: WindowCache) -> PhraseAnswer:
    """One object, with no gate: its readings, the likeliest first.

    Predicted IoU knows nothing of the phrase. Where the model makes a map of it, a second prompt
    adds a point at the map's peak, as the paper adds one where a phrase alone fails (Section 7.5,
    Figure 12), and the mask that agrees best with the map comes first.

    Raises:
        WeightsError: The model has no text pathway.
    """
    prediction = predict(photo, make_prompt(photo.size, text=phrase), windows=windows)
    order = [1 + int(i) for i in np.argsort(-prediction.iou[1:], kind="stable")]
    if not photo.parts.has_dense_text:
        candidates = _read(photo, prediction, order, None)
        return judge(
            PhraseAnswer(
                phrase=phrase,
                strategy="prompt",
                levels=_NO_GATES,
                candidates=candidates,
                searched=True,
            )
        )
    [embedding] = embed_phrases(photo.parts, [phrase])
    seen = look(photo, embedding, phrase, curves=curves_of(photo.parts))
    probability = text_map(photo, phrase)
    row, column = np.unravel_index(probability.argmax(), photo.size)
    point = (float(column) + 0.5, float(row) + 0.5)
    prompt = make_prompt(photo.size, text=phrase, points=[point])
    pointed = predict(photo, prompt, windows=windows)
    agreed = [_agreement(mask > 0, probability) for mask in pointed.logits]
    first = int((np.maximum(pointed.iou, 0) * np.sqrt(agreed)).argmax())
    candidates = (
        *_read(photo, pointed, [first], probability, point=point),
        *_read(photo, prediction, order[:2], probability),
    )
    return judge(
        replace(seen, strategy="prompt", levels=_NO_GATES, candidates=candidates, searched=True)
    )


def _agreement(mask: NDArray[np.bool_], probability: NDArray[np.float32]) -> float:
    """Soft IoU of a mask (H, W) with a map of probabilities."""
    common = float(probability[mask].sum())
    return common / max(1e-6, float(mask.sum()) + float(probability.sum()) - common)


def _read(
    photo: EncodedPhoto,
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
        order, masks, score_masks(photo, masks, probability), strict=True
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
    photo: EncodedPhoto, masks: NDArray[np.bool_], probability: NDArray[np.float32] | None
) -> list[tuple[dict[str, float], float]]:
    """Evidence and probability that a phrase describes each mask (K, H, W), none of them empty.

    Without the phrase's map `probability` (H, W) there is no evidence, and NaN.
    """
    if probability is None:
        return [({}, math.nan) for _ in masks]
    curve = curves_of(photo.parts).score
    values = [probability[mask] for mask in masks]
    evidence = [mask_evidence(float(v.mean()), float(v.max())) for v in values]
    return [(item, curve.probability(item)) for item in evidence]
