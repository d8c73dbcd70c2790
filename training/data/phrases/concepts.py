"""Embeddings to ask with: each name's text, and crops of annotated objects that carry the name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

__all__ = ["ConceptBank", "ObjectKey"]

# Source, image id, and index of an object in its photo. The row of a photo would not do: a stage
# that leaves photos out counts the remaining ones anew.
ObjectKey: TypeAlias = tuple[str, str, int]


class ConceptBank:
    """Centred unit embeddings of names and of crops.

    Attributes:
        names: The names, sorted.
        index: Name -> its row in `text`.
        text: (n, D) embedding of each name.
        image: (m, D) embedding of each crop.
    """

    def __init__(
        self, text: Tensor, image: Tensor, *, labels: Sequence[str], keys: Sequence[ObjectKey]
    ) -> None:
        """Index the embeddings.

        Args:
            text: (n, D), one row for each different label, in sorted order.
            image: (m, D), one row for each crop.
            labels: Name of each crop.
            keys: The object that each crop shows.
        """
        self.names = sorted(set(labels))
        self.index = {name: row for row, name in enumerate(self.names)}
        self.text, self.image = text, image
        label = torch.tensor([self.index[name] for name in labels])
        counts = torch.bincount(label).tolist()
        parts = label.argsort(stable=True).split(counts)
        self._crops_of_name = dict(zip(self.names, parts, strict=True))
        self._crops_of_object: dict[ObjectKey, list[int]] = {}
        for row, key in enumerate(keys):
            self._crops_of_object.setdefault(key, []).append(row)

    def text_of(self, name: str) -> Tensor:
        """Embedding (D,) of a name."""
        return self.text[self.index[name]]

    def crop_of(self, name: str, rng: np.random.Generator) -> Tensor:
        """Embedding (D,) of a random crop of that name."""
        rows = self._crops_of_name[name]
        return self.image[rows[int(rng.integers(len(rows)))]]

    def crop_of_object(self, key: ObjectKey, rng: np.random.Generator) -> Tensor | None:
        """Embedding (D,) of a random crop of the object; None if none was embedded."""
        rows = self._crops_of_object.get(key)
        return None if rows is None else self.image[rows[int(rng.integers(len(rows)))]]
