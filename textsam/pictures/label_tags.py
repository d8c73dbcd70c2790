"""Label tags: small rounded labels on a picture, placed where they hide the least."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]
Tag = tuple[str, Color, NDArray[np.int64]]  # text, colour, half-open box of the object

# Letter height as a share of the picture's mean side, and the smallest that can be read.
_LETTER = 1 / 36
_MIN_LETTER = 10

# Tags are drawn this much larger and scaled down, because Pillow's round corners are jagged.
_FINE = 3

# Hiding a pixel of another tag is worse than hiding a pixel of a mask.
_TAG_WEIGHT = 6.0

# Share of the picture that tags may take before it counts as crowded.
_CROWDED = 0.10


def draw_tags(picture: Image.Image, tags: Sequence[Tag], covered: NDArray[np.bool_]) -> None:
    """Draw tags on an RGB picture, in place; the most important come first.

    The first tag of each colour is drawn if there is any place for it. A tag that repeats a colour
    (the seventh window), or that comes when the picture is crowded, is drawn only where it hides
    almost nothing; if both are true, it is left out.
    """
    size = max(_MIN_LETTER, round(math.sqrt(picture.width * picture.height) * _LETTER))
    cost = covered.astype(np.float32)
    budget = _CROWDED * picture.width * picture.height
    used_colors: set[Color] = set()
    for text, color, box in tags:
        text = " ".join(text.split())
        if not text:
            continue
        wide, high = _tag_size(text, size)
        area = wide * high
        if color in used_colors and area > budget:
            continue
        # A third of a tag on other tags would make both unreadable.
        allowed = area * (0.1 if color in used_colors or area > budget else _TAG_WEIGHT / 3)
        place = _best_place(cost, box, (wide, high), gap=2 + size // 3)
        if place is None or place[0] > allowed:
            continue
        _, x, y = place
        tag = _tag(text, color, size)
        picture.paste(tag, (x, y), tag)
        cost[y : y + high, x : x + wide] += _TAG_WEIGHT
        budget -= area
        used_colors.add(color)


def _tag_size(text: str, size: int) -> tuple[int, int]:
    """(width, height) of a tag with letters `size` pixels high."""
    font = load_font(size * _FINE)
    left, _, right, _ = font.getbbox(text)
    ascent, descent = font.getmetrics()
    pad_x, pad_y = _padding(size)
    width, height = right - left + 2 * pad_x, ascent + descent + 2 * pad_y
    return math.ceil(width / _FINE), math.ceil(height / _FINE)


def _padding(size: int) -> tuple[int, int]:
    """Space beside and above the letters, in fine pixels."""
    return round(size * _FINE * 0.42), round(size * _FINE * 0.12)


def _tag(text: str, color: Color, size: int) -> Image.Image:
    """One tag, RGBA, of `_tag_size`."""
    font = load_font(size * _FINE)
    width, height = (side * _FINE for side in _tag_size(text, size))
    pad_x, pad_y = _padding(size)
    tag = Image.new("RGBA", (width, height), (*color, 0))
    pen = ImageDraw.Draw(tag)
    pen.rounded_rectangle((0, 0, width - 1, height - 1), radius=height * 0.28, fill=(*color, 255))
    left = font.getbbox(text)[0]
    pen.text((pad_x - left, pad_y), text, font=font, fill=(*_letter_color(color), 255))
    return tag.resize((width // _FINE, height // _FINE), Image.Resampling.BOX)


@lru_cache(maxsize=16)
def load_font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's built-in font, `size` pixels high."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise ImportError(
            "this Pillow was built without FreeType and cannot draw letters of any size; "
            "type: pip install --force-reinstall pillow"
        )
    return font


def _letter_color(color: Color) -> Color:
    """Black or white, whichever stands out more, by relative luminance (WCAG 2)."""
    parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
    luminance = 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
    # The two contrasts are equal at 0.179, but the formula underrates white on saturated blue.
    return (0, 0, 0) if luminance > 0.26 else (255, 255, 255)


def _best_place(
    cost: NDArray[np.float32], box: NDArray[np.int64], tag: tuple[int, int], *, gap: int
) -> tuple[float, int, int] | None:
    """Cost and corner (x, y) of a tag (width, height) near a box; None if it is too large."""
    height, width = cost.shape
    wide, high = tag
    if wide > width or high > height:
        return None
    x0, y0, x1, y1 = (int(side) for side in box)
    middle_x, middle_y = (x0 + x1 - wide) // 2, (y0 + y1 - high) // 2
    # Above the box, below, right, left, then inside: `argmin` takes the first of equal costs.
    wanted = [
        (x0, y0 - high - gap),
        (middle_x, y0 - high - gap),
        (x1 - wide, y0 - high - gap),
        (middle_x, y1 + gap),
        (x1 + gap, middle_y),
        (x0 - wide - gap, middle_y),
        (x0 + gap, y0 + gap),
        (middle_x, middle_y),
    ]
    places = [(min(max(x, 0), width - wide), min(max(y, 0), height - high)) for x, y in wanted]
    costs = [float(cost[y : y + high, x : x + wide].sum()) for x, y in places]
    best = int(np.argmin(costs))
    return costs[best], *places[best]
