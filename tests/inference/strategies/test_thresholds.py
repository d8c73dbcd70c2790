"""`threshold={"wheel": 0.3}`: levels of single phrases, typed or learnt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from textsam.batch.folders import segment_folder
from textsam.errors import PromptError
from textsam.inference.model import TextSAM
from textsam.inference.strategies.query import make_query
from textsam.results.gates import sentence
from textsam.values.calibration import Calibration
from textsam.values.judge import (
    Candidate,
    Curve,
    Levels,
    PhraseAnswer,
    PhraseLevels,
    StrategyCurves,
)
from textsam.values.rle import encode_mask
from textsam.values.settings import AUTOMATIC_PRESETS, AutomaticSettings

from ..conftest import build_model

Photo = NDArray[np.uint8]
CURVES = StrategyCurves(
    presence=Curve(weights={}, bias=0.0),
    score=Curve(weights={}, bias=0.0),
    min_presence=0.2,
    min_score=0.2,
)


@pytest.fixture(autouse=True)
def _loose(monkeypatch: pytest.MonkeyPatch) -> None:
    loose = AutomaticSettings(
        points_per_side=2, pred_iou_thresh=-99.0, stability_score_thresh=0.0, box_nms_thresh=1.0
    )
    monkeypatch.setitem(AUTOMATIC_PRESETS, "fast", loose)


@pytest.fixture
def model() -> TextSAM:
    model = build_model()
    model.calibration = Calibration(strategies={"auto": CURVES, "rank": CURVES})
    return model


@pytest.mark.parametrize("strategy", ["auto", "rank"])
def test_each_phrase_as_if_it_were_asked_alone(model: TextSAM, photo: Photo, strategy: str) -> None:
    view = model.open(photo)
    both = view.segment(text=["cat", "dog"], threshold={"dog": 0.7}, strategy=strategy)  # type: ignore[arg-type]
    cat = view.segment(text="cat", strategy=strategy)  # type: ignore[arg-type]
    dog = view.segment(text="dog", threshold=0.7, strategy=strategy)  # type: ignore[arg-type]
    assert [a.levels for a in both.answers] == [cat.answers[0].levels, dog.answers[0].levels]
    assert both["cat"].rles == cat.rles
    assert both["dog"].rles == dog.rles


def test_phrases_that_the_model_reads_alike_match(model: TextSAM, photo: Photo) -> None:
    assert model.clip is not None
    model.clip.aliases = {"dogs": "dog"}
    [answer] = model.segment(photo, text="The  Dogs", threshold={"dog.": 0.7}).answers
    assert answer.levels.threshold == 0.7
    [answer] = model.segment(photo, text="dogs", threshold={"dogs": 0.6, "dog": 0.7}).answers
    assert answer.levels.threshold == 0.6  # the exact words win


def test_a_phrase_with_a_colour_has_its_own(model: TextSAM, photo: Photo) -> None:
    model.text_settings = replace(model.text_settings, measure_colours=True)
    asked = {"red car": 0.7, "car": 0.6}
    answers = model.segment(photo, text=["car", "red car", "blue car"], threshold=asked).answers
    assert [answer.levels.threshold for answer in answers] == [0.6, 0.7, None]


def test_a_threshold_of_another_phrase_is_an_error(
    model: TextSAM, photo: Photo, tmp_path: Path
) -> None:
    with pytest.raises(PromptError, match=r"names 'bird', and the phrases are 'cat', 'dog'"):
        model.segment(photo, text=["cat", "dog"], threshold={"bird": 0.5})
    np.save(tmp_path / "x.npy", photo)
    with pytest.raises(PromptError, match="'bird'"):  # at once, not for each photo
        segment_folder(model, tmp_path, tmp_path / "o", text="cat", threshold={"bird": 0.5})


@pytest.mark.parametrize(
    "threshold",
    ["0.5", True, 0, 1, 1.5, [0.3], {"cat": "0.5"}, {"cat": 2}, {1: 0.5}, {"": 0.5}, object()],
)
def test_what_is_no_threshold(threshold: object) -> None:
    with pytest.raises(PromptError, match="threshold"):
        make_query(text="cat", threshold=threshold)  # type: ignore[arg-type]


def test_by_phrase_needs_phrases() -> None:
    with pytest.raises(PromptError, match="goes with text"):
        make_query(box=(0, 0, 5, 5), threshold={"cat": 0.5})
    assert make_query(text="cat", threshold={}).threshold is None
    assert make_query(text="cat", threshold=np.float32(0.5)).threshold == 0.5


def test_learnt_levels_are_used_and_said(model: TextSAM, photo: Photo, tmp_path: Path) -> None:
    own = PhraseLevels(min_presence=0.9, min_score=0.3)
    curves = replace(CURVES, phrases={"dog": own})
    file = Calibration(strategies={"auto": curves}).save(tmp_path / "calibration.json")
    model.calibration = Calibration.load(file)
    view = model.open(photo)
    why = view.explain(["cat", "a dog"])
    cat, dog = (answer.levels for answer in why.answers)
    assert (cat.min_presence, cat.min_score, cat.own) == (0.2, 0.2, False)
    assert (dog.min_presence, dog.min_score, dog.own) == (0.9, 0.3, True)
    assert why.gate("a dog") == "presence"
    assert [phrase["own_levels"] for phrase in why.to_dict()["phrases"]] == [False, True]
    # A threshold takes their place, as it does that of the common ones.
    [answer] = view.segment(text="dog", threshold=0.4).answers
    assert answer.levels.min_presence == 0.4
    assert view.label_map(["cat", "dog"], threshold={"dog": 0.99}).labels.max() <= 1


def test_a_sentence_names_levels_that_are_not_the_common_ones() -> None:
    rle = encode_mask(np.ones((2, 2), bool))
    answer = PhraseAnswer(
        phrase="dog",
        strategy="auto",
        presence=0.8,
        levels=Levels(presence=0.3, score=0.2, own=True),
        candidates=(Candidate(rle=rle, score=0.9),),
    )
    assert (
        sentence(answer) == "'dog': 1 mask, presence 0.80 (the phrase's own levels 0.30 and 0.20)"
    )
    typed = replace(answer, levels=replace(answer.levels, threshold=0.5))
    assert sentence(typed) == "'dog': 1 mask, presence 0.80 (threshold 0.50)"
    common = replace(answer, levels=replace(answer.levels, own=False))
    assert sentence(common) == "'dog': 1 mask, presence 0.80"


def test_files_without_levels_by_phrase_stay_as_they_were(tmp_path: Path) -> None:
    file = Calibration(strategies={"auto": CURVES}).save(tmp_path / "calibration.json")
    assert '"phrase' not in file.read_text()
    assert Calibration.load(file).strategies["auto"] == CURVES
