"""Central points lie deep inside their region."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from training.clicks import central_pixels, mixed_pixels
from training.prompting import sample_pixels


def _discs(count: int = 24, side: int = 96) -> torch.Tensor:
    rng = np.random.default_rng(0)
    yy, xx = np.mgrid[0:side, 0:side]
    masks = []
    for _ in range(count):
        y, x, r = rng.uniform(30, 66), rng.uniform(30, 66), rng.uniform(12, 28)
        masks.append((yy - y) ** 2 + (xx - x) ** 2 < r**2)
    return torch.from_numpy(np.stack(masks))


def _depth(masks: torch.Tensor, points: torch.Tensor) -> np.ndarray:
    values = []
    for mask, (x, y) in zip(masks.numpy(), points.long().tolist(), strict=True):
        distance = distance_transform_edt(mask)
        values.append(distance[y, x] / distance.max())
    return np.array(values)


def test_central_points_are_deeper_than_uniform_ones() -> None:
    masks = _discs()
    generator = torch.Generator().manual_seed(0)
    central = np.mean([_depth(masks, central_pixels(masks, generator)) for _ in range(5)])
    uniform = np.mean([_depth(masks, sample_pixels(masks, generator)) for _ in range(5)])
    assert central > 0.55 > 0.4 > uniform


def test_every_point_lies_in_its_region_however_thin() -> None:
    masks = _discs(6)
    line = torch.zeros(1, 96, 96, dtype=torch.bool)
    line[0, 40, 10:80] = True
    regions = torch.cat([masks, line])
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        for points in (
            central_pixels(regions, generator),
            mixed_pixels(regions, generator, central=0.5),
        ):
            x, y = points.long().unbind(1)
            assert regions[torch.arange(7), y, x].all()


def test_missed_and_extra_pixels_are_measured_apart() -> None:
    """Two errors that touch: the middle of both together is on the border between them."""
    region = torch.zeros(1, 96, 96, dtype=torch.bool)
    region[0, 20:76, 20:76] = True
    truth = torch.zeros_like(region)
    truth[0, :, 48:] = True
    generator = torch.Generator().manual_seed(2)
    apart = torch.cat([central_pixels(region, generator, split=truth, tries=40) for _ in range(30)])
    together = torch.cat([central_pixels(region, generator, tries=40) for _ in range(30)])
    assert (apart[:, 0] - 48).abs().mean() > 6 > (together[:, 0] - 48).abs().mean()


def test_a_share_of_zero_is_uniform() -> None:
    masks = _discs(4)
    a = mixed_pixels(masks, torch.Generator().manual_seed(3), central=0.0)
    b = sample_pixels(masks, torch.Generator().manual_seed(3))
    torch.testing.assert_close(a, b)
