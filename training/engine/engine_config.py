"""What decides how a run goes, apart from what is trained and on what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["EngineConfig"]


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Optimisation, processes and files of a run. The defaults are ViT-H's (RECIPE 4, Appendix A).

    Attributes:
        steps: Length of the run, in steps of the optimizer.
        seed: All randomness of step n on rank r comes from (seed, n, r).
        peak_rate: Learning rate at the plateau, of a part whose share is 1.
        warmup: Steps of linear rise.
        schedule: What follows the rise: "steps", /10 at every milestone; "linear" or "cosine", a
            plateau and then a fall to zero over the last `tail` of the run.
        milestones: As shares of the run; the paper's are 60,000 and 86,666 of 90,000.
        tail: As a share of the run. With 1 the fall starts at once.
        weight_decay: Of matrices and kernels; vectors have none.
        betas: Of AdamW.
        clip_norm: Greatest norm of the gradient, `inf` for any. Not in the paper.
        accumulation: Global batches that make one step; step n takes batches n * accumulation on.
        precision: "bf16" and "fp16" compute the forward pass in it; weights stay float32.
        ema_decay: Of the moving average of the weights, which is then what is evaluated and
            exported; None for no average.
        parallel: How several processes share the work: "ddp" copies the weights, "fsdp2" shards.
        shard_size: FSDP2 gathers blocks of at least so many trained parameters one by one, and
            everything else at once. 2 million: a block of ViT-B has 7, one of our decoder 1.6.
        cpu: Stay on the CPU even where there is a GPU.
        checkpoint_every: Steps between two checkpoints.
        keep: Checkpoints that are kept.
        log_every: Steps between two records.
        evaluate_every: Steps between two evaluations; None for one at the end.
        seconds: Stop, with a checkpoint, after so long.
        timeout: Seconds that processes wait for each other, e.g. while the first one evaluates.
        tensorboard: Write event files, too.
    """

    steps: int
    seed: int = 0
    peak_rate: float = 8e-4
    warmup: int = 250
    schedule: Literal["steps", "linear", "cosine"] = "steps"
    milestones: tuple[float, ...] = (60_000 / 90_000, 86_666 / 90_000)
    tail: float = 0.25
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = 1.0
    accumulation: int = 1
    precision: Literal["no", "bf16", "fp16"] = "no"
    ema_decay: float | None = None
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    shard_size: int = 2_000_000
    cpu: bool = False
    checkpoint_every: int = 1000
    keep: int = 2
    log_every: int = 20
    evaluate_every: int | None = None
    seconds: float = float("inf")
    timeout: float = 1800.0
    tensorboard: bool = True

    def __post_init__(self) -> None:
        counts = ("steps", "accumulation", "checkpoint_every", "keep", "log_every", "shard_size")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"EngineConfig: {name}={getattr(self, name)}; wanted at least 1")
        if self.evaluate_every is not None and self.evaluate_every < 1:
            raise ValueError(
                f"EngineConfig: evaluate_every={self.evaluate_every}; wanted at least 1, or None "
                "for one evaluation at the end"
            )
        for name in ("peak_rate", "clip_norm", "tail", "timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(f"EngineConfig: {name}={getattr(self, name)}; wanted more than 0")
        choices = {
            "schedule": ("steps", "linear", "cosine"),
            "precision": ("no", "bf16", "fp16"),
            "parallel": ("ddp", "fsdp2"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"EngineConfig: {name}={getattr(self, name)!r}; wanted {known}")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ValueError(f"EngineConfig: ema_decay={self.ema_decay}; wanted 0 to below 1")
        if not all(0 < share < 1 for share in self.milestones):
            raise ValueError(
                f"EngineConfig: milestones={self.milestones}; wanted shares of the run between 0 "
                f"and 1, e.g. {60_000 / 90_000:.3f} for step 60,000 of 90,000"
            )
