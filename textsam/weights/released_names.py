"""Names of weights in released checkpoints <-> ours, strict and in both directions.

| project (all Apache-2.0) | checkpoint | functions |
|---|---|---|
| segment-anything | `sam_vit_b_01ec64.pth`, ViT-B, L, H | `from_official`, `to_official` |
| MobileSAM | `mobile_sam.pt`, TinyViT | `from_mobile_sam`, `to_mobile_sam` |
| transformers | a `SamModel` | `from_huggingface`, `to_huggingface` |
| SAM-HQ | `sam_hq_vit_b.pth`, L, H, tiny; a `SamHQModel` | as the kind it extends |

All functions take a state dict and, optionally, the sizes that it must have; these are otherwise
read off the shapes. They raise a `WeightsError` that names the weights if one is missing,
unexpected or of another shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from textsam.errors import WeightsError
from textsam.modeling.config import SamConfig
from textsam.weights.strict import KeyMap, export_state, import_state

Tensors = Mapping[str, Tensor]
Table = dict[tuple[str, ...], str]

_BLOCKS, _LAYERS = "mask_decoder.transformer.blocks.#", "mask_decoder.transformer.layers.#"

# Columns: ours, segment-anything, transformers. `#` stands for an index, and a row names a module
# with everything in it. MobileSAM has segment-anything's names outside the image encoder.
_VIT: Table = {
    ("image_encoder", "image_encoder", "vision_encoder"): """
        patch_embed           patch_embed.proj  patch_embed.projection
        position_embedding    pos_embed         pos_embed
    """,
    ("image_encoder.blocks.#", "image_encoder.blocks.#", "vision_encoder.layers.#"): """
        norm1                       norm1           layer_norm1
        attention.qkv               attn.qkv        attn.qkv
        attention.proj              attn.proj       attn.proj
        attention.relative_rows     attn.rel_pos_h  attn.rel_pos_h
        attention.relative_columns  attn.rel_pos_w  attn.rel_pos_w
        norm2                       norm2           layer_norm2
        mlp.0                       mlp.lin1        mlp.lin1
        mlp.2                       mlp.lin2        mlp.lin2
    """,
}
_SHARED: Table = {
    ("image_encoder.neck", "image_encoder.neck", "vision_encoder.neck"): """
        0  0  conv1
        1  1  layer_norm1
        2  2  conv2
        3  3  layer_norm2
    """,
    ("prompt_encoder",) * 3: """
        not_a_point         not_a_point_embed    not_a_point_embed
        no_mask             no_mask_embed        no_mask_embed
        mask_downscaling.0  mask_downscaling.0   mask_embed.conv1
        mask_downscaling.1  mask_downscaling.1   mask_embed.layer_norm1
        mask_downscaling.3  mask_downscaling.3   mask_embed.conv2
        mask_downscaling.4  mask_downscaling.4   mask_embed.layer_norm2
        mask_downscaling.6  mask_downscaling.6   mask_embed.conv3
    """,
    (_BLOCKS, _LAYERS, _LAYERS): """
        self_attention  self_attn                  self_attn
        token_to_image  cross_attn_token_to_image  cross_attn_token_to_image
        image_to_token  cross_attn_image_to_token  cross_attn_image_to_token
        mlp.0           mlp.lin1                   mlp.lin1
        mlp.2           mlp.lin2                   mlp.lin2
        norms.0         norm1                      layer_norm1
        norms.1         norm2                      layer_norm2
        norms.2         norm3                      layer_norm3
        norms.3         norm4                      layer_norm4
    """,
    ("mask_decoder",) * 3: """
        iou_token     iou_token           iou_token
        mask_tokens   mask_tokens         mask_tokens
        upscale_1     output_upscaling.0  upscale_conv1
        upscale_norm  output_upscaling.1  upscale_layer_norm
        upscale_2     output_upscaling.3  upscale_conv2
    """,
    ("mask_decoder.hq", "mask_decoder", "mask_decoder"): """
        token              hf_token                hq_token
        early_upscaling.0  compress_vit_feat.0     compress_vit_conv1
        early_upscaling.1  compress_vit_feat.1     compress_vit_norm
        early_upscaling.3  compress_vit_feat.3     compress_vit_conv2
        final_upscaling.0  embedding_encoder.0     encoder_conv1
        final_upscaling.1  embedding_encoder.1     encoder_norm
        final_upscaling.3  embedding_encoder.3     encoder_conv2
        mask_features.0    embedding_maskfeature.0  mask_conv1
        mask_features.1    embedding_maskfeature.1  mask_norm
        mask_features.3    embedding_maskfeature.3  mask_conv2
    """,
    ("mask_decoder.transformer",) * 3: """
        final_attention  final_attn_token_to_image  final_attn_token_to_image
        final_norm       norm_final_attn            layer_norm_final_attn
    """,
}
# Columns: ours, MobileSAM.
_TINY_VIT: Table = {
    ("image_encoder.stages.#", "image_encoder.layers.#"): """
        blocks.#.attention.norm    blocks.#.attn.norm
        blocks.#.attention.qkv     blocks.#.attn.qkv
        blocks.#.attention.proj    blocks.#.attn.proj
        blocks.#.attention.biases  blocks.#.attn.attention_biases
        blocks.#.mlp.0             blocks.#.mlp.norm
        blocks.#.mlp.1             blocks.#.mlp.fc1
        blocks.#.mlp.3             blocks.#.mlp.fc2
    """,
}
# Pairs of a convolution and its batch norm, `.conv` and `.norm` in ours, `.c` and `.bn` in theirs.
_TINY_VIT_CONV_NORMS: Table = {
    ("image_encoder", "image_encoder"): """
        stem.0                             patch_embed.seq.0
        stem.2                             patch_embed.seq.2
        stages.#.blocks.#.expand           layers.#.blocks.#.conv1
        stages.#.blocks.#.depthwise        layers.#.blocks.#.conv2
        stages.#.blocks.#.project          layers.#.blocks.#.conv3
        stages.#.blocks.#.local_conv       layers.#.blocks.#.local_conv
        stages.#.merge.expand              layers.#.downsample.conv1
        stages.#.merge.depthwise           layers.#.downsample.conv2
        stages.#.merge.project             layers.#.downsample.conv3
    """,
}
_POSITIONS = "prompt_encoder.position_matrix"
_HEADS, _HYPERNETWORKS = "mask_decoder.mask_heads.#", "mask_decoder.output_hypernetworks_mlps.#"
_IOU, _IOU_THEIRS = "mask_decoder.iou_head", "mask_decoder.iou_prediction_head"
_HQ = "mask_decoder.hq.head"

# transformers ties these two names of one matrix; old files contain both.
_HF_POSITIONS = "shared_image_embedding.positional_embedding"
_HF_POSITIONS_TIED = "prompt_encoder.shared_embedding.positional_embedding"

# MobileSAM's encoder carries an ImageNet classifier that no forward pass reads. Ours has none, so
# these four tensors are the only ones that a round trip does not preserve.
_CLASSIFIER = ("norm_head.weight", "norm_head.bias", "head.weight", "head.bias")
_IMAGENET_CLASSES = 1000


def _pairs(table: Table, column: int) -> Iterator[tuple[str, str]]:
    for prefixes, rows in table.items():
        for row in rows.strip().splitlines():
            names = row.split()
            yield f"{prefixes[0]}.{names[0]}", f"{prefixes[column]}.{names[column]}"


def _stacked(theirs: str) -> tuple[tuple[str, str, int], ...]:
    """Our one tensor of point embeddings is four tensors there."""
    return (("prompt_encoder.point_embeddings.weight", f"prompt_encoder.{theirs}.#.weight", 4),)


_SHARED_PAIRS = (
    *_pairs(_SHARED, 1),
    (_POSITIONS, "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    (_HEADS, _HYPERNETWORKS),
    (_IOU, _IOU_THEIRS),
    (_HQ, "mask_decoder.hf_mlp"),
)
_OFFICIAL = KeyMap(
    "segment-anything", (*_pairs(_VIT, 1), *_SHARED_PAIRS), stacked=_stacked("point_embeddings")
)
_MOBILE_SAM = KeyMap(
    "MobileSAM",
    (
        *_SHARED_PAIRS,
        *_pairs(_TINY_VIT, 1),
        *((f"{a}.conv", f"{b}.c") for a, b in _pairs(_TINY_VIT_CONV_NORMS, 1)),
        *((f"{a}.norm", f"{b}.bn") for a, b in _pairs(_TINY_VIT_CONV_NORMS, 1)),
    ),
    stacked=_stacked("point_embeddings"),
)


def _huggingface(iou_depth: int) -> KeyMap:
    return KeyMap(
        "transformers SamModel",
        (
            *_pairs(_VIT, 2),
            *_pairs(_SHARED, 2),
            (_POSITIONS, _HF_POSITIONS),
            *_mlp_pairs(_HEADS, _HYPERNETWORKS, 3),
            *_mlp_pairs(_IOU, _IOU_THEIRS, iou_depth),
            *_mlp_pairs(_HQ, "mask_decoder.hq_mask_mlp", 3),
        ),
        stacked=_stacked("point_embed"),
    )


def _mlp_pairs(ours: str, theirs: str, depth: int) -> Iterator[tuple[str, str]]:
    # transformers names the first and the last layer of an MLP and counts the others from 0.
    layers = ["proj_in", *(f"layers.{index}" for index in range(depth - 2)), "proj_out"]
    for index, name in enumerate(layers):
        yield f"{ours}.layers.{index}", f"{theirs}.{name}"


def _count_layers(state: Tensors, pattern: str) -> int:
    return len({match[1] for match in (re.match(pattern, key) for key in state) if match})


def from_official(state: Tensors, config: SamConfig | None = None) -> dict[str, Tensor]:
    """Translate `segment_anything`'s `Sam.state_dict()` for `Sam(config).load_state_dict`."""
    return import_state(state, _OFFICIAL, config)


