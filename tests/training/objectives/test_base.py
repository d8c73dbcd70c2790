"""Frozen parts: no gradient, evaluation mode, and not in the state."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from training.objectives.base import LossOutput, Objective, mean_where, touch


class _Two(Objective):
    PARTS: ClassVar[dict[str, str]] = {"a": "net.a", "b": "net.b"}

    def __init__(self, frozen: tuple[str, ...] = (), *, fixed_norms: bool = True) -> None:
        super().__init__()
        self.net = nn.ModuleDict(
            {"a": nn.Sequential(nn.Linear(2, 2), nn.Dropout()), "b": nn.BatchNorm1d(2)}
        )
        self.freeze(frozen, fixed_norms=fixed_norms)

    def forward(self, batch: Any) -> LossOutput:
        return LossOutput(self.net["b"](self.net["a"](batch)).sum(), {})

    def rates(self) -> list[Any]:
        return []


def test_frozen_parts_stay_in_evaluation_mode_and_get_no_gradient() -> None:
    objective = _Two(("a",), fixed_norms=False).train()
    assert not objective.net["a"][1].training and objective.net["b"].training
    objective(torch.randn(4, 2)).loss.backward()
    assert objective.net["a"][0].weight.grad is None and objective.net["b"].weight.grad is not None
    assert objective.trained() == ("b",)
    objective.eval()
    assert not objective.net["b"].training


def test_norms_keep_their_statistics() -> None:
    objective = _Two().train()
    before = objective.net["b"].running_mean.clone()
    objective(torch.randn(4, 2) + 3)
    assert torch.equal(objective.net["b"].running_mean, before)
    assert objective.net["a"].training
    free = _Two(fixed_norms=False).train()
    free(torch.randn(4, 2) + 3)
    assert not torch.equal(free.net["b"].running_mean, before)


@pytest.mark.parametrize("wrapped", [False, True])
def test_state_holds_what_is_trained_and_loads_again(wrapped: bool) -> None:
    torch.manual_seed(0)
    first, second = _Two(("a",)), _Two(("a",))
    second.load_state_dict(_Two(("a",)).state_dict())
    own = second.net["a"][0].weight.clone()
    first.net["b"].weight.data.fill_(7)
    one: nn.Module = nn.ModuleDict({"module": first}) if wrapped else first
    two: nn.Module = nn.ModuleDict({"module": second}) if wrapped else second
    state = one.state_dict()
    assert state and all("net.b." in key for key in state)
    two.load_state_dict(state)
    assert torch.equal(second.net["b"].weight, first.net["b"].weight)
    assert torch.equal(second.net["a"][0].weight, own)
    assert "0.weight" in first.net["a"].state_dict()  # the part itself is whole
    incomplete = {key: value for key, value in state.items() if "weight" not in key}
    with pytest.raises(RuntimeError, match="Missing key"):
        two.load_state_dict(incomplete)


def test_a_copy_freezes_its_own_parts() -> None:
    objective = _Two(("a",))
    other = copy.deepcopy(objective).train()
    objective.net["a"][1].train()
    assert not other.net["a"][1].training
    other.net["a"][0].weight.data.fill_(2)
    other.load_state_dict(objective.state_dict())
    assert (other.net["a"][0].weight == 2).all()


def test_what_cannot_be_frozen_is_named() -> None:
    with pytest.raises(ValueError, match=r"no parts \['c'\].*\['a', 'b'\]"):
        _Two(("c",))
    with pytest.raises(ValueError, match="all parts are frozen"):
        _Two(("a", "b"))


def test_touched_parameters_get_a_zero_gradient() -> None:
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    loss = touch(torch.tensor(3.0), [layer])
    loss.backward()
    assert loss.item() == 3 and torch.equal(layer.weight.grad, torch.zeros(2, 2))
    assert layer.bias.grad is None


def test_means_of_nothing_are_nan() -> None:
    values, rows = torch.tensor([1.0, 2.0, 9.0]), torch.tensor([True, True, False])
    assert mean_where(values, rows).item() == 1.5
    assert mean_where(values, torch.zeros(3, dtype=torch.bool)).isnan()
