"""Batches: the same with any workers and ranks, from any step on, whatever is broken."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from textsam.values.rle import RLE
from training.data import (
    LoaderConfig,
    ParquetSource,
    Sample,
    StreamSource,
    ViewBatch,
    ViewConfig,
    ViewLoader,
)

VIEW = ViewConfig(image_size=48, jitter=0.5, min_area=4)


class Rows(Sequence[Sample]):
    """Photos, some of which are broken: None stands for a file that is not there."""

    def __init__(self, samples: Sequence[Sample | None]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Any) -> Any:
        sample = self.samples[index]
        if sample is None:
            raise FileNotFoundError(f"no photo {index}")
        return sample


class Stream:
    """A stream of row numbers; rows that are None are broken."""

    def __init__(self, samples: Sequence[Sample | None]) -> None:
        self.samples = samples

    def rows(self, *, seed: int, epoch: int) -> Iterator[int]:
        generator = torch.Generator().manual_seed(seed * 1000 + epoch)
        yield from torch.randperm(len(self.samples), generator=generator).tolist()

    def sample(self, row: Any) -> Sample:
        sample = self.samples[row]
        if sample is None:
            raise ValueError("broken")
        return sample

    def __iter__(self) -> Iterator[Sample]:
        return (s for s in self.samples if s is not None)


def _loader(sources: dict[str, Any], *, rank: int = 0, world: int = 1, **config: Any) -> ViewLoader:
    given = {"photos_per_step": 4, "seed": 5, "view": VIEW, **config}
    return ViewLoader(sources, config=LoaderConfig(**given), rank=rank, world=world)


def _same(a: ViewBatch, b: ViewBatch) -> bool:
    fields = ("step", "origin", "labels", "seeds", "exhaustive")
    return (
        all(getattr(a, name) == getattr(b, name) for name in fields)
        and torch.equal(a.masks, b.masks)
        and torch.equal(a.void, b.void)
        and all(torch.equal(x, y) for x, y in zip(a.pixels, b.pixels, strict=True))
    )


@pytest.fixture
def mixed(samples: list[Sample], grouped_parquet: list[Path]) -> dict[str, Any]:
    """A list with broken photos, a grouped source and a stream with broken rows."""
    rows = [*samples[:4], None, dataclasses.replace(samples[5], encoded=b"\xff\xd8nothing")]
    return {
        "list": Rows(rows),
        "file": ParquetSource(grouped_parquet, window=2),
        "stream": Stream([*samples[6:], None, None]),
    }


SHARES = {"list": 0.4, "file": 0.3, "stream": 0.3}


def test_a_batch_holds_what_its_fields_say(samples: list[Sample]) -> None:
    (batch,) = _loader({"a": samples}).batches(3, 4)
    assert batch.step == 3 and len(batch) == 4 == len(batch.pixels)
    assert batch.weight == len(batch.masks) == len(batch.image_index) == len(batch.void)
    assert batch.masks.shape[1:] == (48, 48) and batch.masks.dtype == torch.bool
    for index, view in enumerate(batch.views):
        _, row = batch.origin[index]
        assert torch.equal(batch.masks[batch.image_index == index], view.masks)
        assert batch.labels[index] == tuple(samples[row].objects[i].label for i in view.objects)
        assert batch.exhaustive[index] == samples[row].exhaustive
    moved = batch.to("cpu")
    assert moved is not batch and _same(moved, batch)


@pytest.mark.parametrize(
    ("workers", "start_method"), [pytest.param(1, "spawn", marks=pytest.mark.slow), (2, None)]
)
def test_workers_change_nothing(
    mixed: dict[str, Any], workers: int, start_method: str | None
) -> None:
    alone = list(_loader(mixed, shares=SHARES).batches(0, 6))
    helped = _loader(mixed, shares=SHARES, workers=workers, start_method=start_method)
    together = list(helped.batches(0, 6))
    assert [b.step for b in together] == list(range(6))
    assert all(_same(a, b) for a, b in zip(alone, together, strict=True))


def test_ranks_share_the_global_batch(mixed: dict[str, Any]) -> None:
    whole = _loader(mixed, shares=SHARES)
    ranks = [_loader(mixed, shares=SHARES, rank=rank, world=2) for rank in range(2)]
    parts = [loader.batches(0, 5) for loader in ranks]
    for batch, *own in zip(whole.batches(0, 5), *parts, strict=True):
        for rank, part in enumerate(own):
            for field in ("origin", "labels", "seeds", "exhaustive"):
                assert getattr(part, field) == getattr(batch, field)[rank::2]
            for mine, theirs in zip(part.views, batch.views[rank::2], strict=True):
                assert torch.equal(mine.pixels, theirs.pixels)
                assert torch.equal(mine.masks, theirs.masks)
    assert whole.skipped == {
        name: sum(loader.skipped.get(name, 0) for loader in ranks) for name in whole.skipped
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_goes_on_at_any_step(mixed: dict[str, Any], workers: int) -> None:
    whole = list(_loader(mixed, shares=SHARES).batches(0, 9))
    resumed = list(_loader(mixed, shares=SHARES, workers=workers).batches(6, 9))
    assert all(_same(a, b) for a, b in zip(whole[6:], resumed, strict=True))


def test_resuming_reads_only_what_it_shows(samples: list[Sample]) -> None:
    asked: list[int] = []

    class Counted(Rows):
        def __getitem__(self, index: Any) -> Any:
            asked.append(index)
            return super().__getitem__(index)

    loader = _loader({"a": Counted(samples)}, view=dataclasses.replace(VIEW, jitter=0.0))
    next(loader.batches(1_000_000))
    assert len(asked) == 4


def test_the_seed_decides_and_the_callers_generator_does_not_move(samples: list[Sample]) -> None:
    state = torch.get_rng_state()
    one = list(_loader({"a": samples}, workers=1).batches(0, 2))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(123)
    assert all(_same(a, b) for a, b in zip(one, _loader({"a": samples}).batches(0, 2), strict=True))
    other = list(_loader({"a": samples}, seed=6).batches(0, 2))
    assert not any(_same(a, b) for a, b in zip(one, other, strict=True))
    assert not {s for b in one for s in b.seeds} & {s for b in other for s in b.seeds}


def test_an_epoch_shows_every_photo_once(samples: list[Sample]) -> None:
    loader = _loader({"a": samples}, view=dataclasses.replace(VIEW, jitter=0.0, min_area=1))
    batches = list(loader.batches(0, 6))
    for epoch in (batches[:3], batches[3:]):
        assert sorted(row for b in epoch for _, row in b.origin) == list(range(12))
    assert [b.origin for b in batches[:3]] != [b.origin for b in batches[3:]]


def test_broken_photos_are_skipped_counted_and_named_once(
    make_sample: Callable[..., Sample], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sound = make_sample(0)
    assert isinstance(sound.encoded, bytes)
    damaged = dataclasses.replace(sound.objects[0], rle=RLE(sound.size, b"0o"))
    rows = [
        sound,
        make_sample(2, data=sound.encoded[:60]),  # cut off
        make_sample(4, data=tmp_path / "nowhere.jpg"),
        make_sample(1, data=sound.encoded),  # a photo of another size
        dataclasses.replace(sound, objects=(damaged,)),
    ]
    loader = _loader({"a": rows}, view=dataclasses.replace(VIEW, jitter=0.0))
    with caplog.at_level(logging.WARNING):
        batches = list(loader.batches(0, 10))
    assert {origin for batch in batches for origin in batch.origin} == {("a", 0)}
    assert {item.row for item in loader.broken} == {1, 2, 3, 4}
    assert len(loader.broken) == 4 == len(caplog.records)
    assert loader.skipped["a"] >= 32  # four fifths of 40 draws, and substitutes
    reasons = {item.row: item.reason for item in loader.broken}
    assert "nowhere.jpg" in reasons[2] and "masks are for (90, 60)" in reasons[3]
    assert "damaged RLE" in reasons[4]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_source_without_a_sound_photo_ends_the_run(workers: int) -> None:
    for source in (Rows([None, None]), Stream([None, None])):
        loader = _loader({"bad": source}, workers=workers)
        with pytest.raises(ValueError, match=r"source 'bad': none of 200 .* 200 are broken"):
            next(loader.batches())


def test_photos_without_a_useful_mask_end_the_run_with_another_reason(
    samples: list[Sample],
) -> None:
    loader = _loader({"a": samples}, view=dataclasses.replace(VIEW, min_area=10_000))
    with pytest.raises(ValueError, match="0 are broken, in 200 no mask of 10000 px"):
        next(loader.batches())


def test_a_fault_of_the_program_is_not_taken_for_a_broken_photo() -> None:
    class Faulty(Rows):
        def __getitem__(self, index: Any) -> Any:
            raise AttributeError("a bug")

    with pytest.raises(AttributeError, match="a bug"):
        next(_loader({"a": Faulty([None])}).batches())


def test_what_does_not_fit_together_is_refused(samples: list[Sample]) -> None:
    stream = Stream(samples)
    assert isinstance(stream, StreamSource)
    with pytest.raises(ValueError, match="no source"):
        _loader({})
    with pytest.raises(ValueError, match="'a' is empty"):
        _loader({"a": []})
    with pytest.raises(ValueError, match=r"shares for \['b'\]; the sources are \['a'\]"):
        _loader({"a": samples}, shares={"b": 1.0})
    with pytest.raises(ValueError, match="has no length"):
        _loader({"a": samples, "s": stream})
    with pytest.raises(ValueError, match="at least one photo for each"):
        _loader({"a": samples}, rank=0, world=5)
    with pytest.raises(ValueError, match="0 <= rank < world"):
        _loader({"a": samples}, rank=2, world=2)
    with pytest.raises(ValueError, match="its stream has no row"):
        next(_loader({"s": Stream([])}).batches())
    with pytest.raises(ValueError, match="photos_per_step=0"):
        LoaderConfig(photos_per_step=0, view=VIEW)


def test_a_stream_goes_through_epochs(samples: list[Sample]) -> None:
    loader = _loader({"s": Stream(samples)}, view=dataclasses.replace(VIEW, jitter=0.0))
    batches = list(itertools.islice(loader.batches(), 6))
    shown = [int(view.pixels[2].min()) for batch in batches for view in batch.views]
    assert sorted(shown[:12]) == sorted(shown[12:]) == list(range(12))
    assert shown[:12] != shown[12:]
