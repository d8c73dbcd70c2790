"""What an explanation says about a model's answers is what the model does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from textsam.inference.model import TextSAM
from textsam.inference.strategies import map_points as auto
from textsam.inference.view import ImageView
from textsam.results.explanation import LOW_THRESHOLD, Explanation, blind_phrases
from textsam.results.gates import sweep
from textsam.values.judge import closed_gate

PHRASES = ["wheel", "cat", "a red door"]
# Log odds of the places of each phrase's map: sure, likely, doubtful; of the second phrase only a
# doubtful one, of the third none.
PLACES = [(4.0, 0.8, -0.6), (-0.6, -8.0, -8.0), (-8.0, -8.0, -8.0)]


@pytest.fixture
def view(model: TextSAM, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> ImageView:
    """A view whose maps are written by hand, by the phrase's embedding."""
    known: dict[tuple[float, ...], int] = {}

    def written(view: object, embeddings: torch.Tensor) -> torch.Tensor:
        maps = []
        for embedding in embeddings:
            number = known.setdefault(tuple(embedding.tolist()), len(known) % len(PLACES))
            logits = torch.full((8, 8), -8.0)
            for place, value in zip(
                (slice(0, 2), slice(3, 5), slice(6, 8)), PLACES[number], strict=True
            ):
                logits[1:4, place] = value
            maps.append(logits)
        return torch.stack(maps)

    monkeypatch.setattr(auto, "map_logits", written)
    return model.open(photo)


@pytest.mark.parametrize("strategy", ["auto", "prompt", "rank"])
def test_every_strategy_explains_itself(view: ImageView, strategy: str) -> None:
    result = view.segment(text=PHRASES, strategy=strategy)
    why = result.explain()
    assert why.phrases == PHRASES
    for phrase in PHRASES:
        assert (why.gate(phrase) is None) == (phrase in result.labels)
        assert repr(phrase) in why.sentence(phrase)
    kept = [row for row in why.table() if row.mask is not None and row.gate is None]
    assert [row.phrase for row in kept] == result.labels
    assert why.picture().width > 1000
    assert why.to_dict()["phrases"][0]["strategy"] == strategy


def test_an_absent_phrase_is_empty_and_names_the_gate(view: ImageView) -> None:
    result = view.segment(text=PHRASES)
    absent = result["a red door"]
    assert len(absent) == 0
    assert absent.masks.dtype == bool
    assert absent.scores.dtype == absent.boxes.dtype == np.float32
    assert absent.explain().gate("a red door") == "presence"


def test_a_mask_of_a_result_carries_its_photo(view: ImageView) -> None:
    result = view.segment(text="wheel", threshold=LOW_THRESHOLD)
    np.testing.assert_array_equal(result[0].image, view.image)


@pytest.mark.parametrize("strategy", ["auto", "rank"])
def test_the_sweep_counts_what_segment_gives(view: ImageView, strategy: str) -> None:
    """Where it says that it is exact; elsewhere it never promises too much."""
    answers = view.segment(text=PHRASES, strategy=strategy, threshold=0.5).answers
    counted = sweep(answers, [0.12, 0.26, 0.34, 0.45, 0.55, 0.7, 0.9, 0.97])
    assert any(step.exact for step in counted)
    for step in counted:
        given = view.segment(text=PHRASES, strategy=strategy, threshold=step.threshold)
        assert step.masks <= len(given)
        if step.exact:
            assert (step.masks, step.phrases) == (len(given), len(set(given.labels)))


@pytest.mark.parametrize("phrase", PHRASES)
def test_what_is_advised_gives_a_mask(view: ImageView, phrase: str) -> None:
    """Asked so that it is refused, then asked as advised."""
    view.segment(text=PHRASES)  # the maps in their order
    refused = view.segment(text=phrase, threshold=0.995)
    assert len(refused) == 0
    blind = blind_phrases(refused.answers)
    opened = view.segment(text=blind, threshold=LOW_THRESHOLD).answers if blind else ()
    why = Explanation(view.size, refused.answers, image=view.image, opened=opened)
    advice = why.advice(phrase)
    if phrase == "wheel":
        assert 0 < advice["threshold"] < 0.995
        assert len(view.segment(text=phrase, **advice)) > 0
    else:
        assert "threshold" not in advice  # and indeed none that is ever advised helps:
        for threshold in (0.01, 0.1, 0.3):
            assert len(view.segment(text=phrase, threshold=threshold)) == 0


def test_quality_is_read_as_auto_reckons_it(view: ImageView) -> None:
    """A mask that the decoder doubts is back at the threshold that is advised."""
    result = view.segment(text="wheel", threshold=0.1)
    gate, reason = closed_gate(result.answers[0])
    assert gate == "quality"
    threshold = result.explain().advice("wheel")["threshold"]
    assert 0 < threshold < 0.1
    assert float(reason.split()[-3]) == pytest.approx(threshold, abs=0.01)
    assert len(view.segment(text="wheel", threshold=threshold)) == 1
    assert len(view.segment(text="wheel", threshold=threshold + 0.001)) == 0
