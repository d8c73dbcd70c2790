"""The stages of `tiny`, one function each. `STAGES` is all there is to their order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from textsam.clip.encoder import ClipEncoder
from textsam.clip.pathway import TextPathway
from textsam.clip.prior import attach_prior
from textsam.errors import TextSamError
from textsam.inference.model import TextSAM
from textsam.modeling.sam import Sam
from textsam.values.settings import FocusSettings

from ..data import Sample, ViewConfig
from ..engine import EngineConfig, load_weights
from ..prompting import PromptConfig
from .concepts import ConceptBank
from .dense_text import DenseConfig, DenseTrainer, new_tiny_pathway
from .joint_config import JOINT_SOURCES, WIDE_SOURCES, JointConfig
from .steps import train_steps
from .text_prompts import TextPrompts
from .thresholds import choose_calibration, choose_settings
from .tiny import (
    FULL_SOURCES,
    SOURCES,
    TINY_SAM,
    CoreTrainer,
    PhotoSampler,
    TinyConfig,
    new_tiny_sam,
)
from .tiny_clip import (
    CropFeatures,
    TextConfig,
    as_encoder,
    crop_features,
    distil_text,
    imagenet_prior,
    new_tiny_clip,
    teacher_embeddings,
    token_texts,
    train_image_head,
)
from .tiny_joint import JointTrainer
from .vocabulary import phrase_list

if TYPE_CHECKING:
    from .tiny_run import TinyRecipe

__all__ = ["STAGES", "StageName"]

logger = logging.getLogger(__name__)

# Sides of the model's frame, pixels, stage by stage. It is used at 512 px (`TINY_SAM`): a CNN gains
# from more than it was trained with (arXiv 1906.06423), and of 384, 448 and 512 px the last gave
# the best first click on training photos.
POINTS_SIZE, FULL_SIZE, JOINT_SIZE = 256, 320, 384

StageName = Literal["clip", "dense", "points", "full", "joint", "final", "wide", "export"]


def train_clip(recipe: TinyRecipe) -> None:
    """Text tower and image head; teacher embeddings and crops are cached beside them."""
    folder = recipe.runs / "clip"
    if (folder / "open_clip_model.safetensors").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    samples = recipe.samples()
    names = sorted({o.label for rows in samples.values() for s in rows for o in s.objects})
    model = new_tiny_clip(seed=recipe.seed)
    text_file = folder / "text.pt"
    if text_file.exists():
        model.load_state_dict(torch.load(text_file, weights_only=True))
    else:
        phrases = phrase_list(names, seed=recipe.seed)
        figures = distil_text(
            model,
            phrases,
            _cached(folder / "teacher.pt", lambda: teacher_embeddings(phrases)),
            words=_cached(folder / "words.pt", lambda: teacher_embeddings(token_texts())),
            config=TextConfig(seed=recipe.seed, epochs=recipe.text_epochs),
        )
        logger.info("text tower: %s", figures)
        torch.save(model.state_dict(), text_file)
    crops = crop_features(model, samples, seed=recipe.seed)
    torch.save(vars(crops), folder / "crops.pt")
    logger.info("image head: %s", train_image_head(model, crops, seed=recipe.seed))
    encoder = as_encoder(model)
    attach_prior(model, imagenet_prior(encoder))
    encoder.save(folder, dtype=torch.float16)


def train_dense(recipe: TinyRecipe) -> None:
    """The dense text head."""
    encoder, bank, pathway = _text_parts(recipe)
    config = DenseConfig(seed=recipe.seed)
    trainer = DenseTrainer(encoder.model, pathway, bank, recipe.samples(), SOURCES, config=config)
    engine = recipe.engine(steps=recipe.dense_steps, warmup=50, tail=0.8, config=config)
    train_steps(trainer, {"pathway": pathway}, engine=engine, folder=recipe.runs / "dense")


def train_points(recipe: TinyRecipe) -> None:
    """The core at 256 px, points and boxes only: most of what it must learn, at half the cost."""
    sam = new_tiny_sam(seed=recipe.seed, image_size=POINTS_SIZE)
    view = ViewConfig(image_size=POINTS_SIZE, min_area=17)  # the share that 40 has at 384 px
    config = TinyConfig(seed=recipe.seed, view=view)
    sampler = PhotoSampler(recipe.samples(), seed=config.seed, view=config.view)
    trainer = CoreTrainer(sam, sampler, config=config)
    engine = recipe.engine(steps=recipe.points_steps, warmup=100, tail=1e-6, config=config)
    train_steps(trainer, {"sam": sam}, engine=engine, folder=recipe.runs / "points")


def train_full(recipe: TinyRecipe) -> None:
    """The core nearer to its full size, a third of the photos asked by phrase."""
    sam = new_tiny_sam(seed=recipe.seed, image_size=FULL_SIZE)
    _load(recipe.runs / "points", {"sam": sam})
    encoder, bank, pathway = _text_parts(recipe)
    _load(recipe.runs / "dense", {"pathway": pathway})
    samples = recipe.samples()
    config = TinyConfig(seed=recipe.seed + 1, text_share=0.3, view=ViewConfig(image_size=FULL_SIZE))
    trainer = CoreTrainer(
        sam,
        PhotoSampler(samples, seed=config.seed, view=config.view, shares=FULL_SOURCES),
        config=config,
        text=TextPrompts(encoder.model, pathway, bank, samples),
    )
    engine = recipe.engine(steps=recipe.full_steps, warmup=50, tail=0.5, config=config)
    parts = {"sam": sam, "pathway": pathway}
    train_steps(trainer, parts, engine=engine, folder=recipe.runs / "full")


def train_joint(recipe: TinyRecipe) -> None:
    """Masks and words in one backbone: the dense head now reads the core's own maps."""
    config = JointConfig(seed=recipe.seed + 2)
    engine = recipe.engine(steps=recipe.joint_steps, warmup=100, tail=0.6, config=config)
    _train_jointly(
        recipe,
        "joint",
        after="full",
        samples=recipe.samples(),
        config=config,
        engine=engine,
        side=JOINT_SIZE,
    )


