"""The state of a run, captured for and restored from a checkpoint, and its averaged weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoint import CheckpointError
from .engine_config import EngineConfig
from .optim import rate_factor
from .run_records import FigureMeans
from .sharding import from_whole, local_part, whole, whole_state

# Fields that decide the numbers of every step; the schedule's are compared by its rates.
_SETTINGS = (
    *("seed", "peak_rate", "weight_decay", "betas", "clip_norm", "accumulation", "precision"),
    "ema_decay",
)
_SCHEDULE = ("steps", "warmup", "schedule", "milestones", "tail")


class WeightAverage:
    """Moving average of the trained parameters of a module, in float32.

    Update n computes `average = d * average + (1 - d) * weights`, as TensorFlow's
    `ExponentialMovingAverage`. It is what is evaluated and exported.
    """

    def __init__(self, module: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._live = {n: p for n, p in module.named_parameters() if p.requires_grad}
        # Sharded like the parameters under FSDP2.
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


@dataclass(kw_only=True)
class RunState:
    """A run between two steps.

    States of random generators are not part of it: every step seeds them from (seed, step, rank).
    Nor is a position in the data: `ViewLoader` makes batch n from (seed, n).
    """

    objective: nn.Module  # what is trained, without DDP's wrapper
    optimizer: torch.optim.Optimizer  # of its parameters
    average: WeightAverage | None  # of its weights, or None
    scaler: Any = None  # of the loss in fp16, or None
    step: int = 0  # steps done
    skipped: int = 0  # steps that changed nothing, since their gradient was not finite
    window: FigureMeans = field(default_factory=FigureMeans)  # figures since the last record

    def capture(
        self, total: Callable[[Sequence[float]], list[float]], *, keep: bool
    ) -> dict[str, Any]:
        """The state as whole tensors on the CPU; every process must call it, `keep` in one."""
        average = self.average
        return {
            "step": self.step,
            "skipped": self.skipped,
            "window": self.window.totals(total),
            "model": whole_state(self.objective, keep=keep),
            "optimizer": whole(self.optimizer.state_dict(), keep=keep),
            "average": {} if average is None else whole(average.shadow, keep=keep),
            "updates": 0 if average is None else average.updates,
            "scaler": {} if self.scaler is None else self.scaler.state_dict(),
        }

    def restore(self, saved: Mapping[str, Any], *, keep_window: bool) -> None:
        """Restore what `capture` returned; each process takes its own shards.

        Only the main process has `keep_window`: the sums of the others start at zero.
        """
        self.step, self.skipped = int(saved["step"]), int(saved["skipped"])
        if keep_window:
            self.window.sums = {name: list(total) for name, total in saved["window"].items()}
        # Shapes and shards as in this process.
        like = self.objective.state_dict()
        self.objective.load_state_dict(
            {n: from_whole(v, like[n]) if n in like else v for n, v in saved["model"].items()}
        )
        self._restore_optimizer(saved["optimizer"])
        if self.average is not None:
            shadow = self.average.shadow
            values = {n: from_whole(saved["average"][n], shadow[n]) for n in shadow}
            self.average.load(values, updates=int(saved["updates"]))
        if self.scaler is not None:
            self.scaler.load_state_dict(saved["scaler"])

    def _restore_optimizer(self, saved: Mapping[str, Any]) -> None:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        state = {
            index: {
                name: from_whole(value, parameters[index]) if isinstance(value, Tensor) else value
                for name, value in values.items()
            }
            for index, values in saved["state"].items()
        }
        self.optimizer.load_state_dict({"state": state, "param_groups": saved["param_groups"]})


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """What identifies a run; checkpoints of another run are refused."""

    objective: str  # class of the objective, and the text of its `config` if it has one
    shapes: dict[str, list[int]]  # name -> shape of each trained parameter, before sharding
    config: EngineConfig  # of the engine
    others: str  # text of everything else that the numbers depend on, e.g. the loader's settings

    @classmethod
    def of(cls, objective: nn.Module, *, config: EngineConfig, others: str) -> RunIdentity:
        """The identity of a run that is about to start."""
        settings = getattr(objective, "config", None)
        return cls(
            objective=f"{type(objective).__name__}({'' if settings is None else settings})",
            shapes={n: list(p.shape) for n, p in objective.named_parameters() if p.requires_grad},
            config=config,
            others=others,
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain values for a checkpoint."""
        return {
            "objective": self.objective,
            "shapes": self.shapes,
            "others": self.others,
            "config": {
                item.name: _plain(getattr(self.config, item.name)) for item in fields(self.config)
            },
        }

    def check(self, saved: Mapping[str, Any], *, step: int, path: object) -> None:
        """Refuse a checkpoint of another run.

        `steps` and the schedule may differ as long as every step so far had the same rate.
        """
        mine = self.to_dict()
        differences = [
            f"{name}={saved['config'].get(name)!r}, not {mine['config'][name]!r}"
            for name in _SETTINGS
            if saved["config"].get(name) != mine["config"][name]
        ]
        # Every rate so far is recomputed, so any change that leaves them equal is allowed.
        before = {name: saved["config"][name] for name in _SCHEDULE}
        before["milestones"] = tuple(before["milestones"])
        old = replace(self.config, **before)
        if any(
            rate_factor(n, config=old) != rate_factor(n, config=self.config) for n in range(step)
        ):
            changed = [n for n in _SCHEDULE if before[n] != getattr(self.config, n)]
            differences.append(f"other rates up to step {step} ({', '.join(changed)} changed)")
        for name in ("objective", "others"):
            if saved[name] != mine[name]:
                differences.append(f"{name} {saved[name]}, not {mine[name]}")
        names = saved["shapes"].keys() | mine["shapes"].keys()
        other = sorted(n for n in names if saved["shapes"].get(n) != mine["shapes"].get(n))
        if other:
            differences.append(f"other trained parameters, e.g. {other[:3]}")
        if differences:
            raise CheckpointError(
                f"{path} is of another run: it has {'; '.join(differences)}. Start it with the "
                "settings it had, or train in an empty folder"
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
