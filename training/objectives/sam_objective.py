"""Training of the promptable core on simulated points and boxes (arXiv 2304.02643, Appendix A).

Works for any `Sam`: ViT, TinyViT or a timm backbone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from textsam.modeling.image_encoder import ImageFeatures, TimmEncoder
from textsam.modeling.mask_decoder import BOX_START, Attention
from textsam.modeling.sam import Sam

from ..data.batch import ViewBatch
from ..engine.optim import RatedPart
from ..losses import LossConfig
from ..prompting import PromptConfig
from .base import LossOutput, Objective, mean_where, touch
from .rounds import RoundLosses, decode_rounds, set_decoder_dropout, start_rounds

SamPart = Literal["image_encoder", "prompt_encoder", "mask_decoder"]


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """How a timm backbone is trained apart from the layers on top of it, which start random."""

    rate: float = 1.0  # Share of the encoder's learning rate
    # Number of first stages to freeze, together with the stem and all norms; None to train the
    # whole backbone
    frozen_stages: int | None = None
    # Whether to train depthwise kernels. Their gradient is slow on a CPU and worth little in a
    # short run.
    train_depthwise: bool = True
    # Share of the encoder's rate for its context and neck blocks, which start as the identity
    added_rate: float = 1.0

    def rates(self, sam: Sam, *, share: float = 1.0) -> list[RatedPart]:
        """The parts of the image encoder; `share` of the peak rate is the encoder's."""
        encoder = timm_encoder(sam)
        fresh = nn.ModuleList([encoder.laterals, encoder.neck, encoder.skips])
        added = nn.ModuleList([encoder.context, encoder.blocks])
        parts = ((fresh, 1.0), (added, self.added_rate), (encoder.backbone, self.rate))
        return [
            RatedPart(module=module, share=share * rate)
            for module, rate in parts
            if any(True for _ in module.parameters())
        ]


@dataclass(frozen=True, kw_only=True)
class SamObjectiveConfig:
    """What is trained and on which prompts."""

    # Prompt simulation; its numbers decide the number of rounds
    prompts: PromptConfig = field(default_factory=PromptConfig)
    loss: LossConfig = field(default_factory=LossConfig)  # Weights of the loss
    frozen: tuple[SamPart, ...] = ()  # Parts that are not trained
    # Rate in training (the paper's is 0.1); None keeps the model's
    decoder_dropout: float | None = None
    fixed_norms: bool = True  # Keep the statistics of batch norms, see `Objective.freeze`
    # A first box also trains mask 0, which answers a box in use. In the paper a box alone has
    # three readings.
    box_trains_single: bool = False
    encoder_rate: float = 1.0  # Share of the peak rate for the image encoder
    # Factor from each of its layers to the one before (Appendix A: 0.8; ViT-B 0.6)
    layer_decay: float | None = None
    # How a timm backbone is trained apart from the rest of its encoder. Other than its default it
    # replaces `layer_decay`.
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    recompute: bool = True  # Checkpoint each round, see `objectives.rounds`


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
        if config.backbone != BackboneConfig():
            freeze_backbone(sam, config=config.backbone)
        self.freeze(config.frozen, fixed_norms=config.fixed_norms)

    def forward(self, batch: ViewBatch) -> LossOutput:
        """Mean loss over the batch's masks, and IoU by kind of first prompt and by round."""
        batch = batch.to(self.sam.pixel_mean.device)
        truth, simulator = start_rounds(self.sam, batch, config=self.config.prompts)
        prompts = simulator.first()
        boxed = (prompts.labels == BOX_START).any(1)
        features = encode_views(self.sam, batch, frozen="image_encoder" in self.config.frozen)
        result = decode_rounds(
            self.sam,
            features,
            prompts,
            simulator,
            truth,
            loss=self.config.loss,
            single=boxed if self.config.box_trains_single else torch.zeros_like(boxed),
            multiple=torch.ones_like(boxed),
            recompute=self.config.recompute,
        )
        loss = touch(result.loss.mean(), [self.sam.prompt_encoder, self.sam.mask_decoder])
        return LossOutput(loss, round_figures(result, {"point": ~boxed, "box": boxed}))

    def rates(self) -> list[RatedPart]:
        """The parts that are not frozen; the image encoder at its own rate."""
        config, parts = self.config, []
        for name in self.trained():
            if name != "image_encoder":
                parts.append(RatedPart(module=self.part(name)))
            elif config.backbone != BackboneConfig():
                parts += config.backbone.rates(self.sam, share=config.encoder_rate)
            else:
                parts.append(
                    RatedPart(
                        module=self.part(name),
                        share=config.encoder_rate,
                        layer_decay=config.layer_decay,
                    )
                )
        return parts


def timm_encoder(sam: Sam) -> TimmEncoder:
    """The image encoder of a core that has a timm backbone."""
    if not isinstance(sam.image_encoder, TimmEncoder):
        kind = type(sam.image_encoder).__name__
        raise ValueError(f"the image encoder is {kind}; wanted one with a timm backbone")
    return sam.image_encoder


def freeze_backbone(sam: Sam, *, config: BackboneConfig) -> None:
    """Freeze the parts of a timm backbone that are not trained."""
    kept = config.frozen_stages
    stages = () if kept is None else ("conv_stem", *(f"blocks.{i}." for i in range(kept)))
    for name, parameter in timm_encoder(sam).backbone.named_parameters():
        early = kept is not None and (name.startswith(stages) or "bn" in name)
        if early or ("conv_dw" in name and not config.train_depthwise):
            parameter.requires_grad_(False)


@torch.no_grad()
def align_positions(sam: Sam, *, gain: float = 1.6) -> None:
    """Start every attention between tokens and image with equal query and key projections.

    Query times key is then a kernel that peaks where the positions agree: a point token looks at
    its own place, and that place at the token, before anything is learned. With independent
    projections attention starts flat, and locking onto the click took most of a short run.
    """
    for module in sam.mask_decoder.transformer.modules():
        # Attention between tokens and image has half the width; the tokens' own has all of it.
        if isinstance(module, Attention) and module.q_proj.out_features < sam.config.embed_dim:
            nn.init.orthogonal_(module.q_proj.weight, gain=gain)
            module.k_proj.weight.copy_(module.q_proj.weight)
            nn.init.zeros_(module.q_proj.bias)
            nn.init.zeros_(module.k_proj.bias)


def encode_views(sam: Sam, batch: ViewBatch, *, frozen: bool) -> ImageFeatures:
    """Encode a batch's photos; a frozen encoder keeps no activations."""
    pixels = sam.preprocess(batch.pixels)
    if isinstance(sam.image_encoder, TimmEncoder):  # convolutions: faster, the same numbers
        pixels = pixels.to(memory_format=torch.channels_last)
    with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
        return sam.encode_image(pixels)


def round_figures(result: RoundLosses, kinds: dict[str, Tensor]) -> dict[str, Tensor | float]:
    """Mean IoU of the first round by kind of prompt, and of every later round."""
    figures: dict[str, Tensor | float] = {
        f"iou_{name}": mean_where(result.iou[:, 0], rows) for name, rows in kinds.items()
    }
    for index in range(1, result.iou.shape[1]):
        figures[f"iou_{index + 1}"] = result.iou[:, index].mean()
    return figures
