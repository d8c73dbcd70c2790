"""Photos with the contours that people drew in them.

Three forms: BSDS500 (Arbelaez et al., PAMI 2011) as it is given out, `bsds500:ROOT?split=val`; a
Parquet file with the columns `image`, `image_id` and `boundaries`, a list of 1-bit PNGs, one an
annotator; and any set of masks (`specs.py`, or a Parquet file with `objects`), whose contours are
the borders of its masks. Where masks leave most of a photo free, edges there count as wrong; so do
those of objects that are marked to be ignored.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from textsam.errors import ImageError, require
from textsam.values.images import load_image
from textsam.values.rle import decode_rle

from ..label_pngs import read_label_map
from ..parquet import ParquetSource
from ..source import Source, StreamSource
from ..specs import SourceSpec, is_spec, open_source
from .listed import find_root, mat_field, read_mat, structs_of, wanted_folder

_COLUMNS = ("image", "image_id", "boundaries")
_USAGE = (
    f"bsds500:ROOT?split=val, a Parquet file with the columns {', '.join(_COLUMNS)}, or a set of "
    "masks"
)


@dataclass(frozen=True, kw_only=True)
class BoundaryPhoto:
    """One photo with its annotators' contours."""

    image_id: str  # its name in the set
    encoded: bytes | Path  # the bytes of the image file, or where the file is
    # (H, W) bool for each annotator, one pixel wide, in the photo's own pixels
    boundaries: tuple[NDArray[np.bool_], ...]

    def __post_init__(self) -> None:
        sizes = sorted({b.shape for b in self.boundaries})
        if len(sizes) != 1 or len(sizes[0]) != 2:
            raise ValueError(
                f"photo {self.image_id!r}: its boundaries have the sizes {sizes}; wanted at least "
                "one, all of the same (height, width)"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the photo and of every contour."""
        height, width = self.boundaries[0].shape
        return height, width

    def image(self) -> NDArray[np.uint8]:
        """Decode to (H, W, 3) uint8 RGB, upright."""
        image = load_image(self.encoded)
        if image.shape[:2] != self.size:
            raise ImageError(
                f"photo {self.image_id!r} is {image.shape[:2]} (height, width) upright; its "
                f"boundaries are for {self.size}"
            )
        return image


def open_boundaries(spec: str | Path) -> Sequence[BoundaryPhoto]:
    """Open a Parquet file, BSDS500 as it is given out, or a set of masks."""
    text = str(spec)
    if text.startswith("bsds500:"):
        parsed = SourceSpec.parse(text)
        unknown = sorted(set(parsed.options) - {"split"})
        if unknown:
            raise ValueError(f"{text} has no option {', '.join(unknown)}; it has split")
        return _BsdsPhotos(Path(parsed.path), split=parsed.options.get("split", "val"))
    if is_spec(text):
        return _of_masks(open_source(text), text)
    path = Path(text)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {text}; wanted {_USAGE}")
    columns = _columns(path)
    if "objects" in columns and "boundaries" not in columns:
        return _of_masks(ParquetSource([path]), text)
    return _ParquetPhotos(path, columns)


def mask_borders(masks: Iterable[NDArray[np.bool_]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Lines of one pixel between what is in a mask and what is not: (H, W).

    A border lies on the left or upper one of the two pixels that it parts, and is thinned as the
    benchmark thins. The photo's own border is none.
    """
    border = np.zeros(size, bool)
    for mask in masks:
        border[:, :-1] |= mask[:, :-1] != mask[:, 1:]
        border[:-1] |= mask[:-1] != mask[1:]
    thinned: NDArray[np.bool_] = require("skimage.morphology", "eval").thin(border)
    return thinned


class _Photos(Sequence[BoundaryPhoto]):
    """Photos by number; also slices of them."""

    @abstractmethod
    def _photo(self, index: int) -> BoundaryPhoto:
        """Read one; 0 <= index < len(self)."""

    @overload
    def __getitem__(self, index: int) -> BoundaryPhoto: ...
    @overload
    def __getitem__(self, index: slice) -> list[BoundaryPhoto]: ...
    def __getitem__(self, index: int | slice) -> BoundaryPhoto | list[BoundaryPhoto]:
        if isinstance(index, slice):
            return [self._photo(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"photo {index} of {len(self)}")
        return self._photo(index % len(self))


class _BsdsPhotos(_Photos):
    """`images/SPLIT/ID.jpg` and `groundTruth/SPLIT/ID.mat`."""

    def __init__(self, root: Path, *, split: str) -> None:
        places = (".", "data", "BSDS500/data", "BSR/BSDS500/data")
        self.name = f"bsds500 {split}"
        root = find_root(root, places, marks=("images", "groundTruth"), what="BSDS500")
        self._images = wanted_folder(root / "images" / split, "BSDS500")
        self._truths = wanted_folder(root / "groundTruth" / split, "BSDS500")
        self._names = sorted(path.stem for path in self._truths.glob("*.mat"))
        if not self._names:
            raise ValueError(f"BSDS500: {self._truths} has no *.mat; wanted one for each photo")

    def __len__(self) -> int:
        return len(self._names)

    def _photo(self, index: int) -> BoundaryPhoto:
        name = self._names[index]
        photo, truth = self._images / f"{name}.jpg", self._truths / f"{name}.mat"
        if not photo.is_file():
            raise ImageError(f"BSDS500: there is no photo {photo}, which {truth} is for")
        annotators = structs_of(read_mat(truth, "groundTruth"), path=truth)
        contours = (mat_field(a, "Boundaries", path=truth) for a in annotators)
        return _checked(name, photo, [contour != 0 for contour in contours], truth)


class _ParquetPhotos(_Photos):
    """Rows of a Parquet file, kept encoded."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        missing = [column for column in _COLUMNS if column not in columns]
        if missing:
            raise ValueError(
                f"{path} has no column {', '.join(missing)}: it holds no contours. Wanted {_USAGE}"
            )
        self._path = path
        try:
            self._table = pq.read_table(path, columns=list(_COLUMNS))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"cannot read {path}: {error}") from error

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def _photo(self, index: int) -> BoundaryPhoto:
        row = self._table.slice(index, 1).to_pylist()[0]
        name, where = str(row["image_id"]), f"{self._path}, row {index}"
        pictures = [_bytes(b, where) for b in row["boundaries"] or ()]
        contours = [read_label_map(picture) != 0 for picture in pictures]
        return _checked(name, _bytes(row["image"], where), contours, where)


class _MaskPhotos(_Photos):
    """The photos of a set of masks; `name` is the set's."""

    def __init__(self, source: Source) -> None:
        self.name = str(getattr(source, "name", "masks"))
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def _photo(self, index: int) -> BoundaryPhoto:
        sample = self._source[index]
        masks = (decode_rle(item.rle) for item in sample.objects if not item.ignore)
        contour = mask_borders(masks, sample.size)
        return BoundaryPhoto(
            image_id=sample.image_id, encoded=sample.encoded, boundaries=(contour,)
        )


def _of_masks(source: Source | StreamSource, text: str) -> _MaskPhotos:
    if isinstance(source, StreamSource):
        raise ValueError(f"{text} is a stream; wanted a set whose photos can be counted")
    return _MaskPhotos(source)


def _columns(path: Path) -> list[str]:
    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error


def _checked(
    name: str, encoded: bytes | Path, contours: list[NDArray[np.bool_]], where: Any
) -> BoundaryPhoto:
    try:
        return BoundaryPhoto(image_id=name, encoded=encoded, boundaries=tuple(contours))
    except ValueError as error:
        raise ImageError(f"{where}: {error}") from error


def _bytes(picture: Any, where: str) -> bytes:
    """What the `Image` feature of Hugging Face holds, or plain bytes."""
    held = picture.get("bytes") if isinstance(picture, dict) else picture
    if not isinstance(held, bytes):
        raise ImageError(f"{where}: a picture has no bytes; wanted the encoded file")
    return held
