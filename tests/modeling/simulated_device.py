"""A GPU that is not there: tensors which say `cuda` and compute on the CPU.

Inside `simulated_gpu()` a model that is moved to "cuda" runs through the same code as on a GPU,
under the rules of CUDA and MPS together: tensors of the CPU and of the device do not mix, NumPy
sees no tensor of the device; there is no float64, and an operator which torch declares no MPS
kernel for is refused. Which ones have a kernel says torch's own table, `native_functions.yaml`.
The device is named after CUDA since torch lets no other one exist without its hardware.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.attention
import torchgen
import yaml
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

GPU = torch.device("cuda", 0)
aten = torch.ops.aten
# The keys of a kernel that serves every device.
_COMPOSITE = {
    "CompositeExplicitAutograd",
    "CompositeExplicitAutogradNonFunctional",
    "CompositeImplicitAutograd",
}
_MATH = int(torch.nn.attention.SDPBackend.MATH.value)
# Kernels for MPS that torchvision registers.
_ELSEWHERE = {"torchvision::nms", "torchvision::roi_align"}


class GpuTensor(torch.Tensor):
    """Looks like a tensor of the device; its values are in `inner`, a tensor of the CPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, real: torch.Tensor) -> GpuTensor:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[no-any-return, attr-defined]
            cls,
            real.shape,
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            device=GPU,
            requires_grad=real.requires_grad,
        )

    def __init__(self, real: torch.Tensor) -> None:
        self.inner = real

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run_as_gpu(func, args, kwargs or {})

    def data_ptr(self) -> int:
        """Of the values."""
        return self.inner.data_ptr()

    def tolist(self) -> Any:
        """Torch has none for subclasses."""
        return self.cpu().tolist()

    def __repr__(self, **_: Any) -> str:
        return f"GpuTensor({tuple(self.shape)}, {self.dtype})"


class _OnGpu(TorchDispatchMode):
    """Also sees what makes tensors of nothing: `torch.zeros(3, device="cuda")`."""

    def __init__(self, refused: list[str]) -> None:
        super().__init__()
        self.refused = refused

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            return run_as_gpu(func, args, kwargs or {})
        except (DeviceRuleError, TypeError) as error:
            self.refused.append(str(error))  # also where the code under test catches it
            raise


class DeviceRuleError(RuntimeError):
    """What a GPU does not do."""


@contextmanager
def simulated_gpu() -> Iterator[list[str]]:
    """The device; yields what it refused so far."""
    torch._C._ensureCUDADeviceGuardSet()  # type: ignore[attr-defined]  # as torch's fake tensors do
    refused: list[str] = []
    with (
        # A module's weights become other tensors, as they do when they move to a real device.
        patch.object(torch.__future__, "_overwrite_module_params_on_conversion", True),
        patch.object(torch.cuda, "is_available", return_value=True),
        patch.object(torch.cuda, "device_count", return_value=1),
        patch.object(torch.cuda, "_lazy_init"),
        torch.backends.cudnn.flags(enabled=False),
        _lifting_on_the_cpu(),
        _OnGpu(refused),
    ):
        yield refused


@contextmanager
def _lifting_on_the_cpu() -> Iterator[None]:
    """Let `torch.tensor([1, 2], device="cuda")` make a tensor of the CPU, then move it."""
    before = torch._C._only_lift_cpu_tensors()  # type: ignore[attr-defined]
    torch._C._set_only_lift_cpu_tensors(True)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch._C._set_only_lift_cpu_tensors(before)  # type: ignore[attr-defined]


def run_as_gpu(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operator by the rules of the device, if any of its tensors are there."""
    flat, _ = tree_flatten((args, kwargs))
    tensors = [each for each in flat if isinstance(each, torch.Tensor)]
    ours = [each for each in tensors if isinstance(each, GpuTensor)]
    device = kwargs.get("device")
    named = device is not None and torch.device(device).type == "cuda"
    if not ours and not named:
        return func(*args, **kwargs)
    if func in (aten._to_copy.default, aten.copy_.default):
        to_device = named or (device is None and bool(ours) and ours[0] is args[0])
    else:
        to_device = True
        _check_mixing(func, args, tensors, ours)
    _check_kernel(func)
    real_args, real_kwargs = tree_map(_real, (args, kwargs))
    if device is not None:
        real_kwargs["device"] = torch.device("cpu")
    if func is aten._fused_sdp_choice.default:
        return _MATH  # the fused kernels of a GPU cannot run here
    result = func(*real_args, **real_kwargs)
    if not to_device:
        return args[0] if func is aten.copy_.default else result
    return _wrapped(result, ours)


def _check_mixing(func: Any, args: Any, tensors: list[torch.Tensor], ours: list[GpuTensor]) -> None:
    strangers = [each for each in tensors if not isinstance(each, GpuTensor) and each.ndim]
    # Places may be named by a tensor of the CPU, on every device.
    if strangers and not (
        func.overloadpacket in (aten.index, aten.index_put_) and ours[0] is args[0]
    ):
        raise DeviceRuleError(
            f"{func}: tensors on cpu {[tuple(t.shape) for t in strangers]} "
            f"and gpu {[tuple(t.shape) for t in ours]}"
        )


def _check_kernel(func: Any) -> None:
    name = func._schema.name
    overload = func._schema.overload_name
    if not has_mps_kernel(name, overload):
        raise DeviceRuleError(f"{name}.{overload or 'default'} has no kernel for MPS")


def _wrapped(result: Any, ours: list[GpuTensor]) -> Any:
    """Tensors of a result on the device; what was changed in place is the tensor that it was."""
    flat, spec = tree_flatten(result)
    known = {id(each.inner): each for each in ours}
    out = []
    for each in flat:
        if isinstance(each, torch.Tensor):
            if each.dtype in (torch.float64, torch.complex128):
                raise TypeError(f"Cannot convert a MPS Tensor to {each.dtype}: there is no float64")
            each = known[id(each)] if id(each) in known else GpuTensor(each)
        out.append(each)
    return tree_unflatten(out, spec)


def _real(value: Any) -> Any:
    return value.inner if isinstance(value, GpuTensor) else value


def has_mps_kernel(name: str, overload: str) -> bool:
    """Whether torch declares that an operator runs on MPS."""
    if not name.startswith("aten::"):
        return name in _ELSEWHERE
    full = name.removeprefix("aten::") + (f".{overload}" if overload else "")
    entry = _declared().get(full)
    if entry is None:
        return True  # made of a declared one by the generator of code, for every device
    if delegate := entry.get("structured_delegate"):
        entry = _declared()[delegate]
    dispatch = entry.get("dispatch")
    if dispatch is None:
        return True  # composed of others
    keys = {key.strip() for keys in dispatch for key in keys.split(",")}
    return bool(keys & (_COMPOSITE | {"MPS"}))


@cache
def _declared() -> dict[str, Any]:
    """Operators by name and overload, as torch declares them."""
    folder = Path(torchgen.__file__).parent / "packaged/ATen/native"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = (folder / "native_functions.yaml").read_text(encoding="utf-8")
    entries = yaml.load(text, Loader=loader)
    return {entry["func"].partition("(")[0]: entry for entry in entries}
