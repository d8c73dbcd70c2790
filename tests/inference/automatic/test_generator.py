"""Automatic masks: grids, crops, clean-up, presets, memory in parts."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from textsam.errors import PromptError
from textsam.inference.automatic import generator as automatic
from textsam.inference.automatic.generator import (
    AutomaticReport,
    automatic_masks,
    crop_windows,
    point_grid,
)
from textsam.inference.model import TextSAM
from textsam.inference.photo.prediction import without_small_regions
from textsam.values.settings import AUTOMATIC_PRESETS, AutomaticSettings

ALL = AutomaticSettings(
    points_per_side=4, pred_iou_thresh=-99.0, stability_score_thresh=0.0, box_nms_thresh=1.0
)


def test_the_papers_grids() -> None:
    settings = AutomaticSettings.from_preset("paper")
    windows = crop_windows((600, 800), settings=settings)
    assert [layer for _, layer in windows] == [0] + [1] * 4 + [2] * 16
    assert [len(automatic._grid(layer, settings)) for layer in range(3)] == [1024, 256, 64]
    # Together the crops of a layer cover the photo, and neighbours overlap.
    for layer in (1, 2):
        covered = np.zeros((600, 800), int)
        for (x0, y0, x1, y1), own in windows:
            if own == layer:
                covered[y0:y1, x0:x1] += 1
        assert covered.min() >= 1 and covered.max() >= 4


@pytest.mark.parametrize("height", range(1, 9))
def test_crops_of_small_photos_are_in_them_and_cover_them(height: int) -> None:
    for width in range(1, 9):
        windows = crop_windows((height, width), settings=AutomaticSettings.from_preset("paper"))
        assert windows[0] == ((0, 0, width, height), 0)
        for layer in (1, 2):
            covered = np.zeros((height, width), int)
            for (x0, y0, x1, y1), own in windows:
                assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
                if own == layer:
                    covered[y0:y1, x0:x1] += 1
            assert covered.min() >= 1


def test_a_grid_is_the_middles_of_equal_cells() -> None:
    np.testing.assert_allclose(
        point_grid(2), [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75] * 2]
    )


def test_batches_and_parts_do_not_change_the_masks(
    model: TextSAM, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = automatic_masks(model.open(photo).photo, settings=ALL)
    assert len(whole) > 3
    monkeypatch.setattr(automatic, "_UPSCALED_BYTES", 2 * 4 * 50 * 90)
    small = AutomaticSettings(
        points_per_side=4,
        points_per_batch=3,
        pred_iou_thresh=-99.0,
        stability_score_thresh=0.0,
        box_nms_thresh=1.0,
    )
    parts = automatic_masks(model.open(photo).photo, settings=small)
    assert parts.rles == whole.rles


def test_filters_are_counted_and_progress_ends_at_all(
    model: TextSAM, photo: NDArray[np.uint8]
) -> None:
    report, told = AutomaticReport(), []
    settings = AutomaticSettings(
        points_per_side=4,
        pred_iou_thresh=-99.0,
        stability_score_thresh=0.5,
        crop_n_layers=1,
        crop_n_points_downscale_factor=2,
        max_area=0.6,
        min_mask_region_area=4,
    )
    result = automatic_masks(
        model.open(photo).photo,
        settings=settings,
        report=report,
        progress=lambda *n: told.append(n),
    )
    assert told[-1] == (16 + 4 * 4, 16 + 4 * 4)
    assert report.decoded == 3 * 32
    order = ["iou", "stability", "edge", "nms", "crop nms", "area", "regions"]
    assert sorted(report.after, key=order.index) == order
    left = [report.decoded, *(report.after[name] for name in order)]
    assert left == sorted(left, reverse=True)
    assert left[-1] == len(result)
    assert (result.areas < 0.6 * 50 * 90).all()


def test_small_pieces_go_and_small_holes_are_filled() -> None:
    mask = np.zeros((30, 40), bool)
    mask[0:15, 0:15] = True
    mask[3:5, 3:5] = False  # a small hole
    mask[7:13, 7:13] = False  # a large one
    mask[20:22, 30:32] = True  # a small piece
    mask[18:28, 2:12] = True  # a large one
    clean = without_small_regions(mask, 10)
    expected = mask.copy()
    expected[3:5, 3:5] = True
    expected[20:22, 30:32] = False
    np.testing.assert_array_equal(clean, expected)
    # Of a mask that is all small, the largest piece stays.
    tiny = np.zeros((9, 9), bool)
    tiny[0, 0:2] = tiny[8, 8] = True
    assert without_small_regions(tiny, 10).sum() == 2


@pytest.mark.parametrize("least", [1, 8, 60, 200, 400])
def test_regions_are_those_of_the_whole_photo(least: int) -> None:
    """Looking at a mask's box alone gives what looking at the whole photo gives."""
    rng = np.random.default_rng(least)
    for _ in range(60):
        height, width = rng.integers(3, 40, 2)
        y, x = np.mgrid[:height, :width]
        mask = np.zeros((height, width), bool)
        for _ in range(rng.integers(1, 5)):
            cy, cx, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(1, 14)
            mask ^= np.hypot(y - cy, x - cx) < radius
        if rng.random() < 0.3:
            mask = ~mask
        np.testing.assert_array_equal(without_small_regions(mask, least), _by_photo(mask, least))


def _by_photo(mask: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    from scipy.ndimage import label

    if not mask.any():
        return mask
    eight = np.ones((3, 3))
    gaps, _ = label(~mask, eight)
    sizes = np.bincount(gaps.ravel())
    mask = mask | ((gaps > 0) & (sizes[gaps] < least))
    pieces, _ = label(mask, eight)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    if sizes.max() < least:
        return np.asarray(pieces == sizes.argmax())
    return np.asarray((pieces > 0) & (sizes[pieces] >= least))


def test_a_small_disc_stays_a_disc() -> None:
    """What is around it is no hole, however small its box."""
    y, x = np.mgrid[:60, :80]
    disc = np.hypot(y - 30, x - 40) < 8
    np.testing.assert_array_equal(without_small_regions(disc, 200), disc)


def test_presets_have_names(model: TextSAM, photo: NDArray[np.uint8]) -> None:
    assert AutomaticSettings.from_preset("paper") == AUTOMATIC_PRESETS["paper"]
    assert (
        AutomaticSettings.from_preset(None)
        == AutomaticSettings.from_preset("fast")
        == AUTOMATIC_PRESETS["fast"]
    )
    assert AutomaticSettings.from_preset("released-code") == AutomaticSettings()
    with pytest.raises(PromptError, match="released-code"):
        model.open(photo).everything("best")  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="at least 1"):
        AutomaticSettings(points_per_side=0)


def test_a_view_makes_them_once(
    model: TextSAM, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    view = model.open(photo)
    calls: list[int] = []
    decode = model.sam.decode_in_groups
    monkeypatch.setattr(
        model.sam, "decode_in_groups", lambda i, p: calls.append(len(p)) or decode(i, p)
    )
    first = view.everything(ALL)
    count = len(calls)
    assert count
    assert view.everything(ALL) is first and len(calls) == count
