"""`textsam embed`: write the masks of a data set to an index."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from textsam.cli import options
from textsam.cli.console import TerminalProgress, one_line_errors, print_line

if TYPE_CHECKING:
    from textsam.search.data_photos import PhotoRows
    from textsam.search.job import EmbedReport

DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder of photos, FILE.parquet, coco:FILE.json@FOLDER, "
        "hf:OWNER/SET?masks=COLUMN&streaming=true, or another source that training reads.",
    ),
]
IndexOption = Annotated[
    str, typer.Option("-o", "--out", metavar="INDEX", help="A folder, or s3://BUCKET/PATH.")
]
DataSetName = Annotated[
    str | None, typer.Option("--data-set", help="Its name in the index (default: its own).")
]
MasksOption = Annotated[
    Literal["given", "everything"] | None,
    typer.Option(
        "--masks",
        help="given: those of the data set (default if it has any); everything: automatic masks.",
    ),
]
PresetOption = Annotated[
    Literal["fast", "paper", "released-code"], typer.Option("--preset", help="Of automatic masks.")
]
SpacesOption = Annotated[
    Literal["clip", "sam", "both"] | None,
    typer.Option(
        "--spaces",
        help="clip: what a mask shows, searchable by phrases; sam: what it looks like (default: "
        "all that the model has).",
    ),
]
LatentsOption = Annotated[
    Literal["photo", "crops"],
    typer.Option(
        "--latents",
        help="Of space sam: photo, one encoding for all masks of a photo; crops, two for each "
        "mask, as in the SAM paper.",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address", help="Of the Ray cluster: auto, ray://HOST:10001 (default: start one here)."
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", help="Ray actors that embed (default: one per GPU, else per core)."),
]


def embed(
    data: DataArgument,
    index: IndexOption,
    masks: MasksOption = None,
    preset: PresetOption = "fast",
    data_set: DataSetName = None,
    spaces: SpacesOption = None,
    latents: LatentsOption = "photo",
    limit: Annotated[int | None, typer.Option("--limit", help="Maximum number of photos.")] = None,
    batch: Annotated[int, typer.Option("--batch", help="Photos per batch.")] = 8,
    model: options.ModelOption = "tiny",
    clip: options.ClipOption = None,
    device: options.DeviceOption = None,
    dtype: options.DtypeOption = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option("--engine", help="ray: on the machines of a cluster.")
    ] = "local",
    address: AddressOption = None,
    workers: WorkersOption = None,
) -> None:
    """Embed the masks of a data set into an index, for `textsam search`.

    A run can be stopped; the same command continues it and skips the masks in the index.
    """
    with one_line_errors():
        from textsam.cli.inputs.data_sources import open_data
        from textsam.search.job import EmbedSettings, choose_masks, embed_data_set
        from textsam.search.ray_job import embed_on_ray

        if engine != "ray" and (address or workers):
            raise ValueError("--address and --workers are for Ray; add --engine ray")
        # All checks come before the networks, which are slow to import and to load.
        settings = EmbedSettings(masks=masks, automatic=preset, limit=limit, batch=batch)
        source = open_data(data, name=data_set, index=index)
        choose_masks(source, masks)
        from textsam.search.embed import Embedder
        from textsam.search.index import MaskIndex

        # None: all spaces that the model has.
        names = ["clip", "sam"] if spaces == "both" else spaces and [spaces]
        embedding: dict[str, Any] = {"latents": latents, "spaces": names}
        run: Callable[..., EmbedReport]
        # On a cluster each worker loads its own model, so that none is sent over the network.
        if engine == "ray":
            load = partial(
                Embedder.from_pretrained, model, clip=clip, device=device, dtype=dtype, **embedding
            )
            # Ray prints its plans and hints; the progress bar shows what matters.
            logging.getLogger("ray").setLevel(logging.ERROR)
            logging.getLogger("ray.data").setLevel(logging.ERROR)
            run = partial(embed_on_ray, load, source, index, address=address, workers=workers)
        else:
            loaded = options.load_model(model, clip=clip, device=device, dtype=dtype)
            opened = MaskIndex.open(index)
            run = partial(embed_data_set, Embedder(loaded, **embedding), source, opened)
        report = _run_with_bar(partial(run, settings=settings), source.total, limit)
        _print_report(report, index)


def _print_report(report: EmbedReport, index: str) -> None:
    parts = [f"{report.masks:,} new masks"]
    parts += [f"{report.kept:,} were in the index already"] if report.kept else []
    parts += [f"{len(report.failed):,} photos failed"] if report.failed else []
    print_line(f"{report.photos:,} photos: {', '.join(parts)}; in {index}")
    if report.failed:
        raise typer.Exit(1)


def _run_with_bar(
    run: Callable[..., EmbedReport], photos: int | None, limit: int | None
) -> EmbedReport:
    # A stream does not know how many photos it has.
    total = min((count for count in (photos, limit) if count is not None), default=None)
    done = masks = 0
    with TerminalProgress(total=total) as bar:

        def show(photo: PhotoRows) -> None:
            nonlocal done, masks
            done, masks = done + 1, masks + photo.masks
            bar.show(done, description=f"{masks:,} masks")
            if photo.error is not None:
                bar.show_failure(photo.image, photo.error)

        return run(progress=show)
