"""Training of a dense text head: from names to maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from textsam.clip.encoder import ClipEncoder
from textsam.clip.pathway import DenseTextHead, TextPathway, tower_maps
from textsam.modeling.sam import Sam

from ..data import ViewBatch
from ..data.phrases.names import NameQuestions
from ..data.phrases.phrase_batch import PhraseBatch
from ..engine.optim import RatedPart
from ..losses import dice_loss
from .base import LossOutput, Objective, mean_where
from .sam_objective import encode_views

_HIDDEN = -30.0  # a logit below any real one, for cells that do not count


@dataclass(frozen=True, kw_only=True)
class NameLossConfig:
    """Weights of the loss."""

    positive_weight: float = 3.0  # Of the pixels inside, in the cross entropy
    peak: float = 0.25  # Weight of the term that says whether the name is there at all
    peak_cells: int = 8  # The map's best cells that decide about it


def name_losses(
    head: DenseTextHead, features: Tensor, questions: NameQuestions, *, config: NameLossConfig
) -> LossOutput:
    """Losses of the maps of a batch's names, from features (B, D, h8, w8) of its views.

    "names" is twice the cross entropy of the maps and that of their peaks, a mean over names;
    "present" the dice loss, a mean over the names that are there.
    """
    present, weight, target = questions.present, questions.weights, questions.targets
    logits = maps_by_photo(head, features, questions.photos, questions.queries).float()
    # Most cells of most maps are negative.
    balance = 1 + (config.positive_weight - 1) * target
    error = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    bce = (error * balance * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1)
    dice = dice_loss(logits[:, None], target[:, None], weight[:, None])[:, 0]
    # Void and padding cannot be the best cells.
    best = logits.masked_fill(weight < 0.5, _HIDDEN).flatten(1).topk(config.peak_cells).values
    # A soft maximum over the best cells: a single cell would be noisy.
    peak = torch.logsumexp(best, dim=1) - math.log(config.peak_cells)
    peaks = F.binary_cross_entropy_with_logits(peak, present.float(), reduction="none")
    losses = {
        "names": _mean(2 * bce + config.peak * peaks),
        "present": _mean(dice[present]),
    }
    with torch.no_grad():
        p, y = (logits > 0) & (weight > 0), (target > 0.5) & (weight > 0)
        iou = (p & y).sum((1, 2)) / (p | y).sum((1, 2)).clamp(min=1)
    figures: dict[str, Tensor | float] = {
        "map_iou": mean_where(iou, present),
        "peak_present": mean_where(peak, present),
        "peak_absent": mean_where(peak, ~present),
    }
    return LossOutput(losses, figures)


def maps_by_photo(head: DenseTextHead, features: Tensor, photos: Tensor, queries: Tensor) -> Tensor:
    """Maps (U, h8, w8) of phrases (U, D), each on its photo, (U,) in rising order.

    As `DenseTextHead.logits`, without a copy of a photo's features for each of its phrases.
    """
    # A product for each photo: `features[photos]` would copy the features for every phrase.
    counts = torch.bincount(photos, minlength=len(features)).tolist()
    flat = features.flatten(2)
    cosine = torch.cat([part @ flat[i] for i, part in enumerate(queries.split(counts))])
    return cosine.unflatten(1, features.shape[-2:]) * head.log_scale.exp() + head.bias


def phrase_maps(
    head: DenseTextHead,
    features: Tensor,
    photos: Tensor,
    queries: Tensor,
    *,
    spoken: Tensor,
    size: int,
) -> Tensor:
    """Mask prompts (P, 1, size, size) of the phrases: logits of the head, without gradient.

    The head learns from the names' loss, not from the masks'. `features` (B, D, h8, w8) are of B
    views, `photos` (P,) int64 the view of each mask in rising order, `queries` (P, D) centred unit
    embeddings; masks that are not `spoken` (P,) bool, asked for by a phrase, get zeros.
    """
    maps = torch.zeros(len(queries), 1, size, size, device=queries.device)
    rows = spoken.nonzero()[:, 0]
    if len(rows):
        with torch.no_grad():
            logits = maps_by_photo(head, features, photos[rows], queries[rows])[:, None]
            maps[rows] = F.interpolate(logits, (size, size), mode="bilinear").float()
    return maps


def view_tower_maps(
    clip: ClipEncoder, batch: ViewBatch, *, strides: tuple[int, ...]
) -> list[Tensor]:
    """Maps of CLIP's image tower for the views, padded as the model frame is."""
    side, device = batch.masks.shape[-1], batch.masks.device
    framed = torch.zeros(len(batch), 3, side, side, device=device)
    for row, pixels in zip(framed, batch.pixels, strict=True):
        height, width = pixels.shape[1:]
        row[:, :height, :width] = clip.normalize(pixels[None])[0]
    framed = framed.contiguous(memory_format=torch.channels_last)
    return tower_maps(clip.model.visual, framed, strides=strides)


@dataclass(frozen=True, kw_only=True)
class NameMapObjectiveConfig:
    """How the head is trained: the weights of its loss."""

    loss: NameLossConfig = field(default_factory=NameLossConfig)


class NameMapObjective(Objective):
    """Loss of a dense head on the maps of a frozen network; nothing else learns."""

    PARTS: ClassVar[dict[str, str]] = {"clip": "clip_model", "sam": "sam", "pathway": "pathway"}

    def __init__(
        self, pathway: TextPathway, network: ClipEncoder | Sam, *, config: NameMapObjectiveConfig
    ) -> None:
        super().__init__()
        source = "sam" if isinstance(network, Sam) else "clip"
        if pathway.dense is None or pathway.config.dense_source != source:
            raise ValueError(
                f"the pathway has no dense head on the maps of its {source}. Type: PathwayConfig("
                f'dense_channels=..., dense_source="{source}")'
            )
        self.pathway, self.config = pathway, config
        self.clip = network if isinstance(network, ClipEncoder) else None
        self.clip_model = None if self.clip is None else self.clip.model
        self.sam = network if isinstance(network, Sam) else None
        self.freeze([source], fixed_norms=True)
        pathway.requires_grad_(False)
        pathway.dense.requires_grad_(True)

    @property
    def head(self) -> DenseTextHead:
        """The part of the pathway that learns."""
        assert self.pathway.dense is not None
        return self.pathway.dense

    def forward(self, batch: PhraseBatch) -> LossOutput:
        """Losses of a batch's names, by kind."""
        batch = batch.to(self.head.bias.device)
        assert batch.names is not None
        return name_losses(
            self.head,
            self.head.features(self._maps(batch.views)),
            batch.names,
            config=self.config.loss,
        )

    def rates(self) -> list[RatedPart]:
        """The head alone."""
        return [RatedPart(module=self.head)]

    @torch.no_grad()
    def _maps(self, views: ViewBatch) -> Sequence[Tensor]:
        if self.sam is not None:
            return encode_views(self.sam, views, frozen=True).pyramid
        assert self.clip is not None
        return view_tower_maps(self.clip, views, strides=self.pathway.config.dense_strides)


def _mean(values: Tensor) -> Tensor:
    """Mean; of no values zero, with a gradient of zero."""
    return values.sum() / max(1, len(values))
