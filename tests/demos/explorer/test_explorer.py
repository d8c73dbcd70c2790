from __future__ import annotations

import numpy as np
import pytest

from demos.explorer.explorer import Explorer
from demos.explorer.photo_cache import PhotoCache, UserPhoto
from textsam.errors import PromptError


def test_nothing_can_be_asked_before_a_photo_is_open(photos: PhotoCache) -> None:
    explorer = Explorer(photos)
    for ask in (lambda: explorer.find("wheel"), lambda: explorer.click(1, 1), explorer.everything):
        with pytest.raises(PromptError, match="Open a photo first"):
            ask()


def test_phrases_give_what_the_library_gives(explorer: Explorer, photo: UserPhoto) -> None:
    explorer.find("wheel, door", strategy="prompt")
    expected = explorer.photos.open(photo).segment(text=["wheel", "door"], strategy="prompt")
    assert len(expected) > 1
    assert [item.result.rle for item in explorer.board.objects] == expected.rles
    assert dict(explorer.board.presence) == expected.presence
    assert [item.name for item in explorer.board.objects] == expected.labels


def test_exclusions_reach_the_library(explorer: Explorer, photo: UserPhoto) -> None:
    explorer.find("door, -wheel", "roof", threshold=0.001)
    view = explorer.photos.open(photo)
    expected = view.segment(text=["door"], exclude=["wheel", "roof"], threshold=0.001)
    assert explorer.board.query["exclude"] == ["wheel", "roof"]
    assert expected.rles != view.segment(text=["door"], threshold=0.001).rles
    assert [item.result.rle for item in explorer.board.objects] == expected.rles


def test_clicks_give_what_a_dialogue_gives(explorer: Explorer, photo: UserPhoto) -> None:
    view = explorer.photos.open(photo)
    explorer.click(20, 20)
    first = view.segment(points=[(20, 20)])
    (item,) = explorer.board.objects
    assert item.result.rle == first[0].rle
    assert [item.rle for item in item.readings] == first.rles
    explorer.click(70, 30)
    assert explorer.board.objects[0].result.rle == view.click(70, 30)[0].rle
    explorer.click(40, 10, foreground=False)
    assert explorer.board.objects[0].result.rle == view.click(40, 10, foreground=False)[0].rle
    prompt = explorer.board.objects[0].prompt
    assert prompt.points.tolist() == [[20, 20], [70, 30], [40, 10]]
    assert prompt.labels.tolist() == [1, 1, 0]


def test_a_box_gives_what_the_library_gives(explorer: Explorer, photo: UserPhoto) -> None:
    explorer.box(60, 40, 10, 5)  # dragged from the lower right
    expected = explorer.photos.open(photo).segment(box=(10, 5, 60, 40))
    assert explorer.board.objects[0].result.rle == expected.rles[0]
    with pytest.raises(PromptError, match="too small"):
        explorer.box(3, 3, 3.5, 30)


def test_a_click_on_a_thing_chooses_it_and_n_begins_a_new_one(explorer: Explorer) -> None:
    explorer.click(20, 20)
    y, x = np.argwhere(explorer.board.objects[0].result.mask)[0]
    explorer.select(None)
    explorer.click(x + 0.5, y + 0.5)
    assert len(explorer.board.objects) == 1 and explorer.board.active == 1
    explorer.start_new()
    explorer.click(x + 0.5, y + 0.5)
    assert len(explorer.board.objects) == 2 and explorer.board.active == 2


def test_removing_needs_an_object(explorer: Explorer) -> None:
    with pytest.raises(PromptError, match="no object to remove"):
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
    assert explorer.undo_redo_counts[1] == 0  # a new step replaces the steps that were undone


def test_the_last_forty_steps_can_be_undone(explorer: Explorer) -> None:
    explorer.click(20, 20)
    for number in range(60):
        explorer.rename(1, f"name {number}")
    assert explorer.undo_redo_counts == (40, 0)
    for number in range(58, 18, -1):
        explorer.undo()
        assert explorer.board.objects[0].name == f"name {number}"
    with pytest.raises(PromptError, match="nothing to undo"):
        explorer.undo()
    assert explorer.undo_redo_counts == (0, 40)  # the failed undo is no step


