"""Settings of phrases, zooming in, tiles and automatic masks, and the choices of options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, TypeVar

from textsam.errors import PromptError

__all__ = [
    "AUTOMATIC_PRESETS",
    "AutomaticSettings",
    "FocusSettings",
    "Overlap",
    "Preset",
    "ResultFormat",
    "SetFormat",
    "Strategy",
    "TextSettings",
    "TileSettings",
    "resolve_preset",
]

Preset = Literal["paper", "released-code", "fast"]
# Declared once: Python, the command line and the explorer offer the same ones.
# What runs the image encoder.
Backend = Literal["torch", "onnxruntime", "openvino"]
Strategy = Literal["auto", "prompt", "detect", "concept", "rank"]
Overlap = Literal["allow", "exclusive"]
# Suffixes that `Segmentation.save` writes; .jpeg is accepted, too.
ResultFormat = Literal["png", "jpg", "webp", "json", "npz", "txt"]
# One data set for all photos of a run, or of `write_set`.
SetFormat = Literal[
    "coco", "yolo", "labelme", "cvat", "voc", "geojson", "gpkg", "labelstudio", "parquet"
]

_MIN_TILE = 64  # pixels

S = TypeVar("S")


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """How `strategy="auto"` gets from the map of a phrase to masks; saved with the model.

    The model's calibration decides what is a probability; these numbers are about geometry.

    Attributes:
        threshold: Probability from which a cell of the map belongs to the phrase.
        min_quality: Lowest product of predicted IoU and mean probability of a mask.
        min_cells: Smallest region, in cells of the mask prompt's grid.
        points: Maximum number of points in a region.
        max_points: Maximum number of points of a phrase.
        min_peak_distance: Distance in cells within which a point hides lower peaks of its region.
        peak_distance_ratio: The same as a share of the point's distance to the region's border; the
            larger of the two counts.
        min_peak_ratio: Lowest peak that becomes a point, as a share of the region's highest.
        sure: Predicted IoU x mean probability on a region's cells from which one mask stands for
            the region, without a look at whether it holds several objects.
        min_several_ratio: Several objects are preferred to one if the quality on the region's
            cells is more than this share of what the one has.
        max_known_iou: A point is skipped where the masks so far have predicted IoUs of this sum.
        max_hole_ratio: Holes up to this share of a mask are filled.
        overlap: A mask is a duplicate if more than this share of it is covered by better ones.
        exclusion_margin: Log odds by which the phrase must beat an excluded one at a pixel, or the
            pixel is cut from its masks.
        measure_colours: Whether the colour of a phrase is measured on the pixels ("red car" is a
            car that is red) instead of being left to the text tower.
        same_object: A click beside all masks of a phrase corrects the nearest one, if the mask of
            phrase and click alone shares this much of the smaller of the two with it.
    """

    threshold: float = 0.5
    min_quality: float = 0.2
    min_cells: int = 4
    points: int = 6
    max_points: int = 16
    min_peak_distance: float = 4.0
    peak_distance_ratio: float = 0.9
    min_peak_ratio: float = 0.25
    sure: float = 0.6
    min_several_ratio: float = 1 / 1.1
    max_known_iou: float = 0.5
    max_hole_ratio: float = 0.02
    overlap: float = 0.4
    exclusion_margin: float = 0.0
    measure_colours: bool = False
    same_object: float = 0.3


@dataclass(frozen=True, kw_only=True)
class FocusSettings:
    """When and how closely to zoom in on a small object; saved with the model.

    Attributes:
        grow: Side of the window, as a multiple of the side of the object's box.
        limit: A window longer than this share of the photo's long side is not worth encoding.
        min_side: Side in original pixels below which an object counts as this large, so that a tiny
            one keeps some surroundings.
        reuse: A window that is already encoded serves a wanted one inside it that has at least this
            share of its length.
        box_margin: How far a mask may reach beyond the box of its prompt, as a share of the box's
            side.
        blend: How fast the weight of a reading of an ambiguous prompt falls with its predicted IoU.
    """

    grow: float = 1.4
    limit: float = 0.75
    min_side: float = 48.0
    reuse: float = 0.6
    box_margin: float = 0.02
    blend: float = 8.0


@dataclass(frozen=True, kw_only=True)
class TileSettings:
    """How a big photo is cut into tiles.

    Attributes:
        tile: Side of a tile, original pixels. The model sees each tile at its own input size, so
            half the side shows objects twice as large and takes four times as long.
        overlap: Minimum number of pixels that neighbouring tiles share. An object that is not
            longer than this is complete in at least one tile.
        whole: Whether the whole photo, downscaled to one tile, is segmented as well, for objects
            larger than a tile.

    Raises:
        PromptError: A tile below 64 pixels, or an overlap of more than half a tile.
    """

    tile: int = 1024
    overlap: int = 256
    whole: bool = True

    def __post_init__(self) -> None:
        """Refuse settings that make no grid."""
        for name in ("tile", "overlap"):
            value = getattr(self, name)
            # True is an integer in Python.
            if not isinstance(value, Integral) or isinstance(value, bool):
                raise PromptError(f"{name} is {value!r}; wanted whole pixels, e.g. {name}=256")
        if self.tile < _MIN_TILE:
            raise PromptError(f"tile is {self.tile}; wanted {_MIN_TILE} pixels or more")
        if not 0 <= self.overlap <= self.tile // 2:
            raise PromptError(
                f"overlap is {self.overlap}; wanted 0 to {self.tile // 2}, half of tile={self.tile}"
            )


@dataclass(frozen=True, kw_only=True)
class AutomaticSettings:
    """Grid, filters and crops of automatic masks (arXiv 2304.02643, Appendix B).

    Names and defaults are those of Segment Anything's `SamAutomaticMaskGenerator`, which has no
    `max_area` and no `refine`.

    Attributes:
        points_per_side: Points of the grid on the whole photo, each way.
        points_per_batch: Prompts decoded at once.
        pred_iou_thresh: Masks whose predicted IoU is at or below this are dropped.
        stability_score_thresh: Masks with a lower stability score are dropped.
        stability_score_offset: Shift of the logits' cut-off for the stability score.
        box_nms_thresh: Box IoU above which the mask with the lower predicted IoU is dropped, within
            one crop.
        crop_n_layers: Layers of crops beside the whole photo; layer n has 2^n x 2^n crops.
        crop_nms_thresh: As `box_nms_thresh`, between crops.
        crop_overlap_ratio: Share of the short side by which crops of the first layer overlap.
        crop_n_points_downscale_factor: Each layer has this many times fewer points per side.
        min_mask_region_area: Pieces and holes of fewer original pixels are removed; 0 for none.
        max_area: Masks of this share of the photo or more are dropped; 1 for none.
        refine: Whether masks that pass the filters on the decoder's grid are decoded again with
            their own logits and box (`textsam.inference.automatic`).

    Raises:
        PromptError: A number outside its range.
    """

    points_per_side: int = 32
    points_per_batch: int = 32
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500  # as in the released code
    crop_n_points_downscale_factor: int = 1
    min_mask_region_area: int = 0
    max_area: float = 1.0
    refine: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers outside their range."""
        for name, least in (
            ("points_per_side", 1),
            ("points_per_batch", 1),
            ("crop_n_points_downscale_factor", 1),
            ("crop_n_layers", 0),
            ("min_mask_region_area", 0),
        ):
            if getattr(self, name) < least:
                raise PromptError(f"{name} is {getattr(self, name)}; wanted at least {least}")
        for name in ("box_nms_thresh", "crop_nms_thresh", "max_area"):
            if not 0 < getattr(self, name) <= 1:
                raise PromptError(f"{name} is {getattr(self, name)}; wanted more than 0, at most 1")
        if not 0 <= self.crop_overlap_ratio < 1:
            raise PromptError(f"crop_overlap_ratio is {self.crop_overlap_ratio}; wanted 0 to 1")

    @classmethod
    def from_preset(cls, settings: AutomaticSettings | str | None) -> AutomaticSettings:
        """Settings as they are, those of a preset by its name, or "fast" for None."""
        return resolve_preset(settings, AutomaticSettings, AUTOMATIC_PRESETS, default="fast")


