"""Search by text and by mask: precision@10 by label, within a data set and across sets.

    python -m training.evaluation.search dev/voc_val.parquet dev/coco_mval.parquet --masks 150

Annotated masks are embedded (`textsam.search.embed`) and ranked by exact cosine, so that the
vectors are measured and no index. A mask is right if it carries the query's label. Two baselines
stand beside them: CLIP of the box around each mask, cut out and not masked, which is what tools
that embed boxes do; and chance, the expectation of a random order.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from textsam.clip.mask_crops import crop_batches
from textsam.search.embed import Embedder
from textsam.values.rle import RLE, rle_area

from ..data import Sample
from .command import EvaluationOptions, load_model, progress, run_command, write_report
from .data_sets import BadInputError, DataSet, read_sets, seeded_rng
from .figures.intervals import Interval, Score, mean_interval, paired_interval
from .figures.result_table import show_table
from .figures.retrieval import DEPTH, MaskVectorTable, chance_of, queries_of, ranked
from .phrases.questions import NAMELESS

# What is searched with, in the order of the table.
_MASKED, _CROPS, _PHOTO, _BOX = "masked CLIP", "SAM crops", "SAM photo", "box CLIP"
CHANCE = "chance"
TASKS = ("text", "mask", "mask, other sets")
_BOX_BATCH = 32

# Vectors (n, D) of masks of a photo.
Method = Callable[[npt.NDArray[np.uint8], Sequence[RLE]], npt.NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Settings."""

    minimum: ClassVar[Mapping[str, int]] = {"masks": 2, "min_area": 0}

    # Embed only this many masks of each set, drawn with the seed; some two seconds per mask on one
    # core with tiny.
    masks: int | None = None
    min_area: int = 0  # Leave out masks of fewer pixels
    seed: int = 0  # Of the draw and of the intervals


@dataclass(frozen=True, kw_only=True)
class SearchOptions(SearchConfig, EvaluationOptions):
    """Measure search: precision@10 by label of phrases and masks that look for masks.

    In masked CLIP and in the SAM's latents, beside CLIP of boxes and beside chance.
    """


def methods_of(model: Any) -> dict[str, Method]:
    """What is measured, by name; the last one is the baseline."""
    clip = model.parts.require_clip()

    def by(embedder: Embedder) -> Method:
        return lambda image, rles: next(iter(embedder.masks(image, list(rles)).vectors.values()))

    def boxes(image: npt.NDArray[np.uint8], rles: Sequence[RLE]) -> npt.NDArray[np.float32]:
        # No margin: tools that embed boxes cut them out exactly.
        batches = crop_batches([(image, rles)], size=clip.image_size, expand=1.0, batch=_BOX_BATCH)
        return np.concatenate([clip.encode_crops(crops).cpu().numpy() for crops, _ in batches])

    return {
        _MASKED: by(Embedder(model, spaces=["clip"])),
        _CROPS: by(Embedder(model, spaces=["sam"], latents="crops")),
        _PHOTO: by(Embedder(model, spaces=["sam"], latents="photo")),
        _BOX: boxes,
    }


def embed_sets(
    model: Any, sets: Sequence[DataSet], *, config: SearchConfig, methods: Mapping[str, Method]
) -> tuple[MaskVectorTable, dict[str, float]]:
    """Embed the masks of all sets, and their labels as phrases.

    Returns:
        The vectors, and seconds per mask by method, without decoding the photo.
    """
    rows: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    known: list[tuple[str, str, str]] = []
    for each in sets:
        places = _places(each, config)
        for index, sample in enumerate(progress(each.samples, each.name)):
            objects = [sample.objects[place] for place in places.get(index, ())]
            if not objects:
                continue
            image = sample.image()
            for name, embed in methods.items():
                started = time.perf_counter()
                rows[name].append(embed(image, [item.rle for item in objects]))
                seconds[name] += time.perf_counter() - started
            photo = f"{each.name}/{sample.image_id}"
            known += [(each.name, photo, item.label) for item in objects]
    if not known:
        raise BadInputError("no mask of these sets has a name, so there is no right answer")
    names, photos, labels = (np.array(column) for column in zip(*known, strict=True))
    clip = model.parts.require_clip()
    phrases = np.unique(labels).tolist()
    texts = dict(zip(phrases, clip.encode_text(phrases).cpu().numpy(), strict=True))
    data = MaskVectorTable(
        sets=names,
        photos=photos,
        labels=labels,
        vectors={name: np.concatenate(parts) for name, parts in rows.items()},
        texts={name: texts for name in (_MASKED, _BOX) if name in methods},
    )
    return data, {name: total / len(known) for name, total in seconds.items()}


