"""Photos with names, and embeddings to ask with."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from training.data import Sample
from training.data.drawn_shapes import draw_samples
from training.data.phrases.concepts import ConceptBank, ObjectKey


@pytest.fixture(scope="session")
def sources() -> dict[str, list[Sample]]:
    return {"voc": draw_samples(5, side=64), "named_objects": draw_samples(4, seed=7, side=64)}


@pytest.fixture(scope="session")
def bank(sources: dict[str, list[Sample]]) -> ConceptBank:
    labels: list[str] = []
    keys: list[ObjectKey] = []
    for source, rows in sources.items():
        for sample in rows:
            for index, item in enumerate(sample.objects):
                labels.append(item.label)
                keys.append((source, sample.image_id, index))
    generator = torch.Generator().manual_seed(0)
    names, crops = len(set(labels)), len(labels)
    text = F.normalize(torch.randn(names, 12, generator=generator), dim=-1)
    image = F.normalize(torch.randn(crops, 12, generator=generator), dim=-1)
    return ConceptBank(text, image, labels=labels, keys=keys)
