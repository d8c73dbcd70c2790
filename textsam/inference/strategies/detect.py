"""`strategy="detect"`: a zero-shot detector finds boxes, the SAM core turns them into masks.

All boxes of all phrases are decoded in one call. The detector's scores are the evidence: without a
calibration its usual box threshold is the level of presence, asked of a phrase's best box, and its
usual text threshold the level of the score, asked of each box.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textsam.inference.photo.encoded import EncodedPhoto, to_original_frame
from textsam.inference.photo.prediction import box_prompts, decode, stability_score
from textsam.inference.strategies.competition import cut_rivals, log_odds
from textsam.modeling.huggingface.found_boxes import FoundBoxes, box_iou
from textsam.values.judge import (
    Candidate,
    Curve,
    Gate,
    Levels,
    MaskNumbers,
    PhraseAnswer,
    StrategyCurves,
    Threshold,
    best_first,
    judge,
    judge_mask,
    threshold_of,
)
from textsam.values.rle import encode_masks, rle_area
from textsam.weights.parts import ModelParts

# The detector's own scores as probabilities; `detect_curves` adds its family's levels.
DETECT_CURVES = StrategyCurves(
    presence=Curve(weights={"box": 1.0}, bias=0.0), score=Curve(weights={"text": 1.0}, bias=0.0)
)
_MAX_BOXES = 100  # masks of a phrase
_MAX_DROPPED = 3  # boxes of a phrase below its level that are decoded all the same, to be shown
_MAX_COVERED = 0.8  # share of a mask that better ones of the phrase may cover
_SAME_PLACE = 0.7  # IoU from which an excluded phrase's box competes with a phrase's own
_GROUP = 64  # boxes decoded at once; of ViT-B each takes some 40 MB in the decoder
_ROWS = 8  # masks brought to the photo's size at once


@dataclass(frozen=True, kw_only=True, eq=False)
class _BoxChoice:
    """The boxes that stand for a phrase, best score first."""

    rows: tuple[int, ...]  # in the boxes of the photo
    numbers: tuple[dict[str, Any], ...]  # fields of the candidate of each, without its mask
    forgotten: float = -math.inf  # highest score of those that are left out


def detect_curves(parts: ModelParts) -> StrategyCurves:
    """The model's calibration of `detect`, or the detector's scores and its family's levels."""
    detector = parts.require_detector()
    usual = replace(DETECT_CURVES, min_presence=detector.box_level, min_score=detector.text_level)
    return parts.calibration.strategies.get("detect", usual)


def detect_answers(
    photo: EncodedPhoto,
    phrases: Sequence[str],
    *,
    # Minimum presence and score, for all or by phrase; the usual levels by default.
    threshold: Threshold = None,
    # A box that fits one of these phrases better is dropped; their parts of a mask are cut from it.
    exclude: Sequence[str] = (),
    background: Sequence[str] = (),  # the same, with a gate of their own
) -> list[PhraseAnswer]:
    """Every instance of every phrase.

    Evidence of a mask: "box", the log odds of the box's score, and "text", those of the phrase's
    score for the box. Evidence of presence: both of the phrase's best box.

    Raises:
        WeightsError: The model has no detector.
        PromptError: A phrase that the detector cannot read.
    """
    curves = detect_curves(photo.parts)
    detector = photo.parts.require_detector()
    found = detector.find(photo.detector_photo, [*phrases, *exclude, *background])
    rivals = _rival_scores(found, len(phrases), len(exclude))
    answers: list[PhraseAnswer] = []
    choices: list[_BoxChoice] = []
    for column, phrase in enumerate([*phrases, *exclude, *background]):
        evidence = _presence_evidence(found, column)
        levels = photo.parts.own_levels(curves, phrase).levels(
            threshold_of(threshold, phrase), max_covered=_MAX_COVERED
        )
        answer = judge(
            PhraseAnswer(
                phrase=phrase,
                strategy="detect",
                presence=curves.presence.probability(evidence),
                evidence=evidence,
                levels=levels,
            )
        )
        answers.append(answer)
        if answer.gate is None:
            others = rivals if column < len(phrases) else {}  # rivals have none themselves
            choices.append(_choose(found, column, others, score=curves.score, levels=levels))
        else:
            choices.append(_BoxChoice(rows=(), numbers=()))
    # Boxes that stand for several phrases are decoded once.
    rows = sorted({row for choice in choices for row in choice.rows})
    masks = dict(zip(rows, _decode(photo, found.boxes[rows]), strict=True))
    answers = [
        answer if answer.gate is not None else _with_masks(answer, choice, masks)
        for answer, choice in zip(answers, choices, strict=True)
    ]
    count = len(phrases)
    split = count + len(exclude)
    kept: list[tuple[Gate, Candidate]] = []
    kept += [("exclusion", item) for answer in answers[count:split] for item in answer.kept]
    kept += [("background", item) for answer in answers[split:] for item in answer.kept]
    return cut_rivals(answers[:count], kept)


def _with_masks(
    answer: PhraseAnswer, choice: _BoxChoice, masks: Mapping[int, Candidate]
) -> PhraseAnswer:
    """The verdict on the masks of a phrase's boxes; those without a pixel are left out."""
    candidates = tuple(
        replace(masks[row], **numbers)
        for row, numbers in zip(choice.rows, choice.numbers, strict=True)
        if rle_area(masks[row].rle)
    )
    answer = replace(answer, candidates=candidates, searched=True, forgotten=choice.forgotten)
    return best_first(judge(answer))


