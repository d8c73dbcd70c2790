"""What `textsam info` shows of a model, read from its files without loading it.

A `safetensors` file begins with a list of its tensors, so counting the parameters of a 2.5 GB model
takes milliseconds and no memory.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from textsam.errors import WeightsError
from textsam.modeling.file_kinds import describe_foreign_file
from textsam.modeling.tensor_files import read_metadata
from textsam.values.files import TINY_FOLDER, read_settings
from textsam.weights.checkpoint_files import PICKLED, read_state
from textsam.weights.hub import hub_id
from textsam.weights.model_table import ModelEntry, find_entry, nearest_name

__all__ = ["ModelInfo", "WeightFile", "find_model", "is_here", "read_model_info"]

_WEIGHT_SUFFIXES = (".safetensors", *PICKLED)
# What a config.json of transformers calls its model, and what that is here.
_CORES = {
    "sam": "SAM",
    "sam_hq": "SAM-HQ",
    "sam2": "SAM 2",
    "sam2_video": "SAM 2 for videos, used for photos",
    "edgetam": "EdgeTAM",
    "edgetam_video": "EdgeTAM for videos, used for photos",
}


@dataclass(frozen=True)
class WeightFile:
    """A file of weights, read from its header; pickles only where they are the whole model."""

    path: Path
    size: int  # bytes
    parameters: dict[str, int]  # by the first part of the tensors' names; empty if not opened
    dtypes: list[str]
    metadata: dict[str, str]


@dataclass(frozen=True)
class ModelInfo:
    """What the files of a model say about it."""

    name: str
    folder: Path  # or the file, for a model of one file
    config: dict[str, Any]  # content of config.json; empty if there is none
    license: str | None  # from the model card or the licence file
    files: list[WeightFile]

    @property
    def kind(self) -> str | None:
        """What the model is, as far as its configuration says."""
        if self.config.get("format") == "textsam":
            return "a model that textsam saved"
        kind = self.config.get("model_type")
        return None if kind is None else f"{_CORES.get(kind, kind)}, as transformers saves it"

    @property
    def parameters(self) -> int:
        """Number of parameters in all files that could be read."""
        return sum(sum(file.parameters.values()) for file in self.files)


def find_model(name: str) -> Path | None:
    """The folder or file of a model that is shipped, at a path, or in the hub's cache, or None."""
    entry, path = find_entry(name), Path(name)
    if entry is not None and entry.shipped:
        return TINY_FOLDER if any(TINY_FOLDER.glob("**/*.safetensors")) else None
    if path.exists():
        return path
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(hub_id(name), "config.json")
    except (HFValidationError, WeightsError):
        return None
    return Path(config).parent if isinstance(config, str) else None


def is_here(entry: ModelEntry) -> bool:
    """Whether all parts of a model are on this machine, as far as their configs tell."""
    return all(find_model(part.id) is not None for part in entry.repositories)


def read_model_info(name: str) -> ModelInfo:
    """Read what the files of a model say, without a download; a `WeightsError` if not here."""
    path = find_model(name)
    if path is None:
        near = nearest_name(name)
        raise WeightsError(
            f"model {name!r} is not on this machine"
            + ("" if near is None or near == name else f" (did you mean {near!r}?)")
            + "; wanted a folder, a file, or a name of `textsam models`. To download a hub model, "
            f"use it: textsam segment PHOTO -t THING --model {name}"
        )
    folder = path if path.is_dir() else path.parent
    paths = sorted(folder.rglob("*")) if path.is_dir() else [path]
    read = _weight_file if path.is_dir() else _checkpoint_file
    files = [read(file) for file in paths if file.suffix in _WEIGHT_SUFFIXES]
    if not files:
        foreign = describe_foreign_file(path)
        raise WeightsError(
            foreign or f"{str(path)!r} has no weights; wanted {', '.join(_WEIGHT_SUFFIXES)} files"
        )
    config = folder / "config.json"
    # A lone .pth file may lie beside the config of another model.
    settings = read_settings(config) if config.is_file() and path.is_dir() else {}
    return ModelInfo(name, path, settings, _license(folder), files)


def _checkpoint_file(path: Path) -> WeightFile:
    """A lone file, which may be of a training: also what is around its weights."""
    state, peeled = read_state(path)
    parameters: Counter[str] = Counter()
    for key, tensor in state.items():
        parameters[key.partition(".")[0]] += tensor.numel()
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in state.values()})
    metadata = read_metadata(path) if path.suffix == ".safetensors" else {}
    if peeled:
        metadata["peeled off"] = "; ".join(peeled)
    return WeightFile(path, path.stat().st_size, dict(parameters), dtypes, metadata)


def _weight_file(path: Path) -> WeightFile:
    size = path.stat().st_size
    if path.suffix != ".safetensors":
        return WeightFile(path, size, {}, [], {})
    parameters: Counter[str] = Counter()
    dtypes: set[str] = set()
    try:
        with safe_open(path, framework="numpy") as file:
            for key in file.keys():  # noqa: SIM118  # no dict: it only has this method
                tensor = file.get_slice(key)  # reads nothing yet
                parameters[key.partition(".")[0]] += math.prod(tensor.get_shape())
                dtypes.add(tensor.get_dtype())
            metadata = dict(file.metadata() or {})
    except SafetensorError as error:
        raise WeightsError(
            describe_foreign_file(path)
            or f"{str(path)!r} is not a complete safetensors file ({error}); download or copy it "
            "again"
        ) from error
    return WeightFile(path, size, dict(parameters), sorted(dtypes), metadata)


def _license(folder: Path) -> str | None:
    """The licence named at the top of the model card, else the first line of the licence file."""
    card = folder / "README.md"
    if card.is_file():
        for line in card.read_text("utf-8", errors="replace").splitlines()[:50]:
            if line.lower().startswith("license:"):
                return line.partition(":")[2].strip()
    for file in sorted(folder.glob("LICENSE*")):
        lines = [line.strip() for line in file.read_text("utf-8", errors="replace").splitlines()]
        return next((line for line in lines if line), None)
    return None
