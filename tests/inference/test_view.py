"""A view answers in original pixels, keeps a dialogue and refuses what cannot be meant."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from textsam import Segmentation
from textsam.errors import PromptError, WeightsError
from textsam.inference.model import TextSAM
from textsam.inference.photo.zoom import predict
from textsam.values.prompts import make_prompt

Photo = NDArray[np.uint8]


def test_every_prompt_gives_masks_of_the_original_size(model: TextSAM, photo: Photo) -> None:
    rough = np.zeros((50, 90), bool)
    rough[10:30, 20:60] = True
    with model.open(photo) as view:
        results = {
            "point": view.segment(points=[(30, 20)]),
            "points": view.segment(points=[(30, 20), (60, 40)], labels=[1, 0]),
            "box": view.segment(box=(10, 5, 60, 40)),
            "mask": view.segment(mask=rough),
            "mix": view.segment(text="dog", points=[(30, 20)], box=(10, 5, 60, 40), mask=rough),
            "phrase": view.segment(text="dog", strategy="prompt"),
        }
    for name, result in results.items():
        assert isinstance(result, Segmentation), name
        assert result.size == (50, 90)
        assert result.masks.shape[1:] == (50, 90)
        assert np.isfinite(result.iou).all()
    assert len(results["point"]) <= 3
    assert len(results["box"]) <= 1
    assert set(results["mix"].labels) <= {"dog"}


def test_multimask_can_be_asked_for_and_declined(model: TextSAM, photo: Photo) -> None:
    view = model.open(photo)
    prediction = view.predict(points=[(30, 20)])
    three = view.segment(points=[(30, 20)], multimask=True)
    one = view.segment(points=[(30, 20)], multimask=False)
    assert list(three.iou) == sorted(three.iou, reverse=True)
    np.testing.assert_allclose(three.iou, np.sort(prediction.iou[1:])[::-1], rtol=1e-6)
    np.testing.assert_allclose(one.iou, prediction.iou[:1], rtol=1e-6)


def test_the_same_question_gets_the_same_answer(model: TextSAM, photo: Photo) -> None:
    view, other = model.open(photo), model.open(photo)
    a = view.predict(points=[(30, 20)])
    view.click(5, 5)
    view.segment(text="dog", strategy="prompt")
    b = view.predict(points=[(30, 20)])
    c = other.predict(points=[(30, 20)])
    np.testing.assert_array_equal(a.logits, b.logits)
    np.testing.assert_array_equal(a.logits, c.logits)


def test_clicks_extend_the_dialogue_and_undo_takes_them_back(model: TextSAM, photo: Photo) -> None:
    view = model.open(photo)
    first = view.segment(box=(10, 5, 60, 40))
    second = view.click(30, 20)
    third = view.click(80, 45, foreground=False)
    assert [len(step.prompt.points) for step in view.dialogue.steps] == [0, 1, 2]
    assert view.dialogue.steps[-1].prompt.box is not None
    np.testing.assert_array_equal(view.undo().masks, second.masks)
    np.testing.assert_array_equal(view.undo().masks, first.masks)
    assert len(view.undo()) == 0
    with pytest.raises(PromptError, match="nothing to undo"):
        view.undo()
    assert third.size == first.size


def test_a_click_feeds_the_last_logits_back(model: TextSAM, photo: Photo) -> None:
    view = model.open(photo)
    view.segment(box=(10, 5, 60, 40))
    before = view.dialogue.steps[-1]
    assert before.mask is not None
    clicked = view.click(30, 20)
    prompt = make_prompt(view.size, points=[(30, 20)], box=(10, 5, 60, 40))
    expected = predict(view.photo, prompt, windows=view.windows, previous=before.mask)
    np.testing.assert_array_equal(clicked.mask, expected.logits[0] > 0)


def test_a_click_after_a_phrase_keeps_the_phrase(model: TextSAM, photo: Photo) -> None:
    view = model.open(photo)
    view.segment(text="dog")
    view.click(30, 20)
    assert view.dialogue.steps[-1].prompt.text == "dog"


def test_a_first_click_must_be_on_the_object(model: TextSAM, photo: Photo) -> None:
    with pytest.raises(PromptError, match="first click"):
        model.open(photo).click(3, 3, foreground=False)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({}, "nothing to segment"),
        ({"text": ""}, "empty"),
        ({"text": "   "}, "phrase"),
        ({"text": 7}, "phrase"),
        ({"text": ["dog", ""]}, "phrase|empty"),
        ({"points": [(90.5, 3)]}, "outside the image"),
        ({"points": [(-1, 3)]}, "outside the image"),
        ({"points": [(float("nan"), 3)]}, "(?i)nan"),
        ({"points": [(3, 3)], "labels": [2]}, "label"),
        ({"points": [(3, 3)], "labels": [1, 0]}, "label"),
        ({"box": (5, 5, 5, 9)}, "empty"),
        ({"box": (5, float("inf"), 9, 9)}, "(?i)inf|finite|nan"),
        ({"box": (200, 200, 210, 220)}, "outside"),
        ({"mask": np.ones((4, 4), bool)}, "50"),
        ({"text": ["dog", "cat"], "points": [(3, 3)]}, "one object"),
        ({"text": "dog", "labels": [1]}, "labels"),
        ({"text": "dog", "strategy": "magic"}, "strategy"),
        ({"text": "dog", "threshold": 1.5}, "probability"),
    ],
)
def test_bad_prompts_are_named(
    model: TextSAM, photo: Photo, prompts: dict[str, object], message: str
) -> None:
    view = model.open(photo)
    with pytest.raises(PromptError, match=message):
        view.segment(**prompts)  # type: ignore[arg-type]
    assert view.segment(box=(1, 1, 20, 20)).size == (50, 90)


def test_a_sam_without_text_says_how_to_get_it(handless_model: TextSAM, photo: Photo) -> None:
    view = handless_model.open(photo)
    with pytest.raises(WeightsError, match='from_pretrained\\("tiny"\\)'):
        view.segment(text="dog")
    assert view.segment(points=[(3, 3)]).size == (50, 90)


def test_points_are_scaled_to_the_model_frame(model: TextSAM) -> None:
    """Twice the photo and twice the coordinates is the same question."""
    y, x = np.mgrid[0:32, 0:64]
    waves = [np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)]
    small = np.stack([(127 * (1 + wave)).astype(np.uint8) for wave in waves], axis=-1)
    big = small.repeat(2, 0).repeat(2, 1)
    a = model.open(small).predict(points=[(20, 10)])
    b = model.open(big).predict(points=[(40, 20)])
    wrong = model.open(big).predict(points=[(20, 10)])
    # Twice as large and back is not exactly the same picture, so neither are the logits.
    right, other = np.abs(a.low_res - b.low_res).max(), np.abs(a.low_res - wrong.low_res).max()
    assert right < 0.3 * other


def test_features_are_made_once(
    model: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    encode = model.sam.encode_image
    monkeypatch.setattr(
        model.sam, "encode_image", lambda x: calls.append(1) or encode(x), raising=True
    )
    view = model.open(photo)
    view.segment(points=[(3, 3)])
    view.segment(text="dog")
    view.click(4, 4)
    assert len(calls) == 1
    assert not any(p.requires_grad and p.grad is not None for p in model.sam.parameters())
    assert not view.photo.features.embedding.requires_grad
    assert torch.is_grad_enabled()


def test_a_fork_shares_the_encoding_and_nothing_else(model, photo) -> None:
    view = model.open(photo)
    view.segment(points=[(20, 20)])
    first, kept = view.click(60, 30), view.dialogue.steps
    other = view.fork()
    assert other.photo is view.photo
    assert other.dialogue.steps == ()
    other.segment(points=[(70, 40)])
    assert view.dialogue.steps is kept and view.dialogue.steps[-1].result is first
    assert other.segment(points=[(20, 20)]) == model.open(photo).segment(points=[(20, 20)])


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("predict", 'segment(image, "wheel")'),
        ("set_image", "open(image)"),
        ("generate", "everything"),
    ],
)
def test_methods_of_other_libraries_say_what_to_type(name: str, typed: str) -> None:
    model = TextSAM.from_pretrained("tiny")
    with pytest.raises(AttributeError, match=re.escape(typed)):
        getattr(model, name)
    assert not hasattr(model, "no_such_thing") and pickle.loads(pickle.dumps(model)).name == "tiny"
