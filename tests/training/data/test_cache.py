"""Photos kept decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from textsam.values.rle import rle_area
from training.data import Sample, ViewConfig, make_view
from training.data.cache import CachedSource


class Once:
    """Photos that can be asked for once."""

    name = "once"

    def __init__(self, samples: list[Sample]) -> None:
        self.samples = dict(enumerate(samples))
        self.count = len(samples)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        return self.samples.pop(index)


def test_views_are_the_same_and_the_source_is_asked_once(
    samples: list[Sample], tmp_path: Path
) -> None:
    cached = CachedSource(Once(samples), tmp_path / "cache")
    config = ViewConfig(image_size=64, min_area=4)
    for _ in range(2):
        for row, sample in enumerate(samples):
            kept = cached[row]
            assert (kept.image_id, kept.objects, kept.exhaustive) == (
                *(sample.image_id, sample.objects, sample.exhaustive),
            )
            views = [
                make_view(s, np.random.default_rng(row), config=config) for s in (sample, kept)
            ]
            assert views[0] is not None and views[1] is not None
            assert torch.equal(views[0].pixels, views[1].pixels)
            assert torch.equal(views[0].masks, views[1].masks)


def test_photos_are_made_smaller_with_their_masks(samples: list[Sample], tmp_path: Path) -> None:
    cached = CachedSource(samples, tmp_path, long_side=40)
    for row in (0, 1):
        small = cached[row]
        assert max(small.size) == 40 and small.image().shape[:2] == small.size
        assert cached[row] == small
        for before, after in zip(samples[row].objects, small.objects, strict=True):
            share = (40 / max(samples[row].size)) ** 2
            assert rle_area(after.rle) == pytest.approx(share * rle_area(before.rle), rel=0.15)


def test_the_cache_of_something_else_is_refused(samples: list[Sample], tmp_path: Path) -> None:
    CachedSource(samples, tmp_path)
    CachedSource(samples, tmp_path)
    for other in ({"source": samples[1:]}, {"source": samples, "long_side": 9}):
        with pytest.raises(ValueError, match="holds the cache of"):
            CachedSource(folder=tmp_path, **other)


def test_a_photo_that_was_not_finished_is_made_again(samples: list[Sample], tmp_path: Path) -> None:
    cached = CachedSource(samples, tmp_path)
    first = cached[0]
    (tmp_path / "00000000.json").unlink()
    (tmp_path / "00000000.ppm").write_bytes(b"P6")
    assert cached[0] == first
    np.testing.assert_array_equal(cached[0].image(), samples[0].image())
