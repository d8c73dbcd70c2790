"""Read the checkpoints that other projects publish, whatever they are, as (sizes, weights).

| what | path | names |
|---|---|---|
| Segment Anything, ViT-B, L, H | `sam_vit_b_01ec64.pth` | `official` |
| MobileSAM, TinyViT | `mobile_sam.pt` | `mobile_sam` |
| Hugging Face `SamModel` | a folder with `config.json` | `huggingface` |

Every translation is strict and goes both ways. Pickled files are opened with `weights_only=True`
and never otherwise: an untrusted one can hold no code that runs.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from textsam.errors import WeightsError
from textsam.modeling.config import SamConfig
from textsam.weights.huggingface import (
    from_huggingface,
    read_huggingface,
    to_huggingface,
    write_huggingface,
)
from textsam.weights.infer import infer_config
from textsam.weights.key_map import describe_keys
from textsam.weights.mobile_sam import from_mobile_sam, to_mobile_sam
from textsam.weights.official import from_official, to_official

__all__ = [
    "from_huggingface",
    "from_mobile_sam",
    "from_official",
    "infer_config",
    "read_checkpoint",
    "to_huggingface",
    "to_mobile_sam",
    "to_official",
    "write_huggingface",
]

_PICKLED = (".pth", ".pt", ".bin")


def read_checkpoint(path: str | Path) -> tuple[SamConfig, dict[str, Tensor]]:
    """Read a published Segment Anything or MobileSAM checkpoint.

    Args:
        path: A `.pth`, `.pt` or `.safetensors` file with the released names, or a folder in the
            format of Hugging Face's `SamModel`.

    Returns:
        The sizes, from `config.json` or else read off the shapes, and the weights on the CPU under
        our names: `Sam(config).load_state_dict(weights)`.

    Raises:
        WeightsError: The file cannot be read, or is no complete checkpoint of a known kind.
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
            f"{path} is no Segment Anything checkpoint: no key begins with 'image_encoder.'; its "
            f"keys are {describe_keys(sorted(state))}"
        )
    return infer_config(weights), weights


def _read_file(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"cannot read {path} as safetensors: {error}") from error
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
        raise WeightsError(f"{path} holds a {type(state).__name__}, wanted a state dict")
    other = sorted(str(key) for key, value in state.items() if not isinstance(value, Tensor))
    if other:
        raise WeightsError(
            f"{path} is no plain state dict: {describe_keys(other)} are no tensors. If the weights "
            "lie under one of them, save that value alone"
        )
    return dict(state)
