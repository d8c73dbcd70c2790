"""`SamModel` of Hugging Face transformers (facebook/sam-vit-base and its sisters) <-> our weights.

A folder holds `config.json` and `model.safetensors`, or several shards with an index. The names are
those of transformers (Apache-2.0).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from textsam.errors import WeightsError
from textsam.modeling.config import SamConfig
from textsam.weights.huggingface_config import (
    config_from_huggingface,
    config_to_huggingface,
)
from textsam.weights.key_map import KeyMap, describe_keys
from textsam.weights.strict import export_state, import_state

__all__ = [
    "from_huggingface",
    "read_huggingface",
    "to_huggingface",
    "write_huggingface",
]

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_BLOCKS, _LAYERS = "mask_decoder.transformer.blocks.#", "mask_decoder.transformer.layers.#"

# One matrix under two names, tied in transformers; old files hold both.
_POSITIONS = "shared_image_embedding.positional_embedding"
_POSITIONS_TIED = "prompt_encoder.shared_embedding.positional_embedding"

_PAIRS = (
    ("image_encoder.patch_embed", "vision_encoder.patch_embed.projection"),
    ("image_encoder.position_embedding", "vision_encoder.pos_embed"),
    ("image_encoder.blocks.#.norm1", "vision_encoder.layers.#.layer_norm1"),
    ("image_encoder.blocks.#.attention.qkv", "vision_encoder.layers.#.attn.qkv"),
    ("image_encoder.blocks.#.attention.proj", "vision_encoder.layers.#.attn.proj"),
    ("image_encoder.blocks.#.attention.relative_rows", "vision_encoder.layers.#.attn.rel_pos_h"),
    ("image_encoder.blocks.#.attention.relative_columns", "vision_encoder.layers.#.attn.rel_pos_w"),
    ("image_encoder.blocks.#.norm2", "vision_encoder.layers.#.layer_norm2"),
    ("image_encoder.blocks.#.mlp.0", "vision_encoder.layers.#.mlp.lin1"),
    ("image_encoder.blocks.#.mlp.2", "vision_encoder.layers.#.mlp.lin2"),
    ("image_encoder.neck.0", "vision_encoder.neck.conv1"),
    ("image_encoder.neck.1", "vision_encoder.neck.layer_norm1"),
    ("image_encoder.neck.2", "vision_encoder.neck.conv2"),
    ("image_encoder.neck.3", "vision_encoder.neck.layer_norm2"),
    ("prompt_encoder.position_matrix", _POSITIONS),
    ("prompt_encoder.not_a_point", "prompt_encoder.not_a_point_embed"),
    ("prompt_encoder.no_mask", "prompt_encoder.no_mask_embed"),
    ("prompt_encoder.mask_downscaling.0", "prompt_encoder.mask_embed.conv1"),
    ("prompt_encoder.mask_downscaling.1", "prompt_encoder.mask_embed.layer_norm1"),
    ("prompt_encoder.mask_downscaling.3", "prompt_encoder.mask_embed.conv2"),
    ("prompt_encoder.mask_downscaling.4", "prompt_encoder.mask_embed.layer_norm2"),
    ("prompt_encoder.mask_downscaling.6", "prompt_encoder.mask_embed.conv3"),
    (f"{_BLOCKS}.self_attention", f"{_LAYERS}.self_attn"),
    (f"{_BLOCKS}.token_to_image", f"{_LAYERS}.cross_attn_token_to_image"),
    (f"{_BLOCKS}.image_to_token", f"{_LAYERS}.cross_attn_image_to_token"),
    (f"{_BLOCKS}.mlp.0", f"{_LAYERS}.mlp.lin1"),
    (f"{_BLOCKS}.mlp.2", f"{_LAYERS}.mlp.lin2"),
    (f"{_BLOCKS}.norms.0", f"{_LAYERS}.layer_norm1"),
    (f"{_BLOCKS}.norms.1", f"{_LAYERS}.layer_norm2"),
    (f"{_BLOCKS}.norms.2", f"{_LAYERS}.layer_norm3"),
    (f"{_BLOCKS}.norms.3", f"{_LAYERS}.layer_norm4"),
    (
        "mask_decoder.transformer.final_attention",
        "mask_decoder.transformer.final_attn_token_to_image",
    ),
    ("mask_decoder.transformer.final_norm", "mask_decoder.transformer.layer_norm_final_attn"),
    ("mask_decoder.iou_token", "mask_decoder.iou_token"),
    ("mask_decoder.mask_tokens", "mask_decoder.mask_tokens"),
    ("mask_decoder.upscale_1", "mask_decoder.upscale_conv1"),
    ("mask_decoder.upscale_norm", "mask_decoder.upscale_layer_norm"),
    ("mask_decoder.upscale_2", "mask_decoder.upscale_conv2"),
)
_STACKED = (("prompt_encoder.point_embeddings.weight", "prompt_encoder.point_embed.#.weight", 4),)
_MASK_HEAD_DEPTH = 3


def _mlp_pairs(ours: str, theirs: str, depth: int) -> list[tuple[str, str]]:
    """There, the first and the last layer of an MLP have names, and the others count from 0."""
    inner = [(f"{ours}.layers.{i}", f"{theirs}.layers.{i - 1}") for i in range(1, depth - 1)]
    return [
        (f"{ours}.layers.0", f"{theirs}.proj_in"),
        *inner,
        (f"{ours}.layers.{depth - 1}", f"{theirs}.proj_out"),
    ]


def _key_map(iou_depth: int) -> KeyMap:
    heads = ("mask_decoder.mask_heads.#", "mask_decoder.output_hypernetworks_mlps.#")
    iou = ("mask_decoder.iou_head", "mask_decoder.iou_prediction_head")
    return KeyMap(
        "transformers SamModel",
        (*_PAIRS, *_mlp_pairs(*heads, _MASK_HEAD_DEPTH), *_mlp_pairs(*iou, iou_depth)),
        stacked=_STACKED,
    )


def _count_layers(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for match in (re.match(pattern, key) for key in state) if match})


def from_huggingface(
    state: Mapping[str, Tensor], config: SamConfig | None = None
) -> dict[str, Tensor]:
    """Translate the state dict of a `SamModel`.

    Args:
        state: `SamModel.state_dict()`, or what its `save_pretrained` wrote.
        config: Sizes that the weights must have; read off their shapes if not given.

    Returns:
        The weights under our names, for `Sam(config).load_state_dict`.

    Raises:
        WeightsError: A key is missing or unexpected, or a shape does not fit; it is named.
    """
    state = dict(state)
    tied = state.pop(_POSITIONS_TIED, None)
    if tied is not None and not torch.equal(tied, state.setdefault(_POSITIONS, tied)):
        raise WeightsError(f"{_POSITIONS_TIED} and {_POSITIONS} are one matrix, but differ here")
    inner = _count_layers(state, r"mask_decoder\.iou_prediction_head\.layers\.(\d+)\.")
    return import_state(state, _key_map(2 + inner), config)


def to_huggingface(
    state: Mapping[str, Tensor], config: SamConfig | None = None
) -> dict[str, Tensor]:
    """Translate our weights to the names of a `SamModel`.

    Args:
        state: `Sam.state_dict()` of ours, with a ViT image encoder.
        config: Sizes that the weights must have; read off their shapes if not given.

    Returns:
        What `SamModel.save_pretrained` would write: the tied position matrix once.

    Raises:
        WeightsError: The weights are incomplete or have no counterpart there; they are named.
    """
    depth = _count_layers(state, r"mask_decoder\.iou_head\.layers\.(\d+)\.")
    return export_state(state, _key_map(max(depth, 2)), config)


def read_huggingface(folder: str | Path) -> tuple[SamConfig, dict[str, Tensor]]:
    """Read a folder as `SamModel.save_pretrained` writes it, safetensors only.

    Returns:
        The sizes and the weights under our names.

    Raises:
        WeightsError: A file is missing or unreadable, or its content is no complete SAM.
    """
    folder = Path(folder)
    preprocessor = folder / "preprocessor_config.json"
    config = config_from_huggingface(
        _read_json(folder / "config.json"),
        _read_json(preprocessor) if preprocessor.exists() else {},
    )
    return config, from_huggingface(_read_tensors(folder), config)


def write_huggingface(folder: str | Path, config: SamConfig, state: Mapping[str, Tensor]) -> None:
    """Write a folder that `SamModel.from_pretrained` reads.

    Args:
        folder: Created if need be.
        config: Sizes of our network; the encoder must be a ViT.
        state: `Sam(config).state_dict()`.

    Raises:
        WeightsError: The network has no counterpart in transformers.
    """
    values = config_to_huggingface(config)
    tensors = {key: t.contiguous() for key, t in to_huggingface(state, config).items()}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    if (folder / _WEIGHTS).exists():
        return _read_safetensors(folder / _WEIGHTS)
    if not (folder / _INDEX).exists():
        raise WeightsError(
            f"{folder} holds neither {_WEIGHTS} nor {_INDEX}. Files of pickled weights in such "
            "folders are not read: save the model again with safe_serialization=True"
        )
    places = _read_json(folder / _INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(p, str) for p in places.values()):
        raise WeightsError(f"{folder / _INDEX} has no 'weight_map' from keys to files")
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(places.values())):
        if Path(shard).name != shard:  # an index must not point out of its folder
            raise WeightsError(f"{folder / _INDEX} names {shard!r}, which is no plain file name")
        tensors.update(_read_safetensors(folder / shard))
    lost = sorted(places.keys() - tensors.keys())
    if lost:
        raise WeightsError(f"the shards in {folder} lack {describe_keys(lost)}")
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot read {path} as safetensors: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read {path}: {error}") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{path} holds a {type(values).__name__}, wanted a JSON object")
    return values
