"""Pictures of masks: overlay, cut-out, label map, side by side. numpy and Pillow only.

Photos are uint8 (H, W, 3) RGB; masks are run-length codes of the same size, decoded one at a time,
so hundreds of masks on a 12-megapixel photo need the memory of one. Line widths and letters scale
with the photo, so that a picture looks the same at 300 and at 6,000 pixels.
"""

from __future__ import annotations

import colorsys
import io
import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.pictures.label_tags import draw_tags
from textsam.values.images import check_photo
from textsam.values.rle import RLE, decode_rle, merge_rles, rle_area, rle_box, rle_boxes
from textsam.values.rle_ops import crop_rle

Color = tuple[int, int, int]
# Rows and columns of a mask's pixels that touch its outside.
_Rim = tuple[NDArray[np.int64], NDArray[np.int64]]

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

# Chosen so that any two stay at least 18 apart in CIELAB (1976) for normal sight and for simulated
# protanopia, deuteranopia and tritanopia (Machado et al. 2009, severity 1); Okabe and Ito's seven
# reach 16 by the same measure. The test computes it. Any first n of them are farther apart.
PALETTE: tuple[Color, ...] = (
    (0x2F, 0x7D, 0xFF),  # azure
    (0xFF, 0x5A, 0x1F),  # vermilion
    (0x17, 0xE3, 0xA5),  # mint
    (0xFF, 0x7A, 0xD1),  # pink
    (0xFF, 0xD9, 0x2E),  # yellow
    (0x7B, 0x2F, 0xBE),  # violet
    (0x8C, 0x3B, 0x12),  # brown
    (0xB8, 0xF2, 0xFF),  # ice
)

# Widths as a share of a picture's mean side, chosen by eye on photos of 160 to 4,000 pixels.
_LINE = 1 / 230
_HALO = 1 / 800
_HALO_COLOR: Color = (255, 255, 255)


def palette_color(index: int) -> Color:
    """The colour with an index; after the palette, hues by the golden angle."""
    if index < len(PALETTE):
        return PALETTE[index]
    beyond = index - len(PALETTE)
    red, green, blue = colorsys.hsv_to_rgb(
        (0.11 + beyond * 0.381966) % 1, (0.9, 0.55)[beyond % 2], (1.0, 0.7, 0.85)[beyond % 3]
    )
    return round(red * 255), round(green * 255), round(blue * 255)


def mask_colors(labels: Sequence[str | None]) -> list[Color]:
    """One colour per mask: by label (None is one) where there are several labels, else by mask."""
    names = list(dict.fromkeys(labels))
    if len(names) > 1:
        return [palette_color(names.index(label)) for label in labels]
    return [palette_color(index) for index in range(len(labels))]


