"""Photos that people bring: read within limits, encoded once, kept within bounds.

What two users share is the encoding of photos that are the same pixel for pixel, so whoever gets it
had the photo already. Nothing that somebody asked or found is shared: everyone has a fork of the
view.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.errors import ImageError, PromptError
from textsam.values.images import load_image
from textsam.values.resizing import resize_image
from textsam.values.rle import RLE, decode_rle, encode_mask

if TYPE_CHECKING:
    from textsam.inference.model import TextSAM
    from textsam.inference.view import ImageView

__all__ = ["EncodedPhotos", "Photo", "example_photos", "read_photo"]

MOST_MEGAPIXELS = 64  # a photo takes 7 bytes a pixel while it is read
LONG_SIDE = 1600  # pixels that are worked on: a click on more takes longer than people wait
_SMALLEST = 16  # pixels


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo as the explorer works on it.

    Attributes:
        file_name: What its owner calls the file.
        image: (H, W, 3) uint8 RGB, at most `LONG_SIDE` pixels long, read-only.
        original_size: (H, W) of the file.
        path: The file.
        key: Of the pixels of `image`.
    """

    file_name: str
    image: NDArray[np.uint8] = field(repr=False)
    original_size: tuple[int, int]
    path: Path
    key: str

    @property
    def name(self) -> str:
        """The file's name without the suffix, for the files that are made of it."""
        return Path(self.file_name).stem[:80] or "photo"

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of `image`."""
        return (self.image.shape[0], self.image.shape[1])

    def mask_here(self, rle: RLE) -> RLE:
        """A mask of the file, or of `image`, as one of `image`.

        Pixels that are at least half covered belong to it; of a thing too thin for that, all that
        are touched.

        Raises:
            PromptError: It is a mask of another size, or nothing is left of it.
        """
        if rle.size == self.size:
            return rle
        if rle.size != self.original_size:
            (height, width), (h, w) = self.original_size, rle.size
            raise PromptError(
                f"{self.file_name} has {width} x {height} pixels now, and the mask was made on "
                f"{w} x {h}; so it cannot be shown here"
            )
        whole = Image.fromarray(decode_rle(rle).astype(np.uint8) * 255)
        covered = np.asarray(whole.resize(self.size[::-1], Image.Resampling.BOX))
        mask = covered >= 128 if (covered >= 128).any() else covered > 0
        if not mask.any():
            raise PromptError(f"The mask is too small to be seen on {self.file_name} at this size")
        return encode_mask(mask)


def read_photo(path: Path, name: str | None = None) -> Photo:
    """Read a file that somebody gave.

    Args:
        path: The file.
        name: What its owner calls it; the file's own name by default.

    Raises:
        ImageError: It is empty, no image, too large, or too small.
    """
    shown = Path(name or path.name).name
    if not path.is_file():
        raise ImageError(f"{shown} is not here any more; open the photo again")
    if path.stat().st_size == 0:
        raise ImageError(f"{shown} is empty (0 bytes); choose a photo")
    _check_header(path, shown)
    try:
        image = load_image(path)
    except ImageError as error:
        # The server's folders are nobody's business.
        plain = str(error).removeprefix("load_image: ").replace(repr(str(path)), shown)
        raise ImageError(plain.replace(str(path), shown)) from error
    height, width = image.shape[:2]
    if min(height, width) < _SMALLEST:
        raise ImageError(f"{shown} has {width} x {height} pixels; choose a larger photo")
    scale = LONG_SIDE / max(height, width)
    if scale < 1:
        image = resize_image(image, (max(1, round(height * scale)), max(1, round(width * scale))))
    image.flags.writeable = False
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(image.data)
    return Photo(shown, image, (height, width), path, digest.hexdigest())


def _check_header(path: Path, shown: str) -> None:
    """Refuse a photo for its number of pixels before any of them is decoded."""
    limit = Image.MAX_IMAGE_PIXELS
    try:
        with path.open("rb") as file, Image.open(file) as picture:
            width, height = picture.size
    except Image.DecompressionBombError:
        raise ImageError(
            f"{shown} has over {2 * (limit or 0) / 1e6:.0f} megapixels; the explorer takes "
            f"{MOST_MEGAPIXELS}. Make it smaller, or use model.open_tiled in Python"
        ) from None
    except Exception:
        return  # not an image, or a damaged one: load_image says what it is
    if width * height > MOST_MEGAPIXELS * 1e6:
        raise ImageError(
            f"{shown} has {math.ceil(width * height / 1e6)} megapixels; the explorer takes "
            f"{MOST_MEGAPIXELS}. Make it smaller, or use model.open_tiled in Python"
        )


def example_photos() -> list[Path]:
    """The photos that come along: beside this file in the wheel, in a checkout one folder up."""
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "examples", here.parent / "examples"):
        if folder.is_dir():
            return sorted(folder.glob("*.jpg"))
    return []


class EncodedPhotos:
    """The last photos that were encoded, for all users; safe to ask from several threads.

    Attributes:
        model: Gives the model, and waits for it if it is being loaded.
        most_photos: How many are kept at most.
        most_bytes: What they may take together; the last one is kept however large it is.
    """

    def __init__(
        self,
        model: Callable[[], TextSAM],
        *,
        most_photos: int = 24,
        most_bytes: int = 512 * 1024 * 1024,
    ) -> None:
        self.model = model
        self.most_photos = most_photos
        self.most_bytes = most_bytes
        self._views: OrderedDict[str, ImageView] = OrderedDict()
        self._encoding: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def open(self, photo: Photo) -> ImageView:
        """A view of a photo with a dialogue of its own; encoded now if it is not among the last."""
        with self._lock:
            turn = self._encoding.setdefault(photo.key, threading.Lock())
        with turn:  # who comes second with the same photo waits and does not encode it again
            with self._lock:
                view = self._views.get(photo.key)
                if view is not None:
                    self._views.move_to_end(photo.key)
            if view is None:
                model = self.model()
                view = model.open(photo.image)
                if model.has_dense_text:
                    view.text_features()  # here, so that forks share them as well
            with self._lock:
                self._views[photo.key] = view
                self._forget()
                self._encoding.pop(photo.key, None)
        return view.fork()

    @property
    def size(self) -> tuple[int, int]:
        """Photos that are kept, and bytes that they take."""
        with self._lock:
            return len(self._views), sum(map(_bytes_of, self._views.values()))

    def _forget(self) -> None:
        """Drop the ones not asked for longest, until the rest is within bounds."""
        total = sum(map(_bytes_of, self._views.values()))
        while len(self._views) > 1 and (
            len(self._views) > self.most_photos or total > self.most_bytes
        ):
            _, dropped = self._views.popitem(last=False)
            total -= _bytes_of(dropped)


def _bytes_of(view: ImageView) -> int:
    features = view.features
    tensors: Iterable = (features.embedding, *features.skips, *features.pyramid)
    return view.image.nbytes + sum(tensor.nbytes for tensor in tensors)
