"""Exponential moving average of the weights (EMA), which is evaluated and exported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .sharding import local_part


class WeightAverage:
    """Moving average of the trained parameters of a module, in float32.

    Update n computes `average = d * average + (1 - d) * weights`, as TensorFlow's
    `ExponentialMovingAverage`.

    Attributes:
        updates: Number of updates so far.
        shadow: Parameter name -> average, sharded like the parameter under FSDP2.
    """

    def __init__(self, module: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._live = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.shadow: dict[str, Tensor] = {n: p.detach().clone() for n, p in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the current weights."""
        self.updates += 1
        # Lower at the start: the nearly random first weights would take 1 / (1 - decay) steps to
        # be forgotten.
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in self._live.items():
            local_part(self.shadow[name]).lerp_(local_part(parameter), 1 - decay)

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor], *, updates: int) -> None:
        """Load an average; each tensor is sharded like its parameter."""
        self.updates = updates
        for name, shadow in self.shadow.items():
            local_part(shadow).copy_(local_part(values[name]))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Swap the average into the module, and the weights back on exit."""
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
