"""Which photos are asked, and the labels that absent phrases are drawn from.

Only photos whose labels are complete can be asked for what is not there: exhaustive ones, and
those that name what they lack (LVIS). A photo without objects counts, too: in a set with a single
label only such photos show how the label's absence looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..data import Sample, Source, SourceSpec, StreamSource, open_source
from ..data.sample import BROKEN
from ..data.source import sound_samples
from ..evaluation.phrases.questions import NAMELESS

# Rows that are searched for labels, for each photo that is asked: a large file's rare labels are
# asked of few photos in any case.
_ROWS_PER_PHOTO = 20


@dataclass(frozen=True, kw_only=True)
class CalibrationSet:
    """Photos of one source."""

    name: str  # name of the source
    samples: tuple[Sample, ...]  # the photos; the labels in `vocabulary` of each are complete
    labels: tuple[str, ...]  # all labels of the rows that were read, sorted

    def vocabulary(self, sample: Sample) -> tuple[str, ...]:
        """Labels that the photo could have been given; where it names what it lacks, those."""
        return sample.absent or self.labels


def open_sets(specs: Sequence[str], *, photos: int, seed: int) -> list[CalibrationSet]:
    """Open sources as `training.data.open_source` names them, and draw photos of each."""
    sets: list[CalibrationSet] = []
    parsed = [SourceSpec.parse(spec) for spec in specs]
    for place, spec in enumerate(specs):
        if parsed[place] in parsed[:place]:
            raise ValueError(f"{spec} is given twice; its photos would count double")
        source = open_source(parsed[place])
        name = str(getattr(source, "name", spec))
        if any(item.name == name for item in sets):
            name = spec  # voc.parquet of two folders
        sets.append(choose_photos(source, name=name, photos=photos, seed=seed))
    return sets


def choose_photos(
    source: Source | StreamSource, *, name: str, photos: int, seed: int
) -> CalibrationSet:
    """Draw photos of a source."""
    limit = _ROWS_PER_PHOTO * photos
    labels: set[str] = set()
    chosen: list[Sample] = []
    looked = 0
    for sample in _drawn(source, limit=limit, seed=seed):
        looked += 1
        named = tuple(o for o in sample.objects if o.label.strip())
        labels |= {o.label for o in named if not o.ignore} - NAMELESS
        if len(chosen) < photos and (sample.exhaustive or sample.absent):
            chosen.append(replace(sample, exhaustive=True, objects=named))
    if not labels:
        raise ValueError(
            f"{name}: none of the {looked} photos looked at has an object with a name; a "
            "calibration asks for the names of objects"
        )
    if not chosen:
        raise ValueError(
            f"{name}: none of the {looked} photos looked at is exhaustive, so nothing says what is "
            "absent. Where every label was looked for in every photo, say so: "
            "coco:INSTANCES.json@IMAGES?exhaustive=true, or the column `exhaustive` of a Parquet "
            "file"
        )
    return CalibrationSet(name=name, samples=tuple(chosen), labels=tuple(sorted(labels)))


def _drawn(source: Source | StreamSource, *, limit: int, seed: int) -> Iterator[Sample]:
    """Sound samples in a random order, of at most `limit` rows."""
    if isinstance(source, StreamSource):
        for looked, sample in enumerate(sound_samples(source, seed=seed), start=1):
            yield sample
            if looked == limit:
                return
        return
    # Rows of a file are read in its order, many times faster than at random; a handful at a time,
    # so that the first photos, which are asked, are drawn from all of the file.
    order = np.random.default_rng(seed).permutation(len(source))[:limit]
    handful = limit // _ROWS_PER_PHOTO
    for start in range(0, len(order), handful):
        for index in sorted(order[start : start + handful].tolist()):
            try:
                yield source[index]
            except BROKEN:
                continue
