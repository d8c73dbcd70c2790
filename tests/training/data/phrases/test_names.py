"""Names that a photo is asked for: there, or certainly not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from textsam.values.rle import RLE, encode_mask
from training.data import ObjectMask, Sample
from training.data.phrases.names import NameConfig, NameDraw
from training.recipes.tiny.stage_settings import JOINT_STAGES


def _sample(labels: list[str], *, exhaustive: bool = True) -> Sample:
    rle: RLE = encode_mask(np.ones((8, 8), bool))
    objects = tuple(ObjectMask(label=n, kind="thing", rle=rle, ignore=False) for n in labels)
    return Sample(
        image_id="x",
        source="",
        encoded=b"",
        size=(8, 8),
        exhaustive=exhaustive,
        void=None,
        objects=objects,
    )


def test_absent_names_are_never_names_that_may_be_there() -> None:
    """By the rules of `tiny`'s sources."""
    samples = {
        "voc": [_sample(["car", "person"]), _sample(["dog"])],
        "car_parts": [_sample(["wheel", "hood"])],
        "clothing": [_sample(["hat", "skirt"])],
        "coco_person": [_sample(["person"], exhaustive=False)],
    }
    bank: Any = SimpleNamespace(
        index={o.label: 0 for r in samples.values() for s in r for o in s.objects}
    )
    names = JOINT_STAGES["joint"].phrases.names
    assert names is not None
    draw = NameDraw(bank, samples, config=NameConfig(rules=names.rules))
    rng = np.random.default_rng(0)

    def absent(source: str, row: int) -> set[str]:
        item: Any = SimpleNamespace(source=source, sample=samples[source][row], labels=())
        return {name for _ in range(200) for name in draw.absent_names(item, rng)}

    asked = {
        "street": absent("voc", 0),
        "dog": absent("voc", 1),
        "parts": absent("car_parts", 0),
        "person": absent("coco_person", 0),
    }
    assert asked["street"] == {"dog"}  # a car may have wheels, a person a hat
    assert asked["dog"] == {"car", "person", "wheel", "hood", "hat", "skirt"}
    assert "car" not in asked["parts"] and "dog" in asked["parts"]
    assert asked["person"] == set()
