"""The command line: `textsam segment`, `everything`, `refine`, `embed`, `search`, `demo`, ...

Results go to standard output, everything else to standard error. Exit code 0: all well (also if
nothing was found); 1: a photo or the run failed, told on one line; 2: a wrong command line; 130:
stopped with Ctrl-C. Everything heavy is imported by the command that needs it, so that `--help` is
quick.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from textsam.cli import demo as cli_demo
from textsam.cli import embed as cli_embed
from textsam.cli import everything as cli_everything
from textsam.cli import refine as cli_refine
from textsam.cli import search as cli_search
from textsam.cli.console import make_console, one_line_errors

if TYPE_CHECKING:
    from textsam.batch.folders import Segmenter

__all__ = ["app", "load", "load_model", "main"]

app = typer.Typer(
    name="textsam",
    help="Say what you want, get its mask.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_Format = Literal["png", "jpg", "webp", "json", "npz", "txt"]
_Kind = Literal["overlay", "cutout", "mask", "instances", "classes", "compare"]


def main() -> None:
    """Run the command line."""
    app()


def load_model(
    name: str,
    *,
    clip: str | None = None,
    device: str | None = None,
    calibration: Path | None = None,
) -> Segmenter:
    """Load the model of a command; the one place where the command line meets the networks."""
    from textsam import TextSAM

    model: Segmenter = TextSAM.from_pretrained(
        name, clip=clip, device=device, calibration=calibration
    )
    return model


def _show_version(wanted: bool) -> None:
    if wanted:
        from textsam import __version__

        typer.echo(f"textsam {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Say what you want, get its mask."""


@app.command()
def segment(
    photos: Annotated[
        list[Path], typer.Argument(metavar="PHOTO|FOLDER...", help="Photos, or folders of photos.")
    ],
    text: Annotated[
        list[str] | None, typer.Option("-t", "--text", help="What to find; may be repeated.")
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="TEXT", help="What is not meant; may be repeated."),
    ] = None,
    background: Annotated[
        list[str] | None,
        typer.Option(
            "--background",
            metavar="TEXT",
            help="What competes for the pixels and is not painted; may be repeated.",
        ),
    ] = None,
    point: Annotated[
        list[str] | None,
        typer.Option("-p", "--point", metavar="X,Y[,0|1]", help="A click; 0: not on the object."),
    ] = None,
    box: Annotated[
        str | None,
        typer.Option("-b", "--box", metavar="X0,Y0,X1,Y1", help="A box around the object."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="File for one photo, folder for several."),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="tiny, a folder or file of weights, or a hub id.")
    ] = "tiny",
    clip: Annotated[
        str | None, typer.Option("--clip", help="CLIP to go with a SAM that has none.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option("--calibration", metavar="FILE", help="What `textsam calibrate` wrote."),
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, mps.")] = None,
    format: Annotated[
        _Format | None,
        typer.Option(
            "--format", help="Of the results in a folder (default png); txt is YOLO's polygons."
        ),
    ] = None,
    kind: Annotated[
        _Kind | None, typer.Option("--kind", help="What pictures show (default overlay).")
    ] = None,
    strategy: Annotated[
        Literal["auto", "prompt", "rank"],
        typer.Option(
            "--strategy", help="auto: every instance; prompt: one object; rank: needs no pathway."
        ),
    ] = "auto",
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", help="Least probability of a phrase and of a mask; the model's own."
        ),
    ] = None,
    overlap: Annotated[
        Literal["allow", "exclusive"],
        typer.Option("--overlap", help="Whether masks may share pixels."),
    ] = "allow",
    explain: Annotated[
        Path | None,
        typer.Option(
            "--explain",
            metavar="FILE",
            help="Why: picture or .json of what was considered and dropped; for one photo.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print results as JSON, a line per photo.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make finished results of a folder anew.")
    ] = False,
) -> None:
    """Find things in photos and write pictures or masks of them.

    A run over many photos can be stopped and started again: it goes on where it was.
    """
    from textsam.cli import segment as cli_segment
    from textsam.values.images import load_image

    with one_line_errors():
        points, labels = cli_segment.parse_points(point or [])
        prompt: dict[str, Any] = {
            "text": text or None,
            "exclude": exclude or None,
            "background": background or None,
            "points": points or None,
            "labels": labels or None,
            "box": None if box is None else cli_segment.parse_box(box),
            "strategy": strategy,
            "threshold": threshold,
            "overlap": overlap,
        }
        if not text and not points and box is None:
            raise ValueError("nothing asked for; type for example: textsam segment PHOTO -t wheel")
        if len(photos) == 1 and not photos[0].is_dir():
            target = None
            if out is not None or not as_json:
                target = cli_segment.choose_target(photos[0], out, format, text or [])
            if explain is not None:
                cli_segment.check_explain(explain, prompt, others=[photos[0], target])
            image = load_image(photos[0])  # first: a wrong name should not wait for the model
            loaded = load(model, clip, device, calibration)
            result = loaded.segment(image, **prompt)
            why = None
            if explain is not None:
                why = cli_segment.explain(loaded, image, prompt, result)
            line = cli_segment.show_and_save(
                result,
                photos[0],
                image,
                target,
                kind=kind,
                console=None if as_json else make_console(),
                why=why,
                why_target=explain,
            )
            if as_json:
                typer.echo(line)
            return
        if explain is not None:
            raise ValueError("--explain is about one photo; leave it out, or name one photo")
        if out is None:
            raise ValueError("several photos need a folder for their results; add -o FOLDER")
        report = cli_segment.segment_many(
            load(model, clip, device, calibration),
            photos,
            out,
            {**prompt, "format": format or "png", "kind": kind, "overwrite": overwrite},
            console=make_console(),
            progress_console=make_console(stderr=True),
            as_json=as_json,
        )
        if report.failed:
            raise typer.Exit(1)


