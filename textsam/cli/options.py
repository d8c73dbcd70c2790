"""Options that several commands share: each is declared, read and explained once.

A command writes `model: ModelOption = "tiny"`; the default stands with the command.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from textsam.cli.console import make_console
from textsam.errors import PromptError, require

if TYPE_CHECKING:
    from textsam import TextSAM

__all__ = [
    "BoxOption",
    "CalibrationOption",
    "ClipOption",
    "DeviceOption",
    "JsonOption",
    "ModelOption",
    "OutOption",
    "OverwriteOption",
    "PhotosArgument",
    "PointOption",
    "import_guest",
    "load_model",
    "parse_box",
    "parse_points",
]

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
    str, typer.Option("-m", "--model", help="tiny, a folder or file of weights, or a Hub id.")
]
ClipOption = Annotated[
    str | None, typer.Option("--clip", help="A CLIP to use instead of the model's own.")
]
CalibrationOption = Annotated[
    Path | None,
    typer.Option("--calibration", metavar="FILE", help="A file written by textsam calibrate."),
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu, cuda or mps.")]
PointOption = Annotated[
    list[str] | None,
    typer.Option(
        "-p", "--point", metavar="X,Y[,0|1]", help="A click, in pixels; 0: not on the object."
    ),
]
BoxOption = Annotated[
    str | None,
    typer.Option("-b", "--box", metavar="X0,Y0,X1,Y1", help="A box around the object, in pixels."),
]


def load_model(
    name: str,
    *,
    clip: str | None = None,
    device: str | None = None,
    calibration: Path | None = None,
) -> TextSAM:
    """Load the model of a command, with a spinner on standard error."""
    with make_console(stderr=True).status(f"loading {name}"):
        from textsam import TextSAM

        return TextSAM.from_pretrained(name, clip=clip, device=device, calibration=calibration)


def import_guest(module: str, extra: str) -> ModuleType:
    """Import a module of `training` or `demos`, which no module of the library imports.

    They are `textsam.training` and `textsam.demos` in an installed package, and stand beside
    `textsam` in a checkout.

    Raises:
        MissingExtraError: A dependency of the extra is not installed.
    """
    package = module.partition(".")[0]
    is_installed = find_spec(f"textsam.{package}") is not None
    return require(f"textsam.{module}" if is_installed else module, extra)


def parse_points(texts: Sequence[str]) -> tuple[list[list[float]], list[int]]:
    """Read clicks `X,Y` (on the object) or `X,Y,0|1`; returns points and labels.

    Raises:
        PromptError: One of the texts has another form.
    """
    points, labels = [], []
    for text in texts:
        x, y, *label = _parse_numbers("--point", text, "X,Y or X,Y,0 or X,Y,1", (2, 3))
        if label and label[0] not in (0, 1):
            raise PromptError(f"--point {text}: wanted 1 (on the object) or 0 (not) at the end")
        points.append([x, y])
        labels.append(int(label[0]) if label else 1)
    return points, labels


def parse_box(text: str) -> list[float]:
    """Read a box `X0,Y0,X1,Y1`.

    Raises:
        PromptError: The text has another form.
    """
    return _parse_numbers("--box", text, "X0,Y0,X1,Y1", (4,))


def _parse_numbers(option: str, text: str, form: str, counts: tuple[int, ...]) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in counts:
        raise PromptError(f"{option} {text}: wanted {form}, in pixels, without spaces")
    return numbers
