"""One photo or many: where results go, and a run over many photos with its progress and summary."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from textsam.cli.console import ProgressBar, make_console, print_line
from textsam.pictures.draw import PICTURE_SUFFIXES

if TYPE_CHECKING:
    from textsam.batch.batch_run import BatchReport, PhotoReport

__all__ = ["choose_target", "is_one_photo", "run_many"]

_RESULT_SUFFIXES = (*PICTURE_SUFFIXES, ".json", ".npz", ".txt")


def is_one_photo(photos: Sequence[Path], out: Path | None) -> bool:
    """Whether a command line names one photo rather than a run over many.

    Raises:
        ValueError: It names many and no output folder.
    """
    if len(photos) == 1 and not photos[0].is_dir():
        return True
    if out is None:
        raise ValueError("several photos need a folder for their results; add -o FOLDER")
    return False


def choose_target(
    photo: Path, out: Path | None, format: str | None, phrases: Sequence[str]
) -> Path:
    """Where the result of one photo goes: OUT itself if it has a suffix, else a file in OUT.

    Args:
        photo: The photo.
        out: The value of `-o`; by default a file in this folder, named after photo and phrases.
        format: The value of `--format`.
        phrases: What is searched for.

    Raises:
        ValueError: A suffix that cannot be written or that differs from the format, or a file that
            would overwrite the photo.
    """
    if out is not None and out.suffix and not out.is_dir():
        target = out
        if format is not None and out.suffix.lower() != f".{format}":
            raise ValueError(f"-o {out} and --format {format} disagree; leave one out")
    else:
        suffix = f".{format or 'png'}"
        name = "_".join([photo.stem, *phrases] if out is None else [photo.stem])
        # A phrase may contain characters that are not allowed in file names.
        target = (out or Path()) / (re.sub(r"[^\w.-]+", "-", name) + suffix)
    if target.suffix.lower() not in _RESULT_SUFFIXES:
        raise ValueError(f"-o {out}: wanted a folder, or a file {' '.join(_RESULT_SUFFIXES)}")
    if target.resolve() == photo.resolve():
        raise ValueError(f"{target} is the photo itself and would be overwritten; give another -o")
    return target


def run_many(
    run: Callable[[Callable[[PhotoReport], None]], BatchReport],
    *,
    summary: bool = True,
    on_photo: Callable[[PhotoReport], None] = lambda photo: None,
) -> BatchReport:
    """Make a run over many photos with a progress bar, then print what came of it.

    Args:
        run: Makes the run; calls its argument after each photo.
        summary: Whether to print a table and a summary at the end.
        on_photo: Called after each photo as well.
    """
    with ProgressBar() as bar:

        def show(photo: PhotoReport) -> None:
            bar.show(photo.index + 1, photo.total, photo.source.name)
            if photo.error is not None:
                bar.show_failure(str(photo.source), photo.error)
            on_photo(photo)

        report = run(show)
    if summary:
        _print_summary(report)
    return report


def _print_summary(report: BatchReport) -> None:
    from textsam.cli.tables import batch_table

    console = make_console()
    if report.masks:
        console.print(batch_table(report))
    kept = sum(photo.status == "kept" for photo in report.photos)
    failed = len(report.failed)
    parts = [f"{len(report.photos) - kept - failed} done"]
    parts += [f"{kept} kept from an earlier run"] if kept else []
    parts += [f"{failed} failed"] if failed else []
    print_line(f"{len(report.photos)} photos: {', '.join(parts)}; in {report.out_dir}")
    if failed:
        errors = report.out_dir / "errors.jsonl"
        print_line(f"errors are listed in {errors}; the same command tries these photos again")
