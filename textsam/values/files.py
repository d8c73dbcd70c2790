"""Writes files that are either complete or not there, and reads settings.

A run may be killed at any moment; a reader, or the next run, must never find half a file.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from textsam.errors import WeightsError

# The model that ships inside the package.
TINY_FOLDER = Path(__file__).parents[1] / "weights" / "tiny"

# Suffix of unfinished files, by which those of killed runs are recognised.
PART_SUFFIX = ".textsam-part"


def write_atomically(path: str | Path, data: bytes) -> Path:
    """Write a whole file or nothing, by renaming a temporary file beside it; returns the path.

    Raises:
        OSError: The folder is missing or not writable, the disk is full, or `path` is a folder.
            An existing file is then unchanged.
    """
    with open_atomically(path) as file:
        file.write(data)
    return Path(path)


@contextmanager
def open_atomically(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file that gets its name when the block ends without an error; see above."""
    path = Path(path)
    if not can_be_name(str(path)):
        raise ValueError(f"cannot write {str(path)!a}: the name holds a NUL or half a character")
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}. "
            f"Type: mkdir -p {path.parent}"
        )
    descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=PART_SUFFIX)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            # Otherwise a power cut after the rename could leave an empty file.
            os.fsync(file.fileno())
        # mkstemp sets 0600; a result gets the permissions of the user's umask as other files do.
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def can_be_name(text: str) -> bool:
    """Whether a file can have this name: no NUL, no half of a character."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def remove_parts(folder: Path) -> None:
    """Remove unfinished files of killed runs from a folder to which no other process writes."""
    for part in folder.glob(f".*{PART_SUFFIX}"):
        part.unlink(missing_ok=True)


def _umask() -> int:
    """The umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def read_settings(path: Path) -> dict[str, Any]:
    """Read a JSON object with a model's settings; a `WeightsError` if it cannot be read."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read {path}: {error}") from error
    if not isinstance(settings, dict):
        raise WeightsError(f"{path} holds a {type(settings).__name__}; wanted a JSON object")
    return settings