def _presence_evidence(found: FoundBoxes, column: int) -> dict[str, float]:
    """The scores of the phrase's best box; where other phrases have all boxes, its score alone."""
    if not len(found):
        return _evidence(0.0, 0.0)
    text = found.text_scores[:, column]
    own = np.flatnonzero(found.own[:, column])
    if not len(own):
        return _evidence(float(text.max()), float(text.max()))
    best = own[text[own].argmax()]
    return _evidence(float(found.scores[best]), float(text[best]))


def _evidence(box: float, text: float) -> dict[str, float]:
    return {"box": log_odds(box), "text": log_odds(text)}


def _rival_scores(
    found: FoundBoxes, phrases: int, excluded: int
) -> dict[Gate, NDArray[np.float32]]:
    """Per gate the best score (N,) of its phrases at the place of each box."""
    split = phrases + excluded
    columns: dict[Gate, slice] = {
        "exclusion": slice(phrases, split),
        "background": slice(split, found.own.shape[1]),
    }
    rivals: dict[Gate, NDArray[np.float32]] = {}
    for gate, place in columns.items():
        if place.start == place.stop or not len(found):
            continue
        scores = found.text_scores[:, place].max(1)
        # An object may have a box of its own for the phrase and another for its rival.
        others = np.flatnonzero(found.own[:, place].any(1))
        if len(others):
            meets = box_iou(found.boxes, found.boxes[others]) >= _SAME_PLACE
            scores = np.maximum(scores, np.where(meets, scores[others], 0).max(1))
        rivals[gate] = scores
    return rivals


def _choose(
    found: FoundBoxes,
    column: int,
    rivals: Mapping[Gate, NDArray[np.float32]],
    *,
    score: Curve,
    levels: Levels,
) -> _BoxChoice:
    """Boxes of a phrase that pass, and the best of those that do not."""
    text = found.text_scores[:, column]
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    usable = (sides > 0).all(1)
    lost = np.zeros_like(usable)
    for scores in rivals.values():
        lost |= scores > text
    rows = np.flatnonzero(usable & (found.own[:, column] | lost))
    # Beyond these no score matters: they are neither decoded nor shown.
    rows = rows[np.argsort(-text[rows], kind="stable")][: 4 * _MAX_BOXES]
    items = []
    for row in map(int, rows):
        evidence = _evidence(float(found.scores[row]), float(text[row]))
        numbers: dict[str, Any] = {"evidence": evidence, "score": score.probability(evidence)}
        if not found.own[row, column] and numbers["score"] < levels.min_score:
            continue  # a rival's own box, which the phrase does not want
        if rivals:
            gate = max(rivals, key=lambda gate: float(rivals[gate][row]))
            numbers["rival"] = (gate, evidence["text"], log_odds(float(rivals[gate][row])))
        items.append((row, numbers))
    if not items and usable.any():  # every box is another phrase's, which the answer should say
        row = int(np.where(usable, text, -1).argmax())
        evidence = _evidence(float(found.scores[row]), float(text[row]))
        best = float(found.text_scores[row].max())
        reason = f"another phrase fits the box better, {best:.2f} > {text[row]:.2f}"
        numbers = {"evidence": evidence, "score": score.probability(evidence)}
        items = [(row, {**numbers, "ruled_out": ("overlap", reason)})]
    items.sort(key=lambda item: -item[1]["score"])
    return _shortened(items, levels)


def _shortened(items: Sequence[tuple[int, dict[str, Any]]], levels: Levels) -> _BoxChoice:
    """The boxes that pass, and a few that do not, for explanations."""
    kept, dropped, forgotten = [], 0, -math.inf
    passed = 0
    for row, numbers in items:
        gate, _ = judge_mask(
            MaskNumbers(**{k: v for k, v in numbers.items() if k != "evidence"}), levels
        )
        passed += gate is None
        dropped += gate is not None
        if passed <= _MAX_BOXES if gate is None else dropped <= _MAX_DROPPED:
            kept.append((row, numbers))
        elif gate in (None, "score"):  # no threshold brings others back
            forgotten = max(forgotten, numbers["score"])
    return _BoxChoice(
        rows=tuple(row for row, _ in kept),
        numbers=tuple(numbers for _, numbers in kept),
        forgotten=forgotten,
    )


def _decode(photo: EncodedPhoto, boxes: NDArray[np.float32]) -> list[Candidate]:
    """The masks of N boxes, without scores, in one call of the decoder for each group."""
    candidates: list[Candidate] = []
    for start in range(0, len(boxes), _GROUP):
        prompts = box_prompts(photo, boxes[start : start + _GROUP])
        # Of the decoder's four masks, the first is for unambiguous prompts, such as boxes.
        logits, iou = (values[:, 0] for values in decode(photo, prompts))
        for first in range(0, len(logits), _ROWS):
            part = slice(first, first + _ROWS)
            full = to_original_frame(logits[part], photo.frame)
            columns = zip(
                encode_masks((full > 0).numpy()),
                iou[part].tolist(),
                stability_score(full).tolist(),
                logits[part].half().numpy(),
                strict=True,
            )
            candidates += [
                Candidate(rle=rle, iou=own, stability=stable, low_res=low_res.copy())
                for rle, own, stable, low_res in columns
            ]
    return candidates
