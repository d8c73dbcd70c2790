"""Prediction with zoom-in: a small object is encoded again from a window of the photo around it.

A model of a few hundred pixels sees a small object on a few cells. Once a first prediction, a box
or a mask says where the object is, the window around it, encoded at the model's full size, shows
it on many. Interactive segmentation calls this zoom-in (f-BRS, arXiv 2001.10331, Section 4; RITM,
arXiv 2102.06583). It is not part of Segment Anything; `FocusSettings` turns it on.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from textsam.inference.photo.encoded import EncodedPhoto, encode_windows
from textsam.inference.photo.prediction import MaskLogits, Prediction, decode_prompts
from textsam.values.geometry import Window, mask_to_box
from textsam.values.prompts import Prompt
from textsam.values.settings import FocusSettings

# Of all objects that are decoded at once: 4 masks of 4 bytes each take 2 GB.
_GROUP_PIXELS = 128 * 1024 * 1024


@dataclass(eq=False)
class WindowCache:
    """The last window of a photo that was encoded; clicks on one object share it."""

    _last: tuple[Window, EncodedPhoto] | None = None
    _is_of_another: bool = False

    def start_object(self) -> None:
        """From here on another object is meant, whose masks must not depend on the last one's."""
        self._is_of_another = True

    def find(self, window: Window, *, reuse: float) -> tuple[Window, EncodedPhoto] | None:
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

    def keep(self, window: Window, encoded: EncodedPhoto) -> None:
        """Remember a window of the present object."""
        self._last, self._is_of_another = (window, encoded), False


@dataclass(frozen=True, kw_only=True, eq=False)
class _Look:
    """A run of the decoder that a prompt needs, on the whole photo or on a window."""

    prompt: Prompt
    low_res: NDArray[np.float32] | None = None  # (m, m) logits as the mask prompt
    window: Window | None = None
    # (H, W) bool or logits of the photo; the part inside the window is the mask prompt.
    guide: NDArray[np.float32] | NDArray[np.bool_] | None = None


# The way of one prompt to its masks: it asks for runs of the decoder, and gets what came out.
_Looks: TypeAlias = Generator[_Look, Prediction, Prediction]


def predict(
    photo: EncodedPhoto,  # the photo; `photo.parts.focus` says when to zoom in
    prompt: Prompt,
    *,
    windows: WindowCache,
    previous: MaskLogits | None = None,  # the mask to correct, or None
    refine: bool | None = None,  # see `predict_each`
) -> Prediction:
    """Decode a prompt on the whole photo, or on a window around the object where that shows more.

    A box or an earlier mask says at once where to look. Otherwise the whole photo comes first;
    after one point or a phrase each of the three readings is then decoded on its own window.
    """
    looks = _looks(photo, prompt, previous=previous, refine=refine)
    return _run_together(photo, [looks], [windows])[0]


def predict_each(
    photo: EncodedPhoto, prompts: Sequence[Prompt], *, refine: bool | None = None
) -> Iterator[Prediction]:
    """As `predict` for each of several objects, in order; the runs of a group are batched.

    `refine` says whether a new box gets a second pass with its first mask; by default only if the
    model zooms.
    """
    size = _group_size(photo)
    for start in range(0, len(prompts), size):
        group = [
            _looks(photo, each, previous=None, refine=refine)
            for each in prompts[start : start + size]
        ]
        # A cache for each, so that no object's mask depends on the others.
        yield from _run_together(photo, group, [WindowCache() for _ in group])


