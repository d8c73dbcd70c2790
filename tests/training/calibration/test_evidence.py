from __future__ import annotations

import logging

import numpy as np
import pytest

from textsam.errors import WeightsError
from textsam.values.calibration import Calibration
from textsam.values.judge import GATES
from training.calibration.choice import CalibrationSet
from training.calibration.evidence import gather, open_gates

LABELS = ("bird", "cat", "cow", "dog")


def _set(*samples, labels=LABELS) -> CalibrationSet:
    return CalibrationSet(name="pets", samples=samples, labels=labels)


def test_every_phrase_is_asked_and_told_from_the_truth(sample, boxes, fake):
    cat, left, right = boxes(0, 0, 20, 20), boxes(30, 0, 40, 20), boxes(45, 0, 55, 20)
    photo = sample(3, {"cat": [cat], "dog": [left, right]})
    shown = {
        "cat": [({"map": 1.0}, cat, None), ({"map": -1.0}, boxes(0, 0, 20, 8), None)],
        "dog": [({"map": 2.0}, left | right, None)],
        "cow": [({"map": 0.5}, boxes(0, 0, 15, 20), None)],
    }
    model = fake(lambda level, phrase: ({"peak": len(phrase) + 0.5}, shown.get(phrase, [])))

    found = gather(model, [_set(photo)], strategies=["auto"], absent=10, seed=0)["auto"]

    by_label = {phrase.label: phrase for phrase in found}
    assert {k: p.present for k, p in by_label.items()} == {
        **{"cat": True, "dog": True},
        **{"bird": False, "cow": False},
    }
    assert {p.objects for p in found if not p.present} == {0}
    assert (by_label["dog"].objects, by_label["dog"].photo) == (2, "photo 3")
    assert by_label["bird"].evidence == {"peak": 4.5}
    whole, part = by_label["cat"].masks
    assert (whole.evidence, part.evidence) == ({"map": 1.0}, {"map": -1.0})
    assert whole.right and part.right  # a part of a cat is cat
    assert [*whole.overlaps, *part.overlaps] == pytest.approx([1.0, 0.4])
    [both] = by_label["dog"].masks
    assert both.right and both.overlaps == pytest.approx([0.5, 0.5])
    [wrong] = by_label["cow"].masks
    assert not wrong.right and wrong.overlaps.shape == (0,)


def test_half_of_the_absent_phrases_are_siblings(sample, boxes, fake):
    labels = tuple(f"{name}{k}" for name in "abcdefg" for k in range(4))
    photos = [sample(k, {labels[k]: [boxes(0, 0, 9, 9)]}) for k in range(3)]
    model = fake(lambda *_: ({"peak": 0.0}, []))

    found = gather(model, [_set(*photos, labels=labels)], strategies=["auto"], absent=6, seed=0)

    absent = [p for p in found["auto"] if not p.present]
    assert len(absent) == 18
    assert sum(p.sibling for p in absent) == 9
    again = gather(model, [_set(*photos, labels=labels)], strategies=["auto"], absent=6, seed=0)
    assert [p.label for p in again["auto"]] == [p.label for p in found["auto"]]


def test_masks_that_geometry_drops_are_no_evidence(sample, boxes, fake):
    cat = boxes(0, 0, 20, 20)
    masks = [({"map": float(k)}, cat, gate) for k, gate in enumerate([None, *GATES])]
    model = fake(lambda level, phrase: ({"peak": 0.0}, masks if phrase == "cat" else []))

    found = gather(model, [_set(sample(0, {"cat": [cat]}))], strategies=["auto"], absent=1, seed=0)[
        "auto"
    ]

    assert [m.evidence["map"] for p in found for m in p.masks] == [0.0]


