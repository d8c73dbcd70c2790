"""The last stages of `tiny`: masks and words in one backbone.

One photo is encoded once and serves two losses: prompts to masks, as in the paper, and phrases to
maps, the dense text head's. The head reads the SAM's own backbone, so words shape the features that
masks are cut from, and a phrase costs no second pass over the photo.

Beyond the paper: a share of the views is cut around one object, as `focus` does in use; objects of
other photos are pasted in, so that a phrase must choose; later rounds add up to four error points
at once, or none, in place of eleven rounds with one each; and half of the points lie in the middle
of an error, where a person would click.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textsam.clip.pathway import TextPathway
from textsam.modeling.image_encoder import ImageFeatures
from textsam.modeling.prompt_encoder import BACKGROUND, BOX_START, FOREGROUND, PromptBatch
from textsam.modeling.sam import Sam

from ..clicks import mixed_pixels
from ..data import Sample
from ..engine import RatedPart
from ..losses import prediction_loss, soft_target
from .concepts import ConceptBank
from .joint_batches import JointBatch, JointBatches, PromptedMasks
from .joint_config import JOINT_SOURCES, JointConfig
from .text_prompts import with_phrases
from .tiny import freeze_backbone, prompt_figures, text_and_point, timm_encoder
from .word_loss import WordLoss, maps_by_photo

__all__ = ["JOINT_SOURCES", "JointConfig", "JointTrainer"]


class JointTrainer:
    """One optimisation step: a batch of photos, words and a few rounds of prompts."""

    def __init__(
        self,
        sam: Sam,
        pathway: TextPathway,
        bank: ConceptBank,
        samples: Mapping[str, Sequence[Sample]],
        *,
        config: JointConfig,
        shares: Mapping[str, float] = JOINT_SOURCES,
    ) -> None:
        if pathway.dense is None or pathway.config.dense_source != "sam":
            raise ValueError(
                "the joint stage trains a dense head on the SAM's own maps: make the pathway with "
                'PathwayConfig(dense_channels=..., dense_source="sam")'
            )
        self.sam, self.pathway, self.config = sam, pathway, config
        self.head = pathway.dense
        self.draw = JointBatches(bank, samples, config=config, shares=shares)
        self.words = WordLoss(self.head, config=config.words)
        backbone = timm_encoder(sam).backbone
        freeze_backbone(backbone, stages=config.frozen_stages, depthwise=not config.train_depthwise)
        sam.train()
        backbone.eval()  # the norms keep ImageNet's statistics

    def rates(self) -> list[RatedPart]:
        """The parts and their share of `decoder_rate`."""
        encoder, config = timm_encoder(self.sam), self.config
        fresh = [encoder.laterals, encoder.neck, encoder.skips]
        core = nn.ModuleList([*fresh, self.sam.prompt_encoder, self.sam.mask_decoder])
        peak = config.decoder_rate
        return [
            RatedPart(module=core, share=1.0),
            RatedPart(module=encoder.backbone, share=config.backbone_rate / peak),
            RatedPart(module=self.pathway, share=config.head_rate / peak),
        ]

    def step_loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Loss of step n, and its figures."""
        return self.batch_loss(self.draw(step).to(self.sam.pixel_mean.device))

    def batch_loss(self, batch: JointBatch) -> tuple[Tensor, dict[str, float]]:
        """Loss of a batch on the networks' device, and its figures."""
        pixels = self.sam.preprocess(batch.pictures())
        features = self.sam.encode_image(pixels.to(memory_format=torch.channels_last))
        dense = self.head.features(features.pyramid)
        words, figures = self.words(dense, batch.words)
        figures["words"] = words.item()
        total = self.config.word_weight * words
        asked = batch.prompted
        if asked is None:
            return total, figures
        generator = torch.Generator()
        generator.set_state(batch.random)
        prompts = self._with_phrases(asked, dense)
        void = batch.void[asked.photos]
        masks, more = self._rounds(features, prompts, asked.masks, void, generator)
        return masks + total, figures | more

    def _with_phrases(self, asked: PromptedMasks, dense: Tensor) -> PromptBatch:
        """The first prompts, with CLIP token and dense map where a phrase is asked."""
        spoken = asked.spoken
        if spoken is None:
            return asked.first
        with torch.no_grad():
            maps = maps_by_photo(self.head, dense, asked.photos[spoken.rows], spoken.queries)
            side = self.sam.config.mask_size
            maps = F.interpolate(maps[:, None], (side, side), mode="bilinear")
        return with_phrases(
            asked.first,
            spoken.rows,
            tokens=self.pathway(spoken.queries),
            maps=maps,
            points=spoken.points,
            pointed=spoken.pointed,
        )

    def _rounds(
        self,
        features: ImageFeatures,
        prompts: PromptBatch,
        masks: Tensor,
        void: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, dict[str, float]]:
        """Prompt, predict, correct: the mean loss of the rounds."""
        size = self.sam.config.mask_size
        target = soft_target(masks, size)[:, None]
        weight = 1 - soft_target(void, size)[:, None]
        everything = torch.ones(len(masks), dtype=torch.bool, device=masks.device)
        total = torch.zeros((), device=masks.device)
        figures: dict[str, float] = {}
        rounds = len(self.config.new_points)
        for index in range(rounds):
            prediction = self.sam.decode(features, prompts)
            first = index == 0
            boxed = (prompts.labels == BOX_START).any(1)
            clear = boxed | text_and_point(prompts)
            loss, true = prediction_loss(
                prediction.logits,
                prediction.iou,
                target,
                weight,
                config=self.config.loss,
                single=clear if first else everything,
                multiple=everything if first else ~everything,
            )
            total = total + loss
            logits = prediction.single().logits
            if first:  # an unambiguous prompt goes on from its single mask, as in use
                best = prediction.multiple().best().logits
                logits = torch.where(clear[:, None, None, None], logits, best)
            figures |= prompt_figures(index, prediction, true, prompts, boxed)
            if index + 1 < rounds:
                most = self.config.new_points[index + 1]
                count = int(torch.randint(0, most + 1, (), generator=generator))
                prompts = self._corrected(prompts, logits.detach(), masks, void, generator, count)
        return total / rounds, figures

    @torch.no_grad()
    def _corrected(
        self,
        prompts: PromptBatch,
        logits: Tensor,
        masks: Tensor,
        void: Tensor,
        generator: torch.Generator,
        count: int,
    ) -> PromptBatch:
        """The logits as mask prompt, and `count` more points in the error; none refines only."""
        predicted = self.sam.to_model_frame(logits)[:, 0] > 0
        error = (predicted ^ masks) & ~void
        wrong = error.flatten(1).any(1)[:, None, None]
        region = torch.where(wrong, error, masks)
        points, labels = [prompts.points], [prompts.labels]
        rows = torch.arange(len(region), device=region.device)
        for _ in range(count):
            point = mixed_pixels(region, generator, central=self.config.central, split=masks)
            x, y = point.long().unbind(1)
            inside = masks[rows, y, x]
            points.append(point[:, None])
            labels.append(torch.where(inside, FOREGROUND, BACKGROUND)[:, None])
        return replace(
            prompts,
            points=torch.cat(points, dim=1),
            labels=torch.cat(labels, dim=1),
            masks=logits,
            has_mask=None,
        )
