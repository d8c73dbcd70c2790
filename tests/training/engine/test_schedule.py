"""Exact numbers of the three schedules."""

from __future__ import annotations

import pytest

from training.engine import EngineConfig, rate_factor
from training.engine.optim import milestone_steps


def test_the_paper_s_steps() -> None:
    config = EngineConfig(steps=90_000)
    assert milestone_steps(config) == (60_000, 86_666)
    wanted = {
        0: 1 / 250,
        124: 0.5,
        249: 1.0,
        59_999: 1.0,
        60_000: 0.1,
        86_665: 0.1,
        86_666: 0.01,
        89_999: 0.01,
    }
    for step, factor in wanted.items():
        assert rate_factor(step, config=config) == pytest.approx(factor, rel=1e-12), step


def test_the_milestones_scale_with_the_run() -> None:
    assert milestone_steps(EngineConfig(steps=180_000)) == (120_000, 173_332)  # ViT-B and ViT-L


def test_the_linear_tail() -> None:
    config = EngineConfig(steps=1000, warmup=100, schedule="linear", tail=0.2)
    rates = [rate_factor(step, config=config) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[99] == rates[800] == 1.0
    assert rates[900] == pytest.approx(0.5)
    assert rates[950] == pytest.approx(0.25)
    assert rates[1000] == 0.0


def test_the_cosine_tail() -> None:
    config = EngineConfig(steps=1000, warmup=0, schedule="cosine", tail=0.5)
    rates = [rate_factor(step, config=config) for step in range(1001)]
    assert rates[0] == rates[500] == 1.0
    assert rates[750] == pytest.approx(0.5)
    assert rates[625] == pytest.approx(0.5 + 0.5 * 2**-0.5)
    assert rates[1000] == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps=0; wanted at least 1"),
        ({"accumulation": 0}, "accumulation=0"),
        ({"evaluate_every": 0}, "evaluate_every=0; wanted at least 1, or None"),
        ({"clip_norm": 0.0}, "clip_norm=0.0; wanted more than 0"),
        ({"ema_decay": 1.0}, "ema_decay=1.0; wanted 0 to below 1"),
        ({"milestones": (60_000,)}, "wanted shares of the run"),
        ({"schedule": "step"}, "schedule='step'; wanted"),
    ],
)
def test_settings_that_cannot_be_meant(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EngineConfig(**{"steps": 10, **changes})  # type: ignore[arg-type]
