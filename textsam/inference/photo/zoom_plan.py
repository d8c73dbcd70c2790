"""Where to look for one object: the runs of the decoder that a prompt needs, with zoom-in.

A model of a few hundred pixels sees a small object on a few cells. Once a first prediction, a box
or a mask says where the object is, the window around it, encoded at the model's full size, shows
it on many. Interactive segmentation calls this zoom-in (f-BRS, arXiv 2001.10331, Section 4; RITM,
arXiv 2102.06583). It is not part of Segment Anything; `FocusSettings` turns it on.

The plan asks for runs (`Look`) and is told what came out; who runs the networks is not its concern:
`inference/photo/zoom.py` does with torch, `export/runtime.py` with onnxruntime.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from textsam.values.geometry import Window, mask_to_box
from textsam.values.prompts import Prompt
from textsam.values.settings import FocusSettings

__all__ = [
    "OUTSIDE",
    "Look",
    "Looks",
    "WindowCache",
    "choose_window",
    "plan_looks",
    "prompt_inside",
    "within_box",
]

# Logits outside a window or a box: the decoder is never surer that a pixel is outside.
OUTSIDE = -10.0


@dataclass(eq=False)
class WindowCache:
    """The last window of a photo that was encoded; clicks on one object share it."""

    _last: tuple[Window, Any] | None = None
    _is_of_another: bool = False

    def start_object(self) -> None:
        """From here on another object is meant, whose masks must not depend on the last one's."""
        self._is_of_another = True

    def find(self, window: Window, *, reuse: float) -> tuple[Window, Any] | None:
        """The last window if it shows the same at a similar scale, else None.

        That is if it contains `window`, whose length is at least `reuse` times its own.
        """
        if self._last is None:
            return None
        last = self._last[0]
        if self._is_of_another:
            return self._last if last == window else None
        fits = last.contains(window) and window.length >= reuse * last.length
        return self._last if fits else None

    def keep(self, window: Window, encoded: Any) -> None:
        """Remember a window of the present object."""
        self._last, self._is_of_another = (window, encoded), False


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """A run of the decoder that a prompt needs, on the whole photo or on a window."""

    prompt: Prompt
    low_res: NDArray[np.float32] | None = None  # (m, m) logits as the mask prompt
    window: Window | None = None
    # (H, W) bool or logits of the photo; the part inside the window is the mask prompt.
    guide: NDArray[np.float32] | NDArray[np.bool_] | None = None


# A prediction has `masks`, four dataclasses with `grids`, `windows`, `weights`, `box`,
# `box_margin`, `low_res()` and `full_size()` as `MaskLogits` has them, and their predicted `iou`.
Outcome: TypeAlias = Any
# The way of one prompt to its masks: it asks for runs of the decoder, and gets what came out.
Looks: TypeAlias = Generator[Look, Outcome, Outcome]


def prompt_inside(look: Look, window: Window, size: tuple[int, int]) -> Prompt:
    """The prompt of a look in pixels of its window of size (h, w)."""
    height, width = size
    shift = np.array([window.x0, window.y0], np.float32)
    prompt, box = look.prompt, look.prompt.box
    if box is not None:
        box = np.clip(box - np.tile(shift, 2), 0, np.array([width, height] * 2, np.float32))
    mask = None if look.guide is None else look.guide[window.slices]
    return replace(prompt, points=prompt.points - shift, box=box, mask=mask)


def plan_looks(
    size: tuple[int, int],  # (H, W) of the photo
    prompt: Prompt,
    *,
    settings: FocusSettings | None,  # when to zoom in; None for never
    previous: Any,  # the mask to correct, or None
    # Whether a new box gets a second pass with its first mask; by default only with settings.
    refine: bool | None,
) -> Looks:
    """The runs of the decoder from a prompt to its prediction, which the generator returns."""
    if settings is not None:
        prediction = yield from _zoom(
            size, prompt, settings=settings, previous=previous, refine=refine is not False
        )
        return _within_box(prediction, prompt, settings)
    prediction = yield Look(prompt=prompt, low_res=None if previous is None else previous.low_res())
    is_new = previous is None and prompt.mask is None
    if refine and is_new and prompt.box is not None:
        prediction = yield Look(prompt=prompt, low_res=prediction.masks[0].low_res())
    return prediction


