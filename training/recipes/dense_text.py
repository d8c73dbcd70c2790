"""Training of tiny's dense text head: from a phrase to a map, on the frozen CLIP trunk.

Half of the queries are embeddings of masked crops, as in the paper (Section 7.5), half are the
label's text: trained on images alone the same head loses a fifth of its IoU on parts (TINY.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textsam.clip.dense import tower_maps
from textsam.clip.pathway import PathwayConfig, TextPathway

from ..data import Sample, View, ViewConfig, make_view
from ..engine import RatedPart
from ..losses import dice_loss, soft_target
from ..pretrained import PIXEL_MEAN, PIXEL_STD
from .tiny_clip import CropFeatures, as_encoder

__all__ = ["ConceptBank", "DenseConfig", "DenseTrainer", "new_tiny_pathway", "trunk_maps"]

# Names of one file that may be in another file's photos without being annotated there.
HIDDEN_BY = {
    "car_parts": {"car", "bus", "truck", "train", "motorcycle", "bicycle", "motorbike"},
    "clothing": {"person"},
}


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """Numbers of the dense head's training."""

    seed: int = 0
    photos_per_step: int = 8
    present: int = 4
    absent: int = 4
    image_share: float = 0.5
    positive_weight: float = 3.0
    rate: float = 2e-3
    weight_decay: float = 0.02
    view: ViewConfig = field(
        default_factory=lambda: ViewConfig(
            max_masks=80, min_area=1, max_share=1.0, jitter=0.5, scale=(0.6, 1.6)
        )
    )


def new_tiny_pathway(*, seed: int, prompt_width: int) -> TextPathway:
    """A fresh pathway for the tiny CLIP."""
    torch.manual_seed(seed)
    config = PathwayConfig(
        clip_width=384, prompt_width=prompt_width, hidden=384, dense_channels=(40, 112, 320)
    )
    return TextPathway(config)


class ConceptBank:
    """Embeddings to ask with: each name's text, and the crops that carry it."""

    def __init__(self, model: Any, crops: CropFeatures, pathway: TextPathway) -> None:
        encoder = as_encoder(model)
        self.names = sorted(set(crops.labels))
        self.index = {name: i for i, name in enumerate(self.names)}
        text = encoder.encode_text(self.names)
        with torch.inference_mode():
            image = F.normalize(model.visual.head.eval()(crops.features.float()), dim=-1).clone()
        pathway.text_mean.copy_(text.mean(0))
        # The mean over names of the mean over their crops: frequent names do not own it.
        label = torch.tensor([self.index[name] for name in crops.labels])
        sums = torch.zeros(len(self.names), image.shape[1]).index_add_(0, label, image)
        pathway.image_mean.copy_((sums / torch.bincount(label)[:, None]).mean(0))
        self.text = pathway.centre(text, "text")
        self.image = pathway.centre(image, "image")
        order = label.argsort()
        self.rows = {
            self.names[i]: part
            for i, part in enumerate(order.split(torch.bincount(label).tolist()))
        }
        self.own: dict[tuple[int, int, int], list[int]] = {}
        for row, key in enumerate(crops.keys.tolist()):
            self.own.setdefault((key[0], key[1], key[2]), []).append(row)

    def text_of(self, name: str) -> Tensor:
        """Centred unit embedding (D,) of a name."""
        return self.text[self.index[name]]

    def crop_of(self, name: str, rng: np.random.Generator) -> Tensor:
        """Centred unit embedding (D,) of a random crop of that name."""
        rows = self.rows[name]
        return self.image[rows[int(rng.integers(len(rows)))]]

    def crop_of_object(self, key: tuple[int, int, int], rng: np.random.Generator) -> Tensor | None:
        """Embedding of one of the object's own crops, the paper's prompt; None if none was made."""
        rows = self.own.get(key)
        return None if rows is None else self.image[rows[int(rng.integers(len(rows)))]]


