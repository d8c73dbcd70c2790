"""Fine-tuning of any model on a user's own photos: a hundred photos and minutes are enough."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from rich.console import Console
from rich.table import Table

from textsam.errors import ImageError
from textsam.inference.model import TextSAM
from textsam.inference.view import ImageView
from textsam.values.files import write_atomically
from textsam.values.rle import decode_rle, merge_rles, rle_boxes

from ..data import ObjectMask, Sample, ViewConfig
from ..engine import EngineConfig, TrainResult
from ..engine.trainer import seed_everything
from ..evaluation.clicks.simulated_clicks import next_click
from ..evaluation.figures.matching import masked_iou
from ..objectives.base import Objective
from ..objectives.pathway_objective import PathwayObjectiveConfig, PathwayPart, PhraseObjective
from ..objectives.sam_objective import SamObjective, SamObjectiveConfig, SamPart
from ..prompting import PromptConfig
from .base import (
    Job,
    ObjectiveRecipe,
    is_finished,
    photos_per_batch,
    picture_sheet,
    place_in_run,
    save_model,
    trained_weights,
)
from .sources import open_mix, split_mix

_CORE: tuple[SamPart, ...] = ("image_encoder", "prompt_encoder", "mask_decoder")
# Of a photo, that are measured.
_MAX_OBJECTS = 5
_MAX_NAMES = 5


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe(ObjectiveRecipe):
    """Any model on your own photos with masks; phrases stay.

    python -m training.train finetune --data coco:instances.json@photos/

    torchrun --nproc-per-node 2 -m training.train finetune --data coco:instances.json@photos/
    --model facebook/sam-vit-base

    Writes `model/`, which `TextSAM.from_pretrained` reads, and prints the mean IoU on photos that
    were held out, before and after (`change.json`, too).
    """

    NAME: ClassVar[str] = "finetune"

    data: tuple[str, ...]  # Sources, a line each, in any format (docs/training.md)
    folder: Path = Path("runs/finetune")  # Takes checkpoints, logs and `model/`
    model: str = "tiny"  # Where to start: whatever `TextSAM.from_pretrained` takes
    held_out: float = 0.2  # Share of the photos that is not trained on but measured
    measured: int = 40  # Most of the held-out photos that are measured
    # Parts that are not trained. A model without a text pathway has the first three.
    frozen: tuple[PathwayPart, ...] = ("image_encoder", "clip")
    # Share of the masks that are asked by phrase, if the model has a text pathway
    text_share: float = 0.4
    images: int = 8
    masks: int = 6  # Most masks of a photo
    # Range of the random size of a view, as a share of the frame
    scale: tuple[float, float] = (0.7, 1.5)
    # Prompt simulation: three rounds
    prompts: PromptConfig = field(
        default_factory=lambda: PromptConfig(points=2, silent_among=0, silent_last=0)
    )
    engine: EngineConfig = field(
        default_factory=lambda: EngineConfig(
            steps=300,
            peak_rate=1e-4,
            warmup=20,
            schedule="cosine",
            tail=1.0,
            weight_decay=0.05,
            checkpoint_every=100,
        )
    )

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1 or not 0 <= self.text_share <= 1:
            raise ValueError(
                f"held_out={self.held_out}, text_share={self.text_share}; wanted a share from 0 "
                "to below 1, and one from 0 to 1"
            )

    def build(self) -> tuple[TextSAM, Objective]:
        """The model, and the objective that trains it in place."""
        model = TextSAM.from_pretrained(self.model)
        sam = model.parts.require_sam()
        seed_everything(self.engine.seed)
        # A core without phrases.
        if model.clip is None or model.pathway is None:
            names = tuple(name for name in _CORE if name in self.frozen)
            settings = SamObjectiveConfig(
                prompts=self.prompts, frozen=names, box_trains_single=True, recompute=False
            )
            return model, SamObjective(sam, config=settings)
        if "clip" not in self.frozen:
            raise ValueError(
                f"frozen is {self.frozen}: finetune keeps CLIP, or phrases that it knows would be "
                "lost. Add clip to --frozen"
            )
        config = PathwayObjectiveConfig(
            prompts=self.prompts,
            frozen=self.frozen,
            clip_share=self.text_share,
            point_share=0.4,  # `auto` asks with a point, `prompt` without
            label_share=0.7,
            centring=bool(model.pathway.text_mean.any() or model.pathway.image_mean.any()),
            recompute=False,
        )
        return model, PhraseObjective(sam, model.pathway, model.clip, config=config)

    def prepare(self) -> Job:
        """Open the sources, hold photos out, load the model."""
        photos_per_batch(self.images, self.engine)  # before anything is opened
        trained_on, held_out = split_mix(
            open_mix(self.data), share=self.held_out, seed=self.engine.seed
        )
        model, objective = self.build()
        view = ViewConfig(
            image_size=model.sam.config.image_size, max_masks=self.masks, scale=self.scale
        )
        run = self.run_on(trained_on, view)
        held_out = held_out[: self.measured]
        sheet = picture_sheet(held_out, view, name="held_out")

        def job() -> TrainResult:
            # The model is trained in place, so it is measured first.
            before = measure_model(model, held_out) if place_in_run()[0] == 0 else {}
            result = run.train(objective, evaluate=sheet)
            if is_finished(result):
                trained = trained_weights(self.folder, objective, build=lambda: self.build()[1])
                tuned = _as_model(trained, like=model, name=self.folder.name)
                save_model(tuned, self.folder / "model")
                after = measure_model(tuned, held_out)
                show_change(before, after, photos=len(held_out))
                figures = {"photos": len(held_out), "before": before, "after": after}
                write_atomically(self.folder / "change.json", json.dumps(figures).encode())
            return result

        return job


def _as_model(objective: Objective, *, like: TextSAM, name: str) -> TextSAM:
    """What was trained, with the settings of the model that it started from."""
    assert isinstance(objective, SamObjective | PhraseObjective)
    phrases = objective if isinstance(objective, PhraseObjective) else None
    return TextSAM(
        objective.sam,
        clip=like.clip if phrases is None else phrases.clip,
        pathway=None if phrases is None else phrases.pathway,
        text_settings=like.text_settings,
        focus=like.focus,
        calibration=like.calibration,
        name=name,
    )


def measure_model(model: TextSAM, samples: Sequence[Sample]) -> dict[str, float]:
    """Mean IoU of a first click, of a box, and of the union of a name's masks.

    The click is the pixel farthest from the mask's border (arXiv 2304.02643, Appendix D.1), the box
    is the true one. By name the union of `segment(text=...)` is compared with all masks of it.

    Returns:
        "click", "box" and, for a model that can be asked so and masks with names, "text"; empty
        without photos.
    """
    found: dict[str, list[float]] = {}
    for sample in samples:
        try:
            view = model.open(sample.image())
        except ImageError:
            continue
        objects = [item for item in sample.objects if not item.ignore]
        for item in objects[:_MAX_OBJECTS]:
            for kind, value in _object(view, sample, item).items():
                found.setdefault(kind, []).append(value)
        if model.pathway is None:
            continue
        names = list(dict.fromkeys(item.label for item in objects if item.label))
        for name in names[:_MAX_NAMES]:
            truth = decode_rle(
                merge_rles([o.rle for o in sample.objects if o.label == name], sample.size)
            )
            iou = masked_iou(view.segment(text=name).mask, truth, exclude=sample.void_mask())
            found.setdefault("text", []).append(iou)
    return {kind: sum(values) / len(values) for kind, values in found.items()}


def show_change(before: Mapping[str, float], after: Mapping[str, float], *, photos: int) -> None:
    """Print a table of mean IoU before and after."""
    console = Console()
    if not after:
        console.print("No photo was held out, so nothing was measured: see --held-out.")
        return
    table = Table("prompt", "before", "after", "change")
    for kind, value in after.items():
        table.add_row(kind, f"{before[kind]:.3f}", f"{value:.3f}", f"{value - before[kind]:+.3f}")
    console.print(f"Mean IoU on {photos} photos that were held out:")
    console.print(table)


def _object(view: ImageView, sample: Sample, item: ObjectMask) -> dict[str, float]:
    """IoU of one object by click and by box; nothing for an empty mask."""
    truth, void = decode_rle(item.rle), sample.void_mask()
    if not (truth & ~void).any():
        return {}
    click = next_click(np.zeros_like(truth), truth, void=void)
    assert click is not None
    box = rle_boxes([item.rle])[0]
    answers = {"click": view.segment(points=[(click.x, click.y)]), "box": view.segment(box=box)}
    return {
        kind: masked_iou(
            answer.masks[0] if len(answer) else np.zeros_like(truth), truth, exclude=void
        )
        for kind, answer in answers.items()
    }
