"""What is measured: Parquet files, and sources named in a line (`training/data/specs.py`)."""

from __future__ import annotations

import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from textsam.errors import ImageError, MissingExtraError

from ..data import Sample, Source, StreamSource, is_spec, load_samples, open_source
from ..data.plan import is_kept_out
from ..data.sample import BROKEN, upright_size

T = TypeVar("T")

# What a row of another schema raises, beside what a broken one does.
_OTHER_SCHEMA = (KeyError, TypeError, AttributeError)


class BadInputError(Exception):
    """The command cannot start; the message is the one line that its user reads."""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One Parquet file, or one source."""

    # The file's stem, with its folder's name before it if two files share a stem; or the source's
    # name, or its whole line if two share that.
    name: str
    path: Path | str  # the file, or the line that names the source
    samples: tuple[Sample, ...]  # the photos to measure
    # Every label of the set, also of photos that are not measured, sorted. A source that does not
    # list its labels gives those of the photos that are measured.
    labels: tuple[str, ...]
    broken: int = 0  # number of photos that could not be read and are left out


def read_sets(
    data: Iterable[Path | str], *, limit: int | None = None, kept_out: bool = False
) -> list[DataSet]:
    """Read every set before anything is measured, so that a bad one costs no time.

    Of a source only the annotations of the photos to measure are read, and no photo is decoded.
    Broken photos are left out; a line on stderr counts them. With `kept_out` only the rows of a
    file that the training of `tiny` leaves out are read.
    """
    return with_unique_names(
        _read_source(str(item), limit)
        if is_spec(str(item))
        else _read_file(Path(item), limit, kept_out)
        for item in data
    )


def with_unique_names(sets: Iterable[Any]) -> list[Any]:
    """Sets with `name` and `path`; where two share a name, it says which is which."""
    every = list(sets)
    # Only names that occur twice become long.
    names = Counter(each.name for each in every)
    return [
        each if names[each.name] == 1 else replace(each, name=_long_name(each)) for each in every
    ]


def known_labels(spec: str) -> tuple[str, ...]:
    """The labels that a source lists, sorted, without reading a photo; empty if it lists none."""
    return tuple(sorted(_listed_labels(_open_spec(spec))))


def evenly_spaced(count: int, limit: int | None) -> list[int]:
    """At most `limit` of `count` indices, spread evenly, since files are often sorted by class."""
    if limit is None or limit >= count:
        return list(range(count))
    return [index * count // limit for index in range(limit)]


def seeded_rng(seed: int, key: str) -> np.random.Generator:
    """Random numbers that depend on the seed and a photo's id, not on the photo's place."""
    return np.random.default_rng([seed, zlib.crc32(key.encode())])


def report_broken(name: str, reasons: Sequence[str], *, sound: int) -> None:
    """Say on stderr how many photos are left out, and why the first one is."""
    if reasons and not sound:
        raise BadInputError(
            f"{name}: all {len(reasons)} photos are broken; the first: {reasons[0]}"
        )
    if reasons:
        count = sound + len(reasons)
        note = f"{name}: {len(reasons)} of {count} photos are broken and left out; the first: "
        print(" ".join((note + reasons[0]).split()), file=sys.stderr)


def _read_file(path: Path, limit: int | None, kept_out: bool) -> DataSet:
    every = _load_file(path)
    if kept_out:
        every = [sample for row, sample in enumerate(every) if is_kept_out(row)]
    indices = evenly_spaced(len(every), limit)
    samples, broken = _sound_samples(path.stem, indices, every.__getitem__)
    _check_objects(path.stem, samples, every)
    labels = sorted({o.label for sample in every for o in sample.objects} - {""})
    return DataSet(name=path.stem, path=path, samples=samples, labels=tuple(labels), broken=broken)


def _read_source(spec: str, limit: int | None) -> DataSet:
    source = _open_spec(spec)
    name = str(getattr(source, "name", spec))
    if not isinstance(source, StreamSource):
        indices = evenly_spaced(len(source), limit)
        samples, broken = _sound_samples(name, indices, source.__getitem__)
    elif limit is None:
        raise BadInputError(f"{spec} is a stream and has no end that is known. Add --limit N")
    else:
        # Always the stream's first epoch, so that two runs measure the same photos.
        rows = islice(source.rows(seed=0, epoch=0), limit)
        samples, broken = _sound_samples(name, rows, source.sample)
    _check_objects(name, samples, source)
    labels = {o.label for sample in samples for o in sample.objects} - {""}
    labels |= _listed_labels(source)
    return DataSet(
        name=name, path=spec, samples=samples, labels=tuple(sorted(labels)), broken=broken
    )


def _open_spec(spec: str) -> Source | StreamSource:
    try:
        return open_source(spec)
    except (OSError, ValueError, MissingExtraError) as error:
        raise BadInputError(_with_name(spec, error)) from error


def _load_file(path: Path) -> list[Sample]:
    if not path.exists():
        kind, colon, _ = str(path).partition(":")
        hint = f"; and {kind!r} is no kind of source: --help names them" if colon else ""
        raise BadInputError(f"there is no file {path}{hint}")
    if path.is_dir():
        raise BadInputError(f"{path} is a folder; name the Parquet files in it: {path}/*.parquet")
    try:
        return load_samples([path])
    except _OTHER_SCHEMA as error:
        raise BadInputError(
            f"{path} is not in the schema of training/data/parquet.py "
            f"({type(error).__name__}: {error})"
        ) from error
    except (OSError, ValueError) as error:  # pyarrow's errors are among these two
        raise BadInputError(_with_name(str(path), error)) from error


def _with_name(what: str, error: Exception) -> str:
    """An error's message, with the name of what it is about."""
    reason = str(error)
    return reason if what in reason else f"cannot read {what}: {reason}"


