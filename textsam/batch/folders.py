"""Many photos, one query: `segment_folder` and `everything_folder` write a file for each photo.

Runs can be killed and continued, and a photo that fails does not stop a run: see
`textsam.batch.batch_run`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textsam.batch.batch_run import BatchReport, PhotoReport, run_batch
from textsam.errors import PromptError
from textsam.pictures.draw import PICTURE_SUFFIXES
from textsam.results.segmentation import PictureKind
from textsam.values.geometry import as_array
from textsam.values.prompts import normalize_phrases
from textsam.values.settings import AutomaticSettings, Preset

if TYPE_CHECKING:
    from textsam.inference.model import TextSAM

__all__ = ["BatchReport", "PhotoReport", "everything_folder", "segment_folder"]

_FORMATS = ("png", "jpg", "jpeg", "webp", "json", "npz", "txt")
# "sa1b" is .json in the layout of SA-1B. No "txt": YOLO needs a class for each mask.
_EVERYTHING_FORMATS = ("png", "jpg", "jpeg", "webp", "json", "npz", "sa1b")


def segment_folder(
    model: TextSAM,
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
        model: The model.
        paths: Photos and folders of photos; see `find_photos`.
        out_dir: Output folder, created if missing; subfolders mirror those of the photos.
        text: Phrases. This and the prompts below apply to every photo, as in `ImageView.segment`.
        exclude: Phrases that are not wanted.
        background: Phrases that compete for the pixels and get no mask.
        points: (N, 2) x, y in pixels of each photo.
        labels: (N,) 1 for on the object, 0 for not.
        box: (4,) half-open x0, y0, x1, y1 in pixels of each photo.
        strategy: How phrases become masks.
        threshold: Minimum probability of a phrase and of a mask; the model's own by default.
        overlap: "allow", or "exclusive": a pixel belongs to at most one mask of a photo.
        format: Suffix of the results, without the dot, as in `Segmentation.save`.
        kind: Kind of picture, for pictures only.
        overwrite: Whether to recompute finished results.
        on_progress: Called after each photo.

    Returns:
        A report; its `failed` is empty if all went well.

    Raises:
        ValueError: The run as a whole is wrong: no photos, an unknown format, an empty phrase, an
            output folder that contains the photos.
        WeightsError: The model cannot segment that way at all; likewise `MissingExtraError`.
        OSError: The output folder cannot be written, or the disk is full.
        RuntimeError: Another run is writing to the folder.
    """
    _check_format(format, kind, _FORMATS)
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
        raise ValueError('no prompt; give text="wheel", points=... or box=...')
    if text is not None:
        _check_question(prompt)
    return run_batch(
        paths,
        Path(out_dir),
        lambda image: model.segment(image, **prompt),
        {**prompt, "model": model.name, "format": format, "kind": kind},
        overwrite=overwrite,
        on_progress=on_progress,
    )


def everything_folder(
    model: TextSAM,
    paths: str | Path | Iterable[str | Path],
    out_dir: str | Path,
    *,
    settings: AutomaticSettings | Preset | None = None,
    format: str = "png",
    kind: PictureKind | None = None,
    overwrite: bool = False,
    on_progress: Callable[[PhotoReport], None] | None = None,
) -> BatchReport:
    """Write masks of everything in many photos into a folder; resumable.

    Args:
        model: The model.
        paths: Photos and folders of photos.
        out_dir: Output folder, created if missing; subfolders mirror those of the photos.
        settings: `AutomaticSettings` or the name of a preset, as in `ImageView.everything`.
        format: Suffix of the results, without the dot, as in `Segmentation.save`; or "sa1b": .json
            files in the layout of SA-1B, with `sa1b_id` as image ids.
        kind: Kind of picture, for pictures only; "instances" is a PNG of pixel numbers.
        overwrite: Whether to recompute finished results.
        on_progress: Called after each photo.

    Returns:
        A report; its `failed` is empty if all went well.

    Raises:
        ValueError: As `segment_folder`; `OSError` and `RuntimeError` likewise.
        PromptError: An unknown preset.
    """
    _check_format(format, kind, _EVERYTHING_FORMATS)
    resolved = AutomaticSettings.from_preset(settings)
    return run_batch(
        paths,
        Path(out_dir),
        lambda image: model.everything(image, resolved),
        {"everything": asdict(resolved), "model": model.name, "format": format, "kind": kind},
        overwrite=overwrite,
        on_progress=on_progress,
    )


def _check_format(format: str, kind: PictureKind | None, known: Sequence[str]) -> None:
    if format not in known:
        raise ValueError(f"got format {format!r}; wanted one of {', '.join(known)}")
    if kind is not None and f".{format}" not in PICTURE_SUFFIXES:
        raise ValueError(f"got kind {kind!r} with format {format!r}; kinds are for pictures")


def _check_question(prompt: dict[str, Any]) -> None:
    """Refuse what is invalid for every photo, once for the run and not for each of them."""
    from textsam.inference.strategies.query import make_question  # imports torch

    names = ("text", "exclude", "background", "strategy", "threshold", "overlap")
    make_question(**{name: prompt[name] for name in names})


def _phrases(phrases: str | Sequence[str] | None, name: str) -> list[str] | None:
    return None if phrases is None else normalize_phrases(phrases, name)
