"""A phrase as embedding, as prompt tokens, and as a map over the photo.

The map holds, for each place of the photo, the log odds that the phrase is there. The text-aligned
features of the photo are computed once (`EncodedPhoto.text_features`); each further phrase costs
one product with them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from textsam.inference.photo.encoded import EncodedPhoto
from textsam.inference.photo.postprocess import to_original_frame
from textsam.weights.parts import ModelParts

__all__ = [
    "embed_phrases",
    "map_logits",
    "phrase_mask_prompt",
    "phrase_tokens",
    "text_map",
    "to_mask_prompts",
]


def embed_phrases(parts: ModelParts, phrases: Sequence[str]) -> Tensor:
    """Unit embeddings (P, D) of phrases, centred for the pathway."""
    clip, pathway = parts.require_text()
    return pathway.centre(clip.encode_text(list(phrases)).to(parts.device), "text")


@torch.no_grad()
def phrase_tokens(parts: ModelParts, embeddings: Tensor) -> Tensor:
    """Prompt tokens (P, T, C) of centred unit embeddings (P, D)."""
    _, pathway = parts.require_text()
    return torch.as_tensor(pathway(embeddings))


@torch.no_grad()
def map_logits(photo: EncodedPhoto, embeddings: Tensor) -> Tensor:
    """Maps (P, h8, w8) of log odds of centred unit embeddings (P, D), on the CPU.

    They are in the padded frame `photo.text_frame`.
    """
    _, pathway = photo.parts.require_text()
    features = photo.text_features.expand(len(embeddings), -1, -1, -1)
    assert pathway.dense is not None
    return pathway.dense.logits(features, embeddings).float().cpu()


def text_map(photo: EncodedPhoto, phrase: str) -> NDArray[np.float32]:
    """Probability of a phrase at each pixel, (H, W) float32.

    Raises:
        WeightsError: The model's pathway has no dense head.
    """
    maps = map_logits(photo, embed_phrases(photo.parts, [phrase]))
    return to_original_frame(maps, photo.text_frame)[0].sigmoid().numpy()


def phrase_mask_prompt(photo: EncodedPhoto, embeddings: Tensor) -> Tensor:
    """The maps of embeddings (P, D) as mask prompts (P, 1, m, m)."""
    return to_mask_prompts(photo, map_logits(photo, embeddings))


def to_mask_prompts(photo: EncodedPhoto, maps: Tensor) -> Tensor:
    """Maps (P, h, w) on the grid of mask prompts, (P, 1, m, m)."""
    # Both frames pad the same square, whatever their size, so a resize is all it takes.
    size = photo.parts.sam.config.mask_size
    return F.interpolate(maps[:, None], (size, size), mode="bilinear", align_corners=False)
