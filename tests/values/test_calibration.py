import json
import math

import pytest

from textsam.errors import WeightsError
from textsam.values.calibration import Calibration
from textsam.values.judge import Curve, StrategyCurves

CURVES = StrategyCurves(
    presence=Curve(weights={"peak": 0.5}, bias=-1.25),
    score=Curve(weights={"map": 1.5, "peak": -0.125}, bias=1 / 3),
    min_presence=0.375,
    min_score=0.25,
)
CALIBRATION = Calibration(
    strategies={"auto": CURVES}, fitted_on={"auto": {"model": "tiny", "wörter": [1, 2.5, None]}}
)


def test_a_curve_is_the_logistic_of_its_sum():
    curve = Curve(weights={"a": 2.0, "b": -1.0}, bias=0.5)

    assert curve.probability({"a": 0.0, "b": 0.5}) == 0.5
    assert curve.probability({"a": math.log(3) / 2, "b": 0.5}) == pytest.approx(0.75)
    assert curve.probability({"a": 1.0, "b": 0.5, "other": math.nan}) > 0.5


@pytest.mark.parametrize("value", [1e6, -1e6, math.inf, -math.inf])
def test_a_curve_stays_a_probability_far_out(value):
    said = Curve(weights={"a": 3.0}, bias=0.0).probability({"a": value})

    assert 0 < said <= 1
    assert (said > 0.5) == (value > 0)


@pytest.mark.parametrize("evidence", [{}, {"map": 1.0}, {"peak": math.nan}])
def test_evidence_that_is_missing_is_named(evidence):
    with pytest.raises(ValueError, match="'peak'"):
        CURVES.presence.probability(evidence)


def test_saved_and_loaded_is_the_same(tmp_path):
    path = CALIBRATION.save(tmp_path / "calibration.json")

    assert Calibration.load(path) == CALIBRATION
    assert Calibration.load(Calibration().save(tmp_path / "empty.json")) == Calibration()


def _broken(change):
    content = {
        "format": 1,
        "strategies": {
            "auto": {
                "presence": {"weights": {"peak": 1.0}, "bias": 0.0},
                "score": {"weights": {"map": 1.0}, "bias": 0.0},
                "min_presence": 0.5,
                "min_score": 0.5,
            }
        },
        "fitted_on": {},
    }
    change(content)
    return json.dumps(content)


def _auto(key, value):
    return _broken(lambda content: content["strategies"]["auto"].update({key: value}))


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "\x00", '{"format": 1}', "3"),
        _broken(lambda content: content.update(strategies=[])),
        _broken(lambda content: content.update(fitted_on="words")),
        _broken(lambda content: content["strategies"]["auto"].pop("score")),
        _auto("presence", {"weights": {"peak": "steep"}, "bias": 0}),
        _auto("presence", {"weights": [1.0], "bias": 0}),
        _auto("score", {"weights": {"map": math.nan}, "bias": 0}),
        _auto("min_presence", 1.5),
        _auto("min_score", math.nan),
    ],
)
def test_what_is_no_calibration_is_refused(tmp_path, text):
    path = tmp_path / "calibration.json"
    path.write_text(text)

    with pytest.raises(WeightsError, match=r"is no calibration file.*textsam calibrate"):
        Calibration.load(path)


def test_a_newer_format_says_what_to_type(tmp_path):
    path = tmp_path / "calibration.json"
    path.write_text(_broken(lambda content: content.update(format=2)))

    with pytest.raises(WeightsError, match=r"format 2; this textsam reads 1. Type: pip install -U"):
        Calibration.load(path)


def test_a_file_that_is_missing_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        Calibration.load(tmp_path / "no.json")
