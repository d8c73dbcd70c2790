"""Read the checkpoints that other projects publish, as sizes and weights.

Pickled files are opened with `weights_only=True` only, so that an untrusted file cannot run code.
A folder of transformers' `SamModel` or `SamHQModel` contains `config.json`, optionally
`preprocessor_config.json`, and `model.safetensors` or several shards with an index.
Dozens of the config's fields do not affect the network and are ignored. Fields that would change it
in a way that ours cannot follow are refused.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from textsam.errors import WeightsError
from textsam.modeling.config import SamConfig, ViTConfig, read_pixel_statistics
from textsam.modeling.tensor_files import read_tensors
from textsam.values.files import read_settings
from textsam.weights.released_names import (
    from_huggingface,
    from_mobile_sam,
    from_official,
    to_huggingface,
)
from textsam.weights.strict import describe_keys, infer_config, mlp_ratio

__all__ = [
    "config_from_huggingface",
    "config_to_huggingface",
    "read_checkpoint",
    "read_huggingface",
    "write_huggingface",
]

_PICKLED = (".pth", ".pt", ".bin")


def read_checkpoint(path: str | Path) -> tuple[SamConfig, dict[str, Tensor]]:
    """Read a published Segment Anything or MobileSAM checkpoint.

    Args:
        path: A `.pth`, `.pt` or `.safetensors` file with the released names, or a folder in the
            format of Hugging Face's `SamModel` or `SamHQModel`.

    Returns:
        The sizes, from `config.json` or read off the shapes, and the weights under our names, on
        the CPU: `Sam(config).load_state_dict(weights)`.

    Raises:
        WeightsError: The file cannot be read, or is not a complete checkpoint of a known kind.
    """
    path = Path(path)
    if path.is_dir():
        return read_huggingface(path)
    if not path.exists():
        raise WeightsError(f"there is no file or folder {path}")
    state = _read_file(path)
    if any(key.startswith("vision_encoder.") for key in state):
        raise WeightsError(
            f"{path} is a Hugging Face model, whose sizes are in the config.json beside it: give "
            f"the folder, {str(path.parent)!r}"
        )
    if any(key.startswith("image_encoder.patch_embed.seq.") for key in state):
        weights = from_mobile_sam(state)
    elif any(key.startswith("image_encoder.") for key in state):
        weights = from_official(state)
    else:
        raise WeightsError(
            f"{path} is not a Segment Anything checkpoint: no key begins with 'image_encoder.'; "
            f"its keys are {describe_keys(sorted(state))}"
        )
    return infer_config(weights), weights


def _read_file(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return read_tensors(path)
    if path.suffix not in _PICKLED:
        raise WeightsError(
            f"{path} ends in {path.suffix!r}; wanted a folder or a file that ends in .safetensors, "
            + ", ".join(_PICKLED)
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise WeightsError(
            f"cannot read {path} as plain tensors (weights_only=True): {error}"
        ) from error
    if not isinstance(state, Mapping):
        raise WeightsError(f"{path} contains a {type(state).__name__}, wanted a state dict")
    inner = state.get("model")
    if isinstance(inner, Mapping) and any("image_encoder.trunk." in str(key) for key in inner):
        raise WeightsError(
            f"{path} is a SAM 2 file, which textsam reads as a folder of transformers: "
            'TextSAM.from_pretrained("facebook/sam2.1-hiera-small"), or tiny, base-plus, large'
        )
    other = sorted(str(key) for key, value in state.items() if not isinstance(value, Tensor))
    if other:
        raise WeightsError(
            f"{path} is not a plain state dict: {describe_keys(other)} are not tensors. If the "
            "weights are under one of these keys, save that value alone"
        )
    return dict(state)


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
    return config, from_huggingface(_read_tensors(folder), config)


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
