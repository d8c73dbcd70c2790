"""Search by text and by mask: precision@10 by label, within a data set and across sets.

    python -m training.evaluation.search dev/voc_val.parquet dev/coco_mval.parquet --masks 150

Annotated masks are embedded (`textsam.search.embed`) and ranked by exact cosine, so that the
vectors are measured and no index. A mask is right if it carries the query's label. Two baselines
stand beside them: CLIP of the box around each mask, cut out and not masked, which is what tools
that embed boxes do; and chance, what a random order is expected to reach.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from textsam.clip.mask_crops import crop_batches
from textsam.errors import TextSamError
from textsam.inference.photo.phrase_map import require_clip
from textsam.search.embed import Embedder
from textsam.values.rle import RLE, rle_area

from ..data import Sample
from .clicks.protocol import seeded_rng
from .figures.bootstrap import Score, mean_interval, paired_interval
from .figures.retrieval import DEPTH, Embedded, chance_of, queries_of, ranked
from .phrases.questions import NAMELESS
from .table import (
    BadInputError,
    DataSet,
    add_common_options,
    at_least,
    check_output,
    complain,
    load_model,
    progress,
    read_sets,
    show_table,
    write_report,
)

__all__ = ["CHANCE", "TASKS", "SearchConfig", "embed_sets", "main", "measure_task", "ways_of"]

# What is searched with, in the order of the table.
_MASKED, _CROPS, _PHOTO, _BOX = "masked CLIP", "SAM crops", "SAM photo", "box CLIP"
CHANCE = "chance"
TASKS = ("text", "mask", "mask, other sets")
_BOX_BATCH = 32

# Vectors (n, D) of masks of a photo.
Way = Callable[[npt.NDArray[np.uint8], Sequence[RLE]], npt.NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Settings.

    Attributes:
        masks: Masks of a set that are embedded, drawn with the seed; None for all.
        least_area: Smaller masks are left out, pixels.
        seed: Of the draw and of the intervals.
    """

    masks: int | None = None
    least_area: int = 0
    seed: int = 0


def ways_of(model: Any) -> dict[str, Way]:
    """What is measured, by name; the last one is the baseline."""
    clip = require_clip(model)

    def by(embedder: Embedder) -> Way:
        return lambda image, rles: next(iter(embedder.masks(image, list(rles)).vectors.values()))

    def boxes(image: npt.NDArray[np.uint8], rles: Sequence[RLE]) -> npt.NDArray[np.float32]:
        batches = crop_batches([(image, rles)], size=clip.image_size, expand=1.0, batch=_BOX_BATCH)
        return np.concatenate([clip.encode_crops(crops).cpu().numpy() for crops, _ in batches])

    return {
        _MASKED: by(Embedder(model, spaces=["clip"])),
        _CROPS: by(Embedder(model, spaces=["sam"], latents="crops")),
        _PHOTO: by(Embedder(model, spaces=["sam"], latents="photo")),
        _BOX: boxes,
    }


def embed_sets(
    model: Any, sets: Sequence[DataSet], *, config: SearchConfig, ways: Mapping[str, Way]
) -> tuple[Embedded, dict[str, float]]:
    """Embed the masks of all sets, and their labels as phrases.

    Returns:
        The vectors, and seconds a mask by way, decoding the photo left out.

    Raises:
        BadInputError: No mask has a name.
    """
    rows: dict[str, list[npt.NDArray[np.float32]]] = {way: [] for way in ways}
    seconds = dict.fromkeys(ways, 0.0)
    known: list[tuple[str, str, str]] = []
    for each in sets:
        chosen = _chosen(each, config)
        for index, sample in enumerate(progress(each.samples, each.name)):
            objects = [sample.objects[place] for place in chosen.get(index, ())]
            if not objects:
                continue
            image = sample.image()
            for way, embed in ways.items():
                started = time.perf_counter()
                rows[way].append(embed(image, [item.rle for item in objects]))
                seconds[way] += time.perf_counter() - started
            photo = f"{each.name}/{sample.image_id}"
            known += [(each.name, photo, item.label) for item in objects]
    if not known:
        raise BadInputError("no mask of these sets has a name, so there is no right answer")
    names, photos, labels = (np.array(column) for column in zip(*known, strict=True))
    clip = require_clip(model)
    phrases = np.unique(labels).tolist()
    texts = dict(zip(phrases, clip.encode_text(phrases).cpu().numpy(), strict=True))
    data = Embedded(
        sets=names,
        photos=photos,
        labels=labels,
        vectors={way: np.concatenate(parts) for way, parts in rows.items()},
        texts={way: texts for way in (_MASKED, _BOX) if way in ways},
    )
    return data, {way: total / len(known) for way, total in seconds.items()}


