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
# Leaves out small masks as training does: area >= 100^2 of a photo whose long side is 1024
# (Appendix D.5), so the share counts and not the pixels.
_MIN_SIDE = 100 / 1024
_EXPAND = 1.5  # side of a crop over its mask's; training draws from 1 to 2


@dataclass(frozen=True, kw_only=True)
class NameGalleries:
    """The names that a crop is compared with; each without doubles, in a fixed order."""

    all: tuple[str, ...]  # every name of the data
    study: tuple[str, ...]  # 192 of them: both groups, filled up by others
    own: dict[str, tuple[str, ...]]  # the 60 of each group


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

    Crops (n, D) and names (m, D) have length one; `own` are n indices into the names.
    """
    # >= below: an encoder that gives the same for everything must not look perfect.
    scores = images.cpu() @ texts.cpu().T
    mine = scores[torch.arange(len(own)), torch.as_tensor(own, dtype=torch.int64)]
    rank: NDArray[np.int64] = (scores >= mine[:, None]).sum(1).numpy()
    return rank


def measure_set(model: Any, data: DataSet, *, galleries: NameGalleries) -> dict[str, Any]:
    """Measure one file.

    Returns:
        `photos` (with such a name), `small` (masks left out), `means` (see `group_means`), `crops`
        and `phrases` (one record each).
    """
    if model.clip is None:
        raise WeightsError("this model has no CLIP, so it knows no names")
    texts = {  # embedded once for all photos
        names: model.clip.encode_text(list(names))
        for names in (galleries.all, galleries.study, *galleries.own.values())
    }
    crops: list[dict[str, Any]] = []
    phrases: list[dict[str, Any]] = []
    small = photos = 0
    for sample in progress(data.samples, data.name):
        named = _named(sample)
        if not named:
            continue
        photos += 1
        min_area = (_MIN_SIDE * max(sample.size)) ** 2
        objects = [(name, rle) for name, rles in named.items() for rle in rles]
        useful = [(name, rle) for name, rle in objects if rle_area(rle) >= min_area]
        small += len(objects) - len(useful)
        rles = [rle for _, rle in useful]
        images = model.clip.encode_masks(sample.image(), rles, expand=_EXPAND) if rles else ()
        for (name, _), image in zip(useful, images, strict=True):
            group = _GROUP_OF[name.casefold()]
            own = {"all": galleries.all, "study": galleries.study, "own": galleries.own[group]}
            ranks = {
                key: int(rank_of_own(image[None], texts[names], [names.index(name)])[0])
                for key, names in own.items()
            }
            crops.append({"image_id": sample.image_id, "label": name, "group": group, **ranks})
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
                    "group": _GROUP_OF[name.casefold()],
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

    def figures(names: Iterable[str]) -> dict[str, float | None]:
        own = [crop for crop in crops_here if crop["label"] in names]
        asked = [phrase for phrase in phrases_here if phrase["label"] in names]
        hits = {
            f"top{k}_{gallery}": mean(crop[gallery] <= k for crop in own)
            for gallery in ("all", "study", "own")
            for k in (1, 5)
        }
        return hits | {key: mean(p[key] for p in asked) for key in ("auto", "prompt", "whole")}

    crops_here = [crop for crop in crops if crop["group"] == group]
    phrases_here = [phrase for phrase in phrases if phrase["group"] == group]
    names = sorted({row["label"] for row in (*crops_here, *phrases_here)})
    means, each = figures(names), [figures([name]) for name in names]
    return {
        "names": len(names),
        "masks": len(crops_here),
        "phrases": len(phrases_here),
        **means,
        "by_name": {key: mean(row[key] for row in each) for key in means},
    }
