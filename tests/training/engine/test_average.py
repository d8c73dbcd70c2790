"""The moving average's formula."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.engine.state import WeightAverage


def test_the_formula_with_its_warm_up() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 1.0)
    average = WeightAverage(module, decay=0.25)
    expected = 1.0
    for update, weight in enumerate((3.0, -2.0, 5.0, 7.0), start=1):
        nn.init.constant_(module.weight, weight)
        average.update()
        decay = min(0.25, (1 + update) / (10 + update))  # 2/11, then 0.25
        expected = decay * expected + (1 - decay) * weight
        assert average.shadow["weight"].item() == pytest.approx(expected)
    assert module.weight.item() == 7.0


def test_after_many_updates_the_decay_is_the_one_asked_for() -> None:
    module = nn.Linear(1, 1, bias=False)
    average = WeightAverage(module, decay=0.999)
    average.updates = 100_000
    nn.init.constant_(average.shadow["weight"], 0.0)
    nn.init.constant_(module.weight, 1.0)
    average.update()
    assert average.shadow["weight"].item() == pytest.approx(0.001, rel=1e-4)


def test_it_takes_the_place_of_the_weights_and_gives_it_back() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False))
    average = WeightAverage(module, decay=0.9)
    assert average.shadow.keys() == {"0.weight", "0.bias"}
    nn.init.zeros_(average.shadow["0.weight"])
    before = module[0].weight.clone()

    def fail() -> None:
        with average.in_place():
            assert torch.equal(module[0].weight, torch.zeros(2, 2))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.equal(module[0].weight, before)
    assert torch.equal(average.shadow["0.weight"], torch.zeros(2, 2))
