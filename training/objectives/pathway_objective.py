"""Training of the text pathway for any core and any open_clip tower.

arXiv 2304.02643, Section 7.5 and Appendix D.5: no text is needed, the first prompt is the CLIP
image embedding of the mask's own crop, and points in the error follow. The paper leaves open, and
we chose: the CLIP token stays in later rounds, a token alone has three readings, and there are
three ways to narrow the gap between image and text embeddings (`PathwayObjectiveConfig`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from textsam.clip.encoder import ClipEncoder
from textsam.clip.masked import masked_image_embedding
from textsam.clip.pathway import TextPathway
from textsam.errors import WeightsError
from textsam.modeling.image_encoder import ImageFeatures
from textsam.modeling.mask_decoder import BOX_START, PromptBatch
from textsam.modeling.sam import Sam
from textsam.weights.model_folder import write_pathway

from ..data.batch import ViewBatch
from ..engine.optim import RatedPart
from ..losses import LossConfig
from ..prompting import PromptConfig, PromptSimulator, sample_pixels, token_prompts
from .base import LossOutput, Objective, touch
from .crops import CropConfig, choose_crops, cut_crops, min_crop_area
from .embeddings import EmbeddingCache
from .name_maps import phrase_maps, view_tower_maps
from .randomness import photo_random
from .rounds import decode_rounds, set_decoder_dropout, start_rounds
from .sam_objective import SamObjective, encode_views, round_figures

PathwayPart = Literal["image_encoder", "prompt_encoder", "mask_decoder", "clip", "pathway"]
_CORE: tuple[PathwayPart, ...] = ("image_encoder", "prompt_encoder", "mask_decoder")


@dataclass(frozen=True, kw_only=True)
class PathwayObjectiveConfig:
    """What is trained and on which prompts.

    By default the pathway alone is trained; `frozen=("clip",)` trains the whole core as in the
    paper. CLIP's text tower is never trained, since no gradient reaches it.
    """

    # Prompt simulation; its first prompt is the CLIP token's, unless `clip_share` < 1
    prompts: PromptConfig = field(default_factory=PromptConfig)
    loss: LossConfig = field(default_factory=LossConfig)  # Weights of the loss
    frozen: tuple[PathwayPart, ...] = (*_CORE, "clip")  # Parts that are not trained
    # Probability that a mask's first prompt is a CLIP embedding, no point or box
    clip_share: float = 1.0
    # Probability that a point comes with the CLIP token. These are two prompts, so mask 0 is
    # trained. The paper has 0; single instances of a phrase are prompted this way.
    point_share: float = 0.0
    centring: bool = False  # Subtract the mean of each modality; call `measure_centres` first
    noise: float = 0.0  # Length of the Gaussian noise added to unit image embeddings in training
    # Probability that a mask with a name is prompted by the name's text instead
    label_share: float = 0.0
    crops: CropConfig = field(default_factory=CropConfig)  # Random choices of the crops
    # Rate in training (the paper's is 0.1); None keeps the model's
    decoder_dropout: float | None = None
    fixed_norms: bool = True  # Keep the statistics of batch norms, see `Objective.freeze`
    core_rate: float = 1.0  # Share of the peak rate for the core's parts; the pathway has all of it
    clip_rate: float = 1.0  # Share of the peak rate for CLIP's image tower
    # Factor from each layer of the core's image encoder to the one before
    layer_decay: float | None = None
    recompute: bool = True  # Checkpoint each round, see `objectives.rounds`

    def __post_init__(self) -> None:
        for name in ("clip_share", "point_share", "label_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted a share from 0 to 1")
        if self.noise < 0:
            raise ValueError(f"noise is {self.noise}; wanted a length of 0 or more")


class PathwayObjective(Objective):
    """Loss of a batch of views, prompted by CLIP embeddings of the masks' crops."""

    PARTS: ClassVar = {**SamObjective.PARTS, "clip": "clip_model.visual", "pathway": "pathway"}
    BOX_TRAINS_SINGLE: ClassVar[bool] = False  # in the paper a lone box has three readings

    def __init__(
        self,
        sam: Sam,
        pathway: TextPathway,
        clip: ClipEncoder,
        *,
        config: PathwayObjectiveConfig,
        cache: EmbeddingCache | None = None,
    ) -> None:
        super().__init__()
        _check_widths(sam, pathway, clip)
        _check_cache(cache, config)
        if not config.centring and (pathway.image_mean.any() or pathway.text_mean.any()):
            raise ValueError(
                "the pathway carries means, so it centres in use. Type: centring=True, or zero "
                "its image_mean and text_mean"
            )
        self.sam = sam
        self.pathway = pathway
        self.clip_model = clip.model
        self.clip = clip
        self.config = config
        self.cache = cache
        self._labels: dict[str, Tensor] = {}
        self._centred = not config.centring
        if config.decoder_dropout is not None:
            set_decoder_dropout(sam, config.decoder_dropout)
        # No gradient reaches the text tower, and DDP would wait for it.
        for name, parameter in clip.model.named_parameters():
            if not name.startswith("visual."):
                parameter.requires_grad_(False)
        if pathway.dense is not None:
            pathway.dense.requires_grad_(False)
        self.freeze(config.frozen, fixed_norms=config.fixed_norms)

    def train(self, mode: bool = True) -> PathwayObjective:
        """Switch to training; CLIP stays in evaluation mode even while its image tower learns."""
        super().train(mode)
        self.clip_model.eval()
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> PathwayObjective:
        """Move or cast; embedded phrases lie on the old device and are dropped."""
        super()._apply(fn, recurse)
        self.clip.clear_cache()
        return self

    def left_out(self, key: str) -> bool:
        """Whether a key belongs to something frozen; CLIP's text tower always does."""
        text = key.startswith("clip_model.") and not key.startswith("clip_model.visual.")
        return text or super().left_out(key)

    def forward(self, batch: ViewBatch) -> LossOutput:
        """Mean loss over the batch's masks, and IoU by kind of first prompt and by round."""
        batch = batch.to(self.sam.pixel_mean.device)
        self._check_areas(batch)
        self._check_centres()
        truth, simulator = start_rounds(self.sam, batch, config=self.config.prompts)
        features = self._features(batch)
        prompts, named = self._first(batch, simulator, features)
        asked = prompts.has_tokens
        assert asked is not None
        clicked = asked & (prompts.labels == 1).any(1)
        boxed = (prompts.labels == BOX_START).any(1)
        result = decode_rounds(
            self.sam,
            features,
            prompts,
            simulator,
            truth,
            loss=self.config.loss,
            single=clicked | boxed if self.BOX_TRAINS_SINGLE else clicked,
            multiple=~clicked,
            recompute=self.config.recompute,
        )
        parts = [self.sam.prompt_encoder, self.sam.mask_decoder, self.pathway]
        loss = touch(result.loss.mean(), [*parts, self.clip_model])
        alone = asked & ~clicked
        kinds = {"image": alone & ~named, "label": alone & named, "clicked": clicked}
        kinds |= {"point": ~asked & ~boxed, "box": boxed}
        return LossOutput(loss, round_figures(result, kinds))

    def rates(self) -> list[RatedPart]:
        """The parts that are not frozen, each at its rate."""
        config = self.config
        shares: dict[str, float] = {name: config.core_rate for name in _CORE}
        shares["clip"] = config.clip_rate
        return [
            RatedPart(
                module=self.part(name),
                share=shares.get(name, 1.0),
                layer_decay=config.layer_decay if name == "image_encoder" else None,
            )
            for name in self.trained()
        ]

    def measure_centres(
        self, batches: Iterable[ViewBatch], *, phrases: Sequence[str] | None = None
    ) -> int:
        """Measure the two means that `centring` subtracts, and store them in the pathway.

        The image mean is the mean over names of the mean over a name's masks, so that frequent
        names do not own it; masks without a name count as one name.
        """
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        for batch in batches:
            batch = batch.to(self.sam.pixel_mean.device)
            every = torch.ones(len(batch.masks), dtype=torch.bool)
            with torch.no_grad():
                embeddings = self._image_embeddings(batch, every).double().cpu()
            for name, row in zip(_names(batch), embeddings, strict=True):
                sums[name] = sums.get(name, torch.zeros_like(row)) + row
                counts[name] = counts.get(name, 0) + 1
        spoken = sorted(set(sums) - {""}) if phrases is None else list(dict.fromkeys(phrases))
        if not sums or not spoken:
            raise ValueError(
                f"means need masks and phrases; got {sum(counts.values())} masks, {len(spoken)} "
                'phrases. Type: phrases=["a dog", ...] for data without names'
            )
        means = torch.stack([sums[name] / counts[name] for name in sums])
        self.pathway.image_mean.copy_(means.mean(0))
        self.pathway.text_mean.copy_(self.clip.encode_text(spoken).mean(0))
        return sum(counts.values())

    def _first(
        self, batch: ViewBatch, simulator: PromptSimulator, features: ImageFeatures
    ) -> tuple[PromptBatch, Tensor]:
        """First prompts, and which masks (P,) are asked by their name."""
        config, device = self.config, batch.masks.device
        prompts = simulator.first()
        # Three numbers for every mask, whatever is chosen: see PhotoRandom.
        chance = photo_random(batch, stream="kinds").uniform(3)
        names = _names(batch)
        known = torch.tensor([bool(name) for name in names], dtype=torch.bool)
        # CLIP would see too little of a small mask's crop: only its name can ask for it.
        large = batch.masks.flatten(1).sum(1).cpu() >= min_crop_area(batch.masks.shape[-1])
        asked = (chance[:, 0] < config.clip_share) & (known | large)
        named = asked & known & ((chance[:, 1] < config.label_share) | ~large)
        clicked = asked & (chance[:, 2] < config.point_share)
        query = self._embeddings(batch, names, asked, named)
        points = sample_pixels(batch.masks, photo_random(batch, stream="clicks"))
        asked, named, clicked = (rows.to(device) for rows in (asked, named, clicked))
        prompts = token_prompts(
            prompts,
            self.pathway(query),
            has_tokens=asked,
            with_point=clicked,
            points=points,
            maps=self._maps(batch, query, asked, features),
        )
        return prompts, named

    def _maps(
        self, batch: ViewBatch, query: Tensor, asked: Tensor, features: ImageFeatures
    ) -> Tensor | None:
        """Mask prompts beside the tokens; none in the paper."""
        return None

    def _embeddings(
        self, batch: ViewBatch, names: Sequence[str], asked: Tensor, named: Tensor
    ) -> Tensor:
        """Centred unit embeddings (P, D); zeros for masks that are not prompted by CLIP."""
        device = batch.masks.device
        result = torch.zeros(len(names), self.clip.width, device=device)
        seen = asked & ~named
        if seen.any():
            image = self.pathway.centre(self._image_embeddings(batch, seen), "image")
            if self.training and self.config.noise:
                noise = photo_random(batch, stream="noise").normal(self.clip.width)[seen]
                scale = self.config.noise / self.clip.width**0.5
                image = F.normalize(image + scale * noise.to(device), dim=-1)
            result = result.index_copy(0, seen.nonzero()[:, 0].to(device), image)
        if named.any():
            words = [name for name, spoken in zip(names, named.tolist(), strict=True) if spoken]
            text = self.pathway.centre(self._text_embeddings(words).to(device), "text")
            result = result.index_copy(0, named.nonzero()[:, 0].to(device), text)
        return result

    def _image_embeddings(self, batch: ViewBatch, chosen: Tensor) -> Tensor:
        """Unit embeddings (n, D) of the chosen masks' crops, (P,) bool on the CPU."""
        options = choose_crops(batch, config=self.config.crops)
        if self.cache is not None:
            return self.cache.embeddings(batch, options, chosen).to(batch.masks.device)
        crops, shares = cut_crops(
            batch.views, options, size=self.clip.image_size, chosen=chosen.numpy()
        )
        if "clip" in self.config.frozen:
            return self.clip.encode_crops(crops, shares)
        pixels, inside = self.clip.normalize(crops), shares.to(self.clip.device)
        return F.normalize(masked_image_embedding(self.clip.model, pixels, inside).float(), dim=-1)

    def _text_embeddings(self, names: Sequence[str]) -> Tensor:
        """Unit embeddings (n, D) of names, each computed once."""
        missing = [name for name in dict.fromkeys(names) if name not in self._labels]
        if missing:
            rows = self.clip.encode_text(missing).cpu()
            self._labels.update(zip(missing, rows, strict=True))
        return torch.stack([self._labels[name] for name in names])

    def _features(self, batch: ViewBatch) -> ImageFeatures:
        if self.cache is not None:
            return self.cache.features(batch, device=batch.masks.device)
        return encode_views(self.sam, batch, frozen="image_encoder" in self.config.frozen)

    def _check_areas(self, batch: ViewBatch) -> None:
        least, areas = min_crop_area(batch.masks.shape[-1]), batch.masks.flatten(1).sum(1)
        if bool((areas < least).any()):
            raise ValueError(
                f"a mask has {int(areas.min())} pixels; CLIP is asked about masks of at least "
                f"{least} (Appendix D.5). Type: ViewConfig(min_area=min_crop_area(image_size))"
            )

    def _check_centres(self) -> None:
        if self._centred:
            return
        if not (self.pathway.image_mean.any() and self.pathway.text_mean.any()):
            raise ValueError(
                "centring=True, and the pathway's means are zero: call "
                "objective.measure_centres(batches) before training"
            )
        self._centred = True


