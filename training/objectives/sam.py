"""Training of the promptable core: image encoder and decoder on simulated prompts (Appendix A).

Works for any `Sam`: ViT, TinyViT or a timm backbone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from textsam.modeling.image_encoder import ImageFeatures
from textsam.modeling.prompt_encoder import BOX_START, PromptBatch
from textsam.modeling.sam import Sam

from ..losses import LossConfig
from ..prompting import PromptConfig, PromptSimulator
from .base import LossOutput, Objective, mean_where, touch
from .randomness import PhotoRandom
from .rounds import RoundLosses, Truth, decode_rounds, set_decoder_dropout

if TYPE_CHECKING:
    from ..data.batch import ViewBatch
    from ..engine.optim import RatedPart

__all__ = [
    "SamObjective",
    "SamObjectiveConfig",
    "SamPart",
    "encode_views",
    "photo_random",
    "round_figures",
]

SamPart = Literal["image_encoder", "prompt_encoder", "mask_decoder"]


@dataclass(frozen=True, kw_only=True)
class SamObjectiveConfig:
    """What is trained and on which prompts.

    Attributes:
        prompts: Prompt simulation; its numbers decide the number of rounds.
        loss: Weights of the loss.
        frozen: Parts that are not trained.
        decoder_dropout: Rate while training (the paper's is 0.1); that of the model when None.
        fixed_norms: Keep the statistics of batch norms, see `Objective.freeze`.
        box_trains_single: A first box trains mask 0, too. In the paper a box alone is a single
            prompt and has three readings; but `ImageView` answers a box with mask 0.
        encoder_rate: Share of the peak rate that the image encoder learns at.
        layer_decay: Factor from each of its layers to the one before (Appendix A: 0.8; ViT-B 0.6).
        recompute: Checkpoint each round, see `objectives.rounds`.
    """

    prompts: PromptConfig = field(default_factory=PromptConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    frozen: tuple[SamPart, ...] = ()
    decoder_dropout: float | None = None
    fixed_norms: bool = True
    box_trains_single: bool = False
    encoder_rate: float = 1.0
    layer_decay: float | None = None
    recompute: bool = True


class SamObjective(Objective):
    """Loss of a batch of views, prompted by points and boxes."""

    PARTS: ClassVar[dict[str, str]] = {
        "image_encoder": "sam.image_encoder",
        "prompt_encoder": "sam.prompt_encoder",
        "mask_decoder": "sam.mask_decoder",
    }

    def __init__(self, sam: Sam, *, config: SamObjectiveConfig) -> None:
        super().__init__()
        self.sam = sam
        self.config = config
        if config.decoder_dropout is not None:
            set_decoder_dropout(sam, config.decoder_dropout)
        self.freeze(config.frozen, fixed_norms=config.fixed_norms)

    def forward(self, batch: ViewBatch) -> LossOutput:
        """Mean loss over the batch's masks, and IoU by kind of first prompt and by round."""
        batch = batch.to(self.sam.pixel_mean.device)
        truth = Truth.of(batch, mask_size=self.sam.config.mask_size)
        simulator = PromptSimulator(
            truth.masks,
            batch.image_index,
            photo_random(batch, stream="prompts"),
            config=self.config.prompts,
            ignore=truth.ignore,
        )
        prompts = simulator.first()
        boxed = (prompts.labels == BOX_START).any(1)
        features = encode_views(self.sam, batch, frozen="image_encoder" in self.config.frozen)
        result = self._rounds(features, prompts, simulator, truth, boxed)
        loss = touch(result.loss.mean(), [self.sam.prompt_encoder, self.sam.mask_decoder])
        return LossOutput(loss, round_figures(result, {"point": ~boxed, "box": boxed}))

    def rates(self) -> list[RatedPart]:
        """The parts that are not frozen; the image encoder at its own rate."""
        from ..engine.optim import RatedPart

        shares = {"image_encoder": self.config.encoder_rate}
        return [
            RatedPart(
                module=self.part(name),
                share=shares.get(name, 1.0),
                layer_decay=self.config.layer_decay if name == "image_encoder" else None,
            )
            for name in self.trained()
        ]

    def _rounds(
        self,
        features: ImageFeatures,
        prompts: PromptBatch,
        simulator: PromptSimulator,
        truth: Truth,
        boxed: Tensor,
    ) -> RoundLosses:
        config = self.config
        return decode_rounds(
            self.sam,
            features,
            prompts,
            simulator,
            truth,
            loss=config.loss,
            single=boxed if config.box_trains_single else torch.zeros_like(boxed),
            multiple=torch.ones_like(boxed),
            recompute=config.recompute,
        )


def photo_random(batch: ViewBatch, *, stream: str) -> PhotoRandom:
    """Random numbers for the masks of a batch."""
    return PhotoRandom(batch.seeds, [len(view.masks) for view in batch.views], stream=stream)


def encode_views(sam: Sam, batch: ViewBatch, *, frozen: bool) -> ImageFeatures:
    """Encode a batch's photos; a frozen encoder keeps no activations."""
    with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
        return sam.encode_image(sam.preprocess(batch.pixels))


def round_figures(result: RoundLosses, kinds: dict[str, Tensor]) -> dict[str, Tensor | float]:
    """Mean IoU of the first round by kind of prompt, and of every later round."""
    figures: dict[str, Tensor | float] = {
        f"iou_{name}": mean_where(result.iou[:, 0], rows) for name, rows in kinds.items()
    }
    for index in range(1, result.iou.shape[1]):
        figures[f"iou_{index + 1}"] = result.iou[:, index].mean()
    return figures
