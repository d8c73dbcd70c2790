"""How fast a training step of `tiny` is here, and what it waits for.

    python -m training.studies.throughput ../shared/data/train/*.parquet --workers 0 1 2

For each number of loader workers: images and masks a second, the share of the time that the step
waits for its batch, and what the rest is spent on. The loader is no bottleneck where the waiting
share is next to nothing. The clock is the wall's: loading and training compete for real cores.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from ...data import LoaderConfig, ParquetSource, ViewConfig, ViewLoader
from ...evaluation.table import at_least, show_table
from ...memory import peak_bytes

__all__ = ["EncoderClock", "Throughput", "main", "measure_throughput"]

Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Figures of some steps.

    Attributes:
        steps: How many were timed.
        seconds: All of them.
        images: A second.
        masks: A second.
        waiting: Share of the time spent waiting for a batch, 0 to 1.
        encoder: Share spent in the image encoder, forward and backward.
        decoder: Share spent in the rest of forward and backward: prompts, decoder, losses.
        optimizer: Share spent in the optimizer's step.
        peak: Most memory that this process has held so far, bytes.
    """

    steps: int
    seconds: float
    images: float
    masks: float
    waiting: float
    encoder: float
    decoder: float
    optimizer: float
    peak: int


@dataclass(kw_only=True)
class EncoderClock:
    """Seconds in an image encoder, told by hooks; a context in which the hooks are there.

    Forward is from the call to the return. Backward is from the moment at which the gradient of the
    embedding is complete, so that all decoding is behind, to `backward_done`.
    """

    encoder: nn.Module
    now: Clock = time.perf_counter
    seconds: float = 0.0
    _stack: ExitStack = field(default_factory=ExitStack)
    _entered: float = 0.0
    _reached: float | None = None

    def __enter__(self) -> Self:
        for handle in (
            self.encoder.register_forward_pre_hook(self._enter),
            self.encoder.register_forward_hook(self._leave),
        ):
            self._stack.callback(handle.remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def backward_done(self) -> None:
        """Tell that a backward pass is over."""
        if self._reached is not None:
            self.seconds += self.now() - self._reached
        self._reached = None

    def _enter(self, module: nn.Module, args: Any) -> None:
        self._entered = self.now()

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self.seconds += self.now() - self._entered
        embedding = output if isinstance(output, Tensor) else output.embedding
        if embedding.requires_grad:
            embedding.register_hook(self._reach)

    def _reach(self, gradient: Tensor) -> None:
        self._reached = self.now()


def measure_throughput(
    objective: nn.Module,
    batches: Iterator[Any],
    *,
    encoder: nn.Module,
    steps: int,
    warm_up: int = 3,
    now: Clock = time.perf_counter,
) -> Throughput:
    """Train some steps and time their parts.

    Args:
        objective: Batch -> (loss, figures); it is trained, by AdamW at a rate of 1e-4.
        batches: At least `steps + warm_up`, each with `weight` masks and a length, its photos.
        encoder: The part of the objective that is the image encoder.
        steps: To time.
        warm_up: Steps before, in which workers fill their queues and memory is mapped.
        now: The clock, seconds.

    Raises:
        ValueError: The batches end early.
    """
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=1e-4)
    spent = dict.fromkeys(("waiting", "passes", "optimizer"), 0.0)
    images = masks = 0
    with EncoderClock(encoder=encoder, now=now) as clock:
        for step in range(warm_up + steps):
            if step == warm_up:
                spent = dict.fromkeys(spent, 0.0)
                images = masks = 0
                clock.seconds = 0.0
            marks = [now()]
            batch = next(batches, None)
            if batch is None:
                raise ValueError(f"the batches ended at {step}; wanted {warm_up + steps} of them")
            marks.append(now())
            optimizer.zero_grad(set_to_none=True)
            objective(batch)[0].backward()
            clock.backward_done()
            marks.append(now())
            optimizer.step()
            marks.append(now())
            for name, start, end in zip(spent, marks, marks[1:], strict=False):
                spent[name] += end - start
            images += len(batch)
            masks += int(batch.weight)
    total = sum(spent.values())
    return Throughput(
        steps=steps,
        seconds=total,
        images=images / total,
        masks=masks / total,
        waiting=spent["waiting"] / total,
        encoder=clock.seconds / total,
        decoder=(spent["passes"] - clock.seconds) / total,
        optimizer=spent["optimizer"] / total,
        peak=peak_bytes(),
    )


