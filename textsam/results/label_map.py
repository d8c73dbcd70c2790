"""A semantic map: each pixel of a photo has one of several phrases, or none."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.pictures import draw
from textsam.results.segmentation import Segmentation
from textsam.values.files import write_atomically
from textsam.values.photo import Photo, as_photo
from textsam.values.rle import encode_masks

__all__ = ["LabelMap"]


class LabelMap:
    """A semantic map.

    Attributes:
        labels: (H, W) int32, read-only: 0 for none, i for `names[i - 1]`.
        names: The phrases.
        photo: The photo, for the picture; None if it is not known.
    """

    def __init__(
        self,
        labels: NDArray[np.int32],
        names: Sequence[str],
        *,
        image: NDArray[np.uint8] | Photo | None = None,
    ) -> None:
        """Check and collect a map; the image (H, W, 3) uint8 RGB is for the picture.

        Raises:
            ValueError: A number has no name, a name occurs twice, or the photo has another size.
        """
        array = np.array(labels, dtype=np.int32)
        if array.ndim != 2 or (array.size and not 0 <= array.min() <= array.max() <= len(names)):
            raise ValueError(
                f"labels have shape {array.shape} and values up to {array.max(initial=0)}; wanted "
                f"(H, W) with values 0 to {len(names)}"
            )
        if len(set(names)) < len(names):
            raise ValueError(f"names repeat in {list(names)}")
        array.flags.writeable = False
        self.labels = array
        self.names = tuple(names)
        self.photo = as_photo(image, (array.shape[0], array.shape[1]))

    def __repr__(self) -> str:
        height, width = self.labels.shape
        return f"LabelMap({height} x {width} pixels, {self.shares()})"

    @property
    def image(self) -> NDArray[np.uint8] | None:
        """(H, W, 3) uint8 RGB, read-only; None if the photo is not known."""
        return None if self.photo is None else self.photo.pixels()

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.labels.shape[0], self.labels.shape[1]

    def shares(self) -> dict[str, float]:
        """Share of the photo that each phrase covers, 0 to 1."""
        # `minlength`: names without a pixel count, too.
        counts = np.bincount(self.labels.ravel(), minlength=len(self.names) + 1)
        return {
            name: float(count) / max(1, self.labels.size)
            for name, count in zip(self.names, counts[1:], strict=True)
        }

    def mask(self, name: str) -> NDArray[np.bool_]:
        """(H, W) bool, the pixels of a phrase.

        Raises:
            ValueError: The phrase is not one of `names`.
        """
        if name not in self.names:
            raise ValueError(f"{name!r} was not asked for; there are {list(self.names)}")
        return np.asarray(self.labels == 1 + self.names.index(name))

    def to_segmentation(self) -> Segmentation:
        """One mask for each phrase that covers something."""
        names = [name for name, share in self.shares().items() if share > 0]
        rles = [encode_masks(self.mask(name)[None])[0] for name in names]
        return Segmentation(self.size, rles, labels=names, image=self.photo)

    def picture(self) -> Image.Image:
        """The phrases in colour over the photo, or on black if the photo is not known."""
        photo = self.photo or Photo(np.zeros((*self.size, 3), np.uint8))
        return self.to_segmentation().plot(photo.pixels(), scores=False, dim=0.0)

    def save(self, path: str | Path) -> Path:
        """Write the map; the file is complete or not there at all.

        Args:
            path: `.npz` holds labels and names; `.png` `.jpg` `.webp` a picture.

        Raises:
            ValueError: Another suffix.
            OSError: It cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() == ".npz":
            stream = io.BytesIO()
            np.savez_compressed(stream, labels=self.labels, names=np.array(self.names, dtype=str))
            return write_atomically(path, stream.getvalue())
        if path.suffix.lower() not in draw.PICTURE_SUFFIXES:
            raise ValueError(
                f"cannot write a label map as {path.name!r}; wanted .npz or one of "
                f"{', '.join(draw.PICTURE_SUFFIXES)}"
            )
        return write_atomically(path, draw.encode_picture(self.picture(), path.suffix))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote as `.npz`.

        Raises:
            ValueError: Not such a file.
            OSError: It cannot be read.
        """
        try:
            with np.load(path, allow_pickle=False) as file:  # pickles could run code
                return cls(file["labels"], [str(name) for name in file["names"]])
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path} is no label map: {error}") from error
