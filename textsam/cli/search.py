"""`textsam search`: find masks of an index by a phrase, a mask, a click, or a photo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from textsam.cli import options
from textsam.cli.console import make_console, one_line_errors, print_line

if TYPE_CHECKING:
    from textsam.search.results import SearchResults

MaskOption = Annotated[
    Path | None,
    typer.Option(
        "--mask",
        help="A mask of --image: a picture that is black outside the object; or, alone, a cutout "
        "with an alpha channel.",
    ),
]
ImageOption = Annotated[
    str | None,
    typer.Option("--image", metavar="PHOTO", help="A photo or crop; all of it, or its --mask."),
]
LikeOption = Annotated[
    str | None,
    typer.Option("--like", metavar="PHOTO", help="A photo: the object at --point or in --box."),
]
SpaceOption = Annotated[
    Literal["clip", "sam"] | None,
    typer.Option(
        "--space", help="clip: what it is (default); sam: what it looks like (not for phrases)."
    ),
]
DataSetOption = Annotated[
    list[str] | None,
    typer.Option("--data-set", help="Only masks of this data set; may be repeated."),
]
LabelOption = Annotated[
    list[str] | None, typer.Option("--label", help="Only masks with this label; may be repeated.")
]
AreaOption = Annotated[float | None, typer.Option(help="Of the mask, in pixels.")]
AspectOption = Annotated[float | None, typer.Option(help="Width / height of the mask's box.")]
SheetOption = Annotated[
    Path | None,
    typer.Option("-o", "--out", help="Contact sheet (default search.png; none with --json)."),
]
SaveDatasetOption = Annotated[
    Path | None,
    typer.Option("--save-dataset", metavar="FOLDER", help="Save as a Hugging Face Dataset."),
]
# Of its own, since here it may be left out: the index names its model.
QueryModelOption = Annotated[
    str | None,
    typer.Option("-m", "--model", help="Model of the query (default: the one of the index)."),
]
ExactOption = Annotated[
    bool, typer.Option("--exact", help="Compare with every mask, without search structures.")
]


def search(
    index: Annotated[str, typer.Argument(metavar="INDEX", help="Written by textsam embed.")],
    text: Annotated[
        str | None, typer.Option("-t", "--text", metavar="PHRASE", help="What to find.")
    ] = None,
    mask: MaskOption = None,
    image: ImageOption = None,
    like: LikeOption = None,
    point: options.PointOption = None,
    box: options.BoxOption = None,
    k: Annotated[int, typer.Option("-k", help="Maximum number of masks.")] = 12,
    space: SpaceOption = None,
    data_set: DataSetOption = None,
    label: LabelOption = None,
    min_area: AreaOption = None,
    max_area: AreaOption = None,
    min_aspect: AspectOption = None,
    max_aspect: AspectOption = None,
    exact: ExactOption = False,
    out: SheetOption = None,
    as_json: options.JsonOption = False,
    save_dataset: SaveDatasetOption = None,
    model: QueryModelOption = None,
    clip: options.ClipOption = None,
    device: options.DeviceOption = None,
    dtype: options.DtypeOption = None,
) -> None:
    """Search an index of masks; print the results and save a contact sheet of them."""
    with one_line_errors():
        from textsam.cli.inputs.search_input import SearchInput, check_sheet, open_index, save_sheet
        from textsam.search.where import Where

        typed = SearchInput(text=text, mask=mask, image=image, like=like, points=point, box=box)
        typed.check()
        area: dict[str, Any] = {"min_area": min_area, "max_area": max_area}
        aspect: dict[str, Any] = {"min_aspect": min_aspect, "max_aspect": max_aspect}
        where = Where(datasets=data_set or None, labels=label or None, **area, **aspect)
        # With --json the output is for programs, which have no use for a picture.
        sheet = out or (None if as_json else Path("search.png"))
        if sheet is not None:
            check_sheet(sheet)
        if save_dataset is not None and save_dataset.exists():
            raise ValueError(f"--save-dataset {save_dataset} already exists; give another folder")
        loaded = None
        if model or clip or device:
            loaded = options.load_model(model or "tiny", clip=clip, device=device, dtype=dtype)
        with open_index(index, loaded) as opened:
            # Phrases need CLIP, so that is the default where the index has both.
            space = space or ("clip" if "clip" in opened.spaces else "sam")
            target = typed.resolve(lambda: cast(Any, opened.embedder).model)
            query: dict[str, Any] = {"text": target.text, "image": target.photo, "mask": target.rle}
            results = opened.search(**query, k=k, where=where, space=space, exact=exact)
        _show_results(results, as_json)
        if save_dataset is not None:
            results.to_dataset().save_to_disk(str(save_dataset))
        if sheet is not None and len(results):
            save_sheet(target, results, sheet, quiet=as_json)


def _show_results(results: SearchResults, as_json: bool) -> None:
    if as_json:
        for row in results.table.to_pylist():
            typer.echo(json.dumps(row))
        return
    if not len(results):
        print_line("nothing found: no mask of the index meets the conditions")
        return
    from textsam.cli.inputs.data_sources import short_name
    from textsam.cli.tables import make_table

    rows = [
        (
            str(number),
            f"{one.cosine:.3f}",
            one.dataset,
            one.label or "-",
            short_name(one.image),
            " ".join(str(side) for side in one.box),
            f"{one.area:,} px",
        )
        for number, one in enumerate(results, 1)
    ]
    headings = ("", "cosine", "data set", "label", "photo", "box x0 y0 x1 y1", "area")
    numbers = ("", "cosine", "box x0 y0 x1 y1", "area")
    make_console().print(make_table(*headings, rows=rows, right=numbers))
