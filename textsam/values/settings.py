"""Numbers of `strategy="auto"` that belong to a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from textsam.errors import WeightsError

__all__ = ["TextSettings"]


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """How `auto` gets from the map of a phrase to masks; saved with the model.

    What is a probability is decided by the model's calibration; these are about geometry.

    Attributes:
        threshold: Probability from which a place of the map belongs to the phrase.
        min_quality: Least product of predicted IoU and mean probability of a mask.
        min_cells: Smallest region, in cells of the mask prompt's grid.
        points: Most points that a region is asked with.
        max_points: Most points that a phrase is asked with.
        sure: Predicted IoU x mean probability on a region's cells from which one mask answers for
            it, and it is not asked whether it holds several things.
        overlap: A mask is a duplicate if more than this share of it is covered by better ones.
        exclusion_margin: Log odds by which the phrase must beat an excluded one at a pixel, or the
            pixel is cut from its masks.
    """

    threshold: float = 0.5
    min_quality: float = 0.2
    min_cells: int = 4
    points: int = 6
    max_points: int = 16
    sure: float = 0.6
    overlap: float = 0.4
    exclusion_margin: float = 0.0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TextSettings:
        """Read what was saved with a model.

        Raises:
            WeightsError: For an unknown field.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise WeightsError(f"TextSettings has no field {unknown}; it has {sorted(known)}")
        return cls(**values)
