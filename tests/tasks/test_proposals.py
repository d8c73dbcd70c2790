"""Object proposals: their order, their number, what is dropped, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from textsam.errors import PromptError
from textsam.inference.automatic import generator as automatic
from textsam.inference.automatic.generator import automatic_masks
from textsam.inference.model import TextSAM
from textsam.results.segmentation import Segmentation
from textsam.tasks import proposals as module
from textsam.tasks.proposals import PAPER, proposal_ranks, proposals, with_points
from textsam.values.rle import encode_mask

Photo = NDArray[np.uint8]
# Without NMS, and with a small offset: a random model gives much the same box everywhere, and small
# logits.
GRID = replace(with_points(5), box_nms_thresh=1.0, stability_score_offset=0.01)


def test_the_papers_settings() -> None:
    assert (PAPER.points_per_side, PAPER.box_nms_thresh, PAPER.crop_n_layers) == (64, 0.9, 0)
    assert (
        PAPER.pred_iou_thresh < -1e30 and PAPER.stability_score_thresh == 0 and PAPER.max_area == 1
    )
    assert with_points(3) == replace(PAPER, points_per_side=3)


def test_ranks_fall_and_are_the_mean_of_two_figures(model: TextSAM, photo: Photo) -> None:
    found = proposals(model, photo, settings=GRID)
    ranks = proposal_ranks(found)
    assert len(found) > 5
    np.testing.assert_allclose(ranks, (found.iou + found.stability) / 2, rtol=1e-6)
    assert (np.diff(ranks) <= 0).all()
    assert len(set(found.stability.tolist())) > 1  # so the order is not that of one figure
    assert np.isnan(found.scores).all() and set(found.labels) == {None}


def test_every_mask_after_nms_is_there_but_the_empty_ones(model: TextSAM, photo: Photo) -> None:
    view = model.open(photo)
    everything = automatic_masks(view.photo, settings=GRID)
    found = proposals(view, settings=GRID)
    assert sorted(rle.counts for rle in found.rles) == sorted(
        rle.counts for rle in everything.rles if not rle.is_empty
    )


def test_empty_masks_are_dropped_and_ties_go_to_the_predicted_iou(
    model: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = np.zeros((50, 90), bool)
    one[:3, :3] = True
    two = np.roll(one, 9, 1)
    masks = [np.zeros_like(one), one, two]
    made = Segmentation(
        (50, 90), [encode_mask(m) for m in masks], iou=[1.0, 0.25, 0.75], stability=[1, 0.75, 0.25]
    )
    monkeypatch.setattr(module, "automatic_masks", lambda *a, **k: made)
    found = proposals(model, photo)
    assert found.iou.tolist() == [0.75, 0.25]
    assert found.rles == [encode_mask(two), encode_mask(one)]


def test_most_keeps_the_first(model: TextSAM, photo: Photo) -> None:
    view = model.open(photo)
    every = proposals(view, settings=GRID)
    assert proposals(view, settings=GRID, max_masks=3) == every[:3]
    assert proposals(view, settings=GRID, max_masks=10**6) == every


def test_a_model_and_an_open_photo_give_the_same(model: TextSAM, photo: Photo) -> None:
    assert proposals(model, photo, settings=GRID) == proposals(model.open(photo), settings=GRID)


def test_batches_do_not_change_the_masks(
    model: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = model.open(photo)
    whole = proposals(view, settings=GRID)
    monkeypatch.setattr(automatic, "_UPSCALED_BYTES", 1)
    parts = proposals(view, settings=replace(GRID, points_per_batch=3))
    assert parts.rles == whole.rles
    np.testing.assert_allclose(parts.iou, whole.iou, atol=1e-5)


def test_no_more_logits_are_upscaled_at_once_than_said(
    model: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = automatic.to_original_frame

    def counted(logits, frame):
        seen.append(len(logits))
        return real(logits, frame)

    monkeypatch.setattr(automatic, "to_original_frame", counted)
    # The photo has 4500 pixels and the model's frame 4096: two masks of four bytes a pixel fit.
    monkeypatch.setattr(automatic, "_UPSCALED_BYTES", 2 * 4 * 4500)
    proposals(model, photo, settings=GRID)
    assert max(seen) == 2 and sum(seen) == 3 * 25
    # A small photo is upscaled to the model's frame on its way, so that is what counts.
    seen.clear()
    proposals(model, photo[:8, :8].copy(), settings=GRID)
    assert max(seen) == 2


def test_progress_counts_the_points(model: TextSAM, photo: Photo) -> None:
    told = []
    proposals(model, photo, settings=GRID, progress=lambda *n: told.append(n))
    assert told[-1] == (25, 25)


def test_what_cannot_be_meant_is_refused(model: TextSAM, photo: Photo) -> None:
    with pytest.raises(PromptError, match="at least 1"):
        proposals(model, photo, max_masks=0)
    with pytest.raises(PromptError, match="no image"):
        proposals(model)
    with pytest.raises(PromptError, match="photo alone"):
        proposals(model.open(photo), photo)
    with pytest.raises(PromptError, match="TiledView; wanted a TextSAM"):
        proposals(model.open_tiled(photo))  # type: ignore[arg-type]
