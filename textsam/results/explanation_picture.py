"""The picture of an explanation: a row of panels for each phrase. numpy and Pillow only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from textsam.pictures.contact_sheet import fitted_size, mask_cell, shrunk_mask
from textsam.pictures.draw import PALETTE, Color, overlay, palette_color
from textsam.pictures.label_tags import load_font
from textsam.results.gates import SweepStep
from textsam.values.judge import GATES, Candidate, Gate, PhraseAnswer
from textsam.values.rle import RLE

_PANEL = 420  # pixels, the longer side of a photo in a band
_COLUMNS = 4
_GAP = 12
_MARGIN = 18
_WIDTH = _COLUMNS * _PANEL + (_COLUMNS - 1) * _GAP + 2 * _MARGIN
_MIN_HEIGHT = 240  # of a row of panels, so that the chart can be read beside a panorama
_THUMBS = 8
_THUMB = (_WIDTH - 2 * _MARGIN - (_THUMBS - 1) * _GAP) // _THUMBS
_MAX_DROPPED = 6  # drawn over each other in one panel
_FINE = 3  # drawn this much larger and scaled down, because Pillow's dots and lines are jagged

_TITLE, _TEXT, _SMALL = 20, 15, 13  # heights of letters, pixels
_INK: Color = (32, 32, 32)
_FAINT: Color = (110, 110, 110)
_PAPER: Color = (255, 255, 255)

# The chart of a sweep; the last line is the space around its axes, pixels.
_GRID: Color = (224, 224, 224)
_EXACT: Color = PALETTE[0]
_ESTIMATE: Color = (168, 200, 245)
_PRESENCE: Color = PALETTE[1]
_SCORE: Color = PALETTE[5]
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 10, 58, 24
# Maps a threshold and a number of masks to fine pixels.
_Place = Callable[[float, float], tuple[float, float]]

# The colour map "inferno" of matplotlib (CC0) at quarters of its range: brightness rises evenly.
_INFERNO = np.array(
    [(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], dtype=np.float32
)


def explanation_picture(
    photo: NDArray[np.uint8],
    answers: Sequence[PhraseAnswer],
    *,
    sentences: Sequence[str],
    sweeps: Sequence[Sequence[SweepStep]],
    left_out: Sequence[str] = (),
) -> Image.Image:
    """Draw a band of panels for each answer, below one another.

    Masks are decoded one at a time and drawn at the size of a panel, so that a large photo needs
    the memory of one mask.
    """
    bands = [
        _band(photo, answer, heading=heading, steps=steps)
        for answer, heading, steps in zip(answers, sentences, sweeps, strict=True)
    ]
    if left_out:
        names = ", ".join(repr(phrase) for phrase in left_out)
        bands.append(_paragraph(f"Not drawn: {names}. Name them: picture(phrases=[...])", _TEXT))
    return _stacked(bands, gap=_MARGIN, margin=_MARGIN)


def heat_picture(
    photo: NDArray[np.uint8], similarity: NDArray[np.float32], size: tuple[int, int]
) -> Image.Image:
    """A map of probabilities (h, w), 0 to 1, as heat over the photo in grey."""
    grey = Image.fromarray(photo).resize(size, Image.Resampling.BOX).convert("L")
    spread = Image.fromarray(np.clip(similarity, 0, 1).astype(np.float32))
    probability = np.asarray(spread.resize(size, Image.Resampling.BILINEAR))[..., None]
    opacity = 0.25 + 0.6 * probability  # the photo shows through where the phrase is improbable
    blended = (
        np.asarray(grey, dtype=np.float32)[..., None] * (1 - opacity) + _heat(probability) * opacity
    )
    return Image.fromarray((blended + 0.5).clip(0, 255).astype(np.uint8))


def _heat(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colours (h, w, 3) float32 of probabilities (h, w, 1)."""
    stops = np.linspace(0, 1, len(_INFERNO))
    channels = [np.interp(probability, stops, channel) for channel in _INFERNO.T]
    return np.concatenate(channels, axis=-1).astype(np.float32)


