"""The paper's prompt simulation, vectorised over masks (arXiv 2304.02643, Appendix A).

A first prompt (point, noisy box, or in text training a CLIP token), then points in the error region
of the last prediction, whose unthresholded logits are the next mask prompt: eleven rounds, two of
which add no point. All earlier prompts stay in later rounds. `PromptSimulator` does this by the
functions below.

Two options are ours, for runs of hours instead of days: rounds that add several points at once, and
points in the middle of an error. The paper trains with uniform points (Appendix A) but evaluates
with the pixel farthest from the border (Appendix D.1), where a person would click.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from textsam.modeling.mask_decoder import (
    ABSENT,
    BACKGROUND,
    BOX_END,
    BOX_START,
    FOREGROUND,
    NOT_A_POINT,
    PromptBatch,
)

_CELL = 4  # pixels; the depth of a point is measured on cells of this side
_WINDOWS = (5, 13)  # cells; sides of the windows around a point in which depth is measured


class MaskRandom(Protocol):
    """Random numbers for P masks, on the CPU; see `objectives.randomness.PhotoRandom`."""

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1), (P, *shape) float32."""

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, (P, *shape) float32."""


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """Appendix A's numbers; `box_noise_limit` is 20 px at 1024, so a share of the frame here."""

    box_probability: float = 0.5  # That the first prompt is a box and not a point
    # Standard deviation of a corner coordinate, as a share of the box's side
    box_noise: float = 0.1
    box_noise_limit: float = 20 / 1024  # Largest shift of a corner coordinate
    points: int = 8  # Rounds that add a point, after the first round
    silent_among: int = 1  # Rounds without a new point, at a random place among those: 0 or 1
    silent_last: int = 1  # Rounds without a new point at the end
    # Largest number of points that each round after the first adds; the number is drawn for every
    # mask. Replaces the three counts above; None for the paper's rounds.
    max_new_points: tuple[int, ...] | None = None
    # Share of the points that lie in the middle of what they mean; the paper has 0
    central: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.central <= 1 or min(self.max_new_points or (0,)) < 0:
            raise ValueError(
                f"central={self.central}, max_new_points={self.max_new_points}; wanted a share "
                "from 0 to 1, and counts of 0 or more"
            )
        if min(self.points, self.silent_last) < 0 or self.silent_among not in (0, 1):
            raise ValueError(
                f"points={self.points}, silent_among={self.silent_among}, silent_last="
                f"{self.silent_last}; wanted counts of 0 or more, silent_among 0 or 1"
            )
        if self.silent_among and not self.points:
            raise ValueError(
                "silent_among=1 puts a round among the points, and points is 0. "
                "Type: PromptConfig(points=0, silent_among=0)"
            )

    @property
    def rounds(self) -> int:
        """Decoder calls per mask; the paper's numbers give 1 + 8 + 2 = 11."""
        if self.max_new_points is not None:
            return 1 + len(self.max_new_points)
        return 1 + self.points + self.silent_among + self.silent_last


class PromptSimulator:
    """Makes the prompts of all rounds for P masks.

    `first` returns the first prompts; after each prediction `follow` returns the next ones.
    """

    def __init__(
        self,
        masks: Tensor,
        image_index: Tensor,
        random: MaskRandom,
        *,
        config: PromptConfig,
        ignore: Tensor | None = None,
    ) -> None:
        self.masks = masks  # (P, S, S) bool truth in the model frame, none empty
        self.image_index = image_index  # (P,) int64, image of each mask
        self.random = random
        self.config = config
        # (P, S, S) bool, pixels that get no point: void and the frame's padding.
        self.ignore = ignore
        # (P, rounds) int64, on the CPU: how many points each round adds to a mask.
        self.new_points = new_points(random, config=config)

    def first(self) -> PromptBatch:
        """A point or a box for each mask."""
        return first_prompts(self.masks, self.image_index, self.random, config=self.config)

    def follow(self, prompts: PromptBatch, logits: Tensor, *, index: int) -> PromptBatch:
        """The prompts of round `index` >= 1, from those before and their logits (P, 1, 4s, 4s)."""
        side, most = self.masks.shape[-1], self.config.max_new_points
        with torch.no_grad():
            upscaled = F.interpolate(
                logits.float(), (side, side), mode="bilinear", align_corners=False
            )
        return add_error_points(
            prompts,
            upscaled[:, 0] > 0,
            logits,
            self.masks,
            self.random,
            ignore=self.ignore,
            counts=self.new_points[:, index],
            draws=1 if most is None else most[index - 1],
            central=self.config.central,
        )


