"""The loss of a dense text head: names to maps.

Half of the queries are embeddings of masked crops, as in the paper (Section 7.5), half are the
label's text: trained on images alone the same head loses a fifth of its IoU on parts (TINY.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from textsam.clip.dense import DenseTextHead

from ..data import Sample
from ..losses import dice_loss, soft_target
from .concepts import ConceptBank
from .labelled_views import LabelledView

__all__ = ["WordConfig", "WordLoss", "maps_by_photo"]

# Names of one file that may be in another file's photos without being annotated there.
_HIDDEN_BY = {
    "car_parts": {"car", "bus", "truck", "train", "motorcycle", "bicycle", "motorbike"},
    "clothing": {"person"},
}


@dataclass(frozen=True, kw_only=True)
class WordConfig:
    """Numbers of the loss.

    Attributes:
        present: Most names of a photo that are asked.
        absent: Most names that it lacks, half of them of its own file's list.
        image_share: Share of the queries that are crops' embeddings.
        positive_weight: Of the pixels inside, in the cross entropy.
        peak: Weight of the term that says whether the name is there at all.
        peak_cells: The map's best cells that decide about it.
    """

    present: int = 5
    absent: int = 6
    image_share: float = 0.5
    positive_weight: float = 3.0
    peak: float = 0.25
    peak_cells: int = 8


class WordLoss:
    """Twice BCE, dice of the names that are there, and BCE of each map's peak."""

    def __init__(
        self,
        head: DenseTextHead,
        bank: ConceptBank,
        samples: Mapping[str, Sequence[Sample]],
        *,
        config: WordConfig,
    ) -> None:
        self.head = head
        self.bank = bank
        self.samples = samples
        self.files = list(samples)
        self.config = config
        self.vocabulary = {
            name: sorted({o.label for s in rows for o in s.objects if o.label in bank.index})
            for name, rows in samples.items()
        }

    def __call__(
        self, features: Tensor, batch: Sequence[LabelledView], rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss and figures of features (B, D, h8, w8) of B views."""
        unions: list[Tensor] = []
        queries: list[Tensor] = []
        photos: list[int] = []
        present: list[bool] = []
        for number, item in enumerate(batch):
            known = sorted({label for label in item.labels if label in self.bank.index})
            for name in rng.permutation(known)[: self.config.present]:
                rows = torch.tensor([label == name for label in item.labels])
                unions.append(item.view.masks[rows].any(0))
                queries.append(self._query(str(name), rng))
                present.append(True)
            for name in self._absent(item, rng):
                unions.append(torch.zeros_like(item.view.void))
                queries.append(self._query(name, rng))
                present.append(False)
            photos += [number] * (len(unions) - len(photos))
        index = torch.tensor(photos)
        logits = maps_by_photo(self.head, features, index, torch.stack(queries))
        counted = torch.stack([item.counted for item in batch])[index]
        return self._loss(logits, torch.stack(unions), counted, torch.tensor(present))

    def _loss(
        self, logits: Tensor, unions: Tensor, counted: Tensor, present: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        size, config = logits.shape[-1], self.config
        target, weight = soft_target(unions, size), soft_target(counted, size)
        balance = 1 + (config.positive_weight - 1) * target
        error = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        bce = (error * balance * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1)
        dice = dice_loss(logits[:, None], target[:, None], weight[:, None])[:, 0]
        best = logits.masked_fill(weight < 0.5, -30.0).flatten(1).topk(config.peak_cells).values
        peak = torch.logsumexp(best, dim=1) - math.log(config.peak_cells)
        loss = 2 * bce.mean() + dice[present].mean()
        loss = loss + config.peak * F.binary_cross_entropy_with_logits(peak, present.float())
        with torch.no_grad():
            p, y = (logits > 0) & (weight > 0), (target > 0.5) & (weight > 0)
            iou = (p & y).sum((1, 2)) / (p | y).sum((1, 2)).clamp(min=1)
        return loss, {
            "map_iou": iou[present].mean().item(),
            "peak_present": peak[present].mean().item(),
            "peak_absent": peak[~present].mean().item(),
        }

    def _query(self, name: str, rng: np.random.Generator) -> Tensor:
        if rng.random() < self.config.image_share:
            return self.bank.crop_of(name, rng)
        return self.bank.text_of(name)

    def _absent(self, item: LabelledView, rng: np.random.Generator) -> list[str]:
        """Names that are not in the view: half its file's own, half any other file's."""
        sample = self.samples[item.file][item.row]
        there = {o.label for o in sample.objects} | set(item.labels)
        most = self.config.absent
        names: list[str] = []
        own = [n for n in self.vocabulary[item.file] if n not in there]
        if (sample.exhaustive or item.file == "named_objects") and own:
            names += [str(n) for n in rng.permutation(own)[: (most + 1) // 2]]
        if item.file == "coco_person":
            return names
        other = self.files[int(rng.integers(len(self.files)))]
        hidden = _HIDDEN_BY.get(other, set()) & there
        vocabulary = [] if hidden or other == item.file else self.vocabulary[other]
        if item.file == "car_parts":  # every photo there shows a car, whole and unlabelled
            vocabulary = [n for n in vocabulary if n not in _HIDDEN_BY["car_parts"]]
        foreign = [n for n in vocabulary if n not in there]
        return names + [str(n) for n in rng.permutation(foreign)[: most - len(names)]]


def maps_by_photo(head: DenseTextHead, features: Tensor, photos: Tensor, queries: Tensor) -> Tensor:
    """Maps (P, h8, w8) of phrases (P, D) on the photos they point at, (P,) rising.

    As `DenseTextHead.logits`, without a copy of a photo's features for each of its phrases.
    """
    counts = torch.bincount(photos, minlength=len(features)).tolist()
    flat = features.flatten(2)
    cosine = torch.cat([part @ flat[i] for i, part in enumerate(queries.split(counts))])
    return cosine.unflatten(1, features.shape[-2:]) * head.log_scale.exp() + head.bias
