"""Pixels of any type and number of bands -> (H, W, 3) uint8 RGB.

`Raster` is what a reader finds in a file, `ReadOptions` what the caller chose; `render` makes the
picture. What had to be assumed is said in an `ImageNote`, never silently.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from textsam.errors import ImageError, ImageNote

__all__ = ["READING_KEYWORDS", "Raster", "ReadOptions", "White", "composite", "render", "say"]

White: TypeAlias = 'float | Literal["auto"] | None'
Interpretation: TypeAlias = Literal["colours", "cmyk", "ycbcr"]

# Rows are scaled some at a time, so that a photo of 100 megapixels needs no copy in float64.
_BAND_VALUES = 4 * 1024 * 1024

# Share of the brightest values that `white="auto"` lets become white, as viewers of maps do.
_AUTO_PERCENTILE = 99.5
_SAMPLE = 1_000_000

# Bit depths of sensors, whose values come in 16-bit files.
_DEPTHS = (8, 10, 12, 14, 16)

# An edge is blended over a few pixels; a picture that is half-transparent as a whole is another
# matter, and its look depends on the colour behind it.
_HALF_TRANSPARENT_SHARE = 0.1


@dataclass(frozen=True)
class ReadOptions:
    """How a photo is read; the keywords of `load_image`."""

    bands: int | Sequence[int] | None = None
    white: White = None
    page: int | None = None
    alpha: str = "white"

    def __post_init__(self) -> None:
        if self.page is not None and (not _is_whole(self.page) or self.page < 1):
            raise ImageError(f"load_image: got page={self.page!r}; pages are counted from 1")
        is_number = isinstance(self.white, int | float) and not isinstance(self.white, bool)
        if not (self.white in (None, "auto") or (is_number and 0 < float(self.white) < np.inf)):
            raise ImageError(f'load_image: got white={self.white!r}; wanted a number > 0 or "auto"')
        self.behind()
        chosen: Any = (self.bands,) if _is_whole(self.bands) else self.bands
        is_list = isinstance(chosen, Sequence | np.ndarray) and all(map(_is_whole, chosen))
        if chosen is not None and not (is_list and len(chosen) in (1, 3) and min(chosen) >= 1):
            raise ImageError(
                f"load_image: got bands={self.bands!r}; wanted one number or three (red, green, "
                "blue), counted from 1. Type: bands=(3, 2, 1)"
            )

    def behind(self) -> tuple[int, int, int] | None:
        """The colour behind transparent pixels; None to ignore transparency."""
        if self.alpha == "ignore":
            return None
        try:
            return ImageColor.getrgb(self.alpha)[:3]
        except (ValueError, TypeError, AttributeError) as error:
            raise ImageError(
                f'load_image: got alpha={self.alpha!r}; wanted "ignore" or a colour behind '
                'transparent pixels: "white", "black", "#808080"'
            ) from error

    def colour_bands(self, count: int) -> list[int] | None:
        """The chosen bands, from 0, of a file that has `count`; None if none were chosen."""
        if self.bands is None:
            return None
        chosen = [int(band) - 1 for band in np.atleast_1d(self.bands)]
        if max(chosen) >= count:
            raise ImageError(f"load_image: got bands={self.bands}; the photo has {count} bands")
        return chosen

    def page_index(self, count: int, *, note: bool = True) -> int:
        """The chosen page, from 0, of a file that has `count` pages or frames."""
        if self.page is None:
            if count > 1 and note:
                say(f"the photo has {count} pages; page 1 is read. For another, type page=2")
            return 0
        if self.page > count:
            pages = "1 page" if count == 1 else f"{count} pages"
            raise ImageError(f"load_image: got page={self.page}; the photo has {pages}")
        return self.page - 1


READING_KEYWORDS = tuple(field.name for field in fields(ReadOptions))


@dataclass(frozen=True, kw_only=True)
class Raster:
    """What a reader found in a file.

    Attributes:
        values: (H, W, C), any real type.
        colours: Bands, from 0, that are red, green and blue, or grey; None if it does not say.
        alpha: The band that says how opaque a pixel is.
        premultiplied: Whether colours are multiplied by alpha already.
        white: The value that is white, if the file tells it.
        min_is_white: Whether 0 is white.
        valid: (H, W) bool, where there are data.
        nodata: Value of bands without data.
        kind: What the colours are; "cmyk": four inks, 0 is none.
    """

    values: NDArray[Any]
    colours: Sequence[int] | None
    alpha: int | None = None
    premultiplied: bool = False
    white: float | None = None
    min_is_white: bool = False
    valid: NDArray[np.bool_] | None = None
    nodata: float | None = None
    kind: Interpretation = "colours"


def say(text: str) -> None:
    """Warn with an `ImageNote` at the line outside of textsam that asked for the photo."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("textsam."):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, ImageNote, stacklevel=level)


