"""A run of seconds on drawn photos: does the whole chain learn, resume, and share work?"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch

from textsam.modeling.config import SamConfig, ViTConfig
from textsam.modeling.sam import Sam

from ..data import ViewConfig
from ..data.drawn_shapes import draw_samples
from ..engine import EngineConfig
from ..engine.trainer import seed_everything
from ..losses import LossConfig
from ..objectives.sam_objective import SamObjective, SamObjectiveConfig, align_positions
from ..prompting import PromptConfig
from .base import Job, ObjectiveRecipe, picture_sheet
from .sources import DataMix


@dataclass(frozen=True, kw_only=True)
class DebugRecipe(ObjectiveRecipe):
    """Overfit 8 drawn photos with a tiny ViT: a minute on one core.

    python -m training.train debug

    torchrun --nproc-per-node 2 -m training.train debug

    Its last record in `log.jsonl` has `drawn_iou`: the mean IoU of the answers to true boxes on the
    photos that it was trained on, above 0.95.
    """

    NAME: ClassVar[str] = "debug"

    folder: Path = Path("runs/debug")  # Takes checkpoints, logs and pictures
    photos: int = 8  # How many are drawn
    images: int = 8
    image_size: int = 128  # Side of the photos and of the model's frame, pixels
    # Of torch in each process; more than one only waits with networks of this size
    threads: int = 1
    engine: EngineConfig = field(
        default_factory=lambda: EngineConfig(
            steps=200,
            peak_rate=2.5e-3,
            warmup=40,
            schedule="cosine",
            tail=1.0,
            weight_decay=0.01,
            cpu=True,
            checkpoint_every=50,
            log_every=10,
            tensorboard=False,
        )
    )
    # What is trained, and on which prompts
    objective: SamObjectiveConfig = field(
        default_factory=lambda: SamObjectiveConfig(
            prompts=PromptConfig(points=1, silent_among=0, silent_last=0),
            loss=LossConfig(alpha=0.5),  # a larger one makes every mask a little too large
            box_trains_single=True,
            recompute=False,
        )
    )

    def sizes(self) -> SamConfig:
        """Of the network: a ViT of three blocks."""
        encoder = ViTConfig(
            width=64, depth=3, heads=4, global_attention_indexes=(1, 2), window_size=4
        )
        return SamConfig(
            encoder=encoder,
            image_size=self.image_size,
            embed_dim=64,
            decoder_heads=4,
            decoder_mlp=128,
            iou_hidden=64,
            first_layer_residual=True,
        )

    def prepare(self) -> Job:
        """Draw the photos, build the network."""
        torch.set_num_threads(self.threads)
        samples = draw_samples(self.photos, seed=self.engine.seed, side=self.image_size)
        view = ViewConfig(image_size=self.image_size, max_masks=2, jitter=0.0, flip=0.0)
        run = self.run_on(DataMix(sources={"drawn": samples}), view)
        seed_everything(self.engine.seed)
        sam = Sam(self.sizes())
        align_positions(sam)
        objective = SamObjective(sam, config=self.objective)
        sheet = picture_sheet(samples, view, name="drawn")
        return lambda: run.train(objective, evaluate=sheet)
