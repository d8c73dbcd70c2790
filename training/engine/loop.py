"""A small training loop: seeded, resumable, atomic checkpoints.

Step n draws everything from (seed, n), so a run that is killed and started again goes on as if
nothing had happened; tests/training/engine/test_loop.py holds it to that.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LoopConfig", "learning_rate_factor", "load_checkpoint", "run", "save_checkpoint"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Length, schedule and files of a run.

    The rate warms up linearly (the paper: 250 steps), stays, and falls linearly to zero over the
    last `decay` share of the steps, so that a run can be prolonged from any checkpoint before it.
    """

    steps: int
    warmup: int = 250
    decay: float = 0.25
    clip_norm: float = 1.0
    checkpoint_every: int = 100
    log_every: int = 20
    seconds: float = float("inf")


def learning_rate_factor(step: int, *, config: LoopConfig) -> float:
    """Share of the full rate at a step: warm-up, plateau, linear decay to zero."""
    rise = min(1.0, (step + 1) / max(1, config.warmup))
    fall = (config.steps - step) / max(1.0, config.decay * config.steps)
    return max(0.0, min(rise, fall))


def run(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step_loss: Callable[[int], tuple[Tensor, Mapping[str, float]]],
    *,
    config: LoopConfig,
    folder: Path,
    on_checkpoint: Callable[[int], None] | None = None,
) -> int:
    """Train until `config.steps` or `config.seconds`, resuming from `folder` if it can.

    Args:
        model: What is trained; its whole state is in the checkpoint.
        optimizer: Its groups have a `base_lr`.
        step_loss: Loss of step n and figures to log; all its randomness comes from n.
        config: Schedule.
        folder: Takes `checkpoint.pt`, `checkpoint-previous.pt` and `log.jsonl`.
        on_checkpoint: Called with the step after each checkpoint.

    Returns:
        The number of steps done in all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    step = load_checkpoint(folder, model, optimizer)
    if step:
        logger.info("resuming %s at step %d", folder, step)
    figures: dict[str, float] = {}
    started, count = time.monotonic(), 0
    while step < config.steps and time.monotonic() - started < config.seconds:
        factor = learning_rate_factor(step, config=config)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        optimizer.zero_grad(set_to_none=True)
        loss, values = step_loss(step)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        if torch.isfinite(norm):
            optimizer.step()
        else:
            logger.warning("step %d: gradient is not finite, skipped", step)
        step += 1
        count += 1
        for name, value in {"loss": loss.item(), "norm": norm.item(), **values}.items():
            figures[name] = figures.get(name, 0.0) + value
        if step % config.log_every == 0 or step == config.steps:
            means = {name: round(total / count, 4) for name, total in figures.items()}
            seconds = round(time.monotonic() - started, 1)
            _log(folder, {"step": step, "seconds": seconds, "rate": round(factor, 4), **means})
            figures, count = {}, 0
        if step % config.checkpoint_every == 0 or step == config.steps:
            save_checkpoint(folder, step, model, optimizer)
            if on_checkpoint is not None:
                on_checkpoint(step)
    return step


def save_checkpoint(
    folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Write `checkpoint.pt` atomically; the one before stays as `checkpoint-previous.pt`."""
    current, previous = folder / "checkpoint.pt", folder / "checkpoint-previous.pt"
    fresh = folder / "checkpoint.tmp"
    with fresh.open("wb") as file:
        torch.save(
            {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, file
        )
        file.flush()
        os.fsync(file.fileno())
    if current.exists():
        os.replace(current, previous)
    os.replace(fresh, current)


def load_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> int:
    """Load the newest readable checkpoint of `folder`; 0 if there is none."""
    for name in ("checkpoint.pt", "checkpoint-previous.pt"):
        path = folder / name
        if not path.exists():
            continue
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError) as error:
            logger.warning("%s cannot be read (%s); trying the one before", path, error)
            continue
        model.load_state_dict(state["model"])
        if optimizer is not None:
            optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])
    return 0


def _log(folder: Path, record: Mapping[str, Any]) -> None:
    line = json.dumps(record)
    logger.info("%s", line)
    with (folder / "log.jsonl").open("a") as file:
        file.write(line + "\n")
