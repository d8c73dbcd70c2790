"""Users' photos: read within limits, encoded once, kept within bounds; and the model for it.

Users share only the encodings of photos that are equal pixel for pixel: whoever gets one already
had the photo. Prompts and results are not shared; every user has a fork of the view.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.errors import ImageError, PromptError, TextSamError
from textsam.pictures.contact_sheet import shrunk_mask
from textsam.values.images import load_image, resize_image
from textsam.values.rle import RLE

if TYPE_CHECKING:
    from textsam.inference.model import TextSAM
    from textsam.inference.view import ImageView

_LOG = logging.getLogger(__name__)

MAX_MEGAPIXELS = 64  # reading takes 7 bytes per pixel
LONG_SIDE = 1600  # pixels; on larger photos a click takes longer than people wait
_MIN_SIDE = 16  # pixels


@dataclass(frozen=True, eq=False)
class UserPhoto:
    """A photo at the size that the explorer works on."""

    file_name: str  # on the user's machine
    # (H, W, 3) uint8 RGB, at most `LONG_SIDE` pixels on the longer side, read-only
    image: NDArray[np.uint8] = field(repr=False)
    original_size: tuple[int, int]  # (H, W) of the file
    path: Path  # on this machine
    key: str  # hash of the pixels of `image`

    @property
    def name(self) -> str:
        """The file's name without suffix; exported files begin with it."""
        return Path(self.file_name).stem[:80] or "photo"

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of `image`."""
        return (self.image.shape[0], self.image.shape[1])

    def fit_mask(self, rle: RLE) -> RLE:
        """Scale a mask of the file, or of `image`, to the size of `image`."""
        if rle.size == self.size:
            return rle
        if rle.size != self.original_size:
            (height, width), (h, w) = self.original_size, rle.size
            raise PromptError(
                f"{self.file_name} has {width} x {height} pixels now, but the mask was made at "
                f"{w} x {h}; it cannot be shown here"
            )
        mask = shrunk_mask(rle, self.size[::-1])
        if mask.is_empty:
            raise PromptError(f"The mask is too small to be seen on {self.file_name} at this size")
        return mask


def read_photo(path: Path, name: str | None = None) -> UserPhoto:
    """Read a user's file, scaled down to `LONG_SIDE`; `name` is its name on the user's machine."""
    file_name = Path(name or path.name).name
    if not path.is_file():
        raise ImageError(f"{file_name} is not here any more; open the photo again")
    if path.stat().st_size == 0:
        raise ImageError(f"{file_name} is empty (0 bytes); choose a photo")
    _check_header(path, file_name)
    try:
        image = load_image(path)
    except ImageError as error:
        # Users must not learn the names of the server's folders.
        plain = str(error).removeprefix("load_image: ").replace(repr(str(path)), file_name)
        raise ImageError(plain.replace(str(path), file_name)) from error
    height, width = image.shape[:2]
    if min(height, width) < _MIN_SIDE:
        raise ImageError(f"{file_name} has {width} x {height} pixels; choose a larger photo")
    scale = LONG_SIDE / max(height, width)
    if scale < 1:
        image = resize_image(image, (max(1, round(height * scale)), max(1, round(width * scale))))
    image.flags.writeable = False
    digest = hashlib.sha256(repr(image.shape).encode())  # the same bytes may have another shape
    digest.update(image.data)
    return UserPhoto(file_name, image, (height, width), path, digest.hexdigest())


def _check_header(path: Path, file_name: str) -> None:
    """Refuse a photo by its number of pixels before any of them is decoded."""
    try:
        with path.open("rb") as file, Image.open(file) as picture:
            megapixels = picture.size[0] * picture.size[1] / 1e6
        amount = str(math.ceil(megapixels))
    except Image.DecompressionBombError:  # raised by Pillow at twice its own limit
        megapixels = math.inf
        amount = f"over {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f}"
    except Exception:
        return  # not an image, or a damaged one: `load_image` reports it
    if megapixels > MAX_MEGAPIXELS:
        raise ImageError(
            f"{file_name} has {amount} megapixels; the explorer takes {MAX_MEGAPIXELS}. "
            "Scale it down, or use model.open_tiled in Python"
        )


def example_photos() -> list[Path]:
    """The example photos: inside the package when installed, beside `demos/` in a checkout."""
    demos = Path(__file__).resolve().parents[1]
    for folder in (demos / "examples", demos.parent / "examples"):
        if folder.is_dir():
            return sorted(folder.glob("*.jpg"))
    return []


class ModelInBackground:
    """A model that is loaded in the background, so that the page opens at once."""

    def __init__(self, name: str, load: Callable[[], TextSAM]) -> None:
        self.name = name
        self.seconds: float | None = None  # how long loading took
        self._model: Future[TextSAM] = Future()
        # A daemon, so that Ctrl-C does not wait for a large model.
        threading.Thread(target=self._run, args=(load,), name=f"load {name}", daemon=True).start()

    def _run(self, load: Callable[[], TextSAM]) -> None:
        start = time.perf_counter()
        try:
            model = load()
        except BaseException as error:
            _LOG.error("%s could not be loaded: %s", self.name, error)
            self._model.set_exception(error)
        else:
            self.seconds = time.perf_counter() - start
            self._model.set_result(model)

    def __call__(self) -> TextSAM:
        """The model; waits until it is loaded."""
        try:
            return self._model.result()
        except TextSamError:
            raise
        except Exception as error:
            raise TextSamError(f"The model {self.name} could not be loaded: {error}") from error

    @property
    def state(self) -> Literal["loading", "ready", "failed"]:
        """How far loading is."""
        if not self._model.done():
            return "loading"
        return "failed" if self._model.exception() is not None else "ready"


class PhotoCache:
    """The photos encoded last, for all users, within bounds; thread-safe."""

    def __init__(
        self, model: Callable[[], TextSAM], *, max_photos: int = 24, max_bytes: int = 2**29
    ) -> None:
        self.model = model
        self.max_photos = max_photos
        self.max_bytes = max_bytes
        self._views: OrderedDict[str, ImageView] = OrderedDict()
        self._encoding: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def open(self, photo: UserPhoto) -> ImageView:
        """A view of a photo for one user; the photo is encoded unless it is in the cache."""
        with self._lock:
            turn = self._encoding.setdefault(photo.key, threading.Lock())
        # A second user with the same photo waits here instead of encoding it again.
        with turn:
            with self._lock:
                view = self._views.get(photo.key)
                if view is not None:
                    self._views.move_to_end(photo.key)
            if view is None:
                model = self.model()
                view = model.open(photo.image)
                if model.has_dense_text:
                    # A cached property: read now, so that users do not compute it at the same time.
                    _ = view.photo.text_features
                if model.detector is not None:
                    _ = view.photo.detector_photo
            with self._lock:
                self._views[photo.key] = view
                self._drop_oldest()
                self._encoding.pop(photo.key, None)
        return view.fork()

    @property
    def size(self) -> tuple[int, int]:
        """Number of photos in the cache, and the bytes they take."""
        with self._lock:
            return len(self._views), sum(map(_bytes_of, self._views.values()))

    def _drop_oldest(self) -> None:
        """Drop the photos unused for longest until the others are within the bounds."""
        total = sum(map(_bytes_of, self._views.values()))
        while len(self._views) > 1 and (
            len(self._views) > self.max_photos or total > self.max_bytes
        ):
            _, dropped = self._views.popitem(last=False)
            total -= _bytes_of(dropped)


def _bytes_of(view: ImageView) -> int:
    features = view.photo.features
    tensors: Iterable = (features.embedding, *features.skips, *features.pyramid)
    return view.image.nbytes + sum(tensor.nbytes for tensor in tensors)
