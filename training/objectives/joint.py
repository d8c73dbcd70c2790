"""Training of masks and of a dense text head together, on one backbone.

A photo is encoded once for two losses: prompts to masks, as in the paper, and names to maps. A
phrase is prompted as in use: the CLIP token together with the dense map as mask prompt, with or
without a point. Beyond the paper, for a prompt that means one object (a box, a phrase with a point)
mask 0 is fed back, which answers it in use, and not the best of the three readings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from textsam.clip.encoder import ClipEncoder
from textsam.clip.pathway import DenseTextHead, TextPathway
from textsam.modeling.image_encoder import ImageFeatures
from textsam.modeling.mask_decoder import BOX_START, PromptBatch
from textsam.modeling.sam import Sam

from ..data.phrases.phrase_batch import PhraseBatch
from ..engine.optim import RatedPart
from ..losses import LossConfig
from ..prompting import PromptConfig, mixed_pixels, token_prompts
from .base import LossOutput, Objective, touch
from .name_maps import NameLossConfig, name_losses, phrase_maps, view_tower_maps
from .randomness import photo_random
from .rounds import decode_rounds, start_rounds
from .sam_objective import (
    BackboneConfig,
    SamObjective,
    encode_views,
    freeze_backbone,
    round_figures,
)


@dataclass(frozen=True, kw_only=True)
class JointObjectiveConfig:
    """What is trained, and the weights of the losses."""

    # Prompt simulation; its numbers decide the number of rounds
    prompts: PromptConfig = field(default_factory=PromptConfig)
    loss: LossConfig = field(default_factory=LossConfig)  # The masks' loss
    # The loss of the dense head's maps
    names: NameLossConfig = field(default_factory=NameLossConfig)
    names_weight: float = 1.0  # Its weight beside the masks'
    # Whether to train the dense head, or only the projection of the CLIP token
    train_dense: bool = True
    # How the backbone is trained
    backbone: BackboneConfig = field(
        default_factory=lambda: BackboneConfig(rate=0.2, frozen_stages=2, train_depthwise=False)
    )
    pathway_rate: float = 1.0  # Share of the peak rate for the pathway
    recompute: bool = False  # Checkpoint each round, see `objectives.rounds`


class JointObjective(Objective):
    """Losses of a `PhraseBatch`: of its masks, and of the names asked of the dense head."""

    PARTS: ClassVar = {**SamObjective.PARTS, "pathway": "pathway", "clip": "clip_model"}

    def __init__(
        self,
        sam: Sam,
        pathway: TextPathway,
        *,
        config: JointObjectiveConfig,
        clip: ClipEncoder | None = None,
    ) -> None:
        super().__init__()
        reads_clip = pathway.config.dense_source == "clip"
        if pathway.dense is None or (reads_clip and (clip is None or config.train_dense)):
            raise ValueError(
                f"dense_source is {pathway.config.dense_source!r}; masks and names are trained "
                "together with a dense head on the SAM's own maps. Type: PathwayConfig("
                'dense_channels=..., dense_source="sam"), or give clip and train_dense=False'
            )
        self.sam, self.pathway, self.config = sam, pathway, config
        self.clip = clip if reads_clip else None
        self.clip_model = None if self.clip is None else self.clip.model
        freeze_backbone(sam, config=config.backbone)
        pathway.dense.requires_grad_(config.train_dense)
        self.freeze([] if self.clip_model is None else ["clip"], fixed_norms=True)

    def forward(self, batch: PhraseBatch) -> LossOutput:
        """Losses by kind, and IoU by kind of first prompt, by round, and of the names' maps."""
        batch = batch.to(self.sam.pixel_mean.device)
        features = encode_views(self.sam, batch.views, frozen=False)
        dense = self._dense_features(batch, features)
        losses, figures = self._mask_loss(batch, features, dense)
        trained = [self.sam.prompt_encoder, self.sam.mask_decoder, self.pathway]
        # Names come after the masks: the engine weights figures by the items of the first loss.
        parts = {"masks": touch(losses, trained)}
        if batch.names is not None:
            named = name_losses(self._head, dense, batch.names, config=self.config.names)
            assert isinstance(named.loss, dict)
            parts |= {kind: self.config.names_weight * loss for kind, loss in named.loss.items()}
            figures |= named.figures
        return LossOutput(parts, figures)

    def rates(self) -> list[RatedPart]:
        """The backbone and the pathway at rates of their own, the rest at the peak rate."""
        return [
            *self.config.backbone.rates(self.sam),
            RatedPart(module=self.sam.prompt_encoder),
            RatedPart(module=self.sam.mask_decoder),
            RatedPart(module=self.pathway, share=self.config.pathway_rate),
        ]

    @property
    def _head(self) -> DenseTextHead:
        assert self.pathway.dense is not None
        return self.pathway.dense

    def _dense_features(self, batch: PhraseBatch, features: ImageFeatures) -> Tensor:
        """(B, D, h8, w8) of the dense head."""
        if self.clip is None:
            return self._head.features(features.pyramid)
        with torch.no_grad():
            strides = self.pathway.config.dense_strides
            return self._head.features(view_tower_maps(self.clip, batch.views, strides=strides))

    def _mask_loss(
        self, batch: PhraseBatch, features: ImageFeatures, dense: Tensor
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Mean loss over the masks, and figures."""
        views = batch.views
        truth, simulator = start_rounds(self.sam, views, config=self.config.prompts)
        prompts = self._with_phrases(batch, simulator.first(), dense)
        boxed = (prompts.labels == BOX_START).any(1)
        # Prompts that mean one object: mask 0 answers them.
        clear = boxed | batch.clicked
        result = decode_rounds(
            self.sam,
            features,
            prompts,
            simulator,
            truth,
            loss=self.config.loss,
            single=clear,
            multiple=torch.ones_like(clear),
            follow_single=clear,
            recompute=self.config.recompute,
        )
        alone = batch.spoken & ~batch.clicked
        kinds = {"text": alone, "text_point": batch.clicked, "box": boxed}
        kinds["point"] = ~batch.spoken & ~boxed
        # A process may have no mask in a batch whose other processes have some.
        return result.loss.sum() / max(1, len(result.loss)), round_figures(result, kinds)

    def _with_phrases(self, batch: PhraseBatch, prompts: PromptBatch, dense: Tensor) -> PromptBatch:
        """First prompts, with CLIP token and dense map where a phrase asks."""
        points = mixed_pixels(
            batch.views.masks,
            photo_random(batch.views, stream="clicks"),
            central=self.config.prompts.central,
        )
        size = self.sam.config.mask_size
        photos, queries = batch.views.image_index, batch.queries
        maps = phrase_maps(self._head, dense, photos, queries, spoken=batch.spoken, size=size)
        return token_prompts(
            prompts,
            self.pathway(queries),
            has_tokens=batch.spoken,
            with_point=batch.clicked,
            points=points,
            maps=maps,
        )
