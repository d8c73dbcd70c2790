"""A client that is not ours runs an exported decoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.studies.foreign_client import compare, small_official


@pytest.mark.slow
def test_osam_gives_the_mask_of_the_released_decoder(tmp_path: Path) -> None:
    for module in ("osam", "segment_anything", "onnxruntime", "onnxscript"):
        pytest.importorskip(module)
    photo = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    clicks = [[(80, 45, 1)], [(20, 30, 1), (90, 60, 0)]]
    for points, iou, area in compare(small_official(), photo, clicks, tmp_path):
        assert area > 0 and iou >= 0.999, points
