"""textsam's own format: `config.json`, `model.safetensors` and folders `clip/` and `detector/`.

A core of another project (SAM 2.1, EdgeTAM) lies in a folder `core/`, as that project has it.
`config.json` gives the format and its version, the sizes of every network and the settings;
`model.safetensors` holds the tensors `sam.*` and `pathway.*`. A pathway trained for another SAM and
CLIP is a `.safetensors` file of its own, whose metadata names both; others are refused.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from textsam.clip.encoder import ClipEncoder
from textsam.clip.pathway import PathwayConfig, TextPathway
from textsam.errors import WeightsError
from textsam.modeling.config import SamConfig, build_config
from textsam.modeling.core import Core
from textsam.modeling.file_kinds import describe_foreign_file
from textsam.modeling.huggingface.cores import CORE_KINDS, HuggingFaceCore, read_core
from textsam.modeling.huggingface.detectors import Detector
from textsam.modeling.huggingface.phrase_maps import MapSource, read_map_source
from textsam.modeling.huggingface.sam3 import SAM3_TYPES, Sam3Core, read_sam3
from textsam.modeling.layers import no_random_fill
from textsam.modeling.sam import Sam
from textsam.modeling.tensor_files import read_metadata, read_tensors, write_tensors
from textsam.values.calibration import CALIBRATION_FILE, Calibration
from textsam.values.files import TINY_FOLDER, read_settings, write_atomically
from textsam.values.settings import FocusSettings, TextSettings
from textsam.weights.checkpoint_files import PICKLED, check_finite
from textsam.weights.convert import open_checkpoint
from textsam.weights.hub import fetch, hub_id
from textsam.weights.model_table import MODELS, find_entry, find_repository
from textsam.weights.parts import ModelParts
from textsam.weights.strict import describe_keys

__all__ = [
    "read_model",
    "read_pathway",
    "write_model",
    "write_pathway",
]

logger = logging.getLogger(__name__)

FORMAT, VERSION = "textsam", 1
_CONFIG, _WEIGHTS, _CLIP, _MAPS = "config.json", "model.safetensors", "clip", "map_source"
_CORE = "core"  # of another project's network, as its own format has it
_DETECTOR = "detector"
_FOLDERS = (_CLIP, _CORE, _MAPS, _DETECTOR)
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", *(f"{name}/*" for name in _FOLDERS)]


def read_model(
    name: str | Path, *, revision: str | None = None, local_files_only: bool = False
) -> ModelParts:
    """Read a model of any kind that `TextSAM.from_pretrained` takes, or raise a `WeightsError`.

    A name of `model_table` may stand for several repositories, of which `revision` is the core's.
    """
    entry = None if Path(name).exists() else find_entry(str(name).partition("@")[0])
    if entry is not None and entry.shipped:
        name = entry.name  # "Tiny"
    if entry is None and not Path(name).exists():
        _refuse_helpers(str(name).partition("@")[0])
    parts = _read_core(name, revision=revision, local_files_only=local_files_only)
    if entry is None or len(entry.repositories) == 1:
        return parts
    maps = parts.map_source
    if entry.map_source is not None:
        source = entry.map_source.id
        maps = read_map_source(fetch(source, local_files_only=local_files_only), name=source)
    detector = parts.detector
    if entry.detector is not None:
        source = entry.detector.id
        detector = Detector.from_pretrained(source, local_files_only=local_files_only)
    return replace(parts, name=str(name), map_source=maps, detector=detector)


def _refuse_helpers(name: str) -> None:
    """Refuse a detector or a map source that was given as the model."""
    repository = find_repository(name)
    for entry in MODELS:
        for keyword in ("detector", "map_source"):
            if repository is not None and getattr(entry, keyword) is repository:
                raise WeightsError(
                    f"{name!r} makes no masks by itself. Type: {entry.load_line}, or any core with "
                    f'it: TextSAM.from_pretrained("sam2.1-small", {keyword}="{repository.id}")'
                )


def _read_core(name: str | Path, *, revision: str | None, local_files_only: bool) -> ModelParts:
    path = TINY_FOLDER if name == "tiny" else Path(name)
    if name == "tiny" and not (path / _WEIGHTS).exists():
        raise WeightsError(f"the shipped model is missing at {path}: install textsam again")
    if not path.exists():  # a pathway names its core by the hub id, whatever was typed
        name = str(name) if "@" in str(name) else hub_id(str(name))
        path = Path(name)
    path = fetch(
        path,
        allow_patterns=_HUB_FILES,
        revision=revision,
        local_files_only=local_files_only,
    )
    if path.is_dir():
        if not (path / _CONFIG).exists():
            raise WeightsError(_without_config(path))
        for file in sorted(path.rglob("*.safetensors")):  # before another library says less of it
            if (foreign := describe_foreign_file(file)) is not None:
                raise WeightsError(foreign)
        config = read_settings(path / _CONFIG)
        if config.get("format") == FORMAT:
            return _read_own(path, config, name=str(name), local_files_only=local_files_only)
        if config.get("model_type") in CORE_KINDS:
            return ModelParts(sam=read_core(path), name=str(name))
        if config.get("model_type") in SAM3_TYPES:
            core, concepts = read_sam3(path, name=str(name))
            return ModelParts(sam=core, concept_model=concepts, name=str(name))
    checkpoint = open_checkpoint(path)
    sam = Sam(checkpoint.config)
    sam.load_state_dict(checkpoint.weights)
    for peeled in checkpoint.peeled:
        logger.info("%s: %s", path, peeled)
    return ModelParts(sam=sam, name=str(name), peeled=checkpoint.peeled)


def _without_config(folder: Path) -> str:
    """What to type for a folder that is no model folder."""
    if (foreign := describe_foreign_file(folder)) is not None:
        return foreign
    what = f"{folder} has no {_CONFIG}: it is not a model folder of textsam or of SamModel"
    files = sorted(file for file in folder.iterdir() if file.suffix in (*PICKLED, ".safetensors"))
    if not files:
        return what
    return f'{what}. For the weights in it type: TextSAM.from_pretrained("{files[0]}")'


def write_model(folder: Path, parts: ModelParts, *, dtype: torch.dtype | None = None) -> Path:
    """Write a folder that `read_model` reads; each file is replaced in one step."""
    if isinstance(parts.sam, Sam3Core):
        raise WeightsError(
            f"{parts.name} is a SAM 3, which is not written again: copy its folder, which "
            "TextSAM.from_pretrained reads as it is"
        )
    folder.mkdir(parents=True, exist_ok=True)
    sizes: dict[str, Any] | None = None
    tensors: dict[str, Tensor] = {}
    if isinstance(parts.sam, HuggingFaceCore):
        parts.sam.save(folder / _CORE, dtype=dtype)
    else:
        sam = parts.require_sam()
        sizes, tensors = sam.config.to_dict(), sam.state_dict(prefix="sam.")
    if parts.clip is not None:
        parts.clip.save(folder / _CLIP, dtype=dtype)
    if parts.detector is not None:
        parts.detector.save(folder / _DETECTOR)
    if parts.map_source is not None:
        parts.map_source.save(folder / _MAPS)
    if parts.pathway is not None:
        tensors |= parts.pathway.state_dict(prefix="pathway.")
    write_tensors(folder / _WEIGHTS, tensors, dtype=dtype, metadata={"name": parts.name})
    config = {
        "format": FORMAT,
        "version": VERSION,
        "name": parts.name,
        "sam": sizes,  # null for a core in a folder of its own
        "pathway": None if parts.pathway is None else parts.pathway.config.to_dict(),
        "clip": None if parts.clip is None else parts.clip.name,
        "map_source": None if parts.map_source is None else parts.map_source.name,
        "detector": None if parts.detector is None else parts.detector.name,
        "text": asdict(parts.text_settings),
        "focus": None if parts.focus is None else asdict(parts.focus),
    }
    if parts.calibration.strategies:
        parts.calibration.save(folder / CALIBRATION_FILE)
    else:  # an earlier model's file must not be taken for this one's
        (folder / CALIBRATION_FILE).unlink(missing_ok=True)
    text = json.dumps(config, indent=2) + "\n"
    write_atomically(folder / _CONFIG, text.encode())
    return folder


def write_pathway(path: str | Path, pathway: TextPathway, *, sam: str, clip: str) -> Path:
    """Write a pathway alone, with the names of the SAM and the CLIP that it was trained for."""
    metadata = {
        "textsam": "pathway",
        "sam": sam,
        "clip": clip,
        "config": json.dumps(pathway.config.to_dict()),
    }
    write_tensors(Path(path), pathway.state_dict(prefix="pathway."), metadata=metadata)
    return Path(path)


def read_pathway(path: str | Path, *, sam: str, clip: str) -> TextPathway:
    """Read what `write_pathway` wrote; a `WeightsError` if it is for another SAM or CLIP."""
    path = Path(path)
    metadata = read_metadata(path)
    if metadata.get("textsam") != "pathway":
        raise WeightsError(f"{path} is not a textsam pathway; write one with write_pathway")
    for part, wanted in (("sam", sam), ("clip", clip)):
        if metadata.get(part) != wanted:
            raise WeightsError(
                f"{path} was trained for {part} {metadata.get(part)!r}, the model has {wanted!r}"
            )
    pathway = TextPathway(PathwayConfig.from_dict(json.loads(metadata["config"])))
    _load(pathway, "pathway", read_tensors(path), source=path)
    return pathway


def _read_own(
    folder: Path, config: Mapping[str, Any], *, name: str, local_files_only: bool
) -> ModelParts:
    if config.get("version") != VERSION:
        raise WeightsError(
            f"{folder} has format version {config.get('version')}, this textsam reads {VERSION}: "
            "pip install -U textsam"
        )
    state = read_tensors(folder / _WEIGHTS)
    sam: Core
    if config.get("sam") is None:
        sam = read_core(folder / _CORE)
    else:
        with no_random_fill():  # type: ignore[no-untyped-call]
            sam = Sam(SamConfig.from_dict(config["sam"]))
        _load(sam, "sam", state, source=folder)
    pathway: TextPathway | None = None
    if config.get("pathway") is not None:
        pathway = TextPathway(PathwayConfig.from_dict(config["pathway"]))
        _load(pathway, "pathway", state, source=folder)
    extra = sorted(key for key in state if not key.startswith(("sam.", "pathway.")))
    if extra:
        raise WeightsError(f"{folder / _WEIGHTS} has unknown keys {describe_keys(extra)}")
    clip: ClipEncoder | None = None
    if (folder / _CLIP).is_dir():
        clip = ClipEncoder.from_pretrained(folder / _CLIP, local_files_only=local_files_only)
        clip.name = str(config.get("clip") or clip.name)
    elif config.get("clip") is not None:
        raise WeightsError(
            f"{folder / _CONFIG} names the CLIP {config['clip']!r}, but there is no folder "
            f"{folder / _CLIP}: copy the model again, or set 'clip' and 'pathway' to null to use "
            "it without text"
        )
    maps: MapSource | None = None
    if config.get("map_source") is not None:
        maps = read_map_source(folder / _MAPS, name=str(config["map_source"]))
    detector: Detector | None = None
    if config.get("detector") is not None:
        detector = Detector.from_pretrained(folder / _DETECTOR)
        detector.name = str(config["detector"])
    calibrated, focus = (folder / CALIBRATION_FILE).is_file(), config.get("focus")
    return ModelParts(
        sam=sam,
        name=str(config.get("name") or name),
        clip=clip,
        pathway=pathway,
        map_source=maps,
        detector=detector,
        text_settings=build_config(TextSettings, config.get("text") or {}),
        focus=None if focus is None else build_config(FocusSettings, focus),
        calibration=Calibration.load(folder / CALIBRATION_FILE) if calibrated else Calibration(),
    )


def _load(module: nn.Module, prefix: str, state: Mapping[str, Tensor], *, source: Path) -> None:
    """Load the tensors below a prefix, strictly, as float32."""
    start = prefix + "."
    part = {
        key.removeprefix(start): value.float() if value.is_floating_point() else value
        for key, value in state.items()
        if key.startswith(start)
    }
    wanted = module.state_dict()
    missing, extra = sorted(set(wanted) - set(part)), sorted(set(part) - set(wanted))
    shapes = sorted(k for k in set(part) & set(wanted) if part[k].shape != wanted[k].shape)
    for problem, keys in (("lacks", missing), ("has unknown", extra), ("has misshapen", shapes)):
        if keys:
            raise WeightsError(f"{source} {problem} keys of {prefix}: {describe_keys(keys)}")
    check_finite(part, source)
    module.load_state_dict(part)
