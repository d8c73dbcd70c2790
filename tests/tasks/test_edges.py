"""Edges of drawn masks are their outlines, and thin ones are one pixel wide."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from textsam.errors import PromptError
from textsam.geometry import Frame
from textsam.inference.model import TextSAM
from textsam.tasks.edges import (
    EdgeSettings,
    edges,
    outline_gradients,
    sobel,
    strongest_outline,
    thin_edges,
)


def _disk(size: int, radius: float, sharpness: float = 4.0) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    distance = ((x - size / 2 + 0.5) ** 2 + (y - size / 2 + 0.5) ** 2).float().sqrt()
    return (radius - distance) * sharpness


def test_sobel_measures_the_slope() -> None:
    ramp = torch.arange(9.0).expand(7, 9)
    found = sobel(torch.stack([ramp, 2 * ramp.T[:7, :7].contiguous().new_zeros(7, 9)]))
    assert found.shape == (2, 2, 7, 9)
    torch.testing.assert_close(found[0, 0, :, 1:-1], torch.ones(7, 7))  # along x, 1 a pixel
    assert found[0, 1].abs().max() == 0 and found[1].abs().max() == 0


def test_the_outline_of_a_disk_and_nothing_else() -> None:
    logits = _disk(41, 12.0)
    strength = outline_gradients(logits[None])[0].square().sum(0).sqrt()
    y, x = np.nonzero(strength.numpy() > 0)
    distance = np.hypot(x - 20, y - 20)
    assert len(y) > 60
    assert np.abs(distance - 12).max() < 2.5


def test_a_slope_inside_a_mask_is_no_edge() -> None:
    """The map falls from sure to doubtful in the middle of the mask: no boundary is there."""
    logits = torch.full((30, 40), -8.0)
    logits[5:25, 5:20] = 8.0
    logits[5:25, 20:35] = 0.5
    strength = outline_gradients(logits[None])[0].square().sum(0).sqrt()
    assert strength[10:20, 18:22].max() == 0
    assert strength[10:20, 3:7].max() > 0.2
    assert sobel(logits.sigmoid()[None])[0, 0, 10:20, 18:22].abs().max() > 0.1


def test_a_thin_circle_is_one_pixel_wide() -> None:
    strength, gradient = strongest_outline(
        _disk(64, 20.0, 0.8)[None], Frame(height=64, width=64, image_size=64)
    )
    thin = thin_edges(strength, gradient)
    assert ((thin == 0) | (thin == strength)).all()
    rows = np.count_nonzero(thin[24:40], axis=1)  # through the middle: left and right
    assert set(rows.tolist()) == {2}
    y, x = np.nonzero(thin)
    assert np.abs(np.hypot(x - 31.5, y - 31.5) - 20).max() < 1.5


@pytest.mark.parametrize("turned", [False, True])
def test_a_thin_step_is_one_line(turned: bool) -> None:
    strength = np.zeros((20, 30), np.float32)
    strength[:, 9:12] = [0.5, 1.0, 0.5]
    gradient = np.stack([np.ones_like(strength), np.zeros_like(strength)])
    if turned:
        strength, gradient = strength.T.copy(), gradient[::-1].transpose(0, 2, 1).copy()
    thin = thin_edges(strength, gradient)
    line = thin[10] if turned else thin[:, 10]
    assert (line == 1).all() and np.count_nonzero(thin) == 20


def test_the_strongest_mask_decides_in_any_order() -> None:
    frame = Frame(height=40, width=40, image_size=40)
    masks = torch.stack([_disk(40, 8.0, 1.0), _disk(40, 15.0, 3.0)])
    both, _ = strongest_outline(masks, frame)
    other, _ = strongest_outline(masks.flip(0), frame)
    np.testing.assert_array_equal(both, other)
    alone = [strongest_outline(mask[None], frame)[0] for mask in masks]
    np.testing.assert_array_equal(both, np.maximum(*alone))


def test_edges_of_a_photo(model: TextSAM, photo: NDArray[np.uint8]) -> None:
    settings = EdgeSettings(points_per_side=4)
    view = model.open(photo)
    strength = edges(view, thin=False, settings=settings)
    assert strength.shape == photo.shape[:2] and strength.dtype == np.float32
    assert strength.min() >= 0 and strength.max() in (0.0, 1.0)
    np.testing.assert_array_equal(strength, edges(model, photo, thin=False, settings=settings))
    thin = edges(view, settings=settings)
    assert np.count_nonzero(thin) <= np.count_nonzero(strength)
    batched = EdgeSettings(points_per_side=4, points_per_batch=3)
    np.testing.assert_allclose(edges(view, settings=batched), thin, atol=1e-5)


def test_bad_questions(model: TextSAM, photo: NDArray[np.uint8]) -> None:
    with pytest.raises(PromptError, match="image"):
        edges(model)
    with pytest.raises(PromptError, match="open photo"):
        edges(model.open(photo), photo)
    with pytest.raises(PromptError, match="at least 1"):
        EdgeSettings(points_per_side=0)
    with pytest.raises(PromptError, match="nms"):
        EdgeSettings(nms=1.5)
