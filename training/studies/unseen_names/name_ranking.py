"""The rank of a name among many: masked crops against text embeddings, and masks by phrase."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.errors import WeightsError
from textsam.values.rle import RLE, decode_rle, merge_rles, rle_area

from ...data import Sample
from ...evaluation.command import progress
from ...evaluation.data_sets import DataSet
from ...evaluation.figures.intervals import mean
from ...evaluation.figures.matching import masked_iou
from ...evaluation.phrases.questions import NAMELESS, ignored_pixels
from ...recipes.tiny.held_out_names import HELD_OUT, KEPT

GROUPS: dict[str, tuple[str, ...]] = {"held out": HELD_OUT, "kept": KEPT}
_GROUP_OF = {name.casefold(): group for group, names in GROUPS.items() for name in names}
_SPELLED = {name.casefold(): name for names in GROUPS.values() for name in names}

_STUDY = 192  # names of the second gallery: both groups and 72 others


@dataclass(frozen=True, kw_only=True)
class NamesConfig:
    """Settings."""

    # Leaves out small masks as training does: area >= 100^2 of a photo whose long side is 1024
    # (Appendix D.5), so the share counts and not the pixels.
    min_side: float = 100 / 1024
    expand: float = 1.5  # Side of a crop over its mask's; training draws from 1 to 2
    phrases: bool = True  # Also measure the masks that names find as phrases


@dataclass(frozen=True, kw_only=True)
class NameGalleries:
    """The names that a crop is compared with; each without doubles, in a fixed order."""

    all: tuple[str, ...]  # every name of the data
    study: tuple[str, ...]  # 192 of them: both groups, filled up by others
    own: dict[str, tuple[str, ...]]  # the 60 of each group


def group_of(label: str) -> str | None:
    """`"held out"`, `"kept"`, or None for a name of neither group."""
    return _GROUP_OF.get(label.strip().casefold())


def name_galleries(labels: Iterable[str], *, seed: int) -> NameGalleries:
    """Galleries from every label of the data; both groups are in it, whatever the data has."""
    known = {name.casefold(): name for name in sorted(set(labels) - NAMELESS, reverse=True)}
    known |= _SPELLED
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
    # >= below: an encoder that gives the same for everything must not look perfect.
    scores = images.cpu() @ texts.cpu().T
    mine = scores[torch.arange(len(own)), torch.as_tensor(own, dtype=torch.int64)]
    rank: NDArray[np.int64] = (scores >= mine[:, None]).sum(1).numpy()
    return rank


class _NameRanker:
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
        ranks = []
        for (name, _), image in zip(objects, images, strict=True):
            own = self.galleries.own[group_of(name) or ""]
            rows = {"all": self.galleries.all, "study": self.galleries.study, "own": own}
            ranks.append(
                {
                    key: int(rank_of_own(image[None], self._texts[names], [names.index(name)])[0])
                    for key, names in rows.items()
                }
            )
        return ranks


def measure_set(
    model: Any, data: DataSet, *, config: NamesConfig, galleries: NameGalleries
) -> dict[str, Any]:
    """Measure one file.

    Returns:
        `photos` (with such a name), `small` (masks left out), `means` (see `group_means`), `crops`
        and `phrases` (one record each).
    """
    if model.clip is None:
        raise WeightsError("this model has no CLIP, so it knows no names")
    ranker = _NameRanker(model.clip, galleries)
    crops: list[dict[str, Any]] = []
    phrases: list[dict[str, Any]] = []
    small = photos = 0
    for sample in progress(data.samples, data.name):
        named = _named(sample)
        if not named:
            continue
        photos += 1
        min_area = (config.min_side * max(sample.size)) ** 2
        useful = [(name, rle) for name, rles in named.items() for rle in rles]
        small += sum(rle_area(rle) < min_area for _, rle in useful)
        useful = [(name, rle) for name, rle in useful if rle_area(rle) >= min_area]
        ranks = ranker.ranks(sample, useful, expand=config.expand) if useful else []
        crops += [
            {"image_id": sample.image_id, "label": name, "group": group_of(name), **rank}
            for (name, _), rank in zip(useful, ranks, strict=True)
        ]
        if config.phrases:
            phrases += _phrase_records(model, sample, named)
    return {
        "photos": photos,
        "small": small,
        "means": {group: group_means(crops, phrases, group) for group in GROUPS},
        "crops": crops,
        "phrases": phrases,
    }


def _named(sample: Sample) -> dict[str, list[RLE]]:
    """Masks of names of either group, by the name as `held_out.py` spells it."""
    named: dict[str, list[RLE]] = {}
    for o in sample.objects:
        name = _SPELLED.get(o.label.strip().casefold())
        if name is not None and not o.ignore and not o.rle.is_empty:
            named.setdefault(name, []).append(o.rle)
    return named


def _phrase_records(
    model: Any, sample: Sample, named: dict[str, list[RLE]]
) -> list[dict[str, Any]]:
    """IoU of what a name finds, by both strategies, with all masks of that name in the photo."""
    exclude = ignored_pixels(sample)
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
