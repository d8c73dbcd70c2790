"""Train the shipped model: `python -m training.train tiny --data ../shared/data/train`.

Each stage resumes from its own folder below `--runs` and is skipped when it is done:

    clip     distil the text tower, train the image head         -> clip/
    dense    the dense text head on the frozen CLIP trunk        -> dense/
    points   the SAM core on points and boxes, at 256 px         -> points/
    full     the same at 320 px, with phrases among the prompts  -> full/
    export   everything as one folder, fp16                      -> tiny/
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from textsam.clip.encoder import ClipEncoder
from textsam.clip.pathway import TextPathway
from textsam.inference.model import TextSAM
from textsam.modeling.sam import Sam

from .data import Sample, ViewConfig
from .engine import LoopConfig, load_checkpoint, run
from .recipes.dense_text import ConceptBank, DenseConfig, DenseTrainer, new_tiny_pathway
from .recipes.text_prompts import TextPrompts
from .recipes.thresholds import choose_settings
from .recipes.tiny import (
    FULL_SOURCES,
    SOURCES,
    TINY_SAM,
    CoreTrainer,
    PhotoSampler,
    TinyConfig,
    load_train,
    new_tiny_sam,
)
from .recipes.tiny_clip import (
    CropFeatures,
    TextConfig,
    as_encoder,
    crop_features,
    distil_text,
    new_tiny_clip,
    teacher_embeddings,
    token_texts,
    train_image_head,
)
from .recipes.vocabulary import phrase_list

logger = logging.getLogger("training")
app = typer.Typer(add_completion=False, help=__doc__, rich_markup_mode=None)

POINTS_SIZE, FULL_SIZE = 256, 320

STAGES = ("clip", "dense", "points", "full", "export")


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where a run reads and writes, and how long its stages are."""

    data: Path
    runs: Path
    seed: int
    text_epochs: float
    dense_steps: int
    points_steps: int
    full_steps: int
    seconds: float

    def samples(self) -> dict[str, list[Sample]]:
        """All files of data/train."""
        return load_train(self.data)


