"""Checkpoints as people have them: a file for each way to wrap weights, and for each thing that is
saved as `model.pth` and is none.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save, save_file
from torch import Tensor, nn

Write = Callable[[Path, dict[str, Tensor]], Path]


@dataclass(frozen=True)
class FileCase:
    """A file, and what loading it says: a pattern of the error, or what was peeled off."""

    name: str
    write: Write
    says: str  # "" where nothing was peeled off
    loads: bool = False


class Scheduler:
    """A class that a training pickles into its checkpoint, and torch does not know."""

    last_epoch = 3


def _saved(make: Callable[[dict[str, Tensor]], Any], name: str = "model.pth", **how: Any) -> Write:
    def write(folder: Path, state: dict[str, Tensor]) -> Path:
        torch.save(make(state), folder / name, **how)
        return folder / name

    return write


def _bytes(content: bytes, name: str = "model.pth") -> Write:
    def write(folder: Path, state: dict[str, Tensor]) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def _cut(name: str) -> Write:
    def write(folder: Path, state: dict[str, Tensor]) -> Path:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        whole = save(state) if name.endswith(".safetensors") else buffer.getvalue()
        (folder / name).write_bytes(whole[: len(whole) * 2 // 3])
        return folder / name

    return write


def _prefixed(prefix: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {prefix + key: value for key, value in state.items()}


def _around(key: str, **more: Any) -> Callable[[dict[str, Tensor]], dict[str, Any]]:
    return lambda state: {"epoch": 3, key: state, **more}


def _with_nan(state: dict[str, Tensor]) -> dict[str, Tensor]:
    key = next(iter(state))
    return {**state, key: torch.full_like(state[key], float("nan"))}


def _lightning(state: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        "epoch": 3,
        "global_step": 900,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": {f"model.sam.{key}": value for key, value in state.items()},
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}],
        "lr_schedulers": [],
        "hyper_parameters": {"rate": 1e-4},
    }


def _torchscript(folder: Path, state: dict[str, Tensor]) -> Path:
    torch.jit.script(nn.Linear(2, 2)).save(str(folder / "model.pt"))
    return folder / "model.pt"


def _zip_of_a_file(folder: Path, state: dict[str, Tensor]) -> Path:
    with zipfile.ZipFile(folder / "model.pth", "w") as file:
        file.writestr("sam_vit_b.pth", b"...")
    return folder / "model.pth"


def _safetensors(
    make: Callable[[dict[str, Tensor]], dict[str, Tensor]], name: str = "model.safetensors"
) -> Write:
    def write(folder: Path, state: dict[str, Tensor]) -> Path:
        save_file(make(state), folder / name)
        return folder / name

    return write


def _folder(config: str | None, name: str, content: bytes) -> Write:
    def write(folder: Path, state: dict[str, Tensor]) -> Path:
        if config is not None:
            (folder / "config.json").write_text(config)
        (folder / name).write_bytes(content)
        return folder

    return write


def _package(folder: Path, state: dict[str, Tensor]) -> Path:
    (folder / "sam.mlpackage").mkdir()
    return folder / "sam.mlpackage"


_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 375042383\n"
_PAGE = b"\n<!DOCTYPE html><html><head><title>Sign in</title></head></html>"
_OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]}
_SAM = json.dumps({"model_type": "sam"})

LOADS = tuple(
    FileCase(name, write, says, loads=True)
    for name, write, says in (
        ("plain", _saved(dict), ""),
        ("MedSAM: model, optimizer", _saved(_around("model", optimizer=_OPTIMIZER)), "'model'"),
        ("state_dict", _saved(_around("state_dict")), "'state_dict'"),
        (
            "micro-sam: model_state",
            _saved(_around("model_state", optimizer_state=_OPTIMIZER, init={"a": 1})),
            "'model_state', left out: epoch, init, optimizer_state",
        ),
        (
            "PyTorch's tutorial: model_state_dict, loss",
            _saved(_around("model_state_dict", loss=torch.tensor(0.5))),
            "'model_state_dict', left out: epoch, loss",
        ),
        ("Lightning .ckpt", _saved(_lightning, "last.ckpt"), "without 'model.sam.'"),
        ("module. (DataParallel)", _saved(_prefixed("module.")), "without 'module.'"),
        ("_orig_mod. (compile)", _saved(_prefixed("_orig_mod.")), "without '_orig_mod.'"),
        (
            "module._orig_mod.model.",
            _saved(_prefixed("module._orig_mod.model.")),
            "'_orig_mod.' and 'module.' inside; names without 'module.model.'",
        ),
        (
            "only the encoder compiled",
            _saved(
                lambda s: {
                    k.replace("image_encoder.", "image_encoder._orig_mod."): v for k, v in s.items()
                }
            ),
            "'_orig_mod.' and 'module.' inside",
        ),
        ("state in state", _saved(lambda s: {"model": {"state_dict": s}}), "'state_dict'"),
        ("legacy pickle", _saved(dict, _use_new_zipfile_serialization=False), ""),
        ("prefixed safetensors", _safetensors(_prefixed("sam.")), "without 'sam.'"),
        ("name.pth.tar", _saved(_around("state_dict"), "best.pth.tar"), "'state_dict'"),
    )
)
REFUSED = tuple(
    FileCase(name, write, says)
    for name, write, says in (
        ("Git LFS pointer", _bytes(_POINTER), "Git LFS pointer.*git lfs pull"),
        ("LFS pointer .safetensors", _bytes(_POINTER, "m.safetensors"), "Git LFS pointer"),
        ("web page", _bytes(_PAGE), "web page.*browser"),
        ("web page .safetensors", _bytes(_PAGE, "m.safetensors"), "web page"),
        ("JSON of a server", _bytes(b'{"error": "not found"}'), "JSON text"),
        ("empty", _bytes(b""), "is empty"),
        ("empty .safetensors", _bytes(b"", "m.safetensors"), "is empty"),
        ("cut zip", _cut("model.pth"), "is cut off.*[Dd]ownload"),
        ("cut safetensors", _cut("model.safetensors"), r"is cut off: it has [\d,]+ of its"),
        ("NaN", _saved(_with_nan), "NaN or infinity in 1 of"),
        ("NaN safetensors", _safetensors(_with_nan), "NaN or infinity in 1 of"),
        ("pickle of pickle", _bytes(pickle.dumps({"a": 1})), "pickle that torch.save did not"),
        (
            "foreign class",
            _saved(lambda s: {"state_dict": s, "scheduler": Scheduler()}, "last.ckpt"),
            r"holds a \S*Scheduler.*weights_only=False.*torch\.save\(checkpoint",
        ),
        ("two sets", _saved(lambda s: {"model": s, "ema": s}), "weights under ema, model"),
        (
            "a weight beside",
            _saved(lambda s: {"model": s, "head": torch.zeros(3)}),
            "'model' and beside it: head",
        ),
        (
            "a loss with weights",
            _saved(lambda s: {**_prefixed("sam.")(s), "loss.weight": torch.zeros(3)}),
            "SAM under 'sam.' and other weights beside it: loss.weight",
        ),
        (
            "LoRA",
            _saved(lambda s: {**s, "image_encoder.blocks.0.lora_A.weight": torch.zeros(3)}),
            "LoRA adapters.*merge_and_unload",
        ),
        ("ONNX", _bytes(b"\x08\x07", "sam.onnx"), "is an ONNX graph"),
        ("TensorRT", _bytes(b"ftrt", "sam.engine"), "TensorRT engine"),
        ("GGUF", _bytes(b"GGUF\3\0", "sam.gguf"), "GGUF file"),
        ("GGUF as .pth", _bytes(b"GGUF\3\0"), "GGUF file"),
        ("Core ML", _package, "Core ML package"),
        ("TorchScript", _torchscript, r"is TorchScript.*torch\.jit\.load"),
        ("zip of a checkpoint", _zip_of_a_file, "zip archive of sam_vit_b.pth: unpack"),
        ("gzip", _bytes(b"\x1f\x8b\x08\0"), "is an archive: unpack"),
        ("folder with pointer", _folder(_SAM, "model.safetensors", _POINTER), "Git LFS pointer"),
        (
            "folder without config",
            _folder(None, "sam_vit_b.pth", b"..."),
            r'no config\.json.*from_pretrained\(".*sam_vit_b\.pth"\)',
        ),
        (
            "index without its shards",
            _folder(
                _SAM,
                "model.safetensors.index.json",
                b'{"weight_map": {"a": "model-00001-of-00002.safetensors"}}',
            ),
            "no file .*model-00001-of-00002.safetensors",
        ),
        ("an image", _bytes(b"\x89PNG\r\n", "a.png"), "ends in '.png'; wanted"),
    )
)
