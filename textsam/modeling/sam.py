"""The pipeline on one page: image -> encoder -> prompts -> decoder -> masks.

Segment Anything (arXiv 2304.02643, Section 3), trainable and batched: P prompts refer to B images
by index, so images of one batch may have different sizes and different numbers of prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textsam.modeling.config import SamConfig, TimmConfig, TinyViTConfig
from textsam.modeling.image_encoder import (
    ImageEncoderViT,
    ImageFeatures,
    TimmEncoder,
    normalise,
)
from textsam.modeling.mask_decoder import MaskDecoder, MaskPrediction, PromptBatch, PromptEncoder
from textsam.modeling.prepared_decoder import (
    DecodedPrompts,
    PreparedImage,
    ProjectedPositions,
    decode_tokens,
    group_size,
    masks_of,
)
from textsam.modeling.tiny_vit import TinyViT

__all__ = ["Sam"]


class Sam(nn.Module):
    """Image encoder, prompt encoder and mask decoder."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = _build_encoder(config)
        self.prompt_encoder = PromptEncoder(config)
        self.mask_decoder = MaskDecoder(config)
        mean, std = torch.tensor(config.pixel_mean), torch.tensor(config.pixel_std)
        self.register_buffer("pixel_mean", mean[:, None, None], persistent=False)
        self.register_buffer("pixel_std", std[:, None, None], persistent=False)
        self._positions: tuple[Any, ProjectedPositions] | None = None

    def forward(self, pixels: Tensor, prompts: PromptBatch) -> MaskPrediction:
        """Segment: pixels (B, 3, S, S) from `preprocess` and P prompts -> P x 4 masks."""
        return self.decode(self.encode_image(pixels), prompts)

    def preprocess(self, images: Sequence[Tensor]) -> Tensor:
        """Normalise resized images and pad them to the square model frame, with zeros.

        B tensors (3, h, w), RGB in 0..255, long side = `image_size` -> (B, 3, S, S) float.
        """
        side = self.config.image_size
        return normalise(images, side=side, mean=self.pixel_mean, std=self.pixel_std)

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """Encode (B, 3, S, S) once; any number of `decode` calls may follow."""
        features = self.image_encoder(pixels)
        assert isinstance(features, ImageFeatures)
        if self.mask_decoder.hq is None:
            return features
        # Once per photo, not for each prompt: neither input depends on the prompts.
        detail = self.mask_decoder.hq.fuse(features.embedding, features.pyramid[0])
        return replace(features, pyramid=(), detail=detail)

    def decode(self, features: ImageFeatures, prompts: PromptBatch) -> MaskPrediction:
        """Decode P prompts, each on the image that its index names."""
        encoded = self.prompt_encoder(prompts)
        per_prompt = features.of_prompts(prompts.image_index)
        prediction = self.mask_decoder(
            per_prompt.embedding,
            encoded,
            self.prompt_encoder.dense_positions(),
            per_prompt.skips,
            per_prompt.detail,
        )
        assert isinstance(prediction, MaskPrediction)
        return prediction

    def prepare(self, features: ImageFeatures) -> PreparedImage:
        """Compute what decoding one image needs and no prompt changes; for inference."""
        return PreparedImage.of(
            self.mask_decoder,
            features,
            positions=self._projected_positions(),
            no_mask=self.prompt_encoder.no_mask.weight[0],
        )

    def decode_in_groups(
        self, image: PreparedImage, prompts: PromptBatch
    ) -> Iterator[DecodedPrompts]:
        """Decode P prompts of one prepared image, some at a time, up to predicted IoU.

        `masks_of` makes those of their masks that are wanted.
        """
        group = group_size(image)
        for start in range(0, max(1, len(prompts)), group):
            part = prompts[start : start + group]
            encoded = self.prompt_encoder(part)
            has_masks = part.masks is not None
            yield decode_tokens(self.mask_decoder, image, encoded, has_masks=has_masks)

    def decode_prepared(self, image: PreparedImage, prompts: PromptBatch) -> MaskPrediction:
        """As `decode`, up to rounding, for P prompts of one prepared image; faster."""
        parts = list(
            (masks_of(self.mask_decoder, image, part, part.weights), part.iou)
            for part in self.decode_in_groups(image, prompts)
        )
        logits, iou = zip(*parts, strict=True)
        return MaskPrediction(logits=torch.cat(logits), iou=torch.cat(iou))

    def _projected_positions(self) -> ProjectedPositions:
        """Of the weights as they are now; they are the same for all images."""
        transformer = self.mask_decoder.transformer
        weights = [*transformer.parameters(), self.prompt_encoder.position_matrix]
        # Changes in place count up the version, a move or a cast makes new memory.
        state = tuple((x.data_ptr(), x._version, x.dtype) for x in weights)
        if self._positions is None or self._positions[0] != state:
            positions = self.prompt_encoder.dense_positions()
            projected = ProjectedPositions.of(self.mask_decoder, positions)
            self._positions = (state, projected)
        return self._positions[1]

    def to_model_frame(self, logits: Tensor) -> Tensor:
        """Upscale logits (P, K, 4s, 4s) to the padded model frame (P, K, S, S), bilinear."""
        side = self.config.image_size
        return F.interpolate(logits, (side, side), mode="bilinear", align_corners=False)


def _build_encoder(config: SamConfig) -> nn.Module:
    if isinstance(config.encoder, TimmConfig):
        return TimmEncoder(config)
    if isinstance(config.encoder, TinyViTConfig):
        return TinyViT(config)
    return ImageEncoderViT(config)
