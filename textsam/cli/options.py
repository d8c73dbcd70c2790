"""Options that several commands share: each is declared, read and explained once.

A command writes `model: ModelOption = "tiny"`; the default stands with the command.
"""

from __future__ import annotations

import hashlib
import re
import urllib.parse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from textsam.batch.find_photos import OTHER_PICTURES, PHOTO_SUFFIXES, expand_pattern
from textsam.cli.console import make_console
from textsam.errors import PromptError, require
from textsam.values.addresses import is_address
from textsam.values.settings import Backend, ResultFormat

if TYPE_CHECKING:
    from textsam import TextSAM

# Bytes of a name of our own, before its suffix. File systems allow 255, in which the suffix and the
# part file's have to fit.
_MAX_NAME = 160

PhotosArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="PHOTO|FOLDER...",
        help='Photos, folders, patterns ("photos/*.jpg"), or an address (https://, s3://).',
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--out",
        help="Output: a file (a name that ends in a dot and letters, as out.png) for one photo, a "
        "folder for several.",
    ),
]
OverwriteOption = Annotated[
    bool,
    typer.Option("--overwrite", help="Recompute photos that an earlier run has finished."),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print JSON instead of a table."),
]
ModelOption = Annotated[
    str,
    typer.Option(
        "-m",
        "--model",
        help="tiny, sam2.1-small, grounded-sam, ... (textsam models); a file, a folder, a Hub id.",
    ),
]
ClipOption = Annotated[
    str | None,
    typer.Option("--clip", help="A CLIP to use instead of the model's own."),
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
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", help="auto, cpu, cuda or mps."),
]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype", help="bfloat16 or float16: image encoders in half precision (on a GPU)."
    ),
]
BackendOption = Annotated[
    Backend,
    typer.Option(
        "--backend",
        help="onnxruntime or openvino: run the image encoder on the CPU without torch, which is "
        "faster for small models.",
    ),
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
BandsOption = Annotated[
    str | None,
    typer.Option(
        "--bands",
        metavar="R,G,B",
        help="Which bands are red, green and blue, or the one to show; counted from 1.",
    ),
]
WhiteOption = Annotated[
    str | None,
    typer.Option(
        "--white",
        metavar="VALUE|auto",
        help="The value that is white in photos of more than 8 bits, e.g. 4095.",
    ),
]
PageOption = Annotated[
    int | None,
    typer.Option("--page", help="Page of a TIFF or frame of an animation, counted from 1."),
]
AlphaOption = Annotated[
    str | None,
    typer.Option(
        "--alpha",
        metavar="COLOUR|ignore",
        help="What is behind transparent pixels and shown where a map has no data (default white).",
    ),
]


def load_model(
    name: str,
    *,
    clip: str | None = None,
    detector: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    backend: Backend = "torch",
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
            backend=backend,
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
        x, y, *label = _parse_numbers("--point", text, "X,Y or X,Y,0 or X,Y,1, in pixels", (2, 3))
        if label and label[0] not in (0, 1):
            raise PromptError(f"--point {text}: wanted 1 (on the object) or 0 (not) at the end")
        points.append([x, y])
        labels.append(int(label[0]) if label else 1)
    return points, labels


def parse_boxes(texts: Sequence[str]) -> dict[str, Any]:
    """Read boxes `X0,Y0,X1,Y1`: the keyword `box` for one, `boxes` for several."""
    boxes = [_parse_numbers("--box", text, "X0,Y0,X1,Y1, in pixels", (4,)) for text in texts]
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


def parse_reading(
    bands: str | None, white: str | None, page: int | None, alpha: str | None
) -> dict[str, Any]:
    """Keywords of `load_image` for what was typed about reading photos."""
    reading: dict[str, Any] = {"page": page, "alpha": alpha}
    if bands is not None:
        numbers = _parse_numbers("--bands", bands, "one number or three, as 4,3,2", (1, 3))
        reading["bands"] = [int(number) for number in numbers]
    if white is not None:
        is_auto = white == "auto"
        reading["white"] = (
            white if is_auto else _parse_numbers("--white", white, "a number", (1,))[0]
        )
    return {name: value for name, value in reading.items() if value is not None}


def split_words(words: Sequence[str], phrases: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The photos among the words of a command line, with patterns expanded, and the phrases.

    A word that is no file and does not look like one is the phrase, as in `segment bus.jpg wheel`.

    Raises:
        PromptError: Several words look like phrases.
        ValueError: No file matches a pattern.
    """
    spoken = [word for word in words if looks_like_phrase(word)]
    photos = [word for word in words if word not in spoken]
    if not photos or not spoken or phrases:
        photos, spoken = list(words), []
    if len(spoken) > 1:
        several = " ".join(f'-t "{word}"' for word in spoken)
        raise PromptError(
            f'there are no files {", ".join(map(repr, spoken))}. Type: -t "{" ".join(spoken)}" for '
            f"one phrase, or {several} for several"
        )
    if spoken:
        typer.echo(f'note: there is no file {spoken[0]!r}; read as -t "{spoken[0]}"', err=True)
    # A single address is read as it is; in a run, an expansion refuses it.
    is_single = len(photos) == 1 and is_address(photos[0])
    names = photos if is_single else [name for word in photos for name in expand_pattern(word)]
    return names, [*(phrases or ()), *spoken]


def looks_like_phrase(word: str) -> bool:
    """Whether a word is no file and is not written like one."""
    is_written_like_one = re.search(r"[/\\*?\[]|\.\w+$", word) is not None
    return not is_written_like_one and not Path(word).exists()


def is_one_photo(photos: Sequence[str], out: Path | None) -> bool:
    """Whether a command line names one photo rather than a run over many."""
    if len(photos) == 1 and not Path(photos[0]).is_dir():
        return True
    if out is None:
        raise ValueError(
            "several photos need a folder for their results; add -o FOLDER, for example: -o masks"
        )
    if _is_file_name(out):
        raise ValueError(
            f"several photos need a folder for their results, and -o {out} is the name of a file. "
            f"Type: -o {out.with_suffix('')}"
        )
    return False


def choose_target(
    photo: str | Path, out: Path | None, format: str | None, phrases: Sequence[str]
) -> Path:
    """Where the result of one photo goes: OUT itself if it names a file, else a file in OUT."""
    source = Path(photo)
    if is_address(str(photo)):
        source = Path(PurePosixPath(urllib.parse.urlsplit(str(photo)).path).name or "photo")
    if out is not None and _is_file_name(out):
        target = out
        if format is not None and out.suffix.lower() != f".{format}":
            raise ValueError(f"-o {out} and --format {format} disagree; leave one out")
    else:
        name = "_".join([source.stem, *phrases] if out is None else [source.stem])
        target = (out or Path()) / f"{_file_name(name)}.{format or 'png'}"
    suffixes = [f".{name}" for name in (*get_args(ResultFormat), "jpeg")]
    if target.suffix.lower() not in suffixes:
        raise ValueError(f"-o {out}: wanted a folder, or a file {' '.join(suffixes)}")
    if target.resolve() == source.resolve():
        raise ValueError(f"{target} is the photo itself and would be overwritten; give another -o")
    return target


def _is_file_name(out: Path) -> bool:
    """One rule for -o: a dot and letters at the end name a file, unless there is such a folder."""
    suffix = out.suffix.lower()
    is_file = suffix[1:].isalpha() or suffix in PHOTO_SUFFIXES | OTHER_PICTURES
    return is_file and not out.is_dir()


def _file_name(name: str) -> str:
    """A name that file systems allow; a long one is cut, and a checksum tells it from others."""
    # A phrase may contain characters that are not allowed.
    name = re.sub(r"[^\w.-]+", "-", name)
    encoded = name.encode()
    if len(encoded) <= _MAX_NAME:
        return name
    checksum = hashlib.sha256(encoded).hexdigest()[:8]
    return f"{encoded[: _MAX_NAME - 9].decode(errors='ignore')}-{checksum}"


def _parse_numbers(option: str, text: str, form: str, counts: tuple[int, ...]) -> list[float]:
    try:
        # Whole numbers stay so: 0,0,1,1 is a pixel, 0.0,0.0,1.0,1.0 may be meant as fractions.
        numbers = [float(part) if "." in part else int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in counts:
        raise PromptError(f"{option} {text}: wanted {form}, without spaces")
    return numbers
