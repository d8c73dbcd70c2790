"""What a result can be turned into: other libraries' objects, tables, tensors, polygons, crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.errors import unknown_attribute
from textsam.results import coco_annotations, features, foreign_objects
from textsam.results.drawable import Drawable
from textsam.results.mask_result import mask_results
from textsam.results.polygons import Ring, mask_to_rings
from textsam.values.geometry import boxes_to_xywh
from textsam.values.rle import decode_rle, rle_boxes

if TYPE_CHECKING:
    import torch

__all__ = ["Convertible"]


class Convertible(Drawable):
    """Masks of one photo as other libraries want them."""

    __slots__ = ()

    @property
    def xyxy(self) -> NDArray[np.float32]:
        """(K, 4) float32: `boxes` by the name that other libraries use."""
        return rle_boxes(self._table.rles).astype(np.float32)

    @property
    def xywh(self) -> NDArray[np.float32]:
        """(K, 4) float32 left, top, width, height, as in COCO; not the centre, as in YOLO."""
        return boxes_to_xywh(self.xyxy)

    def polygons(self, tolerance: float = 0.0) -> list[list[Ring]]:
        """The outlines of each mask, original pixels; y points down.

        Args:
            tolerance: Maximum distance in pixels of a corner from the line that replaces it; 0 is
                exact, 0.5 or 1 takes a fraction of the corners.

        Returns:
            K lists of rings (N, 2) float32 x, y, the largest first. Outer rings run clockwise on
            the screen, holes counter-clockwise. An empty list for an empty mask.
        """
        rles = self._table.rles
        return [mask_to_rings(decode_rle(rle), tolerance=tolerance) for rle in rles]

    def masks_tensor(self, device: str | torch.device = "cpu") -> torch.Tensor:
        """The masks as a bool tensor (K, H, W) of its own, which may be written to.

        `torch.from_numpy(result.masks)` warns instead, since results are read-only.
        """
        return foreign_objects.to_tensor(self._table, device)

    def crop(self, index: int, *, margin: int = 0, cutout: bool = False) -> Image.Image:
        """The photo around one mask.

        Args:
            index: Position of the mask.
            margin: Pixels to add on each side, as far as the photo goes.
            cutout: Whether all else than the mask is transparent.

        Returns:
            RGB, or RGBA for a cutout.

        Raises:
            IndexError: There is no such mask.
            ValueError: The mask is empty, or the photo is not known.
        """
        return self._crop(self._position(index), margin=margin, cutout=cutout)

    def to_supervision(
        self, *, names: Mapping[int, str] | Sequence[str] | None = None, compact: bool = True
    ) -> Any:
        """Make `supervision.Detections` of masks that all have a label, or all have none.

        Names are in `data["class_name"]`, scores in `confidence` if all are known. supervision's
        boxes have inclusive ends. Without masks, all columns are empty arrays.

        Args:
            names: Class names by class id; `class_names` by default.
            compact: Whether masks are supervision's `CompactMask` where it has one (from 0.28),
                which takes far less memory. It is no array: `np.asarray(detections.mask)` or
                `compact=False` makes one.

        Raises:
            MissingExtraError: supervision is not installed.
            ValueError: Some masks have a label and some have none, or a label is not in `names`.
        """
        return foreign_objects.to_detections(self._table, names=names, compact=compact)

    def to_pandas(self) -> Any:
        """Make a `pandas.DataFrame` with a row for each mask.

        Columns: `label`, `score`, `iou`, `stability`, `similarity`, `area`, the half-open box
        `x0`, `y0`, `x1`, `y1`, and `rle` as COCO has it in JSON.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return foreign_objects.to_frame(self._table)

    def to_coco(
        self,
        *,
        image_id: int = 1,
        categories: Mapping[str, int] | None = None,
        first_id: int = 1,
        polygons: bool = False,
        tolerance: float = 0.0,
    ) -> list[dict[str, Any]]:
        """Make COCO annotations, one per mask; those with a `score` are COCO results as well.

        Args:
            image_id: COCO's id of the image.
            categories: COCO's category id of each label; by default `class_names` from 1, and 1 for
                masks that all have no label. Give it where several photos must agree.
            first_id: Id of the first annotation; the others follow.
            polygons: Write polygons, for tools that cannot read run-length codes: one for each part
                of a mask. COCO has no holes, so each is cut out along a bridge of no width, which
                pycocotools fills right. Run-length codes, the default, are exact and small.
            tolerance: For polygons, the maximum distance in pixels of a corner from the line that
                replaces it; 0 is exact, 0.5 is invisible and takes half of the corners.

        Returns:
            K annotations; `area` and `bbox` are those of the segmentation as written.

        Raises:
            ValueError: A mask has no label, or a label no category.
        """
        names = self._table.names()
        if categories is None and names:
            categories = {name: number for number, name in enumerate(names, start=1)}
        return coco_annotations.to_annotations(
            mask_results(self._table, None),
            image_id=image_id,
            categories=categories,
            first_id=first_id,
            polygons=polygons,
            tolerance=tolerance,
        )

    def to_geojson(self, tolerance: float = 0.0) -> dict[str, Any]:
        """Make a GeoJSON `FeatureCollection` with a feature for each mask, in pixel coordinates.

        x points right and y down, as in the photo: a map shows it upside down. Holes are inner
        rings, several parts a `MultiPolygon`; an empty mask has no geometry. Properties are
        `label`, `area`, and the numbers that are known: `score`, `iou`, `stability`, `similarity`.

        Args:
            tolerance: Maximum distance in pixels of a corner from the line that replaces it.
        """
        return features.to_features(self._table, tolerance=tolerance)

    def _position(self, index: int) -> int:
        """The position from 0 of one that is there, negative ones counted from the end."""
        count = len(self._table.rles)
        if isinstance(index, str):
            raise IndexError(f"got {index!r}; wanted a position. Type: result[{index!r}].crop(0)")
        if not -count <= index < count:
            if count:
                there = f"there are {count} masks, 0 to {count - 1}"
            else:
                there = f"there is no mask ({self._table})"
                there += ". Type: if len(result), or result.explain()"
            raise IndexError(f"got position {index}; {there}")
        return index % count

    if not TYPE_CHECKING:  # a type checker should know of the real attributes only

        def __getattr__(self, name: str) -> Any:
            raise unknown_attribute(self, name, _ADVICE)


