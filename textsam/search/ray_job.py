"""A whole data set into an index, on the machines of a Ray cluster.

    load = functools.partial(load_embedder, "tiny", latents="photo")
    report = embed_on_ray(load, source, "s3://bucket/masks", address="auto")

Ray Data streams photos through three stages: tasks read rows of the source, an actor per device
embeds photos, and one actor commits whole photos to the index. It holds the first stages back when
the last one lags. A worker that dies is started anew and its photos are embedded again; what it had
committed is found by its ids and not added twice. So it is too when the run itself is started anew.
Ray Data tries without end, so photos that kill every worker (too large a batch) hold the run up.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from textsam.errors import require
from textsam.inference.model import TextSAM
from textsam.search.data_photos import PhotoSource
from textsam.search.embed import Embedder
from textsam.search.engines.ray_cluster import connect
from textsam.search.index import MaskIndex
from textsam.search.job import EmbedReport, EmbedSettings, Progress
from textsam.search.photo_rows import RowMaker, choose_masks
from textsam.search.ray_blocks import Batch, Committer, pack, rows_of, unpack

__all__ = ["embed_on_ray", "load_embedder"]

_BATCHES_A_BLOCK = 4  # what a worker that dies has to do again, at most
_COMMIT_PHOTOS = 64
_MOST_BLOCKS = 10_000  # of a whole set; each is an entry in the driver's books
_STREAM_CUTS = 32  # of what a stream's task gathers: some hundred photos
# Less than a core each, so that reading and committing find room beside a worker on every core.
_CPU_WORKER, _CPU_SMALL = 0.75, 0.1


def load_embedder(
    model: str, *, clip: str | None = None, device: str | None = None, **options: Any
) -> Embedder:
    """Load a model and make its `Embedder`; what each worker does.

    Args:
        model: As `TextSAM.from_pretrained` takes it, as the next two.
        clip: The CLIP beside it.
        device: "cpu", "cuda"; by default the best that the worker has.
        options: Keywords of `Embedder`.
    """
    return Embedder(TextSAM.from_pretrained(model, clip=clip, device=device), **options)


def embed_on_ray(
    load: Callable[[], Embedder],
    source: PhotoSource,
    uri: str | Path,
    *,
    settings: EmbedSettings | None = None,
    address: str | None = None,
    workers: int | None = None,
    storage_options: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> EmbedReport:
    """As `job.embed_data_set`, on a Ray cluster.

    Args:
        load: Makes the embedder in each worker; it, too, must survive pickling.
        source: The data set; all machines must reach its files under the same names.
        uri: The index: an object store, or a folder that all machines see under this name.
        settings: How it is gone through; blocks of some batches and commits of some dozen photos
            take the place of `commit_rows` and `commit_seconds`.
        address: "auto", "ray://host:10001", or None for a cluster on this machine.
        workers: Actors that embed; by default one for each GPU of the cluster, or for each core if
            it has none.
        storage_options: Keys, region and endpoint of an object store; sent to the workers.
        progress: Called for each photo once it is committed.

    Raises:
        ValueError: As `embed_data_set`; or an index in memory.
        MissingExtraError: ray is not installed.
        RuntimeError: A worker failed by a fault that is no photo's.
    """
    settings = settings or EmbedSettings()
    choose_masks(source, settings.masks)
    where = str(uri)
    if where == "memory://":
        raise ValueError("workers cannot write to 'memory://'; wanted a folder or an object store")
    if "://" not in where:
        where = str(Path(where).resolve())
    options = dict(storage_options or {})
    require("lance_ray", "scale")
    with MaskIndex.open(where, storage_options=options) as index:
        if index.spaces:  # tell a wrong model here, not from the middle of a cluster
            index.check_spaces(load().spaces)
    ray = connect(address)
    report = EmbedReport()
    blocks = _stages(ray, load, source, where, options, settings, workers)
    try:
        for batch in blocks.iter_batches(batch_size=None, batch_format="numpy"):
            for photo in unpack(batch):
                report.add(photo)
                if progress is not None:
                    progress(photo)
    except ray.exceptions.RayTaskError as error:
        raise RuntimeError(f"a worker failed: {_told_by_worker(str(error))}") from error
    if settings.compact:
        with MaskIndex.open(where, engine="ray", storage_options=options, address=address) as index:
            index.compact()
    return report


def _told_by_worker(trace: str) -> str:
    """The last line of the first error of a trace; Ray carries what came of it, not the error."""
    first, _, _ = trace.partition("\nThe above exception was the direct cause")
    return first.strip().splitlines()[-1].strip()


def _stages(
    ray: Any,
    load: Callable[[], Embedder],
    source: PhotoSource,
    uri: str,
    options: Mapping[str, str],
    settings: EmbedSettings,
    workers: int | None,
) -> Any:
    """The `ray.data.Dataset` whose rows are what became of the photos; lazy until it is read."""
    data = require("ray.data", "scale")
    gpus = int(ray.cluster_resources().get("GPU", 0))
    count = workers or gpus or max(1, int(ray.cluster_resources().get("CPU", 1)))
    block = settings.batch * _BATCHES_A_BLOCK
    small = {"num_cpus": _CPU_SMALL}
    # Ray Data joins what a task reads up to many megabytes, and then cuts it in so many blocks.
    # (`repartition` would do that too, by tasks that want a core, which the workers have taken.)
    total = source.total if settings.limit is None else min(source.total or 0, settings.limit)
    cuts = min(_MOST_BLOCKS, math.ceil(total / block)) if total else _STREAM_CUTS
    rows = data.read_datasource(
        rows_of(source, limit=settings.limit, block=block), override_num_blocks=cuts, **small
    )
    rows.context.enable_progress_bars = False
    rows.context.print_on_execution_start = False
    made = rows.map_batches(
        _Worker,
        fn_constructor_args=(load, source, uri, options, settings),
        batch_size=settings.batch,
        compute=data.ActorPoolStrategy(size=count),
        num_cpus=1 if gpus else _CPU_WORKER,
        num_gpus=1 if gpus else None,
    )
    return made.map_batches(
        Committer,
        fn_constructor_args=(uri, options),
        batch_size=_COMMIT_PHOTOS,
        compute=data.ActorPoolStrategy(size=1),
        **small,
    )


class _Worker:
    """Embeds photos; one on each device."""

    def __init__(
        self,
        load: Callable[[], Embedder],
        source: PhotoSource,
        uri: str,
        options: Mapping[str, str],
        settings: EmbedSettings,
    ) -> None:
        self.maker = RowMaker(
            load(),
            source,
            MaskIndex.open(uri, storage_options=options),
            masks=settings.masks,
            automatic=settings.automatic,
        )

    def __call__(self, batch: Batch) -> Batch:
        """Rows of the source -> what became of their photos."""
        return pack(self.maker.make([pickle.loads(row) for row in batch["row"]]))
