from __future__ import annotations

import logging

import numpy as np
import pytest

from textsam.values.judge import Curve
from training.calibration.curves import fit_curves, judge, measure_curves
from training.calibration.evidence import MaskEvidence, PhraseEvidence
from training.evaluation.figures.probabilities import Claim, calibration_error


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def _asked(count: int, seed: int = 0, **extra) -> list[PhraseEvidence]:
    """Phrases that obey known curves: presence 2 peak - 1; a mask's, 3 map + 1."""
    rng = np.random.default_rng(seed)
    phrases = []
    for index in range(count):
        peak = float(rng.normal(0, 1.5))
        present = bool(rng.random() < _sigmoid(2 * peak - 1))
        masks = []
        for k in range(2):
            value = float(rng.normal(0.3 if present else -1.5))
            right = present and bool(rng.random() < _sigmoid(3 * value + 1))
            overlaps = np.zeros(2 if present else 0)
            if right:
                overlaps[k] = 0.8
            masks.append(
                MaskEvidence(evidence={"map": value, **extra}, right=right, overlaps=overlaps)
            )
        phrases.append(
            PhraseEvidence(
                source=("one", "two")[index % 2],
                photo=f"{index // 6}",
                label=f"{index}",
                present=present,
                sibling=not present and index % 3 == 0,
                evidence={"peak": peak, **extra},
                objects=2 if present else 0,
                masks=tuple(masks),
            )
        )
    return phrases


@pytest.fixture(scope="module")
def many() -> list[PhraseEvidence]:
    return _asked(4000)


def test_the_curves_are_found_again(many):
    curves = fit_curves(many, recall=0.9)

    assert curves.presence.weights["peak"] == pytest.approx(2, rel=0.1)
    assert curves.presence.bias == pytest.approx(-1, abs=0.15)
    there = [curves.presence.probability(p.evidence) for p in many if p.present]
    assert np.mean(np.array(there) >= curves.min_presence) == pytest.approx(0.9, abs=0.01)
    assert 0 < curves.min_score < 1


def test_on_photos_left_out_they_mean_what_they_say(many):
    figures = measure_curves(many, recall=0.9, seed=0)

    assert set(figures) == {"all", "one", "two"}
    for values in figures.values():
        assert values["presence_ece"] < 0.05
        assert values["score_ece"] < 0.05
        assert values["recall"] == pytest.approx(0.9, abs=0.03)
    whole = figures["all"]
    assert whole["present"] + whole["absent"] == 4000
    assert whole["photos"] == sum(figures[name]["photos"] for name in ("one", "two"))
    assert whole["auroc"] > 0.85


def test_the_score_is_meant_for_phrases_that_pass():
    """Hundreds of absent phrases with wrong masks, all below the level, do not make right ones
    look doubtful."""
    few = _asked(600, seed=1)
    silent = [
        PhraseEvidence(
            source="one",
            photo=f"silent {k}",
            label="x",
            present=False,
            evidence={"peak": -9.0 - k / 600},
            masks=(MaskEvidence(evidence={"map": 0.5}, right=False, overlaps=np.zeros(0)),),
        )
        for k in range(600)
    ]
    curves = fit_curves([*few, *silent], recall=0.9)

    passed = [p for p in few if curves.presence.probability(p.evidence) >= curves.min_presence]
    claims = [
        Claim(probability=curves.score.probability(m.evidence), true=m.right)
        for p in passed
        for m in p.masks
    ]
    assert calibration_error(claims) < 0.08
    assert curves.score.probability({"map": 0.5}) > 0.7


def test_masks_on_void_are_no_cases(many):
    void = [
        PhraseEvidence(
            source="one",
            photo=p.photo,
            label=p.label,
            present=p.present,
            evidence=p.evidence,
            objects=p.objects,
            masks=(
                *p.masks,
                MaskEvidence(
                    evidence={"map": 9.0}, right=False, overlaps=np.zeros(p.objects), counted=False
                ),
            ),
        )
        for p in many[:500]
    ]

    assert fit_curves(void, recall=0.9).score == fit_curves(many[:500], recall=0.9).score


