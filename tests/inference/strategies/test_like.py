"""`segment(like=...)` on random models: examples in place of a phrase."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from textsam.errors import PromptError
from textsam.inference.model import TextSAM
from textsam.inference.photo.sam_embedding import in_frame, pooled_latents
from textsam.inference.strategies import map_points as auto
from textsam.results.segmentation import Segmentation
from textsam.values.calibration import Calibration
from textsam.values.judge import Curve, StrategyCurves
from textsam.values.rle import encode_mask
from textsam.values.settings import AUTOMATIC_PRESETS, AutomaticSettings, TextSettings

from ..conftest import build_clip, build_model

Photo = NDArray[np.uint8]
ALL = AutomaticSettings(
    points_per_side=4, pred_iou_thresh=-99.0, stability_score_thresh=0.0, box_nms_thresh=1.0
)
OPEN = StrategyCurves(
    presence=Curve(weights={}, bias=0.0),
    score=Curve(weights={"clip": 1.0}, bias=0.0),
    min_presence=0.0,
    min_score=0.0,
)


@pytest.fixture(autouse=True)
def _loose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights are sure of nothing."""
    monkeypatch.setitem(AUTOMATIC_PRESETS, "fast", ALL)


@pytest.fixture
def other() -> Photo:
    return np.random.default_rng(7).integers(0, 256, (64, 40, 3), dtype=np.uint8)


def example(photo: Photo, *, box: tuple[int, int, int, int], label: str | None = "wheel") -> object:
    return masks_of(photo, [box], [label])[0]


def masks_of(
    photo: Photo | None, boxes: list[tuple[int, int, int, int]], labels: list[str | None]
) -> Segmentation:
    size = (64, 40) if photo is None else photo.shape[:2]
    rles = []
    for x0, y0, x1, y1 in boxes:
        mask = np.zeros(size, dtype=bool)
        mask[y0:y1, x0:x1] = True
        rles.append(encode_mask(mask))
    return Segmentation(size, rles, labels=labels, image=photo)


def with_open_gates(model: TextSAM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "calibration", Calibration(strategies={"like": OPEN}))
    settings = TextSettings(threshold=0.001, min_quality=0.0)
    monkeypatch.setattr(model, "text_settings", settings)


@pytest.fixture(params=["dense", "token", "clip", "sam"])
def any_model(request: pytest.FixtureRequest) -> TextSAM:
    """With a map; with the paper's pathway; with a CLIP only; a bare SAM."""
    if request.param in ("dense", "token"):
        return build_model(dense=request.param == "dense")
    sam = build_model(text=False).sam
    return TextSAM(sam, clip=build_clip() if request.param == "clip" else None, name=request.param)


def test_every_model_takes_examples(any_model: TextSAM, photo: Photo, other: Photo) -> None:
    found = any_model.segment(photo, like=example(other, box=(5, 5, 25, 30)), threshold=0.01)
    [answer] = found.answers
    assert (answer.phrase, answer.strategy) == ("wheel", "like")
    assert set(found.labels) <= {"wheel"}
    assert set(found.presence) == {"wheel"}
    spaces = {"latent"} if any_model.clip is None else {"latent", "clip"}
    for candidate in answer.candidates:
        if candidate.gate in (None, "score"):
            assert spaces <= set(candidate.evidence)
            assert 0 <= candidate.score <= 1
        if candidate.gate is None:
            assert candidate.score >= 0.01


def test_a_mask_is_most_like_itself(photo: Photo) -> None:
    """A bare SAM: the automatic mask that serves as example is found with a cosine of 1."""
    model = build_model(text=False)
    view = model.open(photo)
    own = view.everything()
    own = own[own.areas > 0]
    found = view.segment(like=own[3], threshold=0.5)
    [answer] = found.answers
    concept = model.concept(own[3])
    ranked = {c.rle: c.evidence["latent"] for c in answer.candidates}
    assert ranked.get(own[3].rle, max(ranked.values())) == max(ranked.values())
    assert answer.evidence["latent"] == max(ranked.values())
    shares = in_frame(view.photo, own.masks)
    cosines = pooled_latents(view.photo, shares) @ concept.latent
    assert float(cosines[3]) == pytest.approx(1, abs=1e-5)
    scores = [c.score for c in answer.kept]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(min(float(cosines.max()), 0.99), abs=1e-5)


