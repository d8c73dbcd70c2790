"""Segment Anything's own checkpoints (`sam_vit_b_01ec64.pth` and its sisters) <-> our weights.

The released names are those of github.com/facebookresearch/segment-anything (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from textsam.modeling.config import SamConfig
from textsam.weights.key_map import KeyMap
from textsam.weights.strict import export_state, import_state

__all__ = ["DECODER_PAIRS", "NECK_PAIRS", "STACKED", "from_official", "to_official"]

_BLOCKS, _LAYERS = "mask_decoder.transformer.blocks.#", "mask_decoder.transformer.layers.#"

# Prompt encoder and mask decoder; MobileSAM kept these names.
DECODER_PAIRS = (
    (
        "prompt_encoder.position_matrix",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    ("prompt_encoder.not_a_point", "prompt_encoder.not_a_point_embed"),
    ("prompt_encoder.no_mask", "prompt_encoder.no_mask_embed"),
    ("prompt_encoder.mask_downscaling", "prompt_encoder.mask_downscaling"),
    (f"{_BLOCKS}.self_attention", f"{_LAYERS}.self_attn"),
    (f"{_BLOCKS}.token_to_image", f"{_LAYERS}.cross_attn_token_to_image"),
    (f"{_BLOCKS}.image_to_token", f"{_LAYERS}.cross_attn_image_to_token"),
    (f"{_BLOCKS}.mlp.0", f"{_LAYERS}.mlp.lin1"),
    (f"{_BLOCKS}.mlp.2", f"{_LAYERS}.mlp.lin2"),
    (f"{_BLOCKS}.norms.0", f"{_LAYERS}.norm1"),
    (f"{_BLOCKS}.norms.1", f"{_LAYERS}.norm2"),
    (f"{_BLOCKS}.norms.2", f"{_LAYERS}.norm3"),
    (f"{_BLOCKS}.norms.3", f"{_LAYERS}.norm4"),
    (
        "mask_decoder.transformer.final_attention",
        "mask_decoder.transformer.final_attn_token_to_image",
    ),
    ("mask_decoder.transformer.final_norm", "mask_decoder.transformer.norm_final_attn"),
    ("mask_decoder.iou_token", "mask_decoder.iou_token"),
    ("mask_decoder.mask_tokens", "mask_decoder.mask_tokens"),
    ("mask_decoder.upscale_1", "mask_decoder.output_upscaling.0"),
    ("mask_decoder.upscale_norm", "mask_decoder.output_upscaling.1"),
    ("mask_decoder.upscale_2", "mask_decoder.output_upscaling.3"),
    ("mask_decoder.mask_heads.#", "mask_decoder.output_hypernetworks_mlps.#"),
    ("mask_decoder.iou_head", "mask_decoder.iou_prediction_head"),
)
STACKED = (
    ("prompt_encoder.point_embeddings.weight", "prompt_encoder.point_embeddings.#.weight", 4),
)
NECK_PAIRS = tuple((f"image_encoder.neck.{i}",) * 2 for i in range(4))

_OFFICIAL = KeyMap(
    "segment-anything",
    (
        *DECODER_PAIRS,
        *NECK_PAIRS,
        ("image_encoder.patch_embed", "image_encoder.patch_embed.proj"),
        ("image_encoder.position_embedding", "image_encoder.pos_embed"),
        ("image_encoder.blocks.#.norm1", "image_encoder.blocks.#.norm1"),
        ("image_encoder.blocks.#.attention.qkv", "image_encoder.blocks.#.attn.qkv"),
        ("image_encoder.blocks.#.attention.proj", "image_encoder.blocks.#.attn.proj"),
        ("image_encoder.blocks.#.attention.relative_rows", "image_encoder.blocks.#.attn.rel_pos_h"),
        (
            "image_encoder.blocks.#.attention.relative_columns",
            "image_encoder.blocks.#.attn.rel_pos_w",
        ),
        ("image_encoder.blocks.#.norm2", "image_encoder.blocks.#.norm2"),
        ("image_encoder.blocks.#.mlp.0", "image_encoder.blocks.#.mlp.lin1"),
        ("image_encoder.blocks.#.mlp.2", "image_encoder.blocks.#.mlp.lin2"),
    ),
    stacked=STACKED,
)


def from_official(
    state: Mapping[str, Tensor], config: SamConfig | None = None
) -> dict[str, Tensor]:
    """Translate the state dict of a released SAM (ViT-B, L or H, or any other size).

    Args:
        state: `segment_anything`'s `Sam.state_dict()`.
        config: Sizes that the weights must have; read off their shapes if not given.

    Returns:
        The weights under our names, for `Sam(config).load_state_dict`.

    Raises:
        WeightsError: A key is missing or unexpected, or a shape does not fit; it is named.
    """
    return import_state(state, _OFFICIAL, config)


def to_official(state: Mapping[str, Tensor], config: SamConfig | None = None) -> dict[str, Tensor]:
    """Translate our weights to a state dict that `segment_anything` loads strictly.

    Args:
        state: `Sam.state_dict()` of ours, with a ViT image encoder.
        config: Sizes that the weights must have; read off their shapes if not given.

    Raises:
        WeightsError: The weights are incomplete or have no counterpart there; they are named.
    """
    return export_state(state, _OFFICIAL, config)
