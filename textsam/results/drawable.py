"""Pictures and files of masks: what one mask and a whole result have in common."""

from __future__ import annotations

import base64
import builtins
import html
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.errors import ImageError, require
from textsam.pictures import draw
from textsam.results import storage
from textsam.results.mask_table import NUMBERS, MaskTable
from textsam.values.files import write_atomically
from textsam.values.images import ImageSource, load_image
from textsam.values.photo import Photo
from textsam.values.rle import rle_areas, rle_boxes

__all__ = ["Drawable", "PictureKind"]

PictureKind = Literal["overlay", "cutout", "mask", "instances", "classes", "compare"]

# A notebook's file holds each picture and row that was shown.
_NOTEBOOK_SIDE = 512
_NOTEBOOK_ROWS = 20


class Drawable(ABC):
    """Masks of one photo, to be drawn, shown and saved."""

    __slots__ = ()

    @property
    @abstractmethod
    def _table(self) -> MaskTable: ...

    @property
    @abstractmethod
    def photo(self) -> Photo | None:
        """Where the photo comes from (`photo.source`), and its pixels; None if it is not known."""

    @property
    def image(self) -> NDArray[np.uint8] | None:
        """(H, W, 3) uint8 RGB, read-only; None if the photo is not known.

        Read again where the photo came from a path or address and is no longer in memory.

        Raises:
            ImageError: It cannot be read again, or there is another picture now.
        """
        return None if self.photo is None else self.photo.pixels()

    def plot(
        self,
        image: ImageSource | None = None,
        *,
        scores: bool = True,
        alpha: float = 0.45,
        outline: bool = True,
        dim: float = 0.15,
    ) -> Image.Image:
        """Draw the masks over the photo.

        Args:
            image: The photo; by default the one that the result knows.
            scores: Whether labels show their scores.
            alpha: Opacity of the tint, 0 to 1.
            outline: Whether masks get an outline.
            dim: How far everything outside the masks is darkened, 0 to 1.

        Returns:
            RGB picture of the photo's size.

        Raises:
            ValueError: There is no photo, or it is not of the masks' size.
        """
        table = self._table
        return draw.overlay(
            self._pixels(image),
            table.rles,
            texts=[
                _tag_text(label, score if scores else math.nan)
                for label, score in zip(table.labels, table.scores.tolist(), strict=True)
            ],
            colors=draw.mask_colors(table.labels),
            alpha=alpha,
            outline=outline,
            dim=dim,
        )

    def picture(
        self, kind: PictureKind = "overlay", *, image: ImageSource | None = None
    ) -> Image.Image:
        """Make a picture of the result.

        Args:
            kind: `"overlay"`: see `plot`; `"cutout"`: the photo with all else transparent;
                `"compare"`: the photo beside the overlay; `"mask"`: the union in white on black;
                `"instances"` and `"classes"`: the numbers of `label_map` in colours. The last three
                need no photo.
            image: The photo; by default the one that the result knows.

        Raises:
            ValueError: Another kind, or no photo where one is needed.
        """
        table = self._table
        if kind == "overlay":
            return self.plot(image)
        if kind == "cutout":
            return draw.cutout(self._pixels(image), table.rles)
        if kind == "compare":
            return draw.side_by_side([Image.fromarray(self._pixels(image)), self.plot(image)])
        if kind == "mask":
            return draw.mask_picture(table.rles, table.size)
        if kind in ("instances", "classes"):
            by: Literal["mask", "label"] = "mask" if kind == "instances" else "label"
            return draw.indexed_picture(table.label_map(by=by))
        raise ValueError(f"got picture kind {kind!r}; wanted one of {list(get_args(PictureKind))}")

    def show(self, image: ImageSource | None = None) -> None:
        """Show the overlay: in the notebook, or in the system's viewer of pictures."""
        picture = self.plot(image)
        # IPython puts this name into the builtins of its sessions.
        if hasattr(builtins, "get_ipython") or hasattr(builtins, "__IPYTHON__"):
            require("IPython.display", "demo").display(picture)
        else:
            picture.show()

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that `save` writes, e.g. for a web service."""
        return storage.table_to_json(self._table)

    def save(
        self,
        path: str | Path,
        *,
        kind: PictureKind | None = None,
        image: ImageSource | None = None,
        names: Sequence[str] | None = None,
    ) -> Path:
        """Write the result; the suffix decides the format. A file is complete or not there at all.

        | suffix | content | can be loaded |
        |---|---|---|
        | `.png` `.jpg` `.jpeg` `.webp` | a picture, see `picture` | no |
        | `.json` | everything but the photo, masks as COCO RLE | yes |
        | `.npz` | everything but the photo, masks as packed bits | yes |
        | `.geojson` | polygons with holes, in pixels: see `Segmentation.to_geojson` | no |
        | `.txt` | YOLO segmentation: `class x1 y1 x2 y2 ...` per mask, 0 to 1 | no |

        No file holds `answers`: write the reasons with `explain().save("why.json")`.

        Args:
            path: The file, replaced if it is there.
            kind: The kind of picture; the overlay by default.
            image: The photo, for pictures; by default the one that the result knows.
            names: Class names in order, for `.txt` only; `class_names` by default. Give them where
                several photos must agree.

        Raises:
            ValueError: An unknown suffix, an option that does not fit it, or no photo to draw on.
            OSError: The file cannot be written.
        """
        path = Path(path)
        data = storage.encode_result(
            self._table,
            path,
            picture=lambda: self.picture(kind or "overlay", image=image),
            kind=kind,
            names=names,
        )
        return write_atomically(path, data)

    def _repr_html_(self) -> str:
        """A small picture and a table for a notebook; on black if the photo cannot be read."""
        try:
            picture = self.plot()
        except ValueError:  # an ImageError, too: a notebook shows a result rather than an error
            picture = self.plot(np.zeros((*self._table.size, 3), dtype=np.uint8))
        picture.thumbnail((_NOTEBOOK_SIDE, _NOTEBOOK_SIDE))
        code = base64.b64encode(draw.encode_picture(picture, ".jpg")).decode("ascii")
        return f'<img src="data:image/jpeg;base64,{code}"/>{_html_table(self._table)}'

    def _crop(self, index: int, *, margin: int, cutout: bool) -> Image.Image:
        """The photo around one mask."""
        rle = self._table.rles[index]
        if rle.is_empty:
            raise ValueError(f"mask {index} is empty: there is nothing to crop")
        pixels = self._pixels(None)
        x0, y0, x1, y1 = rle_boxes([rle])[0].tolist()
        height, width = self._table.size
        left, top = max(0, x0 - margin), max(0, y0 - margin)
        right, bottom = min(width, x1 + margin), min(height, y1 + margin)
        picture = draw.cutout(pixels, [rle]) if cutout else Image.fromarray(pixels)
        return picture.crop((left, top, right, bottom))

    def _pixels(self, image: ImageSource | None) -> NDArray[np.uint8]:
        """The photo to draw on."""
        if image is not None:
            # The size settles what load_image rightly calls ambiguous: a photo three pixels high.
            if isinstance(image, np.ndarray) and image.shape == (*self._table.size, 3):
                return image if image.dtype == np.uint8 else load_image(image)
            return load_image(image)
        if self.photo is None:
            raise ImageError(
                "this result does not know its photo (files and pickles of results do not hold "
                'it); give it: plot("photo.jpg"), save(..., image="photo.jpg"), '
                'load(..., image="photo.jpg") or with_image("photo.jpg")'
            )
        return self.photo.pixels()


def _tag_text(label: str | None, score: float) -> str | None:
    return label if label is None or math.isnan(score) else f"{label} {score:.2f}"


def _html_table(table: MaskTable) -> str:
    """The masks and what is known of them, and the phrases without a mask."""
    numbers = {name: v for name, v in table.numbers.items() if not np.isnan(v).all()}
    heads = ["", "label", *(NUMBERS[name] for name in numbers), "area", "box"]
    areas, boxes = rle_areas(table.rles), rle_boxes(table.rles)
    rows = [
        [
            str(index),
            label or "",
            *("" if math.isnan(v[index]) else f"{v[index]:.2f}" for v in numbers.values()),
            f"{areas[index]:,}",
            ", ".join(map(str, boxes[index].tolist())),
        ]
        for index, label in enumerate(table.labels[:_NOTEBOOK_ROWS])
    ]
    lines = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    head = "".join(f"<th>{head}</th>" for head in heads)
    body = "".join(f"<tr>{line}</tr>" for line in [head, *lines])
    return f"<table>{body}</table><p>{html.escape(str(table))}</p>"
