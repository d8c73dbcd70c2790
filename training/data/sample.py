"""A photo with its masks, as every source returns it; the photo stays encoded until it is used."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.errors import ImageError
from textsam.results.coco_rows import RowProblems
from textsam.values.images import load_image
from textsam.values.rle import RLE, decode_rle, encode_mask

# Raised for broken photos and annotations (`ImageError` is a ValueError); anything else is a bug
# and is not caught.
BROKEN = (ValueError, OSError)

logger = logging.getLogger(__name__)

# EXIF orientations that rotate by 90 degrees.
_ORIENTATION_TAG = 0x0112
LYING = (5, 6, 7, 8)


@dataclass(frozen=True, kw_only=True)
class ObjectMask:
    """One annotated object."""

    label: str  # its name; empty where the set gives none (SA-1B)
    kind: str  # thing, stuff, part, salient, or unknown
    rle: RLE  # its mask, of the photo's size
    ignore: bool = False  # not to be trained on, e.g. a crowd
    # Group of people or photos that it counts for where groups are compared; may be empty
    group: str = ""

    @classmethod
    def of(cls, mask: NDArray[np.bool_], label: str, kind: str = "thing") -> ObjectMask:
        """An object that is trained on, from its mask (H, W) bool."""
        return cls(label=label, kind=kind, rle=encode_mask(mask))


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One photo with its masks."""

    image_id: str  # name in its data set
    source: str  # name of the data set
    encoded: bytes | Path  # bytes of the image file, or its path
    size: tuple[int, int]  # (H, W) of the upright photo and of every mask
    exhaustive: bool  # whether a label of the set that is not listed here is absent from the photo
    void: RLE | None  # pixels without a truth
    objects: tuple[ObjectMask, ...]  # what is annotated
    # Labels known to be absent though the photo is not exhaustive (LVIS)
    absent: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for index, item in enumerate(self.objects):
            if item.rle.size != tuple(self.size):
                raise ValueError(
                    f"photo {self.image_id!r}: mask {index} ({item.label!r}) has size "
                    f"{item.rle.size}; wanted {self.size} (height, width), as its photo"
                )
        if self.void is not None and self.void.size != tuple(self.size):
            raise ValueError(
                f"photo {self.image_id!r}: its void mask has size {self.void.size}; wanted "
                f"{self.size} (height, width)"
            )

    def image(self) -> NDArray[np.uint8]:
        """Decode to (H, W, 3) uint8 RGB, upright."""
        image = load_image(self.encoded)
        if image.shape[:2] != tuple(self.size):
            raise ImageError(
                f"photo {self.image_id!r} is {image.shape[:2]} (height, width) upright; its masks "
                f"are for {tuple(self.size)}"
            )
        return image

    def open(self) -> Image.Image:
        """The photo as a PIL image, RGB, upright; raises as `image`."""
        return Image.fromarray(self.image())

    def void_mask(self) -> NDArray[np.bool_]:
        """Pixels to ignore, (H, W) bool."""
        return np.zeros(self.size, dtype=bool) if self.void is None else decode_rle(self.void)


def readable_objects(
    rows: Iterable[Any], read: Callable[[Any], ObjectMask], problems: RowProblems, *, photo: str
) -> tuple[tuple[ObjectMask, ...], bool]:
    """The objects of a photo's rows that can be read, and whether those are all.

    The others are counted in `problems`, and the first is named in the log; a ValueError if none
    can be read.
    """
    objects: list[ObjectMask] = []
    where = ""
    for index, row in enumerate(rows):
        try:
            objects.append(read(row))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            where = f"photo {photo!a}, mask {index}: {type(error).__name__}: {error}"
            if problems.add("a mask that cannot be read", where):
                logger.warning("%s; it and others like it are left out", where)
    if where and not objects:
        raise ValueError(where)
    return tuple(objects), not where


def upright_size(encoded: bytes | Path) -> tuple[int, int]:
    """(H, W) of a photo as `load_image` turns it, from the file's header alone."""
    (height, width), orientation = read_header(encoded)
    return (width, height) if orientation in LYING else (height, width)


def read_header(encoded: bytes | Path) -> tuple[tuple[int, int], int]:
    """(H, W) of a photo as it is stored, and its EXIF orientation, 1 for upright."""
    try:
        with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
            width, height = image.size
            try:
                orientation = image.getexif().get(_ORIENTATION_TAG, 1)
            except Exception:  # a damaged EXIF block must not cost a sound picture
                orientation = 1
    except Exception as error:  # PIL's readers raise whatever a damaged header leads them to
        what = f"{len(encoded)} bytes" if isinstance(encoded, bytes) else str(encoded)
        raise ImageError(f"cannot read the size of the photo in {what}: {error}") from error
    return (height, width), int(orientation)


def turn_upright(rle: RLE, orientation: int) -> RLE:
    """A mask that was drawn on the stored pixels of a lying photo, turned as the photo is."""
    mask = decode_rle(rle)
    # As `PIL.ImageOps.exif_transpose` turns the photo.
    turned = {5: mask.T, 6: mask[::-1].T, 7: mask[::-1, ::-1].T, 8: mask[:, ::-1].T}
    return encode_mask(np.ascontiguousarray(turned[orientation]))
