"""Edges: outlines of drawn masks, thinning of known lines, and a random model end to end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from textsam.errors import PromptError
from textsam.inference.model import TextSAM
from textsam.tasks import edges as tasks
from textsam.tasks import outlines
from textsam.tasks.edges import EdgeSettings, edges
from textsam.tasks.outlines import (
    MaxOutlines,
    SumOutlines,
    add_outlines,
    outline_gradients,
    ridges,
    smooth_logits,
    sobel,
    thin_edges,
)
from textsam.values.geometry import Frame

SMALL = EdgeSettings(points_per_side=4)


def _disc(size: int, radius: float, *, slope: float = 2.0) -> torch.Tensor:
    """Logits of a disc in the middle of a square: `slope` for each pixel from its rim."""
    line = torch.arange(size) + 0.5 - size / 2
    distance = (line[:, None] ** 2 + line**2).sqrt()
    return slope * (radius - distance)


def _smooth(seed: int, size: tuple[int, int]) -> torch.Tensor:
    """Logits without a symmetry: (1, h, w)."""
    noise = torch.randn(1, 1, 6, 7, generator=torch.Generator().manual_seed(seed))
    return 5 * torch.nn.functional.interpolate(noise, size, mode="bicubic")[0]


def _blocks(mask: NDArray[np.bool_]) -> int:
    """How many 2 x 2 blocks are full: a line of one pixel has none."""
    return int((mask[1:, 1:] & mask[1:, :-1] & mask[:-1, 1:] & mask[:-1, :-1]).sum())


def test_strength_is_of_the_photos_size_and_from_0_to_1(
    model: TextSAM, photo: NDArray[np.uint8]
) -> None:
    thick = edges(model, photo, thin=False, settings=SMALL)
    thin = edges(model, photo, settings=SMALL)
    for strength in (thick, thin):
        assert strength.shape == (50, 90) and strength.dtype == np.float32
        assert strength.min() == 0 and strength.max() == 1
    # Thinning keeps some pixels as they were, and drops the others.
    assert 0 < (thin > 0).sum() < (thick > 0).sum()
    np.testing.assert_array_equal(thin[thin > 0], thick[thin > 0])


def test_an_open_photo_gives_what_the_model_gives(
    model: TextSAM, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = edges(model, photo, settings=SMALL)
    np.testing.assert_array_equal(edges(model.open(photo), settings=SMALL), one)
    # One mask at a time at the photo's size, and other batches of points: the same edges.
    monkeypatch.setattr(outlines, "_UPSCALED_BYTES", 1)
    by_one = edges(model, photo, settings=EdgeSettings(points_per_side=4, points_per_batch=5))
    np.testing.assert_allclose(by_one, one, atol=1e-5)


def test_nms_leaves_fewer_masks(model: TextSAM, photo: NDArray[np.uint8]) -> None:
    view = model.open(photo).photo
    every = tasks._distinct_masks(view, 4, EdgeSettings(box_nms_thresh=1.0))
    some = tasks._distinct_masks(view, 4, EdgeSettings(box_nms_thresh=0.3))
    assert 0 < len(some) < len(every) <= 48


def test_a_drawn_mask_gives_its_outline() -> None:
    """A disc in the padded frame: its rim and nothing else, where it is in the photo."""
    frame = Frame(height=60, width=80, image_size=64)  # 48 x 64 model pixels, 16 x 16 logits
    logits = torch.full((1, 16, 16), -8.0)
    logits[0, 3:9, 4:12] = 8.0
    strongest = MaxOutlines(frame.size)
    add_outlines(strongest, logits, frame, window=(0, 0, 80, 60))
    strength, gradient = strongest.result()
    rows, columns = np.nonzero(strength > 0.5 * strength.max())
    # Cells 3 to 9 and 4 to 12 of 16, 5 photo pixels each.
    on_rim = [
        min(abs(r + 0.5 - 15), abs(r + 0.5 - 45), abs(c + 0.5 - 20), abs(c + 0.5 - 60)) < 3
        for r, c in zip(rows, columns, strict=True)
    ]
    assert len(rows) > 150 and all(on_rim)
    assert strength[30, 40] == 0 and strength[2, 2] == 0
    # Gradients point to the inside.
    assert gradient[0, 30, 20] > 0 > gradient[0, 30, 59]
    assert gradient[1, 15, 40] > 0 > gradient[1, 44, 40]


def test_an_inner_edge_away_from_the_outer_boundary_vanishes() -> None:
    """A mask that is less sure of a part inside: still positive there, so no outline."""
    logits = torch.full((1, 40, 40), -6.0)
    logits[0, 5:35, 5:35] = 6.0
    logits[0, 15:25, 15:25] = 0.2
    raw = sobel(logits.sigmoid())[0].square().sum(0).sqrt()
    assert raw[15, 20] > 0.1
    kept = outline_gradients(logits)[0].square().sum(0).sqrt()
    assert kept[10:30, 10:30].max() == 0
    assert kept[5, 20] == raw[5, 20] > 0.3
    # A hole is another matter: it has an outer boundary of its own.
    logits[0, 15:25, 15:25] = -6.0
    assert outline_gradients(logits)[0].square().sum(0).sqrt()[15, 20] > 0.3


def test_the_photos_border_is_no_edge() -> None:
    logits = torch.full((1, 20, 30), 5.0)
    assert outline_gradients(logits).abs().max() == 0
    logits[0, :, 15:] = -5.0
    found = outline_gradients(logits)[0].square().sum(0).sqrt()
    assert found[:, [0, -1]].max() == 0 and found[0, 14] > 0.3


def test_reach_is_how_far_from_the_boundary_a_gradient_counts() -> None:
    slope = (torch.arange(40) - 19.5).expand(1, 10, 40) / 4
    widths = [
        int((outline_gradients(slope, reach=reach)[0, 0, 5] > 0).sum()) for reach in (0, 1, 4)
    ]
    assert widths == [1, 3, 9]


@pytest.mark.parametrize("axis", [0, 1])
def test_a_flipped_photo_has_flipped_edges(axis: int) -> None:
    logits = torch.cat([_smooth(seed, (31, 44)) for seed in (1, 2, 3)])

    def found(maps: torch.Tensor) -> NDArray[np.float32]:
        gradients = outline_gradients(maps)
        strength = gradients.square().sum(1).sqrt()
        top = strength.argmax(0)
        chosen = gradients.gather(0, top.expand(1, 2, 31, 44))[0]
        return thin_edges(strength.max(0).values.numpy(), chosen.numpy())

    one, other = found(logits), found(logits.flip(axis + 1))
    assert (one > 0).sum() > 50
    np.testing.assert_allclose(np.flip(other, axis), one, atol=1e-6)


@pytest.mark.parametrize("turned", [False, True])
def test_a_step_is_thinned_to_one_pixel(turned: bool) -> None:
    """Between two columns lie two equal pixels of strength; one stays, whatever the direction."""
    step = torch.zeros(12, 20)
    step[:, 9:] = 1.0
    if turned:
        step = step.T
    gradient = sobel(step[None])[0].numpy()
    strength = np.hypot(*gradient)
    for sign in (1, -1):
        thin = thin_edges(strength, sign * gradient) > 0
        assert (thin.sum(0 if turned else 1) == 1).all()
    # Mask and complement beside each other: their gradients point against each other.
    against = gradient.copy()
    half = np.s_[:, 9:] if turned else np.s_[:, :, 9:]
    against[half] = -against[half]
    if turned:
        against = gradient.copy()
        against[:, 9:, :] = -against[:, 9:, :]
    thin = thin_edges(strength, against) > 0
    assert (thin.sum(0 if turned else 1) == 1).all()


@pytest.mark.parametrize("radius", [10.0, 17.3, 26.0])
def test_a_circle_is_thinned_to_its_rim(radius: float) -> None:
    gradient = sobel(_disc(64, radius).sigmoid()[None])[0].numpy()
    thin = thin_edges(np.hypot(*gradient), gradient)
    line = thin > 0.3 * thin.max()
    rows, columns = np.nonzero(line)
    distance = np.hypot(rows + 0.5 - 32, columns + 0.5 - 32)
    assert np.abs(distance - radius).max() < 1
    assert _blocks(line) == 0
    # A line of one pixel: a digital circle has 4 sqrt(2) r pixels if it steps across corners, 8 r
    # if it goes round them.
    assert 0.95 * 4 * np.sqrt(2) * radius < len(rows) < 8 * radius
    # Every direction has its pixel.
    angles = np.degrees(np.arctan2(rows + 0.5 - 32, columns + 0.5 - 32)) // 15
    assert len(np.unique(angles)) == 24


def test_a_slanted_ridge_keeps_its_crest() -> None:
    """The direction lies between two neighbours, so their values are interpolated."""
    y, x = np.mgrid[0:40, 0:40].astype(np.float32)
    across = (x * np.cos(0.4) + y * np.sin(0.4)) - 25
    strength = np.exp(-(across**2) / 8).astype(np.float32)
    gradient = np.stack([np.full_like(x, np.cos(0.4)), np.full_like(x, np.sin(0.4))])
    thin = thin_edges(strength, gradient)
    line = thin[1:-1, 1:-1] > 0.5
    assert np.abs(across[1:-1, 1:-1][line]).max() < 0.75
    assert _blocks(line) == 0
    assert (line.sum(1) > 0).all()


def test_the_sum_is_where_masks_agree() -> None:
    """Three masks with one border in common, one with another: the common one is stronger."""
    common, other = torch.full((2, 20, 30), -6.0)
    common[:, 8:] = 6.0
    other[:, 20:] = 6.0
    gradients = outline_gradients(torch.stack([common, -common, common, other]))
    window = (0, 0, 30, 20)
    summed, strongest = SumOutlines((20, 30)), MaxOutlines((20, 30))
    for kept in (summed, strongest):
        kept.start_view(window)
    for part in (gradients[:2], gradients[2:]):
        summed.add(part, window)
        strongest.add(part, window)
    # One look, whose window was begun once: m / (m + 1) of the sums 3 m and m, and their roots.
    strength, direction = summed.result()
    common, other = (s**2 / (1 - s**2) for s in (strength[10, 8], strength[10, 20]))
    assert common == pytest.approx(3 * other, rel=1e-4)
    top, _ = strongest.result()
    assert top[10, 8] == pytest.approx(top[10, 20])
    # A mask and its complement have opposite gradients, and one axis.
    np.testing.assert_allclose(np.abs(direction[:, 10, 8]), [1, 0], atol=1e-5)
    assert ((thin_edges(strength, direction) > 0).sum(1) == 2).all()


def test_a_window_lies_where_it_belongs() -> None:
    gradients = outline_gradients(_disc(16, 5.0)[None])
    for kept in (MaxOutlines((40, 50)), SumOutlines((40, 50))):
        kept.add(gradients, (30, 20, 46, 36))
        strength, _ = kept.result()
        assert strength[20:36, 30:46].max() == strength.max() > 0.1
        strength[20:36, 30:46] = 0
        assert not strength.any()


def test_the_sum_is_a_mean_over_the_looks_that_a_pixel_is_in() -> None:
    """A second look that sees the same changes nothing; one that sees nothing halves the mean."""
    gradients = outline_gradients(_disc(16, 5.0)[None])
    means = []
    for looks, seen in ((1, 1), (2, 2), (2, 1)):
        kept = SumOutlines((16, 16))
        for _ in range(looks):
            kept.start_view((0, 0, 16, 16))
        for _ in range(seen):
            kept.add(gradients, (0, 0, 16, 16))
        strength = kept.result()[0]
        assert 0 < strength.max() < 1
        means.append(strength**2 / (1 - strength**2))
    np.testing.assert_allclose(means[1], means[0], rtol=1e-4)
    np.testing.assert_allclose(means[2], means[0] / 2, rtol=1e-4)
    # The same shape at twice the size is half as steep; measured over two pixels it is as strong.
    twice = SumOutlines((32, 32), unit=2.0)
    twice.start_view((0, 0, 32, 32))
    twice.add(outline_gradients(_disc(32, 10.0, slope=0.5)[None]), (0, 0, 32, 32))
    once = SumOutlines((16, 16))
    once.start_view((0, 0, 16, 16))
    once.add(outline_gradients(_disc(16, 5.0, slope=1.0)[None]), (0, 0, 16, 16))
    assert twice.result()[0].max() == pytest.approx(once.result()[0].max(), rel=0.05)


def test_masks_of_the_mirror_image_come_back_to_their_place() -> None:
    frame = Frame(height=48, width=64, image_size=64)
    logits = torch.full((1, 16, 16), -8.0)
    logits[0, 3:9, 2:7] = 8.0
    # The frame is as wide as the photo, so mirroring the logits mirrors the masks.
    one, other = MaxOutlines(frame.size), MaxOutlines(frame.size)
    window = (0, 0, 64, 48)
    add_outlines(one, logits, frame, window=window, margins=(9, 0, 0, 0))
    add_outlines(other, logits.flip(-1), frame, window=window, margins=(9, 0, 0, 0), mirrored=True)
    assert one.result()[0].any()
    for found, expected in zip(other.result(), one.result(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_ridge_is_found_on_the_slope_of_a_stronger_one() -> None:
    """A faint line 8 pixels beside the crest of a roof: it is no maximum, but a ridge."""
    x = np.arange(60, dtype=np.float32)
    profile = 2 - np.abs(x - 30) / 20 + 0.08 * np.exp(-((x - 38) ** 2) / 2)
    strength = np.tile(profile, (20, 1)).astype(np.float32)
    across = np.stack([np.ones_like(strength), np.zeros_like(strength)])
    crests = np.flatnonzero(thin_edges(strength, across)[10])
    found = np.flatnonzero(thin_edges(ridges(strength, 1.2), across)[10] > 1e-3)
    assert crests.tolist() == [30]
    assert found.tolist() == [30, 38]
    # A plane bends nowhere; what it looks like turned is the same turned.
    plane = np.tile(np.arange(40, dtype=np.float32), (30, 1))
    assert ridges(plane, 1.2)[8:-8, 8:-8].max() < 1e-4
    np.testing.assert_allclose(ridges(strength.T.copy(), 1.2), ridges(strength, 1.2).T, atol=1e-6)


def test_ridges_are_second_derivatives_of_gaussians() -> None:
    from scipy.ndimage import gaussian_filter

    strength = np.random.default_rng(3).random((40, 50)).astype(np.float32)
    xx, yy, xy = (
        gaussian_filter(strength.astype(np.float64), 1.5, order=order, mode="nearest")
        for order in ((0, 2), (2, 0), (1, 1))
    )
    matrices = np.stack([np.stack([xx, xy], -1), np.stack([xy, yy], -1)], -2)
    lowest = np.linalg.eigvalsh(matrices)[..., 0]
    expected = 1.5**2 * np.maximum(-lowest, 0)
    assert (expected > 0).mean() > 0.5
    np.testing.assert_allclose(ridges(strength, 1.5), expected, atol=5e-4)


def test_margins_belong_to_the_inner_borders_of_crops() -> None:
    settings = EdgeSettings(crop_margin=8, border=5)
    assert tasks._margins((0, 0, 90, 50), (50, 90), settings, 1.0) == (5, 5, 5, 5)
    assert tasks._margins((0, 0, 60, 40), (50, 90), settings, 1.0) == (5, 5, 8, 8)
    assert tasks._margins((30, 10, 90, 50), (50, 90), settings, 1.0) == (8, 8, 5, 5)
    assert tasks._margins((0, 0, 600, 400), (500, 900), settings, 2.5) == (12, 12, 20, 20)
    # No more than half of a window is margin, however small it is.
    assert tasks._margins((0, 0, 9, 3), (3, 9), settings, 1.0) == (2, 0, 2, 0)
    # What lies in a margin is left out, the rest stays where it is; a window may be all margin.
    frame = Frame(height=64, width=64, image_size=64)
    logits = torch.full((1, 16, 16), -8.0)
    logits[0, 3:9, 4:12] = 8.0
    whole, cut, nothing = (MaxOutlines(frame.size) for _ in range(3))
    window = (0, 0, 64, 64)
    add_outlines(whole, logits, frame, window=window)
    add_outlines(cut, logits, frame, window=window, margins=(20, 0, 0, 30))
    add_outlines(nothing, logits, frame, window=window, margins=(40, 0, 30, 0))
    expected = whole.result()[0].copy()
    expected[34:] = expected[:, :20] = 0
    np.testing.assert_array_equal(cut.result()[0], expected)
    assert expected.any() and not nothing.result()[0].any()


def test_smoothing_takes_a_checkerboard_away() -> None:
    board = ((torch.arange(9)[:, None] + torch.arange(9)) % 2).float()[None]
    assert (smooth_logits(board, 3)[0, 1:-1, 1:-1] - 0.5).abs().max() < 0.06
    torch.testing.assert_close(
        smooth_logits(torch.full((2, 5, 5), 3.0), 3), torch.full((2, 5, 5), 3.0)
    )


def test_crops_and_sums_run_and_have_a_name(
    model: TextSAM, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = EdgeSettings(
        points_per_side=3,
        crop_points_per_side=(2, 1),
        combine="sum",
        crop_margin=3,
        border=2,
        mirror=True,
        smooth=3,
        ridge=1.2,
    )
    monkeypatch.setattr(EdgeSettings, "agreement", classmethod(lambda cls: few))
    strength = edges(model, photo, settings="agreement")
    assert strength.shape == (50, 90) and 0 < strength.max() < 1
    np.testing.assert_array_equal(edges(model, photo, settings=few), strength)
    # Lines keep the strength that the map had there.
    thick = edges(model, photo, settings=few, thin=False)
    np.testing.assert_array_equal(strength[strength > 0], thick[strength > 0])
    assert (strength > 0).sum() < 0.5 * (thick > 0).sum()
    assert not strength[:2].any() and not strength[-2:].any()
    assert not strength[:, :2].any() and not strength[:, -2:].any()
    assert (strength != edges(model, photo, settings=SMALL)).any()
    with pytest.raises(PromptError, match="smooth"):
        EdgeSettings(smooth=2)
    with pytest.raises(PromptError, match="agreement"):
        edges(model, photo, settings="best")  # type: ignore[arg-type]
    for narrow in (-1.0, 0.1):
        with pytest.raises(PromptError, match="ridge"):
            EdgeSettings(ridge=narrow)
    with pytest.raises(PromptError, match=r"crop_points_per_side is 12; wanted a tuple"):
        EdgeSettings(crop_points_per_side=12)  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="crop_points_per_side"):
        EdgeSettings(crop_points_per_side=(4, 0))
    with pytest.raises(PromptError, match="max"):
        EdgeSettings(combine="mean")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(1, 1), (3, 20), (20, 3), (8, 8)])
def test_the_shipped_presets_take_photos_of_a_few_pixels(
    model: TextSAM, size: tuple[int, int]
) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    for preset in ("paper", "agreement"):
        strength = edges(model, Image.fromarray(noise), settings=preset)  # type: ignore[arg-type]
        assert strength.shape == size and np.isfinite(strength).all()


def test_the_mirror_image_has_mirrored_edges(model: TextSAM, photo: NDArray[np.uint8]) -> None:
    """Both looks change places, so this holds for any model, if they are laid on each other."""
    settings = EdgeSettings(points_per_side=4, combine="sum", mirror=True, box_nms_thresh=1.0)
    one = edges(model, photo, thin=False, settings=settings)
    other = edges(model, np.ascontiguousarray(photo[:, ::-1]), thin=False, settings=settings)
    assert one.max() > 0
    np.testing.assert_allclose(other[:, ::-1], one, atol=1e-4)
    alone = EdgeSettings(points_per_side=4, combine="sum", box_nms_thresh=1.0)
    assert np.abs(edges(model, photo, thin=False, settings=alone) - one).max() > 1e-3


def test_nothing_gives_nothing() -> None:
    assert not thin_edges(np.zeros((5, 6), np.float32), np.zeros((2, 5, 6), np.float32)).any()
    frame = Frame(height=9, width=7, image_size=64)
    for kept in (MaxOutlines(frame.size), SumOutlines(frame.size)):
        add_outlines(kept, torch.zeros(0, 16, 16), frame, window=(0, 0, 7, 9))
        strength, _ = kept.result()
        assert strength.shape == (9, 7) and not strength.any()


def test_what_cannot_be_meant_is_refused(model: TextSAM, photo: NDArray[np.uint8]) -> None:
    with pytest.raises(PromptError, match="no image"):
        edges(model)
    with pytest.raises(PromptError, match="open photo"):
        edges(model.open(photo), photo)
    with pytest.raises(PromptError, match="wanted a TextSAM"):
        edges("photo.jpg")  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="at least 1"):
        EdgeSettings(points_per_side=0)
    with pytest.raises(PromptError, match="box_nms_thresh"):
        EdgeSettings(box_nms_thresh=0.0)
