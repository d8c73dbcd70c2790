"""The processes of a run, by means of `accelerate`, and the signals that stop it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from textsam.errors import TextSamError, require

from .engine_config import EngineConfig
from .sharding import is_sharded, shard

logger = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Parts of gloo's RuntimeError when the other end of a connection is gone; nccl has its own class.
_GLOO_LOST = ("gloo", "Connection closed by peer", "Connection reset by peer")


class ProcessLostError(TextSamError, RuntimeError):
    """Another process of the run has ended, so this one cannot continue."""


class Processes:
    """This process and its place among those of the run."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.accelerator = _accelerator(config)
        self.rank: int = self.accelerator.process_index
        self.count: int = self.accelerator.num_processes
        # accelerate would silently compute in float32.
        if config.precision == "fp16" and self.device.type == "cpu":
            raise ValueError('EngineConfig: precision="fp16" needs a GPU; on a CPU type "bf16"')

    @property
    def device(self) -> torch.device:
        """Device of this process."""
        device: torch.device = self.accelerator.device
        return device

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def prepare_model(self, objective: nn.Module) -> nn.Module:
        """Move an objective to the device and wrap or shard it (`EngineConfig.parallel`)."""
        if self.config.parallel == "fsdp2" and self.count > 1:
            size = self.config.shard_size
            shard(objective, processes=self.count, device=self.device, shard_size=size)
            return objective
        model: nn.Module = self.accelerator.prepare_model(objective)
        return model

    def gradients(self, model: nn.Module, *, share: bool) -> AbstractContextManager[Any]:
        """Context of a forward and backward pass; `share` synchronises the gradients after it."""
        if is_sharded(model):
            model.set_requires_gradient_sync(share)  # type: ignore[operator]
            return nullcontext()
        return nullcontext() if share else self.accelerator.no_sync(model)

    def total(self, values: Sequence[float]) -> list[float]:
        """Sum each number over the processes."""
        if self.count == 1:
            return list(values)
        # float64: sums of masks and losses over a long window must stay exact.
        numbers = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(numbers)
        return [float(value) for value in numbers.tolist()]

    def from_main(self, value: Any) -> Any:
        """Broadcast the value of rank 0."""
        if self.count == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Wait until every process is here."""
        self.accelerator.wait_for_everyone()

    @contextmanager
    def guard(self, folder: Path) -> Iterator[None]:
        """Explain what happened, and how to resume, when another process is gone."""
        try:
            yield
        except RuntimeError as error:
            if self.count == 1 or not _is_loss(error):
                raise
            raise ProcessLostError(
                f"another process of this run has ended, so rank {self.rank} of {self.count} stops "
                f"(above: {str(error).splitlines()[0]}). torchrun names the one that went first. "
                f"The checkpoints in {folder} are intact: start the same command again to go on"
            ) from error


class StopSignals:
    """Context that notes the first signal to stop as `received`; a second one is not caught."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._owner = os.getpid()

    def __enter__(self) -> StopSignals:
        # Python allows handlers in the main thread only; elsewhere the caller has to stop us.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        # A loader's worker that was forked in the meantime has inherited the handlers: SIGTERM ends
        # it, and Ctrl-C, which reaches it too, is left to the run, which still needs the worker.
        if os.getpid() != self._owner:
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        self.received = signal.Signals(number)
        logger.warning("%s: writing a checkpoint after this step", self.received.name)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def _is_loss(error: RuntimeError) -> bool:
    from torch.distributed import DistBackendError, DistNetworkError

    lost = isinstance(error, DistBackendError | DistNetworkError)
    return lost or any(word in str(error) for word in _GLOO_LOST)


def _accelerator(config: EngineConfig) -> Any:
    accelerate: Any = require("accelerate", "train")
    # There may be several runs in one process, each with its own precision; accelerate keeps that
    # of the first one unless its state is reset. The process group stays.
    accelerate.state.AcceleratorState._reset_state()
    # Under torchrun without a GPU, accelerate forms a process group only with cpu=True.
    started_by_torchrun = "LOCAL_RANK" in os.environ
    cpu = config.cpu or (started_by_torchrun and not torch.cuda.is_available())
    timeout = accelerate.InitProcessGroupKwargs(timeout=timedelta(seconds=config.timeout))
    return accelerate.Accelerator(
        cpu=cpu, mixed_precision=config.precision, kwargs_handlers=[timeout]
    )
