"""One CLIP model: embeddings of phrases, and of crops around masks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from textsam.clip.light import DeferredClip, LightTokenizer, is_light
from textsam.clip.loading import (
    PREPROCESS_KEYS,
    ClipSource,
    Hub,
    Tokenizer,
    build_clip,
    find_clip,
    load_tokenizer,
    read_aliases,
    write_clip,
)
from textsam.clip.mask_crops import MaskSource, square_crops
from textsam.clip.masked import masked_image_embedding
from textsam.clip.prior import PRIOR_FILE, attach_prior, read_prior
from textsam.errors import ImageError, PromptError, WeightsError
from textsam.modeling.precision import in_float32
from textsam.values.files import TINY_FOLDER
from textsam.values.prompts import normalize_phrases, plain_phrase

__all__ = ["TEMPLATES", "ClipEncoder", "resolve_templates"]

# The sentences that a phrase is put into before CLIP embeds it. CLIP was trained on captions, so "a
# photo of a wheel" is closer to its training data than "wheel" is (arXiv 2103.00020, Section
# 3.1.4). The embeddings of several templates are averaged. The paper of Segment Anything does not
# say which templates it used.
TEMPLATES: dict[str, tuple[str, ...]] = {
    # The phrase as it is typed: the default for models that name no templates.
    "plain": ("{}",),
    "photo": ("a photo of a {}.",),
    # The seven templates that OpenAI's notebook "Prompt Engineering for ImageNet" found to suffice.
    "imagenet7": (
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    ),
    # For crops around masks, which show parts and cut-out things more often than scenes.
    "crop": (
        "{}",
        "a photo of a {}.",
        "a close-up photo of a {}.",
        "a cropped photo of the {}.",
        "part of an image that shows a {}.",
    ),
}


class ClipEncoder:
    """Text and image embeddings of one open_clip model, normalised to length one.

    The model is put into evaluation mode, and embeddings are computed without gradients. To train
    the towers use `model` and `masked_image_embedding`, and call `clear_cache` whenever the text
    tower has changed.

    Attributes:
        model: The open_clip model.
        tokenizer: Strings -> (n, context) int64.
        name: The name it was loaded by.
        width: Length D of an embedding.
        image_size: Side S of the image input, pixels.
        mean: RGB mean of pixels in 0..1, which is subtracted from crops.
        std: RGB standard deviation of pixels in 0..1.
        templates: Sentences that a phrase is put into, unless a call gives others.
        plain_phrases: Whether the text tower reads phrases without quotes, articles, punctuation at
            the end and invisible characters (`textsam.values.prompts.plain_phrase`), and with
            `aliases`. False for a tower that was trained on whole sentences.
        aliases: Words in lower case with the word that the tower reads in their place: plurals with
            the singular, and words that are to stay with themselves. The longest end of a phrase
            counts: "old steering wheels" is read as "old steering wheel".
    """

    def __init__(
        self,
        model: nn.Module | DeferredClip,
        *,
        tokenizer: Tokenizer,
        name: str,
        config: Mapping[str, Any] | None = None,
        templates: str | Sequence[str] | None = None,
        cache_size: int = 4096,
    ) -> None:
        """Wrap a model; use `from_pretrained` or `from_model` instead."""
        self._deferred = model if isinstance(model, DeferredClip) else None
        self._model: Any = model.eval() if isinstance(model, nn.Module) else None
        self.tokenizer = tokenizer
        self.name = name
        self.config = None if config is None else deepcopy(dict(config))
        self.templates = resolve_templates(templates)
        self.plain_phrases = True
        self.aliases: dict[str, str] = {}
        self.cache_size = cache_size
        self._cache: OrderedDict[tuple[tuple[str, ...], str], Tensor] = OrderedDict()
        self.image_size = _square_side(self._deferred or self.model.visual)
        self.mean = _rgb(self._preprocess().get("mean"), "mean")
        self.std = _rgb(self._preprocess().get("std"), "std")
        self.width = int(self.config["embed_dim"]) if self.config else self._probe_width()

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        templates: str | Sequence[str] | None = None,
        local_files_only: bool = False,
        cache_dir: str | Path | None = None,
    ) -> ClipEncoder:
        """Load a CLIP model.

        Args:
            name: `"ViT-L-14-336/openai"` or `"ViT-L-14-336::openai"` (open_clip's name and tag; a
                checkpoint file may follow `::`); `"hf-hub:org/repo"` or, with a revision,
                `"hf-hub:org/repo@v1"`; a folder or
                `"local-dir:folder"`; `"tiny"` for the model that ships with textsam.
            device: Where to put it; the CPU by default.
            dtype: Type of the weights in memory, whatever their type in the file.
            templates: See `resolve_templates`; by default those that the folder names, else `"{}"`.
            local_files_only: Do not use the network.
            cache_dir: Hugging Face cache to use instead of the default one.

        Raises:
            WeightsError: There is no such model, a file is missing or does not fit, or a config
                has a setting that could run code (see `textsam.clip.allowed_config`).
        """
        hub = Hub(local_files_only=local_files_only, cache_dir=cache_dir)
        source = find_clip(str(name), hub)
        # Files from elsewhere are read in full at once, so that damage shows when they are loaded.
        light = source.folder == TINY_FOLDER / "clip" and is_light(source.config)
        model = _defer(source, hub) if light and dtype == torch.float32 else None
        encoder = cls(
            model or _build(source, hub).to(device=device, dtype=dtype),
            tokenizer=load_tokenizer(source, hub) if model is None else _light_tokens(source, hub),
            name=source.name,
            config=source.config,
            templates=source.templates if templates is None else templates,
        )
        if model is not None and device is not None:
            encoder.to(device)
        if source.folder is not None:
            encoder.aliases = read_aliases(source.folder)
        return encoder

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        *,
        tokenizer: Tokenizer,
        name: str,
        config: Mapping[str, Any] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        templates: str | Sequence[str] | None = None,
    ) -> ClipEncoder:
        """Wrap an open_clip model that is already in memory.

        Args:
            model: `open_clip.CLIP`, `CustomTextCLIP` or `CoCa`.
            tokenizer: Strings -> (n, context) int64, e.g. `open_clip.SimpleTokenizer(...)`.
            name: Saved with everything that is trained on its embeddings.
            config: open_clip's `model_cfg` of the model; `save` needs it.
            mean: RGB mean of pixels in 0..1; by default the model's own.
            std: RGB standard deviation of pixels in 0..1; by default the model's own.
            templates: See `resolve_templates`.

        Raises:
            WeightsError: Neither the model nor the arguments give mean and std.
        """
        visual: Any = model.visual
        statistics = {"mean": mean, "std": std}
        visual.preprocess_cfg = getattr(visual, "preprocess_cfg", {}) | {
            key: tuple(value) for key, value in statistics.items() if value is not None
        }
        return cls(model, tokenizer=tokenizer, name=name, config=config, templates=templates)

    def save(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> Path:
        """Write a folder that `from_pretrained` and open_clip's `local-dir:` read.

        `dtype` is the type of floating weights in the file, by default as they are in memory.

        Raises:
            WeightsError: The encoder was created without open_clip's config.
        """
        if self.config is None:
            raise WeightsError(
                f"{self.name!r} has no open_clip config, which is needed to load it again; type "
                "ClipEncoder.from_model(model, ..., config=model_cfg)"
            )
        preprocess = self._preprocess()
        config = {
            "model_cfg": self.config,
            "preprocess_cfg": {k: preprocess[k] for k in PREPROCESS_KEYS if k in preprocess},
            "textsam": {"name": self.name, "templates": list(self.templates)},
        }
        folder = Path(folder)
        write_clip(
            folder, self.model, self.tokenizer, config=config, aliases=self.aliases, dtype=dtype
        )
        return folder

    @property
    def model(self) -> Any:
        """The open_clip model, which is built now if only its text tower is there."""
        if self._deferred is not None:
            self._model, self._deferred = self._deferred.build(), None
        return self._model

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._weight.device if self._deferred is None else self._deferred.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the image tower."""
        return self._weight.dtype if self._deferred is None else self._deferred.dtype

    def to(self, device: str | torch.device) -> ClipEncoder:
        """Move the model and clear the cache of phrases; returns itself."""
        (self.model if self._deferred is None else self._deferred.text).to(device)
        self.clear_cache()
        return self

    def to_dtype(self, dtype: torch.dtype) -> None:
        """Put the image tower in another type; phrases, which run once, stay as they are."""
        if self._deferred is not None:
            self._deferred.dtype = dtype
        else:
            self.model.visual.to(dtype)

    def clear_cache(self) -> None:
        """Clear the cached embeddings of phrases; needed after the text tower was trained."""
        self._cache.clear()

    def plain(self, phrase: str) -> str:
        """What the tower reads of a phrase."""
        words = plain_phrase(phrase).split()
        # The longest end that is known: the noun that a phrase is about comes last in English.
        for start in range(len(words)):
            known = self.aliases.get(" ".join(words[start:]).lower())
            if known is not None:
                return " ".join([*words[:start], known])
        return " ".join(words)

    @in_float32
    @torch.no_grad()  # not inference_mode, since pathways are trained on these embeddings
    def encode_text(
        self,
        phrases: str | Sequence[str],
        *,
        templates: str | Sequence[str] | None = None,
        plain: bool | None = None,
        batch_size: int = 256,
    ) -> Tensor:
        """Embed phrases: the normalised mean over the normalised embeddings of all templates.

        Args:
            phrases: One phrase or several.
            templates: See `resolve_templates`; those of the model by default.
            plain: Whether to read "the dogs." as "dog"; `plain_phrases` by default.
            batch_size: Sentences per pass of the text tower.

        Returns:
            (n, D) float32 on the model's device, one row per phrase in their order.

        Raises:
            PromptError: There is no phrase, or one is empty or not a string.
        """
        phrases = normalize_phrases(phrases)
        if self.plain_phrases if plain is None else plain:
            phrases = [self.plain(phrase) for phrase in phrases]
        sentences = self.templates if templates is None else resolve_templates(templates)
        rows: dict[str, Tensor] = {}
        for phrase in dict.fromkeys(phrases):
            # Removed here and put back below, which makes it the most recently used.
            row = self._cache.pop((sentences, phrase), None)
            if row is not None:
                rows[phrase] = row
        missing = [phrase for phrase in dict.fromkeys(phrases) if phrase not in rows]
        if missing:
            embeddings = self._embed_phrases(missing, sentences, batch_size)
            # Clones, since a cached view of one row would keep the whole batch in memory.
            rows |= {p: row.clone() for p, row in zip(missing, embeddings, strict=True)}
        for phrase, row in rows.items():
            self._cache[sentences, phrase] = row
        while len(self._cache) > self.cache_size:
            self._cache.popitem(last=False)
        return torch.stack([rows[phrase] for phrase in phrases])

    @in_float32
    @torch.no_grad()
    def encode_crops(
        self,
        crops: Tensor,
        masks: Tensor | None = None,
        *,
        min_coverage: float = 0.0,
        batch_size: int = 64,
    ) -> Tensor:
        """Embed crops; with masks, only what is inside them.

        Args:
            crops: (n, 3, S, S) float, normalised by `mean` and `std`; or uint8 as from
                `square_crops`, which are normalised here.
            masks: (n, S, S) float, 0..1, or None for CLIP's ordinary embedding.
            min_coverage: See `masked_image_embedding`.
            batch_size: Crops per pass of the image tower.

        Returns:
            (n, D) float32 on the model's device; (0, D) for no crops.

        Raises:
            ImageError: The crops do not have the size of the model's input.
            PromptError: The masks do not fit the crops, or one is empty.
        """
        side = self.image_size
        if crops.ndim != 4 or tuple(crops.shape[1:]) != (3, side, side):
            raise ImageError(
                f"crops have shape {tuple(crops.shape)}; {self.name!r} takes (n, 3, {side}, "
                f"{side}). Type: square_crops(image, masks, size={side})"
            )
        if masks is not None and len(masks) != len(crops):
            raise PromptError(f"{len(masks)} masks for {len(crops)} crops; wanted one per crop")
        rows = [torch.empty(0, self.width, device=self.device)]
        for start in range(0, len(crops), batch_size):
            batch = self.normalize(crops[start : start + batch_size])
            if masks is None:
                embedding = self.model.encode_image(batch, normalize=False)
            else:
                inside = masks[start : start + batch_size].to(self.device)
                embedding = masked_image_embedding(
                    self.model, batch, inside, min_coverage=min_coverage
                )
            rows.append(F.normalize(embedding.float(), dim=-1))
        return torch.cat(rows)

    def encode_masks(
        self,
        image: NDArray[np.uint8],
        masks: MaskSource,
        *,
        expand: float | Sequence[float] | NDArray[np.float64] = 1.0,
        zero_outside: bool | Sequence[bool] | NDArray[np.bool_] = False,
        batch_size: int = 64,
    ) -> Tensor:
        """Embed crops around n masks of an image (H, W, 3) uint8: see `square_crops`. -> (n, D)."""
        crops, shares = square_crops(
            image, masks, size=self.image_size, expand=expand, zero_outside=zero_outside
        )
        return self.encode_crops(crops, shares, batch_size=batch_size)

    def normalize(self, crops: Tensor) -> Tensor:
        """Normalise crops (n, 3, S, S) uint8 for the image tower; floats are taken as they are."""
        if crops.is_floating_point():
            return crops.to(self.device, self.dtype)
        if crops.dtype != torch.uint8:
            raise ImageError(f"crops are {crops.dtype}; wanted uint8, or normalised floats")
        mean, std = (
            torch.tensor(values, device=self.device)[:, None, None]
            for values in (self.mean, self.std)
        )
        return ((crops.to(self.device) / 255 - mean) / std).to(self.dtype)

    @in_float32
    @torch.no_grad()
    def logits(self, images: Tensor, texts: Tensor) -> Tensor:
        """The model's own logits (n, m) of image and text embeddings (n, D) and (m, D)."""
        scores = self.model.logit_scale.exp() * (images @ texts.T).to(self.device)
        bias = getattr(self.model, "logit_bias", None)
        result: Tensor = scores if bias is None else scores + bias
        return result

    @property
    def is_pairwise(self) -> bool:
        """Whether the model was trained with a sigmoid per image-text pair (SigLIP)."""
        return getattr(self.model, "logit_bias", None) is not None

    @in_float32
    @torch.no_grad()
    def contrast(self, images: Tensor, texts: Tensor, background: Tensor | None = None) -> Tensor:
        """Log odds that an image shows what a text says, for any kind of model.

        Their sigmoid is a probability: for models trained with a sigmoid that of the pair (SigLIP,
        arXiv 2303.15343, Section 3.2), for others that of the text in a softmax over itself and the
        background (CLIP, arXiv 2103.00020, Section 3.1.2). Texts do not compete with each other.

        Args:
            images: (n, D) unit embeddings of crops or masks.
            texts: (m, D) unit embeddings of phrases.
            background: (b, D) unit embeddings of what else an image may show; b > 0, unless the
                model `is_pairwise` and ignores it.

        Returns:
            (n, m) float32 on the model's device.

        Raises:
            PromptError: The model needs a background, and there is none.
        """
        logits = self.logits(images.to(self.device), texts.to(self.device)).float()
        if self.is_pairwise:
            return logits
        if background is None or not len(background):
            raise PromptError(
                f"{self.name!r} was trained with a softmax: how well a text fits means something "
                "only beside other texts. Type: contrast(images, texts, "
                'encoder.encode_text(["an object", "a background"]))'
            )
        others = self.logits(images.to(self.device), background.to(self.device)).float()
        return logits - others.logsumexp(1, keepdim=True)

    def _embed_phrases(
        self, phrases: list[str], templates: tuple[str, ...], batch_size: int
    ) -> Tensor:
        """(n, D) of length one, without the cache."""
        # Not str.format: braces in the phrase are ordinary characters.
        sentences = [text.replace("{}", phrase) for phrase in phrases for text in templates]
        rows = []
        for start in range(0, len(sentences), batch_size):
            tokens = self.tokenizer(sentences[start : start + batch_size]).to(self.device)
            if self._deferred is not None:
                embedding = self._deferred.text(tokens)
            else:
                embedding = self.model.encode_text(tokens, normalize=False)
            rows.append(F.normalize(embedding.float(), dim=-1))
        per_template = torch.cat(rows).reshape(len(phrases), len(templates), -1)
        return F.normalize(per_template.mean(1), dim=-1)

    @torch.no_grad()
    def _probe_width(self) -> int:
        return self._embed_phrases(["a"], ("{}",), 1).shape[1]

    @property
    def _weight(self) -> Tensor:
        parameter: Tensor = next(self.model.visual.parameters())
        return parameter

    def _preprocess(self) -> dict[str, Any]:
        if self._deferred is not None:
            return dict(self._deferred.preprocess)
        return dict(getattr(self.model.visual, "preprocess_cfg", {}))


