"""Names never trained on: what a run that left 60 names out makes of them.

    python -m training.evaluation.names train/named_objects.parquet train/coco.parquet --model DIR

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
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.errors import TextSamError, WeightsError
from textsam.rle import RLE, decode_rle, merge_rles, rle_area

from ..data import Sample, is_spec
from ..recipes.held_out import HELD_OUT, KEPT
from .protocol import masked_iou, mean
from .sets import known_labels
from .table import (
    BadInputError,
    DataSet,
    add_common_options,
    complain,
    measure_files,
    numbers,
    progress,
    show_table,
)
from .text import NAMELESS

__all__ = [
    "GROUPS",
    "NameGalleries",
    "NamesConfig",
    "group_means",
    "group_of",
    "main",
    "measure_set",
    "name_galleries",
    "rank_of_own",
    "read_labels",
]

GROUPS: dict[str, tuple[str, ...]] = {"held out": HELD_OUT, "kept": KEPT}
_GROUP_OF = {name.casefold(): group for group, names in GROUPS.items() for name in names}

# The study in TINY.md asked among 192 names.
_STUDY = 192


@dataclass(frozen=True, kw_only=True)
class NamesConfig:
    """Settings.

    `least_side` leaves out small masks as training does: area >= 100^2 of a photo whose long side
    is 1024 (Appendix D.5), so the share counts and not the pixels. `expand` is the middle of the
    1x to 2x that training draws from.
    """

    least_side: float = 100 / 1024
    expand: float = 1.5
    masks: bool = True
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class NameGalleries:
    """The names that a crop is compared with; each without doubles, in a fixed order.

    Attributes:
        all: Every name of the data.
        study: 192 of them: both groups, filled up by others.
        own: The 60 of each group.
    """

    all: tuple[str, ...]
    study: tuple[str, ...]
    own: dict[str, tuple[str, ...]]


def group_of(label: str) -> str | None:
    """`"held out"`, `"kept"`, or None for a name of neither group."""
    return _GROUP_OF.get(label.strip().casefold())


def name_galleries(labels: Iterable[str], *, seed: int) -> NameGalleries:
    """Galleries from every label of the data; both groups are in it, whatever the data has."""
    known = {name.casefold(): name for name in sorted(set(labels) - NAMELESS, reverse=True)}
    known |= {name.casefold(): name for names in GROUPS.values() for name in names}
    others = sorted(name for key, name in known.items() if key not in _GROUP_OF)
    order = np.random.default_rng(seed).permutation(len(others))
    grouped = [name for names in GROUPS.values() for name in names]
    filled = sorted(others[i] for i in order[: max(0, _STUDY - len(grouped))])
    return NameGalleries(
        all=tuple(sorted(known.values())), study=(*grouped, *filled), own=dict(GROUPS)
    )


def rank_of_own(images: Tensor, texts: Tensor, own: Sequence[int]) -> NDArray[np.int64]:
    """Rank, from 1, of each crop's own name by cosine; of equal scores the own one comes last.

    Args:
        images: (n, D) of length one.
        texts: (m, D) of length one.
        own: n indices into the m names.

    Returns:
        (n,) int64. An encoder that says the same of everything gets m, not 1.
    """
    scores = images.cpu() @ texts.cpu().T
    mine = scores[torch.arange(len(own)), torch.as_tensor(own, dtype=torch.int64)]
    rank: NDArray[np.int64] = (scores >= mine[:, None]).sum(1).numpy()
    return rank


class _Ranker:
    """Ranks of masks among the galleries, with the text embeddings made once."""

    def __init__(self, clip: Any, galleries: NameGalleries) -> None:
        self.clip = clip
        self.galleries = galleries
        self._texts = {
            names: clip.encode_text(list(names))
            for names in (galleries.all, galleries.study, *galleries.own.values())
        }

    def ranks(
        self, sample: Sample, objects: Sequence[tuple[str, RLE]], *, expand: float
    ) -> list[dict[str, int]]:
        """For each object (canonical name, mask) its rank among `all`, `study` and `own`."""
        images = self.clip.encode_masks(sample.image(), [rle for _, rle in objects], expand=expand)
        found: list[dict[str, int]] = []
        for (name, _), image in zip(objects, images, strict=True):
            group = group_of(name)
            assert group is not None
            rows = {
                "all": self.galleries.all,
                "study": self.galleries.study,
                "own": self.galleries.own[group],
            }
            found.append(
                {
                    key: int(rank_of_own(image[None], self._texts[names], [names.index(name)])[0])
                    for key, names in rows.items()
                }
            )
        return found


def measure_set(
    model: Any, data: DataSet, *, config: NamesConfig, galleries: NameGalleries
) -> dict[str, Any]:
    """Measure one file.

    Args:
        model: A `TextSAM` with a CLIP; a text pathway too, unless `config.masks` is off.
        data: The photos; those without a name of either group are passed over.
        config: The settings.
        galleries: What crops are compared with.

    Returns:
        `name`, `path`, `photos` (with such a name), `small` (masks left out), `means` (see
        `group_means`), `crops` and `phrases` (one record each).

    Raises:
        WeightsError: The model has no CLIP, or no text pathway.
    """
    if model.clip is None:
        raise WeightsError("this model has no CLIP, so it knows no names")
    ranker = _Ranker(model.clip, galleries)
    crops: list[dict[str, Any]] = []
    phrases: list[dict[str, Any]] = []
    small = photos = 0
    for sample in progress(data.samples, data.name):
        named = _named(sample)
        if not named:
            continue
        photos += 1
        least = (config.least_side * max(sample.size)) ** 2
        useful = [(name, rle) for name, rles in named.items() for rle in rles]
        small += sum(rle_area(rle) < least for _, rle in useful)
        useful = [(name, rle) for name, rle in useful if rle_area(rle) >= least]
        ranks = ranker.ranks(sample, useful, expand=config.expand) if useful else []
        crops += [
            {"image_id": sample.image_id, "label": name, "group": group_of(name), **rank}
            for (name, _), rank in zip(useful, ranks, strict=True)
        ]
        if config.masks:
            phrases += _phrase_records(model, sample, named)
    return {
        "name": data.name,
        "path": str(data.path),
        "photos": photos,
        "small": small,
        "means": {group: group_means(crops, phrases, group) for group in GROUPS},
        "crops": crops,
        "phrases": phrases,
    }


def _named(sample: Sample) -> dict[str, list[RLE]]:
    """Masks of names of either group, by the name as `held_out.py` spells it."""
    spelled = {name.casefold(): name for names in GROUPS.values() for name in names}
    found: dict[str, list[RLE]] = {}
    for o in sample.objects:
        name = spelled.get(o.label.strip().casefold())
        if name is not None and not o.ignore and not o.rle.is_empty:
            found.setdefault(name, []).append(o.rle)
    return found


def _phrase_records(
    model: Any, sample: Sample, named: dict[str, list[RLE]]
) -> list[dict[str, Any]]:
    """IoU of what a name finds, by both strategies, with all masks of that name in the photo."""
    ignored = merge_rles([o.rle for o in sample.objects if o.ignore], sample.size)
    exclude = sample.void_mask() | decode_rle(ignored)
    records = []
    with model.open(sample.image()) as view:
        for name, rles in named.items():
            truth = decode_rle(merge_rles(rles, sample.size))
            if not (truth & ~exclude).any():
                continue
            auto = view.segment(text=name, strategy="auto").mask
            readings = view.segment(text=name, strategy="prompt").masks
            top = readings[0] if len(readings) else np.zeros_like(truth)
            records.append(
                {
                    "image_id": sample.image_id,
                    "label": name,
                    "group": group_of(name),
                    "auto": masked_iou(auto, truth, exclude=exclude),
                    "prompt": masked_iou(top, truth, exclude=exclude),
                    "whole": masked_iou(np.ones_like(truth), truth, exclude=exclude),
                }
            )
    return records


def group_means(
    crops: Sequence[dict[str, Any]], phrases: Sequence[dict[str, Any]], group: str
) -> dict[str, Any]:
    """Figures of one group, over masks and phrases; `by_name` has the mean of the names' means.

    Returns:
        `names`, `masks`, `phrases` (numbers), `top1_all` and the like for `study` and `own`,
        `auto`, `prompt`, `whole`; None where nothing was measured.
    """
    own_crops = [c for c in crops if c["group"] == group]
    own_phrases = [p for p in phrases if p["group"] == group]
    names = sorted({r["label"] for r in (*own_crops, *own_phrases)})
    each = [
        _figures(
            [c for c in own_crops if c["label"] == name],
            [p for p in own_phrases if p["label"] == name],
        )
        for name in names
    ]
    figures = _figures(own_crops, own_phrases)
    return {
        "names": len(names),
        "masks": len(own_crops),
        "phrases": len(own_phrases),
        **figures,
        "by_name": {key: mean(row[key] for row in each) for key in figures},
    }


def _figures(
    crops: Sequence[dict[str, Any]], phrases: Sequence[dict[str, Any]]
) -> dict[str, float | None]:
    hits = {
        f"top{k}_{gallery}": mean(c[gallery] <= k for c in crops)
        for gallery in ("all", "study", "own")
        for k in (1, 5)
    }
    return hits | {key: mean(p[key] for p in phrases) for key in ("auto", "prompt", "whole")}


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
        prog=f"python -m {__package__}.names",
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
