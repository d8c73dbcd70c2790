"""Options that several commands share: each is declared, read and explained once.

A command writes `model: ModelOption = "tiny"`; the default stands with the command.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from textsam.cli.console import make_console
from textsam.errors import PromptError, require
from textsam.values.settings import ResultFormat

if TYPE_CHECKING:
    from textsam import TextSAM

PhotosArgument = Annotated[
    list[Path], typer.Argument(metavar="PHOTO|FOLDER...", help="Photos, or folders of photos.")
]
OutOption = Annotated[
    Path | None,
    typer.Option("-o", "--out", help="Output: a file for one photo, a folder for several."),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Recompute photos that an earlier run has finished.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
ModelOption = Annotated[
    str,
    typer.Option(
        "-m",
        "--model",
        help="tiny, sam2.1-small, grounded-sam, ... (textsam models); a file, a folder, a Hub id.",
    ),
]
ClipOption = Annotated[
    str | None, typer.Option("--clip", help="A CLIP to use instead of the model's own.")
]
DetectorOption = Annotated[
    str | None,
    typer.Option(
        "--detector",
        help="A zero-shot detector that finds boxes for phrases: a folder or a Hub id, e.g. "
        "IDEA-Research/grounding-dino-tiny.",
    ),
]
CalibrationOption = Annotated[
    Path | None,
    typer.Option("--calibration", metavar="FILE", help="A file written by textsam calibrate."),
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or mps.")]
DtypeOption = Annotated[
    str | None,
    typer.Option("--dtype", help="bfloat16 or float16: image encoders in half precision."),
]
PointOption = Annotated[
    list[str] | None,
    typer.Option(
        "-p", "--point", metavar="X,Y[,0|1]", help="A click, in pixels; 0: not on the object."
    ),
]
BoxOption = Annotated[
    list[str] | None,
    typer.Option(
        "-b",
        "--box",
        metavar="X0,Y0,X1,Y1",
        help="A box around the object, in pixels; repeated: an object for each box.",
    ),
]


def load_model(
    name: str,
    *,
    clip: str | None = None,
    detector: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    calibration: Path | None = None,
) -> TextSAM:
    """Load the model of a command, with a spinner on standard error."""
    # Also while torch and the networks are imported, which takes most of the time.
    with make_console(stderr=True).status(f"loading {name}"):
        from textsam import TextSAM

        return TextSAM.from_pretrained(
            name,
            clip=clip,
            detector=detector,
            calibration=calibration,
            device=device,
            dtype=dtype,
        )


def import_guest(module: str, extra: str) -> ModuleType:
    """Import a module of `training` or `demos`, which no module of the library imports.

    They are `textsam.training` and `textsam.demos` in an installed package, and stand beside
    `textsam` in a checkout.
    """
    package = module.partition(".")[0]
    # find_spec, so that asking imports nothing.
    is_installed = find_spec(f"textsam.{package}") is not None
    return require(f"textsam.{module}" if is_installed else module, extra)


def parse_points(texts: Sequence[str]) -> tuple[list[list[float]], list[int]]:
    """Read clicks `X,Y` (on the object) or `X,Y,0|1`; returns points and labels."""
    points, labels = [], []
    for text in texts:
        x, y, *label = _parse_numbers("--point", text, "X,Y or X,Y,0 or X,Y,1", (2, 3))
        if label and label[0] not in (0, 1):
            raise PromptError(f"--point {text}: wanted 1 (on the object) or 0 (not) at the end")
        points.append([x, y])
        labels.append(int(label[0]) if label else 1)
    return points, labels


def parse_boxes(texts: Sequence[str]) -> dict[str, Any]:
    """Read boxes `X0,Y0,X1,Y1`: the keyword `box` for one, `boxes` for several."""
    boxes = [_parse_numbers("--box", text, "X0,Y0,X1,Y1", (4,)) for text in texts]
    if len(boxes) > 1:
        return {"box": None, "boxes": boxes}
    return {"box": boxes[0] if boxes else None, "boxes": None}


def parse_thresholds(
    texts: Sequence[str], phrases: Sequence[str]
) -> float | dict[str, float] | None:
    """Read `0.3`, for all phrases, and `wheel=0.3`, for one; the latter wins."""
    from textsam.values.prompts import plain_phrase

    common: float | None = None
    own: dict[str, float] = {}
    for text in texts:
        phrase, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise PromptError(
                f"--threshold {text}: wanted a probability, 0.3, or one of a phrase, wheel=0.3"
            ) from None
        if phrase:
            own[phrase] = value
        else:
            common = value
    if common is None or not own:
        return own or common
    named = {plain_phrase(phrase).casefold() for phrase in own}
    others = [phrase for phrase in phrases if plain_phrase(phrase).casefold() not in named]
    return dict.fromkeys(others, common) | own


def is_one_photo(photos: Sequence[Path], out: Path | None) -> bool:
    """Whether a command line names one photo rather than a run over many."""
    if len(photos) == 1 and not photos[0].is_dir():
        return True
    if out is None:
        raise ValueError("several photos need a folder for their results; add -o FOLDER")
    return False


def choose_target(
    photo: Path, out: Path | None, format: str | None, phrases: Sequence[str]
) -> Path:
    """Where the result of one photo goes: OUT itself if it has a suffix, else a file in OUT."""
    if out is not None and out.suffix and not out.is_dir():
        target = out
        if format is not None and out.suffix.lower() != f".{format}":
            raise ValueError(f"-o {out} and --format {format} disagree; leave one out")
    else:
        suffix = f".{format or 'png'}"
        name = "_".join([photo.stem, *phrases] if out is None else [photo.stem])
        # A phrase may contain characters that are not allowed in file names.
        target = (out or Path()) / (re.sub(r"[^\w.-]+", "-", name) + suffix)
    suffixes = [f".{name}" for name in (*get_args(ResultFormat), "jpeg")]
    if target.suffix.lower() not in suffixes:
        raise ValueError(f"-o {out}: wanted a folder, or a file {' '.join(suffixes)}")
    if target.resolve() == photo.resolve():
        raise ValueError(f"{target} is the photo itself and would be overwritten; give another -o")
    return target


def _parse_numbers(option: str, text: str, form: str, counts: tuple[int, ...]) -> list[float]:
    try:
        # Whole numbers stay so: 0,0,1,1 is a pixel, 0.0,0.0,1.0,1.0 may be meant as fractions.
        numbers = [float(part) if "." in part else int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in counts:
        raise PromptError(f"{option} {text}: wanted {form}, in pixels, without spaces")
    return numbers