def train_final(recipe: TinyRecipe) -> None:
    """On at the size of use, with more exact boxes than the paper's: see `training/RUNS.md`, 3."""
    side = TINY_SAM.image_size
    config = JointConfig(
        seed=recipe.seed + 3,
        photos_per_step=6,
        with_point=0.5,
        decoder_rate=3e-4,
        head_rate=6e-4,
        backbone_rate=6e-5,
        min_area=70,  # the share that 40 has at 384 px
        view=ViewConfig(image_size=side, max_masks=80, min_area=7, max_share=1.0, focus=0.35),
        prompts=PromptConfig(box_noise=0.05, box_noise_limit=10 / 1024),
    )
    engine = recipe.engine(steps=recipe.final_steps, warmup=60, tail=0.75, config=config)
    _train_jointly(
        recipe,
        "final",
        after="joint",
        samples=recipe.samples(),
        config=config,
        engine=engine,
        side=side,
    )


def train_wide(recipe: TinyRecipe) -> None:
    """On with all of the backbone but its stem and norms, many photos a step and changed colours.

    On a GPU if there is one; see `training/RUNS.md`, 4.
    """
    side = TINY_SAM.image_size
    config = JointConfig(
        seed=recipe.seed + 5,
        photos_per_step=32,
        text_share=0.4,
        with_point=0.5,
        decoder_rate=6e-4,
        head_rate=12e-4,
        backbone_rate=1.2e-4,
        frozen_stages=0,
        train_depthwise=True,
        min_area=70,
        view=ViewConfig(
            image_size=side, max_masks=80, min_area=7, max_share=1.0, focus=0.35, colour=0.3
        ),
        prompts=PromptConfig(box_noise=0.05, box_noise_limit=10 / 1024),
    )
    engine = recipe.engine(steps=recipe.wide_steps, warmup=100, tail=0.9, config=config)
    engine = replace(engine, cpu=False, ema_decay=0.995)
    _train_jointly(
        recipe,
        "wide",
        after="final",
        samples=recipe.seen(),
        config=config,
        engine=engine,
        side=side,
        shares=WIDE_SOURCES,
        workers=recipe.workers,
    )


