"""Names never trained on: what a run that left 60 names out makes of them.

    python -m training.studies.unseen_names train/named_objects.parquet --model DIR

The names are `recipes/held_out.py`'s: 60 that an ablation run never saw, and 60 like them that it
did. Two questions, each asked of both groups so that the gap shows: does CLIP's embedding of a
masked crop (arXiv 2304.02643, Appendix D.5) find the crop's name among the text embeddings of many,
and does the name, as a phrase, find the mask? For a run trained on all names only the first group's
rows lose their meaning: nothing here can tell which kind of run it is given. Masks of kept names
in files that were trained on are training masks, so that gap is the widest there can be; where both
groups are new photos (`dev/coco_mval.parquet` for the COCO names) it is the name's alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from textsam.errors import TextSamError

from ...data import is_spec
from ...evaluation.sets import known_labels
from ...evaluation.table import (
    BadInputError,
    DataSet,
    add_common_options,
    complain,
    measure_files,
    numbers,
    show_table,
)
from ...recipes.held_out import HELD_OUT
from .name_ranking import (
    GROUPS,
    NameGalleries,
    NamesConfig,
    group_means,
    measure_set,
    name_galleries,
)

__all__ = ["main", "read_labels"]


def read_labels(paths: Sequence[Path]) -> list[str]:
    """Every label of some files; the photos are not read.

    Raises:
        BadInputError: A file cannot be read, or has no `objects`.
    """
    import pyarrow.parquet as pq

    labels: set[str] = set()
    for path in paths:
        try:
            rows = pq.read_table(path, columns=["objects"]).to_pylist()
            labels |= {o["label"] for row in rows for o in row["objects"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInputError(f"cannot read the labels of {path}: {error}") from error
    return sorted(labels)


def _labels(data: Sequence[str]) -> list[str]:
    """The names that a run takes when it is given none."""
    if not is_spec(data[0]):
        return read_labels(sorted(Path(data[0]).parent.glob("*.parquet")))
    labels = known_labels(data[0])
    if not labels:
        raise BadInputError(f"{data[0]} does not say which labels it has. Give --vocabulary FILES")
    return list(labels)


def _show(sets: Sequence[dict[str, Any]], *, model: str, galleries: NameGalleries) -> None:
    crops = [crop for row in sets for crop in row["crops"]]
    phrases = [phrase for row in sets for phrase in row["phrases"]]
    sources = {row["name"]: row["means"] for row in sets}
    if len(sets) > 1:
        sources["both" if len(sets) == 2 else "all"] = {
            group: group_means(crops, phrases, group) for group in GROUPS
        }
    rows = []
    for source, groups in sources.items():
        rows += [_row(group, source, means, means) for group, means in groups.items()]
    for group, means in groups.items():
        rows.append(_row(group, f"{source}, by name", means, means["by_name"]))
    sizes = [len(galleries.all), len(galleries.study), len(HELD_OUT)]
    columns = ["names", "set", "n", "masks", *(f"top-1 / 5 of {n}" for n in sizes)]
    columns += ["phrases", "auto", "prompt", "whole"]
    chance = ", ".join(f"{5 / size:.3f} of {size}" for size in sizes)
    notes = [
        f"top-k: the mask's own name is among the k nearest texts; chance of top-5: {chance}",
        "auto, prompt: mean IoU of what the name finds as a phrase; whole: the whole image as the "
        "answer; by name: the mean of each name's mean",
    ]
    left_out = sum(row["small"] for row in sets)
    if left_out:
        notes.append(f"crops: left out {left_out} masks under 100^2 px of a photo of 1024 px")
    title = f"Names kept out of training, and names like them, model {model}"
    show_table(title, columns, rows, notes=notes)


def _row(group: str, source: str, counts: dict[str, Any], means: dict[str, Any]) -> list[str]:
    hits = [
        " / ".join(numbers(means, (f"top1_{gallery}", f"top5_{gallery}")))
        for gallery in ("all", "study", "own")
    ]
    return [
        *(group, source, str(counts["names"]), str(counts["masks"]), *hits),
        str(counts["phrases"]),
        *numbers(means, ("auto", "prompt", "whole")),
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}",
        description="Measure names never trained on: top-1 and top-5 of CLIP's masked-crop "
        "embedding among the text embeddings of all names, of 192 and of the 60, and IoU of what "
        "the names find as phrases, for the 60 held-out names of training/recipes/held_out.py and "
        "for 60 kept ones like them. Masks come from the files named.",
    )
    add_common_options(parser)
    defaults = NamesConfig()
    parser.add_argument(
        "--vocabulary",
        type=Path,
        nargs="+",
        metavar="F",
        help="files whose labels are all the names (default: every .parquet beside the first DATA, "
        "or the labels that the source says it has)",
    )
    parser.add_argument(
        "--expand",
        type=float,
        default=defaults.expand,
        metavar="X",
        help=f"side of a crop over its mask's longer side (default: {defaults.expand})",
    )
    parser.add_argument(
        "--clip-only", action="store_true", help="leave out the masks that names find as phrases"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (2: the input or the model is at fault)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    config = NamesConfig(expand=options.expand, masks=not options.clip_only, seed=options.seed)
    try:
        labels = read_labels(options.vocabulary) if options.vocabulary else _labels(options.data)
        galleries = name_galleries(labels, seed=config.seed)

        def measure(model: Any, data: DataSet) -> dict[str, Any]:
            return measure_set(model, data, config=config, galleries=galleries)

        protocol = {**asdict(config), "galleries": asdict(galleries)}
        measured = measure_files(options, measure, protocol=protocol)
    except (BadInputError, TextSamError) as error:
        return complain(parser, error)
    _show(measured, model=options.model, galleries=galleries)
    return 0


if __name__ == "__main__":
    sys.exit(main())
