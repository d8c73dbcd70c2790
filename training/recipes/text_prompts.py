"""Phrases among the core's prompts: CLIP token and dense map in place of a first point or box.

The paper's prompt (Appendix D.5) is the CLIP image embedding of the mask's own crop; half of ours
are, the other half are the label's text. With some of them goes a point inside the object, which is
how `auto` asks for one instance of a phrase.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textsam.clip.pathway import TextPathway
from textsam.modeling.prompt_encoder import ABSENT, FOREGROUND, NOT_A_POINT, PromptBatch

from ..data import Sample, View
from ..prompting import sample_pixels
from .concepts import ConceptBank
from .dense_text import trunk_maps

__all__ = ["TextPrompts", "with_phrases"]


class TextPrompts:
    """Turns some of a batch's first prompts into phrases."""

    def __init__(
        self,
        model: Any,
        pathway: TextPathway,
        bank: ConceptBank,
        samples: Mapping[str, Sequence[Sample]],
        *,
        with_point: float = 0.4,
    ) -> None:
        self.visual = model.visual.eval().to(memory_format=torch.channels_last)
        self.pathway = pathway
        self.bank = bank
        self.samples = samples
        self.files = list(samples)
        self.with_point = with_point

    def trainable(self) -> nn.Module:
        """What learns with the core: the token's projection; the dense head is trained before."""
        if self.pathway.dense is not None:
            self.pathway.dense.requires_grad_(False)
        return self.pathway

    def mix_in(
        self,
        prompts: PromptBatch,
        batch: Sequence[tuple[str, int, View]],
        generator: torch.Generator,
        *,
        share: float,
        mask_size: int,
    ) -> PromptBatch:
        """Give the masks of `share` of the photos a phrase instead of their point or box.

        Args:
            prompts: First prompts, two point slots each.
            batch: File, row and view of each photo.
            generator: Source of randomness.
            share: Probability that a photo is asked by phrase.
            mask_size: Side of the decoder's mask prompt.
        """
        spoken = [i for i in range(len(batch)) if torch.rand((), generator=generator) < share]
        if not spoken:
            return prompts
        rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
        rows, photos, queries, masks = [], [], [], []
        for position, i in enumerate(spoken):
            file, row, view = batch[i]
            first = int((prompts.image_index < i).sum())
            for offset, index in enumerate(view.objects):
                label = self.samples[file][row].objects[index].label
                if label not in self.bank.index:
                    continue
                rows.append(first + offset)
                photos.append(position)
                key = (self.files.index(file), row, index)
                queries.append(self._query(key, label, rng))
                masks.append(view.masks[offset])
        if not rows:
            return prompts
        query, where = torch.stack(queries), torch.tensor(rows)
        side = batch[0][2].masks.shape[-1]
        maps = self._maps([batch[i][2] for i in spoken], torch.tensor(photos), query, side)
        maps = F.interpolate(maps[:, None], (mask_size, mask_size), mode="bilinear")
        pointed = torch.rand(len(where), generator=generator) < self.with_point
        points = sample_pixels(torch.stack(masks), generator)
        tokens = self.pathway(query)
        return with_phrases(
            prompts, where, tokens=tokens, maps=maps, points=points, pointed=pointed
        )

    def _query(self, key: tuple[int, int, int], label: str, rng: np.random.Generator) -> Tensor:
        own = self.bank.crop_of_object(key, rng) if rng.random() < 0.5 else None
        return self.bank.text_of(label) if own is None else own

    @torch.no_grad()
    def _maps(self, views: Sequence[View], photos: Tensor, query: Tensor, side: int) -> Tensor:
        dense = self.pathway.dense
        assert dense is not None
        features = dense.features(trunk_maps(self.visual, views, side=side))
        return dense.logits(features[photos], query)


def with_phrases(
    prompts: PromptBatch,
    where: Tensor,
    *,
    tokens: Tensor,
    maps: Tensor,
    points: Tensor,
    pointed: Tensor,
) -> PromptBatch:
    """Put phrases in place of some first prompts.

    Args:
        prompts: P prompts of two point slots each.
        where: (Q,) int64, which of them are asked by phrase.
        tokens: (Q, T, C) of the pathway.
        maps: (Q, 1, 4s, 4s) logits of the dense head.
        points: (Q, 2) x, y, model pixels, inside the object.
        pointed: (Q,) bool, which phrases come with their point.
    """
    count = len(prompts)
    places, labels = prompts.points.clone(), prompts.labels.clone()
    places[where, 0] = points
    device = places.device
    alone = torch.tensor([NOT_A_POINT, ABSENT], device=device)
    together = torch.tensor([FOREGROUND, NOT_A_POINT], device=device)
    labels[where] = torch.where(pointed[:, None], together, alone)
    everywhere = tokens.new_zeros(count, *tokens.shape[1:]).index_copy(0, where, tokens)
    has = torch.zeros(count, dtype=torch.bool, device=device)
    has[where] = True
    dense = maps.new_zeros(count, *maps.shape[1:])
    dense[where] = maps
    return replace(
        prompts,
        points=places,
        labels=labels,
        tokens=everywhere,
        has_tokens=has,
        masks=dense,
        has_mask=has.clone(),
    )
