"""Data sets on the command line: folders of photos, and everything that training reads.

A photo that lies in a file of its own is known in an index by its path. One inside a Parquet file
or a data set of the Hub is known as `SPEC#ROW:ID`: the source as `training.data.specs` writes it,
its row there, and its id. Both say where it is, so that a search can show what it found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textsam.batch.find_photos import PHOTO_SUFFIXES, find_photos
from textsam.errors import ImageError, require
from textsam.search.data_photos import DataPhoto, GivenMask, PhotoSource
from textsam.values.images import load_image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FilePhotos", "SamplePhotos", "open_data", "open_photo", "short_name"]

# SPEC#ROW:ID; a stream's photos have no row.
_INSIDE = re.compile(r"(.+?)#(\d*):(.*)", re.DOTALL)


def open_data(data: str, *, name: str | None = None, index: str = "") -> PhotoSource:
    """Open what a text names.

    Args:
        data: A folder of photos, a photo, a Parquet file, or a source as the trainer names it.
        name: Name of the data set in the index; by default the source's own, or the folder's.
        index: The index, passed over if it lies in the folder.

    Raises:
        ValueError: It can be several things or nothing, or holds no photo.
        OSError: It is not there.
        MissingExtraError: What reads sources of training is not installed.
    """
    path = Path(data)
    folder = path.is_dir() and not any(path.glob("*.parquet")) and not any(path.glob("sa_*.json"))
    if folder or (path.is_file() and path.suffix.lower() in PHOTO_SUFFIXES):
        photos = find_photos([path], Path(index or "no index"), suffix=".lance")
        default = path.resolve().name if folder else path.stem
        return FilePhotos([photo.path.resolve() for photo in photos], dataset=name or default)
    specs = _open_specs()
    spec = specs.SourceSpec.parse(data).absolute()
    source = specs.open_source(spec)
    return SamplePhotos(source, spec=str(spec), dataset=name or source.name)


class FilePhotos:
    """A `PhotoSource` of photo files, without masks."""

    has_masks = False

    def __init__(self, paths: list[Path], *, dataset: str) -> None:
        self._paths, self._dataset = paths, dataset
        self.total = len(paths)

    def rows(self) -> Iterator[int]:
        """Their places."""
        return iter(range(self.total))

    def name(self, row: int, /) -> str:
        """The path."""
        return str(self._paths[row])

    def photo(self, row: int, /) -> DataPhoto:
        """The photo, known by its path."""
        path = self._paths[row]
        return DataPhoto(dataset=self._dataset, image=str(path), encoded=path)


class SamplePhotos:
    """A `PhotoSource` of a source of training: by number, or a stream."""

    def __init__(self, source: Any, *, spec: str, dataset: str) -> None:
        self._source, self._spec, self._dataset = source, spec, dataset
        self.total = len(source) if hasattr(source, "__len__") else None
        self.has_masks = bool(getattr(source, "has_masks", True))

    def rows(self) -> Iterator[Any]:
        """Numbers, or what a stream gives, in the order of its first epoch."""
        if self.total is None:
            return iter(self._source.rows(seed=0, epoch=0))
        return iter(range(self.total))

    def name(self, row: Any, /) -> str:
        """Source and row."""
        return f"{self._spec}#{row}:" if isinstance(row, int) else f"{self._spec}#:{row[0]}"

    def photo(self, row: Any, /) -> DataPhoto:
        """The photo, and its objects but those that its set leaves open (crowds)."""
        numbered = isinstance(row, int)
        sample = self._source[row] if numbered else self._source.sample(row)
        image = f"{self._spec}#{row if numbered else ''}:{sample.image_id}"
        if isinstance(sample.encoded, Path):
            image = str(sample.encoded.absolute())
        masks = (
            GivenMask(rle=item.rle, label=item.label or None)
            for item in sample.objects
            if not item.ignore
        )
        return DataPhoto(
            dataset=self._dataset, image=image, encoded=sample.encoded, masks=tuple(masks)
        )


def open_photo(image: str) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) uint8 RGB of a photo as an index knows it: a path, or `SPEC#ROW:ID`.

    Raises:
        ImageError: It is not there (any more), or another one is in its place.
        ValueError: The source cannot be opened.
        OSError: Likewise.
    """
    inside = _INSIDE.fullmatch(image)
    if inside is None or Path(image).exists():
        return load_image(image)
    spec, number, name = inside.groups()
    source = _source(spec)
    if number:
        sample = source[int(number)]
    else:
        sample = next((sample for sample in source if sample.image_id == name), None)
    if sample is None or sample.image_id != name:
        raise ImageError(f"{spec} has no photo {name!r} there any more")
    pixels: NDArray[np.uint8] = sample.image()
    return pixels


def short_name(image: str) -> str:
    """A photo as an index knows it, short enough for a table: its id, or the name of its file."""
    inside = _INSIDE.fullmatch(image)
    return image.rstrip("/").rpartition("/")[2] if inside is None else inside[3]


@lru_cache(maxsize=4)
def _source(spec: str) -> Any:
    return _open_specs().open_source(spec)


def _open_specs() -> Any:
    """`training.data.specs`: inside the wheel, or beside `textsam` in a checkout."""
    if find_spec("textsam.training") is None:
        return require("training.data.specs", "train")
    return require("textsam.training.data.specs", "train")
