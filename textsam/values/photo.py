"""Photos that results know, without keeping their pixels: a path or address is read again.

    photo = Photo.open("street.jpg")
    photo.pixels()  # (H, W, 3) uint8; read again from the file where they are no longer in memory

What can be made again, pixels of files as well as decoded masks, is a `Remade` array: it stays in
memory while somebody uses it or while it is among the latest ones.
"""

from __future__ import annotations

import os
import threading
import weakref
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from textsam.errors import ImageError
from textsam.values.images import ImageSource, check_photo, check_size, load_image

__all__ = ["Photo", "Remade", "as_photo"]

# A photo of 12 megapixels and its masks take 36 + 12 K megabytes.
_LATEST_BYTES = 128 * 1024 * 1024
_SMALL_BYTES = 64 * 1024  # always kept

_CHECKED_ROWS = 256  # of a photo, to notice that it is another one now


class Remade:
    """An array that can be made again, so that old ones need not stay in memory."""

    __slots__ = ("__weakref__", "_array", "_used")

    def __init__(self) -> None:
        self._array: NDArray[Any] | None = None  # while it is among the latest
        self._used: Callable[[], NDArray[Any] | None] = lambda: None  # while somebody holds it

    def get(self, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """The array that is in memory, or a new one."""
        array = self._used()
        if array is None:
            array = make()
            self._used = weakref.ref(array)
        self._array = array
        if array.nbytes > _SMALL_BYTES:
            _latest.touch(self, array.nbytes)
        return array

    def __reduce__(self) -> tuple[Any, ...]:
        return Remade, ()  # pickles and copies make the array again

    def forget(self) -> None:
        """Let the array go as soon as nobody uses it."""
        self._array = None


class _Latest:
    """The arrays that were used last, up to a number of bytes; the very last one always stays."""

    def __init__(self) -> None:
        self._sizes: dict[weakref.ref[Remade], int] = {}  # the latest one last
        self._lock = threading.Lock()

    def touch(self, owner: Remade, size: int) -> None:
        with self._lock:
            own = weakref.ref(owner)
            self._sizes.pop(own, None)
            self._sizes[own] = size
            total = sum(self._sizes.values())
            while total > _LATEST_BYTES and len(self._sizes) > 1:
                oldest = next(iter(self._sizes))
                total -= self._sizes.pop(oldest)
                if (old := oldest()) is not None:
                    old.forget()


_latest = _Latest()


class Photo:
    """The photo of a result: where it comes from, and its pixels.

    A photo from a path, an address or bytes is read again when it is needed. Pixels that came as an
    array, a PIL image, a tensor or an open file cannot be read again and stay in memory. Copies are
    the photo itself. A pickle holds no pixels: a photo without path or address comes out as None,
    unless it is `pinned`.

    Attributes:
        size: (H, W).
        source: Absolute path, address, or the bytes of the file; None for pixels.
        pinned: Whether pickles hold the pixels.
    """

    __slots__ = ("_checksum", "_own", "_remade", "pinned", "size", "source")

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        *,
        source: str | bytes | None = None,
        pinned: bool = False,
    ) -> None:
        """Take pixels (H, W, 3) uint8 RGB, which are not copied, and where they were read from."""
        check_photo(pixels, pixels.shape[:2])
        self.size = (int(pixels.shape[0]), int(pixels.shape[1]))
        self.source = source
        self.pinned = pinned
        self._own: NDArray[np.uint8] | None = None
        self._remade = Remade()
        self._checksum = 0
        if source is None or pinned:
            self._own = pixels.view()
            self._own.flags.writeable = False
        else:
            self._checksum = _checksum(pixels)
            pixels.flags.writeable = False
            self._remade.get(lambda: pixels)

    @classmethod
    def open(cls, source: ImageSource) -> Self:
        """Read a photo; takes and raises what `load_image` does."""
        return cls(load_image(source), source=_repeatable(source))

    def pixels(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, read-only.

        Raises:
            ImageError: The file is gone, cannot be read, or holds another picture than before.
        """
        return self._remade.get(self._read) if self._own is None else self._own

    def pin(self) -> Photo:
        """The photo with its pixels in memory and in pickles."""
        return Photo(self.pixels(), source=self.source, pinned=True)

    def _read(self) -> NDArray[np.uint8]:
        assert self.source is not None
        name = f"{len(self.source)} bytes" if isinstance(self.source, bytes) else self.source
        give = 'Give the photo: plot("photo.jpg"), save(..., image="photo.jpg")'
        try:
            pixels = load_image(self.source)
        except ImageError as error:
            raise ImageError(f"cannot read the photo of this result again: {error}. {give}") from (
                error
            )
        if pixels.shape[:2] != self.size or _checksum(pixels) != self._checksum:
            raise ImageError(
                f"{name} holds another picture than the one that the masks were made from "
                f"({self.size[0]}x{self.size[1]}, height x width). {give}"
            )
        pixels.flags.writeable = False
        return pixels

    def __repr__(self) -> str:
        where = "pixels" if self.source is None else self.source
        height, width = self.size
        return f"Photo({height} x {width} pixels, {where[:80]!r})"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self.pinned:
            return _pinned, (self.pixels(), self.source)
        if self.source is None or isinstance(self.source, bytes):
            return type(None), ()  # unpickled as None: the photo is not known there
        return _unread, (self.size, self.source, self._checksum)


def as_photo(image: NDArray[np.uint8] | Photo | None, size: tuple[int, int]) -> Photo | None:
    """The photo of masks of a size (H, W); a ValueError if it is of another size or no RGB."""
    if image is None or isinstance(image, Photo):
        photo = image
    else:
        check_photo(image, size)
        photo = Photo(image)
    if photo is not None:
        check_size(size, photo.size)
    return photo


def _pinned(pixels: NDArray[np.uint8], source: str | bytes | None) -> Photo:
    return Photo(pixels, source=source, pinned=True)


def _unread(size: tuple[int, int], source: str, checksum: int) -> Photo:
    """A photo from a pickle, which is read when its pixels are needed."""
    photo = Photo.__new__(Photo)
    photo.size, photo.source, photo.pinned, photo._own = size, source, False, None
    photo._remade, photo._checksum = Remade(), checksum
    return photo


def _repeatable(source: ImageSource) -> str | bytes | None:
    """What can be read a second time, in whichever folder the program is then; None for pixels."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, str) and "://" in source:
        return source
    if isinstance(source, str | os.PathLike):
        return str(Path(os.fsdecode(source)).expanduser().absolute())
    return None


def _checksum(pixels: NDArray[np.uint8]) -> int:
    """Of evenly spaced rows."""
    rows = pixels[:: max(1, len(pixels) // _CHECKED_ROWS)]
    return zlib.crc32(rows.tobytes())
