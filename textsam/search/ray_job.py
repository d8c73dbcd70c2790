"""Embed the masks of a whole data set into an index, on the machines of a Ray cluster.

    load = functools.partial(Embedder.from_pretrained, "tiny", latents="photo")
    report = embed_on_ray(load, source, "s3://bucket/masks", address="auto")

Ray Data streams photos through three stages: tasks read rows of the source, one actor per device
embeds photos, and one actor commits whole photos to the index. It slows the first stages down when
the last one is behind. If a worker dies, a new one embeds its photos again; what had been committed
is recognised by its ids and not added twice. The same holds when the run itself is started again.
Ray Data retries without limit, so photos that kill every worker (a batch that is too large) block
the run.

Nothing here imports a network, so processes that only read rows or commit them start at once.
"""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from textsam.errors import require
from textsam.search.data_photos import PhotoRows, PhotoSource, batches
from textsam.search.index import MaskIndex
from textsam.search.job import EmbedReport, EmbedSettings, PhotoEmbedder, Progress, choose_masks
from textsam.search.lance_engine import IN_MEMORY, connect

if TYPE_CHECKING:
    from textsam.search.embed import Embedder

_BATCHES_PER_BLOCK = 4  # at most this many are repeated when a worker dies
_COMMIT_PHOTOS = 64
_MAX_BLOCKS = 10_000  # of a whole data set; the driver keeps an entry for each
_STREAM_BLOCKS = 32  # of what the reading task of a stream collects: some hundred photos
# Less than one core each, so that reading and committing run beside a worker on every core.
_WORKER_CPUS, _SMALL_TASK_CPUS = 0.75, 0.1

# Columns of a block of Ray Data.
_Batch: TypeAlias = dict[str, Any]


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
    """Do what `embed_data_set` does on a Ray cluster.

    Args:
        load: Makes the embedder in each worker; it must survive pickling.
        source: The data set; all machines must reach its files under the same names.
        uri: The index: an object store, or a folder that all machines see under this name.
        settings: As for `embed_data_set`, except that commits of 64 photos replace `commit_rows`
            and `commit_seconds`.
        address: "auto", "ray://host:10001", or None for a cluster on this machine.
        workers: Actors that embed; by default one for each GPU, or for each core without a GPU.
        storage_options: Keys, region and endpoint of an object store; sent to the workers.
        progress: Called for each photo once it is committed.

    Raises:
        ValueError: See `embed_data_set`; or an index in memory.
        MissingExtraError: ray is not installed.
        RuntimeError: A worker failed for a reason other than a broken photo.
    """
    settings = settings or EmbedSettings()
    choose_masks(source, settings.masks)
    location = str(uri)
    if location == IN_MEMORY:
        raise ValueError("workers cannot write to 'memory://'; wanted a folder or an object store")
    if "://" not in location:
        location = str(Path(location).resolve())  # workers have another working directory
    options = dict(storage_options or {})
    require("lance_ray", "scale")
    with MaskIndex.open(location, storage_options=options) as index:
        if index.spaces:  # report a wrong model here rather than from within the cluster
            index.check_spaces(load().spaces)
    ray = connect(address)
    report = EmbedReport()
    stages = _stages(ray, load, source, location, options, settings, workers)
    try:
        for batch in stages.iter_batches(batch_size=None, batch_format="numpy"):
            for photo in _unpack(batch):
                report.add(photo)
                if progress is not None:
                    progress(photo)
    except ray.exceptions.RayTaskError as error:
        # The last line of the first error is the cause, which Ray passes on only as text.
        first, _, _ = str(error).partition("\nThe above exception was the direct cause")
        raise RuntimeError(f"a worker failed: {first.strip().splitlines()[-1].strip()}") from error
    if settings.compact:
        with MaskIndex.open(
            location, engine="ray", storage_options=options, address=address
        ) as index:
            index.compact()
    return report


