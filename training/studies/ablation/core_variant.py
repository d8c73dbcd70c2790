"""A variant of the core: built, trained by the engine, and returned as a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from textsam.inference.model import TextSAM
from textsam.modeling.config import TimmConfig
from textsam.modeling.mask_decoder import MaskDecoder
from textsam.modeling.prompt_encoder import PromptEncoder
from textsam.modeling.sam import Sam

from ...data import LoaderConfig, ViewConfig, ViewLoader
from ...engine import EngineConfig, Trainer, TrainResult
from ...objectives.sam_objective import (
    BackboneConfig,
    SamObjective,
    SamObjectiveConfig,
    align_positions,
    timm_encoder,
)
from ...pretrained import STAGE_DEPTHS, efficientnet_lite_state
from ...prompting import PromptConfig
from ...recipes.tiny.networks import TINY_SAM
from .photos import PhotoPool
from .variants import CoreSettings

# `recipes.tiny` freezes the first three stages of a backbone; all of an EfficientNet-Lite are 7.
_FROZEN_STAGES = 3
# Smallest mask at 384 px is 40 pixels (`ViewConfig`); the share of the frame stays the same.
_MIN_AREA = 40 / 384**2


def new_core(settings: CoreSettings) -> Sam:
    """Build a core; every backbone gets the same decoder to begin with."""
    known = settings.backbone in STAGE_DEPTHS
    name = f"tf_efficientnet_{settings.backbone}" if known else settings.backbone
    config = replace(
        TINY_SAM,
        encoder=TimmConfig(name=name),
        image_size=settings.image_size,
        embed_dim=settings.width,
        decoder_mlp=4 * settings.width,
        iou_hidden=settings.width,
    )
    torch.manual_seed(settings.seed)
    sam = Sam(config)
    # Larger backbones draw more numbers: without a new start their decoder would be another one.
    torch.manual_seed(settings.seed)
    sam.prompt_encoder, sam.mask_decoder = PromptEncoder(config), MaskDecoder(config)
    align_positions(sam)
    backbone = timm_encoder(sam).backbone
    if known:
        state = efficientnet_lite_state(settings.backbone)
        wanted = set(backbone.state_dict())  # the features only, without a classifier
        backbone.load_state_dict({key: value for key, value in state.items() if key in wanted})
    if not settings.tuned:
        backbone.requires_grad_(False)
    return sam.to(memory_format=torch.channels_last)


def core_backbone(settings: CoreSettings) -> BackboneConfig:
    """How the backbone is trained: at a rate of its own, since neck and skips start random."""
    return BackboneConfig(
        rate=settings.backbone_rate, frozen_stages=_FROZEN_STAGES, train_depthwise=False
    )


def train_core(
    settings: CoreSettings, pool: PhotoPool, *, folder: Path, identity: str
) -> tuple[TextSAM, TrainResult]:
    """Train a core, or go on with the run in `folder`.

    Returns:
        The model, which takes points and boxes, and how the run ended.
    """
    objective = SamObjective(
        new_core(settings),
        config=SamObjectiveConfig(
            prompts=PromptConfig(
                box_probability=settings.box_probability,
                points=settings.rounds - 1,
                silent_among=0,
                silent_last=0,
            ),
            # A box is measured by mask 0, which `ImageView` answers it with.
            box_trains_single=True,
            backbone=core_backbone(settings),
            recompute=False,
        ),
    )
    loader = ViewLoader(
        pool.share(settings.data_share),
        config=LoaderConfig(
            photos_per_step=settings.photos_per_step,
            seed=settings.seed,
            view=ViewConfig(
                image_size=settings.image_size,
                max_masks=settings.masks,
                min_area=max(1, round(_MIN_AREA * settings.image_size**2)),
            ),
            shares=pool.lengths(),
        ),
    )
    config = engine_config(steps=settings.steps, seed=settings.seed, rate=settings.rate)
    result = Trainer(
        objective, loader.batches, config=config, folder=folder, identity=identity
    ).train()
    return TextSAM(objective.sam, name="ablation core"), result


def engine_config(*, steps: int, seed: int, rate: float) -> EngineConfig:
    """How every variant is trained: a short rise, a plateau, and a fall over the last third."""
    return EngineConfig(
        steps=steps,
        seed=seed,
        peak_rate=rate,
        warmup=max(1, steps // 10),
        schedule="linear",
        tail=1 / 3,
        cpu=True,
        checkpoint_every=50,
        tensorboard=False,
    )
