"""Resizing equals the released SAM's, in one piece or in bands."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textsam.errors import ImageError
from textsam.values import images
from textsam.values.images import resize_image


def test_resize_equals_what_sam_does() -> None:
    functional = pytest.importorskip("torchvision.transforms.functional")
    picture = np.random.default_rng(0).integers(0, 256, (75, 50, 3), dtype=np.uint8)
    for size in ((30, 20), (150, 100), (75, 50), (1, 9)):
        expected = np.array(functional.resize(functional.to_pil_image(picture), list(size)))
        resized = resize_image(picture, size)
        np.testing.assert_array_equal(resized, expected)
        assert resized.shape == (*size, 3)
        assert not np.shares_memory(resized, picture)


@pytest.mark.parametrize("size", [(31, 40), (64, 64), (1, 1), (7, 150), (180, 160), (99, 77)])
def test_resizing_in_bands_changes_nothing(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (203, 150, 3), dtype=np.uint8)
    at_once = resize_image(pixels, size).astype(int)
    monkeypatch.setattr(images, "_BAND_PIXELS", 1500)  # ten rows
    in_bands = resize_image(pixels, size).astype(int)
    assert np.abs(in_bands - at_once).max() <= 1  # Pillow rounds its weights per band
    assert (in_bands != at_once).mean() < 0.01


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 255))
def test_resizing_one_colour_keeps_it(h: int, w: int, value: int) -> None:
    flat = np.full((7, 11, 3), value, np.uint8)
    assert (resize_image(flat, (h, w)) == value).all()


@pytest.mark.parametrize(
    ("image", "size"),
    [
        (np.zeros((3, 5, 6), np.uint8), (2, 2)),
        (np.zeros((5, 6, 3)), (2, 2)),
        (np.zeros((5, 6), np.uint8), (2, 2)),
        (np.zeros((5, 6, 3), np.uint8), (0, 2)),
        (np.zeros((0, 6, 3), np.uint8), (2, 2)),
    ],
)
def test_resize_refuses(image: np.ndarray, size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="wanted"):
        resize_image(image, size)
