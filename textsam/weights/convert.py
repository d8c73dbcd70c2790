"""Read the checkpoints that other projects publish, as sizes and weights.

Pickled files are opened with `weights_only=True` only, so that an untrusted file cannot run code.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from textsam.errors import WeightsError
from textsam.modeling.config import SamConfig
from textsam.modeling.tensor_files import read_tensors
from textsam.weights.huggingface import read_huggingface
from textsam.weights.infer import infer_config
from textsam.weights.key_map import describe_keys
from textsam.weights.released_names import from_mobile_sam, from_official

__all__ = ["read_checkpoint"]

_PICKLED = (".pth", ".pt", ".bin")


def read_checkpoint(path: str | Path) -> tuple[SamConfig, dict[str, Tensor]]:
    """Read a published Segment Anything or MobileSAM checkpoint.

    Args:
        path: A `.pth`, `.pt` or `.safetensors` file with the released names, or a folder in the
            format of Hugging Face's `SamModel`.

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
    other = sorted(str(key) for key, value in state.items() if not isinstance(value, Tensor))
    if other:
        raise WeightsError(
            f"{path} is not a plain state dict: {describe_keys(other)} are not tensors. If the "
            "weights are under one of these keys, save that value alone"
        )
    return dict(state)