app.command()(cli_everything.everything)
app.command()(cli_refine.refine)
app.command()(cli_embed.embed)
app.command()(cli_search.search)
app.command()(cli_demo.demo)


@app.command()
def calibrate(
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...",
            help="Labelled photos: FILE.parquet, coco:FILE.json@FOLDER, or another source that "
            "training reads.",
        ),
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="Model to calibrate.")] = "tiny",
    clip: Annotated[str | None, typer.Option(help="CLIP to use with it.")] = None,
    device: Annotated[str | None, typer.Option(help='"cpu", "cuda", ...')] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write, or a folder.")] = Path(
        "calibration.json"
    ),
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy", "-s", help="auto, rank, like, or several; by default what is used."
        ),
    ] = None,
    photos: Annotated[int, typer.Option(help="Photos of each source.")] = 60,
    absent: Annotated[int, typer.Option(help="Absent phrases asked of a photo.")] = 10,
    recall: Annotated[
        float, typer.Option(help="Share of present phrases that the default level lets pass.")
    ] = 0.9,
    seed: Annotated[int, typer.Option(help="Decides photos and phrases.")] = 0,
) -> None:
    """Fit a model's probabilities and default thresholds on your own labelled photos."""
    from textsam.cli.calibrate import calibrate_model

    with one_line_errors():
        calibrate_model(
            lambda: load(model, clip, device),
            data,
            out,
            strategies=strategy,
            settings={"photos": photos, "absent": absent, "recall": recall, "seed": seed},
            console=make_console(),
            progress_console=make_console(stderr=True),
        )


@app.command()
def info(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="tiny, a folder or file, or a hub id.")
    ] = None,
) -> None:
    """Show a model's architecture, parameters, sizes and licence; or which models there are."""
    from textsam.cli import tables
    from textsam.weights.info import read_model_info

    with one_line_errors():
        out = make_console()
        if model is None:
            out.print(tables.known_models_table())
        else:
            out.print(tables.model_table(read_model_info(model)))


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show versions, device, threads, weights and extras, and what to type where one is missing."""
    from dataclasses import asdict

    from textsam.cli import tables
    from textsam.cli.doctor import examine

    with one_line_errors():
        findings = examine()
        problems = [finding for finding in findings if finding.is_problem]
        if as_json:
            typer.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
        else:
            out = make_console()
            out.print(tables.findings_table(findings))
            for finding in problems:
                out.print(f"[red]{finding.name}: {finding.value}. Type: {finding.advice}[/red]")
            if not problems:
                out.print("[green]Everything that segmenting needs is here.[/green]")
        if problems:
            raise typer.Exit(1)


def load(
    name: str, clip: str | None, device: str | None, calibration: Path | None = None
) -> Segmenter:
    """`load_model` with a word about it on standard error."""
    with make_console(stderr=True).status(f"loading {name}"):
        return load_model(name, clip=clip, device=device, calibration=calibration)
