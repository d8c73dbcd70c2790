"""`textsam segment`: masks of phrases, clicks and boxes in one photo or many."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from textsam.cli import options
from textsam.cli.console import make_console, one_line_errors, print_line
from textsam.errors import PromptError
from textsam.values.settings import Overlap, ResultFormat, SetFormat, Strategy

if TYPE_CHECKING:
    from textsam import TextSAM
    from textsam.batch.batch_run import PhotoReport
    from textsam.results.explanation import Explanation
    from textsam.results.segmentation import Segmentation

TextOption = Annotated[
    list[str] | None,
    typer.Option("-t", "--text", metavar="PHRASE", help="What to find; may be repeated."),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="PHRASE", help="What not to find; may be repeated."),
]
BackgroundOption = Annotated[
    list[str] | None,
    typer.Option(
        "--background",
        metavar="PHRASE",
        help="Competes with --text for pixels and gets no mask; may be repeated.",
    ),
]
FormatOption = Annotated[
    Literal[ResultFormat, SetFormat] | None,
    typer.Option(
        "--format",
        help="Of results in a folder (default png): a file for each photo, or one data set of all: "
        f"{', '.join(get_args(SetFormat))}.",
    ),
]
PolygonsOption = Annotated[
    bool | None,
    typer.Option("--polygons/--no-polygons", help="Whether a data set has polygons or masks."),
]
ToleranceOption = Annotated[
    float,
    typer.Option(
        "--tolerance", help="Of polygons in a data set: pixels that a corner may be off; 0: exact."
    ),
]
PlaceOption = Annotated[
    Literal["copy", "link", "none"] | None,
    typer.Option("--photos", help="Copy photos into a data set, link them, or leave them."),
]
KindOption = Annotated[
    Literal["overlay", "cutout", "mask", "instances", "classes", "compare"] | None,
    typer.Option("--kind", help="What pictures show (default overlay)."),
]
StrategyOption = Annotated[
    Strategy,
    typer.Option(
        "--strategy",
        help="auto: every instance; prompt: one object, as in the SAM paper; detect: every "
        "instance, by the model's detector; concept: the same, by SAM 3; rank: automatic masks "
        "ranked by CLIP, for any SAM.",
    ),
]
ThresholdOption = Annotated[
    list[str] | None,
    typer.Option(
        "--threshold",
        metavar="P|PHRASE=P",
        help="Minimum probability of a phrase and of a mask (default: the model's own levels); may "
        "be repeated for single phrases: --threshold wheel=0.3.",
    ),
]
OverlapOption = Annotated[
    Overlap,
    typer.Option("--overlap", help="Whether masks may share pixels."),
]
ExplainOption = Annotated[
    Path | None,
    typer.Option(
        "--explain",
        metavar="FILE",
        help="Write every mask considered and why it was kept or dropped: a picture, or .json; for "
        "one photo.",
    ),
]


def segment(
    photos: options.PhotosArgument,
    text: TextOption = None,
    exclude: ExcludeOption = None,
    background: BackgroundOption = None,
    point: options.PointOption = None,
    box: options.BoxOption = None,
    out: options.OutOption = None,
    model: options.ModelOption = "tiny",
    clip: options.ClipOption = None,
    detector: options.DetectorOption = None,
    calibration: options.CalibrationOption = None,
    device: options.DeviceOption = None,
    dtype: options.DtypeOption = None,
    backend: options.BackendOption = "torch",
    format: FormatOption = None,
    kind: KindOption = None,
    polygons: PolygonsOption = None,
    tolerance: ToleranceOption = 0.5,
    place: PlaceOption = None,
    strategy: StrategyOption = "auto",
    threshold: ThresholdOption = None,
    overlap: OverlapOption = "allow",
    explain: ExplainOption = None,
    as_json: options.JsonOption = False,
    overwrite: options.OverwriteOption = False,
    bands: options.BandsOption = None,
    white: options.WhiteOption = None,
    page: options.PageOption = None,
    alpha: options.AlphaOption = None,
) -> None:
    """Find things in photos and write pictures or masks of them.

    A run over many photos can be stopped; the same command continues it.
    """
    with one_line_errors():
        names, phrases = options.split_words(photos, text)
        points, labels = options.parse_points(point or [])
        words = {
            "text": phrases or None,
            "exclude": exclude or None,
            "background": background or None,
        }
        clicks = {"points": points or None, "labels": labels or None}
        query: dict[str, Any] = {**words, **clicks, **options.parse_boxes(box or [])}
        _check_query(query, names)
        minimum = options.parse_thresholds(threshold or [], phrases)
        query |= {"strategy": strategy, "threshold": minimum, "overlap": overlap}
        parts: dict[str, Any] = {"clip": clip, "detector": detector, "calibration": calibration}
        placed: dict[str, Any] = {"device": device, "dtype": dtype, "backend": backend}
        load = partial(options.load_model, model, **placed, **parts)
        output: dict[str, Any] = {"out": out, "format": format, "kind": kind}
        output["reading"] = options.parse_reading(bands, white, page, alpha)
        if not _is_set(format, out) and options.is_one_photo(names, out):
            _segment_one(load, names[0], query, explain=explain, as_json=as_json, **output)
            return
        if explain is not None:
            raise ValueError("--explain is about one photo; leave it out, or name one photo")
        output |= {"polygons": polygons, "tolerance": tolerance, "photos": place}
        _segment_many(load, names, query, as_json=as_json, overwrite=overwrite, **output)


def _is_set(format: str | None, out: Path | None) -> bool:
    """Whether a format is a data set, which even one photo may be."""
    if format not in get_args(SetFormat):
        return False
    if out is None or out.is_file():
        raise ValueError(f"--format {format} is a data set; say where to: add -o FOLDER")
    return True


def _segment_many(
    load: Callable[[], TextSAM],
    names: Sequence[str],
    query: dict[str, Any],
    *,
    out: Path,
    format: str | None,
    as_json: bool,
    **output: Any,
) -> None:
    from textsam.batch.folders import segment_folder
    from textsam.cli.tables import run_many

    output |= {"format": format or "png", **query}
    run_many(
        partial(segment_folder, load(), names, out, **output),
        on_photo=_print_photo_json if as_json else None,
    )


def _check_query(query: dict[str, Any], photos: Sequence[str]) -> None:
    """Refuse a query without a prompt, and note what phrases cannot say."""
    from textsam.results.gates import phrase_hint

    if not (query["text"] or query["points"] or query["box"] or query["boxes"]):
        raise PromptError(f"no prompt; type for example: textsam segment {photos[0]} -t wheel")
    for phrase in query["text"] or []:
        if hint := phrase_hint(phrase, command_line=True):
            typer.echo(f'note: "{phrase}": {hint}', err=True)


def _segment_one(
    load: Callable[[], TextSAM],
    photo: str,
    query: dict[str, Any],
    *,
    out: Path | None,
    format: str | None,
    kind: Any,
    reading: dict[str, Any],
    explain: Path | None,
    as_json: bool,
) -> None:
    from textsam.pictures.draw import PICTURE_SUFFIXES
    from textsam.results.explanation import explain_fully
    from textsam.values.images import load_image

    target = None
    if out is not None or not as_json:
        target = options.choose_target(photo, out, format, query["text"] or [])
    if explain is not None:
        _check_explain(explain, query, others=[Path(photo), target])
    # Before the model: a mistyped name should fail at once.
    image = load_image(photo, **reading)
    model = load()
    result = model.segment(image, **query)
    explanation = None
    if explain is not None:
        explanation = explain_fully(
            result.answers,
            lambda changes: model.segment(image, **{**query, **changes}).answers,
            image=image,
        )
        explain.parent.mkdir(parents=True, exist_ok=True)
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        is_picture = target.suffix.lower() in PICTURE_SUFFIXES
        result.save(target, kind=kind, image=image if is_picture else None)
    if explanation is not None and explain is not None:
        explanation.save(explain)
    if as_json:
        paths = {"source": photo, "output": None if target is None else str(target)}
        paths |= {} if explain is None else {"explanation": str(explain)}
        typer.echo(json.dumps({**paths, **result.to_dict()}))
        return
    _print_result(photo, result, explanation)
    for path in (target, explain):
        if path is not None:
            print_line(f"wrote {path}")


def _check_explain(path: Path, query: dict[str, Any], *, others: Sequence[Path | None]) -> None:
    """Refuse an explanation that cannot be made or written, before the model is loaded."""
    from textsam.pictures.draw import PICTURE_SUFFIXES

    suffixes = (*PICTURE_SUFFIXES, ".json")
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"--explain {path}: wanted a file {' '.join(suffixes)}")
    if any(other is not None and other.resolve() == path.resolve() for other in others):
        raise ValueError(f"--explain {path} is the photo or the result itself; give another file")
    if not query["text"] or query["points"] or query["box"] or query["boxes"]:
        raise PromptError("--explain works for phrases: give -t, without --point and --box")


def _print_result(photo: str, result: Segmentation, explanation: Explanation | None) -> None:
    from textsam.cli.tables import explanation_table, result_table

    console = make_console()
    if len(result):
        console.print(result_table(result))
    else:
        print_line(f"no masks in {photo}")
    # Results of points and boxes have no answers to explain.
    reasons = explanation or (result.explain() if result.answers else None)
    for phrase, presence in result.presence.items():
        if phrase in result.labels:
            continue
        if reasons is not None and phrase in reasons.phrases:
            print_line(reasons.sentence(phrase, command_line=True))
        else:
            print_line(f"no {phrase!r} in the photo (presence {presence:.2f})")
    if explanation is not None:
        console.print(explanation_table(explanation))


def _print_photo_json(photo: PhotoReport) -> None:
    output = None if photo.output is None else str(photo.output)
    line = {"source": str(photo.source), "output": output, "status": photo.status}
    typer.echo(json.dumps({**line, "masks": photo.masks, "error": photo.error}))
