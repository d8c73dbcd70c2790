"""Training of a small CLIP: a text tower that follows a teacher, an image head that follows names.

Both read embeddings that were computed beforehand, so their batches are rows of tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..engine.optim import RatedPart
from .base import LossOutput, Objective

T = TypeVar("T", bound="_Table")
B = TypeVar("B")
_BUCKETS = 8  # batches' worth of phrases that are sorted by length to make one batch


@dataclass(frozen=True, kw_only=True)
class _Table:
    """Tensors by row; as a batch, `weight` of them are this process's own."""

    def rows(self: T, rows: Tensor) -> T:
        """Some rows of each table."""
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def to(self: T, device: torch.device | str) -> T:
        """The same on a device."""
        return type(self)(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


@dataclass(frozen=True, kw_only=True)
class TextTable(_Table):
    """Phrases and what the teacher makes of them."""

    tokens: Tensor  # (n, L) int64 of the tower's tokenizer
    lengths: Tensor  # (n,) int64, tokens that count
    target: Tensor  # (n, D) unit embeddings of the teacher


@dataclass(frozen=True)
class TextBatch:
    """A process's phrases, and the teacher's embeddings (N, D) of the whole global batch."""

    own: TextTable
    every_target: Tensor

    @property
    def weight(self) -> int:
        """Number of phrases."""
        return len(self.own.tokens)

    def to(self, device: torch.device | str) -> TextBatch:
        """The same on a device."""
        return TextBatch(self.own.to(device), self.every_target.to(device))


@dataclass(frozen=True, kw_only=True)
class TextTowerConfig:
    """How a text tower is distilled."""

    seed: int = 0  # Of every batch
    batch: int = 512  # Phrases in a global batch
    similarity: float = 1.0  # Weight of the term that keeps near names apart
    temperature: float = 0.05  # Of its softmax over the batch


class TextTowerObjective(Objective):
    """One minus the cosine with the teacher's embedding, and the in-batch similarities.

    The second term is the Kullback-Leibler divergence from the teacher's softmax over the batch to
    the tower's, at a low temperature. A phrase is compared with all of the global batch, whose
    teacher embeddings every process has.
    """

    def __init__(self, tower: nn.Module, *, config: TextTowerConfig) -> None:
        super().__init__()
        self.text, self.config = tower, config

    def forward(self, batch: TextBatch) -> LossOutput:
        """Mean loss over the process's phrases."""
        batch = batch.to(next(self.text.parameters()).device)
        own, config = batch.own, self.config
        output = text_embeddings(self.text, own.tokens, own.lengths)
        distance = (1 - (output * own.target).sum(-1)).mean()
        # Every phrase is compared with the whole global batch, on any number of processes.
        teacher = (own.target @ batch.every_target.T / config.temperature).softmax(-1)
        student = (output @ batch.every_target.T / config.temperature).log_softmax(-1)
        similarity = F.kl_div(student, teacher, reduction="batchmean")
        loss = distance + config.similarity * similarity
        return LossOutput(loss, {"cosine_distance": distance.detach()})

    def rates(self) -> list[RatedPart]:
        """The whole tower."""
        return [RatedPart(module=self.text)]

    def batches(
        self, table: TextTable, *, rank: int, world: int
    ) -> Callable[[int], Iterator[TextBatch]]:
        """Batches from a step on, for the engine; batch n is a function of (seed, n)."""
        config = self.config

        def batch(step: int) -> TextBatch:
            rng = np.random.default_rng((config.seed, step))
            rows = torch.from_numpy(rng.integers(0, len(table.tokens), _BUCKETS * config.batch))
            # Phrases of like length together: no padding, a third of the time.
            rows = rows[table.lengths[rows].argsort(stable=True)]
            # One of the slices of equal length, so that short and long phrases come equally often.
            start = int(rng.integers(0, _BUCKETS)) * config.batch
            rows = rows[start : start + config.batch]
            return TextBatch(table.rows(rows[rank::world]), table.target[rows])

        return lambda start: _endless(batch, start)


def text_embeddings(tower: Any, tokens: Tensor, lengths: Tensor) -> Tensor:
    """Unit embeddings (n, D) of open_clip's text tower; padding after the longest phrase is cut."""
    longest = int(lengths.max())
    full = tower.attn_mask
    tower.attn_mask = full[:longest, :longest]
    try:
        return F.normalize(tower(tokens[:, :longest]), dim=-1)
    finally:
        tower.attn_mask = full


@dataclass(frozen=True, kw_only=True)
class CropTable(_Table):
    """Crops of objects and what they should become."""

    features: Tensor  # (n, C) pooled features of the frozen trunk
    truth: Tensor  # (n,) int64, the row of the crop's name among all names
    opinion: Tensor  # (n, D) unit embedding of what an ImageNet classifier sees
    confidence: Tensor  # (n,) how sure it is, 0 to 1

    @property
    def weight(self) -> int:
        """Number of crops."""
        return len(self.truth)


@dataclass(frozen=True, kw_only=True)
class CropHeadConfig:
    """How the image head is trained."""

    seed: int = 0  # Of every batch
    batch: int = 512  # Crops in a global batch
    temperature: float = 0.05  # Of the softmax over all names
    smoothing: float = 0.05  # Of its labels
    dropout: float = 0.1  # Of the features
    # Weight of the ImageNet classifier's opinion (ConSE, arXiv 1312.5650), which keeps names
    # outside the data within reach
    conse: float = 0.3


class CropHeadObjective(Objective):
    """Softmax over all names of a crop's similarity, and its likeness to ImageNet's opinion."""

    names: Tensor

    def __init__(self, head: nn.Module, names: Tensor, *, config: CropHeadConfig) -> None:
        """Take the head and the unit text embeddings (K, D) of all names."""
        super().__init__()
        self.head, self.config = head, config
        self.register_buffer("names", names, persistent=False)

    def forward(self, batch: CropTable) -> LossOutput:
        """Mean loss over the process's crops."""
        batch, config = batch.to(self.names.device), self.config
        features = F.dropout(batch.features.float(), config.dropout, training=self.training)
        output = F.normalize(self.head(features), dim=-1)
        loss = F.cross_entropy(
            output @ self.names.T / config.temperature,
            batch.truth,
            label_smoothing=config.smoothing,
        )
        unlikeness = 1 - (output * batch.opinion).sum(-1)
        # Where ImageNet's classifier is unsure, its opinion counts little.
        opinion = (unlikeness * batch.confidence).mean() / config.temperature**0.5
        return LossOutput(loss + config.conse * opinion, {"name_loss": loss.detach()})

    def rates(self) -> list[RatedPart]:
        """The head."""
        return [RatedPart(module=self.head)]

    def batches(
        self, table: CropTable, *, rank: int, world: int
    ) -> Callable[[int], Iterator[CropTable]]:
        """Batches from a step on, for the engine; batch n is a function of (seed, n)."""
        # By the square root of a name's frequency: rare names come more often than in the data.
        weights = torch.bincount(table.truth).float()[table.truth] ** -0.5

        def batch(step: int) -> CropTable:
            words = np.random.SeedSequence((self.config.seed, step)).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))
            count = self.config.batch
            rows = torch.multinomial(weights, count, replacement=True, generator=generator)
            return table.rows(rows[rank::world])

        return lambda start: _endless(batch, start)


def _endless(batch: Callable[[int], B], start: int) -> Iterator[B]:
    step = start
    while True:
        yield batch(step)
        step += 1
