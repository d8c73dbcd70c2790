"""One mask of a result and what is known of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.errors import unknown_attribute
from textsam.results.drawable import Drawable
from textsam.results.mask_table import NUMBERS, MaskTable, make_table, read_only
from textsam.results.polygons import Ring, mask_to_rings
from textsam.values.photo import Photo, Remade
from textsam.values.rle import RLE, decode_rle, rle_area, rle_box

__all__ = ["MaskResult", "mask_results"]

# What people type who come from another library.
_ADVICE = {
    **dict.fromkeys(["bbox", "xyxy", "boxes"], "box, half-open x0, y0, x1, y1"),
    **dict.fromkeys(["segmentation", "masks", "numpy", "data"], "mask"),
    **dict.fromkeys(["conf", "confidence", "scores"], "score"),
    **dict.fromkeys(["cls", "name", "labels", "class_name"], "label"),
    "predicted_iou": "iou",
    "stability_score": "stability",
    "xy": "polygons()",
    **{
        name: f"result[:1].{name}()"
        for name in ("to_coco", "to_geojson", "to_pandas", "to_supervision", "masks_tensor")
    },
}


@dataclass(frozen=True, repr=False)
class MaskResult(Drawable):
    """One mask and what is known of it; drawn and saved as a result is.

    Attributes:
        rle: The mask, run-length coded.
        label: The phrase that it answers; None for a mask from points, a box, or everything.
        score: Probability that the label describes the mask; NaN if unknown.
        iou: Predicted IoU of the mask; NaN if unknown.
        stability: Stability score of the mask; NaN if unknown.
        similarity: Cosine, -1 to 1, with the mask that `ImageView.similar` was asked about; NaN for
            masks from elsewhere.
        photo: The photo of the mask, so that the mask can be an example for another photo; None if
            it is not known. Not compared.
    """

    rle: RLE
    label: str | None = None
    score: float = math.nan
    iou: float = math.nan
    stability: float = math.nan
    similarity: float = math.nan
    photo: Photo | None = field(default=None, compare=False)

    @cached_property
    def _decoded(self) -> Remade:
        return Remade()

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W) bool, read-only, decoded when used."""
        return self._decoded.get(lambda: read_only(decode_rle(self.rle)))

    @property
    def box(self) -> NDArray[np.float32]:
        """(4,) float32 half-open x0, y0, x1, y1, original pixels; zeros for an empty mask."""
        return read_only(rle_box(self.rle).astype(np.float32))

    @property
    def area(self) -> int:
        """Number of pixels."""
        return rle_area(self.rle)

    def polygons(self, tolerance: float = 0.0) -> list[Ring]:
        """Outlines (N, 2) float32 x, y, original pixels, largest first; see `mask_to_rings`."""
        return mask_to_rings(self.mask, tolerance=tolerance)

    def crop(self, *, margin: int = 0, cutout: bool = False) -> Image.Image:
        """The photo around the mask; see `Segmentation.crop`."""
        return self._crop(0, margin=margin, cutout=cutout)

    @property
    def _table(self) -> MaskTable:
        numbers: dict[str, Any] = {name: [getattr(self, own)] for name, own in NUMBERS.items()}
        return make_table(self.rle.size, [self.rle], labels=[self.label], **numbers)

    if not TYPE_CHECKING:  # a type checker should know of the real attributes only

        def __getattr__(self, name: str) -> Any:
            raise unknown_attribute(self, name, _ADVICE)

    def __repr__(self) -> str:
        """Label, the numbers that are known, area and box; not the run-length code."""
        numbers = {name: getattr(self, name) for name in NUMBERS.values()}
        parts = [] if self.label is None else [repr(self.label)]
        parts += [f"{key}={value:.2f}" for key, value in numbers.items() if not math.isnan(value)]
        box = ", ".join(map(str, rle_box(self.rle)))
        return f"<MaskResult {' '.join([*parts, f'area={self.area}'])} box=({box})>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the decoded mask."""
        numbers = [getattr(self, name) for name in NUMBERS.values()]
        return type(self), (self.rle, self.label, *numbers, self.photo)


def mask_results(table: MaskTable, photo: Photo | None) -> tuple[MaskResult, ...]:
    """The masks of a table one by one."""
    # One and the same NaN, which equals itself inside tuples: equal masks compare as equal.
    columns = {
        NUMBERS[name]: [math.nan if math.isnan(value) else value for value in values.tolist()]
        for name, values in table.numbers.items()
    }
    return tuple(
        MaskResult(rle, label, photo=photo, **{name: c[i] for name, c in columns.items()})
        for i, (rle, label) in enumerate(zip(table.rles, table.labels, strict=True))
    )
