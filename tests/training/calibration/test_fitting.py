from __future__ import annotations

import zlib

import numpy as np
import pytest

from tests.modeling.huggingface.hub_folders import write_sam3
from textsam.errors import WeightsError
from textsam.inference.model import TextSAM
from textsam.values.calibration import Calibration
from textsam.values.judge import Curve, StrategyCurves
from training.calibration import (
    CalibrationConfig,
    calibrate,
    check_strategies,
    choose_photos,
    default_strategies,
)

LABELS = ("cat", "dog", "bird", "cow")
OLD = StrategyCurves(
    presence=Curve(weights={"clip": 1.0}, bias=0.0), score=Curve(weights={"clip": 2.0}, bias=0.0)
)


@pytest.fixture
def photos(sample, boxes):
    return [
        sample(
            k, {LABELS[k % 4]: [boxes(0, 0, 20, 20)], LABELS[(k + 1) % 4]: [boxes(30, 0, 50, 20)]}
        )
        for k in range(24)
    ]


def _model(fake, boxes):
    """Sees what is there, with noise; and a wrong mask now and then."""

    def answer(level, phrase):
        rng = np.random.default_rng(zlib.crc32(f"{level} {phrase}".encode()))
        first, second = LABELS[level % 4], LABELS[(level + 1) % 4]
        peak = float(rng.normal(1.5 if phrase in (first, second) else -1.5))
        own = {first: boxes(0, 0, 20, 20), second: boxes(30, 0, 50, 20)}.get(phrase)
        masks = [({"map": float(rng.normal(-1))}, boxes(0, 25, 20, 40), None)]
        if own is not None:
            masks.append(({"map": float(rng.normal(1))}, own, None))
        return {"peak": peak}, masks

    return fake(answer)


def _calibrate(model, photos, **options):
    config = CalibrationConfig(photos=24, absent=2, **options)
    sets = [choose_photos(photos, name="pets", photos=24, seed=0)]
    return calibrate(model, sets, config=config)


def test_a_model_gets_curves_that_tell_right_from_wrong(photos, boxes, fake, tmp_path):
    model = _model(fake, boxes)

    fitted = _calibrate(model, photos)

    curves = fitted.strategies["auto"]
    assert curves.presence.weights["peak"] > 0.5
    assert curves.score.weights["map"] > 0.5
    assert model.calibration == Calibration()
    told = fitted.fitted_on["auto"]
    assert (told["model"], told["photos"], told["absent"]) == ("fake", 24, 2)
    assert told["sets"] == {"pets": 24}
    assert told["figures"]["all"]["presence_ece"] < 0.15
    assert told["figures"]["all"]["recall"] > 0.8
    assert Calibration.load(fitted.save(tmp_path / "calibration.json")) == fitted


def test_the_same_seed_gives_the_same_file(photos, boxes, fake):
    assert _calibrate(_model(fake, boxes), photos) == _calibrate(_model(fake, boxes), photos)


def test_more_recall_lowers_the_level(photos, boxes, fake):
    levels = [
        _calibrate(_model(fake, boxes), photos, recall=recall).strategies["auto"].min_presence
        for recall in (0.5, 0.8, 0.97)
    ]

    assert levels == sorted(levels, reverse=True)
    assert levels[0] > levels[-1]


def test_curves_of_other_strategies_are_kept(photos, boxes, fake):
    model = _model(fake, boxes)
    model.calibration = Calibration(strategies={"rank": OLD, "auto": OLD}, fitted_on={"rank": 1})

    fitted = _calibrate(model, photos)

    assert fitted.strategies["rank"] == OLD
    assert fitted.strategies["auto"] != OLD
    assert fitted.fitted_on["rank"] == 1


def test_what_cannot_be_calibrated_says_so(photos, boxes, fake):
    model = _model(fake, boxes)
    assert default_strategies(model) == ("auto",)
    assert check_strategies(["rank", "auto", "rank"]) == ("rank", "auto")
    with pytest.raises(ValueError, match="'prompt' cannot be calibrated; those that can are auto"):
        check_strategies(["prompt"])
    model.has_dense_text = False
    assert default_strategies(model) == ("rank",)
    with pytest.raises(ValueError, match=r"its auto is rank. Calibrate rank"):
        calibrate(model, [], strategies=["auto"])
    model.clip = None
    with pytest.raises(WeightsError, match="it has no CLIP"):
        calibrate(model, [])


def test_a_detector_is_calibrated_without_a_clip(photos, boxes, fake):
    model = _model(fake, boxes)
    model.has_dense_text, model.clip = False, None
    with pytest.raises(WeightsError, match="has no detector"):
        calibrate(model, [], strategies=["detect"])
    model.detector = object()
    assert default_strategies(model) == ("detect",)

    fitted = _calibrate(model, photos)

    assert {strategy for _, _, strategy in model.asked} == {"detect"}
    assert fitted.strategies["detect"].presence.weights["peak"] > 0.5
    assert fitted.fitted_on["detect"]["figures"]["all"]["recall"] > 0.8


def test_a_sam_3_is_calibrated(photos, tmp_path):
    """Its scores of random weights say nothing; the curves are of its own evidence all the same."""
    model = TextSAM.from_pretrained(write_sam3(tmp_path), local_files_only=True)
    sets = [choose_photos(photos, name="pets", photos=6, seed=0)]
    fitted = calibrate(model, sets, config=CalibrationConfig(photos=6, absent=2))
    curves = fitted.strategies["concept"]
    assert (set(curves.presence.weights), set(curves.score.weights)) == ({"presence"}, {"score"})
    model.calibration = fitted
    [answer] = model.segment(photos[0].image(), text="cat").answers
    assert answer.levels.presence == curves.min_presence
    assert answer.presence == curves.presence.probability(answer.evidence)


@pytest.mark.parametrize("options", [{"photos": 0}, {"absent": 0}, {"recall": 1.0}, {"recall": 0}])
def test_settings_without_a_meaning_are_refused(options):
    with pytest.raises(ValueError, match=r"wanted at least 1|between 0 and 1"):
        CalibrationConfig(**options)
