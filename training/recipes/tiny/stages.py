"""The stages of `tiny`, in the order of `STAGES`."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from textsam.clip.encoder import ClipEncoder
from textsam.clip.pathway import TextPathway
from textsam.clip.prior import attach_prior
from textsam.errors import TextSamError
from textsam.inference.model import TextSAM
from textsam.modeling.sam import Sam
from textsam.values.prompts import COLOURS
from textsam.values.settings import FocusSettings

from ...data import LoaderConfig
from ...data.phrases.concepts import ConceptBank
from ...data.phrases.phrase_batch import PhraseConfig, PhraseDraw
from ...engine import CheckpointStore, EngineConfig, Trainer, TrainResult, load_weights
from ...engine.processes import Processes
from ...objectives.base import Objective
from ...objectives.distillation import (
    CropHeadConfig,
    CropHeadObjective,
    TextTowerConfig,
    TextTowerObjective,
)
from ...objectives.joint import JointObjective
from ...objectives.name_maps import NameMapObjective, NameMapObjectiveConfig
from ...objectives.sam_objective import SamObjective, SamObjectiveConfig
from ...prompting import PromptConfig
from ..base import ObjectiveRun, place_in_run
from ..sources import DataMix
from . import stage_settings as settings
from .clip import (
    CropFeatures,
    as_encoder,
    concept_bank,
    crop_accuracy,
    crop_features,
    crop_table,
    imagenet_prior,
    initialise_words,
    new_tiny_clip,
    teacher_embeddings,
    text_accuracy,
    text_table,
    token_texts,
)
from .networks import TINY_SAM, new_tiny_pathway, new_tiny_sam
from .stage_settings import StageName, TinySettings
from .thresholds import choose_calibration, choose_settings
from .vocabulary import PhraseList, aliases, phrase_list

logger = logging.getLogger(__name__)

_CLIP_FILE = "open_clip_model.safetensors"
_POINTS_SIZE = 256  # pixels of the frame: most of what must be learned, at half the cost


def train_clip(recipe: TinySettings) -> TrainResult | None:
    """Text tower and image head of CLIP."""
    folder = recipe.runs / "clip"
    if (folder / _CLIP_FILE).exists():
        return None
    # Teacher embeddings and crops are computed by the first process and kept beside the result.
    processes = Processes(recipe.engine(steps=1))
    if processes.is_main:
        folder.mkdir(parents=True, exist_ok=True)
    samples = recipe.samples()
    model: Any = new_tiny_clip(seed=recipe.seed)
    if recipe.init_from is not None:
        model.text.load_state_dict(_start_model(recipe).clip.model.text.float().state_dict())
    phrases = phrase_list(recipe.lexicon(), seed=recipe.seed)
    meanings = list(dict.fromkeys(phrases.meanings))
    row = {meaning: i for i, meaning in enumerate(meanings)}
    teacher = _computed_once(folder / "teacher.pt", processes, lambda: teacher_embeddings(meanings))
    target = teacher[[row[meaning] for meaning in phrases.meanings]]
    if recipe.init_from is None:
        words = _computed_once(
            folder / "words.pt", processes, lambda: teacher_embeddings(token_texts())
        )
        initialise_words(model.text, words)
    result = _train_text(recipe, model, phrases, target)
    if result.reason != "done":
        return result

    def crops() -> dict[str, Any]:
        encoder = as_encoder(model.to(processes.device))
        return vars(crop_features(encoder, samples, seed=recipe.seed))

    features = CropFeatures(**_computed_once(folder / "crops.pt", processes, crops))
    # The engine moves what it trains; the rest of the model stays on the CPU.
    result = _train_head(recipe, model.cpu(), features)
    if processes.is_main and result.reason == "done":
        attach_prior(model, imagenet_prior(as_encoder(model)))
        encoder = as_encoder(model)
        encoder.aliases = aliases(recipe.lexicon())
        encoder.save(folder, dtype=torch.float16)
    processes.wait()
    return result


def _train_text(
    recipe: TinySettings, model: Any, phrases: PhraseList, target: torch.Tensor
) -> TrainResult:
    """Distil the text tower."""
    trained, tested = text_table(phrases, target)
    objective = TextTowerObjective(model.text, config=TextTowerConfig(seed=recipe.seed))
    steps = max(1, int(recipe.text_epochs * len(trained.tokens) / objective.config.batch))
    engine = recipe.engine(
        steps=steps,
        peak_rate=2e-3 if recipe.init_from is None else 1e-3,
        weight_decay=0.02,
        schedule="cosine",
        warmup=math.ceil(steps / 20),
        tail=0.95,
        betas=(0.9, 0.98),
    )
    rank, world = place_in_run()
    batches = objective.batches(trained, rank=rank, world=world)
    result = _train(objective, batches, engine, recipe.runs / "clip" / "text")
    logger.info("text tower: cosine %.4f", text_accuracy(model.text.cpu(), tested))
    return result


def _train_head(recipe: TinySettings, model: Any, crops: CropFeatures) -> TrainResult:
    """Train the image head on pooled features."""
    trained, tested, names = crop_table(as_encoder(model), crops)
    objective = CropHeadObjective(model.visual.head, names, config=CropHeadConfig(seed=recipe.seed))
    engine = recipe.engine(
        steps=recipe.head_steps,
        peak_rate=1e-3,
        weight_decay=0.05,
        schedule="cosine",
        warmup=math.ceil(0.3 * recipe.head_steps),
        tail=0.7,
        clip_norm=math.inf,
    )
    rank, world = place_in_run()
    batches = objective.batches(trained, rank=rank, world=world)
    result = _train(objective, batches, engine, recipe.runs / "clip" / "head")
    logger.info("image head: %s", crop_accuracy(model.visual.head.cpu(), tested, names))
    return result


def train_dense(recipe: TinySettings) -> TrainResult:
    """The dense text head, on the maps of the frozen CLIP trunk."""
    encoder, bank, pathway = _text_parts(recipe)
    config = NameMapObjectiveConfig(loss=settings.DENSE_LOSS)
    return _train_stage(
        recipe,
        "dense",
        NameMapObjective(pathway, encoder, config=config),
        recipe.mix(settings.SOURCES),
        loader=settings.dense_loader(seed=recipe.seed, workers=recipe.workers),
        engine=recipe.engine(
            steps=recipe.dense_steps, peak_rate=2e-3, weight_decay=0.02, warmup=50, tail=0.8
        ),
        phrases=(bank, settings.DENSE_PHRASES),
    )


def train_words(recipe: TinySettings) -> TrainResult:
    """The dense text head on the frozen core: all files, kinds and colours."""
    stage = settings.JOINT_STAGES["broad"]
    sam = new_tiny_sam(seed=recipe.seed, image_size=stage.image_size)
    _, bank, pathway = _text_parts(recipe)
    _load_stages(recipe, ("wide",), sam, pathway)
    pathway.config = replace(pathway.config, dense_source="sam")
    return _train_stage(
        recipe,
        "words",
        NameMapObjective(pathway, sam, config=NameMapObjectiveConfig()),
        recipe.mix(stage.shares, kept_out=True),
        loader=_loader(recipe, stage, seed=recipe.seed + stage.seed),
        engine=recipe.engine(
            steps=recipe.words_steps,
            peak_rate=1e-3,
            weight_decay=0.02,
            warmup=50,
            tail=0.8,
            ema_decay=0.995,
        ),
        phrases=(bank, settings.WORDS_PHRASES),
    )


def train_points(recipe: TinySettings) -> TrainResult:
    """The core on points and boxes alone, three rounds of them."""
    config = SamObjectiveConfig(
        prompts=PromptConfig(points=2, silent_among=0, silent_last=0),
        box_trains_single=True,
        backbone=settings.CORE_BACKBONE,
        recompute=False,
    )
    sam = new_tiny_sam(seed=recipe.seed, image_size=_POINTS_SIZE)
    return _train_stage(
        recipe,
        "points",
        SamObjective(sam, config=config),
        recipe.mix(settings.SOURCES),
        loader=settings.points_loader(
            seed=recipe.seed, workers=recipe.workers, image_size=_POINTS_SIZE
        ),
        engine=recipe.engine(steps=recipe.points_steps, peak_rate=8e-4, warmup=100, tail=1e-6),
    )


def train_jointly(recipe: TinySettings, *, name: StageName) -> TrainResult:
    """Core and pathway together, from what the stages before left."""
    stage = settings.JOINT_STAGES[name]
    # No weight depends on the size of the frame.
    sam = new_tiny_sam(seed=recipe.seed, image_size=stage.image_size)
    encoder, bank, pathway = _text_parts(recipe)
    _load_stages(recipe, stage.after, sam, pathway)
    if stage.objective.train_dense:  # from here on the head reads the core's own maps
        pathway.config = replace(pathway.config, dense_source="sam")
    seed = recipe.seed + stage.seed
    images = recipe.images or stage.images
    # The last stages leave some photos out, for `export` to choose and calibrate on.
    mix = recipe.mix(stage.shares, kept_out=name in ("wide", "broad"))
    return _train_stage(
        recipe,
        name,
        JointObjective(sam, pathway, config=stage.objective, clip=encoder),
        mix,
        loader=_loader(recipe, stage, seed=seed),
        engine=recipe.engine(
            steps=recipe.steps_of(name),
            seed=seed,
            # With the root of the number of photos, as from `final` to `wide`.
            peak_rate=stage.peak_rate * math.sqrt(images / stage.images),
            warmup=stage.warmup,
            tail=stage.tail,
            ema_decay=stage.ema_decay,
        ),
        phrases=(bank, stage.phrases),
    )


def export(recipe: TinySettings) -> None:
    """Write `tiny` as `TextSAM.from_pretrained` reads it, in fp16; one process does it."""
    if place_in_run()[0] != 0:
        return
    model, step = load_broad(recipe)
    samples = recipe.kept_out()
    # Before the calibration, which measures the model with these settings.
    model.text_settings, figures = choose_settings(model, samples, photos=40, seed=recipe.seed)
    logger.info("%s, from %s", model.text_settings, figures)
    model.calibration = choose_calibration(
        model, samples, words=recipe.lexicon(), photos=60, seed=recipe.seed
    )
    logger.info("%s", model.calibration.fitted_on)
    model.save_pretrained(recipe.runs / "tiny", dtype=torch.float16)
    logger.info("wrote %s from step %d", recipe.runs / "tiny", step)


def load_broad(recipe: TinySettings) -> tuple[TextSAM, int]:
    """The model that the last stages left, uncalibrated, and the step of the last one."""
    sam = Sam(TINY_SAM)
    encoder, _, pathway = _text_parts(recipe)
    step = _load_stages(recipe, ("wide", "words", "broad"), sam, pathway)
    pathway.config = replace(
        pathway.config, dense_source="sam", dense_image_size=TINY_SAM.image_size
    )
    model = TextSAM(sam, clip=encoder, pathway=pathway, focus=FocusSettings(), name="tiny")
    return model, step


# The stages and their order.
STAGES: Mapping[StageName, Callable[[TinySettings], TrainResult | None]] = {
    "clip": train_clip,
    "dense": train_dense,
    "points": train_points,
    "full": partial(train_jointly, name="full"),
    "joint": partial(train_jointly, name="joint"),
    "final": partial(train_jointly, name="final"),
    "wide": partial(train_jointly, name="wide"),
    "words": train_words,
    "broad": partial(train_jointly, name="broad"),
    "export": export,
}


def _train_stage(
    recipe: TinySettings,
    name: StageName,
    objective: Objective,
    mix: DataMix,
    *,
    loader: LoaderConfig,
    engine: EngineConfig,
    phrases: tuple[ConceptBank, PhraseConfig] | None = None,
) -> TrainResult:
    """Train a stage, or go on with what its folder holds."""
    finish = None
    if phrases is not None:
        bank, config = phrases
        finish = PhraseDraw(
            bank,
            mix.rows(),
            config=config,
            image_size=loader.view.image_size,
            words=recipe.lexicon(),
        )
    run = ObjectiveRun(
        mix=mix, loader=loader, engine=engine, folder=recipe.runs / name, finish=finish
    )
    return run.train(objective)


def _train(objective: Objective, batches: Any, engine: EngineConfig, folder: Path) -> TrainResult:
    """Train a part of CLIP in its own folder, and leave the result in the objective."""
    result = Trainer(objective, batches, config=engine, folder=folder).train()
    objective.eval()
    return result


def _loader(recipe: TinySettings, stage: settings.JointStage, *, seed: int) -> LoaderConfig:
    return LoaderConfig(
        photos_per_step=recipe.images or stage.images,
        workers=recipe.workers,
        seed=seed,
        view=stage.view,
    )


def _load_stages(
    recipe: TinySettings, names: Sequence[StageName], sam: Sam, pathway: TextPathway
) -> int:
    """Load what stages trained, one after the other; returns the step of the last one.

    A run that starts from a model has its core, and may have left stages out.
    """
    if recipe.init_from is not None:
        _load_known(sam, _start_model(recipe).sam)
        names = [name for name in names if CheckpointStore(recipe.runs / name).newest()]
    step = 0
    for name in names:
        step = _load(recipe.runs / name, sam, pathway)
    return step


def _load_known(module: nn.Module, start: nn.Module) -> None:
    """Load the weights of a model that may lack the blocks which start as the identity."""
    state = module.state_dict()
    added = ("image_encoder.context.", "image_encoder.blocks.", "dense.blocks.")
    fresh = {name: value for name, value in state.items() if any(part in name for part in added)}
    module.load_state_dict({**fresh, **start.state_dict()})


def _load(folder: Path, sam: Sam, pathway: TextPathway) -> int:
    """Load what a stage trained of the two; returns the step it was at."""
    parts: dict[str, dict[str, nn.Module]] = {
        "points": {"sam": sam},
        "dense": {"pathway": pathway},
        "words": {"pathway": pathway},
    }
    chosen = parts.get(folder.name, {"sam": sam, "pathway": pathway})
    step = load_weights(folder, nn.ModuleDict(chosen))
    if not step:
        raise TextSamError(
            f"there is no checkpoint in {folder} yet. Type: --stages {folder.name}, then go on"
        )
    return step


def _text_parts(recipe: TinySettings) -> tuple[ClipEncoder, ConceptBank, TextPathway]:
    """CLIP, embeddings to ask with, and a fresh pathway with the means of both modalities."""
    folder = recipe.runs / "clip"
    if not (folder / _CLIP_FILE).exists():
        raise TextSamError(f"there is no CLIP in {folder} yet. Type: --stages clip, then go on")
    crops = CropFeatures(**torch.load(folder / "crops.pt", weights_only=True)).trained()
    encoder = ClipEncoder.from_pretrained(folder, device="cpu")
    encoder.name = "tiny"
    pathway = new_tiny_pathway(encoder, seed=recipe.seed)
    if recipe.init_from is not None:
        _load_known(pathway, _start_model(recipe).pathway)
    words = recipe.lexicon().names
    bank = concept_bank(
        encoder,
        crops,
        pathway,
        names=[*words, *(f"{colour} {word}" for word in words for colour in COLOURS)],
        keep_means=recipe.init_from is not None,
    )
    return encoder, bank, pathway


def _start_model(recipe: TinySettings) -> Any:
    """The model that `--init-from` names, on the CPU.

    Raises:
        TextSamError: It has no CLIP, or no dense head on its own maps.
    """
    model = TextSAM.from_pretrained(str(recipe.init_from), device="cpu")
    if model.clip is None or model.pathway is None or model.pathway.config.dense_source != "sam":
        raise TextSamError(
            f"{recipe.init_from} has no CLIP, or no dense text head on its own maps. Type: "
            "--init-from tiny"
        )
    return model


def _computed_once(path: Path, processes: Processes, compute: Callable[[], Any]) -> Any:
    """What a file holds; the first process computes it if there is none, the others wait."""
    if processes.is_main and not path.exists():
        torch.save(compute(), path)
    processes.wait()
    return torch.load(path, weights_only=True)
