"""A variant of the text pathway: trained between frozen towers, whose embeddings are kept on disk.

Both towers see every photo once, for all variants together (`objectives.embeddings`). One round of
prompts: later rounds bring points, which say where the thing is without any word.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import torch

from textsam.clip.pathway import PathwayConfig, TextPathway
from textsam.errors import WeightsError
from textsam.inference.model import TextSAM
from textsam.modeling.sam import Sam

from ...data import LoaderConfig, ViewConfig, ViewLoader
from ...engine import Trainer, TrainResult
from ...objectives.crops import CropConfig, min_crop_area
from ...objectives.embeddings import CacheConfig, EmbeddingCache
from ...objectives.pathway_objective import PathwayObjective, PathwayObjectiveConfig
from ...prompting import PromptConfig
from .core_variant import engine_config
from .photos import PhotoPool
from .variants import PathwaySettings

# Batches that the two means are measured on, with 8 photos of up to 3 masks some 1,000 masks.
_CENTRE_BATCHES = 50


def train_pathway(
    settings: PathwaySettings, pool: PhotoPool, *, folder: Path, cache: Path, identity: str
) -> tuple[TextSAM, TrainResult]:
    """Train a pathway, or go on with the run in `folder`.

    Returns:
        The frozen core with the new pathway, and how the run ended.
    """
    model = _with_clip(settings.core)
    assert model.clip is not None
    core = _resized(model.sam, settings.image_size)
    torch.manual_seed(settings.seed)
    pathway = TextPathway(
        PathwayConfig(clip_width=model.clip.width, prompt_width=core.config.embed_dim)
    )
    view = ViewConfig(
        image_size=settings.image_size,
        max_masks=settings.masks,
        jitter=0.0,
        flip=0.0,
        min_area=min_crop_area(settings.image_size),
    )
    crops = CropConfig(variants=settings.variants)
    stored = EmbeddingCache(cache, core, model.clip, config=CacheConfig(view=view, crops=crops))
    photos = pool.some(settings.photos)
    for name, samples in photos.items():
        stored.build(name, samples)
    loader = ViewLoader(
        photos,
        config=LoaderConfig(
            photos_per_step=settings.photos_per_step,
            seed=settings.seed,
            view=view,
            shares=pool.lengths(),
        ),
    )
    objective = PathwayObjective(
        core,
        pathway,
        model.clip,
        config=PathwayObjectiveConfig(
            prompts=PromptConfig(points=0, silent_among=0, silent_last=0),
            label_share=settings.label_share,
            centring=settings.centring,
            noise=settings.noise,
            crops=crops,
            recompute=False,
        ),
        cache=stored,
    )
    if settings.centring:
        objective.measure_centres(loader.batches(0, _CENTRE_BATCHES))
    config = engine_config(steps=settings.steps, seed=settings.seed, rate=settings.rate)
    result = Trainer(
        objective, loader.batches, config=config, folder=folder, identity=identity
    ).train()
    asked = TextSAM(core, clip=model.clip, pathway=pathway, name="ablation pathway")
    return asked, result


@lru_cache(maxsize=4)
def towers_digest(name: str) -> str:
    """12 hexadecimal digits of a model's core and CLIP: "tiny" is another one in each release."""
    model = _with_clip(name)
    assert model.clip is not None
    digest = blake2b(digest_size=6)
    for tower in (model.sam, model.clip.model):
        for key, tensor in sorted(tower.state_dict().items()):
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _with_clip(name: str) -> TextSAM:
    model = TextSAM.from_pretrained(name)
    if model.clip is None:
        raise WeightsError(
            f'{name} has no CLIP to train a pathway for; give a model that has one, e.g. "tiny"'
        )
    return model


def _resized(sam: Sam, image_size: int) -> Sam:
    """The same weights at another input size, on which none of a `timm` core's depends."""
    other = Sam(replace(sam.config, image_size=image_size))
    other.load_state_dict(sam.state_dict())
    return other.to(memory_format=torch.channels_last)
