"""Photos whose labels are known, and a model whose evidence is."""

from __future__ import annotations

import io
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from textsam.values.calibration import Calibration
from textsam.values.judge import Candidate, PhraseAnswer
from textsam.values.rle import encode_mask
from textsam.weights.parts import ModelParts
from training.data import ObjectMask, Sample

SIZE = (40, 60)


def box(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def make_sample(number: int, objects: dict[str, list[np.ndarray]], **options) -> Sample:
    """Photo `number`, a plain grey of that level."""
    file = io.BytesIO()
    Image.new("RGB", SIZE[::-1], (number,) * 3).save(file, "PNG")
    void = options.pop("void", None)
    return Sample(
        image_id=f"photo {number}",
        source="made",
        encoded=options.pop("encoded", file.getvalue()),
        size=SIZE,
        exhaustive=options.pop("exhaustive", True),
        void=None if void is None else encode_mask(void),
        objects=tuple(
            ObjectMask(label=label, kind="thing", rle=encode_mask(mask), ignore=False)
            for label, masks in objects.items()
            for mask in masks
        ),
        **options,
    )


class FakeModel:
    """`answer(level, phrase)` gives the presence evidence and (evidence, mask, gate) triples."""

    name = "fake"
    has_dense_text = True
    map_source = concept_model = detector = None

    def __init__(self, answer):
        self.answer = answer
        self.calibration = Calibration()
        self.asked: list[tuple[int, str, str]] = []
        self.clip = SimpleNamespace(
            encode_text=lambda names: torch.nn.functional.normalize(
                torch.tensor([[len(n), ord(n[0]) % 7, 1.0] for n in names]), dim=1
            )
        )

    @property
    def parts(self):
        return SimpleNamespace(
            require_clip=lambda: ModelParts.require_clip(self),
            require_detector=lambda: ModelParts.require_detector(self),
        )

    def concept(self, shown, unlike=None):
        [[item]] = shown
        return item.label

    @contextmanager
    def open(self, image):
        level = int(image[0, 0, 0])

        def segment(*, text=None, strategy="auto", like=None):
            strategy = strategy if like is None else "like"
            text = text or like
            self.asked.append((level, text, strategy))
            curves = self.calibration.strategies[strategy]  # as the gates were opened
            assert curves.min_presence == curves.min_score == 0
            evidence, masks = self.answer(level, text)
            candidates = tuple(
                Candidate(rle=encode_mask(mask), score=0.5, evidence=own, gate=gate)
                for own, mask, gate in masks
            )
            answer = PhraseAnswer(
                phrase=text, strategy=strategy, evidence=evidence, candidates=candidates
            )
            return SimpleNamespace(answers=(answer,))

        yield SimpleNamespace(segment=segment, size=SIZE)


@pytest.fixture
def boxes():
    return box


@pytest.fixture
def sample():
    return make_sample


@pytest.fixture
def fake():
    return FakeModel
