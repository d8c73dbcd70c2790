"""Batches of views: the same for any number of workers and ranks, from any step on."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import torch
from torch.utils.data import DataLoader

from .fetch import SPARES, Fetched, Fetcher, Finish, StepDraws, StreamReader, row_order
from .plan import Draw, Plan
from .sample import Sample
from .source import BrokenSample, NoMasksError, Source, StreamSource
from .views import ViewConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """What is loaded, and by how many processes."""

    photos_per_step: int  # Photos in a global batch, over all ranks
    workers: int = 0  # Worker processes on each rank; 0 makes views in the process itself
    seed: int = 0  # Determines every batch
    view: ViewConfig  # How photos are shown
    # Share of each source in the photos, to 1 in 16,384; by their lengths if None
    shares: Mapping[str, float] | None = None
    prefetch: int = 2  # Batches that each worker makes ahead
    # Of workers (fork, spawn, forkserver); None for the system's default
    start_method: str | None = None

    def __post_init__(self) -> None:
        if self.photos_per_step < 1 or self.prefetch < 1 or min(self.workers, self.seed) < 0:
            raise ValueError(
                f"photos_per_step={self.photos_per_step}, prefetch={self.prefetch}, workers="
                f"{self.workers}, seed={self.seed}; wanted at least 1, 1, 0 and 0"
            )


class ViewLoader:
    """Mixes sources into batches.

    Batch n depends on (seed, n) alone; its photo p goes to rank p % world. A photo that is broken,
    or has no mask in its view, is replaced by another of its source, chosen by (seed, n, p).

    A stream is read in the main process of each rank; earlier rows are skipped to start later.
    """

    def __init__(
        self,
        sources: Mapping[str, Source | StreamSource | Sequence[Sample]],
        *,
        config: LoaderConfig,
        rank: int = 0,
        world: int = 1,
        finish: Finish | None = None,
    ) -> None:
        """Check the sources' lengths; no photo is read yet.

        `finish` is called in the workers with each `ViewBatch` and the samples of its photos, and
        returns the batch to yield instead. It is pickled, and should draw random numbers about a
        photo from that photo's seed.
        """
        if not 0 <= rank < world:
            raise ValueError(f"rank={rank}, world={world}; wanted 0 <= rank < world")
        if config.photos_per_step < world:
            raise ValueError(
                f"photos_per_step={config.photos_per_step} for {world} ranks; wanted at least one "
                "photo for each"
            )
        self.sources = dict(sources)
        self.config = config
        self.rank = rank
        self.world = world
        # By source, on this rank: broken photos, and views without a mask of a useful size.
        self.skipped: dict[str, int] = {}
        self.empty: dict[str, int] = {}
        self.broken: list[BrokenSample] = []  # each once
        self._named: set[tuple[str, int]] = set()
        rows = {k: s for k, s in self.sources.items() if not isinstance(s, StreamSource)}
        for name, source in rows.items():
            if not len(source):
                raise ValueError(f"source {name!r} is empty")
        shares = _shares(self.sources, config.shares)
        self.plan = Plan(shares, seed=config.seed, photos=config.photos_per_step)
        orders = {k: row_order(s, key=(config.seed, crc32(k.encode()))) for k, s in rows.items()}
        self.fetcher = Fetcher(
            self.sources, orders, seed=config.seed, view=config.view, finish=finish
        )

    def batches(self, start: int = 0, stop: int | None = None) -> Iterator[Any]:
        """This rank's part of global batches `start` to `stop` (exclusive), or without end."""
        workers = self.config.workers
        loader: DataLoader[Fetched] = DataLoader(
            self.fetcher,  # type: ignore[arg-type]
            batch_size=None,
            sampler=_Steps(self, start, stop),
            collate_fn=_as_it_is,
            num_workers=workers,
            prefetch_factor=self.config.prefetch if workers else None,
            multiprocessing_context=self.config.start_method if workers else None,
            # The seed that it draws for its workers must not come from the run's own generator.
            generator=torch.Generator(),
        )
        try:
            for fetched in loader:
                self._note(fetched)
                yield fetched.batch
        except NoMasksError as error:  # of a worker it brings that worker's traceback along
            _, _, told = str(error).rpartition(f"{NoMasksError.__name__}: ")
            raise NoMasksError(told.strip()) from error

    def _note(self, fetched: Fetched) -> None:
        """Count and report what was skipped."""
        self.empty = dict(Counter(self.empty) + Counter(fetched.empty))
        for item in fetched.broken:
            self.skipped[item.source] = self.skipped.get(item.source, 0) + 1
            if (item.source, item.row) not in self._named:
                self._named.add((item.source, item.row))
                self.broken.append(item)
                logger.warning("%s, row %d is broken: %s", item.source, item.row, item.reason)


class _Steps(Iterable[StepDraws]):
    """Work items of the workers, in order."""

    def __init__(self, loader: ViewLoader, start: int, stop: int | None) -> None:
        self.loader = loader
        self.start = start
        self.stop = stop

    def __iter__(self) -> Iterator[StepDraws]:
        seed = self.loader.config.seed
        readers = {
            name: StreamReader(source, name=name, key=seed)
            for name, source in self.loader.sources.items()
            if isinstance(source, StreamSource)
        }
        end = itertools.count(self.start) if self.stop is None else range(self.start, self.stop)
        for step in end:
            # All draws of the batch are computed on every rank, which then takes every n-th.
            draws = self.loader.plan.draws(step)
            own = tuple(draws[self.loader.rank :: self.loader.world])
            rows: dict[str, dict[int, object]] = {}
            spares: dict[str, list[tuple[int, object]]] = {}
            for name, reader in readers.items():
                rows[name], spares[name] = _of_stream(reader, name, draws, own)
            yield StepDraws(step, own, rows, spares)


def _of_stream(
    reader: StreamReader, name: str, draws: Sequence[Draw], own: Sequence[Draw]
) -> tuple[dict[int, object], list[tuple[int, object]]]:
    """Rows of a stream for a rank's draws, and the rows after the batch's last as spares."""
    ordinals = [draw.ordinal for draw in draws if draw.source == name]
    if not ordinals:
        return {}, []
    end = max(ordinals) + 1
    read = reader.rows(min(ordinals), end + SPARES)
    # The rows after the batch's last serve as spares for broken ones.
    rows = {draw.ordinal: read[draw.ordinal] for draw in own if draw.source == name}
    return rows, [(n, read[n]) for n in range(end, end + SPARES)]


def _shares(
    sources: Mapping[str, Source | StreamSource | Sequence[Sample]],
    given: Mapping[str, float] | None,
) -> Mapping[str, float]:
    """The share of each source, checked against the sources."""
    if not sources:
        raise ValueError("ViewLoader: got no source; wanted at least one")
    if given is not None:
        if set(given) != set(sources):
            raise ValueError(f"shares for {sorted(given)}; the sources are {sorted(sources)}")
        return {name: given[name] for name in sources}
    streams = [name for name, source in sources.items() if isinstance(source, StreamSource)]
    if streams and len(sources) > 1:
        raise ValueError(
            f"{', '.join(streams)} has no length, so shares cannot follow the lengths. Give "
            f"shares={{{', '.join(f'{name!r}: 1.0' for name in sources)}}}"
        )
    return {
        name: 1.0 if isinstance(source, StreamSource) else float(len(source))
        for name, source in sources.items()
    }


def _as_it_is(fetched: Any) -> Any:
    return fetched
