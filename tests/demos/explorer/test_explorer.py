from __future__ import annotations

import numpy as np
import pytest

from demos.explorer.explorer import Explorer
from demos.explorer.photos import EncodedPhotos, Photo
from textsam.errors import PromptError


def test_nothing_can_be_asked_before_a_photo_is_open(photos: EncodedPhotos) -> None:
    explorer = Explorer(photos)
    for ask in (lambda: explorer.find("wheel"), lambda: explorer.click(1, 1), explorer.everything):
        with pytest.raises(PromptError, match="Open a photo first"):
            ask()


def test_phrases_give_what_the_library_gives(explorer: Explorer, photo: Photo) -> None:
    explorer.find("wheel, door", strategy="prompt")
    expected = explorer.photos.open(photo).segment(text=["wheel", "door"], strategy="prompt")
    assert len(expected) > 1
    assert [thing.found.rle for thing in explorer.board.things] == expected.rles
    assert dict(explorer.board.presence) == expected.presence
    assert [thing.name for thing in explorer.board.things] == expected.labels


def test_exclusions_reach_the_library(explorer: Explorer, photo: Photo) -> None:
    explorer.find("door, -wheel", "roof", threshold=0.001)
    view = explorer.photos.open(photo)
    expected = view.segment(text=["door"], exclude=["wheel", "roof"], threshold=0.001)
    assert explorer.board.question.keywords()["exclude"] == ["wheel", "roof"]
    assert expected.rles != view.segment(text=["door"], threshold=0.001).rles
    assert [thing.found.rle for thing in explorer.board.things] == expected.rles


def test_clicks_give_what_a_dialogue_gives(explorer: Explorer, photo: Photo) -> None:
    view = explorer.photos.open(photo)
    explorer.click(20, 20)
    first = view.segment(points=[(20, 20)])
    (thing,) = explorer.board.things
    assert thing.found.rle == first[0].rle
    assert [item.rle for item in thing.readings] == first.rles
    explorer.click(70, 30)
    assert explorer.board.things[0].found.rle == view.click(70, 30)[0].rle
    explorer.click(40, 10, foreground=False)
    assert explorer.board.things[0].found.rle == view.click(40, 10, foreground=False)[0].rle
    assert explorer.board.things[0].points == ((20, 20, True), (70, 30, True), (40, 10, False))
    assert len(explorer.view.history) == 1  # one prediction a user, not one a click


def test_a_box_gives_what_the_library_gives(explorer: Explorer, photo: Photo) -> None:
    explorer.box(60, 40, 10, 5)  # dragged from the lower right
    expected = explorer.photos.open(photo).segment(box=(10, 5, 60, 40))
    assert explorer.board.things[0].found.rle == expected.rles[0]
    with pytest.raises(PromptError, match="too small"):
        explorer.box(3, 3, 3.5, 30)


def test_a_click_on_a_thing_chooses_it_and_n_begins_a_new_one(explorer: Explorer) -> None:
    explorer.click(20, 20)
    y, x = np.argwhere(explorer.board.things[0].found.mask)[0]
    explorer.select(None)
    explorer.click(x + 0.5, y + 0.5)
    assert len(explorer.board.things) == 1 and explorer.board.active == 1
    explorer.begin_new()
    explorer.click(x + 0.5, y + 0.5)
    assert len(explorer.board.things) == 2 and explorer.board.active == 2


def test_taking_away_needs_something_to_take_from(explorer: Explorer) -> None:
    with pytest.raises(PromptError, match="nothing to take away"):
        explorer.click(20, 20, foreground=False)


def test_undo_and_redo_walk_through_every_step(explorer: Explorer) -> None:
    boards = [explorer.board]
    for step in (
        lambda: explorer.click(20, 20),
        lambda: explorer.click(70, 30),
        lambda: explorer.find("wheel", strategy="prompt"),
        lambda: explorer.box(5, 5, 60, 40),
        explorer.everything,
        explorer.clear,
    ):
        step()
        boards.append(explorer.board)
    for board in boards[-2::-1]:
        explorer.undo()
        assert explorer.board is board
    with pytest.raises(PromptError, match="nothing to undo"):
        explorer.undo()
    for board in boards[1:]:
        explorer.redo()
        assert explorer.board is board
    with pytest.raises(PromptError, match="nothing to redo"):
        explorer.redo()
    explorer.undo()
    explorer.click(30, 30)
    assert explorer.steps[1] == 0  # what was undone is given up by a new step


def test_a_click_after_undo_goes_on_from_the_mask_that_is_there(
    explorer: Explorer, photo: Photo
) -> None:
    explorer.click(20, 20)
    explorer.click(70, 30)
    explorer.undo()
    first = explorer.board.things[0].found
    explorer.click(10, 40)
    expected = explorer.photos.open(photo).segment(
        points=[(20, 20), (10, 40)], labels=[1, 1], mask=first.mask
    )
    assert explorer.board.things[0].found.rle == expected.rles[0]


def test_phrases_leave_what_was_made_by_hand(explorer: Explorer) -> None:
    explorer.click(20, 20)
    explorer.find("wheel", strategy="prompt")
    explorer.find("door", strategy="prompt")
    names = [thing.name for thing in explorer.board.things]
    assert names == ["object 1", "door", "door", "door"]


def test_readings_of_a_first_click(explorer: Explorer) -> None:
    explorer.click(20, 20)
    readings = explorer.board.things[0].readings
    explorer.reading(1)
    assert explorer.board.things[0].found is readings[1]
    explorer.click(70, 30)
    with pytest.raises(PromptError, match="first click"):
        explorer.reading(0)


def test_hidden_things_are_not_exported_and_names_are_kept(explorer: Explorer) -> None:
    explorer.click(20, 20)
    explorer.begin_new()
    explorer.click(80, 40)
    explorer.rename(1, "  left\n thing ")
    explorer.show(2, False)
    assert explorer.result().labels == ["left thing"]
    explorer.show(None, True)
    assert len(explorer.result()) == 2
    explorer.delete(1)
    assert explorer.result().labels == ["object 2"]
    with pytest.raises(PromptError, match="not here any more"):
        explorer.delete(1)


def test_similar_gives_what_an_example_gives(explorer: Explorer, photo: Photo) -> None:
    with pytest.raises(PromptError, match="Choose the object"):
        explorer.similar()
    explorer.click(20, 20)
    explorer.similar()
    new = [thing for thing in explorer.board.things if thing.origin == "similar"]
    view = explorer.photos.open(photo)
    expected = view.segment(like=view.segment(points=[(20, 20)])[0])
    assert {thing.found.rle for thing in new} <= set(expected.rles)
    assert all(thing.name == "object 1" for thing in new)


def test_reasons_are_those_of_the_last_phrases(explorer: Explorer) -> None:
    with pytest.raises(PromptError, match="by a phrase first"):
        explorer.why()
    explorer.find("wheel, door", "roof", threshold=0.3)
    reasons = explorer.why()
    assert reasons.phrases == ["wheel", "door"]
    assert all(answer.min_score == 0.3 for answer in reasons.answers)


@pytest.mark.parametrize("place", [(float("nan"), 1), (1, float("inf")), ("1", 2), (None, 1)])
def test_places_that_are_none_are_refused(explorer: Explorer, place: tuple) -> None:
    with pytest.raises(PromptError, match="two numbers"):
        explorer.click(*place)
    assert not explorer.board.things


def test_another_photo_begins_anew(explorer: Explorer, photo: Photo) -> None:
    explorer.click(20, 20)
    explorer.open(photo)
    assert not explorer.board.things and explorer.steps == (0, 0)