def new_points(random: MaskRandom, *, config: PromptConfig) -> Tensor:
    """How many points each round adds, (P, rounds) int64.

    The paper's add one: never the first, `silent_among` or the last.
    """
    if config.max_new_points is not None:
        most = torch.tensor([0, *config.max_new_points])
        return (random.uniform(len(most)) * (most + 1)).long().clamp(max=most)
    # The paper says "among the eight": before one of them, each with the same probability.
    place = (random.uniform() * config.points).long().clamp(max=max(config.points - 1, 0))
    rounds = torch.arange(config.rounds)
    adds = ((rounds > 0) & (rounds < config.rounds - config.silent_last)).expand(len(place), -1)
    if config.silent_among:
        adds = adds & (rounds != 1 + place[:, None])
    return adds.long()


def sample_pixels(region: Tensor, random: torch.Generator | MaskRandom) -> Tensor:
    """One pixel, uniformly, of each region: (P, h, w) bool -> (P, 2) float x, y.

    A region without pixels falls back to the whole frame.
    """
    # int32 suffices for the pixels of a frame and halves the memory.
    rows = region.sum(2, dtype=torch.int32)
    # A region without pixels falls back to all rows, and below to all columns of the row.
    full = torch.full_like(rows, region.shape[2])
    rows = torch.where(rows.any(1, keepdim=True), rows, full)
    running = rows.cumsum(1, dtype=torch.int32)
    count = running[:, -1:]
    drawn = _uniform(random, len(region), 1).to(region.device)
    nth = (drawn * count).to(torch.int32).clamp(max=count - 1)
    # First the row that holds the nth pixel, then its place in that row: the running count of all
    # pixels would be a tensor of P x S x S.
    y = torch.searchsorted(running, nth + 1)
    before = (running - rows).gather(1, y)
    line = region[torch.arange(len(region), device=region.device), y[:, 0]]
    line = torch.where(line.any(1, keepdim=True), line, True)
    x = torch.searchsorted(line.cumsum(1, dtype=torch.int32), nth - before + 1)
    return torch.cat([x, y], dim=1).float()


