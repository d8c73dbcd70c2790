"""The level of the map, and the curves, are chosen where the truth says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from textsam.values.rle import encode_mask
from textsam.values.settings import TextSettings
from training.data import ObjectMask, Sample
from training.recipes.tiny import thresholds
from training.recipes.tiny.lexicon import Lexicon
from training.recipes.tiny.thresholds import choose_calibration, choose_settings


def _half(left: bool) -> np.ndarray:
    mask = np.zeros((32, 32), bool)
    mask[8:24, :16] = left
    mask[8:24, 16:] = not left
    return mask


def _sample(label: str, mask: np.ndarray, *, exhaustive: bool = True) -> Sample:
    thing = ObjectMask(label=label, kind="thing", rle=encode_mask(mask), ignore=False)
    return Sample(
        image_id="x",
        source="",
        encoded=b"",
        size=(32, 32),
        exhaustive=exhaustive,
        void=None,
        objects=(thing,),
    )


class _KnownMaps:
    """Probability 0.62 on the named half, a 0.43 rim beside it, 0.3 everywhere for a cat."""

    text_settings = TextSettings(points=3)

    def open(self, encoded: bytes) -> _KnownMaps:
        return self

    def text_map(self, phrase: str) -> np.ndarray:
        values = np.full((32, 32), 0.05, np.float32)
        if phrase == "dog":
            values[8:24, 16:20] = 0.43
            values[8:24, :16] = 0.62
        else:
            values[:] = 0.3
        return values


def test_the_level_parts_the_thing_from_its_rim() -> None:
    samples = {"made": [*[_sample("dog", _half(True))] * 3, _sample("cat", _half(False))]}

    settings, figures = choose_settings(_KnownMaps(), samples, photos=4, seed=1)  # type: ignore[arg-type]

    assert 0.43 < settings.threshold <= 0.62
    plain = replace(settings, threshold=0.0, exclusion_margin=0.0)
    assert plain == TextSettings(points=3, threshold=0.0)
    assert settings.exclusion_margin > 0
    assert figures["union_iou"] == pytest.approx(3 / 4)  # all of the dogs, nothing of the cat


def test_photos_that_are_not_exhaustive_decide_nothing() -> None:
    samples = {"made": [_sample("dog", _half(True), exhaustive=False)]}

    with pytest.raises(ValueError, match="none of the photos of"):
        choose_settings(_KnownMaps(), samples, photos=4, seed=1)  # type: ignore[arg-type]


def test_curves_are_fitted_on_names_that_are_certainly_absent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, dict[str, set[str]]] = {}
    passed = {}

    def calibrate(model, sets, *, strategies, config, kept):
        for item in sets:
            names = asked.setdefault(item.name, {})
            for sample in item.samples:
                names.setdefault(sample.objects[0].label, set()).update(item.vocabulary(sample))
        [strategy] = strategies
        passed[strategy] = (config.recall, config.keep, config.photos)
        return replace(kept, fitted_on={**kept.fitted_on, strategy: {}})

    monkeypatch.setattr(thresholds, "calibrate", calibrate)
    labels = {
        "voc": ("dog", "person"),
        "clothing": ("shirt", "blouse", "shoes"),
        "coco_person": ("person",),
        "people": ("helmet",),  # more people than are annotated
    }
    samples = {
        name: [_sample(label, _half(True), exhaustive=name != "people") for label in those] * 4
        for name, those in labels.items()
    }
    words = Lexicon(label for those in labels.values() for label in those)

    chosen = choose_calibration(_KnownMaps(), samples, words=words, photos=4, seed=0)  # type: ignore[arg-type]

    assert set(asked) == {"voc", "clothing"}
    assert asked["voc"] == {"dog": {"person"}, "person": {"dog"}}
    for label, names in asked["clothing"].items():
        assert not words.related(label) & names  # a blouse is a shirt to some
    # Each fit keeps the curves of those before.
    assert set(chosen.fitted_on) == {"auto", "like", "everything"}
    wanted = {"auto": (0.91, 0.99, 4), "like": (0.85, 0.97, 4), "everything": (0.98, None, 4)}
    assert passed == wanted
