"""A semantic map as a value: names, shares, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from textsam.results.label_map import LabelMap

LABELS = np.array([[0, 1, 1], [2, 2, 1]], np.int32)


def test_shares_masks_and_segmentation() -> None:
    found = LabelMap(LABELS, ["sky", "road", "dog"])
    assert found.shares() == {"sky": 0.5, "road": pytest.approx(1 / 3), "dog": 0.0}
    np.testing.assert_array_equal(found.mask("road"), LABELS == 2)
    result = found.to_segmentation()
    assert result.labels == ["sky", "road"]
    np.testing.assert_array_equal(result.masks[0], LABELS == 1)
    assert found.picture().size == (3, 2)


def test_it_comes_back_from_its_file(tmp_path: Path) -> None:
    found = LabelMap(LABELS, ["sky", "a long road", "dog"])
    again = LabelMap.load(found.save(tmp_path / "map.npz"))
    assert again.names == found.names
    np.testing.assert_array_equal(again.labels, found.labels)
    assert found.save(tmp_path / "map.png").stat().st_size > 0
    with pytest.raises(ValueError, match=r"\.npz"):
        found.save(tmp_path / "map.tiff")
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no label map"):
        LabelMap.load(tmp_path / "bad.npz")


def test_bad_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="values 0 to 1"):
        LabelMap(LABELS, ["sky"])
    with pytest.raises(ValueError, match="repeat"):
        LabelMap(LABELS, ["sky", "sky"])
    with pytest.raises(ValueError, match="not asked for"):
        LabelMap(LABELS, ["sky", "road"]).mask("dog")
    assert not LabelMap(LABELS, ["sky", "road"]).labels.flags.writeable
