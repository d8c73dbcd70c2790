"""Data sets on the command line: folders of photos, and everything that training reads.

An index refers to a photo in a file of its own by the file's path, and to one inside a Parquet file
or a Hugging Face data set by `SPEC#ROW:ID`: the source as `training.data.specs` writes it, the row
there, and the id. With either, `textsam search` can show the photo.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textsam.batch.find_photos import PHOTO_SUFFIXES, find_photos
from textsam.cli.options import import_guest
from textsam.errors import ImageError
from textsam.search.data_photos import DataMask, DataPhoto, ListedPhotos, PhotoSource
from textsam.values.images import load_image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# SPEC#ROW:ID; photos of a stream have no row.
_INSIDE_SET = re.compile(r"(.+?)#(\d*):(.*)", re.DOTALL)


def open_data(data: str, *, name: str | None = None, index: str = "") -> PhotoSource:
    """Open a folder of photos, a photo, a Parquet file, or a source as training names it.

    `name` is that of the data set in the index; `index` is skipped if it lies in the folder.
    """
    path = Path(data)
    # Folders with such files are data sets of training, whose masks count too.
    has_annotations = any(path.glob("*.parquet")) or any(path.glob("sa_*.json"))
    is_folder = path.is_dir() and not has_annotations
    if is_folder or (path.is_file() and path.suffix.lower() in PHOTO_SUFFIXES):
        # The suffix does not matter: nothing is written beside the photos.
        photos = find_photos([path], Path(index or "no index"), suffix=".lance").photos
        default = path.resolve().name if is_folder else path.stem
        paths = [photo.path.resolve() for photo in photos]
        return ListedPhotos(
            [DataPhoto(dataset=name or default, image=str(path), encoded=path) for path in paths]
        )
    specs: Any = import_guest("training.data.specs", "train")
    spec = specs.SourceSpec.parse(data).absolute()
    source = specs.open_source(spec)
    return SamplePhotos(source, spec=str(spec), dataset=name or source.name)


class SamplePhotos:
    """A `PhotoSource` of a training source: a table with numbered rows, or a stream."""

    def __init__(self, source: Any, *, spec: str, dataset: str) -> None:
        self._source, self._spec, self._dataset = source, spec, dataset
        self.total = len(source) if hasattr(source, "__len__") else None
        self.has_masks = bool(getattr(source, "has_masks", True))

    def rows(self) -> Iterator[Any]:
        """Row numbers, or the items of a stream in the order of its first epoch."""
        # A stream has no row numbers; its first epoch has each photo once.
        if self.total is None:
            return iter(self._source.rows(seed=0, epoch=0))
        return iter(range(self.total))

    def name(self, row: Any, /) -> str:
        """Source and row."""
        return f"{self._spec}#{row}:" if isinstance(row, int) else f"{self._spec}#:{row[0]}"

    def photo(self, row: Any, /) -> DataPhoto:
        """The photo and its objects, without those marked to be ignored (crowds)."""
        is_numbered = isinstance(row, int)
        sample = self._source[row] if is_numbered else self._source.sample(row)
        image = f"{self._spec}#{row if is_numbered else ''}:{sample.image_id}"
        if isinstance(sample.encoded, Path):
            image = str(sample.encoded.absolute())
        masks = tuple(
            DataMask(rle=item.rle, label=item.label or None)
            for item in sample.objects
            if not item.ignore
        )
        return DataPhoto(dataset=self._dataset, image=image, encoded=sample.encoded, masks=masks)


def open_photo(image: str) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) uint8 RGB of a photo of an index, by a path or `SPEC#ROW:ID`."""
    inside = _INSIDE_SET.fullmatch(image)
    if inside is None or Path(image).exists():
        return load_image(image)
    spec, row, image_id = inside.groups()
    source = _open_source(spec)
    if row:
        sample = source[int(row)]
    else:
        # A stream has to be read up to the photo.
        sample = next((sample for sample in source if sample.image_id == image_id), None)
    if sample is None or sample.image_id != image_id:
        raise ImageError(f"photo {image_id!r} is not in {spec} any more")
    pixels: NDArray[np.uint8] = sample.image()
    return pixels


def short_name(image: str) -> str:
    """A photo's name for a table: its id in its data set, or the name of its file."""
    inside = _INSIDE_SET.fullmatch(image)
    return image.rstrip("/").rpartition("/")[2] if inside is None else inside[3]


@lru_cache(maxsize=4)
def _open_source(spec: str) -> Any:
    return import_guest("training.data.specs", "train").open_source(spec)
