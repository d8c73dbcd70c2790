"""`auto` and `prompt` on a random model whose map is written by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from textsam.errors import WeightsError
from textsam.inference import text as text_inference
from textsam.inference.model import TextSAM
from textsam.inference.postprocess import connected_components

Photo = NDArray[np.uint8]


def _write_map(monkeypatch: pytest.MonkeyPatch, regions: list[tuple[slice, slice]]) -> None:
    """A dense map (8 x 8 cells) that is sure inside the regions and sure outside."""
    logits = torch.full((8, 8), -8.0)
    for region in regions:
        logits[region] = 8.0

    def fake(view: object, phrases: list[str]) -> torch.Tensor:
        return logits.expand(len(phrases), -1, -1)

    monkeypatch.setattr(text_inference, "dense_logits", fake)


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
    decode = view.decode

    def spy(prompts):  # type: ignore[no-untyped-def]
        seen.append(prompts.points[:, 0])
        return decode(prompts)

    monkeypatch.setattr(view, "decode", spy)
    view.segment(text="dog")
    points = seen[0]
    assert points.shape == (2, 2)
    left, right = points[points[:, 0].argsort()]
    assert left[0] < 24 and left[1] < 24  # cells of 8 px in a frame of 64
    assert right[0] >= 40 and 8 <= right[1] < 32


def test_regions_in_the_padding_are_not_proposed(
    model: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 50 x 90 fills the upper 36 of 64 rows.
    _write_map(monkeypatch, [(slice(6, 8), slice(0, 8))])
    assert len(model.open(photo).segment(text="dog")) == 0


def test_threshold_closes_and_opens(
    model: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = torch.full((1, 8, 8), -4.0)
    logits[:, 1:4, 1:5] = 0.4  # probability 0.6
    monkeypatch.setattr(text_inference, "dense_logits", lambda view, phrases: logits)
    view = model.open(photo)
    calls: list[int] = []
    decode = view.decode
    monkeypatch.setattr(view, "decode", lambda p: calls.append(len(p)) or decode(p))
    view.segment(text="dog", threshold=0.9)
    assert calls == []
    view.segment(text="dog", threshold=0.3)
    assert calls == [1]
    # The model's own gate is 0.6 somewhere, a hair above what interpolation leaves of the map.
    assert model.text_settings.peak == 0.6
    logits -= 0.05
    view.segment(text="dog")
    assert calls == [1]


def test_prompt_gives_readings_and_labels(token_model: TextSAM, photo: Photo) -> None:
    view = token_model.open(photo)
    result = view.segment(text="dog", strategy="prompt")
    assert 1 <= len(result) <= 3
    assert set(result.labels) == {"dog"}
    assert list(result.iou) == sorted(result.iou, reverse=True)
    # Without a map, auto falls back to the paper's way.
    np.testing.assert_array_equal(view.segment(text="dog").masks, result.masks)


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


def test_connected_components_of_nothing_and_everything() -> None:
    assert connected_components(torch.zeros(4, 5, dtype=torch.bool)).max() == 0
    assert (connected_components(torch.ones(4, 5, dtype=torch.bool)) == 1).all()


def test_stray_pieces_go_and_small_holes_are_filled() -> None:
    mask = torch.full((1, 40, 40), -1.0)
    mask[0, 5:25, 5:25] = 1.0
    mask[0, 30:36, 30:36] = 1.0  # a piece of something else
    mask[0, 10:12, 10:12] = -1.0  # a sticker
    mask[0, 14:22, 14:22] = -1.0  # a hole that is part of the shape
    region = torch.zeros(1, 40, 40, dtype=torch.bool)
    region[0, 6:9, 6:9] = True
    tidied = text_inference._tidied(mask, region)[0] > 0
    assert not tidied[30:36, 30:36].any()
    assert tidied[10:12, 10:12].all()
    assert not tidied[14:22, 14:22].any()
    assert int(tidied.sum()) == 20 * 20 - 8 * 8
