"""Many photos, one query: `segment_folder` and `everything_folder` write a file for each photo.

Runs can be killed and continued, and a photo that fails does not stop a run: see
`textsam.batch.batch_run`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast, get_args

from textsam.batch.batch_run import BatchReport, PhotoReport, run_batch
from textsam.batch.find_photos import PhotoFile
from textsam.inference.photo_lists import answer_each, group_size
from textsam.inference.strategies.naming import check_names
from textsam.inference.strategies.query import (
    PromptOptions,
    Query,
    check_keywords,
    make_query,
    show_keywords,
)
from textsam.pictures.draw import PICTURE_SUFFIXES
from textsam.results.formats.data_set import assemble_set, make_options
from textsam.results.formats.set_photo import PhotoPlace, make_photos
from textsam.results.segmentation import PictureKind, Segmentation
from textsam.values.geometry import as_array
from textsam.values.judge import Threshold
from textsam.values.settings import AutomaticSettings, Preset, ResultFormat, SetFormat

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from textsam.inference.model import TextSAM
    from textsam.inference.view import ImageView

__all__ = ["BatchReport", "PhotoReport", "everything_folder", "segment_folder"]

_SET_FORMATS = get_args(SetFormat)
_FORMATS = (*get_args(ResultFormat), "jpeg", *_SET_FORMATS)
# "sa1b" is .json in the layout of SA-1B. No "txt": YOLO needs a class for each mask.
_EVERYTHING_FORMATS = (*(name for name in _FORMATS if name != "txt"), "sa1b")


@show_keywords(PromptOptions)
def segment_folder(
    model: TextSAM,
    paths: str | Path | Iterable[str | Path],
    out_dir: str | Path,
    *,
    format: str = "png",
    kind: PictureKind | None = None,
    polygons: bool | None = None,
    tolerance: float = 0.5,
    photos: PhotoPlace | None = None,
    overwrite: bool = False,
    reading: Mapping[str, Any] | None = None,
    on_progress: Callable[[PhotoReport], None] | None = None,
    **options: Unpack[PromptOptions],
) -> BatchReport:
    """Segment many photos into a folder; resumable.

    Args:
        model: The model.
        paths: Photos, folders of photos and patterns ("photos/*.jpg"); see `find_photos`.
        out_dir: Output folder, created if missing; subfolders mirror those of the photos.
        format: Suffix of the results, without the dot, as in `Segmentation.save`; or one data set
            of all photos: "coco", "yolo", "labelme", ... (`SetFormat`), see docs/formats.md.
        kind: Kind of picture, for pictures only.
        polygons: For data sets, whether they have polygons; see `write_set`.
        tolerance: For polygons of data sets, pixels.
        photos: For data sets: "copy", "link" or "none".
        overwrite: Whether to recompute finished results.
        reading: How photos are read, as keywords of `load_image`: {"bands": (3, 2, 1)}; also
            "white", "page", "alpha".
        on_progress: Called after each photo.
        **options: `text`, `exclude`, `background`, `points`, `labels`, `box`, `boxes`, `strategy`,
            `threshold`, `overlap`: see `PromptOptions`. In pixels of every photo.

    Returns:
        A report; its `failed` is empty if all went well.

    Raises:
        ValueError: No photos, an unknown format, an empty phrase, or output among the photos.
        WeightsError: The model cannot segment that way at all; likewise `MissingExtraError`.
        OSError: The output folder cannot be written, or the disk is full.
        RuntimeError: Another run is writing to the folder.
    """
    _check_format(format, kind, _FORMATS)
    # A mask or examples belong to one photo, so a run has no such keywords.
    check_keywords(options, PromptOptions)
    query = make_query(**options)
    if isinstance(query.threshold, Mapping):  # one of another phrase is wrong for every photo
        query = query.settled(model.parts)
    return run_batch(
        paths,
        Path(out_dir),
        _asker(model, lambda view: view.ask(query), lambda i: model.segment(i, **options), query),
        {**_to_json(query), "model": model.name, "format": format, "kind": kind},
        overwrite=overwrite,
        reading=reading,
        on_progress=on_progress,
        assemble=_assemble(format, query.phrases, Path(out_dir), polygons, tolerance, photos),
        together=_together(model, query),
    )


def everything_folder(
    model: TextSAM,
    paths: str | Path | Iterable[str | Path],
    out_dir: str | Path,
    *,
    settings: AutomaticSettings | Preset | None = None,
    names: str | Sequence[str] | None = None,
    threshold: Threshold = None,
    format: str = "png",
    kind: PictureKind | None = None,
    overwrite: bool = False,
    reading: Mapping[str, Any] | None = None,
    on_progress: Callable[[PhotoReport], None] | None = None,
) -> BatchReport:
    """Write masks of everything in many photos into a folder; resumable.

    As `segment_folder`, with the `settings`, `names` and `threshold` of `ImageView.everything`.
    Format "sa1b" writes .json files in the layout of SA-1B, with `sa1b_id` as image ids; kind
    "instances" is a PNG of pixel numbers. A data set, such as "coco", has the class "object" for
    masks without a name.

    Raises:
        ValueError: As `segment_folder`; `OSError` and `RuntimeError` likewise.
        PromptError: An unknown preset, or an empty name.
        WeightsError: Names for a model without a CLIP.
    """
    _check_format(format, kind, _EVERYTHING_FORMATS)
    resolved = AutomaticSettings.from_preset(settings)
    named: dict[str, Any] = {}
    if names is not None or threshold is not None:
        named = {"names": names, "threshold": threshold}
        check_names(model.parts, **named)
    return run_batch(
        paths,
        Path(out_dir),
        _asker(
            model,
            lambda view: view.everything(resolved, **named),
            lambda image: model.everything(image, resolved, **named),
        ),
        {
            **{"everything": asdict(resolved), "model": model.name, "format": format, "kind": kind},
            **named,
        },
        overwrite=overwrite,
        reading=reading,
        on_progress=on_progress,
        together=_together(model),
        assemble=_assemble(format, (), Path(out_dir)),
    )


def _assemble(
    format: str,
    names: Sequence[str],
    out_dir: Path,
    polygons: bool | None = None,
    tolerance: float = 0.5,
    photos: PhotoPlace | None = None,
) -> Callable[[list[tuple[PhotoFile, Path]]], None] | None:
    """What makes a data set of a run's results; None if the format is none of a data set."""
    if format not in _SET_FORMATS:
        if (polygons, photos) != (None, None):
            given = "polygons=" if polygons is not None else "photos="
            raise ValueError(
                f"got {given} with format {format!r}; it is for {', '.join(_SET_FORMATS)}"
            )
        return None
    kind = cast(SetFormat, format)
    options = make_options(kind, names=names, polygons=polygons, tolerance=tolerance, photos=photos)

    def assemble(results: list[tuple[PhotoFile, Path]]) -> None:
        items = [(p.path, p.name, partial(Segmentation.load, path)) for p, path in results]
        assemble_set(make_photos(items), out_dir, kind, options)

    return assemble


