"""What `textsam segment` does once its options are read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textsam.batch.folders import BatchReport, PhotoReport, Segmenter, segment_folder
from textsam.errors import PromptError
from textsam.pictures.draw import PICTURE_SUFFIXES
from textsam.results.explanation import Explanation, explain_fully
from textsam.results.segmentation import PictureKind, Segmentation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

__all__ = [
    "check_explain",
    "choose_target",
    "explain",
    "parse_box",
    "parse_points",
    "run_many",
    "segment_many",
    "show_and_save",
]

_RESULT_SUFFIXES = (*PICTURE_SUFFIXES, ".json", ".npz", ".txt")


def parse_points(texts: Sequence[str]) -> tuple[list[list[float]], list[int]]:
    """Read clicks `X,Y` (on the object) or `X,Y,0|1`: points and labels.

    Raises:
        PromptError: Not such a text.
    """
    points, labels = [], []
    for text in texts:
        x, y, *label = _numbers("--point", text, "X,Y or X,Y,0 or X,Y,1", (2, 3))
        if label and label[0] not in (0, 1):
            raise PromptError(f"--point {text}: wanted 1 (on the object) or 0 (not) at the end")
        points.append([x, y])
        labels.append(int(label[0]) if label else 1)
    return points, labels


def parse_box(text: str) -> list[float]:
    """Read a box `X0,Y0,X1,Y1`.

    Raises:
        PromptError: Not such a text.
    """
    return _numbers("--box", text, "X0,Y0,X1,Y1", (4,))


def choose_target(
    photo: Path, out: Path | None, format: str | None, phrases: Sequence[str]
) -> Path:
    """Where the result of one photo goes: OUT itself if it has a suffix, else a file in OUT.

    Args:
        photo: The photo.
        out: What was asked for; by default a file here, named after photo and phrases.
        format: Suffix that was asked for, without the dot.
        phrases: What is looked for.

    Raises:
        ValueError: A suffix that cannot be written, or not the format that was asked for; the photo
            itself.
    """
    if out is not None and out.suffix and not out.is_dir():
        target = out
        if format is not None and out.suffix.lower() != f".{format}":
            raise ValueError(f"-o {out} and --format {format} disagree; leave one out")
    else:
        suffix = f".{format or 'png'}"
        name = "_".join([photo.stem, *phrases] if out is None else [photo.stem])
        # A phrase may hold what a file name must not.
        target = (out or Path()) / (re.sub(r"[^\w.-]+", "-", name) + suffix)
    if target.suffix.lower() not in _RESULT_SUFFIXES:
        raise ValueError(f"-o {out}: wanted a folder, or a file {' '.join(_RESULT_SUFFIXES)}")
    if target.resolve() == photo.resolve():
        raise ValueError(f"{target} is the photo itself and would be overwritten; give another -o")
    return target


def check_explain(path: Path, prompt: Mapping[str, Any], *, others: Sequence[Path | None]) -> None:
    """Refuse reasons that cannot be given or written, before the model is loaded.

    Args:
        path: Where they shall go.
        prompt: Keywords of `segment`.
        others: Files that must not be overwritten.

    Raises:
        ValueError: Another suffix, one of the others, or masks that do not come from phrases alone.
    """
    suffixes = (*PICTURE_SUFFIXES, ".json")
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"--explain {path}: wanted a file {' '.join(suffixes)}")
    if any(other is not None and other.resolve() == path.resolve() for other in others):
        raise ValueError(f"--explain {path} is the photo or the result itself; give another file")
    if not prompt["text"] or prompt["points"] or prompt["box"]:
        raise PromptError("--explain tells of phrases: give -t, without --point and --box")


def explain(
    model: Segmenter, image: NDArray[np.uint8], prompt: dict[str, Any], result: Segmentation
) -> Explanation:
    """Why a result is what it is; phrases refused at the door are asked again, with it open.

    Args:
        model: What segmented.
        image: (H, W, 3) uint8 RGB.
        prompt: Keywords of `segment` that gave the result.
        result: What came out.
    """
    return explain_fully(
        result, lambda again: model.segment(image, **{**prompt, **again}), image=image
    )


def show_and_save(
    result: Segmentation,
    photo: Path,
    image: NDArray[np.uint8],
    target: Path | None,
    *,
    kind: PictureKind | None,
    console: Console | None,
    why: Explanation | None = None,
    why_target: Path | None = None,
) -> str:
    """Write the result of one photo, and its reasons if wanted, and show them as tables.

    Args:
        result: What was found.
        photo: The photo.
        image: Its pixels, (H, W, 3) uint8 RGB.
        target: File to write; None for none.
        kind: Kind of picture.
        console: Where tables go; None for nowhere.
        why: Its reasons.
        why_target: File for the reasons.

    Returns:
        The result as one line of JSON.
    """
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        picture = target.suffix.lower() in PICTURE_SUFFIXES
        result.save(target, kind=kind, image=image if picture else None)
    if why is not None and why_target is not None:
        why_target.parent.mkdir(parents=True, exist_ok=True)
        why.save(why_target)
    if console is not None:
        written = [path for path in (target, why_target) if path is not None]
        _show_result(console, photo, written, result, why)
    output = None if target is None else str(target)
    told = {"source": str(photo), "output": output}
    if why_target is not None:
        told["explanation"] = str(why_target)
    return json.dumps({**told, **result.to_dict()})


def segment_many(
    model: Segmenter,
    photos: Sequence[Path],
    out: Path,
    settings: dict[str, Any],
    *,
    console: Console,
    progress_console: Console,
    as_json: bool,
) -> BatchReport:
    """Segment many photos with a progress bar; tell what became of them.

    Args:
        model: What segments.
        photos: Photos and folders.
        out: Output folder.
        settings: Keywords of `segment_folder`.
        console: For results.
        progress_console: For the progress bar and failures.
        as_json: Whether to print a line of JSON per photo in place of a table.
    """

    def tell(photo: PhotoReport) -> None:
        if as_json:
            console.out(_photo_json(photo), highlight=False)

    def run(show: Callable[[PhotoReport], None]) -> BatchReport:
        return segment_folder(model, photos, out, **settings, on_progress=show)

    return run_many(
        run,
        console=None if as_json else console,
        progress_console=progress_console,
        tell=tell,
    )


def run_many(
    run: Callable[[Callable[[PhotoReport], None]], BatchReport],
    *,
    console: Console | None,
    progress_console: Console,
    tell: Callable[[PhotoReport], None] = lambda photo: None,
) -> BatchReport:
    """Make a run over many photos with a progress bar; tell what became of them.

    Args:
        run: Makes it, and calls what it is given after each photo.
        console: For the table at the end; None for none.
        progress_console: For the progress bar and failures.
        tell: Called after each photo as well.
    """
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (BarColumn(), MofNCompleteColumn(), Remaining(), TextColumn("{task.description}"))
    with Progress(*columns, console=progress_console, transient=True) as progress:
        task = progress.add_task("", total=None)

        def show(photo: PhotoReport) -> None:
            name = escape(photo.source.name)
            progress.update(task, completed=photo.index + 1, total=photo.total, description=name)
            if photo.error is not None:
                told = f"[red]failed[/red] {escape(str(photo.source))}: {escape(photo.error)}"
                progress.console.print(told, soft_wrap=True, highlight=False)
            tell(photo)

        report = run(show)
    if console is not None:
        _show_batch(console, report)
    return report


def _show_result(
    console: Console,
    photo: Path,
    written: Sequence[Path],
    result: Segmentation,
    why: Explanation | None,
) -> None:
    from rich.markup import escape

    from textsam.cli.tables import explanation_table, result_table

    if len(result):
        console.print(result_table(result))
    else:
        console.print(f"no masks in {escape(str(photo))}")
    known = why or (result.explain() if result.answers else None)
    for phrase, chance in result.presence.items():
        if phrase in result.labels:
            continue
        if known is not None and phrase in known.phrases:
            told = known.sentence(phrase, command_line=True)
        else:
            told = f"no {phrase!r} here (presence {chance:.2f})"
        console.print(escape(told), soft_wrap=True)
    if why is not None:
        console.print(explanation_table(why))
    for path in written:
        console.print(f"wrote {escape(str(path))}", soft_wrap=True)


def _show_batch(console: Console, report: BatchReport) -> None:
    from rich.markup import escape

    from textsam.cli.tables import batch_table

    if report.masks:
        console.print(batch_table(report))
    kept = sum(photo.status == "kept" for photo in report.photos)
    parts = [f"{len(report.photos) - kept - len(report.failed)} done"]
    parts += [f"{kept} kept from an earlier run"] if kept else []
    parts += [f"[red]{len(report.failed)} failed[/red]"] if report.failed else []
    console.print(
        f"{len(report.photos)} photos: {', '.join(parts)}; in {escape(str(report.out_dir))}",
        soft_wrap=True,
    )
    if report.failed:
        console.print(
            f"why: {escape(str(report.out_dir / 'errors.jsonl'))}; the same command tries them "
            "again",
            soft_wrap=True,
        )


def _photo_json(photo: PhotoReport) -> str:
    output = None if photo.output is None else str(photo.output)
    told = {"source": str(photo.source), "output": output, "status": photo.status}
    return json.dumps({**told, "masks": photo.masks, "error": photo.error})


def _numbers(option: str, text: str, form: str, counts: tuple[int, ...]) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in counts:
        raise PromptError(f"{option} {text}: wanted {form}, numbers of pixels without spaces")
    return numbers
