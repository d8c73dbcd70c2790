"""Big photos: drawn things come back once each, wherever the seams lie.

A tile's masks are made by an oracle that reads the drawing, so that what is tested is what becomes
of them across tiles; the model encodes each tile all the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from textsam.errors import ImageError, PromptError, WeightsError
from textsam.inference.model import TextSAM
from textsam.inference.photo.encoded import EncodedPhoto
from textsam.inference.photo.prediction import connected_components
from textsam.inference.strategies.query import Query
from textsam.inference.tiled import tiled_view as tiles_module
from textsam.inference.tiled.tiled_view import TiledView, lowered, open_tiled
from textsam.inference.view import ImageView
from textsam.results.segmentation import Segmentation
from textsam.values.judge import Candidate, Levels, PhraseAnswer
from textsam.values.rle import encode_mask, rle_area
from textsam.values.settings import TileSettings

Photo = NDArray[np.uint8]
GRID = TileSettings(tile=96, overlap=32)
CHANNELS = {"red": 0, "green": 1, "blue": 2}
# Smaller fragments, below 3 cells of a decoder's mask, no model would see.
LEAST = 6


def draw(size: tuple[int, int], *boxes: tuple[int, int, int, int], colour: str = "red") -> Photo:
    photo = np.zeros((*size, 3), dtype=np.uint8)
    for x0, y0, x1, y1 in boxes:
        photo[y0:y1, x0:x1, CHANNELS[colour]] = 255
    return photo


def components(view: ImageView, phrase: str) -> list[NDArray[np.bool_]]:
    coloured = view.image[..., CHANNELS[phrase]] > 127
    labels = connected_components(torch.from_numpy(coloured)).numpy()
    masks = [labels == number for number in range(1, int(labels.max()) + 1)]
    return [mask for mask in masks if mask.sum() >= LEAST]


def oracle(view: ImageView, query: Query) -> list[PhraseAnswer]:
    """Every connected region of the colour that the phrase names."""
    return [read_off(view, phrase) for phrase in query.phrases]


def read_off(view: ImageView, phrase: str) -> PhraseAnswer:
    masks = components(view, phrase)
    candidates = tuple(
        Candidate(rle=encode_mask(mask), score=0.9, iou=0.8, stability=0.7, evidence={"map": 2.0})
        for mask in masks
    )
    presence = 0.99 if masks else 0.01
    gate = {} if masks else {"gate": "presence", "reason": "presence 0.01 < 0.50"}
    return PhraseAnswer(
        phrase=phrase,
        strategy="auto",
        presence=presence,
        evidence={"peak": 4.0},
        levels=Levels(presence=0.5, score=0.5),
        candidates=candidates,
        similarity=(view.image[..., CHANNELS[phrase]] / 255).astype(np.float32),
        **gate,
    )


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageView, "answers", oracle)


@pytest.fixture
def read(model: TextSAM, drawn: None) -> Callable[..., Segmentation]:
    """Masks of a colour in a drawing."""

    def ask(
        photo: Photo, *, text: str | list[str] = "red", grid: TileSettings = GRID, **options: Any
    ) -> Segmentation:
        return open_tiled(model.parts, photo, settings=grid).segment(text=text, **options)

    return ask


# Boxes in a drawing of 224 x 224, whose tiles begin at 0, 64 and 128.
PLACES = {
    "inside one tile": (10, 10, 50, 40),
    "inside an overlap": (68, 20, 90, 40),
    "on a seam": (40, 20, 120, 50),
    "on a corner of four tiles": (50, 50, 110, 115),
    "where all overlap": (70, 70, 88, 88),
    "across three tiles": (20, 100, 205, 112),
    "from edge to edge": (0, 100, 224, 130),
    "over all tiles": (8, 8, 216, 216),
    "all of it": (0, 0, 224, 224),
    "ends at a seam": (30, 30, 96, 60),
    "ends just past a seam": (30, 30, 99, 60),
    "begins at a seam": (64, 30, 130, 60),
    "thin, along a seam": (63, 5, 66, 200),
}


@pytest.mark.parametrize("box", PLACES.values(), ids=PLACES.keys())
@pytest.mark.parametrize("whole", [True, False])
def test_one_thing_comes_back_as_one(
    read: Callable[..., Segmentation], box: tuple[int, int, int, int], whole: bool
) -> None:
    grid = TileSettings(tile=96, overlap=32, whole=whole)
    seg = read(draw((224, 224), box), grid=grid)
    assert len(seg) == 1
    truth = draw((224, 224), box)[..., 0] > 0
    # Of what only the shrunk whole shows the outline is not sharp; else every pixel is right.
    shared = (seg.mask & truth).sum() / (seg.mask | truth).sum()
    assert shared == 1 if not whole else shared > 0.95


def test_many_things_are_not_mixed_up(read: Callable[..., Segmentation]) -> None:
    boxes = [(x, y, x + 14, y + 14) for x in range(2, 300, 20) for y in range(2, 200, 20)]
    seg = read(draw((220, 310), *boxes))
    assert sorted(map(tuple, seg.boxes.astype(int))) == sorted(boxes)


def test_two_neighbours_on_a_seam_stay_two(read: Callable[..., Segmentation]) -> None:
    boxes = [(40, 20, 120, 40), (40, 44, 120, 64)]
    seg = read(draw((224, 224), *boxes))
    assert sorted(map(tuple, seg.boxes.astype(int))) == boxes


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 100), st.integers(0, 100), st.integers(64, 128))
def test_moving_the_grid_does_not_change_the_count(
    read: Callable[..., Segmentation], x: int, y: int, tile: int
) -> None:
    """The same drawing, elsewhere in a larger photo and under other tiles."""
    things = [(0, 0, 30, 12), (40, 0, 44, 90), (50, 10, 120, 60), (60, 70, 75, 85), (0, 60, 25, 85)]
    boxes = [(x0 + x, y0 + y, x1 + x, y1 + y) for x0, y0, x1, y1 in things]
    grid = TileSettings(tile=tile, overlap=tile // 3)
    seg = read(draw((200, 230), *boxes), grid=grid)
    assert sorted(map(tuple, seg.boxes.astype(int))) == sorted(boxes)


def test_phrases_are_asked_of_one_encoding_of_each_tile(
    read: Callable[..., Segmentation], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[tuple[int, int]] = []
    alive: list[int] = []

    class Counted(ImageView):
        living = 0

        def __init__(self, photo: EncodedPhoto) -> None:
            super().__init__(photo)
            encoded.append(self.size)
            Counted.living += 1
            alive.append(Counted.living)

        def __del__(self) -> None:
            Counted.living -= 1

    monkeypatch.setattr(tiles_module, "ImageView", Counted)
    photo = draw((224, 224), (10, 10, 50, 40)) + draw((224, 224), (30, 30, 200, 60), colour="blue")
    seen: list[tuple[int, int]] = []
    seg = read(
        photo, text=["red", "green", "blue"], progress=lambda done, all: seen.append((done, all))
    )
    assert seg.labels == ["red", "blue"]
    assert encoded == [(96, 96)] * 10  # nine tiles, and the whole photo at the size of a tile
    assert seen == [(number, 10) for number in range(1, 11)]
    assert max(alive) <= 2  # the next one begins while the last one ends


def test_an_absent_phrase_is_empty_and_says_why(read: Callable[..., Segmentation]) -> None:
    seg = read(draw((224, 224), (10, 10, 50, 40)), text="green")
    assert len(seg) == 0
    assert seg.masks.shape == (0, 224, 224)
    assert seg.masks.dtype == bool
    assert seg.scores.dtype == np.float32
    assert 0 < seg.presence["green"] <= 0.01
    assert seg.explain().gate("green") == "presence"


def test_answers_are_of_the_photo(read: Callable[..., Segmentation]) -> None:
    photo = draw((224, 224), (100, 150, 130, 160))
    seg = read(photo)
    [answer] = seg.answers
    assert answer.similarity is not None
    rows, columns = np.nonzero(answer.similarity > 0.5)
    assert abs(columns.mean() - 114.5) < 1
    assert abs(rows.mean() - 154.5) < 1
    assert answer.kept[0].rle == seg.rles[0]
    assert all(item.low_res is None for item in answer.candidates)
    assert seg.image is not None
    assert np.shares_memory(seg.image, photo)  # a big photo is not copied


def test_exclusive_masks_share_no_pixel(read: Callable[..., Segmentation]) -> None:
    photo = draw((224, 224), (40, 20, 120, 60)) | draw(
        (224, 224), (100, 20, 200, 60), colour="blue"
    )
    both = read(photo, text=["red", "blue"], overlap="allow")
    assert (both.masks.sum(axis=0) > 1).any()
    apart = read(photo, text=["red", "blue"], overlap="exclusive")
    assert len(apart) == 2
    assert not (apart.masks.sum(axis=0) > 1).any()
    assert np.array_equal(apart.mask, both.mask)


def test_a_fragment_that_a_better_placed_tile_denies_is_dropped(
    read: Callable[..., Segmentation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the first tile "sees" a thing, where its border cuts what others see as a whole."""

    def deceived(view: ImageView, query: Query) -> list[PhraseAnswer]:
        corner = view.image[..., 2].max() > 0  # a blue mark in the first tile
        if corner and view.size == (96, 96):
            mask = np.zeros(view.size, dtype=bool)
            mask[40:60, 80:] = True
            view = SimpleNamespace(
                image=np.stack([mask * np.uint8(255)] * 3, axis=2), size=(96, 96)
            )
        return [read_off(view, phrase) for phrase in query.phrases]  # type: ignore[arg-type]

    monkeypatch.setattr(ImageView, "answers", deceived)
    seg = read(
        draw((224, 224), (0, 0, 3, 3), colour="blue"),
        grid=TileSettings(tile=96, overlap=32, whole=False),
    )
    assert len(seg) == 0
    assert seg.explain().gate("red") == "quality"
    assert "cut off by its tile" in seg.answers[0].reason


