"""Embeddings that `tiny`'s training asks with: each name's text, and the crops that carry it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from textsam.clip.pathway import TextPathway

from .tiny_clip import CropFeatures, as_encoder

__all__ = ["ConceptBank"]


class ConceptBank:
    """Embeddings to ask with: each name's text, and the crops that carry it."""

    def __init__(self, model: Any, crops: CropFeatures, pathway: TextPathway) -> None:
        encoder = as_encoder(model)
        self.names = sorted(set(crops.labels))
        self.index = {name: i for i, name in enumerate(self.names)}
        text = encoder.encode_text(self.names)
        with torch.inference_mode():
            image = F.normalize(model.visual.head.eval()(crops.features.float()), dim=-1).clone()
        pathway.text_mean.copy_(text.mean(0))
        # The mean over names of the mean over their crops: frequent names do not own it.
        label = torch.tensor([self.index[name] for name in crops.labels])
        sums = torch.zeros(len(self.names), image.shape[1]).index_add_(0, label, image)
        pathway.image_mean.copy_((sums / torch.bincount(label)[:, None]).mean(0))
        self.text = pathway.centre(text, "text")
        self.image = pathway.centre(image, "image")
        order = label.argsort()
        self.rows = {
            self.names[i]: part
            for i, part in enumerate(order.split(torch.bincount(label).tolist()))
        }
        self.own: dict[tuple[int, int, int], list[int]] = {}
        for row, key in enumerate(crops.keys.tolist()):
            self.own.setdefault((key[0], key[1], key[2]), []).append(row)

    def text_of(self, name: str) -> Tensor:
        """Centred unit embedding (D,) of a name."""
        return self.text[self.index[name]]

    def crop_of(self, name: str, rng: np.random.Generator) -> Tensor:
        """Centred unit embedding (D,) of a random crop of that name."""
        rows = self.rows[name]
        return self.image[rows[int(rng.integers(len(rows)))]]

    def crop_of_object(self, key: tuple[int, int, int], rng: np.random.Generator) -> Tensor | None:
        """Embedding of one of the object's own crops, the paper's prompt; None if none was made."""
        rows = self.own.get(key)
        return None if rows is None else self.image[rows[int(rng.integers(len(rows)))]]
