"""Training of tiny's first dense text head: from a phrase to a map, on the frozen CLIP trunk.

The stage costs minutes, since nothing below the head learns; the joint stage goes on from it on the
core's own features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from textsam.clip.pathway import PathwayConfig, TextPathway, tower_maps

from ..data import Sample, View, ViewConfig
from ..engine import RatedPart
from ..pretrained import PIXEL_MEAN, PIXEL_STD
from .concepts import ConceptBank
from .labelled_views import LabelledViews
from .word_draw import WordConfig, WordDraw
from .word_loss import WordLoss

__all__ = ["DenseConfig", "DenseTrainer", "new_tiny_pathway", "trunk_maps"]


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """Numbers of the dense head's training."""

    seed: int = 0
    photos_per_step: int = 8
    rate: float = 2e-3
    weight_decay: float = 0.02
    view: ViewConfig = field(
        default_factory=lambda: ViewConfig(
            max_masks=80, min_area=1, max_share=1.0, jitter=0.5, scale=(0.6, 1.6)
        )
    )
    words: WordConfig = field(default_factory=lambda: WordConfig(present=4, absent=4, peak=0.0))


def new_tiny_pathway(*, seed: int, prompt_width: int) -> TextPathway:
    """A fresh pathway for the tiny CLIP."""
    torch.manual_seed(seed)
    config = PathwayConfig(
        clip_width=384, prompt_width=prompt_width, hidden=384, dense_channels=(40, 112, 320)
    )
    return TextPathway(config)


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
        pathway.requires_grad_(False)
        self.head = pathway.dense.requires_grad_(True)
        self.config = config
        self.views = LabelledViews(
            samples, shares=weights, seed=config.seed, view=config.view, paste=0.0
        )
        self.draw = WordDraw(bank, self.views.samples, config=config.words)
        self.words = WordLoss(self.head, config=config.words)

    def rates(self) -> list[RatedPart]:
        """The head alone, at `rate`."""
        return [RatedPart(module=self.head)]

    def step_loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Loss of step n."""
        config = self.config
        batch = self.views.batch(step, config.photos_per_step)
        rng = np.random.default_rng((config.seed, step, 1))
        side = config.view.image_size
        maps = trunk_maps(self.visual, [item.view for item in batch], side=side)
        return self.words(self.head.features(maps), self.draw(batch, rng))
