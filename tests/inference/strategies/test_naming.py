"""`everything(names=[...])`: the best name of each mask, or none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from textsam.errors import PromptError, WeightsError
from textsam.inference.model import TextSAM
from textsam.inference.strategies.naming import _means_inside
from textsam.inference.strategies.rank import embed_cut, embed_masks
from textsam.values.calibration import Calibration
from textsam.values.judge import Curve, PhraseLevels, StrategyCurves
from textsam.values.rle import encode_mask
from textsam.values.settings import AUTOMATIC_PRESETS, AutomaticSettings

from ..conftest import build_clip, build_model

Photo = NDArray[np.uint8]
NAMES = ["cat", "dog", "wheel"]


@pytest.fixture(autouse=True)
def _loose(monkeypatch: pytest.MonkeyPatch) -> None:
    loose = AutomaticSettings(
        points_per_side=3, pred_iou_thresh=-99.0, stability_score_thresh=0.0, box_nms_thresh=1.0
    )
    monkeypatch.setitem(AUTOMATIC_PRESETS, "fast", loose)


def with_levels(model: TextSAM, presence: float, score: float, **own: PhraseLevels) -> TextSAM:
    curve = Curve(weights={"clip": 1.0}, bias=0.0)
    curves = StrategyCurves(
        presence=curve, score=curve, min_presence=presence, min_score=score, phrases=own
    )
    model.calibration = Calibration(strategies={"everything": curves})
    return model


@pytest.fixture(params=["dense", "clip"])
def model(request: pytest.FixtureRequest) -> TextSAM:
    if request.param == "dense":
        return with_levels(build_model(), 0.0, 0.0)
    return with_levels(TextSAM(build_model(text=False).sam, clip=build_clip(), name="c"), 0.0, 0.0)


def test_every_mask_has_its_best_name(model: TextSAM, photo: Photo) -> None:
    view = model.open(photo)
    plain = view.everything()
    plain = plain[plain.areas > 0]
    named = view.everything(names=NAMES)
    assert named.rles == plain.rles  # the same masks in the same order
    assert set(named.labels) <= set(NAMES)
    assert list(named.presence) == NAMES
    assert ((named.scores >= 0) & (named.scores <= 1)).all()
    # One at a time a mask scores no name higher than the one that it got among all.
    evidence = {a.phrase: {c.rle: c.evidence for c in a.candidates} for a in named.answers}
    for name in NAMES:
        for rle, own in evidence[name].items():
            assert named.labels[named.rles.index(rle)] == name
            assert set(own) == ({"clip", "map"} if model.has_dense_text else {"clip"})
    assert [view.everything(names=NAMES[::-1])[i].label for i in range(len(named))] == named.labels


def test_levels_take_names_away_and_nothing_else(model: TextSAM, photo: Photo) -> None:
    view = model.open(photo)
    every = view.everything(names=NAMES)
    level = float(np.median(every.scores))
    some = view.everything(names=NAMES, threshold=level)
    assert some.rles == every.rles
    assert None in some.labels
    for before, after in zip(every, some, strict=True):
        assert after.label in (before.label, None)
        assert (after.label is None) == math.isnan(after.score)
        if after.label is not None:
            assert after.score >= level
    assert len(view.everything(names=NAMES, threshold=0.9999)) == len(every)
    one = view.everything(names=NAMES, threshold={"The dog": 0.9999})
    assert "dog" not in one.labels
    assert [m.label for m in one if m.label] == [m.label for m in every if m.label != "dog"]


def test_a_name_may_have_its_own_level(photo: Photo) -> None:
    strict = PhraseLevels(min_presence=0.9999, min_score=0.9999)
    model = with_levels(build_model(), 0.0, 0.0, dog=strict)
    named = model.everything(photo, names=NAMES)
    assert "dog" not in named.labels
    assert named.explain().gate("dog") == "presence"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"names": []}, "names is an empty list"),
        ({"names": ["cat", ""]}, r"names\[1\] is ''"),
        ({"names": 3}, "names is int"),
        ({"names": ["cat"], "threshold": 2}, "threshold is 2"),
        ({"names": ["cat"], "threshold": {"bird": 0.5}}, "names 'bird'"),
        ({"threshold": 0.5}, "threshold goes with names"),
    ],
)
def test_bad_names(options: dict[str, object], said: str, photo: Photo) -> None:
    model = build_model()
    for face in (model.open(photo), model.open_tiled(photo, tile=64, overlap=16)):
        with pytest.raises(PromptError, match=said):
            face.everything(**options)  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="no CLIP"):
        build_model(text=False).open(photo).everything(names=["cat"])


def test_masks_of_tiles_get_names(model: TextSAM, photo: Photo) -> None:
    tiled = model.open_tiled(photo, tile=64, overlap=16)
    assert not tiled.fits
    named = tiled.everything(names=NAMES)
    assert named.rles == tiled.everything().rles
    assert set(named.labels) <= set(NAMES)
    assert len(set(named.scores.tolist())) > 1


def test_a_cut_embeds_as_the_whole_photo_does(model: TextSAM, photo: Photo) -> None:
    view = model.open(photo)
    whole = embed_masks(view.photo, view.everything())
    cut = embed_cut(view.photo.parts, photo, view.everything())
    assert cut.masks.rles == whole.masks.rles
    assert whole.embeddings is not None
    assert cut.embeddings is not None
    np.testing.assert_allclose(cut.embeddings.numpy(), whole.embeddings.numpy(), atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 30), st.integers(0, 10_000))
def test_means_inside_are_those_of_the_decoded_mask(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < 0.4
    mask[rng.integers(height), rng.integers(width)] = True
    maps = rng.random((3, height, width)).astype(np.float32)
    wanted = maps[:, mask].mean(1)
    if mask.sum() <= 1024:
        np.testing.assert_allclose(_means_inside(maps, encode_mask(mask)), wanted, rtol=1e-4)
    coarse = maps[:, :1, :1]
    found = _means_inside(coarse, encode_mask(mask))
    np.testing.assert_allclose(found, coarse[:, 0, 0], rtol=1e-5)
