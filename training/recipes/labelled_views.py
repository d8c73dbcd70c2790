"""Views of `tiny`'s last stage: every mask with its name, some with an object of another photo.

A pasted object teaches what a photo of one salient thing cannot: that a phrase must choose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data import Sample, View, ViewConfig, make_view

__all__ = ["LabelledView", "LabelledViews", "paste_object"]

# Whose objects are cut out and pasted: masks that are crisp.
_DONORS = {"named_objects": 0.6, "coco": 0.25, "voc": 0.15}
# On these a pasted name could be there already, unlabelled; or nobody would wear it.
_NEVER_PASTED_ON = ("coco_person", "clothing")


@dataclass(frozen=True, kw_only=True)
class LabelledView:
    """A view with the name and the key (file number, row, object) of each of its masks."""

    file: str
    row: int
    view: View
    labels: tuple[str, ...]
    keys: tuple[tuple[int, int, int], ...]

    @property
    def counted(self) -> Tensor:
        """(S, S) bool: pixels of the photo itself that are not void."""
        inside = torch.zeros_like(self.view.void)
        inside[: self.view.pixels.shape[1], : self.view.pixels.shape[2]] = True
        return inside & ~self.view.void


class LabelledViews:
    """Views of several files in fixed proportions; batch n is a function of (seed, n)."""

    def __init__(
        self,
        samples: Mapping[str, Sequence[Sample]],
        *,
        shares: Mapping[str, float],
        seed: int,
        view: ViewConfig,
        paste: float,
    ) -> None:
        """Remember what to draw from.

        Args:
            samples: Photos by file.
            shares: Share of the photos drawn from each file.
            seed: Of everything.
            view: How photos are shown; its `max_masks` should be high, since the union of a name
                needs all of them.
            paste: Probability that a view gets an object of another photo.
        """
        self.samples = {name: list(rows) for name, rows in samples.items()}
        self.files = list(self.samples)
        weights = np.array([shares[name] for name in self.files])
        self.weights = weights / weights.sum()
        self.donors = [name for name in _DONORS if name in self.samples]
        self.seed = seed
        self.view = view
        self.paste = paste if self.donors else 0.0

    def batch(self, step: int, count: int) -> list[LabelledView]:
        """`count` views."""
        rng = np.random.default_rng((self.seed, step))
        views: list[LabelledView] = []
        while len(views) < count:
            file = self.files[rng.choice(len(self.files), p=self.weights)]
            item = self._draw(file, rng, self.view)
            if item is None:
                continue
            if file not in _NEVER_PASTED_ON and rng.random() < self.paste:
                item = self._with_guest(item, rng)
            views.append(item)
        return views

    def _draw(self, file: str, rng: np.random.Generator, view: ViewConfig) -> LabelledView | None:
        row = int(rng.integers(len(self.samples[file])))
        sample = self.samples[file][row]
        made = make_view(sample, rng, config=view)
        if made is None:
            return None
        number = self.files.index(file)
        return LabelledView(
            file=file,
            row=row,
            view=made,
            labels=tuple(sample.objects[i].label for i in made.objects),
            keys=tuple((number, row, i) for i in made.objects),
        )

    def _with_guest(self, item: LabelledView, rng: np.random.Generator) -> LabelledView:
        weights = np.array([_DONORS[name] for name in self.donors])
        file = self.donors[rng.choice(len(self.donors), p=weights / weights.sum())]
        side = int(self.view.image_size * rng.uniform(0.25, 0.7))
        config = ViewConfig(
            image_size=side, max_masks=1, jitter=0.0, min_area=int(0.08 * side * side)
        )
        donor = self._draw(file, rng, config)
        return item if donor is None else paste_object(item, donor, rng)


def paste_object(
    item: LabelledView, donor: LabelledView, rng: np.random.Generator, *, least: int = 200
) -> LabelledView:
    """Put the one object of another view at a random place of a view.

    What it hides is taken from the masks below; a mask of which under 15% is left becomes void,
    since that rest is neither the thing nor its absence.

    Args:
        item: The view that is pasted on.
        donor: A smaller view with one mask.
        rng: Decides the place.
        least: Objects of fewer pixels are not pasted.
    """
    view = item.view
    height, width = view.pixels.shape[1:]
    h, w = min(donor.view.pixels.shape[1], height), min(donor.view.pixels.shape[2], width)
    top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    cut = donor.view.masks[0, :h, :w]
    if int(cut.sum()) < least:
        return item
    place = torch.zeros_like(view.void)
    place[top : top + h, left : left + w] = cut
    pixels = view.pixels.clone()
    patch = pixels[:, top : top + h, left : left + w]
    pixels[:, top : top + h, left : left + w] = torch.where(
        cut, donor.view.pixels[:, :h, :w], patch
    )
    before = view.masks.flatten(1).sum(1)
    masks = view.masks & ~place
    enough = masks.flatten(1).sum(1) >= torch.clamp(0.15 * before, min=4)
    kept = [i for i, is_kept in enumerate(enough.tolist()) if is_kept]
    return LabelledView(
        file=item.file,
        row=item.row,
        view=View(
            pixels=pixels,
            masks=torch.cat([masks[enough], place[None]]),
            void=(view.void & ~place) | masks[~enough].any(0),
            objects=(*(view.objects[i] for i in kept), -1),
            flipped=view.flipped,
        ),
        labels=(*(item.labels[i] for i in kept), donor.labels[0]),
        keys=(*(item.keys[i] for i in kept), donor.keys[0]),
    )
