"""`tiny` and `tiny_clip`: the shipped model, stage by stage, on one process.

    clip     distil the text tower, train the image head         -> clip/
    dense    the dense text head on the frozen CLIP trunk        -> dense/
    points   the SAM core on points and boxes, at 256 px         -> points/
    full     the same at 320 px, with phrases among the prompts  -> full/
    joint    masks and words in one backbone, at 384 px          -> joint/
    final    the same at the size of use, 512 px                 -> final/
    export   everything as one folder, fp16                      -> tiny/

Each stage resumes from its own folder and is passed over when it is done. `STAGES` is all there is
to their order: a further stage is a function of the recipe and one entry there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from textsam.clip.encoder import ClipEncoder
from textsam.clip.pathway import TextPathway
from textsam.clip.prior import attach_prior
from textsam.errors import TextSamError
from textsam.inference.focus import FocusSettings
from textsam.inference.model import TextSAM
from textsam.modeling.sam import Sam

from ..data import Sample, ViewConfig
from ..engine import EngineConfig, TrainResult, load_weights
from ..prompting import PromptConfig
from .base import Job
from .concepts import ConceptBank
from .dense_text import DenseConfig, DenseTrainer, new_tiny_pathway
from .held_out import is_held_out
from .steps import refuse_processes, train_steps
from .text_prompts import TextPrompts
from .thresholds import choose_calibration, choose_settings
from .tiny import (
    FULL_SOURCES,
    SOURCES,
    TINY_SAM,
    CoreTrainer,
    PhotoSampler,
    TinyConfig,
    load_train,
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
from .tiny_joint import JointConfig, JointTrainer
from .vocabulary import phrase_list

__all__ = ["STAGES", "StageName", "TinyClipRecipe", "TinyRecipe"]

logger = logging.getLogger(__name__)

# Sides of the model's frame, pixels, stage by stage. It is used at 512 px (`TINY_SAM`): a CNN gains
# from more than it was trained with (arXiv 1906.06423), and of 384, 448 and 512 px the last gave
# the best first click on training photos.
POINTS_SIZE, FULL_SIZE, JOINT_SIZE = 256, 320, 384

StageName = Literal["clip", "dense", "points", "full", "joint", "final", "export"]


@dataclass(frozen=True, kw_only=True)
class TinyRecipe:
    """The shipped model `tiny`, stage by stage, on one process.

    python -m training.train tiny --data ../shared/data/train --runs runs/tiny

    python -m training.train tiny --stages joint export

    Stages are clip, dense, points, full, joint, final and export (docs/training.md).

    Attributes:
        data: Folder of the training Parquet files.
        runs: Takes a folder for each stage.
        stages: Those to go through, in their order; all of them by default.
        seed: Of every stage.
        text_epochs: Passes over the phrases that the text tower learns.
        dense_steps: Length of the stage, as the others'.
        points_steps: At 256 px.
        full_steps: At 320 px.
        joint_steps: At 384 px.
        final_steps: At 512 px.
        hold_out_names: Leave the 60 names of `recipes/held_out.py` out of everything, for
            `training.evaluation.names`.
        seconds: Stop each stage after so long, with a checkpoint.
        threads: Of torch.
    """

    NAME: ClassVar[str] = "tiny"

    data: Path = Path("../shared/data/train")
    runs: Path = Path("runs/tiny")
    stages: tuple[StageName, ...] = (
        "clip",
        "dense",
        "points",
        "full",
        "joint",
        "final",
        "export",
    )
    seed: int = 0
    text_epochs: float = 2.0
    dense_steps: int = 650
    points_steps: int = 2000
    full_steps: int = 1200
    joint_steps: int = 2000
    final_steps: int = 1500
    hold_out_names: bool = False
    seconds: float = float("inf")
    threads: int = 2

    def prepare(self) -> Job:
        """Look at what there is; each stage reads its data when its turn comes."""
        refuse_processes()
        if not self.stages:
            raise ValueError(f"no stage to go through; there are {', '.join(STAGES)}")
        lacking = [name for name in SOURCES if not (self.data / f"{name}.parquet").is_file()]
        if lacking:
            raise FileNotFoundError(
                f"{self.data} lacks {', '.join(f'{name}.parquet' for name in lacking)}. Type: "
                "--data FOLDER"
            )
        torch.set_num_threads(self.threads)

        def job() -> TrainResult | None:
            for name, stage in STAGES.items():
                if name in self.stages:
                    logger.info("stage %s", name)
                    stage(self)
            return None

        return job

    def samples(self) -> dict[str, list[Sample]]:
        """All training files."""
        return load_train(self.data, without=is_held_out if self.hold_out_names else None)

    def engine(self, *, steps: int, warmup: int, tail: float, config: Any) -> EngineConfig:
        """Rise, plateau and linear fall; a checkpoint every 100 steps.

        Args:
            steps: Length of the stage.
            warmup: Steps of the rise.
            tail: Share of the steps in which the rate falls.
            config: Of the stage: `seed`, `weight_decay`, and `decoder_rate` or `rate`, the peak.
        """
        return EngineConfig(
            steps=steps,
            seed=config.seed,
            peak_rate=getattr(config, "decoder_rate", None) or config.rate,
            warmup=warmup,
            schedule="linear",
            tail=tail,
            weight_decay=config.weight_decay,
            cpu=True,
            checkpoint_every=100,
            seconds=self.seconds,
        )


@dataclass(frozen=True, kw_only=True)
class TinyClipRecipe:
    """The CLIP of `tiny` alone: text tower and image head.

    python -m training.train tiny_clip --data ../shared/data/train --runs runs/tiny

    It is the first stage of `tiny`, in the same folder, so that `tiny` goes on from it.

    Attributes:
        data: Folder of the training Parquet files.
        runs: Takes `clip/`.
        seed: Of every random choice.
        text_epochs: Passes over the phrases that the text tower learns.
        threads: Of torch.
    """

    NAME: ClassVar[str] = "tiny_clip"

    data: Path = Path("../shared/data/train")
    runs: Path = Path("runs/tiny")
    seed: int = 0
    text_epochs: float = 2.0
    threads: int = 2

    def prepare(self) -> Job:
        """See `TinyRecipe`."""
        return TinyRecipe(
            data=self.data,
            runs=self.runs,
            stages=("clip",),
            seed=self.seed,
            text_epochs=self.text_epochs,
            threads=self.threads,
        ).prepare()


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
    sam = new_tiny_sam(seed=recipe.seed, image_size=JOINT_SIZE)
    _, bank, pathway = _text_parts(recipe)
    _load(recipe.runs / "full", {"sam": sam, "pathway": pathway})
    pathway.config = replace(pathway.config, dense_source="sam")
    config = JointConfig(seed=recipe.seed + 2)
    trainer = JointTrainer(sam, pathway, bank, recipe.samples(), config=config)
    engine = recipe.engine(steps=recipe.joint_steps, warmup=100, tail=0.6, config=config)
    parts = {"sam": sam, "pathway": pathway}
    train_steps(trainer, parts, engine=engine, folder=recipe.runs / "joint")


def train_final(recipe: TinyRecipe) -> None:
    """On at the size of use, with more exact boxes than the paper's: see `training/RUNS.md`, 3."""
    side = TINY_SAM.image_size
    sam = new_tiny_sam(seed=recipe.seed, image_size=side)
    _, bank, pathway = _text_parts(recipe)
    _load(recipe.runs / "joint", {"sam": sam, "pathway": pathway})
    pathway.config = replace(pathway.config, dense_source="sam")
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
    trainer = JointTrainer(sam, pathway, bank, recipe.samples(), config=config)
    engine = recipe.engine(steps=recipe.final_steps, warmup=60, tail=0.75, config=config)
    parts = {"sam": sam, "pathway": pathway}
    train_steps(trainer, parts, engine=engine, folder=recipe.runs / "final")


def export(recipe: TinyRecipe) -> None:
    """Write `tiny` as `TextSAM.from_pretrained` reads it, in fp16."""
    sam = Sam(TINY_SAM)
    encoder, _, pathway = _text_parts(recipe)
    step = _load(recipe.runs / "final", {"sam": sam, "pathway": pathway})
    pathway.config = replace(
        pathway.config, dense_source="sam", dense_image_size=TINY_SAM.image_size
    )
    model = TextSAM(sam, clip=encoder, pathway=pathway, focus=FocusSettings(), name="tiny")
    samples = recipe.samples()
    model.text_settings, figures = choose_settings(model, samples, photos=40, seed=recipe.seed)
    logger.info("%s, from %s", model.text_settings, figures)
    model.calibration = choose_calibration(model, samples, photos=40, seed=recipe.seed)
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
    "export": export,
}


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
