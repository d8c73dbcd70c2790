"""Names to ask of a photo for a dense text head: some that it shows, some that it does not.

By default half of the queries are embeddings of masked crops, as in the paper (arXiv 2304.02643,
Section 7.5), half are the name's text: trained on images alone, the head lost a fifth of its IoU on
parts.

A photo that is not annotated exhaustively still says something about every name: a dog's pixels are
not sky. So some names are asked inside the annotated masks only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from textsam.values.prompts import COLOURS

from ...losses import soft_target
from ..sample import Sample
from ..source import Source
from .concepts import ConceptBank
from .pasting import NamedView
from .view_colours import view_colours

_STRIDE = 8  # pixels of the model frame in one cell of the head's map
_MIN_CELLS = 16  # of annotated masks, for a name that is asked inside them only
# A mask has a colour from this share of its pixels on, and certainly lacks it below the other.
_DOMINANT, _LACKING = 0.5, 0.1


class Words(Protocol):
    """What is known about names."""

    def kinds_of(self, label: str) -> Set[str]:
        """Words for kinds that a label belongs to: "vehicle" of "car"."""

    def related(self, name: str) -> Set[str]:
        """Names that may be true of the pixels of another name, itself included."""

    def hosts(self, name: str) -> Set[str]:
        """Labels on which a name may lie without annotation: "car" of "wheel"."""


class _NoWords:
    """Every name stands for itself."""

    def kinds_of(self, label: str) -> Set[str]:
        return frozenset()

    def related(self, name: str) -> Set[str]:
        return frozenset((name,))

    def hosts(self, name: str) -> Set[str]:
        return frozenset()


@dataclass(frozen=True, kw_only=True)
class NameRules:
    """Which names may be in a photo although nobody annotated them there."""

    # Sources whose photos lack every other name of their source, though they are not marked
    # exhaustive
    complete: frozenset[str] = frozenset()
    # Sources whose photos are never asked for a name of another source
    own_only: frozenset[str] = frozenset()
    # Sources whose photos show more of their own names than is annotated
    partial: frozenset[str] = frozenset()
    bare: frozenset[str] = frozenset()  # sources whose photos show nothing but their own names
    # Sources of names that any photo may show (sky, hair). Outside these sources, and where no
    # source of `things` has them, they are asked inside masks only.
    common: frozenset[str] = frozenset()
    things: frozenset[str] = frozenset()  # sources whose names are never common
    common_names: frozenset[str] = frozenset()  # further common names
    # Source -> names that its photos show without annotation
    unannotated: Mapping[str, frozenset[str]] = field(default_factory=dict)
    colourless: frozenset[str] = frozenset()  # labels that are never asked with a colour
    # Kinds that a photo lacks if it lacks all of their labels
    distinct: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class NameConfig:
    """How many names are asked of a photo, and with what."""

    max_present: int = 5  # Most names that the view shows
    max_absent: int = 6  # Most names that it lacks, half of them of its own source
    max_inside: int = 0  # Most names that are asked inside annotated masks only
    # Probability that a query is the embedding of a crop, not of the name's text
    image_share: float = 0.5
    kind_share: float = 0.0  # Probability that a name is asked by a kind that it belongs to
    # Probability that a name is asked with a colour, that some or none of it has
    colour_share: float = 0.0
    # Weight of the pixels without annotation, where more of a name may be than is annotated
    partial_weight: float = 0.3
    rules: NameRules = field(default_factory=NameRules)  # Which names count as absent


@dataclass(frozen=True, kw_only=True)
class NameQuestions:
    """U names asked of the views of a batch."""

    targets: Tensor  # (U, h8, w8) float, share of each cell that the name covers
    weights: Tensor  # (U, h8, w8) float, share of each cell that counts in the loss
    queries: Tensor  # (U, D) centred unit embeddings
    photos: Tensor  # (U,) int64, the view each is asked of, in rising order
    present: Tensor  # (U,) bool, whether the view shows it

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


@dataclass(frozen=True)
class _Question:
    """A name asked of a view: where it is, and where its loss counts; (S, S) bool and float."""

    name: str
    label: str | None  # whose crops may ask for it
    union: Tensor
    weight: Tensor
    present: bool


class NameDraw:
    """Draws names that a view shows and names that it lacks."""

    def __init__(
        self,
        bank: ConceptBank,
        sources: Mapping[str, Source | Sequence[Sample]],
        *,
        config: NameConfig,
        words: Words | None = None,
    ) -> None:
        self.bank, self.config = bank, config
        self.words: Words = _NoWords() if words is None else words
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
        rules = config.rules
        things = self._labels(rules.things)
        self.common = (self._labels(rules.common) | rules.common_names) - things
        kinds = {kind for label in self._labels(sources) for kind in self.words.kinds_of(label)}
        self.kinds = sorted(kinds & set(bank.index))

    def __call__(self, item: NamedView, rng: np.random.Generator) -> NameQuestions:
        """The questions about one view."""
        cells = item.view.void.shape[-1] // _STRIDE
        counted = item.counted.float()
        nowhere = torch.zeros_like(item.counted)
        absent = [
            _Question(name, name, nowhere, counted, False)
            for name in self.absent_names(item.source, item.sample, item.labels, rng)
        ]
        questions = [*self._present(item, rng), *absent, *self._inside(item, rng)]
        if not questions:
            empty = torch.zeros(0, cells, cells)
            return NameQuestions(
                targets=empty,
                weights=empty,
                queries=self.bank.text[:0],
                photos=torch.zeros(0, dtype=torch.int64),
                present=torch.zeros(0, dtype=torch.bool),
            )
        weights = torch.stack([question.weight for question in questions])
        return NameQuestions(
            targets=soft_target(torch.stack([question.union for question in questions]), cells),
            weights=torch.nn.functional.avg_pool2d(weights[:, None], _STRIDE)[:, 0],
            queries=torch.stack([self._query(question, rng) for question in questions]),
            photos=torch.zeros(len(questions), dtype=torch.int64),
            present=torch.tensor([question.present for question in questions]),
        )

    def absent_names(
        self, source: str, sample: Sample, labels: Iterable[str], rng: np.random.Generator
    ) -> list[str]:
        """Names that a photo does not show: half of its own source, half of any other.

        Args:
            source: Of the photo.
            sample: The photo.
            labels: What is shown beside its own objects, e.g. what was pasted into it.
            rng: Decides which.
        """
        rules = self.config.rules
        shown = {o.label for o in sample.objects} | set(labels)
        possible = {name for label in shown for name in self.words.related(label)}
        names: list[str] = []
        own = [
            name
            for name in self.vocabulary[source]
            # An exhaustive photo would name the shoes of a person.
            if name not in possible
            and not self.words.related(name) & shown
            and (sample.exhaustive or not self.words.hosts(name) & shown)
        ]
        kinds = {kind for name in self.vocabulary[source] for kind in self.words.kinds_of(name)}
        own += [
            kind
            for kind in self.kinds
            if kind in rules.distinct & kinds
            and kind not in self.vocabulary[source]
            and self._is_absent(kind, shown, possible)
        ]
        if (sample.exhaustive or source in rules.complete) and own:
            names += [
                str(name) for name in rng.permutation(own)[: (self.config.max_absent + 1) // 2]
            ]
        if source in rules.own_only:
            return names
        # One other source for each view, so that a large vocabulary does not own the absent names.
        other = list(self.vocabulary)[int(rng.integers(len(self.vocabulary)))]
        if other == source:
            return names
        shown |= rules.unannotated.get(source, frozenset())
        possible |= shown
        if source not in rules.bare:
            possible |= self.common
        foreign = [
            name
            for name in self.vocabulary[other]
            if name not in self.vocabulary[source] and self._is_absent(name, shown, possible)
        ]
        return names + [
            str(name) for name in rng.permutation(foreign)[: self.config.max_absent - len(names)]
        ]

    def _is_absent(self, name: str, shown: Set[str], possible: Set[str]) -> bool:
        """Whether a view lacks a name, given what it shows and what that may be called."""
        # A car in this photo may have wheels without annotation: ask nothing about them.
        return (
            name not in possible
            and not self.words.related(name) & shown
            and not self.words.hosts(name) & shown
        )

    def _present(self, item: NamedView, rng: np.random.Generator) -> list[_Question]:
        """Names that the view shows, some by their kind, some with a colour."""
        config = self.config
        known = sorted({label for label in item.labels if label in self.bank.index})
        questions: dict[str, _Question] = {}
        for drawn in rng.permutation(known)[: config.max_present]:
            label = name = str(drawn)
            kinds = sorted(set(self.words.kinds_of(label)) & set(self.kinds))
            if kinds and rng.random() < config.kind_share:
                name = str(rng.choice(kinds))
            members = [name in (own, *self.words.kinds_of(own)) for own in item.labels]
            masks = item.view.masks[torch.tensor(members)]
            partial = item.source in config.rules.partial or name != label
            question = _Question(name, label, masks.any(0), self._weight(item, partial), True)
            if label not in config.rules.colourless and rng.random() < config.colour_share:
                question = self._coloured(item, question, masks, rng)
            questions.setdefault(question.name, question)
        return list(questions.values())

    def _weight(self, item: NamedView, partial: bool) -> Tensor:
        """(S, S) weights of the pixels in a present name's loss."""
        if not partial:
            return item.counted.float()
        annotated = item.view.masks.any(0)
        return torch.where(annotated, 1.0, self.config.partial_weight) * item.counted

    def _coloured(
        self, item: NamedView, question: _Question, masks: Tensor, rng: np.random.Generator
    ) -> _Question:
        """The same with a colour that one of the masks has, or that all of them lack."""
        shares = view_colours(item.view.pixels, masks)
        there = np.flatnonzero((shares >= _DOMINANT).any(0))
        lacking = np.flatnonzero((shares < _LACKING).all(0))
        present = len(there) > 0 and rng.random() < 0.6
        candidates = there if present else lacking
        if not len(candidates):
            return question
        colour = int(rng.choice(candidates))
        name = f"{COLOURS[colour]} {question.name}"
        if name not in self.bank.index:
            return question
        weight = question.weight
        if present:
            unsure = (shares[:, colour] >= _LACKING) & (shares[:, colour] < _DOMINANT)
            weight = weight * ~masks[torch.from_numpy(unsure)].any(0)
            union = masks[torch.from_numpy(shares[:, colour] >= _DOMINANT)].any(0)
        else:
            union = torch.zeros_like(question.union)
        return _Question(name, None, union, weight, present)

    def _inside(self, item: NamedView, rng: np.random.Generator) -> list[_Question]:
        """Names that none of some annotated masks shows, asked inside these masks."""
        if not self.config.max_inside or not len(item.labels):
            return []
        names = sorted(self.common | set(self.kinds) | set(self.vocabulary[item.source]))
        questions = []
        for drawn in rng.permutation(names)[: self.config.max_inside]:
            name = str(drawn)
            if name not in self.bank.index:
                continue
            barred = self.words.related(name) | self.words.hosts(name)
            free = [
                label not in barred and name not in self.words.hosts(label) for label in item.labels
            ]
            # A mask may lie under another one: a person's under the coat.
            rest = item.view.masks[~torch.tensor(free)].any(0)
            area = item.view.masks[torch.tensor(free)].any(0) & ~rest & item.counted
            if area.sum() >= _MIN_CELLS * _STRIDE**2:
                nowhere = torch.zeros_like(item.counted)
                questions.append(_Question(name, name, nowhere, area.float(), False))
        return questions

    def _query(self, question: _Question, rng: np.random.Generator) -> Tensor:
        crop = None
        if question.label is not None and rng.random() < self.config.image_share:
            crop = self.bank.crop_of(question.label, rng)
        # A crop of a car asks for cars, not for vehicles.
        kind = question.label != question.name
        return self.bank.text_of(question.name) if crop is None or kind else crop

    def _labels(self, sources: Iterable[str]) -> set[str]:
        return {name for source in sources for name in self.vocabulary.get(source, ())}
