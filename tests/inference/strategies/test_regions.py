"""One thing or several: `separate` with a decoder whose answers are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.inference.model import TextSAM
from textsam.inference.strategies import regions as module
from textsam.inference.strategies.regions import PhraseMap, Proposal, Region, decode_regions
from textsam.modeling.mask_decoder import PromptBatch
from textsam.values.settings import TextSettings

SIDE = 16  # cells of the mask prompts of the random model
CELL = 4.0  # model pixels in one


class Decoder:
    """Paints the whole region if it gets a map, else a square around the point."""

    def __init__(self, *, whole: float, part: float, reach: int = 2) -> None:
        self.whole, self.part, self.reach = whole, part, reach
        self.calls: list[tuple[int, bool]] = []

    def __call__(self, prompts: PromptBatch) -> tuple[Tensor, Tensor]:
        mapped = prompts.masks is not None
        self.calls.append((len(prompts), mapped))
        if prompts.masks is not None:
            logits = prompts.masks.expand(-1, 4, -1, -1).clone()
            return logits, torch.full((len(prompts), 4), self.whole)
        logits = torch.full((len(prompts), 4, SIDE, SIDE), -1.0)
        for k, (x, y) in enumerate((prompts.points[:, 0] / CELL).long().tolist()):
            rows = slice(max(0, y - self.reach), y + self.reach + 1)
            columns = slice(max(0, x - self.reach), x + self.reach + 1)
            logits[k, :, rows, columns] = 1.0
        return logits, torch.full((len(prompts), 4), self.part)


def _region(rows: slice, columns: slice, *points: tuple[float, float]) -> Region:
    cells = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    cells[rows, columns] = True
    return Region(cells=cells, points=torch.tensor(points), peak=0.9)


def _separate(
    model: TextSAM,
    photo: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
    decoder: Any,
    regions: list[Region],
    *,
    sure: float = 0.6,
) -> list[Proposal]:
    monkeypatch.setattr(module, "decode", lambda _, prompts: decoder(prompts))
    monkeypatch.setattr(model, "text_settings", replace(TextSettings(), sure=sure))
    logits = torch.full((SIDE, SIDE), -4.0)
    for region in regions:
        logits[region.cells] = 2.0
    encoded = model.open(photo).photo
    phrase = PhraseMap(token=torch.zeros(1, 1, 32), logits=logits, covered=(9, SIDE))
    return decode_regions(encoded, phrase, regions)


TWO = _region(slice(2, 7), slice(1, 11), (3.5, 4.5), (8.5, 4.5))
SMALL = _region(slice(2, 5), slice(13, 16), (14.5, 3.5))


def test_a_sure_mask_answers_for_its_region(
    model: TextSAM, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = Decoder(whole=0.9, part=0.9)
    found = _separate(model, photo, monkeypatch, decoder, [TWO, SMALL])
    assert decoder.calls == [(2, True)]
    assert [item.rejected for item in found] == ["", ""]
    assert {int((item.logits > 0).sum()) for item in found} == {50, 9}


@pytest.mark.parametrize(("part", "several"), [(0.9, True), (0.3, False)])
def test_the_reading_that_accounts_better_is_kept(
    model: TextSAM,
    photo: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
    part: float,
    several: bool,
) -> None:
    """Two squares side by side that cover the region, or the region at once."""
    decoder = Decoder(whole=0.5, part=part)
    found = _separate(model, photo, monkeypatch, decoder, [TWO])
    assert decoder.calls == [(1, True), (1, False), (1, False)]
    kept = [item for item in found if not item.rejected]
    assert len(found) == 3
    assert [int((item.logits > 0).sum()) for item in kept] == ([25, 25] if several else [50])
    assert all("quality on its region" in item.rejected for item in found if item not in kept)
    if several:
        assert {item.point for item in kept} == {(14.0, 18.0), (34.0, 18.0)}


def test_a_region_of_one_point_is_asked_once(
    model: TextSAM, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = Decoder(whole=0.1, part=0.9)
    found = _separate(model, photo, monkeypatch, decoder, [SMALL])
    assert decoder.calls == [(1, True)]
    assert len(found) == 1


def test_a_point_that_masks_account_for_is_not_asked(
    model: TextSAM, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = Decoder(whole=0.1, part=0.6, reach=7)
    found = _separate(model, photo, monkeypatch, decoder, [TWO])
    assert decoder.calls == [(1, True), (1, False)]
    kept = [item for item in found if not item.rejected]
    assert len(kept) == 1 and kept[0].iou == pytest.approx(0.1)  # one part is not several


def test_regions_are_asked_together_and_as_if_alone(
    model: TextSAM, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = _region(slice(7, 9), slice(1, 11), (3.5, 7.5), (8.5, 7.5))
    decoder = Decoder(whole=0.5, part=0.9)
    both = _separate(model, photo, monkeypatch, decoder, [TWO, other])
    assert [count for count, _ in decoder.calls] == [2, 2, 2]
    alone = [
        item
        for region in (TWO, other)
        for item in _separate(model, photo, monkeypatch, Decoder(whole=0.5, part=0.9), [region])
    ]
    assert {(item.point, item.rejected == "") for item in both} == {
        (item.point, item.rejected == "") for item in alone
    }


def test_what_lies_on_padding_alone_is_no_mask(
    model: TextSAM, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    def empty(prompts: PromptBatch) -> tuple[Tensor, Tensor]:
        logits = torch.full((len(prompts), 4, SIDE, SIDE), -1.0)
        logits[:, :, 9:] = 1.0  # the photo covers nine rows
        return logits, torch.full((len(prompts), 4), 0.9)

    assert _separate(model, photo, monkeypatch, empty, [TWO, SMALL]) == []
