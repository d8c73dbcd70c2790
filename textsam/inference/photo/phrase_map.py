"""What a phrase is to a model: embeddings, prompt tokens, and a map over the photo.

The map is the pathway's dense text head (`textsam.clip.pathway`): for each place of the photo the
log odds that the phrase is there. Its features are computed once per view; a phrase costs a product
with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from textsam.clip.pathway import tower_maps
from textsam.errors import WeightsError
from textsam.modeling.timm_encoder import TimmEncoder
from textsam.values.geometry import Frame
from textsam.values.resizing import resize_image

if TYPE_CHECKING:
    from textsam.clip.encoder import ClipEncoder
    from textsam.clip.pathway import TextPathway
    from textsam.inference.model import TextSAM
    from textsam.inference.photo.encoded import EncodedPhoto

__all__ = [
    "dense_frame",
    "dense_logits",
    "dense_prompt",
    "embed_phrases",
    "encode_dense",
    "map_logits",
    "phrase_tokens",
    "require_clip",
    "require_text",
    "to_mask_prompts",
]


def embed_phrases(model: TextSAM, phrases: Sequence[str]) -> Tensor:
    """Unit embeddings (P, D) of phrases, centred as the pathway wants them."""
    clip, pathway = require_text(model)
    return pathway.centre(clip.encode_text(list(phrases)).to(model.device), "text")


def phrase_tokens(model: TextSAM, phrases: Sequence[str]) -> Tensor:
    """Prompt tokens (P, T, C) of phrases."""
    _, pathway = require_text(model)
    with torch.no_grad():
        return torch.as_tensor(pathway(embed_phrases(model, phrases)))


def dense_frame(view: EncodedPhoto) -> Frame:
    """Frame of the dense map, which need not be the SAM's."""
    _, pathway = require_text(view.model)
    height, width = view.size
    return Frame(height=height, width=width, image_size=pathway.config.dense_image_size)


@torch.no_grad()
def encode_dense(view: EncodedPhoto) -> Tensor:
    """Text-aligned features (1, D, h8, w8) of the view's photo."""
    clip, pathway = require_text(view.model)
    if pathway.dense is None:
        raise WeightsError("the text pathway of this model has no dense head, so it has no map")
    frame, sam = dense_frame(view), view.model.sam
    by_sam = pathway.config.dense_source == "sam"
    if by_sam and frame == view.frame:
        return pathway.dense.features(view.features.pyramid)
    photo = torch.from_numpy(resize_image(view.image, frame.resized)).permute(2, 0, 1)[None]
    photo = photo.to(view.model.device)
    pixels = (photo - sam.pixel_mean) / sam.pixel_std if by_sam else clip.normalize(photo)
    bottom, right = frame.padding
    pixels = F.pad(pixels, (0, right, 0, bottom))
    if by_sam:
        return pathway.dense.features(_timm_encoder(view.model).pyramid(pixels))
    maps = tower_maps(clip.model.visual, pixels, strides=pathway.config.dense_strides)
    return pathway.dense.features(maps)


@torch.no_grad()
def map_logits(view: EncodedPhoto, embeddings: Tensor) -> Tensor:
    """Maps of logits (P, h8, w8) of centred unit embeddings (P, D), on the CPU.

    In the padded frame of the dense head, see `dense_frame`.
    """
    _, pathway = require_text(view.model)
    features = view.text_features().expand(len(embeddings), -1, -1, -1)
    assert pathway.dense is not None
    return pathway.dense.logits(features, embeddings).float().cpu()


def dense_logits(view: EncodedPhoto, phrases: Sequence[str]) -> Tensor:
    """`map_logits` of phrases."""
    return map_logits(view, embed_phrases(view.model, phrases))


def dense_prompt(view: EncodedPhoto, phrases: Sequence[str]) -> Tensor:
    """The maps as mask prompts (P, 1, m, m); both frames pad the same square."""
    return to_mask_prompts(view, dense_logits(view, phrases))


def to_mask_prompts(view: EncodedPhoto, maps: Tensor) -> Tensor:
    """Maps (P, h, w) on the grid of mask prompts, (P, 1, m, m)."""
    size = view.model.sam.config.mask_size
    return F.interpolate(maps[:, None], (size, size), mode="bilinear", align_corners=False)


def require_clip(model: TextSAM) -> ClipEncoder:
    """The model's CLIP.

    Raises:
        WeightsError: It has none.
    """
    if model.clip is None:
        raise WeightsError(
            f"{model.name} cannot be asked by text: it has no CLIP. Ask with points, a box or a "
            'mask, or give it one: TextSAM.from_pretrained(..., clip="ViT-L-14-336/openai"); '
            'TextSAM.from_pretrained("tiny") brings its own'
        )
    return model.clip


def require_text(model: TextSAM) -> tuple[ClipEncoder, TextPathway]:
    """The model's CLIP and text pathway.

    Raises:
        WeightsError: It lacks one of them.
    """
    clip = require_clip(model)
    if model.pathway is None:
        raise WeightsError(
            f"{model.name} has no trained text pathway, so a phrase cannot be its prompt. Type "
            'strategy="rank", which needs none; or from_pretrained(..., '
            'pathway="pathway.safetensors"); to train one: python -m training.train text_pathway'
        )
    return clip, model.pathway


def _timm_encoder(model: TextSAM) -> TimmEncoder:
    encoder = model.sam.image_encoder
    if not isinstance(encoder, TimmEncoder):
        raise WeightsError(
            f"the text pathway's dense head reads a timm backbone's maps, and {model.name} has a "
            f"{type(encoder).__name__}: it was trained for another SAM"
        )
    return encoder
