"""One corrective click after a phrase: what a person's first click adds to the text's answer.

A single object is asked for by name. Of the masks of the answer, the one that overlaps it most is
the one that a person would go on with (an empty mask, if there is none); where it is below IoU .7,
one click is given by `next_click`, at the pixel farthest from the border of its error, through
`view.click`, which keeps the phrase in the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textsam.values.rle import decode_rle

from ...data import Sample
from ..clicks.simulated_clicks import next_click
from ..figures.case_sheets import Gallery, MaskCase
from ..figures.intervals import mean, ratio_interval
from ..figures.matching import masked_iou
from .questions import Phrase

# From this IoU on an object needs no click.
_GOOD = 0.7


@dataclass(frozen=True, kw_only=True)
class ClickItem:
    """One object: IoU of the text's mask, and after the click; `foreground` says which click.

    `after` is `before` where no click was due. `found` says whether the text gave a mask at all.
    """

    image_id: str
    label: str
    found: bool
    before: float
    after: float
    foreground: bool | None


def correct_once(view: Any, phrase: Phrase, sample: Sample) -> tuple[ClickItem, NDArray[np.bool_]]:
    """Ask for a single object, and click once if its mask is below IoU .7.

    Returns:
        The figures, and the last mask (H, W).
    """
    answer = view.segment(text=phrase.label, strategy="auto")
    masks = [decode_rle(rle) for rle in answer.rles]
    overlaps = [masked_iou(mask, phrase.truth, exclude=phrase.ignored) for mask in masks]
    # The best mask, not the first: a person would continue with that one.
    before = after = max(overlaps, default=0.0)
    mask = masks[int(np.argmax(overlaps))] if masks else np.zeros_like(phrase.truth)
    click = None
    if before < _GOOD:
        click = next_click(mask, phrase.truth, void=phrase.ignored)
    if click is not None:
        mask = view.click(click.x, click.y, foreground=click.foreground).mask
        after = masked_iou(mask, phrase.truth, exclude=phrase.ignored)
    item = ClickItem(
        image_id=sample.image_id,
        label=phrase.label,
        found=bool(masks),
        before=before,
        after=after,
        foreground=None if click is None else click.foreground,
    )
    return item, mask


class ClickTally:
    """The single objects of a set so far; `gallery` takes those that the click helped least."""

    def __init__(self, *, gallery: Gallery[MaskCase] | None = None) -> None:
        self.items: list[ClickItem] = []
        self.gallery = gallery

    def add_photo(self, view: Any, sample: Sample, phrases: Sequence[Phrase]) -> None:
        """Measure the single objects of a photo."""
        for phrase in phrases:
            if phrase.single:
                item, mask = correct_once(view, phrase, sample)
                self.items.append(item)
                if self.gallery is not None and item.foreground is not None:
                    gain = item.after - item.before
                    self.gallery.add(MaskCase.of(gain, sample, mask, phrase.truth, phrase.label))

    def figures(self, *, seed: int) -> dict[str, Any]:
        """See `click_means`; and `items`."""
        return click_means(self.items, seed=seed) | {"items": self.items}


def click_means(items: Sequence[ClickItem], *, seed: int = 0) -> dict[str, Any]:
    """Means over single objects.

    Returns:
        `objects`, `good` (share at .7 or better by text alone), `clicked` (number below), `before`,
        `after`, `gain` and `gain_interval` over those that were clicked; `found`, `gain_found`: how
        many of them had a mask to correct, and their gain. None where there is none.
    """
    clicked = [item for item in items if item.foreground is not None]
    gains = [(item.image_id, item.after - item.before, 1) for item in clicked]
    return {
        "objects": len(items),
        "good": mean(item.before >= _GOOD for item in items),
        "clicked": len(clicked),
        "before": mean(item.before for item in clicked),
        "after": mean(item.after for item in clicked),
        "gain": mean(gain for _, gain, _ in gains),
        "gain_interval": ratio_interval(gains, seed=seed),
        "found": sum(item.found for item in clicked),
        "gain_found": mean(item.after - item.before for item in clicked if item.found),
    }
