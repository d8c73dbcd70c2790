"""The last few checkpoints of a run, each with a checksum and written completely or not at all.

`checkpoint-00000120-9f3a51c2.pt` is written by `torch.save` after step 120. Its name holds the
CRC-32 of the file, since torch does not compare the ones inside.
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

logger = logging.getLogger(__name__)

_NAME = re.compile(r"checkpoint-(\d{8})-([0-9a-f]{8})\.pt")
_PART = "checkpoint.part"
_CHUNK = 2**22  # bytes read at once


class CheckpointError(TextSamError):
    """A checkpoint cannot be written, or it belongs to another run."""


class CheckpointStore:
    """The checkpoints of one run's folder."""

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def paths(self) -> list[Path]:
        """All checkpoints, newest first; none if the folder does not exist."""
        found = [path for path in self.folder.glob("checkpoint-*.pt") if _NAME.fullmatch(path.name)]
        return sorted(found, reverse=True)

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write a checkpoint, then remove all but the last `keep`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / _PART
        file = None
        try:
            with part.open("wb") as raw:
                file = _Summed(raw)
                torch.save(dict(state), cast(IO[bytes], file))  # it needs no more than `write`
                raw.flush()
                # Without it a power cut could leave a renamed, empty file.
                os.fsync(raw.fileno())
            path = self.folder / f"checkpoint-{step:08d}-{file.sum:08x}.pt"
            # Renamed once everything is on the disk: a run that is killed leaves the part at worst.
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
        # Only now: a crash above must not leave fewer than `keep` checkpoints.
        for old in self.paths()[self.keep :]:
            old.unlink(missing_ok=True)
        return path

    def newest(self, *, set_aside: bool = False) -> Path | None:
        """The newest checkpoint with a correct checksum; None if there is none.

        Damaged files are skipped with a warning. With `set_aside` they are renamed to `.broken`, so
        that they do not count among the ones to keep; only the run that owns the folder does that.
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
        """The content of a checkpoint; its tensors are memory-mapped, so copy what you keep."""
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return dict(state)


def load_weights(folder: Path, objective: nn.Module, *, averaged: bool = True) -> int:
    """Load the trained weights of a run into a module of the same structure, e.g. to export it.

    Returns:
        The step of the checkpoint; 0, and nothing is loaded, if there is none.
    """
    path = CheckpointStore(folder).newest()
    if path is None:
        return 0
    state = CheckpointStore.read(path)
    weights = {**state["model"], **(state["average"] if averaged else {})}
    objective.load_state_dict(weights)
    return int(state["step"])


class _Summed:
    """A file that is written from start to end, and the CRC-32 of its content."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.sum = 0
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write everything, or raise and remember the error."""
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
    """Make a rename survive a power cut; only POSIX can open a folder."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
