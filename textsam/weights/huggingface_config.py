"""`config.json` and `preprocessor_config.json` of a transformers `SamModel` <-> `SamConfig`.

Fields that change nothing here are ignored (there are dozens); those that would change the network
in a way that ours cannot follow are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textsam.errors import WeightsError
from textsam.modeling.config import SamConfig, ViTConfig
from textsam.weights.infer import mlp_ratio

__all__ = ["config_from_huggingface", "config_to_huggingface"]

_PARTS = ("vision_config", "prompt_encoder_config", "mask_decoder_config")

# What transformers assumes where a file is silent.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "vision_config": {
        "hidden_size": 768,
        "output_channels": 256,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 1024,
        "patch_size": 16,
        "mlp_ratio": 4.0,
        "mlp_dim": None,
        "window_size": 14,
        "global_attn_indexes": [2, 5, 8, 11],
    },
    "prompt_encoder_config": {"hidden_size": 256, "image_size": 1024, "mask_input_channels": 16},
    "mask_decoder_config": {
        "hidden_size": 256,
        "mlp_dim": 2048,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "attention_downsample_rate": 2,
        "num_multimask_outputs": 3,
        "iou_head_depth": 3,
        "iou_head_hidden_dim": 256,
        "layer_norm_eps": 1e-6,
    },
}
# Our network has no choice here; each is transformers' default, too.
_FIXED: dict[str, dict[str, Any]] = {
    "vision_config": {
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "num_channels": 3,
        "qkv_bias": True,
        "use_abs_pos": True,
        "use_rel_pos": True,
    },
    "prompt_encoder_config": {
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "num_point_embeddings": 4,
        "patch_size": 16,
    },
    "mask_decoder_config": {"hidden_act": "relu"},
}


def config_from_huggingface(
    values: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None
) -> SamConfig:
    """Read the sizes of a `SamModel`.

    Args:
        values: Content of `config.json`.
        preprocessor: Content of `preprocessor_config.json`, for the pixel statistics.

    Raises:
        WeightsError: It is another model, or one that this network cannot follow.
    """
    if values.get("model_type") != "sam":
        raise WeightsError(
            f"config.json says model_type {values.get('model_type')!r}; only 'sam' can be read"
        )
    parts = {part: _read_part(values, part) for part in _PARTS}
    vision, prompt, decoder = (parts[part] for part in _PARTS)
    if not vision["output_channels"] == prompt["hidden_size"] == decoder["hidden_size"]:
        raise WeightsError("vision, prompt encoder and mask decoder differ in their width")
    if vision["image_size"] != prompt["image_size"]:
        raise WeightsError("vision and prompt encoder differ in their image_size")
    statistics: dict[str, Any] = _read_pixel_statistics(preprocessor or {})
    width = vision["hidden_size"]
    hidden = vision["mlp_dim"] or int(width * vision["mlp_ratio"])
    return SamConfig(
        encoder=ViTConfig(
            width=width,
            depth=vision["num_hidden_layers"],
            heads=vision["num_attention_heads"],
            global_attention_indexes=tuple(vision["global_attn_indexes"]),
            window_size=vision["window_size"],
            patch_size=vision["patch_size"],
            mlp_ratio=mlp_ratio(hidden, width),
        ),
        image_size=vision["image_size"],
        embed_dim=decoder["hidden_size"],
        mask_channels=prompt["mask_input_channels"],
        decoder_depth=decoder["num_hidden_layers"],
        decoder_heads=decoder["num_attention_heads"],
        decoder_mlp=decoder["mlp_dim"],
        attention_downsample=decoder["attention_downsample_rate"],
        decoder_norm_eps=decoder["layer_norm_eps"],
        multimasks=decoder["num_multimask_outputs"],
        iou_depth=decoder["iou_head_depth"],
        iou_hidden=decoder["iou_head_hidden_dim"],
        **statistics,
    )


def config_to_huggingface(config: SamConfig) -> dict[str, Any]:
    """Write the sizes as the content of a `config.json`.

    Raises:
        WeightsError: transformers has no such network.
    """
    vit = config.encoder
    if not isinstance(vit, ViTConfig):
        raise WeightsError(f"a SamModel has a ViT image encoder, this one is {vit}")
    if config.first_layer_residual:
        raise WeightsError("a SamModel has no first_layer_residual")
    vision = {
        "hidden_size": vit.width,
        "output_channels": config.embed_dim,
        "num_hidden_layers": vit.depth,
        "num_attention_heads": vit.heads,
        "image_size": config.image_size,
        "patch_size": vit.patch_size,
        "mlp_ratio": vit.mlp_ratio,
        "mlp_dim": int(vit.width * vit.mlp_ratio),
        "window_size": vit.window_size,
        "global_attn_indexes": list(vit.global_attention_indexes),
        "num_pos_feats": config.embed_dim // 2,
    }
    prompt = {
        "hidden_size": config.embed_dim,
        "image_size": config.image_size,
        "image_embedding_size": config.embedding_size,
        "mask_input_channels": config.mask_channels,
    }
    decoder = {
        "hidden_size": config.embed_dim,
        "mlp_dim": config.decoder_mlp,
        "num_hidden_layers": config.decoder_depth,
        "num_attention_heads": config.decoder_heads,
        "attention_downsample_rate": config.attention_downsample,
        "num_multimask_outputs": config.multimasks,
        "iou_head_depth": config.iou_depth,
        "iou_head_hidden_dim": config.iou_hidden,
        "layer_norm_eps": config.decoder_norm_eps,
    }
    sizes: tuple[dict[str, Any], ...] = (vision, prompt, decoder)
    parts = {p: {**_FIXED[p], **values} for p, values in zip(_PARTS, sizes, strict=True)}
    return {"architectures": ["SamModel"], "model_type": "sam", **parts}


def _read_part(values: Mapping[str, Any], part: str) -> dict[str, Any]:
    given = values.get(part) or {}
    for key, wanted in _FIXED[part].items():
        if given.get(key, wanted) != wanted:
            raise WeightsError(f"{part}.{key} is {given[key]!r}; only {wanted!r} can be read")
    return {key: given.get(key, default) for key, default in _DEFAULTS[part].items()}


def _read_pixel_statistics(values: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    """Mean and standard deviation, there of pixels in [0, 1], on our scale of 0..255."""
    scale = 1.0 / values.get("rescale_factor", 1 / 255)
    fields = {"pixel_mean": values.get("image_mean"), "pixel_std": values.get("image_std")}
    # Rounded: 0.485 * 255 is meant to be the released code's 123.675.
    return {
        field: tuple(round(float(value) * scale, 6) for value in triple)
        for field, triple in fields.items()
        if triple is not None
    }