def test_figures_of_a_known_answer():
    """Two phrases there (one passes), three not (one passes): every share by hand."""
    curves = type(fit_curves(_asked(200), recall=0.9))(
        presence=Curve(weights={"peak": 1.0}, bias=0.0),
        score=Curve(weights={"map": 1.0}, bias=0.0),
        min_presence=0.5,
        min_score=0.5,
    )

    def phrase(peak, objects, *masks, sibling=False):
        return PhraseEvidence(
            source="s",
            photo=f"{peak}",
            label="x",
            present=objects > 0,
            sibling=sibling,
            evidence={"peak": peak},
            objects=objects,
            masks=tuple(
                MaskEvidence(evidence={"map": m}, right=right, overlaps=np.array(overlaps))
                for m, right, overlaps in masks
            ),
        )

    phrases = [
        phrase(1.0, 2, (2.0, True, [0.9, 0.0]), (1.0, True, [0.3, 0.0]), (-1.0, False, [0, 0.9])),
        phrase(-1.0, 1, (2.0, True, [0.9])),
        phrase(2.0, 0, (1.0, False, [])),
        phrase(-2.0, 0, sibling=True),
        phrase(-3.0, 0),
    ]

    figures = judge([(p, curves) for p in phrases])

    assert (figures["photos"], figures["present"], figures["absent"]) == (5, 2, 3)
    assert figures["recall"] == 0.5
    assert figures["absent_empty"] == pytest.approx(2 / 3)
    assert figures["siblings_empty"] == 1.0
    assert figures["auroc"] == pytest.approx(4 / 6)
    assert (figures["masks"], figures["right"]) == (3, pytest.approx(2 / 3))
    assert figures["instance_recall"] == pytest.approx(1 / 3)
    assert figures["instance_precision"] == 0.5


def test_evidence_that_some_lack_is_left_out_with_a_warning(many, caplog):
    some = [*many[:300]]
    some[7] = PhraseEvidence(
        source="one",
        photo="7",
        label="x",
        present=True,
        evidence={**some[7].evidence, "rare": 1.0},
        objects=0,
    )
    with caplog.at_level(logging.WARNING):
        curves = fit_curves(some, recall=0.9)

    assert set(curves.presence.weights) == {"peak"}
    assert "presence: evidence ['rare'] is missing in some cases" in caplog.text


def test_where_there_was_nothing_to_look_at_the_answer_is_nothing(many):
    blank = PhraseEvidence(source="one", photo="0", label="x", present=True, evidence={}, objects=1)
    some = many[:400]

    with_blanks = fit_curves([*some, *[blank] * 10], recall=0.9)

    assert with_blanks.presence == fit_curves(some, recall=0.9).presence
    assert with_blanks.min_presence < fit_curves(some, recall=0.9).min_presence
    figures = judge([(blank, with_blanks)])
    assert (figures["recall"], figures["instance_recall"]) == (0.0, 0.0)


def test_further_evidence_that_says_nothing_weighs_nothing():
    curves = fit_curves(_asked(400, other=3.0), recall=0.9)

    assert curves.presence.weights["other"] == 0
    assert curves.score.weights["other"] == 0


def test_too_little_to_fit_on_says_what_is_missing(many):
    present = [p for p in many if p.present]
    with pytest.raises(ValueError, match="20 phrases were asked, 20 of them are in their photo"):
        fit_curves(present[:20], recall=0.9)
    silent = [
        PhraseEvidence(
            source="s", photo=p.photo, label=p.label, present=p.present, evidence=p.evidence
        )
        for p in many[:50]
    ]
    with pytest.raises(ValueError, match="no mask was proposed for any of the"):
        fit_curves(silent, recall=0.9)
    with pytest.raises(ValueError, match="no evidence that all"):
        fit_curves(
            [
                PhraseEvidence(source="s", photo="p", label="x", present=p.present, evidence={})
                for p in many[:50]
            ],
            recall=0.9,
        )
    with pytest.raises(ValueError, match="got 2 photos; wanted at least 5"):
        measure_curves([p for p in many if p.photo == "0"], recall=0.9, seed=0)


def test_a_share_of_matched_masks_can_be_kept(many):
    strict = fit_curves(many, recall=0.9)
    loose = fit_curves(many, recall=0.9, keep=0.99)
    tight = fit_curves(many, recall=0.9, keep=0.3)
    assert loose.score == strict.score == tight.score
    assert loose.min_score < tight.min_score
