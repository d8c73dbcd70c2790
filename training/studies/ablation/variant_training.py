"""A core or a text pathway, built and trained by the engine on some of the photos.

A pathway is trained between frozen towers, which see every photo once for all variants together:
their embeddings are kept on disk (`objectives.embeddings`). It has one round of prompts, since
later rounds bring points, which say where the thing is without any word.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textsam.clip.pathway import PathwayConfig, TextPathway
from textsam.inference.model import TextSAM
from textsam.modeling.config import TimmConfig
from textsam.modeling.mask_decoder import MaskDecoder, PromptEncoder
from textsam.modeling.sam import Sam

from ...data import LoaderConfig, Sample, StreamSource, ViewConfig, ViewLoader, open_source
from ...data.sample import BROKEN
from ...engine import EngineConfig, Trainer, TrainResult
from ...evaluation.data_sets import evenly_spaced
from ...objectives.crops import CropConfig, min_crop_area
from ...objectives.embeddings import CacheConfig, EmbeddingCache
from ...objectives.pathway_objective import PathwayObjective, PathwayObjectiveConfig
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
from .variants import CoreSettings, PathwaySettings

logger = logging.getLogger(__name__)

# Of the choice of photos; not a setting, so that shares are nested whatever the run's seed is.
_SUBSET_SEED = 0
# `recipes.tiny` freezes the first three stages of a backbone; all of an EfficientNet-Lite are 7.
_FROZEN_STAGES = 3
# Smallest mask at 384 px is 40 pixels (`ViewConfig`); the share of the frame stays the same.
_MIN_AREA = 40 / 384**2
# Batches that the two means are measured on, with 8 photos of up to 3 masks some 1,000 masks.
_CENTRE_BATCHES = 50


@dataclass(frozen=True, kw_only=True)
class PhotoPool:
    """The photos of all variants, read into memory once."""

    samples: Mapping[str, Sequence[Sample]]  # source -> its sound photos

    @classmethod
    def read(cls, specs: Sequence[str], *, limit: int | None = None) -> PhotoPool:
        """Read what specs (`data.specs`) name, encoded as the photos are."""
        samples: dict[str, Sequence[Sample]] = {}
        for spec in specs:
            source = open_source(spec)
            if isinstance(source, StreamSource):
                raise ValueError(f"{spec} is a stream; an ablation needs photos by number")
            name = str(getattr(source, "name", spec))
            if name in samples:
                raise ValueError(f"two sources are called {name!r}. Type: {spec}?name=ANOTHER")
            sound = []
            for row in evenly_spaced(len(source), limit):
                try:
                    sound.append(source[row])
                except BROKEN as error:
                    logger.warning("%s, row %d is broken: %s", name, row, error)
            if not sound:
                raise ValueError(f"{spec} has no sound photo")
            samples[name] = sound
        return cls(samples=samples)

    def share(self, share: float) -> dict[str, Sequence[Sample]]:
        """A share of each source's photos; a smaller share is a part of every larger one."""
        if not 0 < share <= 1:
            raise ValueError(f"data_share is {share}; wanted a share above 0, at most 1")
        chosen: dict[str, Sequence[Sample]] = {}
        for name, samples in self.samples.items():
            # A prefix of one permutation: so a smaller share is part of every larger one.
            order = np.random.default_rng(_SUBSET_SEED).permutation(len(samples))
            rows = np.sort(order[: math.ceil(share * len(samples))])
            chosen[name] = [samples[row] for row in rows]
        return chosen

    def lengths(self) -> dict[str, float]:
        """Number of photos by source: how often each is drawn, whatever the share."""
        return {name: float(len(samples)) for name, samples in self.samples.items()}

    def about(self) -> dict[str, Any]:
        """JSON values that distinguish this pool from another one."""
        objects = sum(len(s.objects) for samples in self.samples.values() for s in samples)
        return {"photos": self.lengths(), "objects": objects}

    def loader(
        self, photos: Mapping[str, Any], settings: CoreSettings | PathwaySettings, view: ViewConfig
    ) -> ViewLoader:
        """Batches of some of the photos, drawn from the sources as often as from the whole pool."""
        config = LoaderConfig(
            photos_per_step=settings.photos_per_step,
            seed=settings.seed,
            view=view,
            shares=self.lengths(),
        )
        return ViewLoader(photos, config=config)


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


