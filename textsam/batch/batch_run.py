"""A run over many photos: one output file per photo, a journal to continue from, a report.

A run may be killed at any moment and started again. Each output is either complete or missing,
finished outputs are skipped if photo and settings are unchanged, and the files at the end equal
those of an undisturbed run. A photo that fails is reported and does not stop the run.

Besides the outputs, the output folder holds `summary.json`, `errors.jsonl` if photos failed,
`classes.txt` for YOLO's `.txt`, and `.textsam/` (see `textsam.batch.journal`).
"""

from __future__ import annotations

import errno
import logging
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from textsam.batch.find_photos import RESERVED_NAMES, PhotoFile, find_photos
from textsam.batch.journal import Journal, JournalEntry, lock_folder
from textsam.errors import MissingExtraError, WeightsError, one_line, unknown_keyword
from textsam.pictures.draw import PICTURE_SUFFIXES
from textsam.results.interop import to_sa1b
from textsam.results.segmentation import PictureKind, Segmentation
from textsam.results.storage import dump_json
from textsam.values.files import remove_parts, write_atomically
from textsam.values.images import load_image
from textsam.values.pixels import READING_KEYWORDS, ReadOptions

logger = logging.getLogger(__name__)

# Errors of the disk, which every further photo would meet as well: these stop the run.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

# Where the results wait that become one data set.
_RESULTS = ".textsam/results"

Status = Literal["done", "kept", "failed"]


@dataclass(frozen=True, kw_only=True)
class PhotoReport:
    """The result of one photo."""

    source: Path
    output: Path | None  # None if it failed
    status: Status  # "kept": from an earlier run
    masks: dict[str, int]  # their number by label; "" for masks without a label
    error: str | None  # why it failed, on one line
    index: int  # position in the run, from 0
    total: int  # photos in the run


@dataclass(frozen=True, kw_only=True)
class BatchReport:
    """The result of a run; the photos are in order."""

    out_dir: Path
    photos: list[PhotoReport]
    left_out: dict[str, int] = field(default_factory=dict)  # pictures that are not read, by suffix

    @property
    def failed(self) -> list[PhotoReport]:
        """The photos that failed."""
        return [photo for photo in self.photos if photo.status == "failed"]

    @property
    def masks(self) -> dict[str, int]:
        """Number of masks by label, over all photos."""
        return dict(sum((Counter(photo.masks) for photo in self.photos), Counter[str]()))


def run_batch(
    paths: str | Path | Iterable[str | Path],
    out_dir: Path,
    segment: Callable[[list[NDArray[np.uint8]]], list[Segmentation | Exception]],
    settings: dict[str, Any],
    *,
    overwrite: bool,
    on_progress: Callable[[PhotoReport], None] | None,
    together: int = 1,
    reading: Mapping[str, Any] | None = None,
    assemble: Callable[[list[tuple[PhotoFile, Path]]], None] | None = None,
) -> BatchReport:
    """Apply one function to many photos, `together` at a time, and write a file for each.

    The settings are everything that changes the outputs; `format`, `kind` and, for YOLO's `.txt`,
    `text` say how results are written, and `reading` how photos are read. `assemble` makes one
    data set of all photos and their results, which are then kept apart. Errors: `segment_folder`.
    """
    reading = check_reading(reading or {})
    # Settings that are left out do not change the fingerprint of earlier runs.
    settings = {**settings, "reading": reading} if reading else settings
    inputs = [paths] if isinstance(paths, str | Path) else list(paths)
    own = settings  # for the summary
    if assemble is not None:
        # The results are the same for every format, so that a further one takes no model.
        settings = {**settings, "format": "json"}
    suffix = ".json" if settings["format"] == "sa1b" else f".{settings['format']}"
    found = find_photos([Path(path) for path in inputs], out_dir, suffix=suffix)
    photos = found.photos
    if assemble is not None:
        photos = [replace(photo, output=f"{_RESULTS}/{photo.output}") for photo in photos]
    # Found first: a run without photos must not create the folder.
    with lock_folder(out_dir):
        journal = Journal(out_dir, {**settings, "textsam": _version()})
        _remove_leftovers(photos, out_dir)
        reports = []
        coming = _read_ahead(photos, settings, journal, overwrite=overwrite, together=together)
        done = ((read, answer) for group in coming for read, answer in _segment(group, segment))
        for index, (read, answer) in enumerate(done):
            status, masks, error = _finish_photo(read, answer, settings, journal)
            report = PhotoReport(
                source=read.photo.path,
                output=None if error else out_dir / read.photo.output,
                status=status,
                masks=masks,
                error=error,
                index=index,
                total=len(photos),
            )
            _note_error(read.photo, error, out_dir)
            reports.append(report)
            if on_progress is not None:
                on_progress(report)
        journal.sort()
        if assemble is not None:
            outputs = [report.output for report in reports]
            assemble([(p, path) for p, path in zip(photos, outputs, strict=True) if path])
        batch = BatchReport(out_dir=out_dir, photos=reports, left_out=found.left_out)
        _write_summary(batch, own)
    return batch