def test_a_click_after_undo_goes_on_as_if_the_undone_one_had_not_been(
    explorer: Explorer, photo: UserPhoto
) -> None:
    explorer.click(20, 20)
    explorer.click(70, 30)
    explorer.undo()
    explorer.click(10, 40)
    view = explorer.photos.open(photo)
    view.segment(points=[(20, 20)])
    assert explorer.board.objects[0].result.rle == view.click(10, 40)[0].rle


def test_objects_have_dialogues_of_their_own(explorer: Explorer, photo: UserPhoto) -> None:
    explorer.click(20, 20)
    explorer.start_new()
    explorer.click(80, 40)
    explorer.select(1)
    explorer.click(70, 30)
    view = explorer.photos.open(photo)
    view.segment(points=[(20, 20)])
    assert explorer.board.objects[0].result.rle == view.click(70, 30)[0].rle


def test_a_click_goes_on_from_the_mask_that_was_chosen(
    explorer: Explorer, photo: UserPhoto
) -> None:
    explorer.click(20, 20)
    explorer.reading(2)
    mask = explorer.board.objects[0].result.mask
    explorer.click(10, 40)
    expected = explorer.photos.open(photo).segment(points=[(20, 20), (10, 40)], mask=mask)
    assert explorer.board.objects[0].result.rle == expected.rles[0]


def test_phrases_leave_what_was_made_by_hand(explorer: Explorer) -> None:
    explorer.click(20, 20)
    explorer.find("wheel", strategy="prompt")
    explorer.find("door", strategy="prompt")
    names = [item.name for item in explorer.board.objects]
    assert names == ["object 1", "door", "door", "door"]


def test_readings_of_a_first_click(explorer: Explorer) -> None:
    explorer.click(20, 20)
    readings = explorer.board.objects[0].readings
    explorer.reading(1)
    assert explorer.board.objects[0].result is readings[1]
    explorer.click(70, 30)
    with pytest.raises(PromptError, match="first click"):
        explorer.reading(0)


def test_hidden_things_are_not_exported_and_names_are_kept(explorer: Explorer) -> None:
    explorer.click(20, 20)
    explorer.start_new()
    explorer.click(80, 40)
    explorer.rename(1, "  left\n thing ")
    explorer.show(2, False)
    assert explorer.result().labels == ["left thing"]
    explorer.show(None, True)
    assert len(explorer.result()) == 2
    explorer.delete(1)
    assert explorer.result().labels == ["object 2"]
    with pytest.raises(PromptError, match="not exist any more"):
        explorer.delete(1)


def test_more_like_this_gives_what_an_example_gives(explorer: Explorer, photo: UserPhoto) -> None:
    with pytest.raises(PromptError, match="Choose an object"):
        explorer.like()
    explorer.click(20, 20)
    explorer.like()
    new = [item for item in explorer.board.objects if item.origin == "like"]
    view = explorer.photos.open(photo)
    expected = view.segment(like=view.segment(points=[(20, 20)])[0])
    assert {item.result.rle for item in new} <= set(expected.rles)
    assert all(item.name == "object 1" for item in new)


def test_reasons_are_those_of_the_last_phrases(explorer: Explorer) -> None:
    with pytest.raises(PromptError, match="by a phrase first"):
        explorer.why()
    explorer.find("wheel, door", "roof", threshold=0.3)
    reasons = explorer.why()
    assert reasons.phrases == ["wheel", "door"]
    assert all(answer.levels.min_score == 0.3 for answer in reasons.answers)


@pytest.mark.parametrize("place", [(float("nan"), 1), (1, float("inf")), ("1", 2), (None, 1)])
def test_places_that_are_none_are_refused(explorer: Explorer, place: tuple) -> None:
    with pytest.raises(PromptError, match="two numbers"):
        explorer.click(*place)
    assert not explorer.board.objects


def test_another_photo_begins_anew(explorer: Explorer, photo: UserPhoto) -> None:
    explorer.click(20, 20)
    explorer.open(photo)
    assert not explorer.board.objects and explorer.undo_redo_counts == (0, 0)
