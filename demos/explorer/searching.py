"""Searching indexes of masks: each opened once for all users, a picture for each result."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from textsam.errors import ImageError, PromptError, TextSamError
from textsam.pictures import draw
from textsam.results.columns import MaskResult
from textsam.values.images import load_image
from textsam.values.rle import rle_box
from textsam.values.rle_ops import crop_rle

if TYPE_CHECKING:
    from textsam.inference.model import TextSAM
    from textsam.search.index import MaskIndex
    from textsam.search.records import MaskRow
    from textsam.search.results import SearchResults

__all__ = ["Indexes", "Query", "SharedIndex", "caption", "photo_of", "result_picture"]

_MOST_INDEXES = 8
_MOST_RESULTS = 60
_SIDE = 320  # pixels of a picture in the gallery
_ROOM = 0.25  # around a mask, as a share of its longer side


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is looked for, and where.

    Attributes:
        text: A phrase; or None.
        mask: A mask that knows its photo; or None.
        image: A photo or crop (H, W, 3) uint8; or None.
        space: "clip": what a thing is; "sam": what it looks like.
        datasets: Only these; empty for all.
        labels: Only these; empty for all.
        min_area: Least pixels; 0 for any.
        count: How many results.
    """

    text: str | None = None
    mask: MaskResult | None = None
    image: Any = None
    space: Literal["clip", "sam"] = "clip"
    datasets: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    min_area: float = 0
    count: int = 24


class SharedIndex:
    """An index that is opened when first asked.

    Attributes:
        uri: Where it is.
    """

    def __init__(self, uri: str, model: Callable[[], TextSAM]) -> None:
        """Name an index and the model that embeds what is looked for."""
        self.uri = uri
        self._model = model
        self._index: MaskIndex | None = None
        self._lock = threading.Lock()

    def open(self) -> MaskIndex:
        """The index.

        Raises:
            TextSamError: It is not there, holds nothing, or was made by another model.
        """
        with self._lock:
            if self._index is None:
                self._index = self._opened()
            return self._index

    def search(self, query: Query) -> SearchResults:
        """The nearest masks, best first.

        Raises:
            PromptError: Nothing to look for, or conditions that no row can meet.
            TextSamError: As `open`.
        """
        from textsam.search.where import Where

        given = {"text": query.text, "mask": query.mask, "image": query.image}
        asked = {name: value for name, value in given.items() if value is not None}
        if not asked:
            raise PromptError("Type a phrase, choose an object in Explore, or drop a crop")
        index = self.open()
        try:
            where = Where(
                datasets=query.datasets or None,
                labels=query.labels or None,
                min_area=query.min_area or None,
            )
            count = max(1, min(int(query.count), _MOST_RESULTS))
            return index.search(**asked, k=count, where=where, space=query.space)
        except TextSamError:
            raise
        except ValueError as error:
            raise PromptError(str(error)) from error

    def _opened(self) -> MaskIndex:
        from textsam.search.embed import Embedder
        from textsam.search.index import MaskIndex

        local = "://" not in self.uri
        if local and not Path(self.uri).is_dir():
            raise PromptError(f"There is no index at {self.uri}; type the path of another")
        try:
            bare = MaskIndex.open(self.uri)
            spaces = dict(bare.spaces)
        except (ValueError, OSError) as error:
            raise PromptError(f"{self.uri} cannot be opened: {error}") from error
        if not spaces:
            raise PromptError(f"{self.uri} is no index, or one that holds no masks yet")
        bare.close()
        # Of the two kinds of latents, the one that this index was made with.
        model = self._model()
        for latents in ("crops", "photo"):
            embedder = Embedder(model, latents=latents, spaces=list(spaces))
            if dict(embedder.spaces) == spaces:
                return MaskIndex.open(self.uri, model=embedder)
        made_by = ", ".join(sorted({space.model for space in spaces.values()}))
        raise PromptError(
            f"The index at {self.uri} was made by {made_by}, and this is {model.name}: start the "
            "explorer with the model that made it, --model"
        )


class Indexes:
    """The indexes that pages asked for last."""

    def __init__(self, model: Callable[[], TextSAM]) -> None:
        """Name the model that embeds what is looked for."""
        self._model = model
        self._known: OrderedDict[str, SharedIndex] = OrderedDict()
        self._lock = threading.Lock()

    def at(self, uri: str) -> SharedIndex:
        """The index with this address; it is not opened yet.

        Raises:
            PromptError: No address.
        """
        # Paths are pasted, also with the quotes of a shell around them.
        clean = uri.strip().strip("\"'")
        if not clean:
            raise PromptError("Type the path of an index first, e.g. masks.lance")
        address = clean if "://" in clean else str(Path(clean).expanduser())
        with self._lock:
            index = self._known.pop(address, None) or SharedIndex(address, self._model)
            self._known[address] = index
            while len(self._known) > _MOST_INDEXES:
                self._known.popitem(last=False)
            return index


def photo_of(row: MaskRow, uri: str) -> Path | None:
    """The photo of a row as a file, if it is one that is here.

    Rows name a photo by its path, absolute or relative to the folder that the index lies in. Those
    of photos inside of a Parquet file or a hub's data set name no file.
    """
    named = Path(row.image.removeprefix("file://"))
    beside = [] if "://" in uri else [Path(uri).resolve().parent / named]
    return next((path for path in (named, *beside) if path.is_file()), None)


def result_picture(row: MaskRow, photo: Path | None) -> Image.Image:
    """A result for the gallery: the mask on its photo, or its shape where there is none."""
    x0, y0, x1, y1 = (int(side) for side in rle_box(row.rle))
    height, width = row.rle.size
    try:
        image = None if photo is None else load_image(photo)
    except ImageError:  # it broke since; that shall not take the other results away
        image = None
    if image is None or image.shape[:2] != (height, width):
        shape = draw.mask_picture([crop_rle(row.rle, (x0, y0, x1, y1))], (y1 - y0, x1 - x0))
        shape.thumbnail((_SIDE, _SIDE))
        return shape.convert("RGB")
    room = math.ceil(_ROOM * max(x1 - x0, y1 - y0))
    left, top = max(0, x0 - room), max(0, y0 - room)
    right, bottom = min(width, x1 + room), min(height, y1 + room)
    part = np.ascontiguousarray(image[top:bottom, left:right])
    picture = draw.overlay(part, [crop_rle(row.rle, (left, top, right, bottom))], alpha=0.3)
    picture.thumbnail((_SIDE, _SIDE))
    return picture


def caption(row: MaskRow, score: float) -> str:
    """What stands below a result: label, data set, cosine."""
    return f"{row.label or 'no label'} · {row.dataset} · {score:.2f}"
