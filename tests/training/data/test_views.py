"""From a photo to a view."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from textsam.errors import ImageError
from textsam.values.rle import RLE
from training.data import Sample, ViewConfig, load_samples, make_view

WHOLE = ViewConfig(image_size=64, jitter=0.0, flip=0.0, min_area=1)


@pytest.fixture
def sample(parquet: Path) -> Sample:
    return load_samples([parquet])[1]


def test_the_whole_photo_fills_the_frame(sample: Sample) -> None:
    view = make_view(sample, np.random.default_rng(0), config=WHOLE)
    assert view is not None
    assert view.pixels.shape == (3, 64, 43)
    assert view.masks.shape == (1, 64, 64)  # the cat is `ignore`
    assert view.objects == (0,)
    assert not view.masks[..., 43:].any()
    assert view.void.any()


@pytest.mark.parametrize("seed", range(12))
def test_masks_follow_the_picture_through_scale_cut_and_mirror(sample: Sample, seed: int) -> None:
    config = ViewConfig(image_size=64, jitter=1.0, scale=(0.6, 1.9), flip=0.5, min_area=20)
    view = make_view(sample, np.random.default_rng(seed), config=config, candidates=[0, 1])
    if view is None:
        pytest.skip("this cut holds no object")
    height, width = view.pixels.shape[1:]
    assert max(height, width) <= 64
    red = view.pixels[0] > 127
    drawn = view.masks.any(0)[:height, :width]
    assert (drawn & ~red).sum() == 0  # a dropped object may leave red, never the reverse
    if len(view.masks) == 2:
        assert torch.equal(drawn, red)


def test_a_seed_gives_the_same_view(sample: Sample) -> None:
    config = ViewConfig(image_size=64, jitter=1.0)
    a, b = (make_view(sample, np.random.default_rng(7), config=config) for _ in range(2))
    assert a is not None and b is not None
    assert torch.equal(a.pixels, b.pixels) and torch.equal(a.masks, b.masks)
    assert a.flipped == b.flipped


def test_masks_of_useless_size_are_dropped(sample: Sample) -> None:
    rng = np.random.default_rng(0)
    huge = ViewConfig(image_size=64, jitter=0.0, min_area=10_000)
    assert make_view(sample, rng, config=huge) is None
    # Appendix A drops masks over 90% of the image; 1% here shows the rule.
    assert make_view(sample, rng, config=ViewConfig(image_size=64, max_share=0.01)) is None


@pytest.mark.parametrize("seed", range(8))
def test_large_scale_jitter_spans_the_papers_range(sample: Sample, seed: int) -> None:
    config = ViewConfig.large_scale_jitter(image_size=128, max_masks=2)
    assert (config.scale, config.jitter) == ((0.1, 2.0), 1.0)
    rng = np.random.default_rng(seed)
    config = dataclasses.replace(config, min_area=1)
    view = make_view(sample, rng, config=config, candidates=[0, 1])
    if view is None:
        pytest.skip("this cut holds no object")
    share = np.random.default_rng(seed)
    share.random()  # whether to jitter
    long_side = 128 * share.uniform(0.1, 2.0)
    assert max(view.pixels.shape[1:]) == min(128, round(long_side))


def test_no_more_masks_than_asked_for(sample: Sample) -> None:
    config = dataclasses.replace(WHOLE, max_masks=1)
    seen = set()
    for seed in range(12):
        view = make_view(sample, np.random.default_rng(seed), config=config, candidates=[0, 1])
        assert view is not None and len(view.masks) == 1
        seen.add(view.objects)
    assert seen == {(0,), (1,)}


def test_masks_of_another_size_are_refused(sample: Sample) -> None:
    with pytest.raises(
        ValueError, match=r"mask 0 \('dog'\) has size \(90, 60\); wanted \(90, 61\)"
    ):
        dataclasses.replace(sample, size=(90, 61))


def test_a_damaged_code_is_an_error_and_no_crash(sample: Sample) -> None:
    broken = dataclasses.replace(sample.objects[0], rle=RLE(sample.size, b"0o"))
    with pytest.raises(ValueError, match="damaged RLE"):
        make_view(
            dataclasses.replace(sample, objects=(broken,)), np.random.default_rng(0), config=WHOLE
        )


def test_a_photo_that_lies_on_its_side_by_exif_is_put_upright(
    make_sample: Callable[..., Sample], drawing: Callable, encode: Callable[..., bytes]
) -> None:
    image, _ = drawing(1)
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06"
    turned = make_sample(1, data=encode(np.rot90(image).copy(), "PNG", exif=exif + bytes(6)))
    np.testing.assert_array_equal(turned.image(), image)
    view = make_view(turned, np.random.default_rng(0), config=WHOLE, candidates=[0, 1])
    assert view is not None
    red = view.pixels[0] > 127
    assert torch.equal(view.masks.any(0)[:, : red.shape[1]], red)
    raw = make_sample(1, data=encode(np.rot90(image).copy()))
    with pytest.raises(ImageError, match=r"is \(60, 90\) .* masks are for \(90, 60\)"):
        raw.image()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"max_masks": 0}, "max_masks"),
        ({"flip": 1.5}, "flip"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViewConfig(**wrong)


def test_focus_shows_one_object_large(sample: Sample) -> None:
    whole = ViewConfig(image_size=64, jitter=0.0, flip=0.0, min_area=1)
    config = ViewConfig(image_size=64, jitter=0.0, flip=0.0, min_area=1, focus=1.0)
    plain = make_view(sample, np.random.default_rng(0), config=whole)
    assert plain is not None
    areas = []
    for seed in range(20):
        view = make_view(sample, np.random.default_rng(seed), config=config)
        if view is not None:
            areas.append(int(view.masks[0].sum()))
    assert len(areas) >= 15  # now and then the object lies outside its own window
    assert np.median(areas) > int(plain.masks[0].sum())


def test_colours_change_and_the_masks_stay(sample: Sample) -> None:
    plain, tinted, other = (
        make_view(
            sample, np.random.default_rng(seed), config=dataclasses.replace(WHOLE, colour=colour)
        )
        for seed, colour in ((0, 0.0), (0, 0.3), (1, 0.3))
    )
    assert plain is not None and tinted is not None and other is not None
    assert torch.equal(plain.masks.any(0), tinted.masks.any(0))
    difference = (plain.pixels.float() - tinted.pixels.float()).abs()
    assert 1 < difference.mean() < 80  # not the same picture, and not another one
    assert not torch.equal(tinted.pixels, other.pixels)