def _zoom(
    size: tuple[int, int],
    prompt: Prompt,
    *,
    settings: FocusSettings,
    previous: Any,
    refine: bool,
) -> Looks:
    first: Outcome = None
    guide = prompt.mask if previous is None else previous.full_size()
    if guide is None and prompt.box is None:
        first = yield Look(prompt=prompt)
        if len(prompt.points) + (prompt.text is not None) == 1:
            return (yield from _blend_readings(size, prompt, first, settings=settings))
        guide = first.masks[0].full_size()
    # Only a box without a mask: the paper, too, refines such a mask once more (Appendix D.4).
    second_pass = refine and guide is None
    window = choose_window(size, prompt, guide, settings=settings)
    if window is not None:
        closer = yield Look(prompt=prompt, window=window, guide=guide)
        if second_pass:
            guide = _within_box(closer, prompt, settings).masks[0].full_size()
            closer = yield Look(prompt=prompt, window=window, guide=guide)
        return closer
    if first is not None:
        return first
    low_res = None if previous is None else previous.low_res()
    answer = yield Look(prompt=prompt, low_res=low_res)
    if second_pass:
        low_res = _within_box(answer, prompt, settings).masks[0].low_res()
        answer = yield Look(prompt=prompt, low_res=low_res)
    return answer


def _blend_readings(
    size: tuple[int, int], prompt: Prompt, first: Outcome, *, settings: FocusSettings
) -> Looks:
    """Decode each reading of an ambiguous prompt on its window; blend the best with the others.

    A reading that is hardly less likely than the best one says where that one may be wrong, so the
    mean of the logits, weighted by predicted IoU, has a higher IoU than the best reading alone.
    """
    height, width = size
    whole = Window(0, 0, width, height)
    masks = [replace(mask, windows=(whole,)) for mask in first.masks]
    iou = first.iou.copy()
    guides = {k: first.masks[k].full_size() for k in range(1, len(masks))}
    # Large readings first: their windows often serve the smaller ones inside them.
    for k, guide in sorted(guides.items(), key=lambda item: -int((item[1] > 0).sum())):
        window = choose_window(size, prompt, guide, settings=settings)
        if window is not None:
            closer = yield Look(prompt=prompt, window=window, guide=guide)
            masks[k], iou[k] = closer.masks[0], closer.iou[0]
    best = 1 + int(iou[1:].argmax())
    weights = np.exp(settings.blend * (iou[1:] - iou[best]))
    masks[best] = replace(
        masks[best],
        grids=np.concatenate([mask.grids for mask in masks[1:]]),
        windows=tuple(window for mask in masks[1:] for window in mask.windows),
        weights=weights / weights.sum(),
    )
    masks[0], iou[0] = masks[best], iou[best]
    return replace(first, masks=tuple(masks), iou=iou)


def _within_box(prediction: Outcome, prompt: Prompt, settings: FocusSettings) -> Outcome:
    """A box contains the whole object, so each mask is cut off at the box and a small margin."""
    if prompt.box is None:
        return prediction
    box, margin = prompt.box, settings.box_margin
    masks = (replace(mask, box=box, box_margin=margin) for mask in prediction.masks)
    return replace(prediction, masks=tuple(masks))


def choose_window(
    size: tuple[int, int],
    prompt: Prompt,  # box and points, original pixels
    # (H, W) bool or logits; used if there is no box.
    guide: NDArray[np.float32] | NDArray[np.bool_] | None,
    *,
    settings: FocusSettings,
) -> Window | None:
    """The window around a prompt's box, or else around a mask, that contains the points as well.

    None where nothing says where to look, or the whole photo shows it as well.
    """
    height, width = size
    box = prompt.box
    if box is None:
        mask = None if guide is None else guide > 0
        if mask is None or not mask.any():
            return None
        box = mask_to_box(mask)
    corners = np.asarray(box, np.float32).reshape(2, 2)
    corners = np.concatenate([corners, prompt.points.reshape(-1, 2)])
    low, high = corners.min(axis=0), corners.max(axis=0)
    centre, extent = (low + high) / 2, high - low
    # A thin object gets a window of at least 3:4, since it needs surroundings on all sides.
    shortest = 0.75 * max(float(extent.max()), settings.min_side)
    half = np.maximum(extent, shortest) * settings.grow / 2
    start, end = np.floor(centre - half), np.ceil(centre + half)
    window = Window(
        x0=int(max(0, start[0])),
        y0=int(max(0, start[1])),
        x1=int(min(width, end[0])),
        y1=int(min(height, end[1])),
    )
    return None if window.length > settings.limit * max(size) else window


def within_box(
    logits: NDArray[np.float32], box: NDArray[np.float32], *, margin: float
) -> NDArray[np.float32]:
    """Logits (..., H, W) that are negative beyond a box (x0, y0, x1, y1) and its margin."""
    height, width = logits.shape[-2:]
    x0, y0, x1, y1 = (float(side) for side in box)
    across, down = margin * (x1 - x0), margin * (y1 - y0)
    rows = np.arange(height)[:, None] + 0.5
    columns = np.arange(width)[None, :] + 0.5
    inside = (rows > y0 - down) & (rows < y1 + down) & (columns > x0 - across)
    inside &= columns < x1 + across
    return np.where(inside, logits, np.minimum(logits, OUTSIDE)).astype(np.float32)
