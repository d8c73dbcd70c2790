"""Many photos, one question: `segment_folder` writes a result file for each.

A run may be killed at any moment and started again: outputs are complete or not there, finished
ones are passed over if photo and settings are the same, and the files at the end are the same as
of a run that nobody disturbed. A photo that fails is reported and does not stop the run.

The output folder then holds an output per photo, `summary.json`, `errors.jsonl` if photos failed,
`classes.txt` for YOLO's `.txt`, and `.textsam/` (`textsam.journal`).
"""

from __future__ import annotations

import errno
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from textsam.columns import as_array
from textsam.draw import PICTURE_SUFFIXES
from textsam.errors import MissingExtraError, PromptError, WeightsError
from textsam.files import remove_parts, write_atomically
from textsam.images import load_image
from textsam.journal import Done, Journal, only_run
from textsam.photos import Photo, find_photos
from textsam.prompts import normalize_phrases
from textsam.segmentation import PictureKind, Segmentation
from textsam.storage import dump_json

__all__ = ["BatchReport", "PhotoReport", "Segmenter", "one_line", "segment_folder"]

_log = logging.getLogger(__name__)

_FORMATS = ("png", "jpg", "jpeg", "webp", "json", "npz", "txt")

# Not one photo's fault: every further one would fail the same way.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


Status = Literal["done", "kept", "failed"]


class Segmenter(Protocol):
    """What a run needs of a model; `TextSAM` is one."""

    @property
    def name(self) -> str:
        """What tells this model from others, e.g. `"tiny"`; outputs of another are made anew."""

    def segment(self, image: Any, **prompt: Any) -> Any:
        """Segment one image (H, W, 3) uint8; returns a `Segmentation`."""


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


def segment_folder(
    model: Segmenter,
    paths: str | Path | Iterable[str | Path],
    out_dir: str | Path,
    *,
    text: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    background: str | Sequence[str] | None = None,
    points: Any = None,
    labels: Any = None,
    box: Any = None,
    strategy: str = "auto",
    threshold: float | None = None,
    overlap: str = "allow",
    format: str = "png",
    kind: PictureKind | None = None,
    overwrite: bool = False,
    on_progress: Callable[[PhotoReport], None] | None = None,
) -> BatchReport:
    """Segment many photos into a folder; resumable.

    Args:
        model: A `TextSAM`, or anything with its `name` and `segment`.
        paths: Photos and folders of photos; see `textsam.photos.find_photos` for what is taken.
        out_dir: Where results go; made if missing. Folders inside are those of the photos.
        text: Phrases. This and the prompts below are put to every photo, as in `ImageView.segment`.
        exclude: Phrases that are not meant.
        background: Phrases that compete for the pixels and are not painted.
        points: (N, 2) x, y in pixels of each photo.
        labels: (N,) 1 for on the object, 0 for not.
        box: (4,) half-open x0, y0, x1, y1 in pixels of each photo.
        strategy: How phrases become masks.
        threshold: Least probability of a phrase and of a mask; the model's own by default.
        overlap: "allow", or "exclusive": a pixel belongs to at most one mask of a photo.
        format: Suffix of the results, without the dot, as in `Segmentation.save`.
        kind: Kind of picture, for pictures only.
        overwrite: Whether to make everything anew.
        on_progress: Called after each photo.

    Returns:
        A report; its `failed` is empty if all went well.

    Raises:
        ValueError: Something about the run as a whole: no photos, an unknown format, a phrase that
            is none, an output folder that holds the photos.
        WeightsError: The model cannot work at all; so too `MissingExtraError`.
        OSError: The output folder cannot be written, or the disk is full.
        RuntimeError: Another run is writing there.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    if format not in _FORMATS:
        raise ValueError(f"got format {format!r}; wanted one of {', '.join(_FORMATS)}")
    if kind is not None and f".{format}" not in PICTURE_SUFFIXES:
        raise ValueError(f"got kind {kind!r} with format {format!r}; kinds are for pictures")
    by_hand = points is not None or box is not None
    if (exclude is not None or background is not None) and (text is None or by_hand):
        raise PromptError(
            "exclude and background go with phrases alone; give text=... without points or box"
        )
    prompt = {
        "text": _phrases(text, "text"),
        "exclude": _phrases(exclude, "exclude"),
        "background": _phrases(background, "background"),
        "points": None if points is None else as_array(points).tolist(),
        "labels": None if labels is None else as_array(labels).tolist(),
        "box": None if box is None else as_array(box).tolist(),
        "strategy": strategy,
        "threshold": threshold,
        "overlap": overlap,
    }
    if all(prompt[name] is None for name in ("text", "points", "box")):
        raise ValueError('nothing asked for; give text="wheel", points=... or box=...')
    if text is not None:
        _check_question(prompt)
    out = Path(out_dir)
    photos = find_photos([Path(path) for path in given], out, suffix=f".{format}")
    settings = {**prompt, "model": model.name, "format": format, "kind": kind}
    with only_run(out):
        run = _Run(model, out, prompt, kind, Journal(out, {**settings, "textsam": _version()}))
        return run.segment_all(photos, settings, overwrite=overwrite, on_progress=on_progress)


class _Run:
    """One run over many photos, once everything about it has been checked."""

    def __init__(
        self,
        model: Segmenter,
        out: Path,
        prompt: dict[str, Any],
        kind: PictureKind | None,
        journal: Journal,
    ) -> None:
        self.model, self.out, self.prompt, self.kind = model, out, prompt, kind
        self.journal = journal

    def segment_all(
        self,
        photos: Sequence[Photo],
        settings: dict[str, Any],
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
        if settings["format"] == "txt" and self.prompt["text"]:
            names = "".join(f"{phrase}\n" for phrase in self.prompt["text"])
            write_atomically(self.out / "classes.txt", names.encode())
        whole = BatchReport(out_dir=self.out, photos=reports)
        write_atomically(self.out / "summary.json", _summary(whole, settings))
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
        result: Segmentation = self.model.segment(image, **self.prompt)
        path = self.out / photo.output
        picture = path.suffix in PICTURE_SUFFIXES
        result.save(
            path,
            kind=self.kind,
            image=image if picture else None,
            names=self.prompt["text"] if path.suffix == ".txt" else None,
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


def _check_question(prompt: dict[str, Any]) -> None:
    """Refuse what could be asked of no photo, once for the run and not for each of them."""
    from textsam.inference.text import make_question  # imports torch

    names = ("text", "exclude", "background", "strategy", "threshold", "overlap")
    make_question(**{name: prompt[name] for name in names})


def _phrases(given: str | Sequence[str] | None, name: str) -> list[str] | None:
    return None if given is None else normalize_phrases(given, name)


def one_line(error: BaseException) -> str:
    """Say an error on one line; its type stands before messages that would mean little alone."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError | OSError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


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
