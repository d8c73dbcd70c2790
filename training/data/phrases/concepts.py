"""Embeddings to ask with: each name's text, and crops of annotated objects that carry the name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from torch import Tensor

# Source, image id, and index of an object in its photo. The row of a photo would not do: a stage
# that leaves photos out counts the remaining ones anew.
ObjectKey: TypeAlias = tuple[str, str, int]


class ConceptBank:
    """Centred unit embeddings of names and of crops.

    Attributes:
        names: The names, sorted: labels, their kinds, and both with a colour.
        index: Name -> its row in `text`.
        text: (n, D) embedding of each name.
        image: (m, D) embedding of each crop.
    """

    def __init__(
        self,
        text: Tensor,
        image: Tensor,
        *,
        labels: Sequence[str],
        keys: Sequence[ObjectKey],
        names: Sequence[str] | None = None,
    ) -> None:
        """Index the embeddings.

        Args:
            text: (n, D), one row for each name.
            image: (m, D), one row for each crop.
            labels: Label of each crop.
            keys: The object that each crop shows.
            names: What `text` embeds; the different labels, sorted, when None.
        """
        self.names = sorted(set(labels)) if names is None else list(names)
        self.index = {name: row for row, name in enumerate(self.names)}
        self.text, self.image = text, image
        self._crops_of_label: dict[str, list[int]] = {}
        self._crops_of_object: dict[ObjectKey, list[int]] = {}
        for row, (label, key) in enumerate(zip(labels, keys, strict=True)):
            self._crops_of_label.setdefault(label, []).append(row)
            self._crops_of_object.setdefault(key, []).append(row)

    def text_of(self, name: str) -> Tensor:
        """Embedding (D,) of a name."""
        return self.text[self.index[name]]

    def crop_of(self, label: str, rng: np.random.Generator) -> Tensor | None:
        """Embedding (D,) of a random crop of that label; None if none was embedded."""
        rows = self._crops_of_label.get(label)
        return None if rows is None else self.image[rows[int(rng.integers(len(rows)))]]

    def crop_of_object(self, key: ObjectKey, rng: np.random.Generator) -> Tensor | None:
        """Embedding (D,) of a random crop of the object; None if none was embedded."""
        rows = self._crops_of_object.get(key)
        return None if rows is None else self.image[rows[int(rng.integers(len(rows)))]]
