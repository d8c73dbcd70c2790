"""`tiny`, the shipped model's SAM core: points and boxes first, then phrases.

Deviations from the paper (Appendix A), for two CPU cores: an ImageNet EfficientNet-Lite0 instead of
an MAE ViT-H, up to 384 px in training and 512 in use instead of 1024, three or four rounds of
prompts instead of eleven, batches of eight photos. Its early stages and its norms stay frozen:
their gradient is most of the cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from textsam.modeling.config import SamConfig, TimmConfig
from textsam.modeling.image_encoder import ImageFeatures
from textsam.modeling.mask_decoder import MaskPrediction
from textsam.modeling.prompt_encoder import BOX_START, FOREGROUND, PromptBatch
from textsam.modeling.sam import Sam
from textsam.modeling.timm_encoder import TimmEncoder
from textsam.modeling.transformer import Attention

from ..data import Sample, View, ViewConfig, make_view
from ..engine import RatedPart
from ..losses import LossConfig, prediction_loss, soft_target
from ..pretrained import BACKBONE, PIXEL_MEAN, PIXEL_STD, efficientnet_lite_state
from ..prompting import PromptConfig, add_error_points, first_prompts
from .text_prompts import TextPrompts

__all__ = [
    "TINY_SAM",
    "CoreTrainer",
    "PhotoSampler",
    "TinyConfig",
    "align_positions",
    "freeze_backbone",
    "new_tiny_sam",
    "prompt_figures",
    "text_and_point",
    "timm_encoder",
]

TINY_SAM = SamConfig(
    encoder=TimmConfig(name=BACKBONE),
    image_size=512,  # in use; it is trained smaller
    embed_dim=128,
    decoder_heads=4,
    decoder_mlp=512,
    iou_hidden=128,
    first_layer_residual=True,
    pixel_mean=PIXEL_MEAN,
    pixel_std=PIXEL_STD,
)

# Share of the photos drawn from each file of data/train; small and part masks are over-sampled,
# since a core trained on whole things alone takes the salient thing, not the clicked one.
SOURCES = {
    "voc": 0.26,
    "named_objects": 0.16,
    "clothing": 0.11,
    "coco_person": 0.06,
    "car_parts": 0.16,
    "coco": 0.15,
    "coco_panoptic": 0.10,
}
# The last stage sees more whole things, or the first reading of a click is too often a part.
FULL_SOURCES = {
    "voc": 0.28,
    "named_objects": 0.22,
    "clothing": 0.07,
    "coco_person": 0.08,
    "car_parts": 0.12,
    "coco": 0.14,
    "coco_panoptic": 0.09,
}


@dataclass(frozen=True, kw_only=True)
class TinyConfig:
    """Everything that decides what the core becomes."""

    seed: int = 0
    photos_per_step: int = 8
    rounds: int = 3
    decoder_rate: float = 8e-4
    backbone_rate: float = 1e-4
    weight_decay: float = 0.05
    frozen_stages: int = 3
    text_share: float = 0.0
    view: ViewConfig = field(default_factory=ViewConfig)
    prompts: PromptConfig = field(default_factory=PromptConfig)
    loss: LossConfig = field(default_factory=LossConfig)


def new_tiny_sam(*, seed: int, image_size: int) -> Sam:
    """The core with ImageNet weights in its backbone, everything else random.

    No weight depends on `image_size`: a run may start small, where a step costs less than half, and
    go on at the full size.
    """
    torch.manual_seed(seed)
    sam = Sam(replace(TINY_SAM, image_size=image_size))
    state = efficientnet_lite_state()
    backbone = timm_encoder(sam).backbone
    wanted = set(backbone.state_dict())
    backbone.load_state_dict({k: v for k, v in state.items() if k in wanted})
    align_positions(sam)
    return sam.to(memory_format=torch.channels_last)


@torch.no_grad()
def align_positions(sam: Sam, *, gain: float = 1.6) -> None:
    """Start every attention between tokens and image with equal query and key projections.

    Query times key is then a kernel that peaks where the positions agree: a point token looks at
    its own place, and that place at the token, before anything is learned. With independent
    projections attention starts flat, and locking onto the click took most of a short run.
    """
    for module in sam.mask_decoder.transformer.modules():
        if isinstance(module, Attention) and module.q_proj.out_features < sam.config.embed_dim:
            nn.init.orthogonal_(module.q_proj.weight, gain=gain)
            module.k_proj.weight.copy_(module.q_proj.weight)
            nn.init.zeros_(module.q_proj.bias)
            nn.init.zeros_(module.k_proj.bias)


def timm_encoder(sam: Sam) -> TimmEncoder:
    """The image encoder of a core that has a timm backbone."""
    assert isinstance(sam.image_encoder, TimmEncoder)
    return sam.image_encoder


def freeze_backbone(backbone: nn.Module, *, stages: int, depthwise: bool = True) -> None:
    """Freeze the stem, the first stages, every norm and, unless told otherwise, depthwise kernels.

    The gradient of a depthwise kernel is slow on a CPU and worth little in a short run.
    """
    for name, parameter in backbone.named_parameters():
        early = name.startswith(("conv_stem", *(f"blocks.{i}." for i in range(stages))))
        if early or "bn" in name or (depthwise and "conv_dw" in name):
            parameter.requires_grad_(False)


class PhotoSampler:
    """Photos of several files in fixed proportions; batch n is a function of (seed, n)."""

    def __init__(
        self,
        samples: Mapping[str, Sequence[Sample]],
        *,
        seed: int,
        view: ViewConfig,
        shares: Mapping[str, float] = SOURCES,
    ) -> None:
        self.samples = {name: list(rows) for name, rows in samples.items()}
        weights = np.array([shares[name] for name in self.samples])
        self.weights = weights / weights.sum()
        self.seed = seed
        self.view = view

    def batch(self, step: int, count: int) -> list[tuple[str, int, View]]:
        """`count` views with their file and row."""
        rng = np.random.default_rng((self.seed, step))
        names = list(self.samples)
        views: list[tuple[str, int, View]] = []
        while len(views) < count:
            name = names[rng.choice(len(names), p=self.weights)]
            row = int(rng.integers(len(self.samples[name])))
            view = make_view(self.samples[name][row], rng, config=self.view)
            if view is not None:
                views.append((name, row, view))
        return views


class CoreTrainer:
    """One optimisation step of the core: a batch of photos, a few rounds of prompts."""

    def __init__(
        self,
        sam: Sam,
        sampler: PhotoSampler,
        *,
        config: TinyConfig,
        text: TextPrompts | None = None,
    ) -> None:
        self.sam = sam
        self.sampler = sampler
        self.config = config
        self.text = text
        freeze_backbone(timm_encoder(sam).backbone, stages=config.frozen_stages)
        sam.train()
        timm_encoder(sam).backbone.eval()  # the norms keep ImageNet's statistics

    def rates(self) -> list[RatedPart]:
        """The parts and their share of `decoder_rate`; the backbone has its own low rate."""
        encoder, config = timm_encoder(self.sam), self.config
        fresh = [encoder.laterals, encoder.neck, encoder.skips]
        core = nn.ModuleList([*fresh, self.sam.prompt_encoder, self.sam.mask_decoder])
        parts = [
            RatedPart(module=core),
            RatedPart(module=encoder.backbone, share=config.backbone_rate / config.decoder_rate),
        ]
        return parts if self.text is None else [*parts, RatedPart(module=self.text.trainable())]

    def step_loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Loss of step n and mean IoU by round."""
        config = self.config
        batch = self.sampler.batch(step, config.photos_per_step)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        views = [view for _, _, view in batch]
        masks = torch.cat([view.masks for view in views])
        counts = torch.tensor([len(view.masks) for view in views])
        image_index = torch.repeat_interleave(torch.arange(len(views)), counts)
        void = torch.stack([view.void for view in views])[image_index]

        pixels = self.sam.preprocess([view.pixels for view in views])
        features = self.sam.encode_image(pixels.to(memory_format=torch.channels_last))
        prompts = first_prompts(masks, image_index, generator, config=config.prompts)
        if self.text is not None:
            prompts = self.text.mix_in(
                prompts,
                batch,
                generator,
                share=config.text_share,
                mask_size=self.sam.config.mask_size,
            )
        return self._rounds(features, prompts, masks, void, generator)

    def _rounds(
        self,
        features: ImageFeatures,
        prompts: PromptBatch,
        masks: Tensor,
        void: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, dict[str, float]]:
        """Prompt, predict, correct: the loss summed over rounds."""
        size = self.sam.config.mask_size
        target = soft_target(masks, size)[:, None]
        weight = 1 - soft_target(void, size)[:, None]
        everything = torch.ones(len(masks), dtype=torch.bool)
        total = torch.zeros(())
        figures: dict[str, float] = {}
        for index in range(self.config.rounds):
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
            chosen = prediction.multiple().best() if first else prediction.single()
            figures.update(prompt_figures(index, prediction, true, prompts, boxed))
            if index + 1 < self.config.rounds:
                with torch.no_grad():
                    predicted = self.sam.to_model_frame(chosen.logits)[:, 0] > 0
                prompts = add_error_points(
                    prompts, predicted, chosen.logits, masks, generator, ignore=void
                )
        return total / self.config.rounds, figures


