"""Settings of a run: everything but what is trained and on which data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Optimisation, processes and files of a run.

    The defaults are ViT-H's (arXiv 2304.02643, Appendix A).
    """

    steps: int  # Number of optimizer steps
    seed: int = 0  # All randomness of step n on rank r comes from (seed, n, r)
    peak_rate: float = 8e-4  # Highest learning rate, of a part whose share is 1
    warmup: int = 250  # Steps of linear warm-up
    # What follows the warm-up: "steps" divides the rate by 10 at every milestone; "linear" and
    # "cosine" keep it and then lower it to zero over the last `tail` of the run
    schedule: Literal["steps", "linear", "cosine"] = "steps"
    # As shares of the run; the paper's are 60,000 and 86,666 of 90,000
    milestones: tuple[float, ...] = (60_000 / 90_000, 86_666 / 90_000)
    tail: float = 0.25  # As a share of the run; 1 lowers the rate from the first step
    weight_decay: float = 0.1  # Of matrices and kernels; vectors have none
    betas: tuple[float, float] = (0.9, 0.999)  # Of AdamW
    # Largest norm of the gradient, `inf` for no clipping. Not in the paper.
    clip_norm: float = 1.0
    accumulation: int = 1  # Global batches per step; step n takes batches n * accumulation on
    # Of the forward pass: "no" (float32), "bf16" or "fp16"; weights stay float32
    precision: Literal["no", "bf16", "fp16"] = "no"
    # Of the moving average of the weights, which is evaluated and exported in their place; None
    # for no average
    ema_decay: float | None = None
    # "ddp" copies the weights to every process, "fsdp2" shards them
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    # FSDP2 gathers blocks with at least this many trained parameters one by one and everything
    # else at once. A block of ViT-B has 7 million, one of our decoder 1.6.
    shard_size: int = 2_000_000
    cpu: bool = False  # Use the CPU even if there is a GPU
    checkpoint_every: int = 1000  # Steps between checkpoints
    keep: int = 2  # Number of checkpoints to keep
    log_every: int = 20  # Steps between records
    evaluate_every: int | None = None  # Steps between evaluations; None for one at the end
    seconds: float = float("inf")  # Time limit; the run then stops with a checkpoint
    # Seconds that processes wait for each other, e.g. while the first one evaluates
    timeout: float = 1800.0
    tensorboard: bool = True  # Also write event files

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
