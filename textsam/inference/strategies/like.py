"""`segment(like=...)`: masks as examples instead of a phrase.

Examples become a concept: the mean of their masked-CLIP embeddings (arXiv 2304.02643, Appendix D.5)
and of their SAM latents (Appendix D.6). The text pathway was trained on masked-CLIP embeddings, so
a concept makes a map as a phrase does (`map_points`); a model without such a pathway proposes
automatic masks. Each mask is then scored by its own cosines with the concept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from textsam.errors import PromptError
from textsam.inference.photo.encoded import EncodedPhoto, encode_photo
from textsam.inference.photo.sam_embedding import in_frame, photo_latents, pooled_latents
from textsam.inference.strategies import map_points as auto
from textsam.inference.strategies.rank import EmbeddedMasks, answer_from_masks
from textsam.results.mask_result import MaskResult
from textsam.results.segmentation import Segmentation
from textsam.values.judge import Curve, PhraseAnswer, StrategyCurves, best_first, judge, judge_mask
from textsam.values.rle import RLE, decode_rles
from textsam.weights.parts import ModelParts

Example: TypeAlias = MaskResult | Segmentation | Sequence[MaskResult]

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
_MIN_COSINE = 0.01  # cosines are clipped to .01 and .99, beyond which log odds grow without bound


@dataclass(frozen=True, kw_only=True, eq=False)
class Concept:
    """What some masks have in common; made by `TextSAM.concept`, for any photo.

    Attributes:
        name: The examples' label, or "like this".
        model: Name of the model that made it.
        clip: (D,) unit masked-CLIP embedding; None for a model without CLIP.
        latent: (C,) unit SAM latent.
    """

    name: str
    model: str
    clip: Tensor | None
    latent: Tensor


def make_concept(parts: ModelParts, like: Example, *, photo: EncodedPhoto | None = None) -> Concept:
    """Embed examples of one kind that know their photo; those from `photo` are not encoded again.

    Raises:
        PromptError: No mask, an empty one, one without its photo, masks with several labels, or
            something else than masks.
    """
    examples = _check_examples(like)
    labels = {item.label for item in examples if item.label is not None}
    clips: list[Tensor] = []
    latents: list[Tensor] = []
    by_photo: dict[int, list[MaskResult]] = {}
    for item in examples:
        by_photo.setdefault(id(item.photo), []).append(item)
    for items in by_photo.values():
        origin = items[0].photo
        assert origin is not None
        masks = np.stack([item.mask for item in items])
        same = photo is not None and _is_of(items[0], photo)
        source = photo if same and photo is not None else encode_photo(parts, origin)
        latents.append(pooled_latents(source, in_frame(source, masks)))
        if parts.clip is not None:
            for expand in _EXAMPLE_CROPS:
                clips.append(parts.clip.encode_masks(source.image, masks, expand=expand).cpu())
    return Concept(
        name=next(iter(labels), UNNAMED),
        model=parts.name,
        clip=F.normalize(torch.cat(clips).mean(0), dim=0) if clips else None,
        latent=F.normalize(torch.cat(latents).mean(0), dim=0),
    )


def examples_within(photo: EncodedPhoto, like: Example) -> list[MaskResult] | None:
    """The examples, if all are masks of this photo; raises as `make_concept`."""
    examples = _check_examples(like)
    return examples if all(_is_of(item, photo) for item in examples) else None


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
    _check_fits(photo.parts, concept)
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
    if concept.clip is not None and embedded.embeddings is not None:
        cosines = (embedded.embeddings @ concept.clip).tolist()
        evidence = [{"clip": _log_odds(value)} for value in cosines]
    latents = photo_latents(photo, masks.rles) @ concept.latent
    for item, latent in zip(evidence, latents, strict=True):
        item["latent"] = _log_odds(float(latent))
    measure = "clip" if concept.clip is not None else "latent"
    best = max(evidence, key=lambda item: item[measure], default={})
    return answer_from_masks(
        concept.name, "like", masks, evidence, best, curves=curves, threshold=threshold
    )


def _scored(
    photo: EncodedPhoto, answer: PhraseAnswer, concept: Concept, *, curves: StrategyCurves
) -> PhraseAnswer:
    """Presence and scores, from the similarity of the masks that geometry has not dropped."""
    levels = replace(answer.levels, presence=curves.min_presence, score=curves.min_score)
    # Only these are compared with the concept, since each costs a pass of the CLIP image tower.
    sound = [item for item in answer.candidates if judge_mask(item, levels)[0] is None]
    similarity = _similarity(photo, [item.rle for item in sound], concept)
    nothing = {"clip": _log_odds(0.0), "latent": _log_odds(0.0)}
    best = max(similarity, key=lambda item: item["clip"], default=nothing)
    evidence = {**answer.evidence, **best}
    candidates = {id(item): item for item in answer.candidates}
    for item, own in zip(sound, similarity, strict=True):
        joined = {**item.evidence, **own}
        score = curves.score.probability(joined)
        candidates[id(item)] = replace(item, evidence=joined, score=score)
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
) -> list[dict[str, float]]:
    """Evidence "clip" and "latent" of masks."""
    if not rles:
        return []
    assert photo.parts.clip is not None
    assert concept.clip is not None
    masks = decode_rles(rles, photo.size)
    clips = photo.parts.clip.encode_masks(photo.image, masks, expand=_CROP).cpu() @ concept.clip
    latents = photo_latents(photo, rles) @ concept.latent
    return [
        {"clip": _log_odds(float(clip)), "latent": _log_odds(float(latent))}
        for clip, latent in zip(clips, latents, strict=True)
    ]


def _check_examples(like: Example) -> list[MaskResult]:
    wanted = "segmentation[0] of another photo, a Segmentation, or a list of such masks"
    if isinstance(like, MaskResult):
        examples = [like]
    elif isinstance(like, Segmentation) or (
        isinstance(like, Sequence) and all(isinstance(item, MaskResult) for item in like)
    ):
        examples = list(like)
    else:
        raise PromptError(f"like is a {type(like).__name__}; wanted {wanted}")
    if not examples:
        raise PromptError(f"like has no mask; wanted {wanted}")
    for item in examples:
        if item.photo is None:
            raise PromptError(
                "a mask in like has no photo (files of results do not contain it). Type: "
                'Segmentation.load("result.json", image="photo.jpg")'
            )
        if not item.area:
            raise PromptError("a mask in like is empty")
    labels = list(dict.fromkeys(item.label for item in examples if item.label is not None))
    if len(labels) > 1:
        raise PromptError(
            f"the masks in like have {len(labels)} labels ({', '.join(labels[:4])}); wanted "
            f"masks of one label. Type: like=result[{labels[0]!r}]"
        )
    return examples


def _check_fits(parts: ModelParts, concept: Concept) -> None:
    width = None if parts.clip is None else parts.clip.width
    own = None if concept.clip is None else len(concept.clip)
    if (concept.model, own, len(concept.latent)) != (parts.name, width, parts.sam.config.embed_dim):
        raise PromptError(
            f"the concept {concept.name!r} was made by model {concept.model!r}, and this is "
            f"{parts.name!r}: embeddings of different models do not compare. Type: "
            "model.concept(masks)"
        )


def _is_of(item: MaskResult, photo: EncodedPhoto) -> bool:
    """Whether a mask knows this photo, or an array in the same memory; content is not compared."""
    if item.photo is None or item.photo is photo.origin:
        return item.photo is not None
    one, other = item.photo.pixels(), photo.image
    place = (one.ctypes.data, one.shape, one.strides)
    return place == (other.ctypes.data, other.shape, other.strides)


def _log_odds(cosine: float) -> float:
    chance = min(max(cosine, _MIN_COSINE), 1 - _MIN_COSINE)
    return math.log(chance / (1 - chance))
