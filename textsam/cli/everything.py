"""`textsam everything`: masks of everything in photos, without a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from textsam.cli.console import make_console, one_line_errors, steps_bar

if TYPE_CHECKING:
    from textsam.inference.automatic.generator import AutomaticSettings

__all__ = ["everything"]

_Format = Literal["png", "jpg", "webp", "json", "npz", "sa1b"]
_Kind = Literal["overlay", "cutout", "mask", "instances", "compare"]
_Preset = Literal["fast", "paper", "released-code"]


def everything(
    photos: Annotated[
        list[Path], typer.Argument(metavar="PHOTO|FOLDER...", help="Photos, or folders of photos.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="File for one photo, folder for several."),
    ] = None,
    preset: Annotated[
        _Preset,
        typer.Option(
            "--preset",
            help="fast: 16 x 16 points, levels that suit small models, a second look; paper: crops "
            "and clean-up; released-code: what Segment Anything's own generator does.",
        ),
    ] = "fast",
    points_per_side: Annotated[
        int | None, typer.Option("--points-per-side", help="Points of the grid, each way.")
    ] = None,
    crop_layers: Annotated[
        int | None, typer.Option("--crop-layers", help="Layers of crops beside the whole photo.")
    ] = None,
    least_iou: Annotated[
        float | None, typer.Option("--least-iou", help="Least predicted IoU of a mask.")
    ] = None,
    least_stability: Annotated[
        float | None, typer.Option("--least-stability", help="Least stability of a mask.")
    ] = None,
    refine: Annotated[
        bool | None,
        typer.Option(
            "--refine/--no-refine",
            help="Whether masks are asked again with their own box (default: with fast).",
        ),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="tiny, a folder or file of weights, or a hub id.")
    ] = "tiny",
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, mps.")] = None,
    format: Annotated[
        _Format | None,
        typer.Option(
            "--format",
            help="Of the results (default png): json has COCO's run-length codes, sa1b is .json in "
            "the layout of SA-1B.",
        ),
    ] = None,
    kind: Annotated[
        _Kind | None,
        typer.Option(
            "--kind", help="What pictures show (default overlay); instances: numbered pixels."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make finished results of a folder anew.")
    ] = False,
) -> None:
    """Find everything in photos, by a grid of points, and write pictures or masks of it.

    A run over many photos can be stopped and started again: it goes on where it was.
    """
    from textsam.cli import app as cli
    from textsam.cli.segment import run_many

    with one_line_errors():
        changes = {
            "points_per_side": points_per_side,
            "crop_layers": crop_layers,
            "least_iou": least_iou,
            "least_stability": least_stability,
            "refine": refine,
        }
        if len(photos) == 1 and not photos[0].is_dir():
            _one_photo(photos[0], out, preset, changes, model, device, format, kind)
            return
        if out is None:
            raise ValueError("several photos need a folder for their results; add -o FOLDER")
        settings = _settings(preset, changes)
        from textsam.batch.folders import everything_folder

        loaded: Any = cli.load(model, None, device)
        report = run_many(
            lambda show: everything_folder(
                loaded,
                photos,
                out,
                settings=settings,
                format=format or "png",
                kind=kind,
                overwrite=overwrite,
                on_progress=show,
            ),
            console=make_console(),
            progress_console=make_console(stderr=True),
        )
        if report.failed:
            raise typer.Exit(1)


def _one_photo(
    photo: Path,
    out: Path | None,
    preset: str,
    changes: dict[str, Any],
    model: str,
    device: str | None,
    format: str | None,
    kind: _Kind | None,
) -> None:
    from rich.markup import escape

    from textsam.batch.run import write_result
    from textsam.cli import app as cli
    from textsam.cli.segment import choose_target
    from textsam.cli.tables import result_table
    from textsam.values.images import load_image

    suffix = "json" if format == "sa1b" else format
    target = choose_target(photo, out, suffix, ["everything"])
    if target.suffix.lower() == ".txt":
        raise ValueError(f"-o {target}: YOLO's .txt needs a class for each mask; write .json")
    settings = _settings(preset, changes)
    image = load_image(photo)
    loaded: Any = cli.load(model, None, device)
    with steps_bar(make_console(stderr=True), "points") as progress:
        result = loaded.everything(image, settings, progress=progress)
    target.parent.mkdir(parents=True, exist_ok=True)
    kept = "sa1b" if format == "sa1b" else target.suffix.lower().removeprefix(".")
    write_result(result, target, name=photo.name, image=image, format=kept, kind=kind)
    console = make_console()
    if len(result):
        console.print(result_table(result))
    console.print(f"{len(result)} masks; wrote {escape(str(target))}", soft_wrap=True)


def _settings(preset: str, changes: dict[str, Any]) -> AutomaticSettings:
    from dataclasses import replace

    from textsam.inference.automatic.generator import resolve_settings

    given = {name: value for name, value in changes.items() if value is not None}
    return replace(resolve_settings(preset), **given)
