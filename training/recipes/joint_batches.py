"""Batches of `tiny`'s joint stages: all that a step asks, drawn before any network is needed.

Batch n is a function of (seed, n) and knows no network, so worker processes can draw ahead of a
fast device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from textsam.modeling.prompt_encoder import FOREGROUND, PromptBatch

from ..clicks import central_pixels, mixed_pixels
from ..data import Sample
from ..prompting import first_prompts
from .concepts import ConceptBank
from .joint_config import JOINT_SOURCES, JointConfig
from .labelled_views import LabelledView, LabelledViews
from .moving import on_device
from .word_draw import WordDraw, WordQuestions

__all__ = ["JointBatch", "JointBatches", "PromptedMasks", "SpokenPrompts"]


@dataclass(frozen=True, kw_only=True)
class SpokenPrompts:
    """First prompts that are phrases.

    Attributes:
        rows: (Q,) int64, which of the masks.
        queries: (Q, D) centred unit embeddings.
        points: (Q, 2) float x, y inside the objects, model pixels.
        pointed: (Q,) bool, which phrases come with their point.
    """

    rows: Tensor
    queries: Tensor
    points: Tensor
    pointed: Tensor


@dataclass(frozen=True, kw_only=True)
class PromptedMasks:
    """The masks of a batch that are prompted.

    Attributes:
        masks: (P, S, S) bool.
        photos: (P,) int64, rising.
        first: Their first prompts, points and boxes.
        spoken: The phrases that take the place of some, or None.
    """

    masks: Tensor
    photos: Tensor
    first: PromptBatch
    spoken: SpokenPrompts | None


@dataclass(frozen=True, kw_only=True)
class JointBatch:
    """B views and what is asked about them.

    Attributes:
        pixels: (B, 3, S, S) uint8, each view at the top left.
        sizes: B pairs (h, w).
        void: (B, S, S) bool.
        words: What the words' loss asks.
        prompted: The masks' part; None where no view has a mask of a useful size.
        random: State of the generator that goes on with the later rounds, uint8.
        weight: Batches count alike.
    """

    pixels: Tensor
    sizes: tuple[tuple[int, int], ...]
    void: Tensor
    words: WordQuestions
    prompted: PromptedMasks | None
    random: Tensor
    weight: float = 1.0

    def pictures(self) -> list[Tensor]:
        """The views, B tensors (3, h, w)."""
        return [p[:, :h, :w] for p, (h, w) in zip(self.pixels, self.sizes, strict=True)]

    def to(self, device: torch.device | str) -> JointBatch:
        """The batch with its tensors on a device; the generator's state stays."""
        moved = on_device(self, device)
        return replace(moved, random=self.random)


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    """Rows of the batch's masks: (photo, mask) pairs, photos rising."""

    masks: Tensor
    photos: Tensor
    labels: tuple[str, ...]
    keys: tuple[tuple[int, int, int], ...]


class JointBatches:
    """Draws batches."""

    def __init__(
        self,
        bank: ConceptBank,
        samples: Mapping[str, Sequence[Sample]],
        *,
        config: JointConfig,
        shares: Mapping[str, float] = JOINT_SOURCES,
    ) -> None:
        self.bank, self.config = bank, config
        self.views = LabelledViews(
            samples, shares=shares, seed=config.seed, view=config.view, paste=config.paste
        )
        self.words = WordDraw(bank, self.views.samples, config=config.words)

    def __call__(self, step: int) -> JointBatch:
        """Batch of step n."""
        config, side = self.config, self.config.view.image_size
        views = self.views.batch(step, config.photos_per_step)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        rng = np.random.default_rng((config.seed, step, 1))
        words = self.words(views, rng)
        chosen = self._choose(views, rng)
        return JointBatch(
            pixels=torch.stack([_framed(item.view.pixels, side) for item in views]),
            sizes=tuple((item.view.pixels.shape[1], item.view.pixels.shape[2]) for item in views),
            void=torch.stack([item.view.void for item in views]),
            words=words,
            prompted=None if chosen is None else self._prompted(chosen, generator, rng),
            random=generator.get_state(),
        )

    def _choose(self, views: Sequence[LabelledView], rng: np.random.Generator) -> _Chosen | None:
        """Some masks of a useful size of each view."""
        rows: list[tuple[int, int]] = []
        for number, item in enumerate(views):
            area = item.view.masks.flatten(1).sum(1).tolist()
            most = self.config.max_share * item.view.pixels[0].numel()
            usable = [i for i, a in enumerate(area) if self.config.min_area <= a <= most]
            drawn = rng.permutation(usable)[: self.config.masks_per_photo]
            rows += [(number, int(i)) for i in drawn]
        if not rows:
            return None
        return _Chosen(
            masks=torch.stack([views[n].view.masks[i] for n, i in rows]),
            photos=torch.tensor([n for n, _ in rows]),
            labels=tuple(views[n].labels[i] for n, i in rows),
            keys=tuple(views[n].keys[i] for n, i in rows),
        )

    def _prompted(
        self, chosen: _Chosen, generator: torch.Generator, rng: np.random.Generator
    ) -> PromptedMasks:
        first = first_prompts(chosen.masks, chosen.photos, generator, config=self.config.prompts)
        return PromptedMasks(
            masks=chosen.masks,
            photos=chosen.photos,
            first=self._central_first(first, chosen.masks, generator),
            spoken=self._spoken(chosen, generator, rng),
        )

    def _central_first(
        self, prompts: PromptBatch, masks: Tensor, generator: torch.Generator
    ) -> PromptBatch:
        """Move some first points to the middle of their mask."""
        middle = central_pixels(masks, generator)
        moved = torch.rand(len(masks), generator=generator) < self.config.central
        moved &= prompts.labels[:, 0] == FOREGROUND
        points = prompts.points.clone()
        points[:, 0] = torch.where(moved[:, None], middle, points[:, 0])
        return replace(prompts, points=points)

    def _spoken(
        self, chosen: _Chosen, generator: torch.Generator, rng: np.random.Generator
    ) -> SpokenPrompts | None:
        """Phrases in place of a first point or box, for some of the photos."""
        photos = int(chosen.photos.max()) + 1
        asked = torch.rand(photos, generator=generator) < self.config.text_share
        known = torch.tensor([label in self.bank.index for label in chosen.labels])
        rows = torch.nonzero(asked[chosen.photos] & known)[:, 0]
        if not len(rows):
            return None
        queries = torch.stack([self._query(chosen, int(i), rng) for i in rows])
        pointed = torch.rand(len(rows), generator=generator) < self.config.with_point
        points = mixed_pixels(chosen.masks[rows], generator, central=self.config.central)
        return SpokenPrompts(rows=rows, queries=queries, points=points, pointed=pointed)

    def _query(self, chosen: _Chosen, row: int, rng: np.random.Generator) -> Tensor:
        """The object's own crop, the paper's prompt, or its label."""
        own = self.bank.crop_of_object(chosen.keys[row], rng) if rng.random() < 0.5 else None
        return self.bank.text_of(chosen.labels[row]) if own is None else own


def _framed(pixels: Tensor, side: int) -> Tensor:
    height, width = pixels.shape[1:]
    return F.pad(pixels, (0, side - width, 0, side - height))
