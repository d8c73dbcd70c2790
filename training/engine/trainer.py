"""The training loop: batch -> loss -> gradient -> step, on any number of processes.

The gradient of a step is that of the mean over ALL items (masks) of its global batches. DDP and
FSDP2 average over processes, so each local mean is scaled by its weight times the number of
processes over the total weight; two processes then equal one, whatever share of the masks each has.
With items of several kinds (masks, names), each kind has its own loss, weight and total.

Deviations from the paper: the gradient's norm is clipped, and weights may be averaged.
"""

from __future__ import annotations

import copy
import logging
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from .checkpoint import CheckpointStore
from .engine_config import EngineConfig
from .optim import build_optimizer, rate_factor, set_rates
from .processes import STOP_SIGNALS, Processes, StopSignals
from .run_records import RunRecords, TrainingBar
from .sharding import whole, whole_state
from .state import RunIdentity, RunState, WeightAverage

logger = logging.getLogger(__name__)

Evaluate = Callable[[nn.Module, int, Path], Mapping[str, float]]
B = TypeVar("B", bound="Batch")


class Batch(Protocol):
    """This process's part of a global batch."""

    @property
    def weight(self) -> float | Mapping[str, float]:
        """How many items its loss is a mean over.

        For losses by kind, those of each kind, in the same order in every process. Figures are
        weighted by the items of the first loss.
        """

    def to(self: B, device: torch.device) -> B:
        """The same batch on a device."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended."""

    step: int  # number of steps done
    reason: str  # "done", "seconds" (the time limit) or the name of a signal
    # The last figures of training and of evaluation; None for one without a value
    figures: dict[str, float | None]
    skipped: int  # steps whose gradient was not finite
    checkpoint: Path  # path of the newest checkpoint


