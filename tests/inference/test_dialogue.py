"""A dialogue is a value: clicks, undo and redo give other dialogues, and old steps cost little."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from textsam.errors import PromptError
from textsam.inference import dialogue as module
from textsam.inference.dialogue import Dialogue
from textsam.inference.model import TextSAM
from textsam.inference.photo.encoded import EncodedPhoto, encode_photo
from textsam.values.prompts import make_prompt
from textsam.values.settings import FocusSettings

BOX = (30, 20, 44, 32)


@pytest.fixture
def encoded(model: TextSAM, photo: NDArray[np.uint8]) -> EncodedPhoto:
    """A small photo of a model that zooms in on windows."""
    return encode_photo(replace(model.parts, focus=FocusSettings(min_side=8)), photo)


def test_a_photo_and_the_value_suffice(encoded: EncodedPhoto) -> None:
    empty = Dialogue(photo=encoded)
    first = empty.click(30, 20)
    second = first.click(60, 40, foreground=False)
    assert (len(empty.steps), len(first.steps), len(second.steps)) == (0, 1, 2)
    assert len(empty.result) == 0 and empty.result.size == encoded.size
    assert second.undo().result is first.result
    assert second.undo().redo().result is second.result
    assert len(second.undo().undo().steps) == 0


def test_redo_ends_with_a_new_click(encoded: EncodedPhoto) -> None:
    back = Dialogue(photo=encoded).click(30, 20).click(60, 40).undo()
    assert back.undone
    assert not back.click(50, 30).undone
    with pytest.raises(PromptError, match="nothing to redo"):
        back.click(50, 30).redo()
    with pytest.raises(PromptError, match="nothing to undo"):
        Dialogue(photo=encoded).undo()


def test_a_click_after_undo_gives_what_it_gave_before(encoded: EncodedPhoto) -> None:
    start = Dialogue(photo=encoded).ask(make_prompt(encoded.size, box=BOX)).click(36, 25)
    once = start.click(40, 28, foreground=False)
    again = once.undo().click(40, 28, foreground=False)
    assert once.result == again.result


def test_the_view_forwards_to_its_dialogue(model: TextSAM, photo: NDArray[np.uint8]) -> None:
    view = model.open(photo)
    first, second = view.segment(points=[(30, 20)]), view.click(60, 40)
    assert view.undo() is first
    assert view.redo() is second
    with pytest.raises(PromptError, match="nothing to redo"):
        view.redo()


def test_a_thousand_clicks_on_13_megapixels_fit_into_50_megabytes() -> None:
    """By what a step of `tiny` keeps: one grid of logits, for the last steps only."""
    tiny = TextSAM.from_pretrained("tiny")
    cells = tiny.sam.config.mask_size**2
    # Points and labels of all prompts add up: n steps have n^2 / 2 points of 16 bytes.
    points = 16 * 1000 * 1000 / 2
    assert module._MAX_LOGITS * 4 * cells + points < 30e6


def test_a_step_keeps_no_array_of_the_photos_size(model: TextSAM) -> None:
    """A photo a hundred times larger, and no more memory for each click."""
    kept = {}
    for scale in (1, 10):
        y, x = np.mgrid[0 : 60 * scale, 0 : 90 * scale]
        pixels = (127 + 120 * np.sin(x / 9 / scale) * np.cos(y / 7 / scale)).astype(np.uint8)
        parts = replace(model.parts, focus=FocusSettings(min_side=8 * scale))
        dialogue = Dialogue(photo=encode_photo(parts, np.stack([pixels] * 3, axis=-1)))
        # The cached window is not part of any step.
        box = np.array(BOX) * scale
        dialogue = dialogue.ask(make_prompt(dialogue.photo.size, box=box)).click(*box[:2] + scale)
        tracemalloc.start()
        for number in range(8):
            dialogue = dialogue.click((32 + number) * scale, 25 * scale)
        kept[scale] = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert all(
            step.mask is not None and step.mask.grids.base is None for step in dialogue.steps
        )
    assert kept[10] < kept[1] + 8 * 30_000


def test_steps_of_long_ago_lose_their_logits_and_can_be_corrected(
    encoded: EncodedPhoto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_LOGITS", 2)
    dialogue = Dialogue(photo=encoded).ask(make_prompt(encoded.size, box=BOX))
    for x in (34, 36, 38):
        dialogue = dialogue.click(x, 25)
    assert [step.mask is not None for step in dialogue.steps] == [False, False, True, True]
    back = dialogue.undo().undo().undo()
    assert back.click(40, 26).result.size == encoded.size
