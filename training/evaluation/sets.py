"""What is measured: Parquet files, and sources named in a line (`training/data/specs.py`)."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

from textsam.errors import ImageError, MissingExtraError

from ..data import Sample, Source, StreamSource, is_spec, load_samples, open_source
from ..data.sample import BROKEN, upright_size
from .clicks.protocol import evenly_spaced

__all__ = ["BadInputError", "DataSet", "known_labels", "read_sets"]

T = TypeVar("T")

# What a row of another schema raises, beside what a broken one does.
_OTHER_SCHEMA = (KeyError, TypeError, AttributeError)


class BadInputError(Exception):
    """The command cannot start; the message is the one line that its user reads."""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One Parquet file, or one source.

    Attributes:
        name: The file's stem, with its folder's name before it if two files share a stem; or the
            source's name, or its whole line if two share that.
        path: The file, or the line that names the source.
        samples: The photos to measure.
        labels: Every label of the set, also of photos that are not measured, sorted. A source that
            does not say which it has gives those of the photos that are measured.
        broken: Photos that were to be measured and are left out.
    """

    name: str
    path: Path | str
    samples: tuple[Sample, ...]
    labels: tuple[str, ...]
    broken: int = 0


def read_sets(data: Iterable[Path | str], *, limit: int | None = None) -> list[DataSet]:
    """Read every set before anything is measured, so that a bad one costs no time.

    Of a source only the annotations of the photos to measure are read, and no photo is decoded.
    Broken photos are left out; a line on stderr counts them.

    Args:
        data: Parquet files, and lines like `voc:VOCdevkit/?split=val`.
        limit: Photos to measure of each set, spread evenly over it; of a stream the first ones.

    Raises:
        BadInputError: No such file or folder, a file of another schema, no sound photo among those
            to measure, or a stream without a limit.
    """
    sets = []
    for item in data:
        spec = is_spec(str(item))
        sets.append(_of_source(str(item), limit) if spec else _of_file(Path(item), limit))
    names = Counter(each.name for each in sets)
    return [each if names[each.name] == 1 else replace(each, name=_long(each)) for each in sets]


def known_labels(spec: str) -> tuple[str, ...]:
    """The labels that a source says it has, sorted, without reading a photo; none if it is silent.

    Raises:
        BadInputError: The source cannot be opened.
    """
    return tuple(sorted(_said(_open(spec))))


def _of_file(path: Path, limit: int | None) -> DataSet:
    every = _read(path)
    indices = evenly_spaced(len(every), limit)
    samples, broken = _sound(path.stem, indices, every.__getitem__)
    labels = sorted({o.label for sample in every for o in sample.objects} - {""})
    return DataSet(name=path.stem, path=path, samples=samples, labels=tuple(labels), broken=broken)


def _of_source(spec: str, limit: int | None) -> DataSet:
    source = _open(spec)
    name = str(getattr(source, "name", spec))
    if not isinstance(source, StreamSource):
        indices = evenly_spaced(len(source), limit)
        samples, broken = _sound(name, indices, source.__getitem__)
    elif limit is None:
        raise BadInputError(f"{spec} is a stream and has no end that is known. Add --limit N")
    else:
        samples, broken = _sound(name, islice(source.rows(seed=0, epoch=0), limit), source.sample)
    seen = {o.label for sample in samples for o in sample.objects} - {""}
    labels = tuple(sorted(seen | _said(source)))
    return DataSet(name=name, path=spec, samples=samples, labels=labels, broken=broken)


def _open(spec: str) -> Source | StreamSource:
    try:
        return open_source(spec)
    except (OSError, ValueError, MissingExtraError) as error:
        raise BadInputError(_naming(spec, error)) from error


def _read(path: Path) -> list[Sample]:
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
        raise BadInputError(_naming(str(path), error)) from error


def _naming(what: str, error: Exception) -> str:
    """What an error says, with what it is about."""
    reason = str(error)
    return reason if what in reason else f"cannot read {what}: {reason}"


def _sound(
    name: str, rows: Iterable[T], read: Callable[[T], Sample]
) -> tuple[tuple[Sample, ...], int]:
    """The samples of some rows without broken ones, and how many those are; says so on stderr."""
    samples: list[Sample] = []
    reasons: list[str] = []
    try:
        for row in rows:
            try:
                samples.append(_checked(read(row)))
            except (*BROKEN, *_OTHER_SCHEMA) as error:
                reasons.append(str(error))
    except BROKEN as error:  # of the rows themselves: a stream that breaks off
        raise BadInputError(_naming(name, error)) from error
    if reasons and not samples:
        raise BadInputError(
            f"{name}: all {len(reasons)} photos are broken; the first: {reasons[0]}"
        )
    if reasons:
        count = len(samples) + len(reasons)
        note = f"{name}: {len(reasons)} of {count} photos are broken and left out; the first: "
        print(" ".join((note + reasons[0]).split()), file=sys.stderr)
    return tuple(samples), len(reasons)


def _checked(sample: Sample) -> Sample:
    """The sample, if the head of its photo's file says that it has the masks' size."""
    size = upright_size(sample.encoded)
    if size != tuple(sample.size):
        raise ImageError(
            f"photo {sample.image_id!r} is {size} (height, width) upright; its masks are for "
            f"{tuple(sample.size)}"
        )
    return sample


def _said(source: Source | StreamSource) -> set[str]:
    """The labels that a source says it has."""
    labels = getattr(source, "labels", ())
    return {str(label) for label in (labels.values() if isinstance(labels, Mapping) else labels)}


def _long(data: DataSet) -> str:
    """A name that tells a set from another one of its name."""
    if isinstance(data.path, Path):
        return f"{data.path.resolve().parent.name}/{data.name}"
    return data.path
