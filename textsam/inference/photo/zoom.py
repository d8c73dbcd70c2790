"""Prediction with zoom-in: a small object is encoded again from a window of the photo around it.

A model of a few hundred pixels sees a small object on a few cells. Once a first prediction, a box
or a mask says where the object is, the window around it, encoded at the model's full size, shows
it on many. Interactive segmentation calls this zoom-in (f-BRS, arXiv 2001.10331, Section 4; RITM,
arXiv 2102.06583). It is not part of Segment Anything; `FocusSettings` turns it on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from textsam.inference.photo.encoded import EncodedPhoto, encode_window
from textsam.inference.photo.prediction import MaskLogits, Prediction, decode_prompt
from textsam.values.geometry import Window, mask_to_box
from textsam.values.prompts import Prompt
from textsam.values.settings import FocusSettings


@dataclass(eq=False)
class WindowCache:
    """The last window of a photo that was encoded; clicks on one object share it."""

    _last: tuple[Window, EncodedPhoto] | None = None

    def encode(
        self, photo: EncodedPhoto, window: Window, *, reuse: float
    ) -> tuple[Window, EncodedPhoto]:
        """Encode a window, or return the last one if it shows the same at a similar scale.

        That is if it contains `window`, whose length is at least `reuse` times its own.
        """
        if self._last is None or not (
            self._last[0].contains(window) and window.length >= reuse * self._last[0].length
        ):
            self._last = window, encode_window(photo, window)
        return self._last


def predict(
    photo: EncodedPhoto,  # the photo; `photo.parts.focus` says when to zoom in
    prompt: Prompt,
    *,
    windows: WindowCache,
    previous: MaskLogits | None = None,  # the mask to correct, or None
    refine: bool = True,  # whether a new box gets a second pass with its first mask
) -> Prediction:
    """Decode a prompt on the whole photo, or on a window around the object where that shows more.

    A box or an earlier mask says at once where to look. Otherwise the whole photo comes first;
    after one point or a phrase each of the three readings is then decoded on its own window.
    """
    settings = photo.parts.focus
    if settings is None:
        return decode_prompt(photo, prompt, None if previous is None else previous.low_res())
    prediction = _predict(
        photo, prompt, windows=windows, settings=settings, previous=previous, refine=refine
    )
    return _within_box(prediction, prompt, settings)


def _predict(
    photo: EncodedPhoto,
    prompt: Prompt,
    *,
    windows: WindowCache,
    settings: FocusSettings,
    previous: MaskLogits | None,
    refine: bool,
) -> Prediction:
    first: Prediction | None = None
    guide = prompt.mask if previous is None else previous.full_size()
    if guide is None and prompt.box is None:
        first = decode_prompt(photo, prompt)
        if len(prompt.points) + (prompt.text is not None) == 1:
            return _blend_readings(photo, prompt, first, windows=windows, settings=settings)
        guide = first.masks[0].full_size()
    # Only a box without a mask: the paper, too, refines such a mask once more (Appendix D.4).
    second_pass = refine and guide is None
    window = choose_window(photo.size, prompt, guide, settings=settings)
    if window is not None:
        closer = _decode_window(photo, window, prompt, guide, windows=windows, settings=settings)
        if second_pass:
            guide = _within_box(closer, prompt, settings).masks[0].full_size()
            closer = _decode_window(
                photo, window, prompt, guide, windows=windows, settings=settings
            )
        return closer
    if first is not None:
        return first
    answer = decode_prompt(photo, prompt, None if previous is None else previous.low_res())
    if second_pass:
        low_res = _within_box(answer, prompt, settings).masks[0].low_res()
        answer = decode_prompt(photo, prompt, low_res)
    return answer


def _blend_readings(
    photo: EncodedPhoto,
    prompt: Prompt,
    first: Prediction,
    *,
    windows: WindowCache,
    settings: FocusSettings,
) -> Prediction:
    """Decode each reading of an ambiguous prompt on its window; blend the best with the others.

    A reading that is hardly less likely than the best one says where that one may be wrong, so the
    mean of the logits, weighted by predicted IoU, has a higher IoU than the best reading alone.
    """
    height, width = photo.size
    whole = Window(0, 0, width, height)
    masks = [replace(mask, windows=(whole,)) for mask in first.masks]
    iou = first.iou.copy()
    guides = {k: first.masks[k].full_size() for k in range(1, len(masks))}
    # Large readings first: their windows often serve the smaller ones inside them.
    for k, guide in sorted(guides.items(), key=lambda item: -int((item[1] > 0).sum())):
        window = choose_window(photo.size, prompt, guide, settings=settings)
        if window is not None:
            closer = _decode_window(
                photo, window, prompt, guide, windows=windows, settings=settings
            )
            masks[k], iou[k] = closer.masks[0], closer.iou[0]
    best = 1 + int(iou[1:].argmax())
    weights = np.exp(settings.blend * (iou[1:] - iou[best]))
    masks[best] = MaskLogits(
        frame=photo.frame,
        grids=np.concatenate([mask.grids for mask in masks[1:]]),
        windows=tuple(window for mask in masks[1:] for window in mask.windows),
        weights=weights / weights.sum(),
    )
    masks[0], iou[0] = masks[best], iou[best]
    return Prediction(masks=tuple(masks), iou=iou)


def _decode_window(
    photo: EncodedPhoto,
    window: Window,
    prompt: Prompt,
    guide: NDArray[np.float32] | NDArray[np.bool_] | None,
    *,
    windows: WindowCache,
    settings: FocusSettings,
) -> Prediction:
    """Decode on a window; the part of the guiding mask inside it is the mask prompt."""
    window, inner = windows.encode(photo, window, reuse=settings.reuse)
    height, width = inner.size
    shift = np.array([window.x0, window.y0], np.float32)
    box = prompt.box
    if box is not None:
        box = np.clip(box - np.tile(shift, 2), 0, np.array([width, height] * 2, np.float32))
    mask = None if guide is None else guide[window.slices]
    closer = decode_prompt(inner, replace(prompt, points=prompt.points - shift, box=box, mask=mask))
    masks = (replace(mask, frame=photo.frame, windows=(window,)) for mask in closer.masks)
    return replace(closer, masks=tuple(masks))


def _within_box(prediction: Prediction, prompt: Prompt, settings: FocusSettings) -> Prediction:
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