def _chosen(data: DataSet, config: SearchConfig) -> dict[int, list[int]]:
    """Places of the objects that are embedded, by the photo's place."""
    every = [
        (index, place)
        for index, sample in enumerate(data.samples)
        for place in _named(sample, config.least_area)
    ]
    if config.masks is not None and len(every) > config.masks:
        drawn = seeded_rng(config.seed, data.name).choice(len(every), config.masks, replace=False)
        every = [every[number] for number in sorted(drawn)]
    found: dict[int, list[int]] = {}
    for index, place in every:
        found.setdefault(index, []).append(place)
    return found


def _named(sample: Sample, least_area: int) -> Iterable[int]:
    for place, item in enumerate(sample.objects):
        if (
            not item.ignore
            and item.label not in NAMELESS
            and rle_area(item.rle) >= max(1, least_area)
        ):
            yield place


def measure_task(data: Embedded, task: str, name: str, *, seed: int) -> dict[str, Any] | None:
    """Precision@10 of every way and of chance, a mean over labels.

    Returns:
        `set`, `task`, `labels`, `queries`, `gallery` (mean size), `ways` (mean and interval),
        `differences` (of each way to the box baseline), `items` (by way and label); None if there
        is no query with an answer.
    """
    queries = queries_of(data, task, name)
    if not queries:
        return None
    ways = data.texts if task == "text" else data.vectors
    scores: dict[str, list[Score]] = {way: ranked(data, queries, way) for way in ways}
    scores[CHANCE] = chance_of(data, queries)
    return {
        "set": name,
        "task": task,
        "labels": len(scores[CHANCE]),
        "queries": len(queries),
        "gallery": float(np.mean([len(query.gallery) for query in queries])),
        "ways": {way: mean_interval(found, seed=seed)._asdict() for way, found in scores.items()},
        "differences": {
            way: paired_interval(found, scores[_BOX], seed=seed)._asdict()
            for way, found in scores.items()
            if way != _BOX and _BOX in scores
        },
        "items": {way: {s.object: s.value for s in found} for way, found in scores.items()},
    }


def _show(
    measured: Sequence[Mapping[str, Any]], seconds: Mapping[str, float], *, model: str
) -> None:
    ways = [*seconds, CHANCE]
    rows = [
        [
            *(row["set"], row["task"], str(row["labels"]), str(row["queries"])),
            f"{row['gallery']:.0f}",
            *(_cell(row["ways"].get(way)) for way in ways),
            _difference(row["differences"].get(_MASKED)),
        ]
        for row in measured
    ]
    columns = ["set", "query", "labels", "queries", "searched", *ways, f"{_MASKED} - {_BOX}"]
    times = ", ".join(f"{way} {value:.2f}" for way, value in seconds.items())
    notes = [
        f"precision of the first {DEPTH}, or of the first R where R < {DEPTH} masks are right: "
        "mean over labels, beneath it the 95% interval (bootstrap over labels)",
        "text: a label, in its set; mask: a mask, in the other photos of its set; mask, other "
        "sets: a mask, in the photos of all other sets",
        f"{_BOX}: the square around the box, not masked; {CHANCE}: a random order's expectation",
        f"seconds a mask: {times}",
    ]
    show_table(f"Search, model {model}", columns, rows, notes=notes, width=170)


def _cell(figure: Mapping[str, float] | None) -> str:
    if figure is None:
        return "-"
    return f"{figure['mean']:.3f}\n{figure['low']:.2f}-{figure['high']:.2f}"


def _difference(figure: Mapping[str, float] | None) -> str:
    if figure is None:
        return "-"
    return f"{figure['mean']:+.3f}\n{figure['low']:+.2f} to {figure['high']:+.2f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.search",
        description="Measure search: precision@10 by label of phrases and masks that look for "
        "masks, in masked CLIP and in the SAM's latents, beside CLIP of boxes and beside chance.",
    )
    add_common_options(parser)
    parser.add_argument(
        "--masks",
        type=at_least(2),
        metavar="N",
        help="embed only N masks of each set, drawn with the seed; some two seconds a mask on one "
        "core with tiny (default: all)",
    )
    parser.add_argument(
        "--least-area",
        type=at_least(0),
        default=0,
        metavar="A",
        help="leave out masks of fewer pixels (default: none)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (2: the input or the model is at fault)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    config = SearchConfig(masks=options.masks, least_area=options.least_area, seed=options.seed)
    try:
        check_output(options.json, "--json")
        sets = read_sets(options.data, limit=options.limit)
        model = load_model(options.model)
        data, seconds = embed_sets(model, sets, config=config, ways=ways_of(model))
        found = [
            measure_task(data, task, each.name, seed=config.seed) for task in TASKS for each in sets
        ]
        measured = [row for row in found if row is not None]
        settings = {**vars(options), "protocol": asdict(config), "seconds_per_mask": seconds}
        write_report(options.json, settings=settings, sets=measured)
        _show(measured, seconds, model=options.model)
    except (BadInputError, TextSamError) as error:
        return complain(parser, error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
