"""`auto` and `prompt` on a random model whose map is written by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from textsam.errors import PromptError, WeightsError
from textsam.inference import dialogue
from textsam.inference.model import TextSAM
from textsam.inference.photo.encoded import EncodedPhoto
from textsam.inference.photo.prediction import (
    MaskLogits,
    Prediction,
    connected_components,
    nearest_mask,
)
from textsam.inference.photo.zoom import WindowCache
from textsam.inference.strategies import map_points as auto
from textsam.inference.strategies import regions, semantic
from textsam.inference.strategies.regions import find_regions, tidied
from textsam.values.calibration import Calibration
from textsam.values.judge import Curve, StrategyCurves
from textsam.values.prompts import Prompt
from textsam.values.settings import TextSettings

Photo = NDArray[np.uint8]


def _write_map(monkeypatch: pytest.MonkeyPatch, regions: list[tuple[slice, slice]]) -> None:
    """A dense map (8 x 8 cells) that is sure inside the regions and sure outside."""
    logits = torch.full((8, 8), -8.0)
    for region in regions:
        logits[region] = 8.0
    _set_maps(monkeypatch, lambda number: logits)


def _set_maps(monkeypatch: pytest.MonkeyPatch, of: Callable[[int], torch.Tensor]) -> None:
    """The map of the n-th embedding that is asked at once."""

    def fake(view: object, embeddings: torch.Tensor) -> torch.Tensor:
        return torch.stack([of(number) for number in range(len(embeddings))])

    monkeypatch.setattr(auto, "map_logits", fake)


def test_an_empty_map_gives_an_empty_result_of_the_same_type(
    model: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_map(monkeypatch, [])
    result = model.open(photo).segment(text=["dog", "cat"])
    assert len(result) == 0
    assert result.masks.shape == (0, 50, 90)
    assert result.scores.shape == (0,)
    assert set(result.presence) == {"dog", "cat"}
    assert max(result.presence.values()) < 0.01


def test_each_region_gets_its_own_point(
    model: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_map(monkeypatch, [(slice(0, 3), slice(0, 3)), (slice(1, 4), slice(5, 8))])
    view = model.open(photo)
    seen: list[torch.Tensor] = []
    decode = model.sam.decode_prepared

    def spy(image, prompts):  # type: ignore[no-untyped-def]
        seen.append(prompts.points[:, 0])
        return decode(image, prompts)

    monkeypatch.setattr(model.sam, "decode_prepared", spy)
    view.segment(text="dog")
    points = seen[0]
    left = points[points[:, 0] < 32]
    right = points[points[:, 0] >= 32]
    assert len(left) and len(right)
    assert (left < 26).all()  # cells of 8 px in a frame of 64
    assert (right[:, 0] >= 38).all() and (right[:, 1] >= 6).all() and (right[:, 1] < 34).all()


def test_regions_in_the_padding_are_not_proposed(
    model: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 50 x 90 fills the upper 36 of 64 rows.
    _write_map(monkeypatch, [(slice(6, 8), slice(0, 8))])
    assert len(model.open(photo).segment(text="dog")) == 0


def test_a_wide_region_is_asked_at_several_points(
    model: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_map(monkeypatch, [(slice(0, 4), slice(0, 8))])
    result = model.open(photo).segment(text="dog", threshold=0.01)
    points = {c.point for answer in result.answers for c in answer.candidates}
    assert len(points) > 1
    for x, y in points:
        assert 0 <= x <= 90 and 0 <= y <= 50


def test_threshold_closes_and_opens(
    model: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = torch.full((8, 8), -4.0)
    logits[1:4, 1:5] = 0.4  # probability 0.6, and presence likewise
    _set_maps(monkeypatch, lambda number: logits)
    view = model.open(photo)
    calls: list[int] = []
    decode = model.sam.decode_prepared
    monkeypatch.setattr(
        model.sam, "decode_prepared", lambda i, p: calls.append(len(p)) or decode(i, p)
    )
    closed = view.segment(text="dog", threshold=0.9)
    assert calls == [] and len(closed) == 0
    assert closed.answers[0].gate == "presence"
    assert closed.presence["dog"] == pytest.approx(0.6, abs=0.02)
    view.segment(text="dog", threshold=0.3)
    assert calls[0] == 1  # one region


def test_the_calibration_decides_by_default(
    model: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_map(monkeypatch, [(slice(0, 3), slice(0, 3))])
    never = Curve(weights={"peak": 0.0}, bias=-2.0)
    curves = StrategyCurves(presence=never, score=never, min_presence=0.5, min_score=0.5)
    monkeypatch.setattr(model, "calibration", Calibration(strategies={"auto": curves}))
    result = model.open(photo).segment(text="dog")
    assert len(result) == 0
    assert result.presence["dog"] == pytest.approx(1 / (1 + np.exp(2)))


def test_what_is_excluded_wins_its_places(
    model: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = torch.full((8, 8), -8.0), torch.full((8, 8), -8.0)
    own[1:4, 1:7] = 4.0
    other[1:4, 4:7] = 7.0
    _set_maps(monkeypatch, lambda number: (own, other)[number % 2])
    view = model.open(photo)
    before = view.segment(text="wheel", threshold=0.05)
    after = view.segment(text="wheel", exclude="steering wheel", threshold=0.05)
    [answer] = after.answers
    assert answer.similarity is not None
    assert answer.similarity[2, 2] > 0.9 and answer.similarity[2, 5] < 0.1
    right = np.zeros((50, 90), bool)
    right[14:40, 52:90] = True  # well inside the excluded half
    assert not (after.mask & right).any()
    assert before.answers[0].similarity[2, 5] > 0.9  # type: ignore[index]


def test_a_margin_excludes_what_is_nearly_the_other(
    model: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = torch.full((8, 8), -8.0), torch.full((8, 8), -8.0)
    own[1:4, 1:7] = 4.0
    other[1:4, 4:7] = 3.0  # loses, but not by much
    _set_maps(monkeypatch, lambda number: (own, other)[number % 2])
    right = np.zeros((50, 90), bool)
    right[14:40, 52:80] = True  # well inside what is nearly the other
    size, painted = model.sam.config.mask_size, {}
    whole = lambda _, p: (torch.full((len(p), 4, size, size), 5.0), torch.ones(len(p), 4))  # noqa: E731
    monkeypatch.setattr(regions, "decode", whole)
    for margin in (0.0, 2.0):
        settings = TextSettings(exclusion_margin=margin)
        monkeypatch.setattr(model, "text_settings", settings)
        view = model.open(photo)
        found = view.segment(text="wheel", exclude="steering wheel", threshold=0.05)
        painted[margin] = int((found.mask & right).sum())
    assert painted[0.0] > painted[2.0] == 0


def test_nothing_is_left_when_all_of_it_is_excluded(
    model: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = torch.full((8, 8), -8.0)
    own[1:4, 1:4] = 4.0
    _set_maps(monkeypatch, lambda number: own + 6 * number)
    result = model.open(photo).segment(text="wheel", exclude="tyre")
    assert len(result) == 0
    assert result.answers[0].gate == "exclusion"
    result = model.open(photo).segment(text="wheel", background="tyre")
    assert result.answers[0].gate == "background"
    # Of both, the one that closed it is named: here the third map, the background's.
    nowhere = torch.full((8, 8), -8.0)
    _set_maps(monkeypatch, lambda number: (own, nowhere, own + 6)[number])
    result = model.open(photo).segment(text="wheel", exclude="hub", background="tyre")
    assert result.answers[0].gate == "background"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "best"}, "wanted one of 'auto', 'prompt', 'detect', 'concept', 'rank'"),
        ({"overlap": "none"}, "wanted one of 'allow', 'exclusive'"),
        ({"threshold": 1.0}, "between 0 and 1"),
        ({"exclude": "dog"}, "in text and in exclude"),
        ({"exclude": "cat", "strategy": "prompt"}, "one object"),
        ({"exclude": "cat", "points": [(3, 3)]}, "phrases alone"),
        ({"background": ""}, "background is '', which is empty"),
        ({"exclude": ["cat", " "]}, "exclude[1] is ' ', which is empty"),
    ],
)
def test_bad_questions_say_what_was_wanted(
    model: TextSAM, photo: Photo, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(PromptError, match=re.escape(message)):
        model.open(photo).segment(text="dog", **options)


def test_prompt_gives_readings_and_labels(token_model: TextSAM, photo: Photo) -> None:
    view = token_model.open(photo)
    result = view.segment(text="dog", strategy="prompt")
    assert 1 <= len(result) <= 3
    assert set(result.labels) == {"dog"}
    assert list(result.iou) == sorted(result.iou, reverse=True)


def test_the_phrase_reaches_the_mask(token_model: TextSAM, photo: Photo) -> None:
    view = token_model.open(photo)
    a, b = (view.predict(text=phrase).low_res for phrase in ("dog", "a yellow bus"))
    assert np.abs(a - b).max() > 1e-4


def test_a_model_without_map_says_so(token_model: TextSAM, photo: Photo) -> None:
    with pytest.raises(WeightsError, match="no dense head"):
        token_model.open(photo).text_map("dog")


def test_text_map_is_a_probability_of_the_photo(model: TextSAM, photo: Photo) -> None:
    values = model.open(photo).text_map("dog")
    assert values.shape == (50, 90)
    assert 0 <= values.min() <= values.max() <= 1


@pytest.mark.parametrize("seed", range(5))
def test_connected_components_agree_with_scipy(seed: int) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    mask = torch.rand(23, 31, generator=torch.Generator().manual_seed(seed)) > 0.55
    ours = connected_components(mask).numpy()
    theirs, count = ndimage.label(mask.numpy(), structure=np.ones((3, 3)))
    assert ours.max() == count
    assert len({(a, b) for a, b in zip(ours.ravel(), theirs.ravel(), strict=True)}) == count + 1


def test_connected_components_of_more_than_float32_can_count() -> None:
    mask = torch.zeros(1, 2**24 + 4, dtype=torch.bool)
    mask[0, [0, -3, -1]] = True
    assert connected_components(mask)[0, [0, -3, -2, -1]].tolist() == [1, 2, 0, 3]


def test_faint_regions_lie_beside_strong_ones_and_share_their_points() -> None:
    probability = torch.zeros(32, 32)
    probability[2:12, 2:12] = 0.9
    probability[12:16, 2:12] = 0.2  # touches the strong one
    probability[20:30, 20:30] = 0.2
    settings = TextSettings(max_points=3, points=2)
    strong = find_regions(probability, level=0.5, settings=settings)
    faint = find_regions(probability, level=0.1, settings=settings, beside=strong)
    assert len(strong) == len(faint) == 1
    assert not faint[0].cells[:16].any() and faint[0].cells[20:30, 20:30].all()
    assert len(strong[0].points) + len(faint[0].points) <= 3


def test_connected_components_of_nothing_and_everything() -> None:
    assert connected_components(torch.zeros(4, 5, dtype=torch.bool)).max() == 0
    assert (connected_components(torch.ones(4, 5, dtype=torch.bool)) == 1).all()


def test_stray_pieces_go_and_small_holes_are_filled() -> None:
    mask = torch.full((40, 40), -1.0)
    mask[5:25, 5:25] = 1.0
    mask[30:36, 30:36] = 1.0  # a piece of something else
    mask[10:12, 10:12] = -1.0  # a sticker
    mask[14:22, 14:22] = -1.0  # a hole that is part of the shape
    region = torch.zeros(40, 40, dtype=torch.bool)
    region[6:9, 6:9] = True
    clean = tidied(mask, region, max_hole_ratio=0.02) > 0
    assert not clean[30:36, 30:36].any()
    assert clean[10:12, 10:12].all()
    assert not clean[14:22, 14:22].any()
    assert int(clean.sum()) == 20 * 20 - 8 * 8


def test_a_click_after_a_phrase_goes_on_from_the_instance_under_it(
    model: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_map(monkeypatch, [(slice(0, 3), slice(0, 3)), (slice(1, 4), slice(5, 8))])
    view = model.open(photo)
    result = view.segment(text="dog", threshold=0.01)
    assert len(result) >= 1
    instances = view.dialogue.steps[-1].instances
    asked: list[tuple[Prompt, MaskLogits | None]] = []
    predict = dialogue.predict

    def spy(
        photo: EncodedPhoto,
        prompt: Prompt,
        *,
        windows: WindowCache,
        previous: MaskLogits | None = None,
    ) -> Prediction:
        asked.append((prompt, previous))
        return predict(photo, prompt, windows=windows, previous=previous)

    monkeypatch.setattr(dialogue, "predict", spy)
    rows, columns = np.nonzero(result.masks[-1])
    x, y = float(columns[0]) + 0.5, float(rows[0]) + 0.5
    chosen = nearest_mask(result.masks, x, y)
    view.click(x, y)
    prompt, previous = asked[-1]
    assert prompt.text == "dog" and len(prompt.points) == 1
    assert previous is not None and instances[chosen].low_res is not None
    np.testing.assert_array_equal(previous.low_res(), instances[chosen].low_res)
    assert len(view.dialogue.steps) == 2
    assert view.undo() == result


def test_the_nearest_mask_is_the_smallest_under_a_point_or_else_the_closest() -> None:
    masks = np.zeros((3, 20, 20), bool)
    masks[0, :10, :10] = masks[1, 2:5, 2:5] = masks[2, 15:, 15:] = True
    assert nearest_mask(masks, 3.5, 3.5) == 1
    assert nearest_mask(masks, 8.0, 8.0) == 0
    assert nearest_mask(masks, 14.0, 13.0) == 2
    assert nearest_mask(masks, 11.0, 9.0) == 0


def test_explaining_looks_behind_a_closed_gate_and_keeps_the_dialogue(
    model: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = torch.full((8, 8), -4.0)
    logits[1:4, 1:5] = 0.4  # probability 0.6
    _set_maps(monkeypatch, lambda number: logits)
    view = model.open(photo)
    why = view.explain("dog", threshold=0.9)
    assert why.gate("dog") == "presence"
    assert why.advice("dog").get("threshold", 0) < 0.61
    assert any(row.mask is not None for row in why.table())
    assert len(view.dialogue.steps) == 1 and view.dialogue.steps[0].prompt.text == "dog"
    assert len(view.dialogue.steps[0].result) == 0


def test_one_phrase_makes_a_label_map_too(
    model: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_map(monkeypatch, [(slice(0, 3), slice(0, 3))])
    monkeypatch.setattr(semantic, "map_logits", auto.map_logits)
    found = model.open(photo).label_map("dog")
    assert found.names == ("dog",)
    assert found.labels[10, 10] == 1 and found.labels[45, 80] == 0