def tiny_objective(*, image_size: int, rounds: int) -> tuple[nn.Module, nn.Module]:
    """The objective of `tiny`'s core with ImageNet weights in its backbone, and its encoder."""
    from ...objectives.sam import SamObjective, SamObjectiveConfig
    from ...prompting import PromptConfig
    from ...recipes.tiny import new_tiny_sam

    sam = new_tiny_sam(seed=0, image_size=image_size)
    prompts = PromptConfig(points=rounds - 1, silent_among=0, silent_last=0)
    objective = SamObjective(sam, config=SamObjectiveConfig(prompts=prompts))
    return objective.train(), sam.image_encoder


def _measure_all(options: argparse.Namespace) -> list[tuple[int, Throughput]]:
    sources = {path.stem: ParquetSource([path]) for path in options.data}
    rows = []
    for workers in options.workers:
        config = LoaderConfig(
            photos_per_step=options.photos,
            workers=workers,
            seed=options.seed,
            view=ViewConfig(image_size=options.size),
        )
        # A fresh objective each time: all start alike, with a fresh optimizer.
        objective, encoder = tiny_objective(image_size=options.size, rounds=options.rounds)
        batches = ViewLoader(sources, config=config).batches(0)
        measured = measure_throughput(
            objective, batches, encoder=encoder, steps=options.steps, warm_up=options.warm_up
        )
        batches.close()  # type: ignore[attr-defined]
        rows.append((workers, measured))
    return rows


def _show(rows: Sequence[tuple[int, Throughput]], options: argparse.Namespace) -> None:
    columns = ["workers", "images/s", "masks/s", "waiting for data", "encoder", "decoder, losses"]
    columns += ["optimizer", "s/step", "peak, MB"]
    cells = [
        [
            str(workers),
            f"{row.images:.2f}",
            f"{row.masks:.2f}",
            *(f"{s:.1%}" for s in (row.waiting, row.encoder, row.decoder, row.optimizer)),
            f"{row.seconds / row.steps:.2f}",
            f"{row.peak / 1e6:.0f}",
        ]
        for workers, row in rows
    ]
    title = (
        f"tiny at {options.size} px, {options.photos} photos a step, {options.rounds} rounds, "
        f"{torch.get_num_threads()} threads of torch"
    )
    notes = [
        f"{options.steps} steps after {options.warm_up}; wall time; peak: most memory of the "
        "training process so far, its workers not counted"
    ]
    show_table(title, columns, cells, notes=notes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}",
        description="Time training steps of tiny's core: images and masks a second, the share of "
        "time spent waiting for data with some numbers of workers, encoder against decoder, and "
        "peak memory.",
    )
    parser.add_argument("data", nargs="+", type=Path, metavar="DATA.parquet")
    parser.add_argument(
        "--workers", nargs="+", type=at_least(0), default=[0, 1, 2], help="default: 0 1 2"
    )
    whole = at_least(1)
    parser.add_argument("--steps", type=whole, default=20, help="timed (default: 20)")
    parser.add_argument("--warm-up", type=at_least(0), default=5, help="before (default: 5)")
    parser.add_argument("--photos", type=whole, default=8, help="in a step (default: 8)")
    parser.add_argument("--size", type=whole, default=384, help="pixels (default: 384)")
    parser.add_argument("--rounds", type=whole, default=3, help="of prompts (default: 3)")
    parser.add_argument("--threads", type=whole, default=None, help="of torch")
    parser.add_argument("--seed", type=at_least(0), default=0)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (2: the data is at fault)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    try:
        rows = _measure_all(options)
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    _show(rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
