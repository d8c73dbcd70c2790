"""How fast a training step of `tiny` is here, and how much of it is waiting for data.

    python -m training.studies.throughput ../shared/data/train/*.parquet --workers 0 1 2

For each number of loader workers: images and masks per second, the share of the time that the step
waits for its batch, and the shares of encoder, decoder and optimizer. The clock is the wall's:
loading and training compete for real cores.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ...data import LoaderConfig, ParquetSource, ViewConfig, ViewLoader
from ...evaluation.command import Options, run_command
from ...evaluation.data_sets import BadInputError
from ...evaluation.figures.result_table import Column, columns_of, show_figures
from ...peak_memory import peak_bytes

Clock = Callable[[], float]

_SHARES = {
    "waiting for data": "waiting",
    "encoder": "encoder",
    "decoder, losses": "decoder",
    "optimizer": "optimizer",
}


@dataclass(frozen=True, kw_only=True)
class ThroughputOptions(Options):
    """Time training steps of tiny's core: images and masks per second, waiting, peak memory."""

    minimum: ClassVar[Mapping[str, int]] = {
        **dict.fromkeys(("workers", "warm_up", "seed"), 0),
        **dict.fromkeys(("steps", "photos", "size", "rounds", "threads"), 1),
    }

    data: tuple[Path, ...]  # Parquet files to train on
    workers: tuple[int, ...] = (0, 1, 2)  # Numbers of loader workers; each is a row
    steps: int = 20  # Steps that are timed
    warm_up: int = 5  # Steps before them
    photos: int = 8  # Photos in a step
    size: int = 384  # Side of the frame, pixels
    rounds: int = 3  # Rounds of prompts
    threads: int | None = None  # Threads of torch
    seed: int = 0  # Decides the photos and the views


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Figures of some steps."""

    steps: int  # how many were timed
    seconds: float  # all of them
    images: float  # per second
    masks: float  # per second
    waiting: float  # share of the time spent waiting for a batch, 0 to 1
    encoder: float  # share spent in the image encoder, forward and backward
    decoder: float  # share spent in the rest of forward and backward: prompts, decoder, losses
    optimizer: float  # share spent in the optimizer's step
    peak: int  # highest resident size of this process so far, bytes


@dataclass(kw_only=True)
class EncoderClock:
    """Seconds in an image encoder, measured by hooks; as a context it adds and removes them.

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
        """Stop the clock of a backward pass."""
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
    """
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=1e-4)
    spent = dict.fromkeys(("waiting", "passes", "optimizer"), 0.0)
    images = masks = 0
    with EncoderClock(encoder=encoder, now=now) as clock:
        for step in range(warm_up + steps):
            if step == warm_up:  # all that was counted so far was warming up
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
    from ...objectives.sam_objective import SamObjective, SamObjectiveConfig
    from ...prompting import PromptConfig
    from ...recipes.tiny.networks import new_tiny_sam

    sam = new_tiny_sam(seed=0, image_size=image_size)
    prompts = PromptConfig(points=rounds - 1, silent_among=0, silent_last=0)
    objective = SamObjective(sam, config=SamObjectiveConfig(prompts=prompts))
    return objective.train(), sam.image_encoder


def _measure_all(options: ThroughputOptions) -> list[dict[str, Any]]:
    """Figures for each number of workers."""
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
        # Ends the loader's workers before the next number of them starts.
        batches.close()  # type: ignore[attr-defined]
        rows.append({"workers": workers, **asdict(measured)})
    return rows


def _run(options: ThroughputOptions) -> None:
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    try:
        rows = _measure_all(options)
    except (OSError, ValueError) as error:
        raise BadInputError(str(error)) from error

    columns = [
        Column("workers", "workers"),
        *columns_of("", {"images/s": "images", "masks/s": "masks"}, digits=2),
        *(Column(f"{heading}, %", key, 1, 0.01) for heading, key in _SHARES.items()),
        Column("s/step", lambda row: row["seconds"] / row["steps"], 2),
        Column("peak, MB", "peak", 0, 1e6),
    ]
    title = (
        f"tiny at {options.size} px, {options.photos} photos a step, {options.rounds} rounds, "
        f"{torch.get_num_threads()} threads of torch"
    )
    notes = [
        f"{options.steps} steps after {options.warm_up}; wall time; peak: highest memory of the "
        "training process so far, its workers not counted"
    ]
    show_figures(title, columns, rows, notes=notes)


main = partial(run_command, ThroughputOptions, _run)

if __name__ == "__main__":
    sys.exit(main())