# What people type who come from another library.
_ADVICE = {
    **dict.fromkeys(["bbox", "bboxes", "box", "pred_boxes"], "boxes, half-open x0, y0, x1, y1"),
    **dict.fromkeys(["conf", "confidence", "confidences", "probs", "score"], "scores"),
    **dict.fromkeys(["names", "classes"], "class_names()"),
    **dict.fromkeys(["cls", "class_id", "class_name", "label", "phrases"], "labels"),
    **dict.fromkeys(["numpy", "data", "segmentation", "pred_masks"], "masks"),
    **dict.fromkeys(["cpu", "cuda", "to", "tensor"], 'masks_tensor("cuda")'),
    **dict.fromkeys(["orig_img", "img", "imgs"], "image"),
    **dict.fromkeys(["path", "image_path", "filename"], "photo.source"),
    **dict.fromkeys(["to_df", "to_dataframe", "df", "to_csv"], "to_pandas()"),
    **dict.fromkeys(["to_json", "tojson", "summary"], "to_dict()"),
    **dict.fromkeys(["xy", "xyn", "segments", "contours"], "polygons(tolerance=1)"),
    **dict.fromkeys(["save_txt", "to_yolo"], 'save("labels.txt")'),
    **dict.fromkeys(["annotate", "draw", "visualize", "overlay"], "plot()"),
    "save_crop": 'crop(0).save("crop.png")',
    "predicted_iou": "iou",
    "iou_predictions": "iou",
    "stability_score": "stability",
    "area": "areas",
    "rle": "rles",
}