def _places(data: DataSet, config: SearchConfig) -> dict[int, list[int]]:
    """Places of the objects that are embedded, by the photo's place."""
    every = [
        (index, place)
        for index, sample in enumerate(data.samples)
        for place in _named(sample, config.min_area)
    ]
    if config.masks is not None and len(every) > config.masks:
        drawn = seeded_rng(config.seed, data.name).choice(len(every), config.masks, replace=False)
        every = [every[number] for number in sorted(drawn)]
    places: dict[int, list[int]] = {}
    for index, place in every:
        places.setdefault(index, []).append(place)
    return places


def _named(sample: Sample, min_area: int) -> Iterable[int]:
    """Places of the objects that have a name and enough pixels."""
    for place, item in enumerate(sample.objects):
        large = rle_area(item.rle) >= max(1, min_area)
        if large and not item.ignore and item.label not in NAMELESS:
            yield place


def measure_task(
    data: MaskVectorTable, task: str, name: str, *, seed: int
) -> dict[str, Any] | None:
    """Precision@10 of every method and of chance, a mean over labels.

    Returns:
        `set`, `task`, `labels`, `queries`, `gallery` (mean size), `ways` (mean and interval by
        method), `differences` (of each method to the box baseline), `items` (by method and label);
        None if there is no query with an answer.
    """
    queries = queries_of(data, task, name)
    if not queries:
        return None
    methods = data.texts if task == "text" else data.vectors
    scores: dict[str, list[Score]] = {method: ranked(data, queries, method) for method in methods}
    scores[CHANCE] = chance_of(data, queries)
    return {
        "set": name,
        "task": task,
        "labels": len(scores[CHANCE]),
        "queries": len(queries),
        "gallery": float(np.mean([len(query.gallery) for query in queries])),
        "ways": {method: mean_interval(own, seed=seed) for method, own in scores.items()},
        "differences": {
            method: paired_interval(own, scores[_BOX], seed=seed)
            for method, own in scores.items()
            if method != _BOX and _BOX in scores
        },
        "items": {method: {s.object: s.value for s in own} for method, own in scores.items()},
    }


def _show(
    measured: Sequence[Mapping[str, Any]], seconds: Mapping[str, float], *, model: str
) -> None:
    def figure(value: Interval | None, sign: str = "", middle: str = "-") -> str:
        if value is None:
            return "-"
        return f"{value.mean:{sign}.3f}\n{value.low:{sign}.2f}{middle}{value.high:{sign}.2f}"

    methods = [*seconds, CHANCE]
    rows = [
        [
            *(row["set"], row["task"], str(row["labels"]), str(row["queries"])),
            f"{row['gallery']:.0f}",
            *(figure(row["ways"].get(method)) for method in methods),
            figure(row["differences"].get(_MASKED), "+", " to "),
        ]
        for row in measured
    ]
    columns = ["set", "query", "labels", "queries", "searched", *methods, f"{_MASKED} - {_BOX}"]
    times = ", ".join(f"{method} {value:.2f}" for method, value in seconds.items())
    notes = [
        f"precision of the first {DEPTH}, or of the first R where R < {DEPTH} masks are right: "
        "mean over labels, beneath it the 95% interval (bootstrap over labels)",
        "text: a label, in its set; mask: a mask, in the other photos of its set; mask, other "
        "sets: a mask, in the photos of all other sets",
        f"{_BOX}: the square around the box, not masked; {CHANCE}: a random order's expectation",
        f"seconds per mask: {times}",
    ]
    show_table(f"Search, model {model}", columns, rows, notes=notes, width=170)


def _run(options: SearchOptions) -> None:
    sets = read_sets(options.data, limit=options.limit)
    model = load_model(options.model)
    data, seconds = embed_sets(model, sets, config=options, methods=methods_of(model))
    rows = (
        measure_task(data, task, each.name, seed=options.seed) for task in TASKS for each in sets
    )
    measured = [row for row in rows if row is not None]
    write_report(options, measured, seconds_per_mask=seconds)
    _show(measured, seconds, model=options.model)


main = partial(run_command, SearchOptions, _run)

if __name__ == "__main__":
    sys.exit(main())