def _stages(
    ray: Any,
    load: Callable[[], Embedder],
    source: PhotoSource,
    uri: str,
    options: Mapping[str, str],
    settings: EmbedSettings,
    workers: int | None,
) -> Any:
    """A `ray.data.Dataset` with one row per photo; nothing runs until it is read."""
    data = require("ray.data", "scale")
    gpus = int(ray.cluster_resources().get("GPU", 0))
    count = workers or gpus or max(1, int(ray.cluster_resources().get("CPU", 1)))
    block = settings.batch * _BATCHES_PER_BLOCK
    small = {"num_cpus": _SMALL_TASK_CPUS}
    # Ray Data joins what a task reads up to many megabytes, and then cuts it into this many blocks.
    # (`repartition` would do so too, with tasks that need a core, which the workers occupy.)
    total = source.total if settings.limit is None else min(source.total or 0, settings.limit)
    blocks = min(_MAX_BLOCKS, math.ceil(total / block)) if total else _STREAM_BLOCKS
    rows = data.read_datasource(
        _datasource(source, limit=settings.limit, block=block), override_num_blocks=blocks, **small
    )
    rows.context.enable_progress_bars = False
    rows.context.print_on_execution_start = False
    embedded = rows.map_batches(
        _EmbeddingWorker,
        fn_constructor_args=(load, source, uri, options, settings),
        batch_size=settings.batch,
        compute=data.ActorPoolStrategy(size=count),
        num_cpus=1 if gpus else _WORKER_CPUS,
        num_gpus=1 if gpus else None,
    )
    return embedded.map_batches(
        _Committer,
        fn_constructor_args=(uri, options),
        batch_size=_COMMIT_PHOTOS,
        compute=data.ActorPoolStrategy(size=1),
        **small,
    )


class _EmbeddingWorker:
    """Embeds photos; one per device."""

    def __init__(
        self,
        load: Callable[[], Embedder],
        source: PhotoSource,
        uri: str,
        options: Mapping[str, str],
        settings: EmbedSettings,
    ) -> None:
        index = MaskIndex.open(uri, storage_options=options)
        self.embedder = PhotoEmbedder(load(), source, index, settings)

    def __call__(self, batch: _Batch) -> _Batch:
        """Rows of the source -> `PhotoRows`."""
        return _pack(self.embedder.embed([pickle.loads(row) for row in batch["row"]]))


class _Committer:
    """Commits the rows of whole photos; there is only one, since concurrent commits contend."""

    def __init__(self, uri: str, options: Mapping[str, str]) -> None:
        self.index = MaskIndex.open(uri, storage_options=options)

    def __call__(self, batch: _Batch) -> _Batch:
        """Commit the tables; the driver receives everything else."""
        photos = _unpack(batch)
        self.index.add_tables(photo.table for photo in photos)
        return _pack(replace(photo, table=None) for photo in photos)


def _pack(photos: Iterable[PhotoRows]) -> _Batch:
    """One column and one row per photo, so that no commit contains half a photo."""
    # Pickled: a table that is a column of a block would lose its metadata.
    return {"photo": [pickle.dumps(photo) for photo in photos]}


def _unpack(batch: _Batch) -> list[PhotoRows]:
    """The reverse of `_pack`."""
    return [pickle.loads(photo) for photo in batch["photo"]]


def _datasource(source: PhotoSource, *, limit: int | None, block: int) -> Any:
    """A `ray.data.Datasource` of a source's pickled rows; the workers open the photos.

    A single task reads the rows: they are numbers, or a stream that only one process can read.
    """
    pa = require("pyarrow", "search")
    data = require("ray.data", "scale")
    metadata = require("ray.data.block", "scale").BlockMetadata(
        num_rows=None, size_bytes=None, input_files=None, exec_stats=None
    )

    def tables() -> Iterator[Any]:
        for rows in batches(itertools.islice(source.rows(), limit), block):
            yield pa.table({"row": pa.array([pickle.dumps(row) for row in rows], pa.binary())})

    class Rows(data.Datasource):  # type: ignore[misc, name-defined, unused-ignore]
        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(
            self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
        ) -> list[Any]:
            return [data.ReadTask(tables, metadata, per_task_row_limit=per_task_row_limit)]

    return Rows()
