"""Phrases with a colour: the thing is found by the phrase, the colour by its pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from textsam import TextSAM, load_image
from textsam.inference.view import ImageView


@pytest.fixture(scope="module")
def tiny() -> TextSAM:
    return TextSAM.from_pretrained("tiny")


@pytest.fixture(scope="module")
def bus(tiny: TextSAM, repo: Path) -> ImageView:
    return tiny.open(repo / "examples/bus.jpg")


@pytest.mark.parametrize("phrase", ["yellow bus", "a yellow bus", "Orange bus", "yellow buses"])
def test_a_thing_of_that_colour_has_the_masks_of_the_thing(bus: ImageView, phrase: str) -> None:
    plain, coloured = bus.segment("bus"), bus.segment(phrase)
    assert coloured.rles == plain.rles and coloured.labels == [phrase]
    assert coloured.presence[phrase] == pytest.approx(plain.presence["bus"], abs=0.05)


@pytest.mark.parametrize("phrase", ["red bus", "green bus", "white bus"])
def test_a_thing_of_another_colour_has_none_and_says_why(bus: ImageView, phrase: str) -> None:
    result = bus.segment(phrase)
    assert not len(result) and result.presence[phrase] < bus.segment("bus").presence["bus"] / 2
    assert result.answers[0].candidates[0].ruled_out[0] == "colour"
    said = result.explain().sentence(phrase)
    assert "the colour gate closed" in said and 'type text="bus"' in said


def test_several_phrases_come_in_their_order(bus: ImageView) -> None:
    result = bus.segment(["red bus", "sky", "yellow bus"])
    assert [answer.phrase for answer in result.answers] == ["red bus", "sky", "yellow bus"]
    assert set(result.labels) == {"sky", "yellow bus"}


def test_an_excluded_colour_leaves_the_others(tiny: TextSAM, repo: Path) -> None:
    photo = load_image(repo / "examples/horses.jpg").copy()
    plain = tiny.segment(photo, "horse")
    photo[plain[0].mask] = photo[plain[0].mask] // 4 + [150, 0, 0]  # paint one of them red
    view = tiny.open(photo)
    horses, red = view.segment("horse"), view.segment("red horse")
    assert 0 < len(red) < len(horses)
    others = view.segment("horse", exclude="red horse")
    assert others.rles == [rle for rle in horses.rles if rle not in red.rles]
    assert others.rles == view.segment("horse", background="red horse").rles


def test_a_model_that_reads_colours_is_asked_the_whole_phrase(tiny: TextSAM, repo: Path) -> None:
    settings = replace(tiny.text_settings, measure_colours=False)
    reads = TextSAM(**{**vars(tiny.parts), "text_settings": settings})
    view = reads.open(repo / "examples/bus.jpg")
    assert view.segment("yellow bus").presence != view.segment("bus").presence
    assert all(item.gate != "colour" for item in view.segment("red bus").answers[0].candidates)
