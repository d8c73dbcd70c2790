"""From a query to masks: the strategies of `segment(text=...)` and `segment(like=...)`.

    auto    the phrase's map finds regions, points separate instances (`map_points`); `rank` where
            the model makes no map
    prompt  as in the paper: the CLIP text embedding is the prompt, and means one object (arXiv
            2304.02643, Section 7.5, Appendix D.5)
    rank    automatic masks, each scored by masked CLIP (`rank`): any SAM, any CLIP, no training
    like    examples instead of a phrase (`like`)

Each answers a phrase with all masks that it considered and the gate that dropped each; those that
no gate dropped are the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from textsam.inference.photo.encoded import EncodedPhoto
from textsam.inference.photo.phrase_map import embed_phrases
from textsam.inference.photo.zoom import WindowCache
from textsam.inference.strategies.like import Concept, like_answer, make_concept
from textsam.inference.strategies.map_points import curves_of, instances_of
from textsam.inference.strategies.overlap import without_overlap
from textsam.inference.strategies.prompt import prompt_answer
from textsam.inference.strategies.query import Query
from textsam.inference.strategies.rank import EmbeddedMasks, rank_answers
from textsam.results.segmentation import Segmentation
from textsam.values.candidates import PhraseAnswer
from textsam.values.settings import Overlap

__all__ = ["answer_query", "to_segmentation"]


def answer_query(
    photo: EncodedPhoto,
    query: Query,
    *,
    windows: WindowCache,
    embedded: Callable[[], EmbeddedMasks],
) -> list[PhraseAnswer]:
    """Answer each phrase, or the examples, before masks compete for pixels.

    Args:
        photo: The photo.
        query: Phrases or examples, not one object.
        windows: The photo's cache, for `strategy="prompt"`.
        embedded: Gives the photo's automatic masks, for `strategy="rank"` and for examples.

    Raises:
        PromptError: Examples without their photo, or of another model.
        WeightsError: The model cannot answer by that strategy.
    """
    parts = photo.parts
    if query.like is not None:
        concept = query.like
        if not isinstance(concept, Concept):
            concept = make_concept(parts, concept, photo=photo)
        return [like_answer(photo, concept, threshold=query.threshold, embedded=embedded)]
    # Before the strategies, so that a SAM without CLIP says how to get one.
    parts.require_clip()
    if query.strategy == "prompt":
        parts.require_text()
        return [prompt_answer(photo, phrase, windows=windows) for phrase in query.phrases]
    if query.strategy == "rank" or not parts.has_dense_text:
        return rank_answers(
            photo,
            embedded(),
            query.phrases,
            curves=parts.calibration.strategies.get("rank"),
            threshold=query.threshold,
            exclude=query.exclude,
            background=query.background,
        )
    curves = curves_of(parts)
    exclude = embed_phrases(parts, query.exclude) if query.exclude else None
    background = embed_phrases(parts, query.background) if query.background else None
    embeddings = embed_phrases(parts, query.phrases)
    return [
        instances_of(
            photo,
            embedding,
            phrase,
            curves=curves,
            threshold=query.threshold,
            exclude=exclude,
            background=background,
        )
        for phrase, embedding in zip(query.phrases, embeddings, strict=True)
    ]


def to_segmentation(
    image: NDArray[np.uint8], answers: Sequence[PhraseAnswer], *, overlap: Overlap
) -> Segmentation:
    """The candidates that no gate dropped, in the order of the phrases; image (H, W, 3)."""
    if overlap == "exclusive":
        answers = without_overlap(answers)
    kept = [(answer.phrase, candidate) for answer in answers for candidate in answer.kept]
    return Segmentation(
        (image.shape[0], image.shape[1]),
        [candidate.rle for _, candidate in kept],
        scores=[candidate.score for _, candidate in kept],
        iou=[candidate.iou for _, candidate in kept],
        stability=[candidate.stability for _, candidate in kept],
        labels=[phrase for phrase, _ in kept],
        presence={a.phrase: a.presence for a in answers if not math.isnan(a.presence)},
        image=image,
        answers=answers,
    )
