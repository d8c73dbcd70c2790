"""The last stage of `tiny`: masks and words in one backbone.

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
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textsam.clip.pathway import TextPathway
from textsam.modeling.features import ImageFeatures
from textsam.modeling.prompt_encoder import BACKGROUND, BOX_START, FOREGROUND, PromptBatch
from textsam.modeling.sam import Sam

from ..clicks import central_pixels, mixed_pixels
from ..data import Sample, ViewConfig
from ..engine import RatedPart
from ..losses import LossConfig, prediction_loss, soft_target
from ..prompting import PromptConfig, first_prompts
from .concepts import ConceptBank
from .labelled_views import LabelledView, LabelledViews
from .text_prompts import with_phrases
from .tiny import freeze_backbone, prompt_figures, text_and_point, timm_encoder
from .word_loss import WordConfig, WordLoss, maps_by_photo

__all__ = ["JOINT_SOURCES", "JointConfig", "JointTrainer"]

# Share of the photos drawn from each file: COCO's more than its size, for its 80 names.
JOINT_SOURCES = {
    "voc": 0.27,
    "named_objects": 0.20,
    "clothing": 0.08,
    "coco_person": 0.06,
    "car_parts": 0.13,
    "coco": 0.18,
    "coco_panoptic": 0.08,
}


@dataclass(frozen=True, kw_only=True)
class JointConfig:
    """Everything that decides what the stage makes.

    Attributes:
        seed: Of every random choice.
        photos_per_step: Views of a step.
        masks_per_photo: Most masks of a view that are prompted.
        new_points: Most points that come before each round; the first has its first prompt.
        central: Share of the points that lie in the middle of what they mean.
        text_share: Probability that a photo's masks are asked by phrase.
        with_point: Share of those phrases that come with a point, as `auto` asks.
        paste: Probability that a view gets an object of another photo.
        word_weight: Of the words' loss beside the masks'.
        decoder_rate: Learning rate of the decoder, the prompt encoder and the neck.
        head_rate: Of the pathway: the dense head and the token's projection.
        backbone_rate: Of the backbone.
        weight_decay: Of matrices and kernels.
        frozen_stages: First stages of the backbone that stay ImageNet's, beside its norms and
            depthwise kernels.
        min_area: Smaller masks are not prompted, pixels.
        max_share: Nor larger ones, as a share of the picture (Appendix A).
        view: How a photo is shown, all of its masks.
        words: The words' loss.
        prompts: First prompts.
        loss: The masks' loss.
    """

    seed: int = 2
    photos_per_step: int = 8
    masks_per_photo: int = 4
    new_points: tuple[int, ...] = (1, 1, 2, 4)
    central: float = 0.5
    text_share: float = 0.35
    with_point: float = 0.4
    paste: float = 0.35
    word_weight: float = 1.0
    decoder_rate: float = 5e-4
    head_rate: float = 1e-3
    backbone_rate: float = 1e-4
    weight_decay: float = 0.05
    frozen_stages: int = 2
    min_area: int = 40
    max_share: float = 0.9
    view: ViewConfig = field(
        default_factory=lambda: ViewConfig(
            image_size=384, max_masks=80, min_area=4, max_share=1.0, focus=0.3
        )
    )
    words: WordConfig = field(default_factory=WordConfig)
    prompts: PromptConfig = field(default_factory=PromptConfig)
    loss: LossConfig = field(default_factory=LossConfig)


@dataclass(frozen=True, kw_only=True)
class _Prompted:
    """The masks of a batch that are prompted.

    Attributes:
        masks: (P, S, S) bool.
        void: (P, S, S) bool.
        photos: (P,) int64, rising.
        labels: P names.
        keys: P keys, see `LabelledView`.
    """

    masks: Tensor
    void: Tensor
    photos: Tensor
    labels: tuple[str, ...]
    keys: tuple[tuple[int, int, int], ...]


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
        self.sam, self.pathway, self.bank, self.config = sam, pathway, bank, config
        self.head = pathway.dense
        self.views = LabelledViews(
            samples, shares=shares, seed=config.seed, view=config.view, paste=config.paste
        )
        self.words = WordLoss(self.head, bank, self.views.samples, config=config.words)
        backbone = timm_encoder(sam).backbone
        freeze_backbone(backbone, stages=config.frozen_stages)
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
        config = self.config
        batch = self.views.batch(step, config.photos_per_step)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        rng = np.random.default_rng((config.seed, step, 1))
        pixels = self.sam.preprocess([item.view.pixels for item in batch])
        features = self.sam.encode_image(pixels.to(memory_format=torch.channels_last))
        dense = self.head.features(features.pyramid)
        words, figures = self.words(dense, batch, rng)
        figures["words"] = words.item()
        chosen = self._choose(batch, rng)
        if chosen is None:
            return config.word_weight * words, figures
        prompts = first_prompts(chosen.masks, chosen.photos, generator, config=config.prompts)
        prompts = self._central_first(prompts, chosen.masks, generator)
        prompts = self._spoken(prompts, dense, chosen, generator, rng)
        masks, more = self._rounds(features, prompts, chosen, generator)
        return masks + config.word_weight * words, figures | more

    def _choose(self, batch: Sequence[LabelledView], rng: np.random.Generator) -> _Prompted | None:
        """Some masks of a useful size of each view."""
        rows: list[tuple[int, int]] = []
        for number, item in enumerate(batch):
            area = item.view.masks.flatten(1).sum(1).tolist()
            most = self.config.max_share * item.view.pixels[0].numel()
            usable = [i for i, a in enumerate(area) if self.config.min_area <= a <= most]
            drawn = rng.permutation(usable)[: self.config.masks_per_photo]
            rows += [(number, int(i)) for i in drawn]
        if not rows:
            return None
        return _Prompted(
            masks=torch.stack([batch[n].view.masks[i] for n, i in rows]),
            void=torch.stack([batch[n].view.void for n, _ in rows]),
            photos=torch.tensor([n for n, _ in rows]),
            labels=tuple(batch[n].labels[i] for n, i in rows),
            keys=tuple(batch[n].keys[i] for n, i in rows),
        )

    def _central_first(
        self, prompts: PromptBatch, masks: Tensor, generator: torch.Generator
    ) -> PromptBatch:
        """Move some first points to the middle of their mask."""
        middle = central_pixels(masks, generator)
        moved = torch.rand(len(masks), generator=generator) < self.config.central
        moved &= prompts.labels[:, 0] == FOREGROUND
        points = prompts.points.clone()
        points[:, 0] = torch.where(moved[:, None], middle, points[:, 0])
        return replace(prompts, points=points)

    def _spoken(
        self,
        prompts: PromptBatch,
        dense: Tensor,
        chosen: _Prompted,
        generator: torch.Generator,
        rng: np.random.Generator,
    ) -> PromptBatch:
        """CLIP token and dense map in place of a first point or box, for some of the photos."""
        photos = int(chosen.photos.max()) + 1
        asked = torch.rand(photos, generator=generator) < self.config.text_share
        known = torch.tensor([label in self.bank.index for label in chosen.labels])
        rows = torch.nonzero(asked[chosen.photos] & known)[:, 0]
        if not len(rows):
            return prompts
        query = torch.stack([self._query(chosen, int(i), rng) for i in rows])
        with torch.no_grad():
            maps = maps_by_photo(self.head, dense, chosen.photos[rows], query)
            side = self.sam.config.mask_size
            maps = F.interpolate(maps[:, None], (side, side), mode="bilinear")
        pointed = torch.rand(len(rows), generator=generator) < self.config.with_point
        points = mixed_pixels(chosen.masks[rows], generator, central=self.config.central)
        return with_phrases(
            prompts, rows, tokens=self.pathway(query), maps=maps, points=points, pointed=pointed
        )

    def _query(self, chosen: _Prompted, row: int, rng: np.random.Generator) -> Tensor:
        """The object's own crop, the paper's prompt, or its label."""
        own = self.bank.crop_of_object(chosen.keys[row], rng) if rng.random() < 0.5 else None
        return self.bank.text_of(chosen.labels[row]) if own is None else own

    def _rounds(
        self,
        features: ImageFeatures,
        prompts: PromptBatch,
        chosen: _Prompted,
        generator: torch.Generator,
    ) -> tuple[Tensor, dict[str, float]]:
        """Prompt, predict, correct: the mean loss of the rounds."""
        size = self.sam.config.mask_size
        target = soft_target(chosen.masks, size)[:, None]
        weight = 1 - soft_target(chosen.void, size)[:, None]
        everything = torch.ones(len(chosen.masks), dtype=torch.bool)
        total = torch.zeros(())
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
                prompts = self._corrected(prompts, logits.detach(), chosen, generator, count)
        return total / rounds, figures

    @torch.no_grad()
    def _corrected(
        self,
        prompts: PromptBatch,
        logits: Tensor,
        chosen: _Prompted,
        generator: torch.Generator,
        count: int,
    ) -> PromptBatch:
        """The logits as mask prompt, and `count` more points in the error; none refines only."""
        predicted = self.sam.to_model_frame(logits)[:, 0] > 0
        error = (predicted ^ chosen.masks) & ~chosen.void
        wrong = error.flatten(1).any(1)[:, None, None]
        region = torch.where(wrong, error, chosen.masks)
        points, labels = [prompts.points], [prompts.labels]
        rows = torch.arange(len(region))
        for _ in range(count):
            point = mixed_pixels(region, generator, central=self.config.central, split=chosen.masks)
            x, y = point.long().unbind(1)
            inside = chosen.masks[rows, y, x]
            points.append(point[:, None])
            labels.append(torch.where(inside, FOREGROUND, BACKGROUND)[:, None])
        return replace(
            prompts,
            points=torch.cat(points, dim=1),
            labels=torch.cat(labels, dim=1),
            masks=logits,
            has_mask=None,
        )
