"""Automatic masks equal those of PyPI's segment-anything, filter by filter.

Random weights give no sure masks, so the levels lie in the middle of what they do give: every
filter drops something, and something is left.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from textsam.inference.automatic.generator import AutomaticReport, automatic_masks
from textsam.inference.model import TextSAM
from textsam.modeling.sam import Sam
from textsam.values.rle import encode_masks, rle_iou
from textsam.values.settings import AutomaticSettings
from textsam.weights.released_names import from_official
from textsam.weights.strict import infer_config

from .test_segment_anything import build_official

generator = pytest.importorskip("segment_anything.automatic_mask_generator")

SIDE = 64


@pytest.fixture(scope="module")
def pair(randomize: Any) -> tuple[Any, TextSAM]:
    """The oracle and our model with the same weights."""
    oracle = build_official(SIDE)
    randomize(oracle)
    with torch.no_grad():  # the released code filters by predicted IoU only above zero
        oracle.mask_decoder.iou_prediction_head.layers[-1].bias += 2.0
    weights = from_official(oracle.state_dict())
    ours = Sam(infer_config(weights)).eval()
    ours.load_state_dict(weights)
    return oracle, TextSAM(ours, name="random")


def _photo() -> np.ndarray:
    rng = np.random.default_rng(2)
    photo = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return np.ascontiguousarray(photo.repeat(11, axis=0).repeat(11, axis=1))


def _levels(model: TextSAM, photo: np.ndarray, settings: AutomaticSettings) -> tuple[float, float]:
    """Medians of predicted IoU and of stability over what the decoder gives."""
    report = AutomaticReport()
    loose = automatic_masks(model.open(photo).photo, settings=settings, report=report)
    assert report.after["iou"] == report.decoded
    return float(np.median(loose.iou)), float(np.median(loose.stability))


def _count_filters(
    monkeypatch: pytest.MonkeyPatch, left: Counter[str], *, stability_score_thresh: float
) -> None:
    """Count what the released code asks and what each of its filters leaves, by our names."""
    batch = generator.SamAutomaticMaskGenerator._process_batch
    measure, near_edge = generator.calculate_stability_score, generator.is_box_near_crop_edge
    suppress = generator.batched_nms

    def asked(self: Any, points: Any, *rest: Any) -> Any:
        left["asked"] += 3 * len(points)
        return batch(self, points, *rest)

    def measured(masks: torch.Tensor, *rest: Any) -> torch.Tensor:
        scores = measure(masks, *rest)  # of what the filter by predicted IoU has left
        left["iou"] += len(masks)
        left["stability"] += int((scores >= stability_score_thresh).sum())
        return scores

    def cut_off(*given: Any, **more: Any) -> torch.Tensor:
        near = near_edge(*given, **more)
        left["edge"] += int((~near).sum())
        return near

    def suppressed(*given: Any, **more: Any) -> torch.Tensor:
        keep = suppress(*given, **more)
        within = sys._getframe(1).f_code.co_name == "_process_crop"
        left["nms" if within else "crop nms"] += len(keep)
        return keep

    monkeypatch.setattr(generator.SamAutomaticMaskGenerator, "_process_batch", asked)
    monkeypatch.setattr(generator, "calculate_stability_score", measured)
    monkeypatch.setattr(generator, "is_box_near_crop_edge", cut_off)
    monkeypatch.setattr(generator, "batched_nms", suppressed)


@pytest.mark.parametrize("layers", [0, 1])
def test_the_same_masks_and_the_same_counts(
    pair: tuple[Any, TextSAM],
    layers: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    oracle, model = pair
    photo = _photo()
    loose = AutomaticSettings(
        points_per_side=6,
        pred_iou_thresh=-99.0,
        stability_score_thresh=0.0,
        box_nms_thresh=1.0,
        crop_n_layers=0,
    )
    iou, stability = _levels(model, photo, loose)
    settings = AutomaticSettings(
        points_per_side=6,
        points_per_batch=16,
        pred_iou_thresh=iou,
        stability_score_thresh=stability,
        box_nms_thresh=0.99,
        crop_n_layers=layers,
        crop_nms_thresh=0.99,
        crop_n_points_downscale_factor=2,
    )
    report = AutomaticReport()
    found = automatic_masks(model.open(photo).photo, settings=settings, report=report)

    theirs_left: Counter[str] = Counter()
    _count_filters(monkeypatch, theirs_left, stability_score_thresh=stability)
    assert iou > 0 and stability > 0
    theirs = generator.SamAutomaticMaskGenerator(
        oracle,
        points_per_side=6,
        points_per_batch=16,
        pred_iou_thresh=iou,
        stability_score_thresh=stability,
        box_nms_thresh=0.99,
        crop_n_layers=layers,
        crop_nms_thresh=0.99,
        crop_n_points_downscale_factor=2,
    ).generate(photo)

    asked = theirs_left.pop("asked")
    with capsys.disabled():
        print(f"\n{layers} crop layers, ours:   asked {report.decoded}, then {report.after}")
        print(f"{layers} crop layers, theirs: asked {asked}, then {dict(theirs_left)}")
    assert report.decoded == asked
    assert report.after == theirs_left
    assert len(found) == len(theirs) >= 3
    assert report.after["iou"] < report.decoded
    assert report.after["stability"] < report.after["iou"]
    assert report.after["nms"] < report.after["stability"]
    expected = encode_masks(np.stack([item["segmentation"] for item in theirs]))
    overlap = rle_iou(found.rles, expected)
    assert (overlap.diagonal() >= 0.99).all()
    np.testing.assert_allclose(
        found.iou, [item["predicted_iou"] for item in theirs], rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
        found.stability, [item["stability_score"] for item in theirs], atol=2e-3
    )