def _group_size(photo: EncodedPhoto) -> int:
    """Objects decoded at once, whose logits at the photo's size are in memory together."""
    if photo.parts.device.type == "cpu":
        return 8  # larger groups are no faster
    height, width = photo.size
    return max(8, min(64, _GROUP_PIXELS // (height * width)))


def _run_together(
    photo: EncodedPhoto, looks: Sequence[_Looks], caches: Sequence[WindowCache]
) -> list[Prediction]:
    """Go the ways of several prompts in step: what all of them ask for next is one batch."""
    answers: dict[int, Prediction] = {}
    # `send(None)` starts a generator.
    received: dict[int, Any] = dict.fromkeys(range(len(looks)))
    while received:
        asked: dict[int, _Look] = {}
        for index, prediction in received.items():
            try:
                asked[index] = looks[index].send(prediction)
            except StopIteration as end:
                answers[index] = end.value
        found = _decode_looks(photo, list(asked.values()), [caches[index] for index in asked])
        received = dict(zip(asked, found, strict=True))
    return [answers[index] for index in range(len(looks))]


def _decode_looks(
    photo: EncodedPhoto, looks: Sequence[_Look], caches: Sequence[WindowCache]
) -> list[Prediction]:
    """One run of the decoder for all, after one of the encoder for windows that are new."""
    if not looks:
        return []
    shown = _encode_looks(photo, looks, caches)
    prompts = [
        look.prompt if window is None else _inside(look, window, inner.size)
        for look, (window, inner) in zip(looks, shown, strict=True)
    ]
    low_res = [look.low_res for look in looks]
    predictions = decode_prompts([inner for _, inner in shown], prompts, low_res)
    return [
        prediction if window is None else _of_window(prediction, photo, window)
        for prediction, (window, _) in zip(predictions, shown, strict=True)
    ]


def _encode_looks(
    photo: EncodedPhoto, looks: Sequence[_Look], caches: Sequence[WindowCache]
) -> list[tuple[Window | None, EncodedPhoto]]:
    """What each looks at: the photo, a window that its cache has, or a new one."""
    settings = photo.parts.focus
    reuse = 1.0 if settings is None else settings.reuse
    known = [
        cache.find(look.window, reuse=reuse) if look.window is not None else None
        for look, cache in zip(looks, caches, strict=True)
    ]
    new = [look.window for look, last in zip(looks, known, strict=True) if last is None]
    distinct = list(dict.fromkeys(window for window in new if window is not None))
    encoded = dict(zip(distinct, encode_windows(photo, distinct), strict=True))
    shown: list[tuple[Window | None, EncodedPhoto]] = []
    for look, last, cache in zip(looks, known, caches, strict=True):
        if look.window is None:
            shown.append((None, photo))
            continue
        window, inner = last or (look.window, encoded[look.window])
        cache.keep(window, inner)
        shown.append((window, inner))
    return shown


def _inside(look: _Look, window: Window, size: tuple[int, int]) -> Prompt:
    """The prompt of a look in pixels of its window of size (h, w)."""
    height, width = size
    shift = np.array([window.x0, window.y0], np.float32)
    prompt, box = look.prompt, look.prompt.box
    if box is not None:
        box = np.clip(box - np.tile(shift, 2), 0, np.array([width, height] * 2, np.float32))
    mask = None if look.guide is None else look.guide[window.slices]
    return replace(prompt, points=prompt.points - shift, box=box, mask=mask)


def _of_window(prediction: Prediction, photo: EncodedPhoto, window: Window) -> Prediction:
    masks = (replace(mask, frame=photo.frame, windows=(window,)) for mask in prediction.masks)
    return replace(prediction, masks=tuple(masks))


def _looks(
    photo: EncodedPhoto, prompt: Prompt, *, previous: MaskLogits | None, refine: bool | None
) -> _Looks:
    settings = photo.parts.focus
    if settings is not None:
        prediction = yield from _zoom(
            photo, prompt, settings=settings, previous=previous, refine=refine is not False
        )
        return _within_box(prediction, prompt, settings)
    prediction = yield _Look(
        prompt=prompt, low_res=None if previous is None else previous.low_res()
    )
    is_new = previous is None and prompt.mask is None
    if refine and is_new and prompt.box is not None:
        prediction = yield _Look(prompt=prompt, low_res=prediction.masks[0].low_res())
    return prediction


def _zoom(
    photo: EncodedPhoto,
    prompt: Prompt,
    *,
    settings: FocusSettings,
    previous: MaskLogits | None,
    refine: bool,
) -> _Looks:
    first: Prediction | None = None
    guide = prompt.mask if previous is None else previous.full_size()
    if guide is None and prompt.box is None:
        first = yield _Look(prompt=prompt)
        if len(prompt.points) + (prompt.text is not None) == 1:
            return (yield from _blend_readings(photo, prompt, first, settings=settings))
        guide = first.masks[0].full_size()
    # Only a box without a mask: the paper, too, refines such a mask once more (Appendix D.4).
    second_pass = refine and guide is None
    window = choose_window(photo.size, prompt, guide, settings=settings)
    if window is not None:
        closer = yield _Look(prompt=prompt, window=window, guide=guide)
        if second_pass:
            guide = _within_box(closer, prompt, settings).masks[0].full_size()
            closer = yield _Look(prompt=prompt, window=window, guide=guide)
        return closer
    if first is not None:
        return first
    low_res = None if previous is None else previous.low_res()
    answer = yield _Look(prompt=prompt, low_res=low_res)
    if second_pass:
        low_res = _within_box(answer, prompt, settings).masks[0].low_res()
        answer = yield _Look(prompt=prompt, low_res=low_res)
    return answer


def _blend_readings(
    photo: EncodedPhoto, prompt: Prompt, first: Prediction, *, settings: FocusSettings
) -> _Looks:
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
            closer = yield _Look(prompt=prompt, window=window, guide=guide)
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
