"""Training of the text pathway, for any core and any open_clip tower (Section 7.5, Appendix D.5).

No text is needed: the prompt is the CLIP image embedding of the mask's own crop, in whose last
layer the output looks inside the mask only. It comes first, points in the error follow. Ours is
what the paper leaves open: the CLIP token stays in later rounds, a token alone has three readings,
and three ways to narrow the gap between image and text embeddings (`PathwayObjectiveConfig`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from textsam.clip.encoder import ClipEncoder
from textsam.clip.masked import masked_image_embedding
from textsam.clip.pathway import TextPathway
from textsam.errors import WeightsError
from textsam.modeling.image_encoder import ImageFeatures
from textsam.modeling.prompt_encoder import BOX_START, PromptBatch
from textsam.modeling.sam import Sam
from textsam.weights.hub import write_pathway

from ..losses import LossConfig
from ..prompting import PromptConfig, PromptSimulator, sample_pixels, token_prompts
from .base import LossOutput, Objective, touch
from .crops import CropConfig, choose_crops, cut_crops, least_area
from .rounds import Truth, decode_rounds, set_decoder_dropout
from .sam import encode_views, photo_random, round_figures

if TYPE_CHECKING:
    from ..data.batch import ViewBatch
    from ..engine.optim import RatedPart
    from .embeddings import EmbeddingCache

__all__ = ["PathwayObjective", "PathwayObjectiveConfig", "PathwayPart", "write_adapter"]

PathwayPart = Literal["image_encoder", "prompt_encoder", "mask_decoder", "clip", "pathway"]
_CORE: tuple[PathwayPart, ...] = ("image_encoder", "prompt_encoder", "mask_decoder")


@dataclass(frozen=True, kw_only=True)
class PathwayObjectiveConfig:
    """What is trained and what it is asked with.

    `frozen` as it stands trains the pathway alone; without the core's parts it is the paper's
    training of the whole core, and "clip" is the image tower (its text tower is never trained:
    no gradient reaches it).

    Attributes:
        prompts: Prompt simulation; its first prompt is the CLIP token's, unless `clip_share` < 1.
        loss: Weights of the loss.
        frozen: Parts that are not trained.
        clip_share: Probability that a mask's first prompt is CLIP; else it is a point or a box.
        point_share: Probability that a point comes with the CLIP token, which makes two prompts, so
            mask 0 answers. The paper has 0; an instance of a phrase is asked in this way.
        centring: Subtract each modality's own mean. Measure them first: `measure_centres`.
        noise: Length of the Gaussian noise added to a unit image embedding while training.
        label_share: Probability that a mask with a name is asked by its text instead.
        crops: Random choices of the crops.
        decoder_dropout: Rate while training (the paper's is 0.1); that of the model when None.
        fixed_norms: Keep the statistics of batch norms, see `Objective.freeze`.
        core_rate: Share of the peak rate that the core's parts learn at; the pathway has all of it.
        clip_rate: Likewise, CLIP's image tower.
        layer_decay: Factor from each layer of the core's image encoder to the one before.
        recompute: Checkpoint each round, see `objectives.rounds`.
    """

    prompts: PromptConfig = field(default_factory=PromptConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    frozen: tuple[PathwayPart, ...] = (*_CORE, "clip")
    clip_share: float = 1.0
    point_share: float = 0.0
    centring: bool = False
    noise: float = 0.0
    label_share: float = 0.0
    crops: CropConfig = field(default_factory=CropConfig)
    decoder_dropout: float | None = None
    fixed_norms: bool = True
    core_rate: float = 1.0
    clip_rate: float = 1.0
    layer_decay: float | None = None
    recompute: bool = True

    def __post_init__(self) -> None:
        for name in ("clip_share", "point_share", "label_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted a share from 0 to 1")
        if self.noise < 0:
            raise ValueError(f"noise is {self.noise}; wanted a length of 0 or more")


class PathwayObjective(Objective):
    """Loss of a batch of views, prompted by CLIP embeddings of the masks' crops."""

    PARTS: ClassVar[dict[str, str]] = {
        "image_encoder": "sam.image_encoder",
        "prompt_encoder": "sam.prompt_encoder",
        "mask_decoder": "sam.mask_decoder",
        "clip": "clip_model.visual",
        "pathway": "pathway",
    }

    def __init__(
        self,
        sam: Sam,
        pathway: TextPathway,
        clip: ClipEncoder,
        *,
        config: PathwayObjectiveConfig,
        cache: EmbeddingCache | None = None,
    ) -> None:
        """Join a core, a CLIP and the pathway between them.

        Args:
            sam: The core.
            pathway: Its `dense` head, if any, is not trained here and stays as it is.
            clip: Image tower for crops, text tower for names.
            config: What is trained and how.
            cache: Embeddings computed beforehand, in place of the frozen towers.

        Raises:
            WeightsError: The widths do not fit.
            ValueError: The settings contradict each other, the cache or the pathway.
        """
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
        """Move or cast; phrases that CLIP has embedded lie where it was."""
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
        truth = Truth.of(batch, mask_size=self.sam.config.mask_size)
        simulator = PromptSimulator(
            truth.masks,
            batch.image_index,
            photo_random(batch, stream="prompts"),
            config=self.config.prompts,
            ignore=truth.ignore,
        )
        prompts, named = self._first(batch, simulator)
        asked = prompts.has_tokens
        assert asked is not None
        clicked = asked & (prompts.labels == 1).any(1)
        result = decode_rounds(
            self.sam,
            self._features(batch),
            prompts,
            simulator,
            truth,
            loss=self.config.loss,
            single=clicked,
            multiple=~clicked,
            recompute=self.config.recompute,
        )
        parts = [self.sam.prompt_encoder, self.sam.mask_decoder, self.pathway]
        loss = touch(result.loss.mean(), [*parts, self.clip_model])
        boxed = (prompts.labels == BOX_START).any(1)
        alone = asked & ~clicked
        kinds = {"image": alone & ~named, "label": alone & named, "clicked": clicked}
        kinds |= {"point": ~asked & ~boxed, "box": boxed}
        return LossOutput(loss, round_figures(result, kinds))

    def rates(self) -> list[RatedPart]:
        """The parts that are not frozen, each at its rate."""
        from ..engine.optim import RatedPart

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

        Args:
            batches: Training data; a few thousand masks are plenty.
            phrases: What the text mean is taken over; the names in the data when None.

        Returns:
            The number of masks.

        Raises:
            ValueError: There is no mask, or neither a name nor a phrase.
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

    def _first(self, batch: ViewBatch, simulator: PromptSimulator) -> tuple[PromptBatch, Tensor]:
        """First prompts, and which masks (P,) are asked by their name."""
        config, device = self.config, batch.masks.device
        prompts = simulator.first()
        chance = photo_random(batch, stream="kinds").uniform(3)
        names = _names(batch)
        asked = chance[:, 0] < config.clip_share
        known = torch.tensor([bool(name) for name in names], dtype=torch.bool)
        named = asked & known & (chance[:, 1] < config.label_share)
        clicked = asked & (chance[:, 2] < config.point_share)
        tokens = self.pathway(self._embeddings(batch, names, asked, named))
        points = sample_pixels(batch.masks, photo_random(batch, stream="clicks"))
        asked, named, clicked = (rows.to(device) for rows in (asked, named, clicked))
        prompts = token_prompts(
            prompts, tokens, has_tokens=asked, with_point=clicked, points=points
        )
        return prompts, named

    def _embeddings(
        self, batch: ViewBatch, names: Sequence[str], asked: Tensor, named: Tensor
    ) -> Tensor:
        """Centred unit embeddings (P, D); zeros for masks that are not asked by CLIP."""
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
        least, areas = least_area(batch.masks.shape[-1]), batch.masks.flatten(1).sum(1)
        if bool((areas < least).any()):
            raise ValueError(
                f"a mask has {int(areas.min())} pixels; CLIP is asked about masks of at least "
                f"{least} (Appendix D.5). Type: ViewConfig(min_area=least_area(image_size))"
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


def write_adapter(path: str | Path, objective: PathwayObjective, *, sam: str) -> Path:
    """Write the trained pathway as one small file that names the core and the CLIP it belongs to.

    Args:
        path: A `.safetensors` file; `TextSAM.from_pretrained(sam, clip=..., pathway=path)` reads it
            and refuses another core or CLIP.
        objective: What was trained.
        sam: Name that the core is loaded by.

    Raises:
        ValueError: The core or CLIP was trained, too, so the pathway does not fit the one of that
            name.
    """
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
