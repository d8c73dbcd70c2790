"""State dicts as people have them: inside a training's checkpoint, with prefixes on their names.

What is peeled off is said, and only what is known: entries that hold no tensors or are a training's
own (its optimizer), and prefixes that every weight has. Anything else is an error, so that no
weight is lost without a word. Pickles are opened with `weights_only=True` only.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textsam.errors import WeightsError, one_line
from textsam.modeling.file_kinds import describe_foreign_file
from textsam.modeling.tensor_files import read_tensors
from textsam.weights.strict import describe_keys

__all__ = ["PICKLED", "check_finite", "read_state"]

PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".tar")

# Where trainings put the weights: MedSAM and SAM 2, Lightning, micro-sam, PyTorch's tutorials.
_HOLDERS = ("model", "state_dict", "model_state", "model_state_dict", "module", "weights", "net")
# Entries that hold tensors and no weights of the model. micro-sam's `decoder_state` is a network of
# its own, beside the SAM.
_BESIDE = re.compile(
    r"optim\w*|(lr_)?scheduler\w*|\w*scaler\w*|callbacks|loops|rng\w*|\w*_rng_state|loss\w*|"
    r"best_\w+|metrics?|history|decoder_state|criterion\w*"
)
_PREFIXES = ("module.", "sam.", "model.", "_orig_mod.", "net.", "network.", "base_model.")
# DDP and torch.compile put these before whichever part they wrap.
_INSIDE = re.compile(r"(?<=\.)(_orig_mod|module)\.")
_ROOTS = ("image_encoder.", "vision_encoder.", "prompt_encoder.", "mask_decoder.")


def read_state(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Read the weights of a file, by the names that their project gives them.

    Returns:
        The weights, and what was peeled off, a phrase each.

    Raises:
        WeightsError: The file is something else (the message says what), or holds entries or
            prefixes that are not known.
    """
    foreign = describe_foreign_file(path)
    if foreign is not None:
        raise WeightsError(foreign)
    if path.suffix == ".safetensors":
        content: Any = read_tensors(path)
    elif path.suffix.lower() in PICKLED:
        content = _load(path)
    else:
        raise WeightsError(
            f"{path} ends in {path.suffix!r}; wanted a folder or a file that ends in "
            f".safetensors, {', '.join(PICKLED)}"
        )
    peeled: list[str] = []
    while (inner := _inner(path, content, peeled)) is not None:
        content = inner
    state = _without_prefix(path, content, peeled)
    if any(".lora_" in key or "lora_A" in key for key in state):
        raise WeightsError(
            f"{path} holds LoRA adapters beside or without the weights: merge them where they were "
            "trained (peft: model.merge_and_unload()), and save the state dict again"
        )
    return state, tuple(peeled)


def check_finite(state: Mapping[str, Tensor], source: str | Path) -> None:
    """Raise a `WeightsError` if a weight is NaN or infinite."""
    bad = sorted(
        key for key, t in state.items() if t.is_floating_point() and not t.isfinite().all()
    )
    if bad:
        raise WeightsError(
            f"{source} has NaN or infinity in {len(bad)} of {len(state)} tensors: "
            f"{describe_keys(bad)}. Its training diverged, or half precision overflowed: take an "
            "earlier checkpoint, or one in float32"
        )


def _load(path: Path) -> Any:
    try:
        # Mapped, so that `textsam info` of a large file reads its names and shapes only.
        mapped = zipfile.is_zipfile(path)
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None:
            raise WeightsError(
                f"cannot read {path} as plain tensors (weights_only=True): it is damaged, or a "
                "pickle that torch.save did not write. Where you trust it, load it as it was "
                'saved, and torch.save(state_dict, "weights.pth")'
            ) from error
        raise WeightsError(
            f"{path} holds a {found[1]} beside tensors, which only code of the file can rebuild; "
            "textsam runs none (weights_only=True). Where you trust the file, take its weights "
            f'out: checkpoint = torch.load({str(path)!r}, weights_only=False, map_location="cpu"); '
            'torch.save(checkpoint["state_dict"], "weights.pth")'
        ) from error
    except Exception as error:  # its unpickler raises whatever damaged bytes lead it to
        raise WeightsError(
            f"cannot read {path} as plain tensors (weights_only=True): {one_line(error)}"
        ) from error


