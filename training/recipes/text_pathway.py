"""The text pathway for any core and any open_clip tower (arXiv 2304.02643, Appendix D.5)."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import torch

from textsam.clip.encoder import ClipEncoder
from textsam.clip.pathway import PathwayConfig, TextPathway
from textsam.inference.model import TextSAM
from textsam.modeling.layers import DropPath, drop_path_rates
from textsam.modeling.sam import Sam

from ..data import StreamSource, ViewConfig
from ..engine import CheckpointStore, EngineConfig, TrainResult
from ..engine.trainer import seed_everything
from ..objectives.crops import min_crop_area
from ..objectives.embeddings import CacheConfig, EmbeddingCache
from ..objectives.pathway_objective import PathwayObjective, PathwayObjectiveConfig, write_adapter
from .base import (
    Job,
    ObjectiveRecipe,
    is_finished,
    photos_per_batch,
    place_in_run,
    save_model,
    trained_weights,
)
from .sources import DataMix, open_mix

logger = logging.getLogger(__name__)

_VARIANTS = 4  # of each mask's crop, in a cache


@dataclass(frozen=True, kw_only=True)
class TextPathwayRecipe(ObjectiveRecipe):
    """Text pathway for any core and CLIP: one adapter file.

    python -m training.train text_pathway --core facebook/sam-vit-huge --clip ViT-L-14-336/openai
    --data sa1b:FOLDER

    torchrun --nproc-per-node 8 -m training.train text_pathway --core facebook/sam-vit-huge
    --clip ViT-L-14-336/openai --data sa1b:FOLDER

    Towers that are frozen can be computed once: --cache FOLDER. As it stands the pathway alone is
    trained and `pathway.safetensors` is written; the paper trains the core, too: with
    --objective.frozen clip the whole model is written to `model/`.
    """

    NAME: ClassVar[str] = "text_pathway"

    # Sources, a line each (docs/training.md). Names of masks are used only for
    # `objective.label-share` and `objective.centring`.
    data: tuple[str, ...]
    folder: Path = Path("runs/text_pathway")
    core: str = "facebook/sam-vit-huge"  # Whatever `TextSAM.from_pretrained` takes
    # Whatever `ClipEncoder.from_pretrained` takes; the core's own when None
    clip: str | None = "ViT-L-14-336/openai"
    # Folder of embeddings that are computed before and shared by runs; for frozen towers. Views
    # are then neither jittered nor mirrored.
    cache: Path | None = None
    images: int = 128
    masks: int = 64  # Most masks of a photo
    jitter: bool = True  # Large-scale jitter [0.1, 2.0] (Appendix D.5), unless there is a cache
    # Rate at the last block of an image encoder that is trained and has drop path
    drop_path: float = 0.4
    tokens: int = 1  # Prompt tokens of a phrase
    hidden: int = 512  # Width of the pathway's hidden layer
    # Batches that the means are measured on, for `objective.centring`; a few thousand masks are
    # plenty
    centre_batches: int = 4
    workers: int = 4
    engine: EngineConfig = field(
        default_factory=lambda: EngineConfig(steps=120_000, peak_rate=8e-4, precision="bf16")
    )
    # What is trained; and the modality gap's options: centring, noise, label-share
    objective: PathwayObjectiveConfig = field(
        default_factory=lambda: PathwayObjectiveConfig(decoder_dropout=0.1, layer_decay=0.8)
    )

    def settings(self) -> PathwayObjectiveConfig:
        """The objective's; a cache needs fixed variants of the crops."""
        if self.cache is None or self.objective.crops.variants is not None:
            return self.objective
        crops = replace(self.objective.crops, variants=_VARIANTS)
        return replace(self.objective, crops=crops)

    def view(self, image_size: int) -> ViewConfig:
        """How photos are shown to a core of this size, with masks that CLIP is asked about."""
        jittered = self.jitter and self.cache is None
        make = ViewConfig.large_scale_jitter if jittered else ViewConfig.unchanged
        view = make(image_size=image_size, max_masks=self.masks)
        return replace(view, min_area=min_crop_area(image_size))

    def build(self) -> tuple[PathwayObjective, str]:
        """Both towers and a fresh pathway, and the name that the core has."""
        model = TextSAM.from_pretrained(self.core, clip=self.clip)
        if model.clip is None:
            raise ValueError(f"{self.core} has no CLIP of its own. Type: --clip NAME")
        sam = model.parts.require_sam()
        seed_everything(self.engine.seed)
        if "image_encoder" not in self.objective.frozen:
            _set_drop_path(sam, self.drop_path)
        pathway = TextPathway(
            PathwayConfig(
                clip_width=model.clip.width,
                prompt_width=sam.config.embed_dim,
                tokens=self.tokens,
                hidden=self.hidden,
            )
        )
        cache = self._cache(sam, model.clip)
        objective = PathwayObjective(sam, pathway, model.clip, config=self.settings(), cache=cache)
        return objective, model.name

    def prepare(self) -> Job:
        """Open the sources, load both towers."""
        photos_per_batch(self.images, self.engine)  # before anything is opened
        mix = open_mix(self.data)
        self._check_cache(mix)
        objective, name = self.build()
        run = self.run_on(mix, self.view(objective.sam.config.image_size))

        def job() -> TrainResult:
            if torch.cuda.is_available() and not self.engine.cpu:
                objective.cuda(int(os.environ.get("LOCAL_RANK", "0")))
            self._fill_cache(objective, mix)
            if objective.config.centring and not CheckpointStore(self.folder).paths():
                # Each process measures the same batches, so all have the same means.
                batches = run.batches(rank=0, world=1).batches(0, self.centre_batches)
                count = objective.measure_centres(batches)
                logger.info("means measured on %d masks", count)
            result = run.train(objective)
            if is_finished(result):
                self._write(objective, name)
            return result

        return job

    def _check_cache(self, mix: DataMix) -> None:
        if self.cache is None:
            return
        trained = sorted({"image_encoder", "clip"} - set(self.objective.frozen))
        if trained:
            raise ValueError(
                f"{trained} cannot be trained on embeddings computed beforehand. Leave --cache "
                "out, or freeze them"
            )
        streams = [k for k, source in mix.sources.items() if isinstance(source, StreamSource)]
        if streams:
            raise ValueError(
                f"{streams} are streams, which have no rows to cache. Leave --cache out"
            )

    def _cache(self, sam: Sam, clip: ClipEncoder) -> EmbeddingCache | None:
        if self.cache is None:
            return None
        config = CacheConfig(view=self.view(sam.config.image_size), crops=self.settings().crops)
        return EmbeddingCache(self.cache, sam, clip, config=config)

    def _fill_cache(self, objective: PathwayObjective, mix: DataMix) -> None:
        """Compute what is missing, each process its part, before the first step."""
        if objective.cache is None:
            return
        rank, world = place_in_run()
        for name, source in mix.sources.items():
            assert not isinstance(source, StreamSource)
            report = objective.cache.build(name, source, rank=rank, world=world)
            logger.info(
                "%s: %d shards computed, %d kept, %d rows without a mask or broken",
                *(name, report.written, report.kept, len(report.skipped)),
            )

    def _write(self, objective: PathwayObjective, core: str) -> None:
        trained = trained_weights(self.folder, objective, build=lambda: self.build()[0])
        assert isinstance(trained, PathwayObjective)
        if [part for part in trained.trained() if part != "pathway"]:
            clip, pathway = trained.clip.to("cpu"), trained.pathway.cpu()
            model = TextSAM(trained.sam.cpu(), clip=clip, pathway=pathway, name=self.folder.name)
            save_model(model, self.folder / "model")
            return
        path = write_adapter(self.folder / "pathway.safetensors", trained, sam=core)
        logger.info(
            'wrote %s: TextSAM.from_pretrained("%s", clip="%s", pathway="%s") reads it',
            *(path, self.core, self.clip, path),
        )


def _set_drop_path(sam: Sam, last: float) -> None:
    """Give an encoder's blocks the rates that a new one would have."""
    blocks = [m for m in sam.image_encoder.modules() if isinstance(m, DropPath)]
    for module, rate in zip(blocks, drop_path_rates(last, len(blocks)), strict=True):
        module.rate = rate
