"""Checkpoints that are whole or not there: the last few of a run, each with its checksum.

`checkpoint-00000120-9f3a51c2.pt` is what `torch.save` writes, after step 120; the CRC-32 of the
file is in its name, since torch does not compare the ones inside. A file gets its name by a rename
after everything is on the disk, so a run that is killed leaves a `checkpoint.part` at worst.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import nn

from textsam.errors import TextSamError

__all__ = ["CheckpointError", "CheckpointStore", "load_weights"]

logger = logging.getLogger(__name__)

_NAME = re.compile(r"checkpoint-(\d{8})-([0-9a-f]{8})\.pt")
_PART = "checkpoint.part"
_CHUNK = 2**22  # bytes read at once


class CheckpointError(TextSamError):
    """A checkpoint cannot be written, or belongs to another run."""


class CheckpointStore:
    """The checkpoints of one run's folder."""

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def paths(self) -> list[Path]:
        """All of them, the newest first; none if there is no such folder."""
        found = [path for path in self.folder.glob("checkpoint-*.pt") if _NAME.fullmatch(path.name)]
        return sorted(found, reverse=True)

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write a checkpoint, then remove all but the last `keep`.

        Raises:
            CheckpointError: The disk is full or not writable; the earlier ones are as they were.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / _PART
        file = None
        try:
            with part.open("wb") as raw:
                file = _Summed(raw)
                torch.save(dict(state), cast(IO[bytes], file))  # it needs no more than `write`
                raw.flush()
                os.fsync(raw.fileno())
            path = self.folder / f"checkpoint-{step:08d}-{file.sum:08x}.pt"
            os.replace(part, path)
            _sync_folder(self.folder)
        except (OSError, RuntimeError) as error:
            # torch says only that its writer failed; what the system said is in `file.error`.
            reason = error if isinstance(error, OSError) or file is None else file.error
            if reason is None:
                raise
            part.unlink(missing_ok=True)
            kept = ", ".join(path.name for path in self.paths()) or "none yet"
            raise CheckpointError(
                f"step {step} cannot be written to {self.folder} ({reason}). Earlier checkpoints "
                f"are intact: {kept}. Make room, then start the same command again"
            ) from error
        for old in self.paths()[self.keep :]:
            old.unlink(missing_ok=True)
        return path

    def newest(self, *, set_aside: bool = False) -> Path | None:
        """The newest one whose checksum is right; None if there is none.

        A file that is cut short or altered is named in a warning and passed over.

        Args:
            set_aside: Rename such a file to `.broken`, so that it does not count among the last
                few; for the run that owns the folder.
        """
        for path in self.paths():
            reason = _damage(path)
            if reason is None:
                return path
            logger.warning("%s is damaged (%s); trying the one before", path, reason)
            if set_aside:
                os.replace(path, path.with_suffix(".broken"))
        return None

    @staticmethod
    def read(path: Path) -> dict[str, Any]:
        """What a checkpoint holds, its tensors mapped into memory (copy before you keep them)."""
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return dict(state)


def load_weights(folder: Path, objective: nn.Module, *, averaged: bool = True) -> int:
    """Load what a run has trained into a module of the same structure, e.g. to export it.

    Args:
        folder: Of the run.
        objective: As the run's `Trainer` was given.
        averaged: Take the moving average, if the run keeps one.

    Returns:
        The step it was at; 0, and nothing is loaded, if there is no checkpoint.
    """
    path = CheckpointStore(folder).newest()
    if path is None:
        return 0
    state = CheckpointStore.read(path)
    weights = {**state["model"], **(state["average"] if averaged else {})}
    objective.load_state_dict(weights)
    return int(state["step"])


class _Summed:
    """A file that is written from its beginning to its end, and the CRC-32 of what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.sum = 0
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write all of it, or raise and remember why."""
        try:
            written = self.file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.sum = zlib.crc32(data, self.sum)
        return written

    def flush(self) -> None:
        self.file.flush()


def _damage(path: Path) -> object | None:
    """Why a checkpoint cannot be used; None if it can."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    try:
        if _sum_of(path) != int(match[2], 16):
            return "its checksum is wrong"
        CheckpointStore.read(path)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        return error
    return None


def _sum_of(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            total = zlib.crc32(chunk, total)
    return total


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut; only POSIX lets one open a folder."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
