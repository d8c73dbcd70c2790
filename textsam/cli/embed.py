"""`textsam embed`: the masks of a data set into an index."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from textsam.cli.console import make_console, one_line_errors

if TYPE_CHECKING:
    from rich.console import Console

    from textsam.search.data_photos import PhotoSource
    from textsam.search.job import EmbedReport, EmbedSettings, Progress

__all__ = ["embed"]

_SPACES = {None: None, "clip": ["clip"], "sam": ["sam"], "both": ["clip", "sam"]}


def embed(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A folder of photos, FILE.parquet, coco:FILE.json@FOLDER, "
            "hf:OWNER/SET?masks=COLUMN&streaming=true, or another source that training reads.",
        ),
    ],
    index: Annotated[
        str, typer.Option("-o", "--out", metavar="INDEX", help="A folder, or s3://BUCKET/PATH.")
    ],
    masks: Annotated[
        Literal["given", "everything"] | None,
        typer.Option(
            "--masks",
            help="given: the data set's own (default if it has any); everything: automatic.",
        ),
    ] = None,
    preset: Annotated[
        Literal["fast", "paper", "released-code"],
        typer.Option("--preset", help="Of automatic masks."),
    ] = "fast",
    data_set: Annotated[
        str | None, typer.Option("--data-set", help="Its name in the index (default: its own).")
    ] = None,
    spaces: Annotated[
        Literal["clip", "sam", "both"] | None,
        typer.Option(
            "--spaces",
            help="clip: what a mask shows, phrases find it; sam: what it looks like (default: all "
            "that the model has).",
        ),
    ] = None,
    latents: Annotated[
        Literal["photo", "crops"],
        typer.Option(
            "--latents",
            help="Space sam: photo, one encoding for all masks of a photo; crops, the paper's two "
            "for each mask.",
        ),
    ] = "photo",
    limit: Annotated[int | None, typer.Option("--limit", help="Photos at most.")] = None,
    batch: Annotated[int, typer.Option("--batch", help="Photos at a time.")] = 8,
    model: Annotated[
        str, typer.Option("--model", help="tiny, a folder or file of weights, or a hub id.")
    ] = "tiny",
    clip: Annotated[str | None, typer.Option("--clip", help="CLIP to use with it.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, mps.")] = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option("--engine", help="ray: on the machines of a cluster.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            help="Of the Ray cluster: auto, ray://HOST:10001 (default: start one here).",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", help="Ray actors that embed (default: one a GPU, else one a core)."
        ),
    ] = None,
) -> None:
    """Embed the masks of a data set into an index, to be searched with `textsam search`.

    A run can be stopped and started again: what the index has is passed over.
    """
    with one_line_errors():
        from textsam.cli.sources import open_data
        from textsam.search.job import EmbedSettings

        if engine != "ray" and (address or workers):
            raise ValueError("--address and --workers are Ray's; add --engine ray")
        settings = EmbedSettings(masks=masks, automatic=preset, limit=limit, batch=batch)
        source = open_data(data, name=data_set, index=index)
        options: dict[str, Any] = {"latents": latents, "spaces": _SPACES[spaces]}

        def run(show: Progress) -> EmbedReport:
            if engine == "ray":
                return _on_ray(
                    (model, clip, device), options, source, index, settings, address, workers, show
                )
            return _here((model, clip, device), options, source, index, settings, show)

        report = _with_bar(run, source, settings, console=make_console(stderr=True))
        _tell(report, index, console=make_console())
        if report.failed:
            raise typer.Exit(1)


def _here(
    named: tuple[str, str | None, str | None],
    options: dict[str, Any],
    source: PhotoSource,
    uri: str,
    settings: EmbedSettings,
    show: Progress,
) -> EmbedReport:
    from textsam.cli import app as cli
    from textsam.search.embed import Embedder
    from textsam.search.index import MaskIndex
    from textsam.search.job import embed_data_set
    from textsam.search.photo_rows import choose_masks

    choose_masks(source, settings.masks)
    loaded: Any = cli.load(*named)
    embedder = Embedder(loaded, **options)
    with MaskIndex.open(uri) as opened:
        return embed_data_set(embedder, source, opened, settings=settings, progress=show)


def _on_ray(
    named: tuple[str, str | None, str | None],
    options: dict[str, Any],
    source: PhotoSource,
    uri: str,
    settings: EmbedSettings,
    address: str | None,
    workers: int | None,
    show: Progress,
) -> EmbedReport:
    import logging

    from textsam.search.ray_job import embed_on_ray, load_embedder

    logging.getLogger("ray").setLevel(logging.ERROR)  # its plans and hints; the bar tells the rest
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    model, clip, device = named
    return embed_on_ray(
        functools.partial(load_embedder, model, clip=clip, device=device, **options),
        source,
        uri,
        settings=settings,
        address=address,
        workers=workers,
        progress=show,
    )


def _with_bar(
    run: Callable[[Progress], EmbedReport],
    source: PhotoSource,
    settings: EmbedSettings,
    *,
    console: Console,
) -> EmbedReport:
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    counts = [count for count in (source.total, settings.limit) if count is not None]
    total = None if source.total is None and settings.limit is None else min(counts)
    columns = (BarColumn(), MofNCompleteColumn(), Remaining(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        masks = 0

        def show(photo: Any) -> None:
            nonlocal masks
            masks += photo.masks
            bar.update(task, advance=1, description=f"{masks:,} masks")
            if photo.error is not None:
                told = f"[red]failed[/red] {escape(photo.image)}: {escape(photo.error)}"
                bar.console.print(told, soft_wrap=True, highlight=False)

        return run(show)


def _tell(report: EmbedReport, uri: str, *, console: Console) -> None:
    from rich.markup import escape

    parts = [f"{report.masks:,} new masks"]
    parts += [f"{report.kept:,} were there"] if report.kept else []
    parts += [f"[red]{len(report.failed):,} photos failed[/red]"] if report.failed else []
    console.print(f"{report.photos:,} photos: {', '.join(parts)}; in {escape(uri)}", soft_wrap=True)
