"""One run over many photos: an output for each, a journal to go on from, a report at the end.

A run may be killed at any moment and started again: outputs are complete or not there, finished
ones are passed over if photo and settings are the same, and the files at the end are the same as
of a run that nobody disturbed. A photo that fails is reported and does not stop the run.

The output folder then holds an output per photo, `summary.json`, `errors.jsonl` if photos failed,
`classes.txt` for YOLO's `.txt`, and `.textsam/` (`textsam.batch.journal`).
"""

from __future__ import annotations

import errno
import logging
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from textsam.batch.find_photos import Photo, find_photos
from textsam.batch.journal import Done, Journal, only_run
from textsam.errors import MissingExtraError, WeightsError, one_line
from textsam.pictures.draw import PICTURE_SUFFIXES
from textsam.results.interop import to_sa1b
from textsam.results.segmentation import PictureKind, Segmentation
from textsam.results.storage import dump_json
from textsam.values.files import remove_parts, write_atomically
from textsam.values.images import load_image

__all__ = ["BatchReport", "PhotoReport", "run_over", "sa1b_id", "write_result"]

_log = logging.getLogger(__name__)

# Not one photo's fault: every further one would fail the same way.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

Status = Literal["done", "kept", "failed"]


@dataclass(frozen=True, kw_only=True)
class PhotoReport:
    """What became of one photo.

    Attributes:
        source: The photo.
        output: Its result file; None if it failed.
        status: `"done"` now, `"kept"` from an earlier run, or `"failed"`.
        masks: Number of masks by label; `""` for masks without a label.
        error: Why it failed, one line; None if it did not.
        index: Its place in the run, from 0.
        total: Photos in the run.
    """

    source: Path
    output: Path | None
    status: Status
    masks: dict[str, int]
    error: str | None
    index: int
    total: int


@dataclass(frozen=True, kw_only=True)
class BatchReport:
    """What became of a run.

    Attributes:
        out_dir: The output folder.
        photos: A report per photo, in order.
    """

    out_dir: Path
    photos: list[PhotoReport]

    @property
    def failed(self) -> list[PhotoReport]:
        """The photos that failed."""
        return [photo for photo in self.photos if photo.status == "failed"]

    @property
    def masks(self) -> dict[str, int]:
        """Number of masks by label, over all photos."""
        total: Counter[str] = Counter()
        for photo in self.photos:
            total.update(photo.masks)
        return dict(total)


