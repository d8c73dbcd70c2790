"""The second look at automatic masks: equal to asking one by one, whatever the batches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from textsam.inference import second_look as module
from textsam.inference.automatic import AutomaticReport, AutomaticSettings, automatic_masks
from textsam.inference.model import TextSAM
from textsam.inference.point_grid import decode_points, inclusive_boxes, inside_photo, point_grid
from textsam.inference.second_look import second_look

ALL = AutomaticSettings(
    points_per_side=4, least_iou=-99.0, least_stability=0.0, nms=1.0, refine=True
)


def _looked(model: TextSAM, photo: NDArray[np.uint8], settings: AutomaticSettings):
    view = model.open(photo)
    grid = point_grid(settings.points_per_side)
    batches = decode_points(view, grid, batch=settings.points_per_batch)
    return view, list(second_look(view, batches, settings=settings))


def test_each_mask_is_what_its_own_logits_box_and_point_give(
    model: TextSAM, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ALIKE", 1.0)  # all of them
    view, answers = _looked(model, photo, ALL)
    first = next(iter(decode_points(view, point_grid(4), batch=99)))
    inside = inside_photo(first.logits, view.frame)
    assert (inside != (first.logits > 0)).any()  # some have cells in the padding
    filled = [k for k in range(len(first.iou)) if bool(inside[k].any())]
    assert len(filled) > 10
    logits, iou = (torch.cat([getattr(a, name) for a in answers]) for name in ("logits", "iou"))
    assert len(iou) == len(filled)
    # Best predicted IoU first, as the filter of boxes leaves them.
    order = sorted(filled, key=lambda k: -float(first.iou[k]))
    for found, found_iou, k in zip(logits, iou, order, strict=True):
        low_res = first.logits[k].half().float()
        box = np.add(inclusive_boxes(inside[k : k + 1].numpy())[0].numpy(), [0, 0, 1, 1])
        cell = view.frame.image_size / low_res.shape[-1]
        corners = (box * cell).reshape(2, 2)
        prediction = view.predict(
            points=view.frame.points_to_original(first.points[k][None].numpy()),
            box=view.frame.points_to_original(corners.astype(np.float32)).reshape(4),
            previous=_prediction(low_res),
        )
        np.testing.assert_allclose(found.numpy(), prediction.low_res[0], atol=1e-3)
        assert float(found_iou) == pytest.approx(float(prediction.iou[0]), abs=1e-4)


def _prediction(low_res: torch.Tensor):
    from textsam.inference.prediction import Prediction

    return Prediction(
        logits=np.zeros((1, 50, 90), np.float32),
        iou=np.zeros(1, np.float32),
        low_res=low_res[None].numpy(),
    )


def test_batches_do_not_change_the_masks(
    model: TextSAM, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ALIKE", 1.0)
    whole = automatic_masks(model.open(photo), settings=ALL)
    parts = automatic_masks(model.open(photo), settings=replace(ALL, points_per_batch=3))
    assert len(whole) > 1
    assert parts.rles == whole.rles
    plain = automatic_masks(model.open(photo), settings=replace(ALL, refine=False))
    assert plain.rles != whole.rles


def test_progress_and_counts_are_of_the_grid(model: TextSAM, photo: NDArray[np.uint8]) -> None:
    report, told = AutomaticReport(), []
    settings = replace(ALL, crop_layers=1, crop_points_factor=2, least_region=4)
    result = automatic_masks(
        model.open(photo), settings=settings, report=report, progress=lambda *n: told.append(n)
    )
    assert told == [(16, 32), (20, 32), (24, 32), (28, 32), (32, 32)]
    assert report.asked == report.after["iou"] == 3 * 32
    assert report.after["stability"] < report.after["iou"]  # alike ones are asked once
    assert report.after["regions"] == len(result)


def test_nothing_stable_enough_gives_nothing(model: TextSAM, photo: NDArray[np.uint8]) -> None:
    view, answers = _looked(model, photo, replace(ALL, least_stability=1.01, points_per_batch=6))
    assert [a.asked for a in answers] == [6, 6, 4]
    assert all(len(a.iou) == 0 for a in answers)
    assert len(automatic_masks(view, settings=replace(ALL, least_stability=1.01))) == 0
