"""A batch of views: one rank's part of a global batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from .views import View


@dataclass(frozen=True, kw_only=True)
class ViewBatch:
    """One rank's photos of a global batch, with P masks in all, photo by photo."""

    step: int  # number of the global batch
    views: tuple[View, ...]  # the rank's photos
    # Source and row of each photo; for a stream, its number in the stream
    origin: tuple[tuple[str, int], ...]
    labels: tuple[tuple[str, ...], ...]  # name of each mask of each view
    # 63 bits for each photo that depend on (seed, step, place in the global batch) alone, so that
    # numbers drawn from them do not depend on workers or ranks
    seeds: tuple[int, ...]
    exhaustive: tuple[bool, ...]  # whether a label that a photo does not list is absent from it

    def __len__(self) -> int:
        """Number of photos."""
        return len(self.views)

    @cached_property
    def masks(self) -> Tensor:
        """(P, S, S) bool."""
        return torch.cat([view.masks for view in self.views])

    @cached_property
    def image_index(self) -> Tensor:
        """(P,) int64, the photo of each mask."""
        counts = torch.tensor([len(view.masks) for view in self.views])
        index = torch.repeat_interleave(torch.arange(len(self.views)), counts)
        return index.to(self.views[0].masks.device)

    @cached_property
    def void(self) -> Tensor:
        """(P, S, S) bool, pixels without a truth around each mask."""
        return torch.stack([view.void for view in self.views])[self.image_index]

    @property
    def weight(self) -> int:
        """Number of masks P: how many items the mean of a loss is over."""
        return sum(len(view.masks) for view in self.views)

    @property
    def pixels(self) -> list[Tensor]:
        """The photos, (3, h, w) uint8 each, of their own sizes."""
        return [view.pixels for view in self.views]

    def to(self, device: torch.device | str) -> ViewBatch:
        """The same batch on a device."""
        moved = (
            replace(
                view,
                pixels=view.pixels.to(device, non_blocking=True),
                masks=view.masks.to(device, non_blocking=True),
                void=view.void.to(device, non_blocking=True),
            )
            for view in self.views
        )
        return replace(self, views=tuple(moved))