def prompt_figures(
    index: int, prediction: MaskPrediction, true: Tensor, prompts: PromptBatch, boxed: Tensor
) -> dict[str, float]:
    """IoU to log: of the chosen reading by first prompt, or of the single mask afterwards."""
    if index:
        return {f"iou_{index + 1}": true[:, 0].mean().item()}
    top = 1 + prediction.iou[:, 1:].argmax(1)
    chosen = true[torch.arange(len(true), device=true.device), top]
    spoken = (prompts.labels < 0).all(1)
    both = text_and_point(prompts)
    pointed = ~boxed & ~spoken & ~both
    groups = {"point": pointed, "box": boxed, "text": spoken, "text_point": both}
    return {
        f"iou_{name}": chosen[rows].mean().item() for name, rows in groups.items() if rows.any()
    }


def text_and_point(prompts: PromptBatch) -> Tensor:
    """(P,) bool: prompts of a phrase with a point, which mean one object."""
    if prompts.has_tokens is None:
        return torch.zeros(len(prompts), dtype=torch.bool, device=prompts.labels.device)
    return prompts.has_tokens & (prompts.labels == FOREGROUND).any(1)


def load_train(
    folder: Path,
    *,
    names: Sequence[str] = tuple(SOURCES),
    without: Callable[[str], bool] | None = None,
) -> dict[str, list[Sample]]:
    """Read the named files of data/train.

    Args:
        folder: Where they lie.
        names: Which of them.
        without: Says which labels to leave out, with all their objects; photos that have no other
            object go, too.
    """
    from ..data import load_samples

    samples = {name: load_samples([folder / f"{name}.parquet"]) for name in names}
    if without is None:
        return samples
    return {
        name: [kept for sample in rows if (kept := _without(sample, without)).objects]
        for name, rows in samples.items()
    }


def _without(sample: Sample, left_out: Callable[[str], bool]) -> Sample:
    return replace(sample, objects=tuple(o for o in sample.objects if not left_out(o.label)))