def run_over(
    paths: str | Path | Iterable[str | Path],
    out: Path,
    ask: Callable[[NDArray[np.uint8]], Segmentation],
    settings: dict[str, Any],
    *,
    overwrite: bool,
    on_progress: Callable[[PhotoReport], None] | None,
) -> BatchReport:
    """Ask every photo the same.

    Args:
        paths: Photos and folders of photos.
        out: Output folder.
        ask: Segments a photo (H, W, 3) uint8.
        settings: What makes another output of the same photo; `format`, `kind` and, for YOLO's
            `.txt`, `text` say how results are written.
        overwrite: Whether to make everything anew.
        on_progress: Called after each photo.

    Raises:
        ValueError: No photos, or an output folder that holds them.
        OSError: The output folder cannot be written, or the disk is full.
        RuntimeError: Another run is writing there.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    suffix = ".json" if settings["format"] == "sa1b" else f".{settings['format']}"
    photos = find_photos([Path(path) for path in given], out, suffix=suffix)
    with only_run(out):
        run = _Run(out, ask, settings, Journal(out, {**settings, "textsam": _version()}))
        return run.segment_all(photos, overwrite=overwrite, on_progress=on_progress)


class _Run:
    """One run over many photos, once everything about it has been checked.

    `settings` has `format`, `kind` and, for phrases, `text`.
    """

    def __init__(
        self,
        out: Path,
        ask: Callable[[NDArray[np.uint8]], Segmentation],
        settings: dict[str, Any],
        journal: Journal,
    ) -> None:
        self.out, self.ask, self.settings, self.journal = out, ask, settings, journal

    def segment_all(
        self,
        photos: Sequence[Photo],
        *,
        overwrite: bool,
        on_progress: Callable[[PhotoReport], None] | None,
    ) -> BatchReport:
        """Segment all photos; what an earlier run said about itself is removed first."""
        for name in ("summary.json", "errors.jsonl", "classes.txt"):
            (self.out / name).unlink(missing_ok=True)
        for folder in {(self.out / photo.output).parent for photo in photos}:
            folder.mkdir(parents=True, exist_ok=True)
            remove_parts(folder)
        remove_parts(self.out)
        reports = []
        for index, photo in enumerate(photos):
            status, masks, error = self._segment_one(photo, overwrite=overwrite)
            report = PhotoReport(
                source=photo.path,
                output=None if error else self.out / photo.output,
                status=status,
                masks=masks,
                error=error,
                index=index,
                total=len(photos),
            )
            if error is not None:
                with (self.out / "errors.jsonl").open("ab") as file:
                    file.write(dump_json({"source": photo.name, "error": error}))
            reports.append(report)
            if on_progress is not None:
                on_progress(report)
        self.journal.tidy()
        if self.settings["format"] == "txt" and self.settings["text"]:
            names = "".join(f"{phrase}\n" for phrase in self.settings["text"])
            write_atomically(self.out / "classes.txt", names.encode())
        whole = BatchReport(out_dir=self.out, photos=reports)
        write_atomically(self.out / "summary.json", _summary(whole, self.settings))
        return whole

    def _segment_one(
        self, photo: Photo, *, overwrite: bool
    ) -> tuple[Status, dict[str, int], str | None]:
        """Segment one photo, or find that it is done: status, masks by label, error."""
        try:
            kept = self.journal.find(photo.output, source=photo.name, photo=photo.path)
            if kept is not None and not overwrite:
                return "kept", kept.labels, None
            return "done", self._make(photo).labels, None
        except (WeightsError, MissingExtraError):
            raise
        except Exception as error:  # a decoder, a network or a disk may fail in any way
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise
            _log.info("failed: %s", photo.path, exc_info=True)
            self.journal.discard(photo.output)
            return "failed", {}, one_line(error)

    def _make(self, photo: Photo) -> Done:
        """Segment one photo, write its result, and record it."""
        before = photo.path.stat()  # of the file as read: a change while we work is seen next time
        image = load_image(photo.path)
        result = self.ask(image)
        path = self.out / photo.output
        write_result(
            result,
            path,
            name=photo.name,
            image=image,
            format=self.settings["format"],
            kind=self.settings["kind"],
            names=self.settings["text"] if path.suffix == ".txt" else None,
        )
        done = Done(
            output=photo.output,
            source=photo.name,
            source_bytes=before.st_size,
            source_mtime_ns=before.st_mtime_ns,
            settings=self.journal.settings,
            output_bytes=path.stat().st_size,
            labels=dict(Counter(label or "" for label in result.labels)),
        )
        self.journal.add(done)
        return done


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
    """Write a result as `Segmentation.save`, or in the layout of SA-1B.

    Args:
        result: What was found.
        path: The file.
        name: Of the photo.
        image: (H, W, 3) uint8 RGB.
        format: Suffix without the dot, or "sa1b".
        kind: Kind of picture, for pictures only.
        names: Class names, for YOLO's `.txt` only.
    """
    if format == "sa1b":
        layout = to_sa1b(result, image_id=sa1b_id(name), file_name=name)
        write_atomically(path, dump_json(layout))
        return
    picture = path.suffix.lower() in PICTURE_SUFFIXES
    result.save(path, kind=kind, image=image if picture else None, names=names)


def sa1b_id(name: str) -> int:
    """The number of a photo in SA-1B's layout: that of `sa_123.jpg` or `123.jpg`, else a checksum.

    A checksum of the name, not a count, so that a photo keeps its number when others come or go.
    """
    stem = PurePosixPath(name).stem
    digits = stem.removeprefix("sa_")
    return int(digits) if digits.isascii() and digits.isdecimal() else zlib.crc32(name.encode())


def _summary(report: BatchReport, settings: dict[str, Any]) -> bytes:
    """The run in numbers; nothing that depends on when or how often it was started."""
    return dump_json(
        {
            "settings": settings,
            "textsam": _version(),
            "photos": len(report.photos),
            "failed": len(report.failed),
            "photos_with_masks": sum(bool(photo.masks) for photo in report.photos),
            "masks": report.masks,
        }
    )


def _version() -> str:
    from textsam import __version__

    return str(__version__)