def test_void_is_neither_right_nor_wrong(sample, boxes, fake):
    cat, void = boxes(0, 0, 20, 20), boxes(20, 0, 60, 40)
    photo = sample(0, {"cat": [cat]}, void=void)
    masks = [({"map": 1.0}, cat | void, None), ({"map": 0.0}, void, None)]
    model = fake(lambda level, phrase: ({"peak": 0.0}, masks if phrase == "cat" else []))

    [cats, *_] = gather(model, [_set(photo)], strategies=["auto"], absent=1, seed=0)["auto"]

    over, inside = cats.masks
    assert over.right and over.overlaps == pytest.approx([1.0])
    assert not over.counted and not inside.counted and not inside.right


def test_each_photo_is_opened_once_for_all_strategies(sample, boxes, fake):
    model = fake(lambda *_: ({"peak": 0.0, "clip": 0.0}, []))
    told: list[tuple[int, int]] = []
    photos = [sample(k, {"cat": [boxes(0, 0, 9, 9)]}) for k in range(3)]

    found = gather(
        model,
        [_set(*photos[:2]), _set(photos[2])],
        strategies=["auto", "rank"],
        absent=2,
        seed=0,
        progress=lambda done, total: told.append((done, total)),
    )

    assert told == [(1, 3), (2, 3), (3, 3)]
    assert [p.label for p in found["auto"]] == [p.label for p in found["rank"]]
    assert len(model.asked) == len(set(model.asked)) == 2 * 3 * 3


def test_a_broken_photo_is_left_out_and_told(sample, boxes, fake, caplog):
    model = fake(lambda *_: ({"peak": 0.0}, []))
    photos = [
        sample(0, {"cat": [boxes(0, 0, 9, 9)]}, encoded=b"no photo"),
        sample(1, {"cat": [boxes(0, 0, 9, 9)]}),
    ]

    with caplog.at_level(logging.WARNING):
        found = gather(model, [_set(*photos)], strategies=["auto"], absent=1, seed=0)["auto"]

    assert {p.photo for p in found} == {"photo 1"}
    assert "left out a photo of pets" in caplog.text


def test_the_model_has_its_own_calibration_back(fake):
    model = fake(None)
    own = model.calibration

    def fail():
        with open_gates(model):
            assert model.calibration != own
            raise WeightsError("whatever happens")

    with pytest.raises(WeightsError, match="whatever happens"):
        fail()

    assert model.calibration is own
    assert model.calibration == Calibration()


def test_open_gates_let_everything_through():
    model = type("Model", (), {"calibration": Calibration()})()
    with open_gates(model):
        for name, evidence in (("auto", {"peak": -30.0, "map": -30.0}), ("rank", {"clip": -30.0})):
            curves = model.calibration.strategies[name]
            assert curves.presence.probability(evidence) >= curves.min_presence
            assert curves.score.probability(evidence) >= curves.min_score
            more = {key: value + 1 for key, value in evidence.items()}
            assert curves.score.probability(more) > curves.score.probability(evidence)
    assert np.isfinite(curves.min_score)


def test_like_asks_by_an_example_of_another_photo(sample, boxes, fake):
    cat, dog = boxes(0, 0, 20, 20), boxes(30, 0, 50, 20)
    photos = [
        sample(0, {"cat": [cat]}),
        sample(1, {"cat": [cat], "dog": [dog]}),
        sample(2, {"bird": [boxes(0, 0, 1, 1)]}),  # a speck is no example
    ]
    model = fake(lambda level, name: ({"peak": 1.0, "clip": 2.0}, [({"clip": 3.0}, cat, None)]))

    found = gather(model, [_set(*photos)], strategies=["like"], absent=10, seed=0)["like"]

    asked = {(phrase.photo, phrase.label, phrase.present) for phrase in found}
    assert asked == {
        ("photo 0", "cat", True),
        ("photo 0", "dog", False),
        ("photo 1", "cat", True),  # its dog has no other photo
        ("photo 2", "cat", False),
        ("photo 2", "dog", False),
    }
    assert {strategy for *_, strategy in model.asked} == {"like"}
    assert all(phrase.evidence == {"peak": 1.0, "clip": 2.0} for phrase in found)