def _band(
    photo: NDArray[np.uint8], answer: PhraseAnswer, *, heading: str, steps: Sequence[SweepStep]
) -> Image.Image:
    """Heading, four panels, and the best dropped masks one by one."""
    numbered = list(enumerate(answer.candidates, start=1))
    kept = [(n, item) for n, item in numbered if item.gate is None]
    dropped = [(n, item) for n, item in numbered if item.gate is not None]
    size = fitted_size((photo.shape[1], photo.shape[0]), _PANEL)
    small = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS))
    height = max(size[1], _MIN_HEIGHT)
    more = f", the best {_MAX_DROPPED} drawn" if len(dropped) > _MAX_DROPPED else ""
    title = f"no map: strategy {answer.strategy!r} makes none"
    if answer.similarity is not None:
        highest = float(answer.similarity.max(initial=0.0))
        title = f"probability of the phrase (best {highest:.2f}), and the point prompts"
    panels = [
        (title, _map_panel(photo, small, answer, size)),
        (f"in the result: {len(kept)}", _masks_panel(small, kept)),
        (f"dropped: {len(dropped)}{more}", _masks_panel(small, dropped[:_MAX_DROPPED])),
        ("masks left at each threshold", sweep_chart(steps, answer, size=(_PANEL, height))),
    ]
    head = _paragraph(heading, _TITLE)
    row = Image.new("RGB", (_WIDTH - 2 * _MARGIN, height + _TEXT + _GAP), _PAPER)
    pen = ImageDraw.Draw(row)
    for column, (title, panel) in enumerate(panels):
        left = column * (_PANEL + _GAP)
        pen.text((left, 0), title, font=load_font(_TEXT), fill=_INK)
        row.paste(panel, (left, _TEXT + _GAP // 2))
    parts = [head, row]
    if dropped:
        parts.append(_thumbnails(photo, dropped[:_THUMBS]))
    return _stacked(parts, gap=_GAP)


def _map_panel(
    photo: NDArray[np.uint8], small: NDArray[np.uint8], answer: PhraseAnswer, size: tuple[int, int]
) -> Image.Image:
    """The map as heat and the point prompts; the points of masks of the result are filled."""
    if answer.similarity is None:
        picture = Image.fromarray(small)
    else:
        picture = heat_picture(photo, answer.similarity, size)
    scale = size[0] / photo.shape[1]
    fine = Image.new("RGBA", (size[0] * _FINE, size[1] * _FINE), (0, 0, 0, 0))
    pen = ImageDraw.Draw(fine)
    radius = 4 * _FINE
    # Points of the result last, so that they are drawn over the others.
    for item in sorted(answer.candidates, key=lambda item: item.gate is None):
        if item.point is None:
            continue
        x, y = (side * scale * _FINE for side in item.point)
        fill = (*_PAPER, 255) if item.gate is None else None
        pen.ellipse((x - radius - 3, y - radius - 3, x + radius + 3, y + radius + 3), fill=_INK)
        pen.ellipse(
            (x - radius, y - radius, x + radius, y + radius), fill=fill, outline=_PAPER, width=4
        )
    dots = fine.resize(size, Image.Resampling.BOX)
    picture.paste(dots, (0, 0), dots)
    if answer.similarity is not None:
        _draw_scale(picture)
    return picture


def _draw_scale(picture: Image.Image) -> None:
    """A bar of the colours from 0 to 1 in the lower left corner, unless the picture is small."""
    width, height = 96, _SMALL + 6
    if picture.width < 2 * width or picture.height < 4 * height:
        return
    colors = _heat(np.linspace(0, 1, width, dtype=np.float32)[None, :, None])
    bar = Image.fromarray(np.repeat(colors, height, axis=0).astype(np.uint8))
    pen = ImageDraw.Draw(bar)
    font = load_font(_SMALL)
    pen.text((5, height / 2), "0", font=font, fill=_PAPER, anchor="lm")
    pen.text((width - 5, height / 2), "1", font=font, fill=_INK, anchor="rm")
    picture.paste(bar, (6, picture.height - height - 6))


def _masks_panel(
    small: NDArray[np.uint8], numbered: Sequence[tuple[int, Candidate]]
) -> Image.Image:
    """Masks over the small photo, with their numbers; dropped ones in the colour of their gate."""
    size = (small.shape[1], small.shape[0])
    return overlay(
        small,
        [shrunk_mask(item.rle, size) for _, item in numbered],
        texts=[_tag(number, item) for number, item in numbered],
        colors=[_color(number, item.gate) for number, item in numbered],
    )


def _thumbnails(photo: NDArray[np.uint8], numbered: Sequence[tuple[int, Candidate]]) -> Image.Image:
    """Dropped masks one by one, each with its surroundings and the reason."""
    lines = 4
    strip = Image.new(
        "RGB", (_WIDTH - 2 * _MARGIN, _THUMB + lines * (_SMALL + 4) + _GAP // 2), _PAPER
    )
    pen = ImageDraw.Draw(strip)
    font = load_font(_SMALL)
    for place, (number, item) in enumerate(numbered):
        left = place * (_THUMB + _GAP)
        thumb = _thumb(photo, item.rle, _color(number, item.gate))
        strip.paste(thumb, (left, _THUMB - thumb.height))
        score = "" if math.isnan(item.score) else f" {item.score:.2f}"
        caption = [f"mask {number}{score}: {item.gate}", *_wrapped(item.reason, _SMALL, _THUMB)]
        for line, text in enumerate(caption[:lines]):
            top = _THUMB + _GAP // 2 + line * (_SMALL + 4)
            pen.text((left, top), text, font=font, fill=_FAINT if line else _INK)
    return strip


def _thumb(photo: NDArray[np.uint8], rle: RLE, color: Color) -> Image.Image:
    """A mask with its surroundings; the whole photo for an empty one."""
    if rle.is_empty:
        size = fitted_size((photo.shape[1], photo.shape[0]), _THUMB)
        return Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS)
    return mask_cell(photo, rle, size=_THUMB, color=color).picture


def _color(number: int, gate: Gate | None) -> Color:
    return palette_color(number - 1 if gate is None else list(GATES).index(gate))


def _tag(number: int, item: Candidate) -> str:
    parts = [str(number)]
    parts += [] if item.gate is None else [item.gate]
    parts += [] if math.isnan(item.score) else [f"{item.score:.2f}"]
    return " ".join(parts)


def _stacked(parts: Sequence[Image.Image], *, gap: int, margin: int = 0) -> Image.Image:
    """Pictures of one width below one another, on white."""
    height = sum(part.height + gap for part in parts) - gap + 2 * margin
    page = Image.new("RGB", (parts[0].width + 2 * margin, height), _PAPER)
    top = margin
    for part in parts:
        page.paste(part, (margin, top))
        top += part.height + gap
    return page


def _paragraph(text: str, letter: int) -> Image.Image:
    """Text over the whole width, on as many lines as it needs."""
    width = _WIDTH - 2 * _MARGIN
    lines = _wrapped(text, letter, width)
    step = round(letter * 1.35)
    out = Image.new("RGB", (width, max(1, step * len(lines))), _PAPER)
    pen = ImageDraw.Draw(out)
    for row, line in enumerate(lines):
        pen.text((0, row * step), line, font=load_font(letter), fill=_INK)
    return out


def _wrapped(text: str, letter: int, width: int) -> list[str]:
    """Lines of at most `width` pixels; a word that is longer is cut."""
    font = load_font(letter)
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        while font.getlength(word) > width and len(word) > 1:
            word = word[:-2] + "…"  # two characters, since the last one is the ellipsis
        lines.append(word)
    return lines


def sweep_chart(
    steps: Sequence[SweepStep], answer: PhraseAnswer, *, size: tuple[int, int]
) -> Image.Image:
    """Draw a sweep, by rising threshold, with the phrase's presence and the two levels."""
    width, height = max(120, size[0]), max(120, size[1])
    picture = Image.new("RGB", (width * _FINE, height * _FINE), _PAPER)
    pen = ImageDraw.Draw(picture)
    highest = max([1, *(step.masks for step in steps)])

    def place(threshold: float, masks: float) -> tuple[float, float]:
        across = _LEFT + threshold * (width - _LEFT - _RIGHT)
        up = _TOP + (1 - masks / highest) * (height - _TOP - _BOTTOM)
        return across * _FINE, up * _FINE

    _draw_axes(pen, place, highest)
    for level, color in (
        (answer.levels.min_presence, _PRESENCE),
        (answer.levels.min_score, _SCORE),
    ):
        _dashed(pen, place(level, 0), place(level, highest), color)
    for before, after in pairwise(steps):
        # What is left just above `before` is what `after` counts.
        corner = place(before.threshold, after.masks)
        color = _EXACT if before.exact else _ESTIMATE
        path = [place(before.threshold, before.masks), corner, place(after.threshold, after.masks)]
        pen.line(path, fill=color, width=2 * _FINE, joint="curve")
    if not math.isnan(answer.presence):
        x, y = place(answer.presence, 0)
        half = 5 * _FINE
        pen.polygon([(x, y - 2 * half), (x - half, y), (x + half, y)], fill=_PRESENCE)
    small = picture.resize((width, height), Image.Resampling.BOX)
    _draw_legend(ImageDraw.Draw(small), answer, partly=any(not step.exact for step in steps))
    return small


def _draw_axes(pen: ImageDraw.ImageDraw, place: _Place, highest: int) -> None:
    font = load_font(_SMALL * _FINE)
    step = max(1, math.ceil(highest / 5))
    for count in range(0, highest + 1, step):
        (x0, y), (x1, _) = place(0, count), place(1, count)
        pen.line([(x0, y), (x1, y)], fill=_GRID, width=_FINE)
        pen.text((x0 - 6 * _FINE, y), str(count), font=font, fill=_INK, anchor="rm")
    for quarter in range(5):
        x, y = place(quarter / 4, 0)
        pen.line([(x, y), (x, y + 4 * _FINE)], fill=_INK, width=_FINE)
        anchor = ("lt", "mt", "mt", "mt", "rt")[quarter]
        pen.text((x, y + 7 * _FINE), f"{quarter / 4:g}", font=font, fill=_INK, anchor=anchor)


def _dashed(
    pen: ImageDraw.ImageDraw, bottom: tuple[float, float], top: tuple[float, float], color: Color
) -> None:
    x, y = bottom
    while y > top[1]:
        pen.line([(x, y), (x, max(top[1], y - 5 * _FINE))], fill=color, width=_FINE)
        y -= 9 * _FINE


def _draw_legend(pen: ImageDraw.ImageDraw, answer: PhraseAnswer, *, partly: bool) -> None:
    font = load_font(_SMALL)
    presence = "unknown" if math.isnan(answer.presence) else f"{answer.presence:.2f}"
    rows = [
        [(f"presence {presence}, needs {answer.levels.min_presence:.2f}", _PRESENCE)],
        [(f"score of a mask, needs {answer.levels.min_score:.2f}", _SCORE)],
        [("masks left", _EXACT), *([("pale: estimate", _ESTIMATE)] if partly else [])],
    ]
    for row, parts in enumerate(rows):
        left = float(_LEFT)
        for text, color in parts:
            middle = 8 + row * (_SMALL + 4)
            pen.rectangle((left, middle - 2, left + 14, middle + 1), fill=color)
            pen.text((left + 20, middle), text, font=font, fill=_INK, anchor="lm")
            left += 32 + font.getlength(text)
