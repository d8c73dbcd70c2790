"""Masks seen through a cut of the photo."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from textsam.values.rle import RLE, encode_mask
from training.data import cut as module
from training.data.cut import Cut, draw_cut


def _blobs(seed: int, height: int, width: int) -> np.ndarray:
    """A mask with smooth borders somewhere in the picture."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (6, 6), dtype=np.uint8))
    patch = np.asarray(small.resize((width // 2, height // 2), Image.Resampling.BICUBIC)) > 140
    mask = np.zeros((height, width), bool)
    y, x = rng.integers(0, height // 2), rng.integers(0, width // 2)
    mask[y : y + height // 2, x : x + width // 2] = patch
    return mask


def _cut(seed: int, size: tuple[int, int], side: int) -> Cut:
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.1, 2.0) if rng.random() < 0.8 else 1.0
    return draw_cut(size, rng, side=side, share=share, flip=0.5)


@given(st.integers(0, 10_000))
def test_a_window_around_an_object_holds_its_middle_at_a_useful_scale(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x0, y0 = rng.uniform(0, 250), rng.uniform(0, 150)
    w, h = rng.uniform(8, 60, 2)
    cut = draw_cut((200, 300), rng, side=64, share=1.0, around=(x0, y0, x0 + w, y0 + h), flip=0.5)
    left, top, right, bottom = cut.box
    length = max(right - left, bottom - top)
    assert min(48, 1.1 * max(w, h)) <= length + 1 <= max(50, 2.7 * max(w, h)) + 1
    # 0.15 of the side off the centre is one standard deviation; the photo's edge may cut it, too.
    assert left - 0.6 * length <= min(x0 + w / 2, 300) <= right + 0.6 * length
    assert top - 0.6 * length <= min(y0 + h / 2, 200) <= bottom + 0.6 * length


def _by_pillow(cut: Cut, mask: np.ndarray) -> np.ndarray:
    return cut.picture(Image.fromarray(mask.view(np.uint8) * 255)) > 127


@given(st.integers(0, 10_000))
def test_masks_of_small_photos_are_what_pillow_makes_of_them(seed: int) -> None:
    mask = _blobs(seed, 60, 90)
    cut = _cut(seed, (60, 90), 64)
    np.testing.assert_array_equal(cut.mask(encode_mask(mask)), _by_pillow(cut, mask))


@pytest.mark.parametrize("seed", range(40))
def test_resizing_a_mask_around_itself_changes_at_most_its_border(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LARGE_PHOTO", 0)
    monkeypatch.setattr(module, "_LARGE_MASK", 1.0)
    size = (90, 130) if seed % 2 else (130, 90)
    mask = _blobs(seed, *size)
    cut = _cut(seed, size, 64)
    expected = cut.picture(Image.fromarray(mask.view(np.uint8) * 255))
    differs = cut.mask(encode_mask(mask)) != (expected > 127)
    # Pillow rounds twice to 8 bits: only where it is all but undecided may the answers differ.
    assert (np.abs(expected[differs].astype(int) - 127.5) < 3).all()
    assert differs.sum() <= 2


def test_empty_full_and_striped_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    stripes = np.zeros((40, 50), bool)
    stripes[::2] = True
    whole = Cut(size=(40, 50), box=(0.0, 0.0, 50.0, 40.0), window=(40, 50), mirror=False)
    for limit in (0, 1 << 20):
        monkeypatch.setattr(module, "_LARGE_PHOTO", limit)
        for mask in (np.zeros((40, 50), bool), np.ones((40, 50), bool), stripes, stripes[:, ::-1]):
            np.testing.assert_array_equal(whole.mask(encode_mask(np.array(mask))), mask)


def test_empty_runs_in_a_code_are_read() -> None:
    # 0 zeros, 2 ones, 0 zeros, 4 ones, 6 zeros: legal, though nobody writes it.
    whole = Cut(size=(4, 3), box=(0.0, 0.0, 3.0, 4.0), window=(4, 3), mirror=False)
    code = RLE((4, 3), bytes([48 + 0, 48 + 2, 48 + 0, 48 + 2, 48 + 6]))
    assert whole.mask(code).T.ravel().tolist() == [True] * 6 + [False] * 6


def test_a_mask_outside_the_window_is_empty() -> None:
    mask = np.zeros((100, 100), bool)
    mask[:20, :20] = True
    away = Cut(size=(100, 100), box=(50.0, 50.0, 100.0, 100.0), window=(50, 50), mirror=False)
    assert not away.mask(encode_mask(mask)).any()
