"""`textsam refine`: redraw rough masks from another source along the edges of the photo."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textsam.cli import options
from textsam.cli.console import TerminalProgress, make_console, one_line_errors, print_line

if TYPE_CHECKING:
    from textsam import TextSAM
    from textsam.results.segmentation import Segmentation


def refine(
    masks: Annotated[
        Path,
        typer.Argument(
            metavar="MASKS",
            help="A COCO .json (with --photos), or a result of textsam (.json, .npz) or a PNG of "
            "pixel numbers (with --photo).",
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write; .json for a COCO file.")],
    photos: Annotated[
        Path | None, typer.Option("--photos", metavar="FOLDER", help="Photos of a COCO file.")
    ] = None,
    photo: Annotated[
        Path | None, typer.Option("--photo", metavar="FILE", help="The photo of the masks.")
    ] = None,
    box: Annotated[
        bool, typer.Option(help="Trust the box of each mask; use --no-box where masks miss a part.")
    ] = True,
    model: options.ModelOption = "tiny",
    device: options.DeviceOption = None,
    dtype: options.DtypeOption = None,
    backend: options.BackendOption = "torch",
) -> None:
    """Refine rough masks by means of their photo; labels, scores and order stay the same."""
    with one_line_errors():
        if (photo is None) == (photos is None):
            raise ValueError(
                "give --photos FOLDER with a COCO file, or --photo FILE with the masks of one photo"
            )
        # The photos of a COCO file are a folder, which -o cannot overwrite.
        inputs = [path.resolve() for path in (masks, photo) if path is not None]
        if out.resolve() in inputs:
            raise ValueError(f"{out} would be overwritten; give another -o")
        load = partial(options.load_model, model, device=device, dtype=dtype, backend=backend)
        if photo is not None:
            _refine_photo(load, masks, photo, out, box=box)
        elif photos is not None:
            if masks.suffix.lower() != ".json" or out.suffix.lower() != ".json":
                raise ValueError(f"{masks} and -o {out}: wanted two .json files in COCO's layout")
            from textsam.tasks.refinement import refine_coco

            loaded = load()
            with TerminalProgress("photos") as bar:
                count = refine_coco(
                    loaded, masks, photos=photos, out=out, box=box, progress=bar.show
                )
            print_line(f"{count} masks refined")
        print_line(f"wrote {out}")


def _refine_photo(
    load: Callable[[], TextSAM], masks: Path, photo: Path, out: Path, *, box: bool
) -> None:
    from textsam.cli.tables import result_table
    from textsam.tasks import refinement
    from textsam.values.images import load_image

    image = load_image(photo)
    rough = _read_masks(masks)
    result = refinement.refine(load(), rough, image=image, box=box)
    # A PNG of pixel numbers gives a PNG of pixel numbers, so that it can replace the old file.
    both_png = masks.suffix.lower() == out.suffix.lower() == ".png"
    result.save(out, kind="instances" if both_png else None)
    make_console().print(result_table(result))


def _read_masks(path: Path) -> Segmentation:
    import numpy as np
    from PIL import Image

    from textsam.results.interop import from_label_map
    from textsam.results.segmentation import Segmentation

    # Results of textsam, with their labels and scores.
    if path.suffix.lower() in (".json", ".npz"):
        return Segmentation.load(path)
    with Image.open(path) as picture:
        # Modes with one number per pixel; "P" numbers the colours of a palette.
        if picture.mode not in ("1", "L", "P", "I", "I;16"):
            raise ValueError(
                f"{path} is a colour picture ({picture.mode}); wanted a picture of pixel numbers, "
                "as `textsam everything --kind instances` writes"
            )
        return from_label_map(np.asarray(picture))
