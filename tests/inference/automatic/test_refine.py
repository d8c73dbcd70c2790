"""The second look at automatic masks: equal to asking one by one, whatever the batches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from textsam.inference.automatic import generator as module
from textsam.inference.automatic.generator import AutomaticReport, automatic_masks, refine_masks
from textsam.inference.automatic.point_grid import (
    PointMasks,
    box_nms,
    cell_boxes,
    decode_points,
    point_grid,
)
from textsam.inference.model import TextSAM
from textsam.inference.photo.prediction import MaskLogits, Prediction
from textsam.inference.view import ImageView
from textsam.values.settings import AutomaticSettings

ALL = AutomaticSettings(
    points_per_side=4,
    pred_iou_thresh=-99.0,
    stability_score_thresh=0.0,
    box_nms_thresh=1.0,
    refine=True,
)


def _first(view: ImageView) -> PointMasks:
    [answers] = decode_points(view.photo, point_grid(4), batch=99)
    return answers


def _looked(
    view: ImageView, settings: AutomaticSettings
) -> tuple[list[PointMasks], dict[str, int]]:
    report = AutomaticReport()
    batches = decode_points(view.photo, point_grid(4), batch=settings.points_per_batch)
    return list(refine_masks(view.photo, batches, settings=settings, report=report)), report.after


@pytest.mark.parametrize("alike", [1.0, 0.85, 0.5])
def test_each_mask_is_what_its_own_logits_box_and_point_give(
    model: TextSAM, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch, alike: float
) -> None:
    """Asked are the best of those whose boxes differ, by falling predicted IoU, one by one."""
    monkeypatch.setattr(module, "_ALIKE", alike)
    view = model.open(photo)
    first = _first(view)
    filled, boxes = cell_boxes(first.logits, view.frame)
    where = torch.nonzero(filled)[:, 0]
    order = where[box_nms(boxes[where], first.iou[where], alike)].tolist()
    assert len(order) == len(where) > 10 or alike < 1
    answers, counts = _looked(view, ALL)
    logits, iou = (torch.cat([getattr(a, name) for a in answers]) for name in ("logits", "iou"))
    assert len(iou) == len(order) == counts["alike"] == counts["iou again"]
    for found, found_iou, k in zip(logits, iou, order, strict=True):
        low_res = first.logits[k].half().float()
        cell = view.frame.image_size / low_res.shape[-1]
        corners = (boxes[k] * cell).reshape(2, 2).numpy().astype(np.float32)
        prediction = view.predict(
            points=view.frame.points_to_original(first.points[k][None].numpy()),
            box=view.frame.points_to_original(corners).reshape(4),
            previous=Prediction(
                masks=(MaskLogits(frame=view.frame, grids=low_res[None].numpy()),),
                iou=np.zeros(1, np.float32),
            ),
        )
        np.testing.assert_allclose(found.numpy(), prediction.low_res[0], atol=1e-3)
        assert float(found_iou) == pytest.approx(float(prediction.iou[0]), abs=1e-4)


def test_boxes_leave_the_padding_out(model: TextSAM, photo: NDArray[np.uint8]) -> None:
    view = model.open(photo)  # 50 x 90, so that the lower part of the frame is padding
    first = _first(view)
    filled, boxes = cell_boxes(first.logits, view.frame)
    rows = round(view.frame.resized[0] * first.logits.shape[-1] / view.frame.image_size)
    assert rows < first.logits.shape[-1]
    assert (first.logits[:, rows:] > 0).any()
    assert boxes[filled][:, 3].max() <= rows


def test_batches_do_not_change_the_masks(
    model: TextSAM, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ALIKE", 1.0)
    whole = automatic_masks(model.open(photo).photo, settings=ALL)
    parts = automatic_masks(model.open(photo).photo, settings=replace(ALL, points_per_batch=3))
    assert len(whole) > 1
    assert parts.rles == whole.rles
    plain = automatic_masks(model.open(photo).photo, settings=replace(ALL, refine=False))
    assert plain.rles != whole.rles


def test_progress_and_counts_are_of_the_grid(model: TextSAM, photo: NDArray[np.uint8]) -> None:
    report, told = AutomaticReport(), []
    settings = replace(
        ALL,
        crop_n_layers=1,
        crop_n_points_downscale_factor=2,
        min_mask_region_area=4,
        points_per_batch=6,
    )
    result = automatic_masks(
        model.open(photo).photo,
        settings=settings,
        report=report,
        progress=lambda *n: told.append(n),
    )
    assert [done for done, _ in told] == [6, 12, 16, 20, 24, 28, 32]
    assert {total for _, total in told} == {32}
    assert report.decoded == report.after["iou"] == 3 * 32
    order = ["iou", "alike", "iou again", "stability", "edge", "nms", "crop nms", "regions"]
    assert list(report.after) == order
    left = [report.after[name] for name in order]
    assert left == sorted(left, reverse=True) and left[-1] == len(result)


def test_levels_hold_before_and_after(model: TextSAM, photo: NDArray[np.uint8]) -> None:
    view = model.open(photo)
    answers, counts = _looked(view, replace(ALL, stability_score_thresh=1.01, points_per_batch=6))
    assert answers == [] and counts["alike"] == 0
    assert len(automatic_masks(view.photo, settings=replace(ALL, stability_score_thresh=1.01))) == 0
    every, _ = _looked(view, ALL)
    middle = float(torch.cat([a.iou for a in every]).median())
    some, counts = _looked(view, replace(ALL, pred_iou_thresh=middle))
    found = torch.cat([a.iou for a in some])
    assert (found > middle).all() and counts["iou again"] == len(found) < counts["alike"]


@pytest.mark.parametrize("size", [(1, 1), (3, 20), (20, 3), (8, 8)])
def test_the_shipped_presets_take_photos_of_a_few_pixels(
    model: TextSAM, size: tuple[int, int]
) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    for preset in ("fast", "paper"):
        assert model.open(Image.fromarray(noise)).everything(preset).size == size