class Trainer:
    """Trains an objective; resumes exactly where the run in its folder was interrupted."""

    def __init__(
        self,
        objective: nn.Module,
        batches: Callable[[int], Iterator[Any]],
        *,
        config: EngineConfig,
        folder: Path,
        evaluate: Evaluate | None = None,
        identity: str = "",
    ) -> None:
        """Join the other processes and distribute the objective.

        Args:
            objective: Maps a batch to `LossOutput`; its `rates()` name what is trained. It is moved
                to the device, and under FSDP2 sharded, in place.
            batches: Returns an iterator over this rank's batches from a global batch number on.
            config: Settings of the run.
            folder: For checkpoints, `log.jsonl`, `tensorboard/` and `pictures/`; all processes
                need access to it.
            evaluate: Called in rank 0 with the objective (averaged weights, evaluation mode,
                no gradients), the step and a folder for pictures; returns figures. Pictures in the
                folder are shown in TensorBoard.
            identity: Text of everything else that the numbers depend on, e.g. the loader's
                settings; checkpoints with another text are refused.
        """
        self.config, self.folder, self.batches, self.evaluate = config, folder, batches, evaluate
        self.identity = RunIdentity.of(objective, config=config, others=identity)
        self.store = CheckpointStore(folder, keep=config.keep)
        self.processes = Processes(config)
        accelerator = self.processes.accelerator
        sharded = config.parallel == "fsdp2" and self.processes.count > 1
        # A sharded module runs in all processes or in none: rank 0 evaluates a copy.
        # Collective calls inside a sharded module would hang if rank 0 evaluated it alone.
        spare = sharded and evaluate is not None and self.processes.is_main
        self._spare = copy.deepcopy(objective) if spare else None
        self._sharded = sharded
        self.model = self.processes.prepare_model(objective)
        self.optimizer = accelerator.prepare_optimizer(build_optimizer(objective, config=config))
        # After `prepare_model`: under FSDP2 the average is sharded like the parameters.
        decay = config.ema_decay
        self.state = RunState(
            objective=objective,
            optimizer=self.optimizer.optimizer,
            average=None if decay is None else WeightAverage(objective, decay=decay),
            scaler=accelerator.scaler,
        )
        self._started = self._waited = 0.0
        self._saved: tuple[int, Path] | None = None  # step and path of the newest checkpoint

    def train(self) -> TrainResult:
        """Train until the end, the time limit, SIGTERM or SIGINT."""
        config, state, reason = self.config, self.state, "done"
        with self.processes.guard(self.folder), StopSignals() as signals:
            self._resume()
            with self._open_records() as records, self._open_bar() as bar:
                self._started = time.monotonic()
                # Batches are numbered, so nothing has to be replayed on resume.
                batches = self.batches(state.step * config.accumulation)
                # A run that was killed during an evaluation repeats it.
                self._evaluate_if_due(records)
                while state.step < config.steps:
                    micro = self._take(batches)
                    totals, stop = self._agree(micro, signals)
                    if stop:
                        reason = stop
                        break
                    bar.show(state.step + 1, self._step(micro, totals))
                    if state.step % config.log_every == 0 or state.step == config.steps:
                        self._record(records)
                    if state.step % config.checkpoint_every == 0 or state.step == config.steps:
                        self._save()
                    self._evaluate_if_due(records)
            # Stopped between two checkpoints.
            if self._saved is None or self._saved[0] != state.step:
                self._save()
        assert self._saved is not None
        figures = {} if records is None else dict(records.last)
        return TrainResult(
            step=state.step,
            reason=reason,
            figures=self.processes.from_main(figures),
            skipped=state.skipped,
            checkpoint=self._saved[1],
        )

    def _step(self, micro: list[Batch], totals: Mapping[str, float]) -> float:
        """One step of the optimizer; returns this process's mean loss."""
        config, state, processes = self.config, self.state, self.processes
        set_rates(self.optimizer, rate_factor(state.step, config=config))
        self.optimizer.zero_grad()
        mean_loss = 0.0
        for index, batch in enumerate(micro):
            # Dropout and drop path then do not depend on what was drawn before this step.
            seed_everything(config.seed, state.step, index, processes.rank)
            with processes.gradients(self.model, share=index + 1 == len(micro)):
                with processes.accelerator.autocast():
                    output = self.model(batch.to(processes.device))
                losses = output.loss if isinstance(output.loss, Mapping) else {"": output.loss}
                counts = _counts(batch)
                # A kind without items anywhere has a loss of zero and a total of zero.
                total = torch.stack(
                    [
                        loss.float() * (counts[kind] * processes.count / (totals[kind] or 1.0))
                        for kind, loss in losses.items()
                    ]
                ).sum()
                processes.accelerator.backward(total)
            mean_loss += sum(loss.item() for loss in losses.values()) / len(micro)
            if isinstance(output.loss, Mapping):
                # Each process has its part of the step's loss; their mean is the whole.
                state.window.add({"loss": total.detach() * len(micro)}, weight=1.0)
            for kind, loss in losses.items():
                state.window.add({f"loss_{kind}" if kind else "loss": loss}, weight=counts[kind])
            state.window.add(output.figures, weight=counts[next(iter(losses))])
        # Clipped after the last micro-batch, when gradients are those of the whole step.
        norm = float(
            whole(processes.accelerator.clip_grad_norm_(self.model.parameters(), config.clip_norm))
        )
        # The norm is over all processes, so all of them skip the step or none.
        if math.isfinite(norm):
            self.optimizer.step()
            if state.average is not None:
                state.average.update()
        else:
            self._skip()
        state.window.add({"norm": norm}, weight=1.0)
        state.step += 1
        return mean_loss

    def _skip(self) -> None:
        state = self.state
        state.skipped += 1
        if state.scaler is not None:
            state.scaler.update()  # fp16: the scale was too large, this lowers it
        message = "step %d: the gradient is not finite; skipped, %d so far"
        logger.warning(message, state.step, state.skipped)

    def _take(self, batches: Iterator[Batch]) -> list[Batch]:
        """Batches of the next step."""
        started = time.monotonic()
        micro = [batch for _, batch in zip(range(self.config.accumulation), batches, strict=False)]
        self._waited += time.monotonic() - started  # the loader is too slow by this much
        return micro

    def _agree(self, micro: list[Batch], signals: StopSignals) -> tuple[dict[str, float], str]:
        """Items of the step by kind, and the reason to stop if any process has one, else ""."""
        # The clocks of the processes differ: one that is late stops them all at the same step.
        late = time.monotonic() - self._started >= self.config.seconds
        wishes = [late, *(signals.received is number for number in STOP_SIGNALS)]
        counts = [_counts(batch) for batch in micro]
        missing = self.config.accumulation - len(micro)
        empty = sum(not sum(kinds.values()) > 0 for kinds in counts)
        lacking, void, *agreed = self.processes.total([missing, empty, *wishes])
        for name, wish in zip(("seconds", *(s.name for s in STOP_SIGNALS)), agreed, strict=True):
            if wish:
                return {}, name
        if lacking or void:
            raise ValueError(
                f"step {self.state.step}: the batches of {self.processes.count} processes lack "
                f"{lacking:g} and {void:g} have no items; wanted {self.config.accumulation} with "
                "items for each process: use a source without end, and at least as many photos "
                "in a batch as processes"
            )
        kinds = list(counts[0])
        sums = [sum(batch[kind] for batch in counts) for kind in kinds]
        return dict(zip(kinds, self.processes.total(sums), strict=True)), ""

    def _record(self, records: RunRecords | None) -> None:
        """Write the means since the last record."""
        state = self.state
        means = state.window.totals(self.processes.total)
        # Reset before writing, in every process, since only the main one writes.
        state.window.sums = {}
        seconds = time.monotonic() - self._started
        if records is not None:
            records.write(
                state.step,
                means,
                rate=rate_factor(state.step - 1, config=self.config) * self.config.peak_rate,
                skipped=state.skipped,
                seconds=round(seconds, 1),
                waiting=round(self._waited / seconds, 3),
            )

    def _save(self) -> None:
        """Write a checkpoint in rank 0; every process contributes its shards."""
        main, path = self.processes.is_main, None
        saved = self.state.capture(self.processes.total, keep=main)
        if main:
            path = self.store.save(self.state.step, {**saved, "run": self.identity.to_dict()})
        self._saved = (self.state.step, self.processes.from_main(path))

    def _resume(self) -> None:
        """Resume from the newest intact checkpoint, if there is one."""
        path = self.store.newest(set_aside=True) if self.processes.is_main else None
        path = self.processes.from_main(path)
        if path is not None:
            saved = self.store.read(path)
            self.identity.check(saved["run"], step=int(saved["step"]), path=path)
            self.state.restore(saved, keep_window=self.processes.is_main)
            self._saved = (self.state.step, path)
            logger.info("going on from %s", path)
        self.model.train()

    def _evaluate_if_due(self, records: RunRecords | None) -> None:
        """Evaluate in rank 0 if it is due and was not done before the run was interrupted."""
        step, every = self.state.step, self.config.evaluate_every
        due = step == self.config.steps or (every is not None and step and step % every == 0)
        if self.evaluate is None or not due:
            return
        if self.processes.from_main(records is not None and step in records.evaluated):
            return
        with self._evaluated() as module:
            if records is not None and module is not None:
                pictures = self.folder / "pictures" / f"step-{step:08d}"
                pictures.mkdir(parents=True, exist_ok=True)
                with torch.no_grad():
                    figures = self.evaluate(module, step, pictures)
                records.write_evaluation(step, figures, pictures)
        # The evaluation of rank 0 has left evaluation mode on.
        self.model.train()
        self.processes.wait()

    @contextmanager
    def _evaluated(self) -> Iterator[nn.Module | None]:
        """The module to evaluate, with the averaged weights if there are any."""
        state, average = self.state, self.state.average
        if not self._sharded:
            with nullcontext() if average is None else average.in_place():
                yield state.objective.eval()
            return
        main = self.processes.is_main
        weights = whole_state(state.objective, keep=main)
        if average is not None:
            weights.update(whole(average.shadow, keep=main))
        if self._spare is None:
            yield None
            return
        self._spare.load_state_dict(weights)
        yield self._spare.to(self.processes.device).eval()
        self._spare.cpu()

    def _open_records(self) -> AbstractContextManager[RunRecords | None]:
        if not self.processes.is_main:
            return nullcontext()
        board = self.config.tensorboard
        return RunRecords(self.folder, step=self.state.step, tensorboard=board)

    def _open_bar(self) -> TrainingBar:
        return TrainingBar(self.config.steps, done=self.state.step, show=self.processes.is_main)


def _counts(batch: Batch) -> Mapping[str, float]:
    """Items of a batch by kind; most batches have one kind, called ""."""
    weight = batch.weight
    return weight if isinstance(weight, Mapping) else {"": weight}


def seed_everything(*numbers: int) -> None:
    """Seed random, numpy and torch (all devices) from whole numbers >= 0."""
    words = np.random.SeedSequence(numbers).generate_state(3, np.uint32)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]))
