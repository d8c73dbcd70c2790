"""Points, boxes and phrases mixed, as `finetune` needs them: a trained model must forget nothing.

A phrase is asked in training as it is in use: where the pathway has a dense head, its map goes in
beside the CLIP token. Small masks are asked by name or by point, never by their crop, in which CLIP
would see too little (Appendix D.5).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from textsam.clip.pathway import tower_maps
from textsam.modeling.image_encoder import ImageFeatures
from textsam.modeling.prompt_encoder import BOX_START, PromptBatch

from ..prompting import PromptSimulator, sample_pixels, token_prompts
from .base import LossOutput, touch
from .crops import least_area
from .pathway import PathwayObjective
from .rounds import Truth, decode_rounds
from .sam import photo_random, round_figures

if TYPE_CHECKING:
    from ..data import ViewBatch

__all__ = ["PhraseObjective"]


class PhraseObjective(PathwayObjective):
    """Loss of a batch of views: `clip_share` of the masks by phrase, the others by point or box.

    The CLIP tower is frozen, and so is the dense head. A lone box trains mask 0, with which
    `ImageView` answers it, beside the three readings.
    """

    def forward(self, batch: ViewBatch) -> LossOutput:
        """Mean loss over the batch's masks, and IoU by kind of first prompt and by round."""
        batch = batch.to(self.sam.pixel_mean.device)
        self._check_centres()
        truth = Truth.of(batch, mask_size=self.sam.config.mask_size)
        simulator = PromptSimulator(
            truth.masks,
            batch.image_index,
            photo_random(batch, stream="prompts"),
            config=self.config.prompts,
            ignore=truth.ignore,
        )
        features = self._features(batch)
        prompts, named = self._mixed(batch, simulator, features)
        asked = prompts.has_tokens
        assert asked is not None
        clicked = asked & (prompts.labels == 1).any(1)
        boxed = (prompts.labels == BOX_START).any(1)
        result = decode_rounds(
            self.sam,
            features,
            prompts,
            simulator,
            truth,
            loss=self.config.loss,
            single=clicked | boxed,
            multiple=~clicked,
            recompute=self.config.recompute,
        )
        parts = [self.sam.prompt_encoder, self.sam.mask_decoder, self.pathway]
        loss = touch(result.loss.mean(), [*parts, self.clip_model])
        alone = asked & ~clicked
        kinds = {"image": alone & ~named, "label": alone & named, "clicked": clicked}
        kinds |= {"point": ~asked & ~boxed, "box": boxed}
        return LossOutput(loss, round_figures(result, kinds))

    def _mixed(
        self, batch: ViewBatch, simulator: PromptSimulator, features: ImageFeatures
    ) -> tuple[PromptBatch, Tensor]:
        """First prompts, and which masks (P,) are asked by their name."""
        config, device = self.config, batch.masks.device
        prompts = simulator.first()
        chance = photo_random(batch, stream="kinds").uniform(3)
        names = [name for labels in batch.labels for name in labels]
        known = torch.tensor([bool(name) for name in names], dtype=torch.bool)
        large = batch.masks.flatten(1).sum(1).cpu() >= least_area(batch.masks.shape[-1])
        asked = (chance[:, 0] < config.clip_share) & (known | large)
        named = asked & known & ((chance[:, 1] < config.label_share) | ~large)
        clicked = asked & (chance[:, 2] < config.point_share)
        query = self._embeddings(batch, names, asked, named)
        points = sample_pixels(batch.masks, photo_random(batch, stream="clicks"))
        asked, named, clicked = (rows.to(device) for rows in (asked, named, clicked))
        prompts = token_prompts(
            prompts, self.pathway(query), has_tokens=asked, with_point=clicked, points=points
        )
        return self._with_maps(batch, prompts, query, features), named

    @torch.no_grad()
    def _with_maps(
        self, batch: ViewBatch, prompts: PromptBatch, query: Tensor, features: ImageFeatures
    ) -> PromptBatch:
        """The dense maps of the phrases as mask prompts, if the pathway has a dense head."""
        dense, asked = self.pathway.dense, prompts.has_tokens
        if dense is None or asked is None or not asked.any():
            return prompts
        maps = features.pyramid
        if self.pathway.config.dense_source == "clip":
            maps = tuple(self._tower_maps(batch))
        rows = asked.nonzero()[:, 0]
        aligned = dense.features(maps)
        logits = dense.logits(aligned[batch.image_index[rows]], query[rows])
        size = self.sam.config.mask_size
        masks = torch.zeros(len(prompts), 1, size, size, device=query.device)
        masks[rows] = F.interpolate(logits[:, None], (size, size), mode="bilinear").float()
        return replace(prompts, masks=masks, has_mask=asked)

    def _tower_maps(self, batch: ViewBatch) -> list[Tensor]:
        """Maps of CLIP's tower for the views, padded as the model frame is."""
        side = batch.masks.shape[-1]
        framed = torch.zeros(len(batch), 3, side, side, device=batch.masks.device)
        for row, pixels in zip(framed, batch.pixels, strict=True):
            height, width = pixels.shape[1:]
            row[:, :height, :width] = self.clip.normalize(pixels[None])[0]
        strides = self.pathway.config.dense_strides
        return tower_maps(self.clip_model.visual, framed, strides=strides)