def export(recipe: TinyRecipe) -> None:
    """Write `tiny` as `TextSAM.from_pretrained` reads it, in fp16."""
    sam = Sam(TINY_SAM)
    encoder, _, pathway = _text_parts(recipe)
    step = _load(recipe.runs / "wide", {"sam": sam, "pathway": pathway})
    pathway.config = replace(
        pathway.config, dense_source="sam", dense_image_size=TINY_SAM.image_size
    )
    model = TextSAM(sam, clip=encoder, pathway=pathway, focus=FocusSettings(), name="tiny")
    samples = recipe.kept()
    model.text_settings, figures = choose_settings(model, samples, photos=40, seed=recipe.seed)
    logger.info("%s, from %s", model.text_settings, figures)
    model.calibration = choose_calibration(model, samples, photos=108, seed=recipe.seed)
    logger.info("%s", model.calibration.fitted_on)
    model.save_pretrained(recipe.runs / "tiny", dtype=torch.float16)
    logger.info("wrote %s from step %d", recipe.runs / "tiny", step)


# The stages and their order.
STAGES: Mapping[StageName, Callable[[TinyRecipe], None]] = {
    "clip": train_clip,
    "dense": train_dense,
    "points": train_points,
    "full": train_full,
    "joint": train_joint,
    "final": train_final,
    "wide": train_wide,
    "export": export,
}


def _train_jointly(
    recipe: TinyRecipe,
    stage: StageName,
    *,
    after: StageName,
    samples: Mapping[str, Sequence[Sample]],
    config: JointConfig,
    engine: EngineConfig,
    side: int,
    shares: Mapping[str, float] = JOINT_SOURCES,
    workers: int = 0,
) -> None:
    """Train core and pathway together, `side` pixels a frame, from what `after` left."""
    sam = new_tiny_sam(seed=recipe.seed, image_size=side)
    _, bank, pathway = _text_parts(recipe)
    parts = {"sam": sam, "pathway": pathway}
    _load(recipe.runs / after, parts)
    pathway.config = replace(pathway.config, dense_source="sam")
    trainer = JointTrainer(sam, pathway, bank, samples, config=config, shares=shares)
    train_steps(trainer, parts, engine=engine, folder=recipe.runs / stage, workers=workers)


def _load(folder: Path, parts: Mapping[str, nn.Module]) -> int:
    """Load a stage's result into its parts; returns the step it was at."""
    step = load_weights(folder, nn.ModuleDict(dict(parts)))
    if not step:
        raise TextSamError(
            f"there is no checkpoint in {folder} yet. Type: --stages {folder.name}, then go on"
        )
    return step


def _text_parts(recipe: TinyRecipe) -> tuple[ClipEncoder, ConceptBank, TextPathway]:
    folder = recipe.runs / "clip"
    encoder = ClipEncoder.from_pretrained(folder)
    encoder.name = "tiny"
    crops = CropFeatures(**torch.load(folder / "crops.pt", weights_only=True))
    pathway = new_tiny_pathway(seed=recipe.seed, prompt_width=TINY_SAM.embed_dim)
    return encoder, ConceptBank(encoder.model, crops, pathway), pathway


def _cached(path: Path, make: Callable[[], torch.Tensor]) -> torch.Tensor:
    if not path.exists():
        torch.save(make(), path)
    tensor: torch.Tensor = torch.load(path, weights_only=True)
    return tensor
