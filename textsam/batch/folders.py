"""Many photos, one question: `segment_folder` and `everything_folder` write a file for each.

A run may be killed at any moment and started again, and one bad photo does not stop it:
`textsam.batch.run`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from textsam.batch.run import BatchReport, PhotoReport, run_over
from textsam.errors import PromptError
from textsam.pictures.draw import PICTURE_SUFFIXES
from textsam.results.columns import as_array
from textsam.results.segmentation import PictureKind, Segmentation
from textsam.values.prompts import normalize_phrases

__all__ = [
    "BatchReport",
    "FindsEverything",
    "PhotoReport",
    "Segmenter",
    "everything_folder",
    "segment_folder",
]

_FORMATS = ("png", "jpg", "jpeg", "webp", "json", "npz", "txt")
# "sa1b" is .json in the layout of SA-1B; masks without a label have no YOLO class.
_EVERYTHING_FORMATS = ("png", "jpg", "jpeg", "webp", "json", "npz", "sa1b")


class Segmenter(Protocol):
    """What a run needs of a model; `TextSAM` is one."""

    @property
    def name(self) -> str:
        """What tells this model from others, e.g. `"tiny"`; outputs of another are made anew."""

    def segment(self, image: Any, **prompt: Any) -> Any:
        """Segment one image (H, W, 3) uint8; returns a `Segmentation`."""


class FindsEverything(Protocol):
    """What a run over everything needs of a model; `TextSAM` is one."""

    @property
    def name(self) -> str:
        """As `Segmenter.name`."""

    def everything(self, image: Any, settings: Any = None) -> Segmentation:
        """Masks of everything in one image (H, W, 3) uint8."""


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
        paths: Photos and folders of photos; see `find_photos` for what is taken.
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
        raise ValueError('nothing asked for; give text="wheel", points=... or box=...')
    if text is not None:
        _check_question(prompt)
    return run_over(
        paths,
        Path(out_dir),
        lambda image: model.segment(image, **prompt),
        {**prompt, "model": model.name, "format": format, "kind": kind},
        overwrite=overwrite,
        on_progress=on_progress,
    )


def everything_folder(
    model: FindsEverything,
    paths: str | Path | Iterable[str | Path],
    out_dir: str | Path,
    *,
    settings: Any = None,
    format: str = "png",
    kind: PictureKind | None = None,
    overwrite: bool = False,
    on_progress: Callable[[PhotoReport], None] | None = None,
) -> BatchReport:
    """Write masks of everything in many photos into a folder; resumable.

    Args:
        model: A `TextSAM`, or anything with its `name` and `everything`.
        paths: Photos and folders of photos.
        out_dir: Where results go; made if missing. Folders inside are those of the photos.
        settings: `AutomaticSettings` or a preset's name, as `ImageView.everything`.
        format: Suffix of the results, without the dot, as in `Segmentation.save`; or "sa1b": .json
            files in the layout of SA-1B, numbered by `sa1b_id`.
        kind: Kind of picture, for pictures only; "instances" is a PNG of numbered pixels.
        overwrite: Whether to make everything anew.
        on_progress: Called after each photo.

    Returns:
        A report; its `failed` is empty if all went well.

    Raises:
        ValueError: As `segment_folder`; `OSError` and `RuntimeError` likewise.
        PromptError: An unknown preset.
    """
    from textsam.values.settings import AutomaticSettings

    _check_format(format, kind, _EVERYTHING_FORMATS)
    wanted = AutomaticSettings.from_preset(settings)
    return run_over(
        paths,
        Path(out_dir),
        lambda image: model.everything(image, wanted),
        {"everything": asdict(wanted), "model": model.name, "format": format, "kind": kind},
        overwrite=overwrite,
        on_progress=on_progress,
    )


def _check_format(format: str, kind: PictureKind | None, known: Sequence[str]) -> None:
    if format not in known:
        raise ValueError(f"got format {format!r}; wanted one of {', '.join(known)}")
    if kind is not None and f".{format}" not in PICTURE_SUFFIXES:
        raise ValueError(f"got kind {kind!r} with format {format!r}; kinds are for pictures")


def _check_question(prompt: dict[str, Any]) -> None:
    """Refuse what could be asked of no photo, once for the run and not for each of them."""
    from textsam.inference.strategies.query import make_question  # imports torch

    names = ("text", "exclude", "background", "strategy", "threshold", "overlap")
    make_question(**{name: prompt[name] for name in names})


def _phrases(given: str | Sequence[str] | None, name: str) -> list[str] | None:
    return None if given is None else normalize_phrases(given, name)
