"""`segment(like=...)`: masks as examples instead of a phrase.

Examples become a concept: the mean of their masked-CLIP embeddings (arXiv 2304.02643, Appendix D.5)
and of their SAM latents (Appendix D.6). The text pathway was trained on masked-CLIP embeddings, so
a concept makes a map as a phrase does (`map_points`); a model without such a pathway proposes
automatic masks. Each mask is then scored by its own cosines with the concept, and dropped where an
example of `unlike` is nearer to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from textsam.errors import PromptError
from textsam.inference.photo.encoded import EncodedPhoto
from textsam.inference.photo.sam_embedding import in_frame, photo_latents, pooled_latents
from textsam.inference.strategies import map_points as auto
from textsam.inference.strategies.exemplars import ExamplePhotos, is_of
from textsam.inference.strategies.rank import EmbeddedMasks, answer_from_masks
from textsam.results.mask_result import MaskResult
from textsam.values.judge import (
    Curve,
    PhraseAnswer,
    Rival,
    StrategyCurves,
    best_first,
    judge,
    judge_mask,
)
from textsam.values.rle import RLE, decode_rles
from textsam.weights.parts import ModelParts

UNNAMED = "like this"  # label for examples without one

# Without a calibration and a map the score is the cosine itself, which only orders masks.
LIKE_CURVES = StrategyCurves(
    presence=Curve(weights={"clip": 1.0}, bias=0.0),
    score=Curve(weights={"clip": 1.0}, bias=0.0),
    min_presence=0.7,
    min_score=0.7,
)
_BARE_CURVES = StrategyCurves(
    presence=Curve(weights={"latent": 1.0}, bias=0.0),
    score=Curve(weights={"latent": 1.0}, bias=0.0),
    min_presence=0.9,
    min_score=0.9,
)
# Sides of an example's crops, as multiples of its box; the paper takes 1x to 2x (Appendix D.5).
_EXAMPLE_CROPS = (1.0, 1.5)
_CROP = 1.5  # of a mask that is scored
# By how much a negative must be nearer to a mask than the examples are, in cosines of masked CLIP.
# On VOC and car parts kept out of training (3 + 3 examples) 0, .03, .05, .08 and .12 give an F1 of
# .706, .719, .711, .700, .679 and .881, .881, .881, .886, .886; with one example .533 and .844 for
# 0, .556 and .883 for .05.
_MARGIN = 0.05
_MIN_COSINE = 0.01  # cosines are clipped to .01 and .99, beyond which log odds grow without bound


@dataclass(frozen=True, kw_only=True, eq=False)
class Concept:
    """What some masks have in common; made by `TextSAM.concept`, for any photo.

    Attributes:
        name: The examples' label, or "like this".
        model: Name of the model that made it.
        clip: (D,) unit masked-CLIP embedding, the examples' mean; None for a model without CLIP.
        latent: (C,) unit SAM latent, the examples' mean.
        negatives: (M, D) unit masked-CLIP embedding of each example of what is not meant, or its
            (M, C) latent without a CLIP; None without any.
    """

    name: str
    model: str
    clip: Tensor | None
    latent: Tensor
    negatives: Tensor | None = None


def make_concept(
    photos: ExamplePhotos, like: Sequence[MaskResult], unlike: Sequence[MaskResult] = ()
) -> Concept:
    """Embed examples of one kind, and examples of what it is not.

    Raises:
        PromptError: Examples of several labels.
    """
    labels = list(dict.fromkeys(item.label for item in like if item.label is not None))
    if len(labels) > 1:
        raise PromptError(
            f"the masks in like have {len(labels)} labels ({', '.join(labels[:4])}); wanted "
            f"masks of one label. Type: like=result[{labels[0]!r}]"
        )
    crops, latents = _embed(photos, like)
    clip = None if crops is None else F.normalize(crops.mean((0, 1)), dim=0)
    concept = Concept(
        name=labels[0] if labels else UNNAMED,
        model=photos.parts.name,
        clip=clip,
        latent=F.normalize(latents.mean(0), dim=0),
    )
    return with_negatives(photos, concept, unlike) if unlike else concept


def with_negatives(
    photos: ExamplePhotos, concept: Concept, unlike: Sequence[MaskResult]
) -> Concept:
    """The concept with other examples of what it is not."""
    check_fits(photos.parts, concept)
    crops, latents = _embed(photos, unlike)
    rows = latents if crops is None else F.normalize(crops.mean(0), dim=-1)
    return replace(concept, negatives=rows)


def _embed(photos: ExamplePhotos, items: Sequence[MaskResult]) -> tuple[Tensor | None, Tensor]:
    """Masked-CLIP embeddings (crops, N, D), None without CLIP, and latents (N, C) of examples."""
    clip = photos.parts.clip
    crops: list[Tensor] = []
    latents: list[Tensor] = []
    by_photo: dict[int, list[MaskResult]] = {}
    for item in items:
        by_photo.setdefault(id(item.photo), []).append(item)
    for own in by_photo.values():
        photo = own[0].photo
        assert photo is not None
        masks = np.stack([item.mask for item in own])
        source = photos.of(photo)
        latents.append(pooled_latents(source, in_frame(source, masks)))
        if clip is not None:
            rows = [clip.encode_masks(source.image, masks, expand=e).cpu() for e in _EXAMPLE_CROPS]
            crops.append(torch.stack(rows))
    return torch.cat(crops, dim=1) if crops else None, torch.cat(latents)


def all_within(photo: EncodedPhoto, items: Sequence[MaskResult]) -> bool:
    """Whether all examples are masks of this photo."""
    return all(item.photo is not None and is_of(item.photo, photo) for item in items)


def like_answer(
    photo: EncodedPhoto,
    concept: Concept,
    *,
    threshold: float | None,  # minimum presence and score; the calibration's levels by default
    # Gives the photo's automatic masks, for a model without phrase maps.
    embedded: Callable[[], EmbeddedMasks],
) -> PhraseAnswer:
    """Every instance of a concept.

    Evidence of a mask: "clip" and "latent", the log odds of its cosines with the concept, and with
    a map also "map" and "peak" of `map_points`. Evidence of presence: "clip" and "latent" of the
    most similar mask, and the map's "peak".

    Raises:
        PromptError: The concept belongs to another model.
    """
    check_fits(photo.parts, concept)
    calibrated = photo.parts.calibration.strategies.get("like")
    # A map source reads phrases, not masked-CLIP embeddings.
    has_map = photo.parts.has_dense_text and photo.parts.map_source is None
    if not has_map or concept.clip is None:
        curves = calibrated or (_BARE_CURVES if concept.clip is None else LIKE_CURVES)
        return _rank(photo, embedded(), concept, curves=curves, threshold=threshold)
    curves = calibrated or auto.DEFAULT_CURVES
    _, pathway = photo.parts.require_text()
    embedding = pathway.centre(concept.clip[None].to(photo.parts.device), "image")[0]
    proposed = auto.propose(photo, embedding, concept.name, threshold=threshold)
    return _scored(photo, replace(proposed, strategy="like"), concept, curves=curves)


def _rank(
    photo: EncodedPhoto,
    embedded: EmbeddedMasks,
    concept: Concept,
    *,
    curves: StrategyCurves,
    threshold: float | None,
) -> PhraseAnswer:
    """Automatic masks by falling similarity, as `rank` orders them for a phrase."""
    masks = embedded.masks
    evidence: list[dict[str, float]] = [{} for _ in range(len(masks))]
    rows = photo_latents(photo, masks.rles)
    latents = rows @ concept.latent
    if concept.clip is not None and embedded.embeddings is not None:
        rows = embedded.embeddings
        evidence = [{"clip": _log_odds(value)} for value in (rows @ concept.clip).tolist()]
    for item, latent in zip(evidence, latents, strict=True):
        item["latent"] = _log_odds(float(latent))
    measure = "clip" if concept.clip is not None else "latent"
    rivals = _rivals(rows, concept)
    left = [item for item, rival in zip(evidence, rivals, strict=True) if not _lost(rival)]
    best = max(left or evidence, key=lambda item: item[measure], default={})
    return answer_from_masks(
        concept.name,
        "like",
        masks,
        evidence,
        best,
        curves=curves,
        threshold=threshold,
        rivals=rivals,
    )


def _scored(
    photo: EncodedPhoto, answer: PhraseAnswer, concept: Concept, *, curves: StrategyCurves
) -> PhraseAnswer:
    """Presence and scores, from the similarity of the masks that geometry has not dropped."""
    levels = replace(answer.levels, presence=curves.min_presence, score=curves.min_score)
    # Only these are compared with the concept, since each costs a pass of the CLIP image tower.
    sound = [item for item in answer.candidates if judge_mask(item, levels)[0] is None]
    similarity, rivals = _similarity(photo, [item.rle for item in sound], concept)
    nothing = {"clip": _log_odds(0.0), "latent": _log_odds(0.0)}
    # Masks that look like `unlike` say nothing about presence, unless there are no others.
    left = [own for own, rival in zip(similarity, rivals, strict=True) if not _lost(rival)]
    best = max(left or similarity, key=lambda item: item["clip"], default=nothing)
    evidence = {**answer.evidence, **best}
    candidates = {id(item): item for item in answer.candidates}
    for item, own, rival in zip(sound, similarity, rivals, strict=True):
        joined = {**item.evidence, **own}
        score = curves.score.probability(joined)
        candidates[id(item)] = replace(item, evidence=joined, score=score, rival=rival)
    answer = replace(
        answer,
        presence=curves.presence.probability(evidence),
        evidence=evidence,
        levels=levels,
    )
    absent = judge(replace(answer, candidates=(), searched=False))
    if absent.gate is not None:
        return absent
    return best_first(judge(replace(answer, candidates=tuple(candidates.values()))))


def _similarity(
    photo: EncodedPhoto, rles: Sequence[RLE], concept: Concept
) -> tuple[list[dict[str, float]], list[Rival | None]]:
    """Evidence "clip" and "latent" of masks, and what competes with each."""
    if not rles:
        return [], []
    assert photo.parts.clip is not None
    assert concept.clip is not None
    masks = decode_rles(rles, photo.size)
    rows = photo.parts.clip.encode_masks(photo.image, masks, expand=_CROP).cpu()
    latents = photo_latents(photo, rles) @ concept.latent
    evidence = [
        {"clip": _log_odds(float(clip)), "latent": _log_odds(float(latent))}
        for clip, latent in zip(rows @ concept.clip, latents, strict=True)
    ]
    return evidence, _rivals(rows, concept)


def _rivals(rows: Tensor, concept: Concept) -> list[Rival | None]:
    """For masks (N, D) the log odds of the examples' mean and of the nearest negative."""
    if concept.negatives is None or not len(rows):
        return [None] * len(rows)
    own = (rows @ (concept.latent if concept.clip is None else concept.clip)).tolist()
    nearest = (rows @ concept.negatives.T).amax(1)
    # A cosine with the best of several is higher by chance than one with a mean.
    others = (nearest if concept.clip is None else nearest - _MARGIN).tolist()
    pairs = zip(own, others, strict=True)
    return [("exclusion", _log_odds(mine), _log_odds(other)) for mine, other in pairs]


def _lost(rival: Rival | None) -> bool:
    return rival is not None and rival[2] > rival[1]


def check_fits(parts: ModelParts, concept: Concept) -> None:
    """Refuse a concept of another model."""
    width = None if parts.clip is None else parts.clip.width
    own = None if concept.clip is None else len(concept.clip)
    if (concept.model, own, len(concept.latent)) != (parts.name, width, parts.sam.config.embed_dim):
        raise PromptError(
            f"the concept {concept.name!r} was made by model {concept.model!r}, and this is "
            f"{parts.name!r}: embeddings of different models do not compare. Type: "
            "model.concept(masks)"
        )


def _log_odds(cosine: float) -> float:
    chance = min(max(cosine, _MIN_COSINE), 1 - _MIN_COSINE)
    return math.log(chance / (1 - chance))