@torch.no_grad()
def trunk_maps(visual: nn.Module, views: Sequence[View], *, side: int) -> list[Tensor]:
    """Maps of the frozen trunk for a batch of views, padded as the model frame is."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (PIXEL_MEAN, PIXEL_STD))
    batch = torch.zeros(len(views), 3, side, side)
    for row, view in zip(batch, views, strict=True):
        height, width = view.pixels.shape[1:]
        row[:, :height, :width] = (view.pixels - mean) / std
    batch = batch.to(memory_format=torch.channels_last)
    return tower_maps(visual, batch, strides=(8, 16, 32))


class DenseTrainer:
    """One optimisation step of the dense head."""

    def __init__(
        self,
        model: Any,
        pathway: TextPathway,
        bank: ConceptBank,
        samples: Mapping[str, Sequence[Sample]],
        weights: Mapping[str, float],
        *,
        config: DenseConfig,
    ) -> None:
        assert pathway.dense is not None
        self.visual = model.visual.eval().to(memory_format=torch.channels_last)
        self.head = pathway.dense
        pathway.requires_grad_(False)
        self.head.requires_grad_(True)
        self.bank = bank
        self.samples = samples
        self.files = list(samples)
        share = np.array([weights[name] for name in self.files])
        self.share = share / share.sum()
        self.config = config
        self.vocabulary = {
            name: sorted({o.label for s in rows for o in s.objects if o.label in bank.index})
            for name, rows in samples.items()
        }

    def rates(self) -> list[RatedPart]:
        """The head alone, at `rate`."""
        return [RatedPart(module=self.head)]

    def step_loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Loss of step n."""
        config = self.config
        rng = np.random.default_rng((config.seed, step))
        side = config.view.image_size
        views: list[View] = []
        queries: list[Tensor] = []
        unions: list[Tensor] = []
        photos: list[int] = []
        present: list[bool] = []
        while len(views) < config.photos_per_step:
            file = self.files[rng.choice(len(self.files), p=self.share)]
            row = int(rng.integers(len(self.samples[file])))
            sample = self.samples[file][row]
            view = make_view(sample, rng, config=config.view)
            if view is None:
                continue
            labels = [sample.objects[i].label for i in view.objects]
            chosen = self._present(labels, rng)
            for name in chosen:
                rows = torch.tensor([label == name for label in labels])
                unions.append(view.masks[rows].any(0))
                queries.append(self._query(name, rng))
                present.append(True)
            for name in self._absent(file, sample, rng):
                unions.append(torch.zeros(side, side, dtype=torch.bool))
                queries.append(self._query(name, rng))
                present.append(False)
            photos += [len(views)] * (len(unions) - len(photos))
            views.append(view)
        index = torch.tensor(photos)
        features = self.head.features(trunk_maps(self.visual, views, side=side))
        logits = self.head.logits(features[index], torch.stack(queries))
        counted = torch.stack([_counted(view) for view in views])
        return self._loss(logits, torch.stack(unions), counted[index], torch.tensor(present))

    def _loss(
        self, logits: Tensor, unions: Tensor, counted: Tensor, present: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        size = logits.shape[-1]
        target, weight = soft_target(unions, size), soft_target(counted, size)
        balance = 1 + (self.config.positive_weight - 1) * target
        error = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        bce = (error * balance * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1)
        dice = dice_loss(logits[:, None], target[:, None], weight[:, None])[:, 0]
        loss = 2 * bce.mean() + dice[present].mean()
        with torch.no_grad():
            p, y = (logits > 0) & (weight > 0), (target > 0.5) & (weight > 0)
            iou = (p & y).sum((1, 2)) / (p | y).sum((1, 2)).clamp(min=1)
            peak = logits.flatten(1).max(1).values
        return loss, {
            "iou": iou[present].mean().item(),
            "peak_present": peak[present].mean().item(),
            "peak_absent": peak[~present].mean().item(),
        }

    def _query(self, name: str, rng: np.random.Generator) -> Tensor:
        if rng.random() < self.config.image_share:
            return self.bank.crop_of(name, rng)
        return self.bank.text_of(name)

    def _present(self, labels: Sequence[str], rng: np.random.Generator) -> list[str]:
        known = sorted({label for label in labels if label in self.bank.index})
        return [str(n) for n in rng.permutation(known)[: self.config.present]]

    def _absent(self, file: str, sample: Sample, rng: np.random.Generator) -> list[str]:
        """Names that are not in the photo: half its file's own, half any other file's."""
        there = {o.label for o in sample.objects}
        names: list[str] = []
        own = [n for n in self.vocabulary[file] if n not in there]
        if (sample.exhaustive or file == "named_objects") and own:
            names += [str(n) for n in rng.permutation(own)[: self.config.absent // 2]]
        if file == "coco_person":
            return names
        other = self.files[int(rng.integers(len(self.files)))]
        hidden = HIDDEN_BY.get(other, set()) & there
        vocabulary = [] if hidden or other == file else self.vocabulary[other]
        if file == "car_parts":  # every photo there shows a car, whole and unlabelled
            vocabulary = [n for n in vocabulary if n not in HIDDEN_BY["car_parts"]]
        foreign = [n for n in vocabulary if n not in there]
        return names + [str(n) for n in rng.permutation(foreign)[: self.config.absent - len(names)]]


def _counted(view: View) -> Tensor:
    """(S, S) bool: pixels of the photo itself that are not void."""
    inside = torch.zeros_like(view.void)
    inside[: view.pixels.shape[1], : view.pixels.shape[2]] = True
    return inside & ~view.void