def _sound_samples(
    name: str, rows: Iterable[T], read: Callable[[T], Sample]
) -> tuple[tuple[Sample, ...], int]:
    """The samples of some rows without broken ones, and the number of those."""
    samples: list[Sample] = []
    reasons: list[str] = []
    try:
        for row in rows:
            try:
                sample = read(row)
                _check_size(sample)
                samples.append(sample)
            except (*BROKEN, *_OTHER_SCHEMA) as error:
                reasons.append(str(error))
    except BROKEN as error:  # of the rows themselves: a stream that breaks off
        raise BadInputError(_with_name(name, error)) from error
    report_broken(name, reasons, sound=len(samples))
    return tuple(samples), len(reasons)


def _check_objects(name: str, samples: Sequence[Sample], source: object) -> None:
    """Refuse a set in which nothing can be measured, in place of a table without a number.

    Photos in which every label of the set is known to be absent can be asked for them.
    """
    if not samples:
        raise BadInputError(f"{name} has no photo")
    measurable = (
        sample.exhaustive or sample.absent or any(not item.ignore for item in sample.objects)
        for sample in samples
    )
    if any(measurable):
        return
    only = sum(bool(sample.objects) for sample in samples)
    describe = getattr(source, "describe_lack", None)
    raise BadInputError(
        f"{name}: no object to measure in {len(samples)} photos: {only} have only crowds or boxes, "
        f"{len(samples) - only} no annotation" + ("" if describe is None else f"; {describe()}")
    )


def _check_size(sample: Sample) -> None:
    """Compare the size in the header of the photo's file with that of its masks."""
    size = upright_size(sample.encoded)
    if size != tuple(sample.size):
        raise ImageError(
            f"photo {sample.image_id!r} is {size} (height, width) upright; its masks are for "
            f"{tuple(sample.size)}"
        )


def _listed_labels(source: Source | StreamSource) -> set[str]:
    labels = getattr(source, "labels", ())
    return {str(label) for label in (labels.values() if isinstance(labels, Mapping) else labels)}


def _long_name(data: Any) -> str:
    """A name that tells a set from another one with the same short name."""
    if isinstance(data.path, Path):
        return f"{data.path.resolve().parent.name}/{data.name}"
    return str(data.path)
