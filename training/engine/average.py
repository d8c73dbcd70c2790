"""Moving average of the weights (EMA): what is evaluated and exported, not what is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .sharding import local_part

__all__ = ["WeightAverage"]


class WeightAverage:
    """Average of the trained parameters of a module, kept in float32 beside it.

    After the n-th update `average = d * average + (1 - d) * weights`, where d is the decay, but at
    most (1 + n) / (10 + n): the weights of the first steps, which are nearly random, would take
    1 / (1 - decay) steps to be forgotten. (TensorFlow's `ExponentialMovingAverage`.)

    Attributes:
        updates: How many there were.
        shadow: Parameter name -> average, sharded like the parameter under FSDP2.
    """

    def __init__(self, module: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._live = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.shadow: dict[str, Tensor] = {n: p.detach().clone() for n, p in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights as they are."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in self._live.items():
            local_part(self.shadow[name]).lerp_(local_part(parameter), 1 - decay)

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor], *, updates: int) -> None:
        """Take over an average, each tensor sharded like the parameter."""
        self.updates = updates
        for name, shadow in self.shadow.items():
            local_part(shadow).copy_(local_part(values[name]))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average where the weights are, and the weights back at the end."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._live.items():
            live, shadow = local_part(parameter), local_part(self.shadow[name])
            kept = live.clone()
            live.copy_(shadow)
            shadow.copy_(kept)