def overlay(
    photo: NDArray[np.uint8],
    rles: Sequence[RLE],
    *,
    texts: Sequence[str | None] | None = None,
    colors: Sequence[Color] | None = None,
    alpha: float = 0.45,
    outline: bool = True,
    dim: float = 0.15,
) -> Image.Image:
    """Draw masks over a photo: tint, crisp outline with a white halo, label tag.

    Large masks are painted first, so that small ones stay visible. Tags are placed where they hide
    the least, and left out where there is no space.

    Args:
        photo: (H, W, 3) uint8 RGB; not changed.
        rles: K masks of the photo's size.
        texts: K texts of tags; None for no tag.
        colors: K colours; `palette_color` in order by default.
        alpha: Opacity of the tint, 0 to 1.
        outline: Whether to draw outlines.
        dim: How far everything outside the masks is darkened, 0 to 1, if there are masks.

    Returns:
        RGB picture of the photo's size.

    Raises:
        ValueError: Sizes or lengths do not fit, or `alpha` or `dim` is outside 0 to 1.
    """
    for rle in rles[:1]:
        check_photo(photo, rle.size)
    for name, share in (("alpha", alpha), ("dim", dim)):
        if not 0 <= share <= 1:
            raise ValueError(f"overlay: {name}={share}; wanted a number from 0 to 1")
    texts = [None] * len(rles) if texts is None else list(texts)
    colors = [palette_color(i) for i in range(len(rles))] if colors is None else list(colors)
    if not len(texts) == len(colors) == len(rles):
        raise ValueError(
            f"overlay: got {len(rles)} masks, {len(texts)} texts and {len(colors)} colors; "
            "wanted as many of each"
        )
    size = (photo.shape[0], photo.shape[1])
    covered = decode_rle(merge_rles(rles, size))
    darker = (np.arange(256) * (1 - dim if rles else 1.0)).astype(np.uint8)
    canvas = np.where(covered[..., None], photo, darker[photo])
    by_area = sorted(range(len(rles)), key=lambda index: -rle_area(rles[index]))
    rims = [_paint(canvas, rles[index], colors[index], alpha) for index in by_area]
    if outline:
        side = math.sqrt(size[0] * size[1])
        line, halo = max(1.0, side * _LINE), max(0.6, side * _HALO)  # pixels
        for index, rim in zip(by_area, rims, strict=True):
            _stroke(canvas, rim, _HALO_COLOR, line + 2 * halo)
            _stroke(canvas, rim, colors[index], line)
    picture = Image.fromarray(canvas)
    tags = [(text, colors[i], rle_box(rles[i])) for i, text in enumerate(texts) if text]
    draw_tags(picture, tags, covered)
    return picture


def cutout(photo: NDArray[np.uint8], rles: Sequence[RLE], *, crop: bool = False) -> Image.Image:
    """The photo (H, W, 3) uint8 RGB as RGBA, with everything outside the masks transparent.

    Transparent pixels are black, so that the file does not contain them. `crop` cuts to the box
    around the union of the masks; an empty union is never cropped.
    """
    for rle in rles[:1]:
        check_photo(photo, rle.size)
    union = merge_rles(rles, (photo.shape[0], photo.shape[1]))
    mask = decode_rle(union)
    rgba = np.dstack([photo * mask[..., None], mask * np.uint8(255)])
    if crop and not union.is_empty:
        x0, y0, x1, y1 = rle_boxes([union])[0]
        rgba = np.ascontiguousarray(rgba[y0:y1, x0:x1])
    return Image.fromarray(rgba)


def mask_picture(rles: Sequence[RLE], size: tuple[int, int]) -> Image.Image:
    """Union of masks as a grey picture (H, W): 255 inside, 0 outside."""
    return Image.fromarray(decode_rle(merge_rles(rles, size)) * np.uint8(255))


def indexed_picture(labels: NDArray[np.integer]) -> Image.Image:
    """A label map (H, W), 0 (nothing) to 65,535, as a picture that keeps the numbers exactly.

    It is a palette picture (mode P, as in PASCAL VOC and DAVIS) for numbers up to 255, 16-bit grey
    above.
    """
    highest = int(labels.max(initial=0))
    if labels.ndim != 2 or labels.min(initial=0) < 0 or highest > 65535:
        raise ValueError(
            f"indexed_picture: got shape {labels.shape}, {labels.min(initial=0)} to {highest}; "
            "wanted (H, W), numbers from 0 to 65535"
        )
    if highest > 255:
        return Image.fromarray(labels.astype(np.uint16))
    picture = Image.fromarray(labels.astype(np.uint8), mode="L").convert("P")
    picture.putpalette(
        [0, 0, 0] + [part for index in range(255) for part in palette_color(index)], rawmode="RGB"
    )
    return picture


def side_by_side(pictures: Iterable[Image.Image], *, gap: int | None = None) -> Image.Image:
    """One or more pictures in a row on white, all as high as the first.

    The gap is in pixels; a hundredth of the height by default.
    """
    row = [picture.convert("RGB") for picture in pictures]
    if not row:
        raise ValueError("side_by_side: got no picture; wanted at least one")
    height = row[0].height
    row = [
        picture
        if picture.height == height
        else picture.resize((max(1, round(picture.width * height / picture.height)), height))
        for picture in row
    ]
    gap = max(2, round(height / 100)) if gap is None else gap
    width = sum(picture.width for picture in row) + gap * (len(row) - 1)
    out = Image.new("RGB", (width, height), (255, 255, 255))
    left = 0
    for picture in row:
        out.paste(picture, (left, 0))
        left += picture.width + gap
    return out


