"""`textsam refine`: other people's masks, drawn again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from textsam.cli.console import make_console, one_line_errors, steps_bar

if TYPE_CHECKING:
    from textsam.results.segmentation import Segmentation

__all__ = ["refine"]


def refine(
    masks: Annotated[
        Path,
        typer.Argument(
            metavar="MASKS",
            help="COCO's .json (with --photos), a result of textsam (.json, .npz), or a PNG of "
            "numbered pixels (with --photo).",
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="File to write: .json for COCO, else as segment.")
    ],
    photos: Annotated[
        Path | None, typer.Option("--photos", metavar="FOLDER", help="Photos of a COCO file.")
    ] = None,
    photo: Annotated[
        Path | None, typer.Option("--photo", metavar="FILE", help="The photo of the masks.")
    ] = None,
    box: Annotated[
        bool, typer.Option(help="Take each mask's box as right; not where a part is missing.")
    ] = True,
    model: Annotated[
        str, typer.Option("--model", help="tiny, a folder or file of weights, or a hub id.")
    ] = "tiny",
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, mps.")] = None,
) -> None:
    """Draw rough masks again, with the photo in sight; labels, scores and order stay."""
    with one_line_errors():
        if (photo is None) == (photos is None):
            raise ValueError(
                "give --photos FOLDER with a COCO file, or --photo FILE with the masks of one photo"
            )
        given = [path.resolve() for path in (masks, photo) if path is not None]
        if out.resolve() in given:
            raise ValueError(f"{out} would be overwritten; give another -o")
        if photos is not None:
            _refine_coco(masks, photos, out, box=box, model=model, device=device)
        elif photo is not None:
            _refine_photo(masks, photo, out, box=box, model=model, device=device)


def _refine_coco(
    masks: Path, photos: Path, out: Path, *, box: bool, model: str, device: str | None
) -> None:
    from rich.markup import escape

    from textsam.cli import app as cli
    from textsam.tasks.refinement import refine_coco

    if masks.suffix.lower() != ".json" or out.suffix.lower() != ".json":
        raise ValueError(f"{masks} and -o {out}: wanted two .json files, COCO's layout")
    loaded: Any = cli.load(model, None, device)
    with steps_bar(make_console(stderr=True), "photos") as progress:
        count = refine_coco(loaded, masks, photos=photos, out=out, box=box, progress=progress)
    make_console().print(f"{count} masks drawn again; wrote {escape(str(out))}", soft_wrap=True)


def _refine_photo(
    masks: Path, photo: Path, out: Path, *, box: bool, model: str, device: str | None
) -> None:
    from rich.markup import escape

    from textsam.cli import app as cli
    from textsam.cli.tables import result_table
    from textsam.tasks.refinement import refine as draw_again
    from textsam.values.images import load_image

    image = load_image(photo)
    rough = _read_masks(masks)
    loaded: Any = cli.load(model, None, device)
    result = draw_again(loaded, rough, image=image, box=box)
    # A PNG of numbers comes back as one, so that it can take the old one's place.
    numbered = masks.suffix.lower() == ".png" and out.suffix.lower() == ".png"
    result.save(out, kind="instances" if numbered else None)
    console = make_console()
    console.print(result_table(result))
    console.print(f"wrote {escape(str(out))}", soft_wrap=True)


def _read_masks(path: Path) -> Segmentation:
    import numpy as np
    from PIL import Image

    from textsam.results.interop import from_label_map
    from textsam.results.segmentation import Segmentation

    if path.suffix.lower() in (".json", ".npz"):
        return Segmentation.load(path)
    with Image.open(path) as picture:
        if picture.mode not in ("1", "L", "P", "I", "I;16"):
            raise ValueError(
                f"{path} is a picture of colours ({picture.mode}); wanted one of numbered pixels, "
                "as `textsam everything --kind instances` writes"
            )
        return from_label_map(np.asarray(picture))
