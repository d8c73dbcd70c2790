"""Networks without the random numbers that a checkpoint is about to replace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["no_random_fill"]

_FILLS = {
    torch.ops.aten.normal_.default,
    torch.ops.aten.uniform_.default,
    torch.ops.aten.bernoulli_.float,
}


class no_random_fill(TorchDispatchMode):  # noqa: N801
    """Context in which random in-place initialisation of tensors does nothing.

    Filling a small model at random takes longer than loading it. Buffers that are computed rather
    than drawn come out right, which they would not on the meta device.
    """

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Return the tensor untouched for the fills, run everything else."""
        if func in _FILLS:
            return args[0]
        return func(*args, **(kwargs or {}))
