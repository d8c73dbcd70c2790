"""What every evaluation command shares: typed options, the run over data sets, the JSON report.

A command is a dataclass that derives from `EvaluationOptions` and a function that takes it. The
class's docstring is the command's `--help`.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from rich.console import Console
from rich.progress import track

from textsam.errors import TextSamError, require
from textsam.values.files import write_atomically

from .data_sets import BadInputError, read_sets

T = TypeVar("T")
OptionsT = TypeVar("OptionsT", bound="Options")

_PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a command; `minimum` holds the smallest valid value of numbers."""

    minimum: ClassVar[Mapping[str, int]] = {}

    def check(self) -> None:
        """Refuse invalid numbers and files that cannot be written, before hours are spent."""
        # Every class of the hierarchy declares the bounds of its own fields.
        for parent in type(self).__mro__:
            for name, bound in vars(parent).get("minimum", {}).items():
                value = getattr(self, name)
                for number in value if isinstance(value, tuple) else (value,):
                    if number is not None and number < bound:
                        option = name.replace("_", "-")
                        raise BadInputError(f"--{option} {number}: wanted at least {bound}")
        for name in ("json", "plot", "sheet"):
            _check_output(getattr(self, name, None), f"--{name}")


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(Options):
    """Options of every evaluation."""

    minimum: ClassVar[Mapping[str, int]] = {"limit": 1, "seed": 0}

    # Photos with masks: Parquet files in the schema of training/data/parquet.py, or sources in the
    # syntax of training/data/specs.py: voc:VOCdevkit, sbd:, davis:, grabcut:, berkeley:, ade20k:,
    # coco:FILE.json@FOLDER, lvis:, sa1b:, pngs:, hf:. Each is one row of the table.
    data: tuple[str, ...]
    model: str = "tiny"  # What TextSAM.from_pretrained takes: "tiny", a folder or a hub id
    # A zero-shot detector for phrases, a folder or a hub id; the model's own, if any, by default
    detector: str | None = None
    # Also write settings, versions, means and one record per item to this file.
    json: Path | None = None
    # Measure only this many photos of each set, spread evenly over it; of a stream the first ones.
    limit: int | None = None
    # Measure only the rows of a training file that `tiny` was not trained on, one of twenty
    kept_out: bool = False
    seed: int = 0  # Decides every random choice; the same seed gives the same items

    def check(self) -> None:
        """Also refuse an empty list of data sets."""
        if not self.data:
            raise BadInputError("no data set to measure. Type: COMMAND DATA.parquet")
        super().check()


@dataclass(frozen=True, kw_only=True)
class PlotOption(Options):
    """The option `--plot`."""

    plot: Path | None = None  # Also draw the main figures into this PNG file; needs matplotlib


@dataclass(frozen=True, kw_only=True)
class SheetOption(Options):
    """The option `--sheet`."""

    # Also draw the photos with the lowest and the highest figures into this picture file:
    # predictions in vermilion, truths in mint.
    sheet: Path | None = None


def run_command(
    options: type[OptionsT],
    run: Callable[[OptionsT], int | None],
    arguments: Sequence[str] | None = None,
) -> int:
    """Parse the command line (`arguments`, or that of the process) and run the command.

    Returns:
        The exit code: what `run` returned or 0; 2 if the input or the model is at fault, said in
        one line on stderr.
    """
    tyro: Any = require("tyro", "eval")
    # Run by `python -m` the class's module is `__main__`; its spec still has the real name.
    spec = sys.modules[options.__module__].__spec__
    name = options.__module__ if spec is None else spec.name
    prog = f"python -m {name.removesuffix('.__main__')}"
    # Options without a default are positional: DATA.
    parsed = tyro.cli(
        options, prog=prog, args=arguments, config=(tyro.conf.PositionalRequiredArgs,)
    )
    try:
        parsed.check()
        return run(parsed) or 0
    except (BadInputError, TextSamError) as error:
        print(f"{prog}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def measure_sets(
    options: Any,
    measure: Callable[[Any, Any], dict[str, Any]],
    *,
    read: Callable[..., Sequence[Any]] | None = None,
) -> list[dict[str, Any]]:
    """Read the sets, load the model, and measure set by set; the JSON is written after each.

    Returns:
        For each set its `name`, `path` and figures, and `broken` if photos were left out.
    """
    kept_out = {"kept_out": True} if getattr(options, "kept_out", False) else {}
    sets = (read or read_sets)(options.data, limit=options.limit, **kept_out)
    measured: list[dict[str, Any]] = []
    for name in (options.model, *getattr(options, "compare", ())):
        detector = getattr(options, "detector", None)
        model = load_model(name) if detector is None else load_model(name, detector=detector)
        for data in sets:
            row = {"name": data.name, "path": str(data.path), "model": name}
            row |= measure(model, data)
            if broken := getattr(data, "broken", 0):
                row["broken"] = broken
            measured.append(row)
            # After every set, so that a run that is cut off leaves what it has measured.
            write_report(options, measured)
    return measured


def load_model(name: str, *, detector: str | None = None) -> Any:
    """Load a `TextSAM`; whatever prevents that is a `BadInputError`."""
    from textsam import TextSAM

    try:
        return TextSAM.from_pretrained(name, detector=detector)
    except (TextSamError, OSError, ValueError) as error:
        raise BadInputError(f"cannot load model {name!r}: {error}") from error


def progress(items: Sequence[T], name: str) -> Iterable[T]:
    """Iterate with a progress bar on stderr, if that is a terminal."""
    console = Console(stderr=True)
    return track(items, description=name, console=console, disable=not console.is_terminal)


def write_report(options: Any, sets: Sequence[Mapping[str, Any]], **settings: Any) -> None:
    """Write options, further settings, versions and figures to `options.json`, if it is set."""
    if options.json is None:
        return
    report = {"settings": asdict(options) | settings, "versions": _versions(), "sets": list(sets)}
    write_atomically(options.json, (json_text(report) + "\n").encode())


def json_text(value: Any) -> str:
    """JSON of figures: records (dataclasses) as objects, paths as text; no NaN."""

    def plain(value: Any) -> Any:
        return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)

    return json.dumps(value, indent=1, allow_nan=False, default=plain)


def _check_output(path: Path | None, option: str) -> None:
    """Refuse an output file whose folder does not exist or cannot be written."""
    if path is None:
        return
    folder = path.resolve().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise BadInputError(f"{option} {path}: wanted a file in a folder that exists")
    if option == "--sheet" and path.suffix.lower() not in _PICTURES:
        raise BadInputError(f"{option} {path}: wanted a picture file, e.g. sheet.png")


def _versions() -> dict[str, str | int]:
    """Versions of the libraries that figures may depend on."""
    import torch

    import textsam

    versions: dict[str, str | int] = {
        # A checkout need not be installed, so its metadata may be missing.
        "textsam": str(getattr(textsam, "__version__", "unknown")),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
    for package in ("torch", "numpy", "scipy", "open_clip_torch"):
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions
