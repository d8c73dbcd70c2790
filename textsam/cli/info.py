"""`textsam info` and `textsam models`: what is in a model, and which models have a name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from textsam.cli.console import make_console, one_line_errors
from textsam.cli.options import JsonOption

if TYPE_CHECKING:
    from rich.table import Table


def info(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]", help="tiny, sam-vit-base, ..., a folder or file, or a Hub id."
        ),
    ] = None,
) -> None:
    """Show a model's architecture, parameters, sizes and licence; or list the known models."""
    with one_line_errors():
        table = _models_table() if model is None else _model_table(model)
        make_console().print(table)


def models(as_json: JsonOption = False) -> None:
    """List the models that --model knows by name, with licence, size and what they can be asked."""
    with one_line_errors():
        if as_json:
            from textsam.weights.info import is_here
            from textsam.weights.model_table import MODELS

            entries = [entry.to_dict() | {"here": is_here(entry)} for entry in MODELS]
            typer.echo(json.dumps(entries, indent=1))
        else:
            make_console().print(_models_table())


def _models_table() -> Table:
    """One row for each model; those on this machine are marked."""
    from textsam.cli.tables import make_table
    from textsam.weights.info import is_here
    from textsam.weights.model_table import MODELS

    table = make_table("model", "asked by", "parameters", "files", "licence")
    for entry in MODELS:
        table.add_row(
            f"[green]{entry.name} *[/green]" if is_here(entry) else entry.name,
            "phrases, clicks" if "text" in entry.asks else "clicks",
            "-" if entry.parameters is None else f"{entry.parameters:.1f} M",
            "-" if entry.megabytes is None else f"{entry.megabytes} MB",
            f"{entry.license}, on request" if entry.gated else entry.license,
        )
    table.caption = (
        "* on this machine. Clicks: points, boxes, masks, everything. In memory a model takes as "
        "much as its files, plus what docs/models.md says. Any folder or Hub id works, too."
    )
    return table


def _model_table(name: str) -> Table:
    """What the files of one model say, line by line."""
    from textsam.cli.tables import make_table
    from textsam.weights.info import read_model_info
    from textsam.weights.model_table import find_entry

    info, entry = read_model_info(name), find_entry(name)
    rows = [
        ("model", info.name),
        ("folder", str(info.folder)),
        ("kind", info.kind or "not stated in its files"),
        ("licence", info.license or "not stated in its files"),
        ("phrases", describe_phrases(name, info.config)),
    ]
    if entry is not None and len(entry.repositories) > 1:  # the files below are the core's
        rows.append(("consists of", " + ".join(part.id for part in entry.repositories)))
    if info.parameters:
        rows.append(("parameters", f"{info.parameters:,}"))
    for file in info.files:
        dtypes = " ".join(file.dtypes) or "not opened (no safetensors)"
        rows.append((file.path.name, f"{file.size / 1e6:,.1f} MB, {dtypes}"))
        parts = sorted(file.parameters.items(), key=lambda part: -part[1])
        rows += [(f"  {part}", f"{count:,}") for part, count in parts]
        rows += [(f"  {key}", _shorten(value)) for key, value in file.metadata.items()]
    rows += [(f"config {key}", _shorten(str(value))) for key, value in info.config.items()]
    return make_table("", "", rows=rows, header=False)


@dataclass(frozen=True, kw_only=True)
class PartsOnDisk:
    """What the files of a model, or the table of models, say of its parts; nothing is loaded."""

    has_dense_text: bool = False
    map_source: object | None = None
    concept_model: object | None = None
    detector: object | None = None
    clip: object | None = None

    @classmethod
    def of(cls, name: str, config: Mapping[str, Any]) -> PartsOnDisk:
        """The parts of a model that was found by this name, with this `config.json`."""
        from textsam.weights.model_table import find_entry

        if config.get("format") == "textsam":
            pathway, maps = config.get("pathway") or {}, config.get("map_source")
            return cls(
                has_dense_text=bool(pathway.get("dense_channels") or maps),
                map_source=maps,
                detector=config.get("detector"),
                clip=config.get("clip"),
            )
        # The name of a folder is no name of the table.
        entry = None if Path(name).exists() else find_entry(name)
        maps = None if entry is None else entry.map_source
        return cls(
            has_dense_text=maps is not None,
            map_source=maps,
            concept_model=config if config.get("model_type") == "sam3" else None,
            detector=None if entry is None else entry.detector,
        )


def describe_phrases(name: str, config: Mapping[str, Any]) -> str:
    """Which strategy answers phrases by default, and why."""
    from textsam.inference.strategies.answering import choose_strategy

    strategy, reason = choose_strategy(PartsOnDisk.of(name, config))
    return f"strategy {strategy}: {reason}"


def _shorten(text: str, length: int = 100) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