class PhraseObjective(PathwayObjective):
    """Points, boxes and phrases mixed, as `finetune` needs them: nothing may be forgotten.

    `clip_share` of the masks are asked by phrase, in the form in which phrases are asked in use:
    the map of the frozen dense head goes in beside the CLIP token. A lone box trains mask 0, which
    answers it in use, beside the three readings. Small masks are welcome.
    """

    BOX_TRAINS_SINGLE = True

    def _check_areas(self, batch: ViewBatch) -> None:
        """Nothing to refuse: small masks are never asked by their crop."""

    def _maps(
        self, batch: ViewBatch, query: Tensor, asked: Tensor, features: ImageFeatures
    ) -> Tensor | None:
        """The dense maps of the phrases, if the pathway has a dense head."""
        dense = self.pathway.dense
        if dense is None or not asked.any():
            return None
        maps = features.pyramid
        if self.pathway.config.dense_source == "clip":
            maps = tuple(
                view_tower_maps(self.clip, batch, strides=self.pathway.config.dense_strides)
            )
        with torch.no_grad():
            aligned = dense.features(maps)
        size = self.sam.config.mask_size
        return phrase_maps(dense, aligned, batch.image_index, query, spoken=asked, size=size)


def write_adapter(path: str | Path, objective: PathwayObjective, *, sam: str) -> Path:
    """Write the trained pathway as a small file that names the core and the CLIP it belongs to."""
    others = [name for name in objective.trained() if name != "pathway"]
    if others:
        raise ValueError(
            f"{others} were trained, too, so an adapter for {sam!r} would not fit it: write the "
            "whole model, TextSAM(sam, clip=clip, pathway=pathway).save_pretrained(folder)"
        )
    return write_pathway(path, objective.pathway, sam=sam, clip=objective.clip.name)


def _names(batch: ViewBatch) -> list[str]:
    return [name for names in batch.labels for name in names]


def _check_widths(sam: Sam, pathway: TextPathway, clip: ClipEncoder) -> None:
    found = (pathway.config.clip_width, pathway.config.prompt_width)
    wanted = (clip.width, sam.config.embed_dim)
    if found != wanted:
        raise WeightsError(
            f"the pathway maps width {found[0]} to {found[1]}; this CLIP has {wanted[0]} and this "
            f"SAM {wanted[1]}. Type: PathwayConfig(clip_width={wanted[0]}, "
            f"prompt_width={wanted[1]})"
        )


def _check_cache(cache: EmbeddingCache | None, config: PathwayObjectiveConfig) -> None:
    if cache is None:
        return
    trained = [name for name in ("image_encoder", "clip") if name not in config.frozen]
    if trained:
        raise ValueError(f"{trained} cannot be trained on embeddings computed beforehand")
    if cache.config.crops != config.crops:
        raise ValueError(
            f"the cache has crops {cache.config.crops}, the objective {config.crops}; wanted equal"
        )
