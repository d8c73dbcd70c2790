"""A small chart: how many masks are left at each threshold. Pillow only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from PIL import Image, ImageDraw

from textsam.pictures.draw import PALETTE, Color
from textsam.pictures.label_tags import load_font
from textsam.results.gates import SweepStep
from textsam.values.judge import PhraseAnswer

__all__ = ["sweep_chart"]

# Maps a threshold and a number of masks to fine pixels.
_Place = Callable[[float, float], tuple[float, float]]

# Drawn this much larger and scaled down: Pillow's lines are jagged.
_FINE = 3
_LETTER = 13
_INK: Color = (32, 32, 32)
_GRID: Color = (224, 224, 224)
_PAPER: Color = (255, 255, 255)
_EXACT: Color = PALETTE[0]
_ESTIMATE: Color = (168, 200, 245)
_PRESENCE: Color = PALETTE[1]
_SCORE: Color = PALETTE[5]

_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 10, 58, 24  # pixels around the axes


def sweep_chart(
    steps: Sequence[SweepStep], answer: PhraseAnswer, *, size: tuple[int, int]
) -> Image.Image:
    """Draw a sweep with the presence of the phrase and the two levels that it was judged by.

    Args:
        steps: By rising threshold.
        answer: The answer that was swept.
        size: (width, height) of the picture; 120 x 120 at least.
    """
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
    font = load_font(_LETTER * _FINE)
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
    font = load_font(_LETTER)
    presence = "unknown" if math.isnan(answer.presence) else f"{answer.presence:.2f}"
    rows = [
        [(f"presence {presence}, needs {answer.levels.min_presence:.2f}", _PRESENCE)],
        [(f"score of a mask, needs {answer.levels.min_score:.2f}", _SCORE)],
        [("masks left", _EXACT), *([("pale: estimate", _ESTIMATE)] if partly else [])],
    ]
    for row, parts in enumerate(rows):
        left = float(_LEFT)
        for text, color in parts:
            middle = 8 + row * (_LETTER + 4)
            pen.rectangle((left, middle - 2, left + 14, middle + 1), fill=color)
            pen.text((left + 20, middle), text, font=font, fill=_INK, anchor="lm")
            left += 32 + font.getlength(text)