def core_objective(settings: CoreSettings) -> SamObjective:
    """A new core with its losses, whose backbone has a rate of its own: all else starts random."""
    prompts = PromptConfig(
        box_probability=settings.box_probability,
        points=settings.rounds - 1,
        silent_among=0,
        silent_last=0,
    )
    config = SamObjectiveConfig(
        prompts=prompts,
        box_trains_single=True,  # a box is measured by mask 0, which `ImageView` answers it with
        backbone=BackboneConfig(
            rate=settings.backbone_rate, frozen_stages=_FROZEN_STAGES, train_depthwise=False
        ),
        recompute=False,
    )
    return SamObjective(new_core(settings), config=config)


def train_core(
    settings: CoreSettings, pool: PhotoPool, *, folder: Path, identity: str
) -> tuple[TextSAM, TrainResult]:
    """Train a core, or go on with the run in `folder`: the model, which takes points and boxes."""
    objective = core_objective(settings)
    view = ViewConfig(
        image_size=settings.image_size,
        max_masks=settings.masks,
        min_area=max(1, round(_MIN_AREA * settings.image_size**2)),
    )
    loader = pool.loader(pool.share(settings.data_share), settings, view)
    trainer = Trainer(
        objective, loader.batches, config=engine_config(settings), folder=folder, identity=identity
    )
    result = trainer.train()
    return TextSAM(objective.sam, name="ablation core"), result


def train_pathway(
    settings: PathwaySettings, pool: PhotoPool, *, folder: Path, cache: Path, identity: str
) -> tuple[TextSAM, TrainResult]:
    """Train a pathway, or go on with the run in `folder`: the frozen core with the new pathway."""
    model = TextSAM.from_pretrained(settings.core)
    clip = model.parts.require_clip()
    # The same weights at another input size, on which none of a `timm` core's depends.
    sam = model.parts.require_sam()
    core = Sam(replace(sam.config, image_size=settings.image_size))
    core.load_state_dict(sam.state_dict())
    core = core.to(memory_format=torch.channels_last)
    torch.manual_seed(settings.seed)
    pathway = TextPathway(PathwayConfig(clip_width=clip.width, prompt_width=core.config.embed_dim))
    view = ViewConfig(
        image_size=settings.image_size,
        max_masks=settings.masks,
        jitter=0.0,
        flip=0.0,
        min_area=min_crop_area(settings.image_size),
    )
    crops = CropConfig(variants=settings.variants)
    stored = EmbeddingCache(cache, core, clip, config=CacheConfig(view=view, crops=crops))
    photos = pool.share(min(1.0, settings.photos / sum(pool.lengths().values())))
    for name, samples in photos.items():
        stored.build(name, samples)
    loader = pool.loader(photos, settings, view)
    config = PathwayObjectiveConfig(
        prompts=PromptConfig(points=0, silent_among=0, silent_last=0),
        label_share=settings.label_share,
        centring=settings.centring,
        noise=settings.noise,
        crops=crops,
        recompute=False,
    )
    objective = PathwayObjective(core, pathway, clip, config=config, cache=stored)
    if settings.centring:
        objective.measure_centres(loader.batches(0, _CENTRE_BATCHES))
    trainer = Trainer(
        objective, loader.batches, config=engine_config(settings), folder=folder, identity=identity
    )
    result = trainer.train()
    return TextSAM(core, clip=clip, pathway=pathway, name="ablation pathway"), result


def engine_config(settings: CoreSettings | PathwaySettings) -> EngineConfig:
    """How every variant is trained: a short rise, a plateau, and a fall over the last third."""
    return EngineConfig(
        steps=settings.steps,
        seed=settings.seed,
        peak_rate=settings.rate,
        warmup=max(1, settings.steps // 10),
        schedule="linear",
        tail=1 / 3,
        cpu=True,
        checkpoint_every=50,
        tensorboard=False,
    )


@lru_cache(maxsize=4)
def towers_digest(name: str) -> str:
    """12 hexadecimal digits of a model's core and CLIP: "tiny" is another one in each release."""
    model = TextSAM.from_pretrained(name)
    digest = blake2b(digest_size=6)
    for tower in (model.sam, model.parts.require_clip().model):
        for key, tensor in sorted(tower.state_dict().items()):
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
