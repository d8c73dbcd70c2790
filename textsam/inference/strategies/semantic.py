"""Label maps: each pixel gets the phrase whose map is highest there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from textsam.inference.photo.encoded import (
    EncodedPhoto,
    embed_phrases,
    map_logits,
    to_original_frame,
)
from textsam.inference.photo.zoom import WindowCache
from textsam.inference.strategies import map_points as auto
from textsam.inference.strategies.answering import answer_query, compete, to_segmentation
from textsam.inference.strategies.query import make_query
from textsam.inference.strategies.rank import EmbeddedMasks
from textsam.results.label_map import LabelMap
from textsam.values.judge import Threshold, is_present, threshold_of
from textsam.values.prompts import normalize_phrases


def label_pixels(
    photo: EncodedPhoto,
    phrases: str | Sequence[str],  # the label map numbers them from 1
    *,
    # Phrases that compete for pixels and leave them unlabelled.
    background: str | Sequence[str] | None,
    # Minimum presence of a phrase; the calibration's level by default. A pixel needs
    # `TextSettings.threshold`, as in the regions of `auto`.
    threshold: Threshold,
    windows: WindowCache,
    # Gives the photo's automatic masks, for a model without phrase maps.
    embedded: Callable[[], EmbeddedMasks],
) -> LabelMap:
    """Label every pixel by the phrases' maps, or by masks for a model without."""
    names = list(dict.fromkeys(normalize_phrases(phrases, "phrases")))
    query = make_query(
        text=names,
        background=background,
        strategy="auto",  # which of them needs no map is `choose_strategy`'s business
        threshold=threshold,
        overlap="exclusive",
    )
    if not photo.parts.has_dense_text:
        answers = answer_query(photo, query, windows=windows, embedded=embedded)
        result = to_segmentation(photo.origin, compete(answers, "exclusive"))
        # The result numbers the phrases that have masks; the map numbers all of them.
        numbers = np.array([0, *(1 + names.index(name) for name in result.class_names())], np.int32)
        return LabelMap(numbers[result.label_map(by="label")], names, image=photo.origin)
    query = query.settled(photo.parts)
    level = photo.parts.text_settings.threshold
    best = torch.full(photo.size, float(np.log(level / (1 - level))))
    labels = torch.zeros(photo.size, dtype=torch.int32)
    phrases = [*query.phrases, *query.background]
    # One phrase at a time, so that memory holds two maps of the photo's size for any number.
    embeddings = embed_phrases(photo.parts, phrases)
    for number, (phrase, embedding) in enumerate(zip(phrases, embeddings, strict=True), start=1):
        maps = map_logits(photo, embedding[None])
        curves = auto.curves_of(photo.parts, phrase)
        presence = curves.presence.probability({"peak": auto.peak_of(photo, maps[0])})
        own = threshold_of(query.threshold, phrase)
        if not is_present(presence, auto.map_levels(photo, curves, own)):
            continue
        logits = to_original_frame(maps, photo.text_frame)[0]
        wins = logits > best
        best[wins] = logits[wins]
        labels[wins] = number if number <= len(names) else 0
    return LabelMap(labels.numpy(), names, image=photo.origin)
