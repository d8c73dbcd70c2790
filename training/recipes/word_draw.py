"""What the loss of a dense text head asks: names that a view shows, and names that it does not.

Half of the queries are embeddings of masked crops, as in the paper (Section 7.5), half are the
label's text: trained on images alone the same head loses a fifth of its IoU on parts (TINY.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data import Sample
from ..losses import soft_target
from .concepts import ConceptBank
from .labelled_views import LabelledView

__all__ = ["WordConfig", "WordDraw", "WordQuestions"]

# Names of one file that may be in another file's photos without being annotated there.
_HIDDEN_BY = {
    "car_parts": {"car", "bus", "truck", "train", "motorcycle", "bicycle", "motorbike"},
    "clothing": {"person"},
}
_STRIDE = 8  # of the head's map


@dataclass(frozen=True, kw_only=True)
class WordConfig:
    """Numbers of the loss.

    Attributes:
        present: Most names of a photo that are asked.
        absent: Most names that it lacks, half of them of its own file's list.
        image_share: Share of the queries that are crops' embeddings.
        positive_weight: Of the pixels inside, in the cross entropy.
        peak: Weight of the term that says whether the name is there at all.
        peak_cells: The map's best cells that decide about it.
    """

    present: int = 5
    absent: int = 6
    image_share: float = 0.5
    positive_weight: float = 3.0
    peak: float = 0.25
    peak_cells: int = 8


@dataclass(frozen=True, kw_only=True)
class WordQuestions:
    """Names asked of the views of a batch.

    Attributes:
        targets: (U, h8, w8) float, share of each cell that the name covers.
        weights: (U, h8, w8) float, share of it that counts.
        queries: (U, D) centred unit embeddings.
        photos: (U,) int64, rising.
        present: (U,) bool, whether the view shows it.
    """

    targets: Tensor
    weights: Tensor
    queries: Tensor
    photos: Tensor
    present: Tensor


class WordDraw:
    """Draws names that are there and names that are not."""

    def __init__(
        self, bank: ConceptBank, samples: Mapping[str, Sequence[Sample]], *, config: WordConfig
    ) -> None:
        self.bank, self.samples, self.config = bank, samples, config
        self.vocabulary = {
            file: sorted({o.label for s in rows for o in s.objects if o.label in bank.index})
            for file, rows in samples.items()
        }

    def __call__(self, batch: Sequence[LabelledView], rng: np.random.Generator) -> WordQuestions:
        """What is asked of B views."""
        cells = batch[0].view.void.shape[-1] // _STRIDE
        targets: list[Tensor] = []
        queries: list[Tensor] = []
        photos: list[int] = []
        present: list[bool] = []
        for number, item in enumerate(batch):
            known = sorted({label for label in item.labels if label in self.bank.index})
            for name in rng.permutation(known)[: self.config.present]:
                rows = torch.tensor([label == name for label in item.labels])
                targets.append(soft_target(item.view.masks[rows].any(0)[None], cells)[0])
                queries.append(self._query(str(name), rng))
                present.append(True)
            for name in self._absent(item, rng):
                targets.append(torch.zeros(cells, cells))
                queries.append(self._query(name, rng))
                present.append(False)
            photos += [number] * (len(targets) - len(photos))
        index = torch.tensor(photos)
        counted = soft_target(torch.stack([item.counted for item in batch]), cells)
        return WordQuestions(
            targets=torch.stack(targets),
            weights=counted[index],
            queries=torch.stack(queries),
            photos=index,
            present=torch.tensor(present),
        )

    def _query(self, name: str, rng: np.random.Generator) -> Tensor:
        if rng.random() < self.config.image_share:
            return self.bank.crop_of(name, rng)
        return self.bank.text_of(name)

    def _absent(self, item: LabelledView, rng: np.random.Generator) -> list[str]:
        """Names that are not in the view: half its file's own, half any other file's."""
        sample = self.samples[item.file][item.row]
        there = {o.label for o in sample.objects} | set(item.labels)
        most = self.config.absent
        names: list[str] = []
        own = [n for n in self.vocabulary[item.file] if n not in there]
        if (sample.exhaustive or item.file == "named_objects") and own:
            names += [str(n) for n in rng.permutation(own)[: (most + 1) // 2]]
        if item.file == "coco_person":
            return names
        files = list(self.samples)
        other = files[int(rng.integers(len(files)))]
        hidden = _HIDDEN_BY.get(other, set()) & there
        vocabulary = [] if hidden or other == item.file else self.vocabulary[other]
        if item.file == "car_parts":  # every photo there shows a car, whole and unlabelled
            vocabulary = [n for n in vocabulary if n not in _HIDDEN_BY["car_parts"]]
        foreign = [n for n in vocabulary if n not in there]
        return names + [str(n) for n in rng.permutation(foreign)[: most - len(names)]]
