"""The result: an immutable sequence of masks of one image, with what is known of each.

    seg = model.segment("street.jpg", text=["wheel", "door"])
    len(seg); seg[0].score; seg["wheel"].top(2); seg.filter(min_score=0.5)
    seg.masks  # (K, H, W) bool, decoded when asked for
    seg.save("street.png"); seg.save("street.json"); Segmentation.load("street.json")

Masks stay run-length codes until somebody asks for pixels. Three numbers belong to a mask and are
never blended: `score` (probability that the label describes it), `iou` (predicted by the decoder)
and `stability`; NaN stands for "not measured".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.pictures import draw
from textsam.results import storage
from textsam.results.columns import MaskResult
from textsam.results.explanation import Explanation
from textsam.results.mask_sequence import MaskSequence
from textsam.values.files import write_atomically
from textsam.values.images import ImageSource, load_image

__all__ = ["MaskResult", "PictureKind", "Segmentation"]

PictureKind = Literal["overlay", "cutout", "mask", "instances", "classes", "compare"]

# A notebook shows no more, and a 12-megapixel PNG would bloat it.
_NOTEBOOK_SIDE = 1024


class Segmentation(MaskSequence):
    """What a phrase, a click or a box found in one image: masks, their pictures, their files.

    A sequence of `MaskResult`; index, choose and read it as `MaskSequence` says, draw it with
    `plot`, write it with `save`.
    """

    __slots__ = ()

    @classmethod
    def load(cls, path: str | Path, *, image: ImageSource | None = None) -> Self:
        """Read a `.json` or `.npz` file that `save` wrote.

        Args:
            path: The file.
            image: The photo, for drawing; files of results do not hold it.

        Raises:
            ValueError: Another suffix, another format, a newer version, or a damaged file.
            OSError: The file cannot be read.
        """
        columns = storage.read_columns(Path(path))
        return cls._of(columns, None if image is None else load_image(image))

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
            image: The photo; the one that the result knows by default.
            scores: Whether chips show the score behind the label.
            alpha: Opacity of the tint, 0 to 1.
            outline: Whether masks get an outline.
            dim: How far everything outside the masks is darkened, 0 to 1.

        Returns:
            RGB picture of the photo's size.

        Raises:
            ValueError: There is no photo, or it is not of the masks' size.
        """
        return draw.overlay(
            self._photo(image),
            self._columns.rles,
            texts=[_chip_text(item, scores=scores) for item in self],
            colors=draw.mask_colors(self._columns.labels),
            alpha=alpha,
            outline=outline,
            dim=dim,
        )

    def picture(
        self, kind: PictureKind = "overlay", *, image: ImageSource | None = None
    ) -> Image.Image:
        """Make a picture of the result.

        Args:
            kind: `"overlay"` as `plot`; `"cutout"` the photo with all else transparent; `"compare"`
                the photo beside the overlay; `"mask"` the union in white on black; `"instances"`
                and `"classes"` numbered pixels as `label_map`, in colours. The last three need no
                photo.
            image: The photo; the one that the result knows by default.

        Raises:
            ValueError: Another kind, or no photo where one is needed.
        """
        if kind == "overlay":
            return self.plot(image)
        if kind == "cutout":
            return draw.cutout(self._photo(image), self._columns.rles)
        if kind == "compare":
            return draw.side_by_side([Image.fromarray(self._photo(image)), self.plot(image)])
        if kind == "mask":
            return draw.mask_picture(self._columns.rles, self.size)
        if kind in ("instances", "classes"):
            return draw.indexed_picture(
                self.label_map(by="mask" if kind == "instances" else "label")
            )
        raise ValueError(f"got picture kind {kind!r}; wanted one of {list(get_args(PictureKind))}")

    def explain(self, *, image: ImageSource | None = None) -> Explanation:
        """Tell why the result is what it is: what was considered, and which gate dropped it.

        Of the whole question that it answered, also where only some of its masks were chosen.

        Args:
            image: The photo, for the picture; the one that the result knows by default.

        Raises:
            ValueError: The masks do not come from phrases, or the result was read from a file.
        """
        if not self.answers:
            raise ValueError(
                "this result cannot be explained: its masks come from clicks or a box, or it was "
                "read from a file, which does not hold its reasons. Ask with a phrase: "
                'view.segment(text="wheel").explain()'
            )
        photo = self._image if image is None else self._photo(image)
        return Explanation(self.size, self.answers, image=photo)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that `save` writes, e.g. for a web service."""
        return storage.columns_to_json(self._columns)

    def save(
        self,
        path: str | Path,
        *,
        kind: PictureKind | None = None,
        image: ImageSource | None = None,
        names: Sequence[str] | None = None,
    ) -> Path:
        """Write the result; the suffix says what. A file is complete or not there at all.

        | suffix | content | can be loaded |
        |---|---|---|
        | `.png` `.jpg` `.jpeg` `.webp` | a picture, see `picture` | no |
        | `.json` | everything but the photo, masks as COCO RLE | yes |
        | `.npz` | everything but the photo, masks as packed bits | yes |
        | `.txt` | YOLO segmentation: `class x1 y1 x2 y2 ...` per mask, 0 to 1 | no |

        No file holds `answers`: write the reasons apart, with `explain().save("why.json")`.

        Args:
            path: The file, replaced if it is there.
            kind: What to draw, for pictures only; the overlay by default.
            image: The photo, for pictures; the one that the result knows by default.
            names: Class names in order, for `.txt` only; `class_names` by default. Give them where
                several photos must agree.

        Returns:
            The path.

        Raises:
            ValueError: An unknown suffix, an option that does not fit it, or no photo to draw on.
            OSError: The file cannot be written.
        """
        path = Path(path)
        data = storage.encode_result(
            self._columns,
            path,
            picture=lambda: self.picture(kind or "overlay", image=image),
            kind=kind,
            names=names,
        )
        return write_atomically(path, data)

    def _repr_png_(self) -> bytes:
        """The overlay for a notebook, on black if the photo is not known."""
        photo = np.zeros((*self.size, 3), dtype=np.uint8) if self._image is None else self._image
        picture = self.plot(photo)
        picture.thumbnail((_NOTEBOOK_SIDE, _NOTEBOOK_SIDE))
        return draw.encode_picture(picture, ".png")

    def _photo(self, image: ImageSource | None) -> NDArray[np.uint8]:
        if image is not None:
            # The size settles what load_image rightly calls ambiguous: a photo three pixels high.
            if isinstance(image, np.ndarray) and image.shape == (*self.size, 3):
                return image if image.dtype == np.uint8 else load_image(image)
            return load_image(image)
        if self._image is None:
            raise ValueError(
                "this result does not know its photo (files of results do not hold it); give it: "
                'plot("photo.jpg"), save(..., image="photo.jpg") or load(..., image="photo.jpg")'
            )
        return self._image


def _chip_text(item: MaskResult, *, scores: bool) -> str | None:
    if item.label is None or not scores or math.isnan(item.score):
        return item.label
    return f"{item.label} {item.score:.2f}"
