"""Views with the names of their masks, some with an object of another photo pasted in.

A pasted object teaches what a photo of one salient thing cannot: that a phrase has to choose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..sample import BROKEN, Sample
from ..source import Source
from ..views import View, ViewConfig, make_view
from .concepts import ObjectKey

_MIN_AREA = 200  # pixels; smaller objects are not pasted
_MIN_VISIBLE = 0.15  # share of a mask that must stay visible under a pasted object
# Side of the donor's view as a share of the frame, and its object's least share of that view.
_DONOR_SIDE = (0.25, 0.7)
_DONOR_AREA = 0.08


@dataclass(frozen=True, kw_only=True)
class PasteConfig:
    """Which objects are pasted, and where."""

    probability: float  # That a view gets an object of another photo
    donors: Mapping[str, float]  # Source -> its share of the pasted objects; those with crisp masks
    # Sources whose views are left as they are, e.g. since a pasted name could be there already,
    # unannotated
    never_on: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NamedView:
    """A view with the name and the key of each of its masks."""

    source: str  # name of the photo's source
    sample: Sample = field(repr=False)  # the photo
    view: View  # as the network is shown it
    labels: tuple[str, ...]  # name of each mask
    keys: tuple[ObjectKey, ...]  # object of each mask

    @classmethod
    def of(cls, source: str, sample: Sample, view: View) -> NamedView:
        """Name the masks of a view."""
        return cls(
            source=source,
            sample=sample,
            view=view,
            labels=tuple(sample.objects[i].label for i in view.objects),
            keys=tuple((source, sample.image_id, i) for i in view.objects),
        )

    @property
    def counted(self) -> Tensor:
        """(S, S) bool: pixels of the photo itself that are not void."""
        inside = torch.zeros_like(self.view.void)
        inside[: self.view.pixels.shape[1], : self.view.pixels.shape[2]] = True
        return inside & ~self.view.void


class ObjectPaster:
    """Pastes objects of some sources into views."""

    def __init__(
        self,
        sources: Mapping[str, Source | Sequence[Sample]],
        *,
        config: PasteConfig,
        image_size: int,
    ) -> None:
        donors = {name: share for name, share in config.donors.items() if name in sources}
        self.config, self.image_size = config, image_size
        self._sources = {name: sources[name] for name in donors}
        weights = np.array(list(donors.values()))
        self._shares = weights / weights.sum()

    def __call__(self, item: NamedView, rng: np.random.Generator) -> NamedView:
        """The view, with an object of another photo where chance says so."""
        wanted = self._sources and item.source not in self.config.never_on
        if not wanted or rng.random() >= self.config.probability:
            return item
        source = list(self._sources)[int(rng.choice(len(self._shares), p=self._shares))]
        samples = self._sources[source]
        side = int(self.image_size * rng.uniform(*_DONOR_SIDE))
        config = ViewConfig(
            image_size=side, max_masks=1, jitter=0.0, min_area=int(_DONOR_AREA * side * side)
        )
        try:
            sample = samples[int(rng.integers(len(samples)))]
            view = make_view(sample, rng, config=config)
        except BROKEN:  # the loader reports it when the photo's own turn comes
            return item
        return item if view is None else paste_object(item, NamedView.of(source, sample, view), rng)


def paste_object(item: NamedView, donor: NamedView, rng: np.random.Generator) -> NamedView:
    """Put the one object of another view at a random place of a view.

    Masks below lose the pixels that it hides. One of which less than 15% is left becomes void: the
    rest shows neither the thing nor its absence.

    Args:
        item: The view that is pasted on.
        donor: A smaller view with one mask.
        rng: Decides the place.
    """
    view = item.view
    height, width = view.pixels.shape[1:]
    h, w = min(donor.view.pixels.shape[1], height), min(donor.view.pixels.shape[2], width)
    top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    shape = donor.view.masks[0, :h, :w]
    if int(shape.sum()) < _MIN_AREA:
        return item
    place = torch.zeros_like(view.void)
    place[top : top + h, left : left + w] = shape
    # The loader's view may be shared.
    pixels = view.pixels.clone()
    patch = pixels[:, top : top + h, left : left + w]
    patch.copy_(torch.where(shape, donor.view.pixels[:, :h, :w], patch))
    before = view.masks.flatten(1).sum(1)
    masks = view.masks & ~place
    # At least four pixels, also of tiny masks.
    visible = masks.flatten(1).sum(1) >= torch.clamp(_MIN_VISIBLE * before, min=4)
    kept = torch.nonzero(visible)[:, 0].tolist()
    return NamedView(
        source=item.source,
        sample=item.sample,
        view=View(
            pixels=pixels,
            masks=torch.cat([masks[visible], place[None]]),
            # Under the pasted object everything is known; what is left of hidden masks is not.
            void=(view.void & ~place) | masks[~visible].any(0),
            objects=(*(view.objects[i] for i in kept), -1),  # -1: no object of this photo
            flipped=view.flipped,
        ),
        labels=(*(item.labels[i] for i in kept), donor.labels[0]),
        keys=(*(item.keys[i] for i in kept), donor.keys[0]),
    )
