"""Drawn photos are what their labels say."""

from __future__ import annotations

import numpy as np

from textsam.values.rle import decode_rle
from training.data.drawn_shapes import draw_samples


def test_photos_depend_on_seed_and_number_alone() -> None:
    few, many = draw_samples(3, seed=5), draw_samples(6, seed=5)
    assert few == many[:3]
    assert few[0] != draw_samples(1, seed=6)[0]


def test_masks_show_the_colour_of_their_name_and_do_not_overlap() -> None:
    channel = {"red": 0, "green": 1, "blue": 2}
    for sample in draw_samples(12, side=64):
        image = sample.image()
        masks = [decode_rle(item.rle) for item in sample.objects]
        assert not (masks[0] & masks[1]).any() and all(m.sum() > 100 for m in masks)
        for item, mask in zip(sample.objects, masks, strict=True):
            colour, _ = item.label.split()
            strongest = int(np.argmax(image[mask].mean(0)))
            assert strongest == channel.get(colour, strongest)
            assert colour != "yellow" or image[mask].mean(0)[2] < 100
