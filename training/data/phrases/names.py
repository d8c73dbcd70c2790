"""Names to ask of a photo for a dense text head: some that it shows, some that it does not.

By default half of the queries are embeddings of masked crops, as in the paper (arXiv 2304.02643,
Section 7.5), half are the name's text: trained on images alone, the head lost a fifth of its IoU on
parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ...losses import soft_target
from ..sample import Sample
from ..source import Source
from .concepts import ConceptBank
from .pasting import NamedView

__all__ = ["NameConfig", "NameDraw", "NameQuestions", "NameRules"]

_STRIDE = 8  # pixels of the model frame in one cell of the head's map


@dataclass(frozen=True, kw_only=True)
class NameRules:
    """Which names may be in a photo although nobody annotated them there.

    Attributes:
        complete: Sources whose photos lack every other name of their source, though they are not
            marked exhaustive.
        own_only: Sources whose photos are never asked for a name of another source.
        hidden_on: Source -> things on which its names may be without annotation: a car in any photo
            may have wheels.
        unannotated: Source -> names that its photos show without annotation.
    """

    complete: frozenset[str] = frozenset()
    own_only: frozenset[str] = frozenset()
    hidden_on: Mapping[str, frozenset[str]] = field(default_factory=dict)
    unannotated: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NameConfig:
    """How many names are asked of a photo, and with what.

    Attributes:
        max_present: Most names that the view shows.
        max_absent: Most names that it lacks, half of them of its own source.
        image_share: Probability that a query is the embedding of a crop, not of the name's text.
        rules: Which names count as absent.
    """

    max_present: int = 5
    max_absent: int = 6
    image_share: float = 0.5
    rules: NameRules = field(default_factory=NameRules)


@dataclass(frozen=True, kw_only=True)
class NameQuestions:
    """U names asked of the views of a batch.

    Attributes:
        targets: (U, h8, w8) float, share of each cell that the name covers.
        weights: (U, h8, w8) float, share of each cell that counts in the loss.
        queries: (U, D) centred unit embeddings.
        photos: (U,) int64, the view each is asked of, in rising order.
        present: (U,) bool, whether the view shows it.
    """

    targets: Tensor
    weights: Tensor
    queries: Tensor
    photos: Tensor
    present: Tensor

    @classmethod
    def join(cls, parts: Sequence[NameQuestions]) -> NameQuestions:
        """The questions of several views, view by view."""
        photos = [torch.full_like(part.photos, number) for number, part in enumerate(parts)]
        return cls(
            targets=torch.cat([part.targets for part in parts]),
            weights=torch.cat([part.weights for part in parts]),
            queries=torch.cat([part.queries for part in parts]),
            photos=torch.cat(photos),
            present=torch.cat([part.present for part in parts]),
        )

    def to(self, device: torch.device | str) -> NameQuestions:
        """The same on a device."""
        moved = {name: value.to(device, non_blocking=True) for name, value in vars(self).items()}
        return NameQuestions(**moved)


class NameDraw:
    """Draws names that a view shows and names that it lacks."""

    def __init__(
        self,
        bank: ConceptBank,
        sources: Mapping[str, Source | Sequence[Sample]],
        *,
        config: NameConfig,
    ) -> None:
        self.bank, self.config = bank, config
        self.vocabulary = {
            name: sorted(
                {
                    item.label
                    for row in range(len(source))
                    for item in source[row].objects
                    if item.label in bank.index
                }
            )
            for name, source in sources.items()
        }

    def __call__(self, item: NamedView, rng: np.random.Generator) -> NameQuestions:
        """The questions about one view."""
        cells = item.view.void.shape[-1] // _STRIDE
        known = sorted({label for label in item.labels if label in self.bank.index})
        present = [str(name) for name in rng.permutation(known)[: self.config.max_present]]
        absent = self.absent_names(item, rng)
        unions = [
            item.view.masks[torch.tensor([label == name for label in item.labels])].any(0)
            for name in present
        ]
        targets = torch.zeros(len(present) + len(absent), cells, cells)
        if unions:
            targets[: len(present)] = soft_target(torch.stack(unions), cells)
        queries = [self._query(name, rng) for name in (*present, *absent)]
        return NameQuestions(
            targets=targets,
            # The same weights for all names of a view; `expand` copies nothing.
            weights=soft_target(item.counted[None], cells).expand_as(targets),
            queries=torch.stack(queries) if queries else self.bank.text[:0],
            photos=torch.zeros(len(targets), dtype=torch.int64),
            present=torch.arange(len(targets)) < len(present),
        )

    def absent_names(self, item: NamedView, rng: np.random.Generator) -> list[str]:
        """Names that the view does not show: half of its own source, half of any other."""
        rules, source = self.config.rules, item.source
        shown = {o.label for o in item.sample.objects} | set(item.labels)
        names: list[str] = []
        own = [name for name in self.vocabulary[source] if name not in shown]
        if (item.sample.exhaustive or source in rules.complete) and own:
            names += [
                str(name) for name in rng.permutation(own)[: (self.config.max_absent + 1) // 2]
            ]
        if source in rules.own_only:
            return names
        # One other source for each view, so that a large vocabulary does not own the absent names.
        other = list(self.vocabulary)[int(rng.integers(len(self.vocabulary)))]
        # A car in this photo may have unannotated wheels: ask nothing of `car_parts`.
        if other == source or rules.hidden_on.get(other, frozenset()) & shown:
            return names
        shown |= rules.unannotated.get(source, frozenset())
        foreign = [name for name in self.vocabulary[other] if name not in shown]
        return names + [
            str(name) for name in rng.permutation(foreign)[: self.config.max_absent - len(names)]
        ]

    def _query(self, name: str, rng: np.random.Generator) -> Tensor:
        if rng.random() < self.config.image_share:
            return self.bank.crop_of(name, rng)
        return self.bank.text_of(name)
