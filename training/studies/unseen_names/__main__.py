"""Names that were never trained on, beside names like them that were.

    python -m training.studies.unseen_names train/named_objects.parquet --model DIR

The names are those of `recipes/held_out.py`: 60 that a run with `--hold-out-names` never saw, and
60 like them that it did. Two questions, each asked of both groups so that the gap shows: does
CLIP's embedding of a masked crop (arXiv 2304.02643, Appendix D.5) find the crop's name among the
text embeddings of many, and does the name, as a phrase, find the mask? Nothing here can tell
whether the model's run left names out. Masks of kept names in files that were trained on are
training masks, so that gap is the widest there can be; where both groups are new photos it is the
name's alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ...data import is_spec
from ...evaluation.command import EvaluationOptions, measure_sets, run_command
from ...evaluation.data_sets import BadInputError, DataSet, known_labels
from ...evaluation.figures.result_table import Column, cell, figure_at, show_figures
from ...recipes.tiny.held_out_names import HELD_OUT
from .name_ranking import GROUPS, NameGalleries, group_means, measure_set, name_galleries


@dataclass(frozen=True, kw_only=True)
class NamesOptions(EvaluationOptions):
    """Measure names that were never trained on.

    Top-1 and top-5 of CLIP's masked-crop embedding among the text embeddings of all names, of 192
    and of the 60, and IoU of what the names find as phrases, for the 60 held-out names of
    training/recipes/held_out.py and for 60 kept ones like them. Masks come from DATA.
    """

    # Files whose labels are all the names; by default every .parquet beside the first DATA, or the
    # labels that the source lists.
    vocabulary: tuple[Path, ...] = ()


def read_labels(paths: Sequence[Path]) -> list[str]:
    """Every label of some files; the photos are not read."""
    import pyarrow.parquet as pq

    labels: set[str] = set()
    for path in paths:
        try:
            rows = pq.read_table(path, columns=["objects"]).to_pylist()
            labels |= {o["label"] for row in rows for o in row["objects"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInputError(f"cannot read the labels of {path}: {error}") from error
    return sorted(labels)


def _vocabulary(options: NamesOptions) -> list[str]:
    if options.vocabulary:
        return read_labels(options.vocabulary)
    first = options.data[0]
    if not is_spec(first):
        return read_labels(sorted(Path(first).parent.glob("*.parquet")))
    labels = known_labels(first)
    if not labels:
        raise BadInputError(f"{first} does not list its labels. Give --vocabulary FILES")
    return list(labels)


def _show(sets: Sequence[dict[str, Any]], *, model: str, galleries: NameGalleries) -> None:
    sources = {row["name"]: row["means"] for row in sets}
    if len(sets) > 1:
        crops = [crop for row in sets for crop in row["crops"]]
        phrases = [phrase for row in sets for phrase in row["phrases"]]
        sources["both" if len(sets) == 2 else "all"] = {
            group: group_means(crops, phrases, group) for group in GROUPS
        }
    rows = [
        {"group": group, "source": source, **means}
        for source, groups in sources.items()
        for group, means in groups.items()
    ]
    # Once more, for all sets together, with the mean of each name's mean.
    rows += [
        {**row, "source": f"{row['source']}, by name", **row["by_name"]}
        for row in rows[-len(GROUPS) :]
    ]
    sizes = {"all": len(galleries.all), "study": len(galleries.study), "own": len(HELD_OUT)}
    columns = [
        Column("names", "group"),
        Column("set", "source"),
        Column("n", "names"),
        Column("masks", "masks"),
        *(Column(f"top-1 / 5 of {size}", _hits(name)) for name, size in sizes.items()),
        *(Column(key, key) for key in ("phrases", "auto", "prompt", "whole")),
    ]
    chance = ", ".join(f"{5 / size:.3f} of {size}" for size in sizes.values())
    notes = [
        f"top-k: the mask's own name is among the k nearest texts; chance of top-5: {chance}",
        "auto, prompt: mean IoU of what the name finds as a phrase; whole: the whole image as the "
        "answer; by name: the mean of each name's mean",
    ]
    if left_out := sum(row["small"] for row in sets):
        notes.append(f"crops: left out {left_out} masks under 100^2 px of a photo of 1024 px")
    title = f"Names kept out of training, and names like them, model {model}"
    show_figures(title, columns, rows, notes=notes)


def _hits(gallery: str) -> Callable[[Any], str]:
    return lambda row: " / ".join(cell(figure_at(row, f"top{k}_{gallery}")) for k in (1, 5))


def _run(options: NamesOptions) -> None:
    galleries = name_galleries(_vocabulary(options), seed=options.seed)

    def measure(model: Any, data: DataSet) -> dict[str, Any]:
        figures = measure_set(model, data, galleries=galleries)
        return {**figures, "galleries": asdict(galleries)}

    _show(measure_sets(options, measure), model=options.model, galleries=galleries)


main = partial(run_command, NamesOptions, _run)

if __name__ == "__main__":
    sys.exit(main())