def _note_error(photo: PhotoFile, error: str | None, out_dir: Path) -> None:
    if error is not None:
        with (out_dir / "errors.jsonl").open("ab") as file:
            file.write(dump_json({"source": photo.name, "error": error}))


def check_reading(reading: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of `load_image` that say how photos are read, checked, as JSON has them."""
    for name in reading:
        if name not in READING_KEYWORDS:
            raise unknown_keyword(name, READING_KEYWORDS, {})
    ReadOptions(**reading)
    given = {name: value for name, value in reading.items() if value is not None}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in given.items()}


def _remove_leftovers(photos: Sequence[PhotoFile], out_dir: Path) -> None:
    """Remove half-written files and summaries of an earlier run; make the folders."""
    for name in RESERVED_NAMES:
        (out_dir / name).unlink(missing_ok=True)
    for folder in {(out_dir / photo.output).parent for photo in photos} | {out_dir}:
        folder.mkdir(parents=True, exist_ok=True)
        remove_parts(folder)


@dataclass(frozen=True, kw_only=True, eq=False)
class _ReadPhoto:
    """A photo that was decoded, or need not or cannot be."""

    photo: PhotoFile
    kept: JournalEntry | None = None  # its output is finished
    state: os.stat_result | None = None
    image: NDArray[np.uint8] | None = None
    error: Exception | None = None


def _read_ahead(
    photos: Sequence[PhotoFile],
    settings: dict[str, Any],
    journal: Journal,
    *,
    overwrite: bool,
    together: int,
) -> Iterator[list[_ReadPhoto]]:
    """Groups of photos; the next one is decoded while the last one is in use."""

    def read(group: Sequence[PhotoFile]) -> list[_ReadPhoto]:
        return [_read_photo(photo, settings, journal, overwrite=overwrite) for photo in group]

    with ThreadPoolExecutor(1, thread_name_prefix="textsam-read") as reader:
        groups = [photos[start : start + together] for start in range(0, len(photos), together)]
        coming = reader.submit(read, groups[0])
        for group in groups[1:]:
            ready = coming.result()
            coming = reader.submit(read, group)
            yield ready
        yield coming.result()


def _read_photo(
    photo: PhotoFile, settings: dict[str, Any], journal: Journal, *, overwrite: bool
) -> _ReadPhoto:
    try:
        entry = journal.find(photo.output, source=photo.name, photo=photo.path)
        if entry is not None and not overwrite:
            return _ReadPhoto(photo=photo, kept=entry)
        # Before the photo is read: if it changes meanwhile, the next run sees a difference.
        state = photo.path.stat()
        image = load_image(photo.path, **settings.get("reading", {}))
        return _ReadPhoto(photo=photo, state=state, image=image)
    except Exception as error:  # image decoders and disks raise many types
        return _ReadPhoto(photo=photo, error=error)


def _segment(
    group: Sequence[_ReadPhoto],
    segment: Callable[[list[NDArray[np.uint8]]], list[Segmentation | Exception]],
) -> list[tuple[_ReadPhoto, Segmentation | Exception | None]]:
    """Each photo of a group with its result or its error; None where it is finished."""
    images = [read.image for read in group if read.image is not None]
    answers = iter(segment(images) if images else [])
    return [(read, next(answers) if read.image is not None else read.error) for read in group]


def _finish_photo(
    read: _ReadPhoto,
    answer: Segmentation | Exception | None,
    settings: dict[str, Any],
    journal: Journal,
) -> tuple[Status, dict[str, int], str | None]:
    """Write the result of a photo; returns status, masks by label, error."""
    photo = read.photo
    if read.kept is not None:
        return "kept", read.kept.labels, None
    try:
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        assert read.image is not None
        assert read.state is not None
        path = journal.out_dir / photo.output
        write_result(
            answer,
            path,
            name=photo.name,
            image=read.image,
            format=settings["format"],
            kind=settings["kind"],
            # The same numbers in every photo, also where a phrase was not found.
            names=settings["text"] if path.suffix == ".txt" else None,
        )
        labels = dict(Counter(label or "" for label in answer.labels))
        entry = JournalEntry(
            output=photo.output,
            source=photo.name,
            source_bytes=read.state.st_size,
            source_mtime_ns=read.state.st_mtime_ns,
            settings=journal.settings,
            output_bytes=path.stat().st_size,
            labels=labels,
        )
        journal.add(entry)
        return "done", labels, None
    # Every further photo would fail for the same reason.
    except (WeightsError, MissingExtraError):
        raise
    # Networks and disks raise many types, too.
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise
        logger.info("failed: %s", photo.path, exc_info=True)
        # The result of an earlier run, with another photo or other settings, would be wrong.
        journal.discard(photo.output)
        return "failed", {}, one_line(error)


def write_result(
    result: Segmentation,
    path: Path,
    *,
    name: str,
    image: NDArray[np.uint8],
    format: str,
    kind: PictureKind | None,
    names: Sequence[str] | None = None,
) -> None:
    """Write a result as `Segmentation.save` does, or for format "sa1b" in the layout of SA-1B."""
    if format == "sa1b":
        layout = to_sa1b(result, image_id=sa1b_id(name), file_name=name)
        write_atomically(path, dump_json(layout))
        return
    is_picture = path.suffix.lower() in PICTURE_SUFFIXES
    result.save(path, kind=kind, image=image if is_picture else None, names=names)


def sa1b_id(name: str) -> int:
    """The image id of a photo in SA-1B's layout: 123 for `sa_123.jpg` and `123.jpg`, or a checksum.

    A checksum of the name, not a count, so that a photo keeps its id when others come or go.
    """
    digits = PurePosixPath(name).stem.removeprefix("sa_")
    return int(digits) if digits.isascii() and digits.isdecimal() else zlib.crc32(name.encode())


def _write_summary(batch: BatchReport, settings: dict[str, Any]) -> None:
    if settings["format"] == "txt" and settings["text"]:
        classes = "".join(f"{phrase}\n" for phrase in settings["text"])
        write_atomically(batch.out_dir / "classes.txt", classes.encode(errors="backslashreplace"))
    # Nothing here depends on when or how often the run was started.
    summary = {
        "settings": settings,
        "textsam": _version(),
        "photos": len(batch.photos),
        "failed": len(batch.failed),
        **({"left_out": batch.left_out} if batch.left_out else {}),
        "photos_with_masks": sum(bool(photo.masks) for photo in batch.photos),
        "masks": batch.masks,
    }
    write_atomically(batch.out_dir / "summary.json", dump_json(summary))


def _version() -> str:
    from textsam import __version__

    return str(__version__)
