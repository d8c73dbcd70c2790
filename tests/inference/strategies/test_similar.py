"""`view.similar` on a random model: which masks, in which order, with which numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from textsam.errors import PromptError
from textsam.inference.model import TextSAM
from textsam.inference.photo.sam_embedding import crop_latents, photo_latents
from textsam.inference.view import ImageView
from textsam.values.rle import decode_rle
from textsam.values.settings import AutomaticSettings

ALL = AutomaticSettings(
    points_per_side=4, pred_iou_thresh=-99.0, stability_score_thresh=0.0, box_nms_thresh=1.0
)


@pytest.fixture
def view(handless_model: TextSAM, photo: NDArray[np.uint8]) -> ImageView:
    return handless_model.open(photo)


def some(view: ImageView) -> Any:
    masks = view.everything(ALL)
    return masks[masks.areas > 0]


def test_similarity_is_the_cosine_of_latents_best_first(view: ImageView) -> None:
    own = some(view)
    found = view.similar(own[2], threshold=-1, settings=ALL)
    assert len(found) == len(own)
    rows = photo_latents(view.photo, own.rles).numpy()
    want = dict(zip(own.rles, rows @ rows[2], strict=True))
    for item in found:
        assert item.similarity == pytest.approx(float(want[item.rle]), abs=1e-5)
    assert (np.diff(found.similarity) <= 0).all()
    assert found.similarity[0] == pytest.approx(1, abs=1e-5)
    assert np.isnan(found.scores).all()  # a cosine is no probability
    assert set(found.labels) == {None} and found.image is not None
    iou = dict(zip(own.rles, own.iou, strict=True))
    assert all(item.iou == iou[item.rle] for item in found)


def test_crops_are_the_papers_latents(view: ImageView) -> None:
    own = some(view)[:3]
    [rows] = crop_latents(view.photo.parts.sam, [(view.image, own.rles)])
    found = view.similar(own[0], threshold=-1, latents="crops", settings=ALL)
    scores = {item.rle: item.similarity for item in found}
    for rle, cosine in zip(own.rles, (rows @ rows[0]).tolist(), strict=True):
        assert scores[rle] == pytest.approx(cosine, abs=1e-5)


def test_a_higher_threshold_gives_the_first_of_the_same(view: ImageView) -> None:
    own = some(view)
    every = view.similar(own[0], threshold=-1, settings=ALL)
    middle = float(np.median(every.similarity))
    fewer = view.similar(own[0], threshold=middle, settings=ALL)
    assert 0 < len(fewer) < len(every)
    assert fewer == every[: len(fewer)]
    assert (fewer.similarity >= middle).all()


def test_any_form_of_a_mask_also_one_that_nobody_found(view: ImageView) -> None:
    item = some(view)[1]
    want = view.similar(item, threshold=-1, settings=ALL)
    assert view.similar(item.rle, threshold=-1, settings=ALL) == want
    assert view.similar(decode_rle(item.rle), threshold=-1, settings=ALL) == want
    drawn = np.zeros(view.size, bool)
    drawn[3:9, 70:80] = True
    assert len(view.similar(drawn, threshold=-1, settings=ALL)) == len(want)


def test_nothing_is_alike_enough(view: ImageView, monkeypatch: pytest.MonkeyPatch) -> None:
    item = some(view)[0]
    nobody = some(view)[:0]
    monkeypatch.setattr(view, "everything", lambda settings: nobody)
    found = view.similar(item, settings=ALL)
    assert len(found) == 0 and found.scores.dtype == np.float32 and found.size == view.size


def test_what_cannot_be_meant_is_said(view: ImageView) -> None:
    good = np.ones(view.size, bool)
    mask: Any
    for mask, message in (
        (~good, "is empty"),
        (good[:5], "segment\\(like=mask\\)"),
        (good.astype(float), "mask > 0"),
        ("mask", "mask is str"),
    ):
        with pytest.raises(PromptError, match=message):
            view.similar(mask)
    with pytest.raises(PromptError, match="threshold=2"):
        view.similar(good, threshold=2)
    with pytest.raises(PromptError, match="latents="):
        view.similar(good, latents="clip")  # type: ignore[arg-type]
