"""`textsam everything`: masks of everything in photos, without a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from textsam.cli import options
from textsam.cli.console import TerminalProgress, make_console, one_line_errors, print_line

if TYPE_CHECKING:
    from textsam import TextSAM
    from textsam.values.settings import AutomaticSettings

PresetOption = Annotated[
    Literal["fast", "paper", "released-code"],
    typer.Option(
        "--preset",
        help="fast: 16 x 16 points, thresholds for small models, masks refined; paper: with crops "
        "and clean-up; released-code: the defaults of SamAutomaticMaskGenerator.",
    ),
]
PointsPerSideOption = Annotated[
    int | None,
    typer.Option("--points-per-side", help="Points along each side of the grid."),
]
PredIouThreshOption = Annotated[
    float | None,
    typer.Option("--pred-iou-thresh", help="Minimum predicted IoU of a mask."),
]
StabilityScoreThreshOption = Annotated[
    float | None,
    typer.Option("--stability-score-thresh", help="Minimum stability of a mask."),
]
CropNLayersOption = Annotated[
    int | None,
    typer.Option("--crop-n-layers", help="Layers of crops besides the whole photo."),
]
MinMaskRegionAreaOption = Annotated[
    int | None,
    typer.Option("--min-mask-region-area", help="Remove smaller regions and holes, in pixels."),
]
RefineOption = Annotated[
    bool | None,
    typer.Option(
        "--refine/--no-refine",
        help="Whether each mask is predicted again from its own box (default: with fast).",
    ),
]
NamesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--names",
        metavar="NAME",
        help="Name each mask by the best of these, or by none; several with commas, or repeated.",
    ),
]
ThresholdOption = Annotated[
    list[str] | None,
    typer.Option(
        "--threshold",
        metavar="P|NAME=P",
        help="Minimum probability of a name (default: the model's own levels).",
    ),
]
FormatOption = Annotated[
    Literal["png", "jpg", "webp", "json", "npz", "sa1b"] | None,
    typer.Option(
        "--format",
        help="Of the results (default png); json: COCO run-length codes; sa1b: .json in the layout "
        "of SA-1B.",
    ),
]
KindOption = Annotated[
    Literal["overlay", "cutout", "mask", "instances", "compare"] | None,
    typer.Option("--kind", help="What pictures show (default overlay); instances: pixel numbers."),
]


def everything(
    photos: options.PhotosArgument,
    out: options.OutOption = None,
    preset: PresetOption = "fast",
    points_per_side: PointsPerSideOption = None,
    pred_iou_thresh: PredIouThreshOption = None,
    stability_score_thresh: StabilityScoreThreshOption = None,
    crop_n_layers: CropNLayersOption = None,
    min_mask_region_area: MinMaskRegionAreaOption = None,
    refine: RefineOption = None,
    names: NamesOption = None,
    threshold: ThresholdOption = None,
    model: options.ModelOption = "tiny",
    clip: options.ClipOption = None,
    calibration: options.CalibrationOption = None,
    device: options.DeviceOption = None,
    dtype: options.DtypeOption = None,
    backend: options.BackendOption = "torch",
    format: FormatOption = None,
    kind: KindOption = None,
    overwrite: options.OverwriteOption = False,
    bands: options.BandsOption = None,
    white: options.WhiteOption = None,
    page: options.PageOption = None,
    alpha: options.AlphaOption = None,
) -> None:
    """Find everything in photos, from a grid of points, and write pictures or masks of it.

    A run over many photos can be stopped; the same command continues it.
    """
    from textsam.values.settings import AutomaticSettings

    with one_line_errors():
        changes: dict[str, Any] = {
            "points_per_side": points_per_side,
            "pred_iou_thresh": pred_iou_thresh,
            "stability_score_thresh": stability_score_thresh,
            "crop_n_layers": crop_n_layers,
            "min_mask_region_area": min_mask_region_area,
            "refine": refine,
        }
        # Only options that were typed change the preset.
        typed = {name: value for name, value in changes.items() if value is not None}
        settings = replace(AutomaticSettings.from_preset(preset), **typed)
        sources, phrases = options.split_words(photos, None)
        if phrases:
            raise ValueError(f'no phrases here. Type: --names "{phrases[0]}", or textsam segment')
        parts: dict[str, Any] = {"clip": clip, "calibration": calibration, "device": device}
        load = partial(options.load_model, model, dtype=dtype, backend=backend, **parts)
        extra = _read_names(names or [], threshold or [])
        extra["reading"] = options.parse_reading(bands, white, page, alpha)
        if options.is_one_photo(sources, out):
            _one_photo(load, sources[0], out, settings, format, kind, **extra)
            return
        from textsam.batch.folders import everything_folder
        from textsam.cli.tables import run_many

        assert out is not None
        extra |= {"format": format or "png", "kind": kind, "overwrite": overwrite}
        run_many(partial(everything_folder, load(), sources, out, settings=settings, **extra))


def _read_names(names: Sequence[str], threshold: Sequence[str]) -> dict[str, Any]:
    """Keywords of `everything`; none without names and threshold."""
    listed = [part.strip() for text in names for part in text.split(",") if part.strip()]
    minimum = options.parse_thresholds(threshold, listed)
    if not listed and minimum is None:
        return {}
    return {"names": listed or None, "threshold": minimum}


def _one_photo(
    load: Callable[[], TextSAM],
    photo: str,
    out: Path | None,
    settings: AutomaticSettings,
    format: str | None,
    kind: Any,
    reading: dict[str, Any],
    **named: Any,
) -> None:
    from textsam.batch.batch_run import write_result
    from textsam.cli.tables import result_table
    from textsam.values.images import load_image

    target = options.choose_target(
        photo, out, "json" if format == "sa1b" else format, ["everything"]
    )
    suffix = target.suffix.lower()
    if suffix == ".txt":
        raise ValueError(f"-o {target}: YOLO's .txt needs a class for each mask; write .json")
    image = load_image(photo, **reading)
    model = load()
    with TerminalProgress("points") as bar:
        result = model.everything(image, settings, **named, progress=bar.show)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Both layouts end in .json, so the suffix does not tell them apart.
    layout = "sa1b" if format == "sa1b" else suffix.removeprefix(".")
    write_result(result, target, name=Path(photo).name, image=image, format=layout, kind=kind)
    if len(result):
        make_console().print(result_table(result))
    unnamed = result.labels.count(None)
    names = f", {unnamed} of them without a name" if named and unnamed else ""
    print_line(f"{len(result)} masks{names}; wrote {target}")