def encode_picture(picture: Image.Image, suffix: str, *, exact: bool = False) -> bytes:
    """Make the bytes of a picture file; `exact` means that every pixel must keep its value.

    Raises:
        ValueError: JPEG for a picture with transparency or with numbers to keep, WebP for a label
            map.
    """
    lossy = suffix in (".jpg", ".jpeg")
    if lossy and (exact or picture.mode == "RGBA"):
        why = "blurs the numbers in its pixels" if exact else "has no transparency"
        raise ValueError(f"cannot write this picture as {suffix}, which {why}; use .png")
    if suffix == ".webp" and picture.mode not in ("RGB", "RGBA", "L"):
        raise ValueError("cannot write a label map as .webp, which has no palette; use .png")
    buffer = io.BytesIO()
    if lossy:
        # Full colour resolution: halved, it smears the coloured outlines.
        picture.save(buffer, "JPEG", quality=92, subsampling=0, optimize=True)
    elif suffix == ".webp":
        picture.save(buffer, "WEBP", quality=92, method=4, lossless=exact)
    else:
        picture.save(buffer, "PNG")
    return buffer.getvalue()


def _paint(canvas: NDArray[np.uint8], rle: RLE, color: Color, alpha: float) -> _Rim:
    """Tint one mask in place and return its rim."""
    x0, y0, x1, y1 = (int(side) for side in rle_box(rle))
    if x0 == x1:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    mask = decode_rle(crop_rle(rle, (x0, y0, x1, y1)))
    region = canvas[y0:y1, x0:x1]
    tint = np.asarray(color, dtype=np.float32) * alpha
    region[mask] = (region[mask] * np.float32(1 - alpha) + tint + 0.5).astype(np.uint8)
    inside = np.pad(mask, 1)
    # The photo's border is no border of the object, which continues beyond it.
    height, width = canvas.shape[:2]
    inside[0] |= inside[1] & (y0 == 0)
    inside[-1] |= inside[-2] & (y1 == height)
    inside[:, 0] |= inside[:, 1] & (x0 == 0)
    inside[:, -1] |= inside[:, -2] & (x1 == width)
    core = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    ys, xs = np.nonzero(mask & ~core)
    return ys + y0, xs + x0


def _stroke(canvas: NDArray[np.uint8], rim: _Rim, color: Color, width: float) -> None:
    """Draw a smooth line of `width` pixels along a rim, in place.

    A disk is drawn around every rim pixel, with partial coverage at the disk's edge.
    """
    ys, xs = rim
    if not ys.size:
        return
    radius = width / 2
    reach = math.ceil(radius + 0.5)
    top, left = int(ys.min()) - reach, int(xs.min()) - reach
    shape = (int(ys.max()) - top + reach + 1, int(xs.max()) - left + reach + 1)
    cover = np.zeros(shape, dtype=np.float32)
    ys, xs = ys - top, xs - left
    offsets = [
        (math.hypot(dy, dx), dy, dx)
        for dy in range(-reach, reach + 1)
        for dx in range(-reach, reach + 1)
    ]
    # The farthest first, so that the nearest rim pixel decides the coverage.
    for distance, dy, dx in sorted(offsets, reverse=True):
        if (share := min(1.0, radius + 0.5 - distance)) > 0:
            cover[ys + dy, xs + dx] = share
    height, right = canvas.shape[:2]
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + shape[0], height), min(left + shape[1], right)
    cover = cover[y0 - top : y1 - top, x0 - left : x1 - left]
    region = canvas[y0:y1, x0:x1]
    touched = cover > 0
    share_of_line = cover[touched][:, None]
    ink = np.asarray(color, dtype=np.float32)
    region[touched] = (region[touched] * (1 - share_of_line) + ink * share_of_line + 0.5).astype(
        np.uint8
    )
