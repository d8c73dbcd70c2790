"""Levels of single phrases: what is learnt, from how much, and when not."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from textsam.values.judge import Curve, StrategyCurves
from training.calibration.evidence import MaskEvidence, PhraseEvidence
from training.calibration.phrase_levels import add_levels, count_masks, f1_of, learn_levels

IDENTITY = Curve(weights={"x": 1.0}, bias=0.0)
CURVES = StrategyCurves(presence=IDENTITY, score=IDENTITY, min_presence=0.5, min_score=0.01)


def odds(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def ask(label: str, photo: int, *, present: bool, presence: float) -> PhraseEvidence:
    """One mask, which is the object where there is one."""
    mask = MaskEvidence(
        evidence={"x": odds(0.9)},
        right=present,
        overlaps=np.ones(1) if present else np.zeros(0),
    )
    return PhraseEvidence(
        source="made",
        photo=f"{photo}",
        label=label,
        present=present,
        evidence={"x": odds(presence)},
        objects=int(present),
        masks=(mask,),
    )


def photos_of(label: str, count: int, *, here: float, absent: float) -> list[PhraseEvidence]:
    return [
        ask(label, n, present=n % 2 == 0, presence=here if n % 2 == 0 else absent)
        for n in range(count)
    ]


def test_a_phrase_that_the_model_underrates_gets_a_lower_level() -> None:
    phrases = photos_of("wheel", 40, here=0.3, absent=0.1)
    phrases += photos_of("dog", 40, here=0.9, absent=0.3)
    levels, left_out = learn_levels(phrases, CURVES, key=str)
    assert not left_out
    assert 0.1 < levels["wheel"].min_presence <= 0.3
    assert levels["dog"].min_presence == 0.5  # nothing to gain: the common level stays
    own = StrategyCurves(**{**vars(CURVES), "phrases": levels})
    assert f1_of(count_masks(phrases, CURVES, key=str)) < 0.7
    assert f1_of(count_masks(phrases, own, key=str)) == 1


def test_few_photos_are_outvoted_and_fewer_are_not_heard() -> None:
    # Three photos say that 'wheel' should be lower, very many say that all should stay.
    many = photos_of("dog", 400, here=0.9, absent=0.3)
    few = photos_of("wheel", 6, here=0.3, absent=0.1)
    levels, _ = learn_levels(few + many, CURVES, key=str, prior=1e6)
    assert levels["wheel"].min_presence == 0.5
    levels, _ = learn_levels(few + many, CURVES, key=str, prior=0.1)
    assert levels["wheel"].min_presence <= 0.3
    levels, left_out = learn_levels(few[:4] + many, CURVES, key=str)
    assert "wheel" not in levels
    assert left_out == {"wheel": "2 photos with it and 2 without"}


def test_labels_that_a_model_reads_alike_learn_together() -> None:
    phrases = photos_of("wheel", 4, here=0.3, absent=0.1) + photos_of(
        "Wheels", 4, here=0.3, absent=0.1
    )
    levels, left_out = learn_levels(phrases, CURVES, key=lambda label: label.lower().rstrip("s"))
    assert set(levels) == {"wheel"}
    assert not left_out


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.booleans(), st.floats(0.02, 0.98)),
        min_size=1,
        max_size=30,
    )
)
def test_own_levels_are_never_worse_where_they_were_learnt(rows: list) -> None:  # type: ignore[type-arg]
    """Without a prior; they are probabilities whatever was asked."""
    phrases = [
        ask(label, n, present=present, presence=chance)
        for n, (label, present, chance) in enumerate(rows)
    ]
    levels, left_out = learn_levels(phrases, CURVES, key=str, min_photos=1, prior=0.0)
    assert {*levels, *left_out} == {label for label, _, _ in rows}
    for name, own in levels.items():
        assert 0 < own.min_presence < 1
        assert 0 < own.min_score < 1
        asked = [phrase for phrase in phrases if phrase.label == name]
        learnt = StrategyCurves(**{**vars(CURVES), "phrases": {name: own}})
        before, after = (f1_of(count_masks(asked, each, key=str)) for each in (CURVES, learnt))
        assert after >= before - 0.02  # levels are written with three decimals


def test_figures_are_of_photos_left_out() -> None:
    phrases = photos_of("wheel", 40, here=0.3, absent=0.1)
    phrases += photos_of("dog", 40, here=0.9, absent=0.3)
    curves, facts = add_levels(phrases, CURVES, key=str, fit=lambda rows: CURVES, seed=0)
    assert set(curves.phrases) == {"wheel", "dog"}
    assert facts["left_out"] == {}
    assert facts["f1_common"] < 0.7
    assert facts["f1_own"] == 1