@app.command()
def tiny(
    stages: Annotated[
        list[str] | None, typer.Argument(help="Stages; all of them by default")
    ] = None,
    data: Annotated[Path, typer.Option(help="Folder of training Parquet files")] = Path(
        "../shared/data/train"
    ),
    runs: Annotated[Path, typer.Option(help="Folder for checkpoints and logs")] = Path("runs/tiny"),
    seed: int = 0,
    text_epochs: float = 2.0,
    dense_steps: int = 650,
    points_steps: int = 2000,
    full_steps: int = 1200,
    seconds: Annotated[float, typer.Option(help="Stop a stage after this long")] = float("inf"),
    threads: Annotated[int, typer.Option(help="Threads of torch")] = 2,
) -> None:
    """Train `tiny` from ImageNet weights, stage by stage."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    torch.set_num_threads(threads)
    unknown = sorted(set(stages or ()) - set(STAGES))
    if unknown:
        raise typer.BadParameter(f"unknown stages {unknown}; there are {', '.join(STAGES)}")
    place = Workplace(
        data=data,
        runs=runs,
        seed=seed,
        text_epochs=text_epochs,
        dense_steps=dense_steps,
        points_steps=points_steps,
        full_steps=full_steps,
        seconds=seconds,
    )
    steps = {
        "clip": train_clip,
        "dense": train_dense,
        "points": train_points,
        "full": train_full,
        "export": export,
    }
    for stage in stages or STAGES:
        logger.info("stage %s", stage)
        steps[stage](place)


def train_clip(place: Workplace) -> None:
    """Text tower and image head; teacher embeddings and crops are cached beside them."""
    folder = place.runs / "clip"
    if (folder / "open_clip_model.safetensors").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    samples = place.samples()
    names = sorted({o.label for rows in samples.values() for s in rows for o in s.objects})
    model = new_tiny_clip(seed=place.seed)
    text_file = folder / "text.pt"
    if text_file.exists():
        model.load_state_dict(torch.load(text_file, weights_only=True))
    else:
        phrases = phrase_list(names, seed=place.seed)
        figures = distil_text(
            model,
            phrases,
            _cached(folder / "teacher.pt", lambda: teacher_embeddings(phrases)),
            words=_cached(folder / "words.pt", lambda: teacher_embeddings(token_texts())),
            config=TextConfig(seed=place.seed, epochs=place.text_epochs),
        )
        logger.info("text tower: %s", figures)
        torch.save(model.state_dict(), text_file)
    crops = crop_features(model, samples, seed=place.seed)
    torch.save(vars(crops), folder / "crops.pt")
    logger.info("image head: %s", train_image_head(model, crops, seed=place.seed))
    as_encoder(model).save(folder, dtype=torch.float16)


def train_dense(place: Workplace) -> None:
    """The dense text head."""
    encoder, bank, pathway = _text_parts(place)
    config = DenseConfig(
        seed=place.seed, loop=LoopConfig(steps=place.dense_steps, warmup=50, decay=0.8)
    )
    trainer = DenseTrainer(encoder.model, pathway, bank, place.samples(), SOURCES, config=config)
    loop = replace(config.loop, seconds=place.seconds)
    folder = place.runs / "dense"
    run(pathway, trainer.optimizer(), trainer.step_loss, config=loop, folder=folder)


def train_points(place: Workplace) -> None:
    """The core at 256 px, points and boxes only: most of what it must learn, at half the cost."""
    sam = new_tiny_sam(seed=place.seed, image_size=POINTS_SIZE)
    loop = LoopConfig(steps=place.points_steps, warmup=100, decay=1e-6, seconds=place.seconds)
    view = ViewConfig(image_size=POINTS_SIZE, min_area=17)  # the share that 40 has at 384 px
    config = TinyConfig(seed=place.seed, view=view, loop=loop)
    sampler = PhotoSampler(place.samples(), seed=config.seed, view=config.view)
    trainer = CoreTrainer(sam, sampler, config=config)
    folder = place.runs / "points"
    run(sam, trainer.optimizer(), trainer.step_loss, config=loop, folder=folder)


def train_full(place: Workplace) -> None:
    """The core nearer to its full size, a third of the photos asked by phrase.

    It is used at 384 px: a CNN gains from a little more than it was trained with (arXiv
    1906.06423), and 320 px gives half as many steps again in the same time.
    """
    sam = new_tiny_sam(seed=place.seed, image_size=FULL_SIZE)
    load_checkpoint(place.runs / "points", sam)
    encoder, bank, pathway = _text_parts(place)
    load_checkpoint(place.runs / "dense", pathway)
    samples = place.samples()
    loop = LoopConfig(steps=place.full_steps, warmup=50, decay=0.5, seconds=place.seconds)
    view = ViewConfig(image_size=FULL_SIZE)
    config = TinyConfig(seed=place.seed + 1, text_share=0.3, view=view, loop=loop)
    trainer = CoreTrainer(
        sam,
        PhotoSampler(samples, seed=config.seed, view=config.view, shares=FULL_SOURCES),
        config=config,
        text=TextPrompts(encoder.model, pathway, bank, samples),
    )
    both = torch.nn.ModuleDict({"sam": sam, "pathway": pathway})
    folder = place.runs / "full"
    run(both, trainer.optimizer(), trainer.step_loss, config=loop, folder=folder)


def export(place: Workplace) -> None:
    """Write `tiny` as `TextSAM.from_pretrained` reads it, in fp16."""
    sam = Sam(TINY_SAM)
    encoder, _, pathway = _text_parts(place)
    both = torch.nn.ModuleDict({"sam": sam, "pathway": pathway})
    step = load_checkpoint(place.runs / "full", both)
    if not step:
        raise typer.BadParameter(f"there is no checkpoint in {place.runs / 'full'} yet")
    model = TextSAM(sam, clip=encoder, pathway=pathway, name="tiny")
    samples = place.samples()
    model.text_settings, figures = choose_settings(model, samples, photos=40, seed=place.seed)
    logger.info("%s, from %s", model.text_settings, figures)
    model.save_pretrained(place.runs / "tiny", dtype=torch.float16)
    logger.info("wrote %s from step %d", place.runs / "tiny", step)


def _text_parts(place: Workplace) -> tuple[ClipEncoder, ConceptBank, TextPathway]:
    folder = place.runs / "clip"
    encoder = ClipEncoder.from_pretrained(folder)
    encoder.name = "tiny"
    crops = CropFeatures(**torch.load(folder / "crops.pt", weights_only=True))
    pathway = new_tiny_pathway(seed=place.seed, prompt_width=TINY_SAM.embed_dim)
    return encoder, ConceptBank(encoder.model, crops, pathway), pathway


def _cached(path: Path, make: Any) -> torch.Tensor:
    if not path.exists():
        torch.save(make(), path)
    tensor: torch.Tensor = torch.load(path, weights_only=True)
    return tensor


if __name__ == "__main__":
    app()
