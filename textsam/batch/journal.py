"""Which outputs of a batch run are finished, so that a killed run can continue.

The output folder contains `.textsam/`: `settings.json` holds the settings of the last run, for
people; `done.jsonl` has one line per finished output, appended once the output is complete; `lock`
keeps a second run out. A line counts only while the output has the recorded size, the photo is
unchanged, and the settings are the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from textsam.results.storage import dump_json
from textsam.values.files import remove_parts, write_atomically

logger = logging.getLogger(__name__)

_FOLDER = ".textsam"


@dataclass(frozen=True, kw_only=True)
class JournalEntry:
    """One finished output."""

    output: str  # path below the output folder, with "/"
    source: str  # name of the photo
    source_bytes: int
    source_mtime_ns: int
    settings: str  # fingerprint
    output_bytes: int
    labels: dict[str, int]  # number of masks by label; "" for masks without a label


class Journal:
    """The finished outputs of an output folder."""

    def __init__(self, out_dir: Path, settings: Mapping[str, Any]) -> None:
        """Read the journal of an output folder or start one; cleans up after a killed run."""
        self.out_dir = out_dir
        self.settings = fingerprint(settings)
        self._path = out_dir / _FOLDER / "done.jsonl"
        remove_parts(self._path.parent)
        self._entries = {entry.output: entry for entry in _read_entries(self._path)}
        # A killed run may leave half a line at the end, which an appended line would continue.
        self.sort()
        write_atomically(self._path.with_name("settings.json"), dump_json(dict(settings)))

    def find(self, output: str, *, source: str, photo: Path) -> JournalEntry | None:
        """The entry of an output that is complete and up to date, else None."""
        entry = self._entries.get(output)
        if entry is None or (entry.settings, entry.source) != (self.settings, source):
            return None
        state = photo.stat()
        if (entry.source_bytes, entry.source_mtime_ns) != (state.st_size, state.st_mtime_ns):
            return None
        # By size alone: reading every output again would take as long as writing it.
        file = self.out_dir / output
        return entry if file.is_file() and file.stat().st_size == entry.output_bytes else None

    def add(self, entry: JournalEntry) -> None:
        """Record an output that is complete."""
        # Appended, not rewritten: a run of a million photos writes one line for each.
        self._entries[entry.output] = entry
        with self._path.open("ab") as file:
            file.write(dump_json(asdict(entry)))

    def discard(self, output: str) -> None:
        """Remove an output of an earlier run that cannot be made again, and its entry."""
        if output in self._entries:
            (self.out_dir / output).unlink(missing_ok=True)
            del self._entries[output]
            self.sort()

    def sort(self) -> None:
        """Rewrite the file with one line per output, by name, if it differs from that."""
        content = b"".join(dump_json(asdict(self._entries[key])) for key in sorted(self._entries))
        if not self._path.is_file() or self._path.read_bytes() != content:
            write_atomically(self._path, content)


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Sixteen hex digits that change when any setting does."""
    return hashlib.sha256(dump_json(dict(sorted(settings.items())))).hexdigest()[:16]


@contextmanager
def lock_folder(out_dir: Path) -> Iterator[None]:
    """Keep other runs out of an output folder; the system frees the lock if this process dies."""
    folder = out_dir / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    # No soft lock instead: that is a file which would stay when the process dies.
    lock = FileLock(folder / "lock", timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise RuntimeError(
            f"another run is writing to {str(out_dir)!r}; wait for it, or give another folder"
        ) from error
    except OSError as error:
        # Some network file systems have no locks; that is no reason not to run.
        logger.warning("cannot lock %s (%s); start no second run there", out_dir, error)
    try:
        yield
    finally:
        lock.release()


def _read_entries(path: Path) -> Iterator[JournalEntry]:
    """Entries of a journal, in order, without damaged lines."""
    if not path.is_file():
        return
    for line in path.read_bytes().splitlines():
        try:
            yield JournalEntry(**json.loads(line))
        except (ValueError, TypeError):
            logger.info("left out a damaged line of %s", path)
