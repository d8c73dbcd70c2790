"""What a run over many photos has finished, kept so that a killed run can go on.

In the output folder lies `.textsam/`: `settings.json` says what was asked last, for people;
`done.jsonl` has a line per finished output, appended after the output is complete; `lock` keeps a
second run out. A line counts only while its output has the recorded size, its photo has not
changed, and the settings are the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from textsam.results.storage import dump_json
from textsam.values.files import remove_parts, write_atomically

__all__ = ["Done", "Journal", "fingerprint", "only_run"]

_log = logging.getLogger(__name__)

_FOLDER = ".textsam"


@dataclass(frozen=True, kw_only=True)
class Done:
    """One finished output.

    Attributes:
        output: Path of the output below the output folder, with `/`.
        source: Name of the photo.
        source_bytes: Size of the photo's file.
        source_mtime_ns: When the photo was last changed.
        settings: Fingerprint of the settings.
        output_bytes: Size of the output.
        labels: Number of masks by label; `""` for masks without a label.
    """

    output: str
    source: str
    source_bytes: int
    source_mtime_ns: int
    settings: str
    output_bytes: int
    labels: dict[str, int]


class Journal:
    """The finished outputs of an output folder."""

    def __init__(self, out_dir: Path, settings: Mapping[str, Any]) -> None:
        """Read the journal of an output folder, or begin one; tidies up after a killed run.

        Args:
            out_dir: The output folder, which must exist.
            settings: Everything that decides what the outputs look like.

        Raises:
            OSError: The folder cannot be written.
        """
        self.out_dir = out_dir
        self.settings = fingerprint(settings)
        self._path = out_dir / _FOLDER / "done.jsonl"
        remove_parts(self._path.parent)
        self._done = {done.output: done for done in _read(self._path)}
        # A killed run may have left half a line at the end; appending to it would spoil the next.
        self.tidy()
        write_atomically(self._path.with_name("settings.json"), dump_json(dict(settings)))

    def find(self, output: str, *, source: str, photo: Path) -> Done | None:
        """The record of an output that is complete and up to date; None if it must be made.

        Raises:
            OSError: The photo is not there.
        """
        done = self._done.get(output)
        if done is None or (done.settings, done.source) != (self.settings, source):
            return None
        state = photo.stat()
        if (done.source_bytes, done.source_mtime_ns) != (state.st_size, state.st_mtime_ns):
            return None
        file = self.out_dir / output
        return done if file.is_file() and file.stat().st_size == done.output_bytes else None

    def add(self, done: Done) -> None:
        """Record an output that now is complete."""
        self._done[done.output] = done
        with self._path.open("ab") as file:
            file.write(dump_json(asdict(done)))

    def discard(self, output: str) -> None:
        """Remove an output of an earlier run that could not be made again, and its record."""
        if output in self._done:
            (self.out_dir / output).unlink(missing_ok=True)
            del self._done[output]
            self.tidy()

    def tidy(self) -> None:
        """Write the journal anew: one line per output, by name, if it does not look so already."""
        wanted = b"".join(dump_json(asdict(self._done[key])) for key in sorted(self._done))
        if not self._path.is_file() or self._path.read_bytes() != wanted:
            write_atomically(self._path, wanted)


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Sixteen hex digits that change when any setting does."""
    return hashlib.sha256(dump_json(dict(sorted(settings.items())))).hexdigest()[:16]


@contextmanager
def only_run(out_dir: Path) -> Iterator[None]:
    """Keep other runs out of an output folder; the system frees it when this one dies.

    Raises:
        RuntimeError: Another run is writing there.
        OSError: The folder cannot be written.
    """
    folder = out_dir / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("ab") as file:
        _lock(file.fileno(), out_dir)
        yield


if sys.platform == "win32":

    def _lock(descriptor: int, out_dir: Path) -> None:
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise _taken(out_dir) from error

else:

    def _lock(descriptor: int, out_dir: Path) -> None:
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _taken(out_dir) from error
        except OSError as error:
            # Some network file systems have no locks; that is no reason not to run.
            _log.warning("cannot lock %s (%s); start no second run there", out_dir, error)


def _taken(out_dir: Path) -> RuntimeError:
    return RuntimeError(
        f"another run is writing to {str(out_dir)!r}; wait for it, or give another folder"
    )


def _read(path: Path) -> Iterator[Done]:
    """Complete lines of a journal, in order; half a line, or one of another form, is left out."""
    if not path.is_file():
        return
    for line in path.read_bytes().splitlines():
        try:
            yield Done(**json.loads(line))
        except (ValueError, TypeError):
            _log.info("left out a damaged line of %s", path)
