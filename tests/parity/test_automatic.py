"""Automatic masks equal those of PyPI's segment-anything, filter by filter.

Random weights give no sure masks, so the levels lie in the middle of what they do give: every
filter drops something, and something is left.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from textsam.inference.automatic import AutomaticReport, AutomaticSettings, automatic_masks
from textsam.inference.model import TextSAM
from textsam.modeling.sam import Sam
from textsam.rle import encode_masks, rle_iou
from textsam.weights.convert import from_official, infer_config

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
    loose = automatic_masks(model.open(photo), settings=settings, report=report)
    assert report.after["iou"] == report.asked
    return float(np.median(loose.iou)), float(np.median(loose.stability))


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
        points_per_side=6, least_iou=-99.0, least_stability=0.0, nms=1.0, crop_layers=0
    )
    iou, stability = _levels(model, photo, loose)
    settings = AutomaticSettings(
        points_per_side=6,
        points_per_batch=16,
        least_iou=iou,
        least_stability=stability,
        nms=0.99,
        crop_layers=layers,
        crop_nms=0.99,
        crop_points_factor=2,
    )
    report = AutomaticReport()
    found = automatic_masks(model.open(photo), settings=settings, report=report)

    counts = {"asked": 0}
    process = generator.SamAutomaticMaskGenerator._process_batch
    to_filter = generator.MaskData.filter

    def counted(self: Any, points: Any, *rest: Any) -> Any:
        counts["asked"] += 3 * len(points)
        return process(self, points, *rest)

    seen: list[int] = []

    def filtered(self: Any, keep: torch.Tensor) -> None:
        to_filter(self, keep)
        seen.append(len(self["iou_preds"]))

    monkeypatch.setattr(generator.SamAutomaticMaskGenerator, "_process_batch", counted)
    monkeypatch.setattr(generator.MaskData, "filter", filtered)
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

    with capsys.disabled():
        print(f"\n{layers} crop layers: asked {report.asked}, then {report.after}; ", end="")
        print(f"released code: asked {counts['asked']}, left {len(theirs)}")
    assert report.asked == counts["asked"]
    assert len(found) == len(theirs) >= 3
    assert report.after["iou"] < report.asked
    assert report.after["stability"] < report.after["iou"]
    assert report.after["nms"] < report.after["stability"]
    # Every number that we counted per filter is the sum of theirs (the edge filter is not called
    # when all pass).
    for name in ("iou", "stability"):
        assert report.after[name] <= sum(seen)
    expected = encode_masks(np.stack([item["segmentation"] for item in theirs]))
    overlap = rle_iou(found.rles, expected)
    assert (overlap.diagonal() >= 0.99).all()
    np.testing.assert_allclose(
        found.iou, [item["predicted_iou"] for item in theirs], rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
        found.stability, [item["stability_score"] for item in theirs], atol=2e-3
    )
