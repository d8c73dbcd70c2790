"""Base of all objectives: their result, their parts, and which of them are frozen.

An objective is one module whose forward pass maps a batch to a loss, so DDP and FSDP synchronise
gradients by their ordinary hooks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..engine.optim import RatedPart


class LossOutput(NamedTuple):
    """A loss, the MEAN over the batch's `weight` items, and figures to log.

    For a batch with several kinds of items (masks, names) the loss is a dictionary with a mean for
    each kind; their sum is trained.

    A figure is a scalar without gradient, NaN if the batch has nothing to measure it on. All
    batches give the same figures, so that ranks can average them.
    """

    loss: Tensor | dict[str, Tensor]
    figures: dict[str, Tensor | float]


class Objective(nn.Module, ABC):
    """Base class of objectives.

    Frozen parts get no gradient, stay in evaluation mode and are not in `state_dict`: they come
    from the files that a run starts from. `load_state_dict` leaves them unchanged.
    """

    # Name of each part that can be frozen -> its path in the module.
    PARTS: ClassVar[dict[str, str]] = {}

    def __init__(self) -> None:
        super().__init__()
        self._frozen: tuple[str, ...] = ()
        self._still: list[nn.Module] = []
        self.register_state_dict_post_hook(_leave_out_frozen)
        self.register_load_state_dict_pre_hook(_fill_in_frozen)

    @abstractmethod
    def forward(self, batch: Any) -> LossOutput:
        """Loss of a batch."""

    @abstractmethod
    def rates(self) -> list[RatedPart]:
        """The trained parts and their shares of the engine's peak learning rate."""

    def part(self, name: str) -> nn.Module:
        """A part by its name in `PARTS`."""
        return self.get_submodule(self.PARTS[name])

    def trained(self) -> tuple[str, ...]:
        """Names of the parts that are not frozen."""
        return tuple(name for name, path in self.PARTS.items() if path not in self._frozen)

    def freeze(self, names: Iterable[str], *, fixed_norms: bool) -> None:
        """Freeze parts by their names in `PARTS`.

        `fixed_norms` keeps every BatchNorm in evaluation mode: with batch statistics the loss would
        depend on how a batch is split over ranks.
        """
        chosen = set(names)
        if unknown := sorted(chosen - set(self.PARTS)):
            raise ValueError(f"there are no parts {unknown} to freeze; wanted {list(self.PARTS)}")
        if chosen == set(self.PARTS):
            raise ValueError(f"all parts are frozen, {sorted(chosen)}: leave one out to train it")
        self._frozen = tuple(self.PARTS[name] for name in self.PARTS if name in chosen)
        frozen = [self.get_submodule(path) for path in self._frozen]
        for module in frozen:
            module.requires_grad_(False)
        norms = [m for m in self.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self._still = [*frozen, *(norms if fixed_norms else [])]
        self.train(self.training)

    def train(self, mode: bool = True) -> Objective:
        """Switch to training mode, except frozen parts and fixed norms."""
        super().train(mode)
        for module in self._still:
            module.eval()
        return self

    def left_out(self, key: str) -> bool:
        """Whether a key of the state belongs to a frozen part."""
        return key.startswith(tuple(f"{path}." for path in self._frozen))


def touch(loss: Tensor, modules: Iterable[nn.Module]) -> Tensor:
    """The same loss, with a gradient (of zero) for every trainable parameter of the modules.

    DDP waits for a gradient of each parameter, also of those that a batch does not use.
    """
    from torch.distributed.tensor import DTensor

    for module in modules:
        for parameter in module.parameters():
            # FSDP does not wait for the gradients of its shards.
            if parameter.requires_grad and not isinstance(parameter, DTensor):
                loss = loss + 0.0 * parameter.flatten()[:1].sum().to(loss)
    return loss


def mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen rows, (P,) and (P,) bool; NaN if there is none."""
    # Without `.item()`: no synchronisation with the device.
    picked = torch.where(chosen, values.detach().float(), 0.0)
    return picked.sum() / chosen.sum()


def _leave_out_frozen(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    assert isinstance(module, Objective)
    for key in list(state):
        if key.startswith(prefix) and module.left_out(key.removeprefix(prefix)):
            del state[key]


def _fill_in_frozen(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    assert isinstance(module, Objective)
    for name, child in module.named_children():
        for key, value in child.state_dict().items():
            whole = f"{name}.{key}"
            if module.left_out(whole):
                state.setdefault(prefix + whole, value)
