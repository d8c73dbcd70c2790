"""Prediction with zoom-in: runs of the encoder and the decoder as `zoom_plan` asks for them.

The plans of several objects go in step, so that what all of them ask for next is one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from textsam.inference.photo.encoded import EncodedPhoto, encode_windows
from textsam.inference.photo.prediction import MaskLogits, Prediction, decode_prompts
from textsam.inference.photo.zoom_plan import (
    Look,
    Looks,
    WindowCache,
    choose_window,
    plan_looks,
    prompt_inside,
)
from textsam.values.geometry import Window
from textsam.values.prompts import Prompt

__all__ = ["WindowCache", "choose_window", "predict", "predict_each"]

# Of all objects that are decoded at once: 4 masks of 4 bytes each take 2 GB.
_GROUP_PIXELS = 128 * 1024 * 1024


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
    looks = _plan(photo, prompt, previous=previous, refine=refine)
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
            _plan(photo, each, previous=None, refine=refine)
            for each in prompts[start : start + size]
        ]
        # A cache for each, so that no object's mask depends on the others.
        yield from _run_together(photo, group, [WindowCache() for _ in group])


def _plan(
    photo: EncodedPhoto, prompt: Prompt, *, previous: MaskLogits | None, refine: bool | None
) -> Looks:
    settings = photo.parts.focus
    return plan_looks(photo.size, prompt, settings=settings, previous=previous, refine=refine)


def _group_size(photo: EncodedPhoto) -> int:
    """Objects decoded at once, whose logits at the photo's size are in memory together."""
    if photo.parts.device.type == "cpu":
        return 8  # larger groups are no faster
    height, width = photo.size
    return max(8, min(64, _GROUP_PIXELS // (height * width)))


def _run_together(
    photo: EncodedPhoto, looks: Sequence[Looks], caches: Sequence[WindowCache]
) -> list[Prediction]:
    """Go the ways of several prompts in step: what all of them ask for next is one batch."""
    answers: dict[int, Prediction] = {}
    # `send(None)` starts a generator.
    received: dict[int, Any] = dict.fromkeys(range(len(looks)))
    while received:
        asked: dict[int, Look] = {}
        for index, prediction in received.items():
            try:
                asked[index] = looks[index].send(prediction)
            except StopIteration as end:
                answers[index] = end.value
        found = _decode_looks(photo, list(asked.values()), [caches[index] for index in asked])
        received = dict(zip(asked, found, strict=True))
    return [answers[index] for index in range(len(looks))]


def _decode_looks(
    photo: EncodedPhoto, looks: Sequence[Look], caches: Sequence[WindowCache]
) -> list[Prediction]:
    """One run of the decoder for all, after one of the encoder for windows that are new."""
    if not looks:
        return []
    shown = _encode_looks(photo, looks, caches)
    prompts = [
        look.prompt if window is None else prompt_inside(look, window, inner.size)
        for look, (window, inner) in zip(looks, shown, strict=True)
    ]
    low_res = [look.low_res for look in looks]
    predictions = decode_prompts([inner for _, inner in shown], prompts, low_res)
    return [
        prediction if window is None else _of_window(prediction, photo, window)
        for prediction, (window, _) in zip(predictions, shown, strict=True)
    ]


def _encode_looks(
    photo: EncodedPhoto, looks: Sequence[Look], caches: Sequence[WindowCache]
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


def _of_window(prediction: Prediction, photo: EncodedPhoto, window: Window) -> Prediction:
    masks = (replace(mask, frame=photo.frame, windows=(window,)) for mask in prediction.masks)
    return replace(prediction, masks=tuple(masks))