def render(raster: Raster, options: ReadOptions) -> NDArray[np.uint8]:
    """The picture (H, W, 3) uint8 of a raster.

    Raises:
        ImageError: The file does not say which bands are colours or which value is white.
    """
    count = raster.values.shape[2]
    asked = options.colour_bands(count)
    bands = asked if asked is not None else _colours(raster, count)
    # A slice is no copy of the photo, as a list of bands would be.
    in_order = bands == list(range(bands[0], bands[0] + len(bands)))
    values = raster.values[..., bands[0] : bands[-1] + 1] if in_order else raster.values[..., bands]
    valid = _valid(raster, values)
    scale = _scale(values, raster, options.white, valid)
    pixels = _in_bands(values, scale)
    if raster.min_is_white:
        pixels = 255 - pixels
    if asked is None and raster.kind == "cmyk":
        pixels = _cmyk_to_rgb(pixels)
    elif asked is None and raster.kind == "ycbcr":
        pixels = np.array(Image.fromarray(pixels, "YCbCr").convert("RGB"))
    pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
    # Bands that are asked for are shown as they are.
    if raster.alpha is not None and asked is None:
        opacity = raster.values[..., raster.alpha]
        full = _full_range(opacity.dtype) or scale[1]
        alpha = _in_bands(opacity[..., None], (0, full))[..., 0]
        pixels = composite(pixels, alpha, options, premultiplied=raster.premultiplied)
    if valid is not None and (behind := options.behind()) is not None:
        pixels[~valid] = behind
    return np.ascontiguousarray(pixels)


