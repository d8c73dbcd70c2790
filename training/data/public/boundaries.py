"""Photos with the contours that people drew in them.

Three forms: BSDS500 (Arbelaez et al., PAMI 2011) as it is given out, `bsds500:ROOT?split=val`; a
Parquet file with the columns `image`, `image_id` and `boundaries`, a list of 1-bit PNGs, one an
annotator; and any set of masks (`specs.py`, or a Parquet file with `objects`), whose contours are
the borders of its masks. Where masks leave most of a photo free, edges there count as wrong; so do
those of objects that are marked to be ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
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


def open_boundaries(spec: str | Path) -> BoundaryPhotos:
    """Open a Parquet file, BSDS500 as it is given out, or a set of masks."""
    text = str(spec)
    if text.startswith("bsds500:"):
        parsed = SourceSpec.parse(text)
        unknown = sorted(set(parsed.options) - {"split"})
        if unknown:
            raise ValueError(f"{text} has no option {', '.join(unknown)}; it has split")
        return _open_bsds(Path(parsed.path), split=parsed.options.get("split", "val"))
    if is_spec(text):
        return _open_masks(open_source(text), text)
    path = Path(text)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {text}; wanted {_USAGE}")
    return _open_parquet(path)


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


class BoundaryPhotos(Sequence[BoundaryPhoto]):
    """Photos by number, read when they are asked for; also slices of them."""

    def __init__(self, name: str, count: int, read: Callable[[int], BoundaryPhoto]) -> None:
        self.name, self._count, self._read = name, count, read

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> BoundaryPhoto: ...
    @overload
    def __getitem__(self, index: slice) -> list[BoundaryPhoto]: ...
    def __getitem__(self, index: int | slice) -> BoundaryPhoto | list[BoundaryPhoto]:
        numbers = range(self._count)[index]
        return self._read(numbers) if isinstance(numbers, int) else [self._read(i) for i in numbers]


def _open_bsds(root: Path, *, split: str) -> BoundaryPhotos:
    """`images/SPLIT/ID.jpg` and `groundTruth/SPLIT/ID.mat`."""
    places = (".", "data", "BSDS500/data", "BSR/BSDS500/data")
    root = find_root(root, places, marks=("images", "groundTruth"), what="BSDS500")
    images = wanted_folder(root / "images" / split, "BSDS500")
    folder = wanted_folder(root / "groundTruth" / split, "BSDS500")
    truths = sorted(folder.glob("*.mat"))
    if not truths:
        raise ValueError(f"BSDS500: {folder} has no *.mat; wanted one for each photo")
    return BoundaryPhotos(f"bsds500 {split}", len(truths), partial(_bsds_photo, images, truths))


def _bsds_photo(images: Path, truths: Sequence[Path], index: int) -> BoundaryPhoto:
    truth = truths[index]
    photo = images / f"{truth.stem}.jpg"
    if not photo.is_file():
        raise ImageError(f"BSDS500: there is no photo {photo}, which {truth} is for")
    annotators = structs_of(read_mat(truth, "groundTruth"), path=truth)
    contours = (mat_field(a, "Boundaries", path=truth) for a in annotators)
    return _checked(truth.stem, photo, [contour != 0 for contour in contours], truth)


def _open_parquet(path: Path) -> BoundaryPhotos:
    """Rows of a Parquet file, kept encoded."""
    try:
        columns = pq.read_schema(path).names
        if "objects" in columns and "boundaries" not in columns:
            return _open_masks(ParquetSource([path]), str(path))
        if missing := [column for column in _COLUMNS if column not in columns]:
            raise ValueError(
                f"{path} has no column {', '.join(missing)}: it holds no contours. Wanted {_USAGE}"
            )
        table = pq.read_table(path, columns=list(_COLUMNS))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    return BoundaryPhotos(path.stem, table.num_rows, partial(_parquet_photo, path, table))


def _parquet_photo(path: Path, table: pa.Table, index: int) -> BoundaryPhoto:
    row = table.slice(index, 1).to_pylist()[0]
    name, where = str(row["image_id"]), f"{path}, row {index}"
    pictures = [_bytes(b, where) for b in row["boundaries"] or ()]
    contours = [read_label_map(picture) != 0 for picture in pictures]
    return _checked(name, _bytes(row["image"], where), contours, where)


def _open_masks(source: Source | StreamSource, text: str) -> BoundaryPhotos:
    if isinstance(source, StreamSource):
        raise ValueError(f"{text} is a stream; wanted a set whose photos can be counted")
    name = str(getattr(source, "name", "masks"))
    return BoundaryPhotos(name, len(source), partial(_mask_photo, source))


def _mask_photo(source: Source, index: int) -> BoundaryPhoto:
    sample = source[index]
    masks = (decode_rle(item.rle) for item in sample.objects if not item.ignore)
    contour = mask_borders(masks, sample.size)
    return BoundaryPhoto(image_id=sample.image_id, encoded=sample.encoded, boundaries=(contour,))


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
