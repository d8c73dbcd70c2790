"""Read the checkpoints that other projects publish, as sizes and weights.

A folder of transformers' `SamModel` or `SamHQModel` contains `config.json`, optionally
`preprocessor_config.json`, and `model.safetensors` or several shards with an index.
Dozens of the config's fields do not affect the network and are ignored. Fields that would change it
in a way that ours cannot follow are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import save_file
from torch import Tensor

from textsam.errors import WeightsError
from textsam.modeling.config import SamConfig, ViTConfig, read_pixel_statistics
from textsam.modeling.tensor_files import read_tensors
from textsam.values.files import read_settings
from textsam.weights.checkpoint_files import check_finite, read_state
from textsam.weights.released_names import (
    from_huggingface,
    from_mobile_sam,
    from_official,
    to_huggingface,
)
from textsam.weights.strict import describe_keys, infer_config, mlp_ratio

__all__ = [
    "Checkpoint",
    "config_from_huggingface",
    "config_to_huggingface",
    "open_checkpoint",
    "read_checkpoint",
    "read_huggingface",
    "write_huggingface",
]


class Checkpoint(NamedTuple):
    """A core read from another project's file or folder."""

    config: SamConfig
    weights: dict[str, Tensor]  # under our names, on the CPU
    peeled: tuple[str, ...]  # what was around them, a phrase each: an optimizer, a prefix


