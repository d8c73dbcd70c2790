"""A batch of views with phrases: made by the loader's workers, without any network.

What is drawn about a photo comes from the photo's own seed, so it does not depend on how a batch is
split over processes; and a batch holds only what its losses need, since views of 80 masks each
would cost more to send to a fast device than to train on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from ..batch import ViewBatch
from ..sample import Sample
from ..source import Source
from .concepts import ConceptBank
from .names import NameConfig, NameDraw, NameQuestions, Words
from .pasting import NamedView, ObjectPaster, PasteConfig


@dataclass(frozen=True, kw_only=True)
class PhraseConfig:
    """What is asked about a photo."""

    max_masks: int | None = 4  # Most masks of a photo that are prompted; None for all of the view's
    min_area: int = 0  # Smaller masks are not prompted, pixels of the model frame
    # Larger masks are not prompted, as a share of the picture (arXiv 2304.02643, Appendix A: 90%)
    max_share: float = 1.0
    # Probability that the masks of a photo are prompted by phrase, not by point or box
    phrase_share: float = 0.0
    point_share: float = 0.4  # Probability that such a phrase comes with a point, as `auto` asks
    # Probability that such a phrase is the embedding of a crop of the object itself (the paper's
    # prompt, Appendix D.5) and not of its name's text
    crop_share: float = 0.5
    # Probability that its text is that of a kind which the object belongs to
    kind_share: float = 0.0
    # Names asked of the dense text head; None for none
    names: NameConfig | None = field(default_factory=NameConfig)
    paste: PasteConfig | None = None  # Objects of other photos that are pasted in; None for none


@dataclass(frozen=True, kw_only=True)
class PhraseBatch:
    """Photos with P masks to prompt, and names to ask of a dense text head."""

    views: ViewBatch  # the photos, each with the masks that are prompted; a photo may have none
    queries: Tensor  # (P, D) centred unit embeddings; zeros for masks that no phrase asks for
    spoken: Tensor  # (P,) bool, masks whose first prompt is a phrase
    clicked: Tensor  # (P,) bool, those whose phrase comes with a point
    names: NameQuestions | None  # questions for the dense head, or None

    def __len__(self) -> int:
        """Number of photos."""
        return len(self.views)

    @property
    def weight(self) -> dict[str, float]:
        """How many items each of the losses is a mean over."""
        counts = {"masks": float(self.views.weight)}
        if self.names is not None:
            counts["names"] = float(len(self.names.present))
            counts["present"] = float(self.names.present.sum())
        return counts

    def to(self, device: torch.device | str) -> PhraseBatch:
        """The same batch on a device."""
        return PhraseBatch(
            views=self.views.to(device),
            queries=self.queries.to(device, non_blocking=True),
            spoken=self.spoken.to(device, non_blocking=True),
            clicked=self.clicked.to(device, non_blocking=True),
            names=None if self.names is None else self.names.to(device),
        )


class PhraseDraw:
    """Turns a batch of views into a `PhraseBatch`; see `ViewLoader`'s `finish`."""

    def __init__(
        self,
        bank: ConceptBank,
        sources: Mapping[str, Source | Sequence[Sample]],
        *,
        config: PhraseConfig,
        image_size: int,
        words: Words | None = None,
    ) -> None:
        """Look at the sources' names.

        Args:
            bank: Embeddings to ask with.
            sources: As the loader has them.
            config: What is asked.
            image_size: Side of the views' frame, pixels.
            words: Kinds of the names, and which may cover each other.
        """
        self.bank, self.config, self._words = bank, config, words
        self._names = config.names and NameDraw(bank, sources, config=config.names, words=words)
        self._paste = config.paste and ObjectPaster(
            sources, config=config.paste, image_size=image_size
        )

    def __repr__(self) -> str:
        # What a checkpoint remembers of it: sets in an order that does not change with the process
        return f"PhraseDraw({json.dumps(asdict(self.config), default=sorted, sort_keys=True)})"

    def __call__(self, batch: ViewBatch, samples: Sequence[Sample]) -> PhraseBatch:
        """What is asked about each photo of a batch."""
        photos = [
            self._photo(NamedView.of(source, sample, view), seed)
            for view, (source, _), sample, seed in zip(
                batch.views, batch.origin, samples, batch.seeds, strict=True
            )
        ]
        views = replace(
            batch,
            views=tuple(photo.item.view for photo in photos),
            labels=tuple(photo.item.labels for photo in photos),
        )
        names = [photo.names for photo in photos if photo.names is not None]
        return PhraseBatch(
            views=views,
            queries=torch.cat([photo.queries for photo in photos]),
            spoken=torch.cat([photo.spoken for photo in photos]),
            clicked=torch.cat([photo.clicked for photo in photos]),
            names=NameQuestions.join(names) if names else None,
        )

    def _photo(self, item: NamedView, seed: int) -> _PhotoPhrases:
        rng = np.random.default_rng((seed, crc32(b"phrases")))
        if self._paste:
            item = self._paste(item, rng)
        # Before masks are dropped: the union of a name needs all of them.
        names = self._names(item, rng) if self._names else None
        item = self._prompted(item, rng)
        known = np.array([label in self.bank.index for label in item.labels], dtype=bool)
        # One decision for all masks of a photo.
        spoken = known & (rng.random() < self.config.phrase_share)
        # Drawn for every mask, used for those with a phrase.
        clicked = spoken & (rng.random(len(known)) < self.config.point_share)
        queries = torch.zeros(len(known), self.bank.text.shape[1])
        for row in np.flatnonzero(spoken):
            queries[row] = self._query(item, int(row), rng)
        return _PhotoPhrases(
            item, queries, torch.from_numpy(spoken), torch.from_numpy(clicked), names
        )

    def _prompted(self, item: NamedView, rng: np.random.Generator) -> NamedView:
        """The view with some of its masks of a useful size."""
        view, config = item.view, self.config
        areas = view.masks.flatten(1).sum(1).tolist()
        largest = config.max_share * view.pixels[0].numel()
        usable = [row for row, area in enumerate(areas) if config.min_area <= area <= largest]
        rows = rng.permutation(np.array(usable, dtype=np.int64))[: config.max_masks].tolist()
        return replace(
            item,
            view=replace(
                view, masks=view.masks[rows], objects=tuple(view.objects[row] for row in rows)
            ),
            labels=tuple(item.labels[row] for row in rows),
            keys=tuple(item.keys[row] for row in rows),
        )

    def _query(self, item: NamedView, row: int, rng: np.random.Generator) -> Tensor:
        own_crop = rng.random() < self.config.crop_share
        crop = self.bank.crop_of_object(item.keys[row], rng) if own_crop else None
        if crop is not None:
            return crop
        name = item.labels[row]
        if self._words is not None and rng.random() < self.config.kind_share:
            kinds = sorted(kind for kind in self._words.kinds_of(name) if kind in self.bank.index)
            name = str(rng.choice(kinds)) if kinds else name
        return self.bank.text_of(name)


@dataclass(frozen=True)
class _PhotoPhrases:
    """What is asked about one photo; fields as in `PhraseBatch`."""

    item: NamedView
    queries: Tensor
    spoken: Tensor
    clicked: Tensor
    names: NameQuestions | None
