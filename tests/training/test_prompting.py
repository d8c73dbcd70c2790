"""The prompt simulation does what Appendix A says, for every mask of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from textsam.modeling.mask_decoder import (
    ABSENT,
    BACKGROUND,
    BOX_END,
    BOX_START,
    FOREGROUND,
    NOT_A_POINT,
    PromptBatch,
)
from training.objectives.randomness import PhotoRandom
from training.prompting import (
    PromptConfig,
    PromptSimulator,
    _window_means,
    add_error_points,
    box_prompts,
    central_pixels,
    first_prompts,
    mixed_pixels,
    new_points,
    sample_pixels,
    token_prompts,
)

CONFIG = PromptConfig()


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _masks() -> torch.Tensor:
    masks = torch.zeros(3, 64, 64, dtype=torch.bool)
    masks[0, 10:20, 30:50] = True
    masks[1, 63, 63] = True
    masks[2] = True
    return masks


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_points_lie_in_the_mask(seed: int) -> None:
    masks = _masks()
    x, y = sample_pixels(masks, _generator(seed)).long().unbind(1)
    assert masks[torch.arange(3), y, x].all()


def test_points_are_uniform_in_the_mask() -> None:
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, 2, 3] = mask[0, 5, 1:4] = True
    points = sample_pixels(mask.expand(4000, -1, -1), _generator())
    keys, counts = (points[:, 1] * 8 + points[:, 0]).unique(return_counts=True)
    assert keys.tolist() == [19, 41, 42, 43]
    assert (counts / 4000 - 0.25).abs().max() < 0.03


def test_boxes_have_the_papers_noise() -> None:
    masks = torch.zeros(4000, 64, 64, dtype=torch.bool)
    masks[:, 16:32, 20:40] = True
    corners, labels = box_prompts(masks, _generator(), config=PromptConfig(box_noise_limit=1.0))
    assert labels[0].tolist() == [BOX_START, BOX_END]
    flat = corners.flatten(1)
    torch.testing.assert_close(
        flat.mean(0), torch.tensor([20.0, 16.0, 40.0, 32.0]), atol=0.15, rtol=0
    )
    # 10% of the side: 20 wide, 16 high.
    torch.testing.assert_close(flat.std(0), torch.tensor([2.0, 1.6, 2.0, 1.6]), atol=0.12, rtol=0)
    limited, _ = box_prompts(masks, _generator(), config=CONFIG)
    assert (limited.flatten(1) - flat.mean(0).round()).abs().max() <= 20 / 1024 * 64 + 1e-4


def test_boxes_stay_in_the_frame() -> None:
    corners, _ = box_prompts(_masks()[2:].expand(200, -1, -1), _generator(), config=CONFIG)
    assert corners.min() >= 0 and corners.max() <= 64


def test_first_prompts_are_points_or_boxes_by_half() -> None:
    masks = _masks()[:1].expand(2000, -1, -1)
    prompts = first_prompts(
        masks, torch.zeros(2000, dtype=torch.int64), _generator(), config=CONFIG
    )
    boxed = prompts.labels[:, 0] == BOX_START
    assert boxed.float().mean().item() == pytest.approx(0.5, abs=0.04)
    assert (prompts.labels[~boxed] == torch.tensor([FOREGROUND, NOT_A_POINT])).all()
    assert (prompts.labels[boxed] == torch.tensor([BOX_START, BOX_END])).all()


def test_error_points_are_in_the_error_and_labelled_by_its_kind() -> None:
    masks = torch.zeros(4, 16, 16, dtype=torch.bool)
    masks[:, 4:12, 4:12] = True
    predicted = masks.clone()
    predicted[0, 4:12, 4:8] = False  # missing: foreground
    predicted[1, 0:4, 0:16] = True  # too much: background
    predicted[3, 0:4, 0:16] = True  # too much, but void
    ignore = torch.zeros_like(masks)
    ignore[3, 0:4] = True
    start = first_prompts(masks, torch.zeros(4, dtype=torch.int64), _generator(), config=CONFIG)
    logits = torch.randn(4, 1, 4, 4, requires_grad=True)
    for seed in range(20):
        prompts = add_error_points(start, predicted, logits, masks, _generator(seed), ignore=ignore)
        x, y = prompts.points[:, -1].long().unbind(1)
        assert prompts.labels[:, -1].tolist() == [1, 0, 1, 1]
        error = predicted ^ masks
        assert error[0, y[0], x[0]] and error[1, y[1], x[1]]
        assert masks[2, y[2], x[2]] and masks[3, y[3], x[3]]
    assert prompts.masks is not None
    assert torch.equal(prompts.masks, logits) and not prompts.masks.requires_grad
    assert prompts.points.shape == (4, 3, 2)


def test_the_same_seed_gives_the_same_prompts() -> None:
    a, b = (
        first_prompts(_masks(), torch.arange(3), _generator(4), config=CONFIG) for _ in range(2)
    )
    assert torch.equal(a.points, b.points) and torch.equal(a.labels, b.labels)


# The rounds, and randomness that belongs to a photo.


def _random(counts: Sequence[int], *, first: int = 0) -> PhotoRandom:
    seeds = [11 * n + 1 for n in range(first, first + len(counts))]
    return PhotoRandom(seeds, counts, stream="prompts")


def _simulator(
    masks: torch.Tensor, random: PhotoRandom, *, ignore: torch.Tensor | None = None
) -> PromptSimulator:
    index = torch.zeros(len(masks), dtype=torch.int64)
    return PromptSimulator(masks, index, random, config=CONFIG, ignore=ignore)


def _seen(prompts: PromptBatch) -> list[list[tuple[float, ...]]]:
    """What attention sees of each prompt: its slots that are not absent."""
    return [
        [(*point, label) for point, label in zip(points, labels, strict=True) if label != ABSENT]
        for points, labels in zip(prompts.points.tolist(), prompts.labels.tolist(), strict=True)
    ]


def _answer(masks: torch.Tensor, index: int, rows: slice = slice(None)) -> torch.Tensor:
    """Made-up logits of a round, of the same masks whatever batch they are in."""
    generator = _generator(index)
    return torch.randn(8, 1, 16, 16, generator=generator)[: len(masks)][rows]


def test_eleven_rounds_eight_points_two_without() -> None:
    adds = new_points(_random([300, 300]), config=CONFIG).bool()
    assert CONFIG.rounds == 11 and adds.shape == (600, 11)
    assert (adds.sum(1) == 8).all()
    assert not adds[:, 0].any() and not adds[:, -1].any()
    assert adds[:, 9].all()  # the round without a point is among the eight: one follows it
    silent = (~adds[:, 1:9]).float()
    assert (silent.sum(1) == 1).all()
    assert (silent.mean(0) - 1 / 8).abs().max() < 0.05  # its place is random


@pytest.mark.parametrize(
    ("points", "among", "last", "wanted"),
    [(2, 0, 0, [0, 1, 1]), (0, 0, 1, [0, 0]), (1, 1, 0, [0, 0, 1]), (0, 0, 0, [0])],
)
def test_rounds_can_be_fewer(points: int, among: int, last: int, wanted: list[int]) -> None:
    config = PromptConfig(points=points, silent_among=among, silent_last=last)
    assert config.rounds == len(wanted)
    assert new_points(_random([2]), config=config).tolist() == [wanted, wanted]


def test_rounds_that_cannot_be_are_refused() -> None:
    for values in ({"points": 0}, {"points": -1}, {"silent_among": 2}, {"silent_last": -1}):
        with pytest.raises(ValueError, match="silent_among"):
            PromptConfig(**values)


def test_the_simulator_goes_through_the_rounds() -> None:
    masks = _masks()
    simulator = _simulator(masks, _random([3]))
    prompts = simulator.first()
    assert prompts.masks is None
    for index in range(1, CONFIG.rounds):
        logits = _answer(masks, index)
        before, prompts = prompts, simulator.follow(prompts, logits, index=index)
        assert torch.equal(prompts.masks, logits)  # unthresholded
        upscaled = torch.nn.functional.interpolate(logits, (64, 64), mode="bilinear")[:, 0]
        error = (upscaled > 0) ^ masks
        for row, (old, new) in enumerate(zip(_seen(before), _seen(prompts), strict=True)):
            adds = bool(simulator.new_points[row, index])
            assert new[: len(old)] == old and len(new) == len(old) + adds
            if adds:
                x, y, label = (int(value) for value in new[-1])
                assert error[row, y, x]
                assert label == int(masks[row, y, x])
    assert [len(seen) for seen in _seen(prompts)] == [10, 10, 10]  # two slots and eight points


def test_a_batch_is_prompted_as_its_photos_are() -> None:
    masks = torch.cat([_masks(), _masks().flip(0)])
    logits = {index: _answer(masks, index) for index in range(1, 11)}
    whole, parts = _simulator(masks, _random([2, 1, 3])), []
    for photo, rows in enumerate((slice(0, 2), slice(2, 3), slice(3, 6))):
        counts = [rows.stop - rows.start]
        parts.append((rows, _simulator(masks[rows], _random(counts, first=photo))))
    prompts, alone = whole.first(), [(rows, part.first()) for rows, part in parts]
    for index in range(1, 11):
        prompts = whole.follow(prompts, logits[index], index=index)
        alone = [
            (rows, part.follow(own, logits[index][rows], index=index))
            for (_, part), (rows, own) in zip(parts, alone, strict=True)
        ]
    assert _seen(prompts) == [seen for _, own in alone for seen in _seen(own)]


def test_no_point_is_put_where_nothing_counts() -> None:
    masks = _masks()[:1].expand(40, -1, -1)
    ignore = torch.ones_like(masks)
    ignore[:, 40:44, 8:12] = False  # the only error that counts, a background one
    simulator = _simulator(masks, _random([40]), ignore=ignore)
    logits = torch.full((40, 1, 16, 16), 5.0)
    prompts = simulator.follow(simulator.first(), logits, index=9)
    x, y = prompts.points[:, -1].unbind(1)
    assert (prompts.labels[:, -1] == BACKGROUND).all()
    assert x.min() >= 8 and x.max() < 12 and y.min() >= 40 and y.max() < 44


def test_pixels_of_many_masks_are_those_of_one_long_count() -> None:
    """Row by row is the same choice as the nth of all pixels in a row."""
    masks = torch.rand(50, 9, 13, generator=_generator()) < 0.3
    masks[0] = False
    chosen = sample_pixels(masks, _generator(3)).long()
    drawn = torch.rand(50, 1, generator=_generator(3))
    for mask, u, (x, y) in zip(masks, drawn, chosen.tolist(), strict=True):
        pixels = (mask if mask.any() else torch.ones_like(mask)).nonzero()
        nth = min(int(u * len(pixels)), len(pixels) - 1)
        assert pixels[nth].tolist() == [y, x]
    assert sample_pixels(masks[:0], _random([])).shape == (0, 2)


def test_clip_tokens_take_the_place_of_first_prompts() -> None:
    masks = _masks()
    before = _simulator(masks, _random([3])).first()
    tokens, has = torch.randn(3, 1, 8), torch.tensor([True, True, False])
    click = torch.tensor([[7.0, 9.0], [31.0, 12.0], [1.0, 1.0]])
    after = token_prompts(
        before,
        tokens,
        has_tokens=has,
        with_point=torch.tensor([False, True, True]),
        points=click,
    )
    assert after.labels[:2].tolist() == [[NOT_A_POINT, ABSENT], [FOREGROUND, NOT_A_POINT]]
    assert after.points[1, 0].tolist() == [31.0, 12.0]
    assert torch.equal(after.points[2], before.points[2])
    assert torch.equal(after.labels[2], before.labels[2])
    assert after.tokens is tokens and torch.equal(after.has_tokens, has)
    assert _seen(token_prompts(before, tokens)) == [
        [(*p, -1)] for p in before.points[:, 0].tolist()
    ]
    with pytest.raises(ValueError, match="give points"):
        token_prompts(before, tokens, with_point=has)


# Rounds of several points.


MIXED = PromptConfig(max_new_points=(1, 2, 4), central=0.5)


def test_rounds_add_up_to_so_many_points() -> None:
    counts = new_points(_random([300, 300]), config=MIXED)
    assert MIXED.rounds == 4 and counts.shape == (600, 4)
    for column, most in zip(counts.T, (0, 1, 2, 4), strict=True):
        assert set(column.tolist()) == set(range(most + 1))  # each number comes up
    for values in ({"central": 1.5}, {"max_new_points": (1, -1)}):
        with pytest.raises(ValueError, match="central"):
            PromptConfig(**values)  # type: ignore[arg-type]


def test_points_of_many_at_once_are_in_the_error_and_belong_to_their_photo() -> None:
    masks = torch.cat([_masks(), _masks().flip(0)])
    index = torch.zeros(6, dtype=torch.int64)
    whole = PromptSimulator(masks, index, _random([2, 4]), config=MIXED)
    part = PromptSimulator(masks[2:], index[2:], _random([4], first=1), config=MIXED)
    prompts, alone = whole.first(), part.first()
    for round_number in range(1, 4):
        logits = _answer(masks, round_number)
        before = prompts
        prompts = whole.follow(prompts, logits, index=round_number)
        alone = part.follow(alone, logits[2:], index=round_number)
        assert _seen(prompts)[2:] == _seen(alone)
        error = (
            torch.nn.functional.interpolate(logits, (64, 64), mode="bilinear")[:, 0] > 0
        ) ^ masks
        for row, (old, new) in enumerate(zip(_seen(before), _seen(prompts), strict=True)):
            assert len(new) == len(old) + int(whole.new_points[row, round_number])
            for x, y, label in new[len(old) :]:
                assert error[row, int(y), int(x)] and label == int(masks[row, int(y), int(x)])


# Points in the middle.


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


@pytest.mark.parametrize("side", [1, 5, 13])
def test_window_means_are_those_of_pooling(side: int) -> None:
    values = torch.rand(2, 3, 20, 17)
    pooled = torch.nn.functional.avg_pool2d(values, side, stride=1, padding=side // 2)
    torch.testing.assert_close(_window_means(values, side), pooled)