def _build(source: ClipSource, hub: Hub) -> nn.Module:
    """The open_clip model of a source, with its class prior."""
    model = build_clip(source, hub)
    if source.folder is not None and (source.folder / PRIOR_FILE).is_file():
        attach_prior(model, read_prior(source.folder / PRIOR_FILE))
    return model


def _defer(source: ClipSource, hub: Hub) -> DeferredClip:
    """The text tower alone, until more is needed."""
    build = partial(_build, source, hub)
    return DeferredClip(source.config, source.weights, build, preprocess=source.preprocess)


def _light_tokens(source: ClipSource, hub: Hub) -> LightTokenizer:
    length = source.config["text_cfg"]["context_length"]
    return LightTokenizer(length, partial(load_tokenizer, source, hub))


def _square_side(visual: Any) -> int:
    size = visual.image_size
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise WeightsError(f"this CLIP takes {height} x {width} images; wanted a square input")
    return int(height)


def _rgb(values: Any, name: str) -> tuple[float, float, float]:
    if values is None or len(values) != 3:
        raise WeightsError(
            f"{name}={values!r}; wanted three numbers for pixels in 0..1. Type: "
            "ClipEncoder.from_model(model, ..., mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))"
        )
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def resolve_templates(templates: str | Sequence[str] | None) -> tuple[str, ...]:
    """A set of `TEMPLATES` by its name, one template, or several; `"plain"` for None.

    Raises:
        PromptError: There is no template, a name is unknown, or `{}` is not in it exactly once.
    """
    if templates is None:
        return TEMPLATES["plain"]
    if isinstance(templates, str):
        if templates in TEMPLATES:
            return TEMPLATES[templates]
        if "{}" not in templates:
            raise PromptError(
                f"templates={templates!r} is neither a template nor the name of a set; type a "
                f"template with one {{}}, or one of {', '.join(map(repr, TEMPLATES))}"
            )
        templates = (templates,)
    resolved = tuple(templates)
    if not resolved:
        raise PromptError('templates is empty; wanted at least one, e.g. ("a photo of a {}.",)')
    for template in resolved:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise PromptError(
                f"template {template!r} must be a string that contains {{}} exactly once, "
                'e.g. "a photo of a {}."'
            )
    return resolved