def central_pixels(
    region: Tensor,
    random: torch.Generator | MaskRandom,
    *,
    split: Tensor | None = None,
    tries: int = 6,
) -> Tensor:
    """The deepest of several random cells of each region (P, S, S) bool: (P, 2) float x, y, pixels.

    Depth is the region's share of two windows around the cell; an exact distance transform of every
    error in every round would cost more than the decoder. Of a region too thin for any cell a
    uniform pixel is taken. S is a multiple of 4. What lies on either side of `split` (P, S, S)
    bool, e.g. the truth, is measured apart, for missed and extra pixels are different errors.
    """
    parts = [region] if split is None else [region & split, region & ~split]
    share = torch.stack([F.avg_pool2d(part[:, None].float(), _CELL)[:, 0] for part in parts])
    depth = torch.zeros_like(share)
    for side in _WINDOWS:
        depth += _window_means(share, side)
    # Cells of which less than half lies in the region are never chosen.
    depth = (depth * (share > 0.5)).amax(0).flatten(1)
    cells = share.amax(0).flatten(1) > 0.5
    running = cells.cumsum(1)
    count = running[:, -1:]
    nth = (_uniform(random, len(cells), tries).to(region.device) * count).long()
    drawn = torch.searchsorted(running, nth + 1).clamp(max=cells.shape[1] - 1)
    best = drawn.gather(1, depth.gather(1, drawn).argmax(1, keepdim=True))[:, 0]
    width = share.shape[-1]
    middle = torch.stack([best % width, best // width], dim=1).float() * _CELL + _CELL / 2
    return torch.where(count > 0, middle, sample_pixels(region, random))


def _window_means(values: Tensor, side: int) -> Tensor:
    """Means of a window around each cell, zeros beyond the border; `side` is odd.

    By running sums, since PyTorch's pooling costs side^2 additions a cell on a CPU: an eighth of a
    training step.
    """
    half = side // 2
    for dim in (-1, -2):
        length = values.shape[dim]
        beside = (half + 1, half) if dim == -1 else (0, 0, half + 1, half)
        running = F.pad(values, beside).cumsum(dim)
        values = running.narrow(dim, side, length) - running.narrow(dim, 0, length)
    return values / side**2


def mixed_pixels(
    region: Tensor,
    random: torch.Generator | MaskRandom,
    *,
    central: float,
    split: Tensor | None = None,
) -> Tensor:
    """Uniform pixels, and for a share `central` of the rows central ones: (P, 2) float x, y."""
    uniform = sample_pixels(region, random)
    if not central:
        return uniform
    middle = central_pixels(region, random, split=split)
    chosen = (_uniform(random, len(region)) < central).to(region.device)
    return torch.where(chosen[:, None], middle, uniform)


def box_prompts(
    masks: Tensor, random: torch.Generator | MaskRandom, *, config: PromptConfig
) -> tuple[Tensor, Tensor]:
    """Noisy boxes of masks (P, S, S) as corner points (P, 2, 2) and labels (P, 2).

    Every coordinate gets Gaussian noise of 10% of its side, at most the limit (Appendix A).
    """
    side, device = masks.shape[-1], masks.device
    columns, rows = masks.any(1), masks.any(2)
    low = torch.stack([_first(columns), _first(rows)], dim=1)
    high = side - torch.stack([_first(columns.flip(1)), _first(rows.flip(1))], dim=1)
    corners = torch.stack([low, high], dim=1).float()
    extent = (corners[:, 1] - corners[:, 0])[:, None]
    # Clamped after scaling: at most 20 px at 1024, however large the box.
    noise = _normal(random, len(masks), 2, 2).to(device) * extent * config.box_noise
    limit = config.box_noise_limit * side
    noisy = (corners + noise.clamp(-limit, limit)).clamp(0, side)
    labels = torch.tensor([BOX_START, BOX_END], device=device).expand(len(masks), 2)
    return noisy, labels


def first_prompts(
    masks: Tensor,
    image_index: Tensor,
    random: torch.Generator | MaskRandom,
    *,
    config: PromptConfig,
) -> PromptBatch:
    """A point or a box for each mask (P, S, S), as two point slots each."""
    device = masks.device
    point = mixed_pixels(masks, random, central=config.central)
    points = torch.stack([point, torch.zeros_like(point)], dim=1)
    labels = torch.tensor([FOREGROUND, NOT_A_POINT], device=device).repeat(len(masks), 1)
    corners, corner_labels = box_prompts(masks, random, config=config)
    # Point and box are both drawn, then one is chosen: see PhotoRandom.
    boxed = (_uniform(random, len(masks)) < config.box_probability).to(device)
    return PromptBatch(
        points=torch.where(boxed[:, None, None], corners, points),
        labels=torch.where(boxed[:, None], corner_labels, labels),
        image_index=image_index,
    )


def token_prompts(
    prompts: PromptBatch,
    tokens: Tensor,
    *,
    has_tokens: Tensor | None = None,
    with_point: Tensor | None = None,
    points: Tensor | None = None,
    maps: Tensor | None = None,
) -> PromptBatch:
    """Put CLIP tokens in the place of first prompts (Appendix D.5).

    Args:
        prompts: First prompts, two point slots each.
        tokens: (P, T, C).
        has_tokens: (P,) bool, the masks asked by token; all when None. The others keep their point
            or box.
        with_point: (P,) bool, the masks whose token comes with a point; none when None.
        points: (P, 2) x, y of those points.
        maps: (P, 1, 4s, 4s) logits of a dense text head, as mask prompts beside the tokens.
    """
    if has_tokens is None:
        has_tokens = torch.ones(len(prompts), dtype=torch.bool, device=tokens.device)
    if with_point is None:
        with_point = torch.zeros_like(has_tokens)
    elif points is None:
        raise ValueError("with_point says which tokens come with a point; give points=(P, 2), too")
    given = prompts.points[:, 0] if points is None else points
    # As in use: a phrase alone comes with one `not_a_point`, a phrase with a click with both.
    alone = torch.tensor([NOT_A_POINT, ABSENT], device=prompts.labels.device)
    together = torch.tensor([FOREGROUND, NOT_A_POINT], device=prompts.labels.device)
    labels = torch.where(with_point[:, None], together, alone)
    slots = torch.stack([given, torch.zeros_like(given)], dim=1)
    return replace(
        prompts,
        points=torch.where(has_tokens[:, None, None], slots, prompts.points),
        labels=torch.where(has_tokens[:, None], labels, prompts.labels),
        tokens=tokens,
        has_tokens=has_tokens,
        masks=prompts.masks if maps is None else maps,
        has_mask=prompts.has_mask if maps is None else has_tokens,
    )


def add_error_points(
    prompts: PromptBatch,
    predicted: Tensor,
    logits: Tensor,
    masks: Tensor,
    random: torch.Generator | MaskRandom,
    *,
    ignore: Tensor | None = None,
    counts: Tensor | None = None,
    draws: int = 1,
    central: float = 0.0,
) -> PromptBatch:
    """The next prompts: more points in the error region, and the last logits as mask prompt.

    Args:
        prompts: The prompts so far.
        predicted: (P, S, S) bool, the prediction with the highest predicted IoU.
        logits: (P, 1, 4s, 4s), its unthresholded logits.
        masks: (P, S, S) bool truth.
        random: Source of randomness.
        ignore: (P, S, S) bool, pixels that are no error whatever the prediction says.
        counts: (P,) int64, how many points each mask gets; the other slots are absent, which no
            attention sees, and there is none that no mask uses. One for each mask when None.
        draws: Points that are drawn for each mask, at least the greatest count.
        central: Share of the points that lie in the middle of an error.

    Returns:
        Prompts with up to `draws` more points: foreground in a false negative, background in a
        false positive; where nothing is wrong, a foreground point inside the mask.
    """
    error = predicted ^ masks
    if ignore is not None:
        error = error & ~ignore
    # Nothing is wrong: any point of the mask confirms it.
    region = torch.where(error.flatten(1).any(1)[:, None, None], error, masks)
    points, labels = [prompts.points], [prompts.labels]
    rows = torch.arange(len(masks), device=masks.device)
    for number in range(draws):
        # Drawn even if no mask uses it, so that later numbers do not depend on the batch.
        point = mixed_pixels(region, random, central=central, split=masks)
        used = None if counts is None else counts > number
        if used is not None and not used.any():
            continue
        x, y = point.long().unbind(1)
        label = torch.where(masks[rows, y, x], FOREGROUND, BACKGROUND)
        if used is not None:
            label = torch.where(used.to(label.device), label, ABSENT)
        points.append(point[:, None])
        labels.append(label[:, None])
    return replace(
        prompts,
        points=torch.cat(points, dim=1),
        labels=torch.cat(labels, dim=1),
        masks=logits.detach(),
        has_mask=None,
    )


def _uniform(random: torch.Generator | MaskRandom, count: int, *shape: int) -> Tensor:
    if isinstance(random, torch.Generator):
        return torch.rand(count, *shape, generator=random)
    return random.uniform(*shape)


def _normal(random: torch.Generator | MaskRandom, count: int, *shape: int) -> Tensor:
    if isinstance(random, torch.Generator):
        return torch.randn(count, *shape, generator=random)
    return random.normal(*shape)


def _first(line: Tensor) -> Tensor:
    """Index of the first True of each row of (P, n) bool."""
    return line.float().argmax(dim=1)
