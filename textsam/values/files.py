"""Files that are either complete or not there.

A result may take a second to write and a run may be killed at any moment; a reader (or the next
run) must never find half a file.
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

__all__ = [
    "PART_SUFFIX",
    "TINY_FOLDER",
    "open_atomically",
    "read_settings",
    "remove_parts",
    "write_atomically",
]

# The model that ships inside the package.
TINY_FOLDER = Path(__file__).parents[1] / "weights" / "tiny"

# Ends the name of every unfinished file, so that what a killed run left can be recognised.
PART_SUFFIX = ".textsam-part"


def write_atomically(path: str | Path, data: bytes) -> Path:
    """Write a whole file or nothing: into a temporary one beside it first, then renamed.

    Args:
        path: Where the file shall be; replaced if it is there. Its folder must exist.
        data: The whole content.

    Returns:
        The path.

    Raises:
        OSError: The folder is missing or not writable, the disk is full, or `path` is a folder.
            `path` is then as it was.
    """
    with open_atomically(path) as file:
        file.write(data)
    return Path(path)


@contextmanager
def open_atomically(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write piece by piece, which takes its name once the block ends without an error.

    Args:
        path: As `write_atomically`.

    Raises:
        OSError: As `write_atomically`.
    """
    path = Path(path)
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
            # Without it, a power cut after the rename can leave a name with no content behind it.
            os.fsync(file.fileno())
        # mkstemp gives 0600; a result is an ordinary file, so the user's umask decides.
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def remove_parts(folder: Path) -> None:
    """Remove what a killed run left unfinished in a folder; nobody else may be writing there."""
    for part in folder.glob(f".*{PART_SUFFIX}"):
        part.unlink(missing_ok=True)


def _umask() -> int:
    """The umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def read_settings(path: Path) -> dict[str, Any]:
    """Read the JSON object in which a model keeps its settings.

    Raises:
        WeightsError: The file cannot be read, or holds something else.
    """
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read {path}: {error}") from error
    if not isinstance(settings, dict):
        raise WeightsError(f"{path} holds a {type(settings).__name__}; wanted a JSON object")
    return settings
