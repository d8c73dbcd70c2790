"""`rank` on random models: any SAM, any CLIP, nothing trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from textsam.errors import WeightsError
from textsam.inference.model import TextSAM
from textsam.inference.strategies import rank
from textsam.values.settings import AUTOMATIC_PRESETS, AutomaticSettings

from ..conftest import build_clip, build_model

Photo = NDArray[np.uint8]
ALL = AutomaticSettings(
    points_per_side=4, pred_iou_thresh=-99.0, stability_score_thresh=0.0, box_nms_thresh=1.0
)


@pytest.fixture(autouse=True)
def _loose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights are sure of nothing."""
    monkeypatch.setitem(AUTOMATIC_PRESETS, "fast", ALL)


@pytest.fixture(scope="module")
def bare() -> TextSAM:
    """A SAM and a CLIP without a pathway."""
    model = build_model(text=False)
    return TextSAM(model.sam, clip=build_clip(), name="bare")


def _set_odds(monkeypatch: pytest.MonkeyPatch, bare: TextSAM, columns: list[float]) -> None:
    """Log odds of every mask, by phrase; the first mask has the most."""

    def contrast(images: torch.Tensor, texts: torch.Tensor, background: object) -> torch.Tensor:
        falling = -torch.arange(len(images), dtype=torch.float32)[:, None]
        return torch.tensor(columns[: len(texts)]) + 0.1 * falling

    monkeypatch.setattr(bare.clip, "contrast", contrast)


def test_auto_is_rank_without_a_pathway(bare: TextSAM, photo: Photo) -> None:
    view = bare.open(photo)
    auto = view.segment(text=["dog", "cat"], threshold=0.01)
    ranked = view.segment(text=["dog", "cat"], threshold=0.01, strategy="rank")
    assert {answer.strategy for answer in auto.answers} == {"rank"}
    assert auto == ranked
    assert set(auto.presence) == {"dog", "cat"}
    with pytest.raises(WeightsError, match='strategy="rank"'):
        view.segment(text="dog", strategy="prompt")


def test_masks_and_embeddings_are_made_once(
    bare: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = bare.open(photo)
    view.segment(text="dog", strategy="rank")
    monkeypatch.setattr(bare.sam, "decode_in_groups", lambda *a: pytest.fail("decoded again"))
    monkeypatch.setattr(bare.clip, "encode_masks", lambda *a, **k: pytest.fail("embedded again"))
    view.segment(text=["cat", "bus"], strategy="rank")


def test_embeddings_are_those_of_the_masks_one_by_one(
    bare: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank, "BATCH", 2)
    view = bare.open(photo)
    ranked = rank.embed_masks(view.photo, view.everything())
    assert len(ranked.masks) > 2
    assert bare.clip is not None
    for mask, row in zip(ranked.masks, ranked.embeddings, strict=True):
        alone = bare.clip.encode_masks(photo, mask.mask[None], expand=1.5)[0]
        torch.testing.assert_close(row, alone, rtol=1e-4, atol=1e-5)


def test_gates(bare: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    view = bare.open(photo)
    _set_odds(monkeypatch, bare, [3.0])
    found = view.segment(text="dog", strategy="rank")
    assert len(found) >= 1
    assert list(found.scores) == sorted(found.scores, reverse=True)
    gates = {c.gate for c in found.answers[0].candidates}
    assert "duplicate" in gates or len(found) == len(view.everything(ALL))
    _set_odds(monkeypatch, bare, [-3.0])
    absent = view.segment(text="dog", strategy="rank")
    assert len(absent) == 0 and absent.answers[0].gate == "presence"
    assert absent.scores.dtype == found.scores.dtype
    _set_odds(monkeypatch, bare, [3.0, 4.0])
    excluded = view.segment(text="dog", exclude="cat", strategy="rank")
    assert len(excluded) == 0 and excluded.answers[0].gate == "exclusion"
    beside = view.segment(text="dog", background="wall", strategy="rank")
    assert beside.answers[0].gate == "background"


def test_a_sam_without_clip_says_what_to_do(handless_model: TextSAM, photo: Photo) -> None:
    with pytest.raises(WeightsError, match="no CLIP"):
        handless_model.open(photo).segment(text="dog")


def test_a_label_map_without_a_pathway_is_painted_from_ranks(
    bare: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    _set_odds(monkeypatch, bare, [3.0, -9.0])
    found = bare.label_map(photo, ["dog", "cat"])
    assert found.names == ("dog", "cat")
    assert found.shares()["dog"] > 0 and found.shares()["cat"] == 0