def _inner(path: Path, content: Any, peeled: list[str]) -> Mapping[str, Any] | None:
    """The weights' entry of a checkpoint; None if the content is a state dict itself."""
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} contains a {type(content).__name__}, wanted a state dict")
    others = {str(k): value for k, value in content.items() if not isinstance(value, Tensor)}
    if not others:
        return None
    holders = [k for k in _HOLDERS if isinstance(others.get(k), Mapping) and _tensors(others[k])]
    unknown = [
        key
        for key, value in others.items()
        if key not in holders and _tensors(value) and not _BESIDE.fullmatch(key)
    ]
    if len(holders) > 1 or (holders and unknown):
        raise WeightsError(
            f"{path} has weights under {describe_keys(sorted([*holders, *unknown]))}: which of "
            'them is meant? Save one: torch.save(checkpoint[KEY], "weights.pth")'
        )
    if not holders:
        raise WeightsError(
            f"{path} is not a plain state dict: {describe_keys(sorted(others))} are not tensors, "
            f"and none of {', '.join(_HOLDERS)} holds the weights. Save them alone: "
            'torch.save(checkpoint[KEY], "weights.pth")'
        )
    loose = sorted(
        str(k) for k, v in content.items() if isinstance(v, Tensor) and not _is_beside(str(k), v)
    )
    if loose:
        raise WeightsError(
            f"{path} has weights under {holders[0]!r} and beside it: {describe_keys(loose)}. Save "
            'those that are meant: torch.save(STATE_DICT, "weights.pth")'
        )
    beside = sorted(str(key) for key in content if key not in holders)
    also = f", left out: {describe_keys(beside)}" if beside else ""
    peeled.append(f"weights taken from {holders[0]!r}{also}")
    inner: Mapping[str, Any] = others[holders[0]]
    return inner


def _is_beside(key: str, value: Tensor) -> bool:
    """Whether a tensor beside the weights is a training's own: a loss, a state of a generator."""
    return value.ndim == 0 or _BESIDE.fullmatch(key) is not None


def _tensors(value: Any) -> bool:
    """Whether a tensor that could be a weight is anywhere in a value."""
    if isinstance(value, Tensor):
        return value.ndim > 0
    if isinstance(value, Mapping):
        return any(map(_tensors, value.values()))
    return isinstance(value, list | tuple) and any(map(_tensors, value))


def _without_prefix(path: Path, content: Mapping[str, Any], peeled: list[str]) -> dict[str, Tensor]:
    """The weights without prefixes that all of them have."""
    state = {str(key): value for key, value in content.items()}
    plain = {_INSIDE.sub("", key): value for key, value in state.items()}
    if len(plain) == len(state) and plain.keys() != state.keys():
        peeled.append("names without '_orig_mod.' and 'module.' inside")
        state = plain
    chain = ""
    while state and not any(key.startswith(_ROOTS) for key in state):
        prefix = next((p for p in _PREFIXES if all(key.startswith(p) for key in state)), None)
        if prefix is None:
            break
        chain += prefix
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    if chain:
        peeled.append(f"names without {chain!r}")
    elsewhere = [p for p in _PREFIXES if any(key.startswith(p + _ROOTS[0]) for key in state)]
    if elsewhere:
        strange = sorted(key for key in state if not key.startswith(elsewhere[0]))
        raise WeightsError(
            f"{path} has a SAM under {elsewhere[0]!r} and other weights beside it: "
            f"{describe_keys(strange)}. Save the SAM alone: torch.save(model.sam.state_dict(), "
            '"weights.pth")'
        )
    return state
