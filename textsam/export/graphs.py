"""The networks of a model as graphs with tensors in and out, ready for `torch.onnx.export`.

The decoder takes and gives what the released code's ONNX decoder does, under its names. Whatever
else a decoder reads of a photo (maps at finer strides, features of SAM-HQ) is packed into the
channels of `image_embeddings`, so that a client which knows the official names need not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textsam.clip.encoder import ClipEncoder
from textsam.clip.pathway import TextPathway
from textsam.modeling.image_encoder import ImageFeatures
from textsam.modeling.sam import Sam

__all__ = [
    "DecoderGraph",
    "EncoderGraph",
    "PackedMap",
    "TextDecoderGraph",
    "TextGraph",
    "TextMapGraph",
    "pack_features",
    "packed_maps",
    "unpack_features",
]


@dataclass(frozen=True, kw_only=True)
class PackedMap:
    """Channels of `image_embeddings` that hold one map of a finer grid."""

    channels: int  # of the map itself
    factor: (
        int  # its side is factor x s; it takes channels x factor^2 channels of the packed tensor
    )

    @property
    def packed(self) -> int:
        """Channels that it takes."""
        return self.channels * self.factor**2


def packed_maps(sam: Sam) -> tuple[PackedMap, ...]:
    """What follows the embedding in `image_embeddings`: the skips, then the detail of SAM-HQ."""
    dim = sam.config.embed_dim
    maps = []
    if len(getattr(sam.image_encoder, "skips", ())):
        maps = [PackedMap(channels=dim // 4, factor=2), PackedMap(channels=dim // 8, factor=4)]
    if sam.mask_decoder.hq is not None:
        maps.append(PackedMap(channels=dim // 8, factor=4))
    return tuple(maps)


def pack_features(features: ImageFeatures) -> Tensor:
    """The embedding with finer maps as further channels: (B, C', s, s)."""
    size = features.embedding.shape[-1]
    finer = [*features.skips, *([] if features.detail is None else [features.detail])]
    folded = [F.pixel_unshuffle(x, x.shape[-1] // size) for x in finer]
    return torch.cat([features.embedding, *folded], dim=1) if folded else features.embedding


def unpack_features(packed: Tensor, sam: Sam) -> ImageFeatures:
    """The inverse of `pack_features`."""
    maps = packed_maps(sam)
    embedding, *folded = torch.split(
        packed, [sam.config.embed_dim, *(each.packed for each in maps)], dim=1
    )
    finer = [F.pixel_shuffle(x, each.factor) for x, each in zip(folded, maps, strict=True)]
    detail = finer.pop() if sam.mask_decoder.hq is not None else None
    return ImageFeatures(embedding=embedding, skips=tuple(finer), detail=detail)


class EncoderGraph(nn.Module):
    """`pixel_values` -> `image_embeddings`, and `text_features` for a dense head."""

    def __init__(self, sam: Sam, pathway: TextPathway | None) -> None:
        """With a pathway whose dense head reads the maps of this SAM, or with None."""
        super().__init__()
        self.sam = sam
        self.dense = None if pathway is None else pathway.dense

    def forward(self, pixel_values: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Normalised, padded pixels (1, 3, S, S) -> (1, C', s, s), and (1, D, h8, w8)."""
        features = self.sam.encode_image(pixel_values)
        packed = pack_features(features)
        if self.dense is None:
            return packed
        return packed, self.dense.features(features.pyramid)


class DecoderGraph(nn.Module):
    """The official decoder up to its low-resolution masks; P prompts of N points on one photo."""

    positions: Tensor

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.sam = sam
        with torch.no_grad():
            # The same for every photo and prompt, so that it becomes a constant of the graph.
            self.register_buffer("positions", sam.prompt_encoder.dense_positions())

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Decode.

        Args:
            image_embeddings: (1, C', s, s) of `EncoderGraph`.
            point_coords: (P, N, 2) x, y in model pixels; the corners of a box are two points.
            point_labels: (P, N) float: 1 foreground, 0 background, 2 and 3 first and last corner of
                a box, -1 padding, which a prompt without a box ends in.
            mask_input: (P, 1, 4s, 4s) logits of a mask prompt; anything where there is none.
            has_mask_input: (1,) 1.0 if there are mask prompts, else 0.0.

        Returns:
            `iou_predictions` (P, 4) and `low_res_masks` (P, 4, 4s, 4s).
        """
        sparse = self._points(point_coords, point_labels)
        dense = self._masks(mask_input, has_mask_input)
        return self._decode(image_embeddings, sparse, dense)

    def _points(self, coords: Tensor, labels: Tensor) -> Tensor:
        return self.sam.prompt_encoder._embed_points(coords, labels.to(torch.int64))

    def _masks(self, masks: Tensor, has: Tensor) -> Tensor:
        encoder = self.sam.prompt_encoder
        empty = encoder.no_mask.weight[0][None, :, None, None]
        return torch.as_tensor(has * encoder.mask_downscaling(masks) + (1 - has) * empty)

    def _decode(self, packed: Tensor, sparse: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        # As `MaskDecoder.forward`, but with shapes that stay symbols: `len` would fix them.
        features, decoder = unpack_features(packed, self.sam), self.sam.mask_decoder
        count, size = sparse.shape[0], packed.shape[-1]
        outputs = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        if decoder.hq is not None:
            outputs = torch.cat([outputs, decoder.hq.token.weight])
        tokens = torch.cat([outputs.expand(count, -1, -1), sparse], dim=1)
        image = (features.embedding + dense).flatten(2).transpose(1, 2)
        # A mask prompt may be one for all prompts.
        image = image.expand(count, -1, -1)
        positions = self.positions.flatten(2).transpose(1, 2)
        tokens, image = decoder.transformer(tokens, image, positions, None)
        upscaled = decoder._upscale(
            image.transpose(1, 2).unflatten(2, (size, size)), features.skips
        )
        heads = enumerate(decoder.mask_heads)
        weights = torch.stack([head(tokens[:, 1 + i]) for i, head in heads], dim=1)
        logits = (weights @ upscaled.flatten(2)).unflatten(2, (4 * size, 4 * size))
        if decoder.hq is not None:
            assert features.detail is not None
            last = tokens[:, outputs.shape[0] - 1]
            logits = logits + decoder.hq(last, upscaled, features.detail)
        return decoder.iou_head(tokens[:, 0]), logits


class TextDecoderGraph(DecoderGraph):
    """The same with a phrase: its embedding as prompt tokens, its map as mask prompt."""

    def __init__(self, sam: Sam, pathway: TextPathway) -> None:
        super().__init__(sam)
        self.pathway = pathway

    def forward(  # type: ignore[override]
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
        text_embedding: Tensor,
        text_map: Tensor | None = None,
        has_text_map: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode; see `DecoderGraph.forward` for the other arguments and the result.

        Args:
            image_embeddings: (1, C', s, s).
            point_coords: (P, N, 2).
            point_labels: (P, N).
            mask_input: (P, 1, 4s, 4s); it takes the place of the phrase's map.
            has_mask_input: (1,).
            text_embedding: (1, D) of `TextGraph`.
            text_map: (1, 1, h8, w8) of `TextMapGraph`, for models with a dense text head.
            has_text_map: (1,) 1.0 if the map is a mask prompt, else 0.0.
        """
        points = self._points(point_coords, point_labels)
        tokens = self.pathway(text_embedding).expand(points.shape[0], -1, -1)
        sparse = torch.cat([points, tokens], dim=1)
        if text_map is None or has_text_map is None:
            return self._decode(image_embeddings, sparse, self._masks(mask_input, has_mask_input))
        side = 4 * image_embeddings.shape[-1]
        grid = F.interpolate(text_map, (side, side), mode="bilinear", align_corners=False)
        mask = has_mask_input * mask_input + (1 - has_mask_input) * grid
        has = torch.maximum(has_mask_input, has_text_map)
        return self._decode(image_embeddings, sparse, self._masks(mask, has))


class TextGraph(nn.Module):
    """CLIP's text tower: `input_ids` (P x T, L) int64 -> `text_embedding` (P, D).

    T is the number of templates, whose embeddings are averaged: the rows of a phrase follow each
    other. Embeddings are of unit length, and centred for the pathway.
    """

    mean: Tensor

    def __init__(self, clip: ClipEncoder, pathway: TextPathway) -> None:
        super().__init__()
        self.model: Any = clip.model
        self.templates = len(clip.templates)
        self.register_buffer("mean", pathway.text_mean.clone())

    def forward(self, input_ids: Tensor) -> Tensor:
        """Embed; see the class."""
        rows = F.normalize(self.model.encode_text(input_ids, normalize=False), dim=-1)
        if self.templates > 1:
            rows = F.normalize(rows.unflatten(0, (-1, self.templates)).mean(1), dim=-1)
        return F.normalize(rows - self.mean, dim=-1)


class TextMapGraph(nn.Module):
    """`text_features` and `text_embedding` -> `text_map`, log odds of each phrase and place."""

    def __init__(self, pathway: TextPathway) -> None:
        super().__init__()
        if pathway.dense is None:
            raise ValueError("the pathway has no dense head, so phrases give no map")
        scale = float(pathway.dense.log_scale.detach().exp())
        self.scale, self.bias = scale, float(pathway.dense.bias.detach())

    def forward(self, text_features: Tensor, text_embedding: Tensor) -> Tensor:
        """Features (1, D, h8, w8) and embeddings (P, D) -> (P, h8, w8): one product."""
        cosine = text_embedding @ text_features[0].flatten(1)
        logits = cosine * self.scale + self.bias
        return torch.unflatten(logits, 1, text_features.shape[-2:])
