"""The promptable core as the paper trains it: `sam_vit_h`, `sam_vit_l` and `sam_vit_b`.

The numbers are those of arXiv 2304.02643, Appendix A. Deviations are in the objective and the
engine: soft targets, focal alpha, gradient clipping, bf16.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from textsam.inference.model import TextSAM
from textsam.modeling.config import SAM_CONFIGS, SamConfig, ViTConfig
from textsam.modeling.image_encoder import ImageEncoderViT
from textsam.modeling.sam import Sam

from ..data import StreamSource, ViewConfig
from ..engine import EngineConfig, TrainResult
from ..engine.trainer import seed_everything
from ..objectives.sam_objective import SamObjective, SamObjectiveConfig
from ..pretrained import initialise_encoder
from .base import (
    Job,
    ObjectiveRecipe,
    is_finished,
    photos_per_batch,
    picture_sheet,
    save_model,
    trained_weights,
)
from .sources import DataMix, open_mix

logger = logging.getLogger(__name__)

# Appendix A: dropout of the decoder while training, and masks on a GPU, which has one photo.
_DECODER_DROPOUT = 0.1
_MASKS = 64


@dataclass(frozen=True, kw_only=True)
class SamRecipe(ObjectiveRecipe):
    """A Segment Anything core, from a pre-trained ViT."""

    SIZE: ClassVar[str]

    data: tuple[str, ...]  # Sources, a line each (docs/training.md), e.g. `sa1b:FOLDER`
    folder: Path  # Takes checkpoints, logs and, at the end, `model/`
    # A ViT to start from, MAE's or timm's `.pth` or `.safetensors`; random without
    encoder: Path | None = None
    masks: int = _MASKS  # Most masks of a photo
    # Large-scale jitter [0.1, 2.0] of manually annotated data. "auto": on, unless every source is
    # SA-1B, which the paper does not augment
    jitter: Literal["auto", "on", "off"] = "auto"
    drop_path: float  # Rate at the encoder's last block
    # Sources of which eight photos are drawn at every evaluation, answered by box
    shown: tuple[str, ...] = ()
    workers: int = 4
    objective: SamObjectiveConfig  # Prompts, losses, and what is trained at which rate

    def sizes(self) -> SamConfig:
        """Of the network, with its drop path."""
        config = SAM_CONFIGS[self.SIZE]
        assert isinstance(config.encoder, ViTConfig)
        return replace(config, encoder=replace(config.encoder, drop_path=self.drop_path))

    def view(self, mix: DataMix) -> ViewConfig:
        """How photos are shown."""
        automatic = [kind for kind in mix.kinds if kind == "sa1b"]
        if self.jitter == "auto" and automatic and len(automatic) < len(mix.kinds):
            raise ValueError(
                "SA-1B, which the paper does not augment, is mixed with manually annotated data, "
                "which it jitters, and a run has one view. Type: --jitter on, or --jitter off"
            )
        jittered = not automatic if self.jitter == "auto" else self.jitter == "on"
        make = ViewConfig.large_scale_jitter if jittered else ViewConfig.unchanged
        return make(image_size=self.sizes().image_size, max_masks=self.masks)

    def build(self) -> SamObjective:
        """The network at its start."""
        seed_everything(self.engine.seed)
        sam = Sam(self.sizes())
        if self.encoder is None:
            logger.warning("the encoder starts at random; the paper starts from MAE: --encoder")
        else:
            assert isinstance(sam.image_encoder, ImageEncoderViT)
            initialise_encoder(sam.image_encoder, self.encoder)
        return SamObjective(sam, config=self.objective)

    def prepare(self) -> Job:
        """Open the sources, build the network."""
        photos_per_batch(self.images, self.engine)  # before anything is opened
        if self.encoder is not None and not self.encoder.is_file():
            raise FileNotFoundError(f"there is no file {self.encoder} with a pre-trained ViT")
        mix = open_mix(self.data)
        shown = open_mix(self.shown).sources.values() if self.shown else ()
        view = self.view(mix)
        run = self.run_on(mix, view)
        samples = (s[i] for s in shown if not isinstance(s, StreamSource) for i in range(len(s)))
        sheet = picture_sheet(samples, view, name="shown")
        objective = self.build()

        def job() -> TrainResult:
            result = run.train(objective, evaluate=sheet)
            if is_finished(result):
                trained = trained_weights(self.folder, objective, build=self.build)
                assert isinstance(trained, SamObjective)
                model = TextSAM(trained.sam.cpu(), name=self.folder.name)
                save_model(model, self.folder / "model")
            return result

        return job


def _objective(layer_decay: float) -> SamObjectiveConfig:
    return SamObjectiveConfig(decoder_dropout=_DECODER_DROPOUT, layer_decay=layer_decay)


@dataclass(frozen=True, kw_only=True)
class SamVitH(SamRecipe):
    """Core with a ViT-H, the paper's numbers: 90,000 steps of 256.

    python -m training.train sam_vit_h --data sa1b:FOLDER --encoder mae_pretrain_vit_huge.pth

    torchrun --nnodes 32 --nproc-per-node 8 -m training.train sam_vit_h --data sa1b:FOLDER
    --encoder mae_pretrain_vit_huge.pth

    With N GPUs for one image each, add --engine.accumulation 256/N.
    """

    NAME: ClassVar[str] = "sam_vit_h"
    SIZE: ClassVar[str] = "vit_h"

    folder: Path = Path("runs/sam_vit_h")
    images: int = 256
    drop_path: float = 0.4
    engine: EngineConfig = field(
        default_factory=lambda: EngineConfig(steps=90_000, peak_rate=8e-4, precision="bf16")
    )
    objective: SamObjectiveConfig = field(default_factory=lambda: _objective(0.8))


@dataclass(frozen=True, kw_only=True)
class SamVitL(SamRecipe):
    """Core with a ViT-L, the paper's numbers: 180,000 steps of 128.

    python -m training.train sam_vit_l --data sa1b:FOLDER --encoder mae_pretrain_vit_large.pth

    torchrun --nnodes 16 --nproc-per-node 8 -m training.train sam_vit_l --data sa1b:FOLDER
    --encoder mae_pretrain_vit_large.pth

    With N GPUs for one image each, add --engine.accumulation 128/N.
    """

    NAME: ClassVar[str] = "sam_vit_l"
    SIZE: ClassVar[str] = "vit_l"

    folder: Path = Path("runs/sam_vit_l")
    images: int = 128
    drop_path: float = 0.4
    engine: EngineConfig = field(
        default_factory=lambda: EngineConfig(steps=180_000, peak_rate=4e-4, precision="bf16")
    )
    objective: SamObjectiveConfig = field(default_factory=lambda: _objective(0.8))


@dataclass(frozen=True, kw_only=True)
class SamVitB(SamRecipe):
    """Core with a ViT-B, the paper's numbers: 180,000 steps of 128.

    python -m training.train sam_vit_b --data sa1b:FOLDER --encoder mae_pretrain_vit_base.pth

    torchrun --nnodes 16 --nproc-per-node 8 -m training.train sam_vit_b --data sa1b:FOLDER
    --encoder mae_pretrain_vit_base.pth

    With N GPUs for one image each, add --engine.accumulation 128/N.
    """

    NAME: ClassVar[str] = "sam_vit_b"
    SIZE: ClassVar[str] = "vit_b"

    folder: Path = Path("runs/sam_vit_b")
    images: int = 128
    drop_path: float = 0.6
    engine: EngineConfig = field(
        default_factory=lambda: EngineConfig(steps=180_000, peak_rate=8e-4, precision="bf16")
    )
    objective: SamObjectiveConfig = field(default_factory=lambda: _objective(0.6))
