"""What `like=` and `unlike=` take, and what `unlike` takes away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from textsam.errors import PromptError
from textsam.inference.model import TextSAM
from textsam.inference.strategies.like import Concept
from textsam.results.segmentation import Segmentation
from textsam.values.calibration import Calibration
from textsam.values.judge import Curve, StrategyCurves
from textsam.values.rle import encode_mask
from textsam.values.settings import AUTOMATIC_PRESETS, AutomaticSettings, TextSettings

from ..conftest import build_clip, build_model

Photo = NDArray[np.uint8]
BOX = (5, 5, 25, 30)
OPEN = StrategyCurves(
    presence=Curve(weights={}, bias=0.0),
    score=Curve(weights={"clip": 1.0}, bias=0.0),
    min_presence=0.0,
    min_score=0.0,
)


@pytest.fixture(autouse=True)
def _loose(monkeypatch: pytest.MonkeyPatch) -> None:
    loose = AutomaticSettings(
        points_per_side=3, pred_iou_thresh=-99.0, stability_score_thresh=0.0, box_nms_thresh=1.0
    )
    monkeypatch.setitem(AUTOMATIC_PRESETS, "fast", loose)


@pytest.fixture(scope="module")
def other() -> Photo:
    return np.random.default_rng(7).integers(0, 256, (64, 40, 3), dtype=np.uint8)


def open_model(kind: str = "dense") -> TextSAM:
    if kind == "dense":
        model = build_model()
        model.text_settings = TextSettings(threshold=0.001, min_quality=0.0)
        model.calibration = Calibration(strategies={"like": OPEN})
        return model
    sam = build_model(text=False).sam
    return TextSAM(sam, clip=build_clip() if kind == "clip" else None, name=kind)


def mask_at(size: tuple[int, int], box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    x0, y0, x1, y1 = box
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = True
    return mask


FORMS: dict[str, Callable[[Photo, Path], Any]] = {
    "mask": lambda photo, path: (photo, mask_at((64, 40), BOX)),
    "mask of 0 and 255": lambda photo, path: (photo, mask_at((64, 40), BOX).astype(np.uint8) * 255),
    "masks": lambda photo, path: (photo, mask_at((64, 40), BOX)[None]),
    "code": lambda photo, path: (photo, encode_mask(mask_at((64, 40), BOX))),
    "list": lambda photo, path: [(photo, mask_at((64, 40), BOX))],
    "file": lambda photo, path: (str(path), mask_at((64, 40), BOX)),
    "path": lambda photo, path: [path, mask_at((64, 40), BOX)],
    "picture": lambda photo, path: (Image.fromarray(photo), mask_at((64, 40), BOX)),
    "tensor": lambda photo, path: (
        torch.from_numpy(photo),
        torch.from_numpy(mask_at((64, 40), BOX)),
    ),
    "result": lambda photo, path: Segmentation(
        (64, 40), [encode_mask(mask_at((64, 40), BOX))], image=photo
    ),
    "result without photo": lambda photo, path: (
        path,
        Segmentation((64, 40), [encode_mask(mask_at((64, 40), BOX))]),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_mask_in_every_form_is_the_same_example(form: str, other: Photo, tmp_path: Path) -> None:
    path = tmp_path / "other.png"
    Image.fromarray(other).save(path)
    model = open_model("clip")
    wanted = model.concept(FORMS["mask"](other, path))
    concept = model.concept(FORMS[form](other, path))
    torch.testing.assert_close(concept.clip, wanted.clip)
    torch.testing.assert_close(concept.latent, wanted.latent)


@pytest.mark.parametrize("place", [BOX, [*BOX], np.array(BOX), (12, 20), np.float32([12, 20])])
def test_a_box_or_a_point_is_what_the_model_segments_there(place: Any, other: Photo) -> None:
    model = open_model()
    view = model.open(other)
    where = {"box": place} if len(place) == 4 else {"points": [place]}
    mask = view.segment(**where)[0]  # type: ignore[arg-type]
    wanted = model.concept(mask)
    torch.testing.assert_close(model.concept((other, place)).clip, wanted.clip)
    # In the photo that is segmented no photo is named.
    assert view.segment(like=place) == view.segment(like=(view.image, place))
    both = view.segment(like=[place, place])
    assert both.rles == view.segment(like=np.array([place, place])).rles


def test_a_phrase_gives_its_masks_and_its_name(other: Photo) -> None:
    model = open_model()
    model.calibration = Calibration(strategies={"like": OPEN, "auto": OPEN_AUTO})
    found = model.segment(other, text="wheel")
    assert len(found)
    concept = model.concept((other, "wheel"))
    assert concept.name == "wheel"
    torch.testing.assert_close(concept.clip, model.concept(found).clip)


OPEN_AUTO = StrategyCurves(
    presence=Curve(weights={}, bias=0.0),
    score=Curve(weights={}, bias=0.0),
    min_presence=0.0,
    min_score=0.0,
)


@pytest.mark.parametrize("kind", ["dense", "clip", "bare"])
def test_masks_nearer_to_unlike_are_dropped_and_no_others(
    kind: str, photo: Photo, other: Photo
) -> None:
    model = open_model(kind)
    view = model.open(photo)
    like = (other, mask_at((64, 40), BOX))
    unlike = [(other, (20, 30, 39, 60)), (photo, (10, 10, 60, 40))]
    concept = model.concept(like, unlike)
    assert concept.negatives is not None
    [plain] = view.segment(like=like, threshold=0.001).answers
    [answer] = view.segment(like=like, unlike=unlike, threshold=0.001).answers
    before = {item.rle for item in plain.kept}
    lost = {item.rle for item in answer.candidates if item.gate == "exclusion"}
    kept = {item.rle for item in answer.kept}
    # Automatic masks that a dropped one covered may come back, and an answer forgets bad ones.
    assert kept == before - lost if kind == "dense" else not kept & lost
    for item in answer.candidates:
        if item.rival is not None:
            assert (item.gate == "exclusion") == (item.rival[2] > item.rival[1])
    # What is unlike itself goes.
    mask = plain.kept[0]
    rows = Segmentation(view.size, [mask.rle], image=view.image)
    [gone] = view.segment(like=like, unlike=rows, threshold=0.001).answers
    assert mask.rle not in {item.rle for item in gone.kept}


def test_what_unlike_leaves_nothing_of_says_so(photo: Photo, other: Photo) -> None:
    view = open_model().open(photo)
    like = (other, mask_at((64, 40), BOX))
    nothing = view.segment(like=like, unlike=view.segment(like=like))
    assert len(nothing) == 0
    why = nothing.explain()
    assert why.gate("like this") == "exclusion"
    assert why.advice("like this") == {"unlike": None}
    assert "leave out unlike" in why.sentence("like this")


def test_one_photo_several_photos_and_a_concept_agree(photo: Photo, other: Photo) -> None:
    model = open_model()
    like, unlike = (other, mask_at((64, 40), BOX)), (other, (20, 30, 39, 60))
    wanted = model.segment(photo, like=like, unlike=unlike)
    assert model.segment([photo], like=like, unlike=unlike) == [wanted]
    assert model.segment(photo, like=model.concept(like, unlike)) == wanted
    assert model.segment(photo, like=model.concept(like), unlike=unlike) == wanted
    later: Concept = model.concept(model.concept(like), unlike)
    assert model.segment(photo, like=later) == wanted


def test_each_photo_of_examples_is_encoded_once(
    photo: Photo, other: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model()
    view = model.open(photo)
    seen: list[int] = []
    encode = model.sam.encode_image

    def counted(pixels: Any) -> Any:
        seen.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(model.sam, "encode_image", counted)
    view.segment(like=[(other, BOX), (other, (12, 20))], unlike=[(other, (20, 30, 39, 60)), BOX])
    assert sum(seen) == 1


def test_unlike_and_places_that_do_not_fit(photo: Photo, other: Photo) -> None:
    model = open_model()
    with pytest.raises(PromptError, match=r"unlike goes with like.*exclude="):
        model.segment(photo, text="wheel", unlike=(other, BOX))
    with pytest.raises(PromptError, match="several photos are asked"):
        model.segment([photo, other], like=BOX)
    with pytest.raises(PromptError, match="unlike has a place without its photo"):
        model.concept((other, BOX), unlike=BOX)
    with pytest.raises(PromptError, match="unlike is a dict"):
        model.segment(photo, like=(other, BOX), unlike={})  # type: ignore[arg-type]
    mixed = Segmentation(
        (64, 40), [encode_mask(mask_at((64, 40), BOX))] * 2, labels=["a", "b"], image=other
    )
    assert model.concept((other, BOX), unlike=mixed).negatives is not None  # of any kinds
