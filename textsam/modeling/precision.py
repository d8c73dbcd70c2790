"""Where a model computes and how precisely: devices and types by name, encoders in half precision.

Only image encoders are put in half precision, since they hold nearly all weights and take nearly
all time. Prompts stay float32 as in training: bfloat16 would round a coordinate to 4 pixels of
1024. Everything around an encoder goes on in float32, whose inputs and outputs are cast.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import fields, is_dataclass, replace
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from textsam.errors import WeightsError

__all__ = [
    "DTYPES",
    "choose_device",
    "choose_dtype",
    "compilable",
    "compile_networks",
    "find_dtype",
    "in_float32",
    "set_encoder_dtype",
]

Args = ParamSpec("Args")
Answer = TypeVar("Answer")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "half": "float16"}


def choose_device(name: str | torch.device) -> torch.device:
    """The device of a name; "auto" is a GPU if torch can use one (cuda, mps), else the CPU.

    Raises:
        WeightsError: There is no such device, or torch cannot use it here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise WeightsError(
            f"cannot use device {str(name)!r}; wanted auto, cpu, cuda, cuda:1, mps, or a type: "
            f"{', '.join(DTYPES)}"
        ) from error
    if (why := _why_not(device)) is not None:
        raise WeightsError(f'cannot use device {str(name)!r}: {why}. Type: device="auto"')
    return device


def _why_not(device: torch.device) -> str | None:
    """Why torch cannot use a device, or None if it can."""
    kind = device.type
    if kind == "cpu":
        return None
    if kind == "cuda":
        if not torch.backends.cuda.is_built():
            return "this torch is built without CUDA; https://pytorch.org has one for it"
        if not torch.cuda.is_available():
            return "torch sees no NVIDIA GPU here, or no driver for it"
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            return "there is one GPU, cuda:0" if count == 1 else f"there are {count} GPUs"
        return None
    if kind == "mps":
        if not torch.backends.mps.is_built():
            return "this torch is built without MPS, which is for Macs"
        return None if torch.backends.mps.is_available() else "torch sees no Apple GPU here"
    module: Any = getattr(torch, kind, None)  # torch.xpu, torch.mtia; "meta" has none
    is_available = getattr(module, "is_available", None)
    return None if is_available is not None and is_available() else f"torch sees no {kind} here"


def find_dtype(name: str | torch.dtype | torch.device) -> torch.dtype | None:
    """The type that a name means ("bfloat16", "bf16", "torch.bfloat16"), or None."""
    if isinstance(name, str):
        name = name.removeprefix("torch.")
        return DTYPES.get(_SHORT.get(name, name))
    return name if isinstance(name, torch.dtype) else None


def choose_dtype(name: str | torch.dtype) -> torch.dtype:
    """The floating type of a name, one of those that encoders can compute in."""
    dtype = find_dtype(name)
    if dtype not in DTYPES.values():
        raise WeightsError(f"cannot compute in dtype {str(name)!r}; wanted {', '.join(DTYPES)}")
    assert dtype is not None
    return dtype


def set_encoder_dtype(encoder: nn.Module, dtype: torch.dtype) -> None:
    """Put an encoder's weights in a type; it goes on taking and giving float32."""
    encoder.to(dtype)
    # Hooks, since adapters run an encoder deep inside another project's network.
    if not getattr(encoder, "_casts", False):
        encoder.register_forward_pre_hook(_cast_inputs, with_kwargs=True)
        encoder.register_forward_hook(_cast_outputs)
        encoder._casts = True  # type: ignore[assignment]


def compilable(function: Callable[Args, Answer]) -> Callable[Args, Answer]:
    """Let `compile_networks` compile a function whose first argument is a network, for it alone."""

    @wraps(function)
    def run(*args: Args.args, **kwargs: Args.kwargs) -> Answer:
        compiled = vars(args[0]).get("_compiled")
        if compiled is None:
            return function(*args, **kwargs)
        name = function.__name__
        if name not in compiled:
            compiled[name] = torch.compile(function)
        answer: Answer = compiled[name](*args, **kwargs)
        return answer

    return run


def compile_networks(core: Any, device: torch.device) -> None:
    """Compile a core's image encoder and mask decoder when they first run.

    The decoder is compiled for one prompt and for any number of them. Of another project's core the
    encoder alone is compiled. Names of weights stay as they are.

    Raises:
        WeightsError: Torch finds no compiler for the device.
    """
    if (why := _why_not_compile(device)) is not None:
        raise WeightsError(f"cannot compile for {device.type}: {why}. Or leave out compile")
    core.image_encoder.compile()  # in place: `torch.compile(encoder)` would rename the weights
    if (decoder := getattr(core, "mask_decoder", None)) is not None:
        decoder._compiled = {}


def _why_not_compile(device: torch.device) -> str | None:
    """What torch's compiler lacks here and what to type, or None; without compiling anything."""
    if device.type == "cuda":
        return None if find_spec("triton") else "Triton is not installed. Type: pip install triton"
    # Its kernels for a CPU are C++, which includes Python's headers.
    usual = "clang++" if sys.platform == "darwin" else "cl" if sys.platform == "win32" else "g++"
    compiler = os.environ.get("CXX", usual)
    if shutil.which(compiler) is None:
        return f"there is no C++ compiler {compiler!r}. Type: apt install g++, or set CXX"
    headers = Path(sysconfig.get_paths()["include"])
    if not (headers / "Python.h").exists():
        return f"there is no Python.h in {headers}. Type: apt install python3-dev"
    return None


def in_float32(function: Callable[Args, Answer]) -> Callable[Args, Answer]:
    """Let a function compute as it was tested, whatever the caller's torch is set to.

    A float64 default and autocast are for the caller's own networks; inside, float32 is the default
    and autocast is off. Encoders in half precision stay so.
    """

    @wraps(function)
    def run(*args: Args.args, **kwargs: Args.kwargs) -> Answer:
        usual = torch.get_default_dtype()
        casting = [kind for kind in ("cpu", "cuda", "mps") if torch.is_autocast_enabled(kind)]
        if usual == torch.float32 and not casting:
            return function(*args, **kwargs)
        with ExitStack() as stack:
            for kind in casting:
                stack.enter_context(torch.autocast(kind, enabled=False))
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, usual)
            return function(*args, **kwargs)

    return run


def _cast_inputs(
    encoder: nn.Module, args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[Any, Any]:
    dtype = next(encoder.parameters()).dtype
    return _cast(args, dtype), _cast(options, dtype)


def _cast_outputs(encoder: nn.Module, args: Any, output: Any) -> Any:
    return _cast(output, torch.float32)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """The floating tensors in a value, at any depth, in another type."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if is_dataclass(value) and not isinstance(value, type):
        parts = {each.name: _cast(getattr(value, each.name), dtype) for each in fields(value)}
        return replace(value, **parts)
    if isinstance(value, Mapping):
        return {key: _cast(item, dtype) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_cast(item, dtype) for item in value)
    return value
