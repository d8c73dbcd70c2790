"""What a recipe's `--data` names: sources, each with a share of the photos if one is given.

    --data voc.parquet
    --data "parquet:voc.parquet?share=0.7" "coco:instances.json@photos/?exhaustive=true&share=0.3"

A share is one more option of a source's line (`training.data.specs`). Either all sources have one
or none has; without shares each photo is as likely as any other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from textsam.values.rle import rle_area

from ..data import Sample, Source, SourceSpec, StreamSource, open_source
from ..data.sample import BROKEN, upright_size
from ..data.source import NoMasksError
from ..evaluation.data_sets import evenly_spaced

# Photos of a large set that are looked at for a mask before a run begins.
_LOOKED_AT = 1000

_SHARE = re.compile(r"(?<=[?&])share=([^&]*)(&|$)")


@dataclass(frozen=True, kw_only=True)
class DataMix:
    """Sources by name."""

    sources: Mapping[str, Source | StreamSource | Sequence[Sample]]  # as the loader takes them
    shares: Mapping[str, float] | None = None  # weight of each, or None: by their lengths
    kinds: tuple[str, ...] = ()  # kind of each (parquet, coco, sa1b, ...)

    def describe(self) -> str:
        """Names and lengths, which tell one mix from another."""
        lengths = {
            name: "stream" if isinstance(source, StreamSource) else len(source)
            for name, source in self.sources.items()
        }
        return f"sources {lengths}"

    def rows(self) -> dict[str, Source | Sequence[Sample]]:
        """The sources, which have rows by number."""
        rows: dict[str, Source | Sequence[Sample]] = {}
        for name, source in self.sources.items():
            if isinstance(source, StreamSource):
                raise ValueError(f"{name!r} is a stream; wanted a source with rows by number")
            rows[name] = source
        return rows


def read_share(text: str) -> tuple[str, float | None]:
    """A source's line without its `share=`, and that share, if it has one."""
    match = _SHARE.search(text)
    if match is None:
        return text, None
    try:
        share = float(match[1])
    except ValueError:
        share = math.nan
    if not 0 < share < math.inf:
        raise ValueError(f"{text!r}: share={match[1]!r}; wanted a positive number, e.g. share=0.3")
    return (text[: match.start()] + text[match.end() :]).rstrip("?&"), share


def open_mix(specs: Sequence[str]) -> DataMix:
    """Open every source that `--data` names.

    All lines are read before the first source is opened, so that a mistake in the last one does not
    wait for the annotations of the first.
    """
    if not specs:
        raise ValueError("no data. Type: --data FILE.parquet, or see docs/training.md for others")
    read = [read_share(text) for text in specs]
    unshared = [text for text, (_, share) in zip(specs, read, strict=True) if share is None]
    if unshared and len(unshared) < len(specs):
        raise ValueError(
            f"{unshared[0]!r} has no share, but others have. Give all of them one, e.g. "
            '"parquet:a.parquet?share=0.7" "parquet:b.parquet?share=0.3", or none'
        )
    parsed = [SourceSpec.parse(text) for text, _ in read]
    opened = [open_source(spec) for spec in parsed]
    sources: dict[str, Source | StreamSource] = {}
    shares: dict[str, float] = {}
    for text, (_, share), source in zip(specs, read, opened, strict=True):
        name = str(getattr(source, "name", text))
        if name in sources:
            raise ValueError(
                f"two sources are called {name!r}, the second is {text!r}. Name it: "
                "parquet:FILE?name=another"
            )
        sources[name] = source
        if share is not None:
            shares[name] = share
    for name, source in sources.items():
        check_masks(name, source)
    kinds = tuple(spec.kind for spec in parsed)
    return DataMix(sources=sources, shares=shares or None, kinds=kinds)


def check_masks(name: str, source: Source | StreamSource | Sequence[Sample]) -> None:
    """Raise a `NoMasksError` if a source has no mask to train on; a stream is not looked at.

    It reads photos from the first on until one has a mask, and evenly spread ones of a large set.
    """
    if isinstance(source, StreamSource):
        return
    if not len(source):
        raise NoMasksError(f"{name} has no photo; wanted photos with masks")
    broken: list[str] = []
    ignored = bare = 0
    rows = evenly_spaced(len(source), _LOOKED_AT)
    for row in rows:
        try:
            sample = source[row]
            upright_size(sample.encoded)
        except BROKEN as error:
            broken.append(" ".join(str(error).split()))
            continue
        if any(not item.ignore and rle_area(item.rle) for item in sample.objects):
            return
        ignored += bool(sample.objects)
        bare += not sample.objects
    what = [
        f"{len(broken)} cannot be read (the first: {broken[0]})" if broken else "",
        f"{ignored} have only crowds, boxes or empty masks" if ignored else "",
        f"{bare} have no annotation" if bare else "",
    ]
    describe = getattr(source, "describe_lack", None)
    raise NoMasksError(
        f"{name}: none of {len(rows)} photos can be trained on: {', '.join(filter(None, what))}"
        + ("" if describe is None else f"; {describe()}")
        + ". Wanted masks of single things; textsam.tasks.instances makes them of boxes"
    )


class SomeRows(Sequence[Sample]):
    """Some rows of a source, in a given order."""

    def __init__(self, source: Source | Sequence[Sample], rows: Sequence[int]) -> None:
        self.source = source
        self.rows = tuple(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        return self.source[self.rows[index]]


def split_mix(mix: DataMix, *, share: float, seed: int) -> tuple[DataMix, list[Sample]]:
    """Hold out a share of each source's photos; which ones, the seed and its name decide.

    Returns:
        The mix without them, and those of them whose photo can be read, from all sources in turn.
    """
    if not share:
        return mix, []
    kept: dict[str, SomeRows] = {}
    parts: list[list[Sample]] = []
    for name, source in mix.sources.items():
        if isinstance(source, StreamSource):
            raise ValueError(
                f"{name!r} is a stream, of which no photos can be held out. Type: --held-out 0"
            )
        count = len(source)
        if count < 2:
            raise ValueError(
                f"{name!r} has {count} photos; to hold one out it takes two. Type: --held-out 0"
            )
        # By name, so that adding a source holds out the same photos of the others.
        order = np.random.default_rng((seed, crc32(name.encode()))).permutation(count).tolist()
        out = min(count - 1, max(1, round(share * count)))
        kept[name] = SomeRows(source, sorted(order[out:]))
        parts.append([sample for row in order[:out] if (sample := _sound(source, row)) is not None])
    longest = max(len(part) for part in parts)
    mixed = [part[i] for i in range(longest) for part in parts if i < len(part)]
    return DataMix(sources=kept, shares=mix.shares, kinds=mix.kinds), mixed


def _sound(source: Source | Sequence[Sample], row: int) -> Sample | None:
    try:
        sample = source[row]
        sample.image()
        return sample if any(not item.ignore for item in sample.objects) else None
    except BROKEN:
        return None