def read_checkpoint(path: str | Path) -> tuple[SamConfig, dict[str, Tensor]]:
    """Sizes and weights of `open_checkpoint`: `Sam(config).load_state_dict(weights)`."""
    return open_checkpoint(path)[:2]


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Read a Segment Anything, SAM-HQ or MobileSAM checkpoint, published or of a training.

    Args:
        path: A `.pth`, `.pt`, `.bin`, `.ckpt` or `.safetensors` file with the released names,
            also inside a training's checkpoint or behind prefixes (`checkpoint_files`); or a
            folder in the format of Hugging Face's `SamModel` or `SamHQModel`.

    Returns:
        The sizes, from `config.json` or read off the shapes, and the weights.

    Raises:
        WeightsError: The file cannot be read, or is not a complete checkpoint of a known kind.
    """
    path = Path(path)
    if path.is_dir():
        return Checkpoint(*read_huggingface(path), ())
    if not path.exists():
        raise WeightsError(f"there is no file or folder {path}")
    state, peeled = read_state(path)
    if any(key.startswith("vision_encoder.") for key in state):
        raise WeightsError(
            f"{path} is a Hugging Face model, whose sizes are in the config.json beside it: give "
            f"the folder, {str(path.parent)!r}"
        )
    if any(key.startswith("image_encoder.trunk.") for key in state):
        raise WeightsError(
            f"{path} is a SAM 2 file, which textsam reads as a folder of transformers: "
            'TextSAM.from_pretrained("facebook/sam2.1-hiera-small"), or tiny, base-plus, large'
        )
    check_finite(state, path)
    if any(key.startswith("image_encoder.patch_embed.seq.") for key in state):
        weights = from_mobile_sam(state)
    elif any(key.startswith("image_encoder.") for key in state):
        weights = from_official(state)
    else:
        raise WeightsError(
            f"{path} is not a Segment Anything checkpoint: no key begins with 'image_encoder.'; "
            f"its keys are {describe_keys(sorted(state))}"
        )
    return Checkpoint(infer_config(weights), weights, peeled)


_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_VISION, _PROMPT, _DECODER = "vision_config", "prompt_encoder_config", "mask_decoder_config"

# Their section and field, ours (a dot: in the encoder), and the value that transformers assumes if
# the field is missing. Several of theirs may be one of ours, and must then agree.
_SIZES: tuple[tuple[str, str, str, Any], ...] = (
    (_VISION, "hidden_size", "encoder.width", 768),
    (_VISION, "num_hidden_layers", "encoder.depth", 12),
    (_VISION, "num_attention_heads", "encoder.heads", 12),
    (_VISION, "global_attn_indexes", "encoder.global_attention_indexes", [2, 5, 8, 11]),
    (_VISION, "window_size", "encoder.window_size", 14),
    (_VISION, "patch_size", "encoder.patch_size", 16),
    (_VISION, "output_channels", "embed_dim", 256),
    (_VISION, "image_size", "image_size", 1024),
    (_PROMPT, "hidden_size", "embed_dim", 256),
    (_PROMPT, "image_size", "image_size", 1024),
    (_PROMPT, "mask_input_channels", "mask_channels", 16),
    (_DECODER, "hidden_size", "embed_dim", 256),
    (_DECODER, "mlp_dim", "decoder_mlp", 2048),
    (_DECODER, "num_hidden_layers", "decoder_depth", 2),
    (_DECODER, "num_attention_heads", "decoder_heads", 8),
    (_DECODER, "attention_downsample_rate", "attention_downsample", 2),
    (_DECODER, "num_multimask_outputs", "multimasks", 3),
    (_DECODER, "iou_head_depth", "iou_depth", 3),
    (_DECODER, "iou_head_hidden_dim", "iou_hidden", 256),
    (_DECODER, "layer_norm_eps", "decoder_norm_eps", 1e-6),
)
# Fixed in our network; the values are also the defaults of transformers.
_FIXED: dict[str, dict[str, Any]] = {
    _VISION: {
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "num_channels": 3,
        "qkv_bias": True,
        "use_abs_pos": True,
        "use_rel_pos": True,
    },
    _PROMPT: {
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "num_point_embeddings": 4,
        "patch_size": 16,
    },
    _DECODER: {"hidden_act": "relu"},
}


def read_huggingface(folder: str | Path) -> tuple[SamConfig, dict[str, Tensor]]:
    """Read the sizes and weights of a folder that `SamModel.save_pretrained` wrote."""
    folder = Path(folder)
    preprocessor = folder / "preprocessor_config.json"
    config = config_from_huggingface(
        read_settings(folder / "config.json"),
        read_settings(preprocessor) if preprocessor.exists() else {},
    )
    state = _read_tensors(folder)
    check_finite(state, folder)
    return config, from_huggingface(state, config)


def write_huggingface(folder: str | Path, config: SamConfig, state: Mapping[str, Tensor]) -> None:
    """Write `Sam(config).state_dict()` as a folder that `SamModel.from_pretrained` reads."""
    values = config_to_huggingface(config)
    tensors = {key: t.contiguous() for key, t in to_huggingface(state, config).items()}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    if (folder / _WEIGHTS).exists():
        return read_tensors(folder / _WEIGHTS)
    if not (folder / _INDEX).exists():
        raise WeightsError(
            f"{folder} has neither {_WEIGHTS} nor {_INDEX}. Pickled weights in such folders are "
            "not read: save the model again with safe_serialization=True"
        )
    places = read_settings(folder / _INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(p, str) for p in places.values()):
        raise WeightsError(f"{folder / _INDEX} has no 'weight_map' from keys to files")
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(places.values())):
        if Path(shard).name != shard:  # an index must not point outside its folder
            raise WeightsError(f"{folder / _INDEX} names {shard!r}, which is not a plain file name")
        tensors.update(read_tensors(folder / shard))
    lost = sorted(places.keys() - tensors.keys())
    if lost:
        raise WeightsError(f"the shards in {folder} lack {describe_keys(lost)}")
    return tensors


def config_from_huggingface(
    values: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None
) -> SamConfig:
    """The sizes in a `config.json`, with the pixel statistics of `preprocessor_config.json`.

    A `WeightsError` for another model, or one that this network cannot follow.
    """
    kind = values.get("model_type")
    if kind not in ("sam", "sam_hq"):
        raise WeightsError(
            f"config.json says model_type {kind!r}; only 'sam' and 'sam_hq' can be read"
        )
    parts = {part: values.get(part) or {} for part in _FIXED}
    for part, fixed in _FIXED.items():
        for key, wanted in fixed.items():
            if parts[part].get(key, wanted) != wanted:
                got = parts[part][key]
                raise WeightsError(f"{part}.{key} is {got!r}; only {wanted!r} can be read")
    sizes: dict[str, Any] = {}
    for part, key, field, default in _SIZES:
        size = parts[part].get(key, default)
        size = tuple(size) if isinstance(size, list) else size
        if sizes.setdefault(field, size) != size:
            raise WeightsError(f"{part}.{key} is {size!r}; another part says {sizes[field]!r}")
    vit = {k.removeprefix("encoder."): v for k, v in sizes.items() if k.startswith("encoder.")}
    vision = parts[_VISION]
    early = parts[_DECODER].get("vit_dim", 768)
    if kind == "sam_hq" and early != vit["width"]:
        raise WeightsError(
            f"{_DECODER}.vit_dim is {early!r}; the image encoder's is {vit['width']}"
        )
    hidden = vision.get("mlp_dim") or int(vit["width"] * vision.get("mlp_ratio", 4.0))
    return SamConfig(
        encoder=ViTConfig(mlp_ratio=mlp_ratio(hidden, vit["width"]), **vit),
        hq=kind == "sam_hq",
        **{field: size for field, size in sizes.items() if not field.startswith("encoder.")},
        **read_pixel_statistics(preprocessor or {}),
    )


def config_to_huggingface(config: SamConfig) -> dict[str, Any]:
    """The content of a `config.json`; a `WeightsError` if transformers has no such network."""
    vit = config.encoder
    if not isinstance(vit, ViTConfig):
        raise WeightsError(f"a SamModel has a ViT image encoder, this one is {vit}")
    if config.first_layer_residual:
        raise WeightsError("a SamModel has no first_layer_residual")
    parts = {part: dict(fixed) for part, fixed in _FIXED.items()}
    for part, key, field, _ in _SIZES:
        owner = vit if field.startswith("encoder.") else config
        size = getattr(owner, field.removeprefix("encoder."))
        parts[part][key] = list(size) if isinstance(size, tuple) else size
    parts[_VISION] |= {
        "mlp_ratio": vit.mlp_ratio,
        "mlp_dim": int(vit.width * vit.mlp_ratio),
        "num_pos_feats": config.embed_dim // 2,
    }
    parts[_PROMPT]["image_embedding_size"] = config.embedding_size
    if not config.hq:
        return {"architectures": ["SamModel"], "model_type": "sam", **parts}
    parts[_DECODER]["vit_dim"] = vit.width
    return {"architectures": ["SamHQModel"], "model_type": "sam_hq", **parts}