AUTOMATIC_PRESETS: Mapping[str, AutomaticSettings] = {
    # A sparse grid, mild filters and a second look: seconds on a CPU, for small models, whose
    # predicted IoU and stability stay below the thresholds for large ones.
    "fast": AutomaticSettings(
        points_per_side=16,
        pred_iou_thresh=0.4,
        stability_score_thresh=0.3,
        max_area=0.95,
        min_mask_region_area=200,
        refine=True,
    ),
    # Appendix B: 32 x 32 points, 2 x 2 crops with 16 x 16, 4 x 4 crops with 8 x 8.
    "paper": AutomaticSettings(
        crop_n_layers=2, crop_n_points_downscale_factor=2, max_area=0.95, min_mask_region_area=100
    ),
    # The defaults of `SamAutomaticMaskGenerator`: no crops, no clean-up.
    "released-code": AutomaticSettings(),
}


def resolve_preset(
    settings: S | str | None, kind: type[S], presets: Mapping[str, S], *, default: str
) -> S:
    """Settings as they are, those of a preset by its name, or the default preset for None."""
    if isinstance(settings, kind):
        return settings
    name = default if settings is None else settings
    if isinstance(name, str) and name in presets:
        return presets[name]
    raise PromptError(
        f"settings are {settings!r}; wanted {kind.__name__}(...) or one of {list(presets)}"
    )