def to_official(state: Tensors, config: SamConfig | None = None) -> dict[str, Tensor]:
    """Translate weights with a ViT encoder so that `segment_anything` loads them strictly."""
    return export_state(state, _OFFICIAL, config)


def from_mobile_sam(state: Tensors, config: SamConfig | None = None) -> dict[str, Tensor]:
    """Translate `mobile_sam`'s `Sam.state_dict()` of `vit_t`, without its unused classifier."""
    unused = {f"image_encoder.{name}" for name in _CLASSIFIER}
    used = {key: tensor for key, tensor in state.items() if key not in unused}
    return import_state(used, _MOBILE_SAM, config)


def to_mobile_sam(state: Tensors, config: SamConfig | None = None) -> dict[str, Tensor]:
    """Translate weights with a TinyViT encoder so that `mobile_sam` loads them strictly.

    The unused classifier is filled with zeros.
    """
    renamed = export_state(state, _MOBILE_SAM, config)
    neck = state["image_encoder.neck.0.weight"]
    width = neck.shape[1]
    shapes = ((width,), (width,), (_IMAGENET_CLASSES, width), (_IMAGENET_CLASSES,))
    for name, shape in zip(_CLASSIFIER, shapes, strict=True):
        renamed[f"image_encoder.{name}"] = torch.zeros(shape, dtype=neck.dtype)
    return renamed


def from_huggingface(state: Tensors, config: SamConfig | None = None) -> dict[str, Tensor]:
    """Translate `SamModel.state_dict()`, or what its `save_pretrained` wrote."""
    state = dict(state)
    tied = state.pop(_HF_POSITIONS_TIED, None)
    if tied is not None and not torch.equal(tied, state.setdefault(_HF_POSITIONS, tied)):
        raise WeightsError(
            f"{_HF_POSITIONS_TIED} and {_HF_POSITIONS} should be one matrix, but differ"
        )
    inner = _count_layers(state, r"mask_decoder\.iou_prediction_head\.layers\.(\d+)\.")
    return import_state(state, _huggingface(inner + 2), config)


def to_huggingface(state: Tensors, config: SamConfig | None = None) -> dict[str, Tensor]:
    """Translate weights with a ViT encoder to what `SamModel.save_pretrained` would write."""
    depth = _count_layers(state, r"mask_decoder\.iou_head\.layers\.(\d+)\.")
    return export_state(state, _huggingface(max(depth, 2)), config)
