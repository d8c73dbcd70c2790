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
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from textsam.clip.mask_crops import crop_batches
from textsam.search.embed import Embedder
from textsam.values.rle import RLE

from .command import EvaluationOptions, load_model, progress, run_command, write_report
from .data_sets import BadInputError, DataSet, read_sets, seeded_rng
from .figures.intervals import Interval, Score, mean_interval, paired_interval
from .figures.result_table import show_table
from .phrases.questions import NAMELESS

# What is searched with, in the order of the table.
_MASKED, _CROPS, _PHOTO, _BOX = "masked CLIP", "SAM crops", "SAM photo", "box CLIP"
CHANCE = "chance"
TASKS = ("text", "mask", "mask, other sets")
_BOX_BATCH = 32
DEPTH = 10

# Vectors (n, D) of masks of a photo.
Method = Callable[[npt.NDArray[np.uint8], Sequence[RLE]], npt.NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Settings."""

    minimum: ClassVar[Mapping[str, int]] = {"masks": 2}

    # Embed only this many masks of each set, drawn with the seed; some two seconds per mask on one
    # core with tiny.
    masks: int | None = None
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


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskVectorTable:
    """Masks of all sets and their vectors."""

    sets: npt.NDArray[np.str_]  # (N,) name of the set
    photos: npt.NDArray[np.str_]  # (N,) name of the photo, with its set's
    labels: npt.NDArray[np.str_]  # (N,) label
    vectors: Mapping[str, npt.NDArray[np.float32]]  # by embedding method, (N, D) of length 1
    # By those methods that a phrase can be compared with: label -> (D,) of length 1.
    texts: Mapping[str, Mapping[str, npt.NDArray[np.float32]]]


@dataclass(frozen=True, kw_only=True, eq=False)
class RankedQuery:
    """One question and what is searched for it."""

    label: str  # what counts as right
    row: int | None  # the mask that is the query; None for a phrase
    gallery: npt.NDArray[np.int64]  # rows that are searched, at least one of them right


def queries_of(data: MaskVectorTable, task: str, name: str) -> list[RankedQuery]:
    """The queries of a task about a set; those without a right row in the gallery are left out.

    "text": each label of the set, in the set. "mask": each mask, in the set without the query's own
    photo. "mask, other sets": each mask of the set, in all other sets.
    """
    own, others = np.flatnonzero(data.sets == name), np.flatnonzero(data.sets != name)
    queries: list[RankedQuery]
    if task == "text":
        labels = np.unique(data.labels[own])
        queries = [RankedQuery(label=str(c), row=None, gallery=own) for c in labels]
    elif task in ("mask", "mask, other sets"):
        queries = []
        for row in own.tolist():
            gallery = others
            # The query's own photo is left out: its other masks share light, camera and scene.
            if task == "mask":
                gallery = own[data.photos[own] != data.photos[row]]
            queries.append(RankedQuery(label=str(data.labels[row]), row=row, gallery=gallery))
    else:
        raise ValueError(f"task {task!r}; wanted 'text', 'mask' or 'mask, other sets'")
    return [q for q in queries if (data.labels[q.gallery] == q.label).any()]


def precision(cosines: npt.NDArray[np.float32], right: npt.NDArray[np.bool_]) -> float:
    """Share of right ones among the first 10, or among the first R if only R < 10 are right.

    Without that bound no ranking could reach 1 for a label with few masks. Cosines with the query
    are (M,), and so is what is right, with at least one true.
    """
    depth = min(DEPTH, int(right.sum()))
    first = np.argsort(-cosines, kind="stable")[:depth]
    return float(right[first].mean())


def chance_of(data: MaskVectorTable, queries: Iterable[RankedQuery]) -> list[Score]:
    """The expected precision of a random order: the share of right ones in the gallery."""
    return label_scores(
        (query.label, float((data.labels[query.gallery] == query.label).mean()))
        for query in queries
    )


def ranked(data: MaskVectorTable, queries: Sequence[RankedQuery], method: str) -> list[Score]:
    """Precision of one embedding method, a mean for each label."""
    vectors = data.vectors[method]
    values = []
    for query in queries:
        vector = data.texts[method][query.label] if query.row is None else vectors[query.row]
        right = data.labels[query.gallery] == query.label
        values.append((query.label, precision(vectors[query.gallery] @ vector, right)))
    return label_scores(values)


def label_scores(values: Iterable[tuple[str, float]]) -> list[Score]:
    """One score per label, the mean of its queries: 100 people count no more than 3 forks.

    The label stands in the place of the photo, so that intervals are about other labels.
    """
    by_label: dict[str, list[float]] = defaultdict(list)
    for label, value in values:
        by_label[label].append(value)
    return [
        Score(photo=label, object=label, value=float(np.mean(own)))
        for label, own in sorted(by_label.items())
    ]


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
    """Places of the objects that are embedded, by the photo's place: all with a name and pixels."""
    every = [
        (index, place)
        for index, sample in enumerate(data.samples)
        for place, item in enumerate(sample.objects)
        if not (item.ignore or item.label in NAMELESS or item.rle.is_empty)
    ]
    if config.masks is not None and len(every) > config.masks:
        drawn = seeded_rng(config.seed, data.name).choice(len(every), config.masks, replace=False)
        every = [every[number] for number in sorted(drawn)]
    places: dict[int, list[int]] = {}
    for index, place in every:
        places.setdefault(index, []).append(place)
    return places


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
