"""The paper's prompt simulation, vectorised over masks (arXiv 2304.02643, Appendix A).

A first prompt (point, noisy box, or in text training a CLIP token), then points in the error region
of the last prediction, whose unthresholded logits come back as mask prompt: eleven rounds, of which
two add no point. `PromptSimulator` goes through them; the functions are its steps.

The paper leaves two things open. The round without a point is "among the eight": here it comes
before one of them, each with the same probability, drawn for every mask. Every earlier prompt, the
first included, stays in later rounds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from textsam.modeling.prompt_encoder import (
    ABSENT,
    BACKGROUND,
    BOX_END,
    BOX_START,
    FOREGROUND,
    NOT_A_POINT,
    PromptBatch,
)

__all__ = [
    "MaskRandom",
    "PromptConfig",
    "PromptSimulator",
    "add_error_points",
    "box_prompts",
    "first_prompts",
    "point_rounds",
    "sample_pixels",
    "token_prompts",
]


class MaskRandom(Protocol):
    """Random numbers for P masks, on the CPU; see `objectives.randomness.PhotoRandom`."""

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1), (P, *shape) float32."""

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, (P, *shape) float32."""


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """Appendix A's numbers; `box_noise_limit` is 20 px at 1024, so a share of the frame here.

    Attributes:
        box_probability: That the first prompt is a box and not a point.
        box_noise: Standard deviation of a corner coordinate, as a share of the box's side.
        box_noise_limit: Largest shift of a corner coordinate.
        points: Rounds that add a point, after the first round.
        silent_among: Rounds without a new point, at a random place among those: 0 or 1.
        silent_last: Rounds without a new point at the end.
    """

    box_probability: float = 0.5
    box_noise: float = 0.1
    box_noise_limit: float = 20 / 1024
    points: int = 8
    silent_among: int = 1
    silent_last: int = 1

    def __post_init__(self) -> None:
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
        return 1 + self.points + self.silent_among + self.silent_last


class PromptSimulator:
    """Goes through the rounds of prompts for P masks.

    `first` gives the first round's prompts; after each prediction `follow` gives the next ones.
    What was asked so far is in the prompts alone; the simulator only knows the truth.

    Attributes:
        adds_point: (P, rounds) bool, on the CPU: the rounds that add a point to a mask.
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
        """Draw the order of rounds.

        Args:
            masks: (P, S, S) bool truth in the model frame, none empty.
            image_index: (P,) int64, the image of each mask.
            random: Source of all randomness.
            config: Numbers of Appendix A.
            ignore: (P, S, S) bool, where no point is put: void pixels, and the frame's padding,
                where nobody can click.
        """
        self.masks = masks
        self.image_index = image_index
        self.random = random
        self.config = config
        self.ignore = ignore
        self.adds_point = point_rounds(random, config=config)

    def first(self) -> PromptBatch:
        """A point or a box for each mask."""
        return first_prompts(self.masks, self.image_index, self.random, config=self.config)

    def follow(self, prompts: PromptBatch, logits: Tensor, *, index: int) -> PromptBatch:
        """The prompts of round `index`, from those of the round before and what they gave.

        Args:
            prompts: Prompts of round `index - 1`.
            logits: (P, 1, 4s, 4s), of the prediction with the highest predicted IoU.
            index: Number of the round to come, from 1.
        """
        side = self.masks.shape[-1]
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
            adds_point=self.adds_point[:, index],
        )


def point_rounds(random: MaskRandom, *, config: PromptConfig) -> Tensor:
    """Which rounds add a point, (P, rounds) bool: never the first, `silent_among` or the last."""
    place = (random.uniform() * config.points).long().clamp(max=max(config.points - 1, 0))
    rounds = torch.arange(config.rounds)
    adds = ((rounds > 0) & (rounds < config.rounds - config.silent_last)).expand(len(place), -1)
    if not config.silent_among:
        return adds
    return adds & (rounds != 1 + place[:, None])


def sample_pixels(region: Tensor, random: torch.Generator | MaskRandom) -> Tensor:
    """One pixel, uniformly, of each region: (P, h, w) bool -> (P, 2) float x, y.

    A region without pixels falls back to the whole frame.
    """
    rows = region.sum(2, dtype=torch.int32)
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
    point = sample_pixels(masks, random)
    points = torch.stack([point, torch.zeros_like(point)], dim=1)
    labels = torch.tensor([FOREGROUND, NOT_A_POINT], device=device).repeat(len(masks), 1)
    corners, corner_labels = box_prompts(masks, random, config=config)
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
) -> PromptBatch:
    """Put CLIP tokens in the place of first prompts (Appendix D.5).

    Args:
        prompts: First prompts, two point slots each.
        tokens: (P, T, C).
        has_tokens: (P,) bool, the masks asked by token; all when None. The others keep their point
            or box.
        with_point: (P,) bool, the masks whose token comes with a point; none when None.
        points: (P, 2) x, y of those points.

    Raises:
        ValueError: `with_point` without `points`.
    """
    if has_tokens is None:
        has_tokens = torch.ones(len(prompts), dtype=torch.bool, device=tokens.device)
    if with_point is None:
        with_point = torch.zeros_like(has_tokens)
    elif points is None:
        raise ValueError("with_point says which tokens come with a point; give points=(P, 2), too")
    given = prompts.points[:, 0] if points is None else points
    # As `ImageView` asks: a lone phrase brings one `not_a_point`, a phrase with a click both.
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
    )


def add_error_points(
    prompts: PromptBatch,
    predicted: Tensor,
    logits: Tensor,
    masks: Tensor,
    random: torch.Generator | MaskRandom,
    *,
    ignore: Tensor | None = None,
    adds_point: Tensor | None = None,
) -> PromptBatch:
    """The next prompts: one more point in the error region, and the last logits as mask prompt.

    Args:
        prompts: The prompts so far.
        predicted: (P, S, S) bool, the prediction with the highest predicted IoU.
        logits: (P, 1, 4s, 4s), its unthresholded logits.
        masks: (P, S, S) bool truth.
        random: Source of randomness.
        ignore: (P, S, S) bool, pixels that are no error whatever the prediction says.
        adds_point: (P,) bool, the masks that get a point; the others get an absent slot, which no
            attention sees, and none do if no mask gets a point. All when None.

    Returns:
        Prompts with N + 1 points: foreground in a false negative, background in a false positive;
        where nothing is wrong, a foreground point inside the mask.
    """
    error = predicted ^ masks
    if ignore is not None:
        error = error & ~ignore
    region = torch.where(error.flatten(1).any(1)[:, None, None], error, masks)
    point = sample_pixels(region, random)  # drawn in any case: see PhotoRandom
    prompts = replace(prompts, masks=logits.detach(), has_mask=None)
    if adds_point is not None and not adds_point.any():
        return prompts
    x, y = point.long().unbind(1)
    inside = masks[torch.arange(len(masks), device=masks.device), y, x]
    label = torch.where(inside, FOREGROUND, BACKGROUND)
    if adds_point is not None:
        label = torch.where(adds_point.to(label.device), label, ABSENT)
    return replace(
        prompts,
        points=torch.cat([prompts.points, point[:, None]], dim=1),
        labels=torch.cat([prompts.labels, label[:, None]], dim=1),
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