def _together(model: TextSAM, query: Query | None = None) -> int:
    """Photos that are encoded, and put to a detector, at once; one for a model that wraps one."""
    parts = getattr(model, "parts", None)
    return 1 if parts is None else group_size(parts, query)


def _asker(
    model: TextSAM,
    ask: Callable[[ImageView], Segmentation],
    ask_one: Callable[[NDArray[np.uint8]], Segmentation],
    query: Query | None = None,
) -> Callable[[list[NDArray[np.uint8]]], list[Segmentation | Exception]]:
    """What `run_batch` asks of a group of photos."""

    def one_by_one(images: list[NDArray[np.uint8]]) -> list[Segmentation | Exception]:
        [image] = images
        try:
            return [ask_one(image)]
        except Exception as error:  # of this photo; `run_batch` says which ones end the run
            return [error]

    if _together(model, query) == 1:
        return one_by_one
    return lambda images: answer_each(model.parts, images, [ask] * len(images), query=query)


def _check_format(format: str, kind: PictureKind | None, known: Sequence[str]) -> None:
    if format not in known:
        advice = ". FiftyOne reads coco" if format == "fiftyone" else ""
        raise ValueError(f"got format {format!r}; wanted one of {', '.join(known)}{advice}")
    if kind is not None and f".{format}" not in PICTURE_SUFFIXES:
        raise ValueError(f"got kind {kind!r} with format {format!r}; kinds are for pictures")


def _to_json(query: Query) -> dict[str, Any]:
    """The settings of a run, for its journal and its summary."""
    lists = {name: _as_lists(getattr(query, name)) for name in ("points", "labels", "box", "boxes")}
    return {
        "text": list(query.phrases) or None,
        "exclude": list(query.exclude) or None,
        "background": list(query.background) or None,
        **lists,
        "strategy": query.strategy,
        "threshold": query.threshold,
        "overlap": query.overlap,
    }


def _as_lists(values: Any) -> Any:
    """A table as lists; sets of points may be of different lengths."""
    if isinstance(values, list | tuple):
        return [_as_lists(item) for item in values]
    return values if values is None else as_array(values).tolist()
