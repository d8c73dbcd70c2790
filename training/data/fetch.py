"""From a plan to batches: the work of the loader's worker processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from .batch import ViewBatch
from .plan import Draw, RowOrder, Use, photo_seed, random_for
from .sample import BROKEN, Sample
from .source import BrokenSample, GroupedSource, NoMasksError, Source, StreamSource
from .views import View, ViewConfig, make_view

# Rows of a stream that are sent along with a batch, to replace broken ones.
SPARES = 8

# After this many photos without a view, one after the other, something is wrong with the set.
_ATTEMPTS = 200


# Makes of a batch of views and their samples what an objective takes, see `ViewLoader`.
Finish: TypeAlias = Callable[[ViewBatch, Sequence[Sample]], Any]


class StepDraws(NamedTuple):
    """One rank's draws of a global batch, with the rows of streams by their ordinal."""

    step: int
    draws: tuple[Draw, ...]
    rows: Mapping[str, Mapping[int, Any]]
    spares: Mapping[str, Sequence[tuple[int, Any]]]


class Fetched(NamedTuple):
    """A batch, and what was skipped for it."""

    batch: Any
    broken: tuple[BrokenSample, ...]
    empty: Mapping[str, int]


@dataclass(kw_only=True)
class _LoadedView:
    """A view with its sample and origin."""

    view: View
    sample: Sample
    origin: tuple[str, int]


@dataclass(kw_only=True)
class _Skipped:
    """What was skipped so far."""

    broken: list[BrokenSample] = field(default_factory=list)
    empty: Counter[str] = field(default_factory=Counter)


class Fetcher:
    """Makes the batch of a `StepDraws`; a map-style data set, as torch's DataLoader has it."""

    def __init__(
        self,
        sources: Mapping[str, Source | StreamSource],
        orders: Mapping[str, RowOrder],
        *,
        seed: int,
        view: ViewConfig,
        finish: Finish | None = None,
    ) -> None:
        self.sources = sources
        self.orders = orders
        self.seed = seed
        self.view = view
        self.finish = finish

    def __getitem__(self, wanted: StepDraws) -> Fetched:
        skipped = _Skipped()
        loaded = [self._load(draw, wanted, skipped) for draw in wanted.draws]
        batch = ViewBatch(
            step=wanted.step,
            views=tuple(item.view for item in loaded),
            origin=tuple(item.origin for item in loaded),
            labels=tuple(
                tuple(item.sample.objects[i].label for i in item.view.objects) for item in loaded
            ),
            seeds=tuple(photo_seed(self.seed, wanted.step, d.position) for d in wanted.draws),
            exhaustive=tuple(item.sample.exhaustive for item in loaded),
        )
        finished = batch
        if self.finish is not None:
            finished = self.finish(batch, [item.sample for item in loaded])
        return Fetched(finished, tuple(skipped.broken), skipped.empty)

    def _load(self, draw: Draw, wanted: StepDraws, skipped: _Skipped) -> _LoadedView:
        """The view of a draw, or of a substitute if it is broken or has none."""
        reasons: list[str] = []
        for attempt in range(_ATTEMPTS):
            row, load = self._choose(draw, wanted, attempt)
            # Substitutes get random numbers of their own, whatever was drawn before them.
            key = (self.seed, wanted.step, draw.position, attempt)
            try:
                sample = load()
                view = make_view(sample, random_for(Use.VIEW, *key), config=self.view)
            except BROKEN as error:
                reasons.append(f"row {row}: {error}")
                skipped.broken.append(BrokenSample(source=draw.source, row=row, reason=f"{error}"))
                continue
            if view is not None:
                return _LoadedView(view=view, sample=sample, origin=(draw.source, row))
            skipped.empty[draw.source] += 1
        raise NoMasksError(
            f"source {draw.source!r}: none of {_ATTEMPTS} photos drawn one after the other can be "
            f"shown: {len(reasons)} are broken{f' ({reasons[0]})' if reasons else ''}, in "
            f"{_ATTEMPTS - len(reasons)} no mask of {self.view.min_area} px up to "
            f"{self.view.max_share:.0%} of the picture is left. Look at the set, or change "
            "ViewConfig(min_area, max_share, scale)"
        )

    def _choose(
        self, draw: Draw, wanted: StepDraws, attempt: int
    ) -> tuple[int, Callable[[], Sample]]:
        """The row to try, and how to load it: that of the draw first, then substitutes."""
        source = self.sources[draw.source]
        if draw.source in self.orders:
            order = self.orders[draw.source]
            row = order.row(draw.ordinal)
            if attempt:
                key = (self.seed, wanted.step, draw.position, attempt)
                row = order.substitute(draw.ordinal, random_for(Use.SUBSTITUTE, *key))
            return row, lambda: source[row]  # type: ignore[index]
        ordinal, content = draw.ordinal, wanted.rows[draw.source][draw.ordinal]
        if attempt:
            spares = wanted.spares[draw.source]
            ordinal, content = spares[(draw.position + attempt) % len(spares)]
        return ordinal, lambda: source.sample(content)  # type: ignore[union-attr]


class StreamReader:
    """Reads a stream forwards, epoch after epoch."""

    def __init__(self, source: StreamSource, *, name: str, key: int) -> None:
        self._name = name
        self._rows = self._epochs(source, key)
        self._kept: dict[int, Any] = {}
        self._next = 0

    def rows(self, first: int, last: int) -> dict[int, Any]:
        """Rows `first` up to but not including `last`; earlier ones are skipped."""
        self._kept = {n: row for n, row in self._kept.items() if n >= first}
        while self._next < last:
            row = next(self._rows)
            if self._next >= first:
                self._kept[self._next] = row
            self._next += 1
        return {n: self._kept[n] for n in range(first, last)}

    def _epochs(self, source: StreamSource, key: int) -> Iterator[Any]:
        epoch = 0
        while True:
            before = epoch
            for row in source.rows(seed=key, epoch=epoch):
                before = epoch + 1
                yield row
            if before == epoch:
                raise ValueError(f"source {self._name!r}: its stream has no row")
            epoch += 1


def row_order(source: Source, *, key: tuple[int, ...]) -> RowOrder:
    """The order of a source's rows, by its groups if it has any."""
    if isinstance(source, GroupedSource):
        return RowOrder(source.groups, window=source.window, key=key)
    return RowOrder([len(source)], window=1, key=key)