def test_scores_come_from_masked_clip_of_each_mask(
    photo: Photo, other: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model()
    with_open_gates(model, monkeypatch)
    concept = model.concept(example(other, box=(5, 5, 25, 30)))
    found = model.open(photo).segment(like=concept)
    assert len(found)
    assert model.clip is not None
    assert concept.clip is not None
    for item in found:
        [own] = model.clip.encode_masks(photo, [item.mask], expand=1.5)
        cosine = min(max(float(own @ concept.clip), 0.01), 0.99)
        assert item.score == pytest.approx(cosine, abs=1e-4)


def test_a_level_drops_masks_and_says_so(
    photo: Photo, other: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model()
    with_open_gates(model, monkeypatch)
    view, concept = model.open(photo), model.concept(example(other, box=(5, 5, 25, 30)))
    everything = view.segment(like=concept)
    strict = StrategyCurves(
        presence=OPEN.presence, score=OPEN.score, min_presence=0.0, min_score=0.99999
    )
    monkeypatch.setattr(model, "calibration", Calibration(strategies={"like": strict}))
    nothing = model.open(photo).segment(like=concept)
    assert len(everything)
    assert len(nothing) == 0
    assert nothing.masks.dtype == everything.masks.dtype == np.bool_
    assert nothing.scores.dtype == everything.scores.dtype
    assert nothing.answers[0].gate == "score"
    assert "score" in str(nothing.explain())


def test_the_same_for_one_photo_and_a_list(photo: Photo, other: Photo) -> None:
    model = build_model()
    item = example(other, box=(5, 5, 25, 30))
    first, second = model.segment([photo, other], like=item, threshold=0.02)
    assert first == model.segment(photo, like=item, threshold=0.02)
    assert second == model.segment(other, like=model.concept(item), threshold=0.02)


def test_several_examples_are_their_mean(other: Photo, photo: Photo) -> None:
    model = build_model()
    one = masks_of(other, [(5, 5, 25, 30)], ["wheel"])
    two = masks_of(photo, [(10, 10, 60, 40)], ["wheel"])
    first, second = model.concept(one), model.concept(two[0])
    both = model.concept([*one, *two])
    for name in ("clip", "latent"):
        a, b = getattr(first, name), getattr(second, name)
        assert getattr(both, name).norm().item() == pytest.approx(1, abs=1e-5)
        if name == "latent":  # one row an example
            torch.testing.assert_close(both.latent, F.normalize(a + b, dim=0))
    assert both.name == "wheel"
    assert model.concept(masks_of(other, [(5, 5, 25, 30)], [None])).name == "like this"


def test_examples_of_this_photo_need_no_encoding(
    photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model()
    view = model.open(photo)
    item = example(view.image, box=(10, 10, 60, 40))
    again = model.open(photo).segment(like=example(photo.copy(), box=(10, 10, 60, 40)))
    monkeypatch.setattr(model, "open", lambda image: pytest.fail("encoded again"))
    assert view.segment(like=item) == again


def test_a_window_of_the_same_array_is_another_photo() -> None:
    whole = np.random.default_rng(3).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    model = build_model()
    view = model.open(whole[:50])
    item = example(whole[20:70], box=(10, 10, 60, 40))
    apart = model.open(whole[:50]).segment(like=example(whole[20:70].copy(), box=(10, 10, 60, 40)))
    assert view.segment(like=item) == apart


def test_pooled_latents_are_means_of_features(photo: Photo) -> None:
    view = build_model(text=False).open(photo)
    features = view.photo.features.embedding[0]
    side = features.shape[-1]
    masks = torch.zeros(3, side, side)
    masks[0, 1, 2] = 1
    masks[1, :2] = 1
    rows = pooled_latents(view.photo, masks)
    torch.testing.assert_close(rows[0], F.normalize(features[:, 1, 2], dim=0))
    torch.testing.assert_close(rows[1], F.normalize(features[:, :2].mean((1, 2)), dim=0))
    assert not rows[2].any()


def test_a_click_refines_what_an_example_found(
    photo: Photo, other: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model()
    with_open_gates(model, monkeypatch)
    view = model.open(photo)
    found = view.segment(like=example(other, box=(5, 5, 25, 30)))
    inside = np.argwhere(found[0].mask)[0]
    refined = view.click(float(inside[1]), float(inside[0]), foreground=False)
    assert len(refined) <= 1
    assert view.undo() == found


BAD = {
    "no mask": (lambda photo: masks_of(photo, [], []), "has no mask"),
    "no photo": (lambda photo: masks_of(None, [(1, 1, 9, 9)], ["a"])[0], "has no photo"),
    "empty": (lambda photo: example(photo, box=(3, 3, 3, 3)), "is empty"),
    "labels": (
        lambda photo: masks_of(photo, [(1, 1, 9, 9), (9, 9, 20, 20)], ["wheel", "door"]),
        r"like=result\['wheel'\]",
    ),
    "a word": (lambda photo: "wheel", r"like is 'wheel' alone.*like=\('wheel', \(x0"),
    "words": (lambda photo: ["wheel", "door"], "like is 'wheel' alone"),
    "a photo": (lambda photo: photo, "like is photo alone"),
    "a dictionary": (lambda photo: {"box": (1, 1, 9, 9)}, "like is a dict"),
    "three numbers": (lambda photo: (1, 2, 3), r"place of shape \(3,\)"),
    "a box outside": (lambda photo: (photo, (90, 90, 99, 99)), "outside the image"),
    "a mask of another size": (
        lambda photo: (photo, np.ones((3, 3), bool)),
        r"mask has shape \(3, 3\); wanted \(64, 40\)",
    ),
    "a result of another size": (
        lambda photo: (photo, masks_of(np.zeros((9, 9, 3), np.uint8), [(1, 1, 3, 3)], ["a"])),
        r"has size \(9, 9\), its photo \(64, 40\)",
    ),
    "what is not there": (lambda photo: (photo, "giraffe"), "finds no 'giraffe'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_examples(photo: Photo, other: Photo, name: str) -> None:
    make, message = BAD[name]
    view = build_model().open(photo)
    with pytest.raises(PromptError, match=message):
        view.segment(like=make(other))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "more",
    [
        {"text": "wheel"},
        {"points": [(1, 1)]},
        {"exclude": "door"},
        {"strategy": "rank"},
        {"multimask": True},
    ],
)
def test_like_stands_alone(photo: Photo, other: Photo, more: dict[str, object]) -> None:
    view = build_model().open(photo)
    with pytest.raises(PromptError, match="like replaces text"):
        view.segment(like=example(other, box=(1, 1, 9, 9)), **more)  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="probability"):
        view.segment(like=example(other, box=(1, 1, 9, 9)), threshold=2.0)  # type: ignore[arg-type]


def test_a_concept_belongs_to_its_model(photo: Photo, other: Photo) -> None:
    concept = build_model().concept(example(other, box=(1, 1, 9, 9)))  # type: ignore[arg-type]
    bare = build_model(text=False)
    with pytest.raises(PromptError, match=r"made by model 'random', and this is 'no-text'"):
        bare.segment(photo, like=concept)


def test_without_a_calibration_the_map_counts(photo: Photo, other: Photo) -> None:
    model = build_model()
    found = model.segment(photo, like=example(other, box=(5, 5, 25, 30)))
    assert found.answers[0].levels.min_presence == auto.DEFAULT_CURVES.min_presence
    assert found.answers[0].levels.min_score == auto.DEFAULT_CURVES.min_score
