"""Searching indexes of masks: each is opened once for all users; pictures of the results."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from textsam.errors import ImageError, PromptError, TextSamError
from textsam.pictures.contact_sheet import mask_cell
from textsam.pictures.draw import mask_picture
from textsam.values.images import load_image
from textsam.values.rle import rle_box
from textsam.values.rle_ops import crop_rle

if TYPE_CHECKING:
    from textsam.inference.model import TextSAM
    from textsam.search.index import MaskIndex
    from textsam.search.records import MaskRow
    from textsam.search.results import SearchResults

_MAX_INDEXES = 8
_MAX_RESULTS = 60
_PICTURE_SIDE = 320  # pixels of a picture in the gallery
_CONTEXT = 1.5  # side of a picture as a multiple of the mask's longer side


class SharedIndex:
    """An index that is opened when it is first used; `uri` is its path or address."""

    def __init__(self, uri: str, model: Callable[[], TextSAM]) -> None:
        self.uri = uri
        self._model = model
        self._index: MaskIndex | None = None
        self._lock = threading.Lock()

    def open(self) -> MaskIndex:
        """The index."""
        with self._lock:
            if self._index is None:
                self._index = self._open()
            return self._index

    def search(self, query: dict[str, Any], *, count: int, **conditions: Any) -> SearchResults:
        """The nearest masks, best first.

        `query` has `text`, `mask` or `image` of `MaskIndex.search`, and `space`; the conditions are
        arguments of `Where`, where an empty one is no condition.
        """
        from textsam.search.where import Where

        if not any(query.get(name) is not None for name in ("text", "mask", "image")):
            raise PromptError("Type a phrase, choose an object in Explore, or drop a crop")
        index = self.open()
        try:
            where = Where(**{name: value or None for name, value in conditions.items()})
            return index.search(**query, k=max(1, min(count, _MAX_RESULTS)), where=where)
        except TextSamError:
            raise
        except ValueError as error:
            raise PromptError(str(error)) from error

    def _open(self) -> MaskIndex:
        from textsam.search.index import MaskIndex

        # Without this check a mistyped path would become a new, empty index.
        if "://" not in self.uri and not Path(self.uri).is_dir():
            raise PromptError(f"There is no index at {self.uri}; type another path")
        try:
            index = MaskIndex.open(self.uri)
            spaces = dict(index.spaces)
        except (ValueError, OSError) as error:
            raise PromptError(f"{self.uri} cannot be opened: {error}") from error
        if not spaces:
            raise PromptError(f"{self.uri} is not an index, or it has no masks yet")
        model = self._model()
        index = MaskIndex(index.engine, model=model)
        if dict(index.embedder.spaces) != spaces:
            made_by = ", ".join(sorted({space.model for space in spaces.values()}))
            raise PromptError(
                f"The index at {self.uri} was made by {made_by}, but this is {model.name}: start "
                "the explorer with the model that made it, --model"
            )
        return index


class Indexes:
    """The indexes used last, for all users."""

    def __init__(self, model: Callable[[], TextSAM]) -> None:
        # Any page may type any path: without a limit they could fill the memory.
        self._shared = lru_cache(maxsize=_MAX_INDEXES)(lambda uri: SharedIndex(uri, model))

    def at(self, uri: str) -> SharedIndex:
        """The index at an address; it is not opened yet."""
        # People paste paths with the quotes that a shell needs.
        clean = uri.strip().strip("\"'")
        if not clean:
            raise PromptError("Type the path of an index first, for example masks.lance")
        address = clean if "://" in clean else str(Path(clean).expanduser())
        return self._shared(address)


def photo_of(row: MaskRow, uri: str) -> Path | None:
    """The photo of a row, if it is a file on this machine.

    Rows name a photo by its path, absolute or relative to the index's folder. Photos inside a
    Parquet file or a data set of a hub are no files.
    """
    path = Path(row.image.removeprefix("file://"))
    beside = [] if "://" in uri else [Path(uri).resolve().parent / path]
    return next((file for file in (path, *beside) if file.is_file()), None)


def result_picture(row: MaskRow, photo: Path | None) -> Image.Image:
    """A picture for the gallery: the mask on its photo, or only its shape without a photo."""
    x0, y0, x1, y1 = (int(side) for side in rle_box(row.rle))
    height, width = row.rle.size
    try:
        image = None if photo is None else load_image(photo)
    except ImageError:  # one damaged file must not hide the other results
        image = None
    if image is None or image.shape[:2] != (height, width):
        shape = mask_picture([crop_rle(row.rle, (x0, y0, x1, y1))], (y1 - y0, x1 - x0))
        shape.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
        return shape.convert("RGB")
    return mask_cell(image, row.rle, context=_CONTEXT, size=_PICTURE_SIDE).picture
