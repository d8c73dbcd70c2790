"""`textsam search`: masks of an index by a phrase, a mask, a click, or a photo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from textsam.cli.console import make_console, one_line_errors

if TYPE_CHECKING:
    from rich.table import Table

    from textsam.search.results import SearchResults

__all__ = ["search"]


def search(
    index: Annotated[str, typer.Argument(metavar="INDEX", help="What textsam embed wrote.")],
    text: Annotated[str | None, typer.Option("-t", "--text", help="A phrase.")] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            "--mask",
            help="A mask of --image, a picture that is black outside; or a cutout, whose pixels "
            "and alpha are both.",
        ),
    ] = None,
    image: Annotated[
        str | None, typer.Option("--image", help="A photo or crop: all of it, or its --mask.")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option("--like", metavar="PHOTO", help="A photo: what is at --point or in --box."),
    ] = None,
    point: Annotated[
        list[str] | None,
        typer.Option("-p", "--point", metavar="X,Y[,0|1]", help="A click; 0: not on the object."),
    ] = None,
    box: Annotated[
        str | None, typer.Option("-b", "--box", metavar="X0,Y0,X1,Y1", help="A box around it.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Masks at most.")] = 12,
    space: Annotated[
        Literal["clip", "sam"] | None,
        typer.Option(
            "--space",
            help="clip: what it is (default); sam: what it looks like (no phrases).",
        ),
    ] = None,
    data_set: Annotated[
        list[str] | None, typer.Option("--data-set", help="Only of it; may be repeated.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="Only labelled so; may be repeated.")
    ] = None,
    min_area: Annotated[float | None, typer.Option("--min-area", help="Pixels.")] = None,
    max_area: Annotated[float | None, typer.Option("--max-area", help="Pixels.")] = None,
    min_aspect: Annotated[
        float | None, typer.Option("--min-aspect", help="Width / height of the box.")
    ] = None,
    max_aspect: Annotated[float | None, typer.Option("--max-aspect", help="Likewise.")] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare with every mask, without search structures.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Contact sheet (default search.png; none with --json)."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for each mask, not a table.")
    ] = False,
    save_dataset: Annotated[
        Path | None,
        typer.Option("--save-dataset", metavar="FOLDER", help="Results as a datasets.Dataset."),
    ] = None,
    model: Annotated[str, typer.Option("--model", help="The model that made the index.")] = "tiny",
    clip: Annotated[str | None, typer.Option("--clip", help="CLIP to use with it.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, mps.")] = None,
) -> None:
    """Search an index of masks; print what is found and save a contact sheet of it."""
    with one_line_errors():
        from textsam.cli import app as cli
        from textsam.cli.query import Query, check_sheet, found_sheet, open_index
        from textsam.search.where import Where

        query = Query(text=text, mask=mask, image=image, like=like, points=point, box=box)
        query.check()
        where = Where(
            datasets=data_set or None,
            labels=label or None,
            min_area=min_area,
            max_area=max_area,
            min_aspect=min_aspect,
            max_aspect=max_aspect,
        )
        target = check_sheet(out or (None if as_json else Path("search.png")))
        if save_dataset is not None and save_dataset.exists():
            raise ValueError(f"--save-dataset {save_dataset} is there already; give another folder")
        with open_index(index) as opened:
            chosen = space or ("clip" if "clip" in opened.spaces else "sam")
            loaded: Any = cli.load(model, clip, device)
            asked = query.resolve(loaded)
            found = asked.search(opened, loaded, k=k, where=where, space=chosen, exact=exact)
        if as_json:
            for line in _lines(found):
                typer.echo(line)
        else:
            _show(found)
        if save_dataset is not None:
            found.to_dataset().save_to_disk(str(save_dataset))
        if target is not None and len(found):
            failed = found_sheet(asked, found, target)
            console = make_console(stderr=True)
            for told in failed:
                console.print(f"no picture of {told}", soft_wrap=True, markup=False)
            if len(failed) < len(found) and not as_json:
                make_console().print(f"wrote {target}", soft_wrap=True, markup=False)


def _show(found: SearchResults) -> None:
    console = make_console()
    if len(found):
        console.print(_table(found))
    else:
        console.print("nothing found: no mask of the index meets the conditions")


def _table(found: SearchResults) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from textsam.cli.sources import short_name

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", "cosine", "data set", "label", "photo", "box x0 y0 x1 y1", "area"):
        numbers = name in ("", "cosine", "box x0 y0 x1 y1", "area")
        table.add_column(name, justify="right" if numbers else "left", no_wrap=numbers)
    for number, one in enumerate(found, 1):
        table.add_row(
            str(number),
            f"{one.score:.3f}",
            escape(one.row.dataset),
            escape(one.row.label or "-"),
            escape(short_name(one.row.image)),
            " ".join(str(side) for side in one.row.box),
            f"{one.row.area:,} px",
        )
    return table


def _lines(found: SearchResults) -> list[str]:
    """JSON of each result; what is not known is null."""
    return [json.dumps(row) for row in found.table.to_pylist()]
