"""`everything(names=[...])`: each automatic mask gets the name that fits it best, or none.

Names compete with each other and with `BACKGROUND` for each mask, as in CLIP's own classifier
(arXiv 2103.00020, Section 3.1.2), by masked CLIP (arXiv 2304.02643, Appendix D.5) and, where the
model makes maps of phrases, by the name's map inside the mask. Only the best name of a mask is a
candidate; it is dropped where the calibration finds it too improbable.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.errors import PromptError
from textsam.inference.photo.encoded import EncodedPhoto, embed_phrases, map_logits
from textsam.inference.strategies.query import Query, make_query
from textsam.inference.strategies.rank import BACKGROUND, EmbeddedMasks, without_worst
from textsam.results.segmentation import Segmentation
from textsam.values.judge import (
    Candidate,
    Curve,
    PhraseAnswer,
    StrategyCurves,
    Threshold,
    judge,
    threshold_of,
)
from textsam.values.prompts import normalize_phrases
from textsam.values.rle import RLE, rle_area, rle_runs
from textsam.weights.parts import ModelParts

# Without a calibration the share of CLIP's softmax counts.
NAMING_CURVES = StrategyCurves(
    presence=Curve(weights={"clip": 1.0}, bias=0.0),
    score=Curve(weights={"clip": 1.0}, bias=0.0),
)
_MAX_LOG_ODDS = 30.0
_SAMPLES = 1024  # pixels of a mask at which maps are read

Maps = NDArray[np.float32]  # (K, h, w) probability of each name, on a grid that covers the photo


def check_names(
    parts: ModelParts, names: str | Sequence[str] | None, threshold: Threshold
) -> Query | None:
    """The names as the phrases of a query, None without names; before the masks, which take time.

    Raises:
        PromptError: Names that `segment` would not take as phrases, or a wrong threshold.
        WeightsError: The model has no CLIP.
    """
    if names is None:
        if threshold is not None:
            raise PromptError("threshold goes with names: everything(names=[...], threshold=0.5)")
        return None
    parts.require_clip()
    phrases = normalize_phrases(names, "names")
    return make_query(text=phrases, threshold=threshold).settled(parts)


def name_maps(photo: EncodedPhoto, query: Query) -> Maps | None:
    """The map of each name; None for a model that makes none."""
    if not photo.parts.has_dense_text:
        return None
    maps = map_logits(photo, embed_phrases(photo.parts, query.phrases))
    rows, columns = photo.text_frame.covered(maps.shape[-1])
    return np.asarray(maps[:, :rows, :columns].sigmoid().numpy(), dtype=np.float32)


def name_masks(
    parts: ModelParts, embedded: EmbeddedMasks, query: Query, maps: Maps | None
) -> Segmentation:
    """The masks in their order, each with its best name and score, or None and NaN.

    The names are the phrases of a query, whose threshold is settled. Evidence of a mask and of a
    name's presence: "clip", the log odds of the name against all others, and "map", those of the
    name's mean probability inside the mask.
    """
    masks = embedded.masks
    evidence = _evidence(parts, embedded, query.phrases, maps)
    best = sum(evidence.values(), torch.zeros(len(masks), len(query.phrases))).argmax(1).tolist()
    labels: list[str | None] = [None] * len(masks)
    scores = np.full(len(masks), np.nan)
    answers: list[PhraseAnswer] = []
    for column, name in enumerate(query.phrases):
        own = {key: values[:, column] for key, values in evidence.items()}
        rows = [index for index, place in enumerate(best) if place == column]
        answer = _answer(parts, masks, rows, own, name, threshold_of(query.threshold, name))
        numbers = {id(masks.rles[index]): index for index in rows}
        for candidate in answer.kept:
            index = numbers[id(candidate.rle)]
            labels[index], scores[index] = name, candidate.score
        answers.append(without_worst(answer))
    return Segmentation(
        masks.size,
        masks.rles,
        labels=labels,
        scores=scores,
        iou=masks.iou,
        stability=masks.stability,
        presence={answer.phrase: answer.presence for answer in answers},
        image=masks.photo,
        answers=answers,
    )


def _answer(
    parts: ModelParts,
    masks: Segmentation,
    rows: Sequence[int],  # of the masks that the name fits best
    evidence: dict[str, Tensor],  # (N,) of all masks
    name: str,
    threshold: float | None,
) -> PhraseAnswer:
    curves = parts.calibration.strategies.get("everything", NAMING_CURVES)
    curves = parts.own_levels(curves, name)
    candidates = [
        Candidate(
            rle=masks.rles[index],
            score=curves.score.probability(own),
            iou=float(masks.iou[index]),
            stability=float(masks.stability[index]),
            evidence=own,
        )
        for index in rows
        for own in [{key: float(values[index]) for key, values in evidence.items()}]
    ]
    # Of the mask that fits best, also where another name fits it better.
    top = int(sum(evidence.values(), torch.zeros(len(masks))).argmax()) if len(masks) else 0
    best = {key: float(values[top]) for key, values in evidence.items()} if len(masks) else {}
    return judge(
        PhraseAnswer(
            phrase=name,
            strategy="everything",
            presence=curves.presence.probability(best) if best else 0.0,
            evidence=best,
            levels=curves.levels(threshold),
            candidates=tuple(sorted(candidates, key=lambda item: -item.score)),
            searched=True,
        )
    )


def _evidence(
    parts: ModelParts, embedded: EmbeddedMasks, names: Sequence[str], maps: Maps | None
) -> dict[str, Tensor]:
    """Evidence (N, K) that each of N masks shows each of K names."""
    clip = parts.require_clip()
    assert embedded.embeddings is not None  # the model has a CLIP
    texts = torch.cat([clip.encode_text(names), clip.encode_text([*BACKGROUND], plain=False)])
    logits = clip.logits(embedded.embeddings.to(clip.device), texts).float().cpu()
    if clip.is_pairwise:  # log odds of the pair; names compete by being the best
        odds = logits[:, : len(names)]
    else:
        shares = logits.double().log_softmax(1)[:, : len(names)]
        odds = (shares - torch.log(-torch.expm1(shares.clamp_max(-1e-12)))).float()
    evidence = {"clip": odds.clamp(-_MAX_LOG_ODDS, _MAX_LOG_ODDS)}
    if maps is not None:
        means = [_means_inside(maps, rle) for rle in embedded.masks.rles]
        rows = torch.from_numpy(np.stack(means)) if means else torch.zeros(0, len(names))
        evidence["map"] = torch.logit(rows.float(), eps=1e-6)
    return evidence


def _means_inside(maps: Maps, rle: RLE) -> NDArray[np.float32]:
    """(K,) mean of maps at pixels spread evenly over a mask, which is not decoded."""
    height, width = rle.size
    runs = rle_runs(rle)
    ends = np.cumsum(runs)
    inside = np.cumsum(runs[1::2])  # pixels of the mask up to the end of each of its runs
    area = rle_area(rle)
    order = np.linspace(0, area - 1, min(area, _SAMPLES)).astype(np.int64)
    run = np.searchsorted(inside, order, side="right")
    place = ends[1::2][run] - (inside[run] - order)  # column by column, as codes run
    rows = (place % height) * maps.shape[1] // height
    columns = (place // height) * maps.shape[2] // width
    means: NDArray[np.float32] = maps[:, rows, columns].mean(1)
    return means
