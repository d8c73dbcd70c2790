"""The learning rate at a step: warm-up, plateau, and one of three ways down."""

from __future__ import annotations

import math

from .engine_config import EngineConfig


def rate_factor(step: int, *, config: EngineConfig) -> float:
    """Share of the full rate at a step, counted from 0.

    The paper (arXiv 2304.02643, Appendix A): linear warm-up over 250 steps, a tenth of the peak
    from step 60,000 of 90,000, a hundredth from 86,666.
    """
    rise = min(1.0, (step + 1) / max(1, config.warmup))
    if config.schedule == "steps":
        return rise * 0.1 ** sum(step >= start for start in milestone_steps(config))
    left = min(1.0, max(0.0, (config.steps - step) / (config.tail * config.steps)))
    if config.schedule == "linear":
        return min(rise, left)
    return min(rise, 0.5 - 0.5 * math.cos(math.pi * left))


def milestone_steps(config: EngineConfig) -> tuple[int, ...]:
    """First step at each of the lower rates."""
    return tuple(round(share * config.steps) for share in config.milestones)