def composite(
    pixels: NDArray[np.uint8],
    alpha: NDArray[np.uint8],
    options: ReadOptions,
    *,
    premultiplied: bool = False,
) -> NDArray[np.uint8]:
    """Put (H, W, 3) uint8 with (H, W) alpha on the chosen colour, rounding to the nearest."""
    behind = options.behind()
    if options.alpha == "white":
        _note_transparency(alpha)
    if behind is None and not premultiplied:
        return pixels
    # 16 bits hold 255 * 255 + 127; damaged files may have colours over their alpha, though.
    dtype = np.uint32 if premultiplied else np.uint16
    wide: NDArray[Any] = alpha[..., None].astype(dtype)
    if behind is None:
        blended = (pixels * np.uint32(255) + wide // 2) // np.maximum(wide, 1)
    else:
        own = pixels.astype(dtype) * (255 if premultiplied else wide)
        blended = (own + np.asarray(behind, dtype) * (255 - wide) + 127) // 255
    result: NDArray[np.uint8] = blended.clip(0, 255).astype(np.uint8)
    return result


def _note_transparency(alpha: NDArray[np.uint8]) -> None:
    if not alpha.any():
        say('the photo is transparent everywhere, so it is white; for its colours: alpha="ignore"')
    elif np.mean((alpha > 7) & (alpha < 248)) > _HALF_TRANSPARENT_SHARE:
        say('half-transparent pixels are shown on white; type alpha="black" or alpha="ignore"')


def _colours(raster: Raster, count: int) -> list[int]:
    if raster.colours is not None:
        return list(raster.colours)
    others = [band for band in range(count) if band != raster.alpha]
    if len(others) == 1:
        return others
    if len(others) == 3:
        say("the photo does not say which bands are red, green, blue; they are read in this order")
        return others
    raise ImageError(
        f"load_image: the photo has {count} bands and does not say which are red, green and blue. "
        "Type: load_image(photo, bands=(3, 2, 1)), counted from 1, or --bands 3,2,1"
    )


def _valid(raster: Raster, values: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Where there are data: a pixel lacks them if no band has any; None if all have."""
    valid = raster.valid
    if raster.nodata is not None and not np.isnan(raster.nodata):
        has_data = (values != raster.nodata).any(axis=2)
        valid = has_data if valid is None else valid & has_data
    if values.dtype.kind == "f":
        is_number = np.isfinite(values).all(axis=2)
        # NaN in a map is no data; in any other photo it is a fault, which `_scale` reports.
        if not is_number.all() and raster.nodata is not None:
            valid = is_number if valid is None else valid & is_number
    return None if valid is None or bool(valid.all()) else valid


def _scale(
    values: NDArray[Any], raster: Raster, white: White, valid: NDArray[np.bool_] | None
) -> tuple[float, float]:
    """The values that become 0 and 255."""
    if isinstance(white, int | float):
        return 0.0, float(white)
    if raster.white is not None or values.dtype in (np.uint8, np.bool_):
        return 0.0, raster.white or _full_range(values.dtype) or 1.0
    known = values if valid is None else values[valid]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    if not np.isfinite([low, high]).all():
        raise ImageError("load_image: the photo holds NaN or infinity; wanted finite values")
    if values.dtype.kind == "f" and low >= -1e-3 and high <= 1 + 1e-3:
        return 0.0, 1.0
    if white == "auto":
        flat = known.reshape(-1)
        sample = flat[:: max(1, flat.size // _SAMPLE)]
        top = float(np.percentile(sample, _AUTO_PERCENTILE)) if sample.size else 1.0
        black = min(0.0, low)
        top = top if top > black else max(high, black + 1.0)
        say(f"white is {top:g}, which {_AUTO_PERCENTILE} % of the values do not exceed")
        return black, top
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        depth = next(bits for bits in _DEPTHS if high < 2**bits)
        if depth < 16:
            say(
                f"no value is over {high:.0f}: the photo is read as {depth} bits, "
                f"white={2**depth - 1}. If it is just dark, type white=65535"
            )
        return 0.0, 2.0**depth - 1
    raise ImageError(
        f"load_image: the photo has {values.dtype} values in {low:.6g}..{high:.6g} and does not "
        f'say which is white. Type: load_image(photo, white={max(high, 1):.6g}) or white="auto"'
    )


def _full_range(dtype: np.dtype[Any]) -> float | None:
    if dtype.kind == "b":
        return 1.0
    return float(np.iinfo(dtype).max) if dtype.kind == "u" else None


def _in_bands(values: NDArray[Any], scale: tuple[float, float]) -> NDArray[np.uint8]:
    """(H, W, C) of any type -> uint8, rounding to the nearest, some rows at a time."""
    black, white = scale
    if values.dtype == np.uint8 and scale == (0, 255):
        return np.ascontiguousarray(values)
    pixels = np.empty(values.shape, np.uint8)
    rows = max(1, _BAND_VALUES // max(1, values[0].size))
    for start in range(0, len(values), rows):
        wide = values[start : start + rows].astype(np.float64)
        wide = np.nan_to_num((wide - black) * (255 / (white - black)) + 0.5)
        pixels[start : start + rows] = wide.clip(0, 255).astype(np.uint8)
    return pixels


def _cmyk_to_rgb(inks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    light = 255 - inks.astype(np.uint32)
    rgb: NDArray[np.uint8] = ((light[..., :3] * light[..., 3:] + 127) // 255).astype(np.uint8)
    return rgb


def _is_whole(number: Any) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool)
