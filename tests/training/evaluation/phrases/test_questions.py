"""What a photo is asked, and the baseline that answers from the map alone."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from textsam.results.segmentation import Segmentation
from textsam.values.rle import encode_mask
from training.data import ObjectMask, Sample
from training.evaluation.phrases.asking import StrategyView, dense_components
from training.evaluation.phrases.questions import (
    Siblings,
    draw_absent,
    ignored_pixels,
    present_phrases,
    questions_of,
)

SIZE = (40, 60)
WORDS = ("wheel", "tyre", "steering wheel", "dog", "cat", "bird", "horse", "cow")


def _box(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def _sample(*objects, exhaustive: bool = True, void=None, image_id: str = "a") -> Sample:
    return Sample(
        image_id=image_id,
        source="test",
        encoded=b"",
        size=SIZE,
        exhaustive=exhaustive,
        void=None if void is None else encode_mask(void),
        objects=tuple(
            ObjectMask(label=label, kind="thing", rle=encode_mask(mask), ignore=bool(rest))
            for label, mask, *rest in objects
        ),
    )


def _siblings() -> Siblings:
    """By the number of the word: neighbours in `WORDS` are near."""
    place = np.arange(len(WORDS))
    return Siblings(WORDS, -np.abs(place[:, None] - place).astype(np.float32))


def _counts() -> dict[str, int]:
    return {"objects without a name": 0, "phrases wholly void": 0, "phrases not single": 0}


def test_half_of_the_absent_phrases_are_the_nearest_ones():
    sample = _sample(("wheel", _box(0, 0, 9, 9)))
    absent = draw_absent(sample, WORDS, _siblings(), count=4, seed=0)

    assert [item.label for item in absent if item.sibling] == ["tyre", "steering wheel"]
    others = [item.label for item in absent if not item.sibling]
    assert len(others) == 2 and set(others) <= {"dog", "cat", "bird", "horse", "cow"}


def test_absent_phrases_are_absent_seeded_and_never_more_than_there_are():
    sample = _sample(("wheel", _box(0, 0, 9, 9)), ("dog", _box(20, 0, 29, 9), "ignore"))
    draws = [
        tuple(item.label for item in draw_absent(sample, WORDS, None, count=3, seed=seed))
        for seed in (0, 0, *range(1, 9))
    ]

    assert draws[0] == draws[1]
    assert len(set(draws)) > 2
    assert not {"wheel", "dog"} & {label for draw in draws for label in draw}
    every = draw_absent(sample, WORDS, _siblings(), count=50, seed=0)
    assert sorted(item.label for item in every) == sorted(set(WORDS) - {"wheel", "dog"})


def test_siblings_are_near_to_any_phrase_and_by_the_models_own_text_tower():
    angles = {"wheel": 0.0, "tyre": 0.1, "dog": 2.0, "puppy": 2.3}
    clip = SimpleNamespace(
        encode_text=lambda names: torch.tensor(
            [[math.cos(angles[n]), math.sin(angles[n])] for n in names]
        )
    )
    siblings = Siblings.from_clip(clip, [*angles, "object"])

    assert siblings.labels == tuple(angles)  # "object" names nothing
    assert siblings.nearest(["wheel"], ["dog", "puppy", "tyre"]) == ["tyre", "dog", "puppy"]
    assert siblings.nearest(["wheel", "dog"], ["tyre", "puppy"]) == ["tyre", "puppy"]
    assert siblings.nearest(["unknown"], ["tyre", "dog"]) == ["dog", "tyre"]
    with pytest.raises(ValueError, match="one for each pair"):
        Siblings(["a", "b"], np.zeros((3, 3), np.float32))


def test_questions_of_photos_that_are_not_exhaustive_have_no_absent_phrase():
    objects = [
        ("wheel", _box(0, 0, 9, 9)),
        ("dog", _box(20, 0, 29, 9)),
        ("dog", _box(40, 0, 49, 9)),
    ]
    options = {"absent": 3, "seed": 0}
    counts = _counts()

    partial = questions_of(
        _sample(*objects, exhaustive=False), WORDS, _siblings(), counts, **options
    )
    whole = questions_of(_sample(*objects), WORDS, _siblings(), _counts(), **options)

    assert [p.label for p in partial.phrases] == ["wheel"]
    assert counts["phrases not single"] == 1
    assert partial.absent == partial.rest == ()
    asked = [p.label for p in whole.phrases] + [a.label for a in whole.absent] + list(whole.rest)
    assert sorted(asked) == sorted(WORDS)
    assert not questions_of(_sample(), WORDS, None, _counts(), **(options | {"absent": 0})).any


def test_pixels_are_ignored_for_the_label_whose_crowd_it_is():
    crowd, void = _box(0, 20, 30, 40), _box(50, 0, 60, 40)
    sample = _sample(("dog", _box(0, 0, 9, 9)), ("dog", crowd, "ignore"), void=void)
    (phrase,) = present_phrases(sample, WORDS, _counts(), seed=0)

    assert (phrase.ignored == (crowd | void)).all()
    assert (ignored_pixels(sample, "cat") == void).all()
    assert (ignored_pixels(sample) == (crowd | void)).all()
    assert (len(phrase.rles), phrase.single) == (1, False)


def test_components_are_the_regions_of_the_map_scored_by_their_mean():
    probability = np.full(SIZE, 0.1, np.float32)
    probability[0:10, 0:10] = 0.6
    probability[10:20, 10:20] = 0.8  # touches it by a corner: one region
    probability[0:20, 40:60] = 0.9
    probability[30:34, 0:4] = 1.0  # 16 pixels: a speck

    found = dense_components(probability, level=0.5)

    assert [int(mask) for mask in (found.scores * 100).round()] == [90, 70]
    assert found.presence == 1.0
    assert found.union.sum() == 400 + 200
    nothing = dense_components(np.full(SIZE, 0.2, np.float32), level=0.5)
    assert (nothing.answered, nothing.scores.shape) == (False, (0,))
    assert nothing.presence == pytest.approx(0.2)


def test_answers_come_best_first_without_empty_masks_and_are_asked_once():
    asked = []

    def segment(*, text, strategy):
        asked.append((text, strategy))
        masks = np.stack([_box(0, 0, 9, 9), np.zeros(SIZE, bool), _box(20, 0, 29, 9)])
        return Segmentation.from_masks(masks, scores=[0.2, 0.9, 0.7], presence={text: 0.8})

    view = SimpleNamespace(size=SIZE, segment=segment)
    auto, prompt = StrategyView(view, "auto"), StrategyView(view, "prompt")

    found = auto.ask("dog")
    assert auto.ask("dog") is found
    assert found.scores == pytest.approx([0.7, 0.2])
    assert found.presence == 0.8
    assert prompt.ask("dog").scores == pytest.approx([0.2])  # its first reading, whatever it scores
    assert asked == [("dog", "auto"), ("dog", "prompt")]
    with pytest.raises(ValueError, match="can be auto, prompt, detect, concept, rank, components"):
        StrategyView(view, "best")