def test_a_crowd_that_looks_like_one_from_afar(
    read: Callable[..., Segmentation], monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = [(x, 80, x + 15, 110) for x in range(5, 205, 20)]

    def blurred(view: ImageView, query: Query) -> list[PhraseAnswer]:
        answers = oracle(view, query)
        if len(answers[0].candidates) > 5:  # the whole photo: everything runs together
            mask = components(view, "red")
            rle = encode_mask(np.any(mask, axis=0) | _filled(view.size, mask))
            return [_with_one(answers[0], rle)]
        return answers

    monkeypatch.setattr(ImageView, "answers", blurred)
    seg = read(draw((224, 224), *boxes))
    assert sorted(map(tuple, seg.boxes.astype(int))) == boxes


def _filled(size: tuple[int, int], masks: list[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    rows, columns = np.nonzero(np.any(masks, axis=0))
    box = np.zeros(size, dtype=bool)
    box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    return box


def _with_one(answer: PhraseAnswer, rle: Any) -> PhraseAnswer:
    from dataclasses import replace

    return replace(answer, candidates=(Candidate(rle=rle, score=0.95),))


def test_what_only_the_whole_photo_shows(
    read: Callable[..., Segmentation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiles full of one colour say nothing to a model; the whole photo knows better."""

    def shortsighted(view: ImageView, query: Query) -> list[PhraseAnswer]:
        answers = oracle(view, query)
        plain = view.image[..., 0].min() > 0
        return [_with_none(a) if plain else a for a in answers]

    monkeypatch.setattr(ImageView, "answers", shortsighted)
    box = (10, 10, 390, 390)
    seg = read(draw((400, 400), box))
    assert len(seg) == 1
    truth = draw((400, 400), box)[..., 0] > 0
    assert (seg.mask & truth).sum() / (seg.mask | truth).sum() > 0.97


def _with_none(answer: PhraseAnswer) -> PhraseAnswer:
    from dataclasses import replace

    return replace(answer, candidates=(), presence=0.01, gate="presence", reason="presence 0.01")


def test_everything(model: TextSAM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts stay beside their wholes; each comes once."""

    def everything(self: ImageView, settings: object = None, **_: object) -> Segmentation:
        masks = [mask for name in CHANNELS for mask in components(self, name)]
        rles = [encode_mask(mask) for mask in masks]
        return Segmentation(self.size, rles, iou=[0.9] * len(rles), stability=[0.8] * len(rles))

    monkeypatch.setattr(ImageView, "everything", everything)
    photo = draw((224, 224), (40, 20, 120, 60)) | draw((224, 224), (50, 30, 110, 50), colour="blue")
    seg = open_tiled(model.parts, photo, settings=GRID).everything()
    assert sorted(map(tuple, seg.boxes.astype(int))) == [(40, 20, 120, 60), (50, 30, 110, 50)]
    assert seg.labels == [None, None]
    assert seg.iou == pytest.approx([0.9, 0.9])
    assert np.isnan(seg.scores).all()


def test_a_photo_of_one_tile_is_an_ordinary_view(model: TextSAM, photo: Photo) -> None:
    tiled, plain = open_tiled(model.parts, photo), model.open(photo)
    assert tiled.fits
    for options in ({}, {"threshold": 0.05}, {"strategy": "prompt"}, {"exclude": "dog"}):
        ours, theirs = tiled.segment(text="cat", **options), plain.segment(text="cat", **options)
        assert ours == theirs
        assert len(ours.answers[0].candidates) == len(theirs.answers[0].candidates)


def test_the_model_itself_through_tiles(model: TextSAM) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (150, 210, 3), dtype=np.uint8)
    view = open_tiled(model.parts, noise, settings=GRID)
    seg = view.segment(text=["cat", "dog"], threshold=0.01, exclude="cow")
    assert set(seg.presence) == {"cat", "dog"}
    assert len(seg.answers) == 2
    assert all(rle.size == (150, 210) for rle in seg.rles)
    again = view.segment(text=["cat", "dog"], threshold=0.01, exclude="cow")
    assert seg == again
    assert "6 tiles" in repr(view)


def test_what_cannot_be_meant(model: TextSAM, handless_model: TextSAM) -> None:
    view = open_tiled(model.parts, draw((224, 224)), settings=GRID)
    with pytest.raises(PromptError, match="one object"):
        view.segment(text="cat", strategy="prompt")
    with pytest.raises(PromptError, match="overlap"):
        view.segment(text="cat", overlap="some")  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="threshold"):
        view.segment(text="cat", threshold=2)
    with pytest.raises(WeightsError, match="no CLIP"):
        open_tiled(handless_model.parts, draw((224, 224)), settings=GRID).segment(text="cat")
    with pytest.raises(ImageError):
        open_tiled(model.parts, np.zeros((3, 200, 3), dtype=np.uint8))


def test_presence_is_lowered_for_many_tiles() -> None:
    def of(presence: float, tiles: int) -> float:
        return lowered(
            PhraseAnswer(phrase="x", strategy="auto", presence=presence), tiles=tiles
        ).presence

    assert of(0.7, 1) == pytest.approx(0.7)
    assert of(0.9, 9) == pytest.approx(0.75)  # odds 9 to 1 by the square root of 9
    assert of(0.0, 100) < 1e-6
    assert of(1.0, 100) > 0.999
    assert math.isnan(of(math.nan, 4))


def test_memory_maps_are_not_copied(model: TextSAM, tmp_path: Any, drawn: None) -> None:
    path = tmp_path / "photo.npy"
    np.save(path, draw((224, 224), (40, 20, 120, 60)))
    photo = np.load(path, mmap_mode="r")
    view = open_tiled(model.parts, photo, settings=GRID)
    assert isinstance(view, TiledView)
    assert np.shares_memory(view.image, photo)
    assert rle_area(view.segment(text="red").rles[0]) == 80 * 40
