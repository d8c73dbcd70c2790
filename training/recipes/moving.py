"""A value made of tensors, on another device."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ["on_device"]

T = TypeVar("T")


def on_device(value: T, device: torch.device | str) -> T:
    """A copy of a frozen dataclass, tuple or tensor with every tensor in it on a device."""
    moved: Any = value
    if isinstance(value, Tensor):
        moved = value.to(device, non_blocking=True)
    elif isinstance(value, tuple):
        moved = tuple(on_device(item, device) for item in value)
    elif is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: on_device(getattr(value, f.name), device) for f in fields(value)}
        moved = replace(value, **parts)
    return moved
