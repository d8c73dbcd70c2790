"""What a model finds on some photos: by click, by box and by name; and a table of two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from textsam.errors import ImageError
from textsam.inference.model import TextSAM
from textsam.inference.view import ImageView
from textsam.values.rle import decode_rle, merge_rles, rle_boxes

from ..data import ObjectMask, Sample
from ..evaluation.clicks.simulated_clicks import next_click
from ..evaluation.figures.matching import masked_iou

__all__ = ["measure_model", "show_change"]

_OBJECTS = 5  # of a photo
_NAMES = 5  # of a photo


def measure_model(model: TextSAM, samples: Sequence[Sample]) -> dict[str, float]:
    """Mean IoU of a first click, of a box, and of the union of a name's masks.

    The click is the pixel farthest from the mask's border, the box is the true one (RECIPE 8). By
    name everything that `segment(text=...)` finds is compared with every mask of that name.

    Returns:
        "click", "box" and, for a model that can be asked so and masks with names, "text"; empty
        without photos.
    """
    found: dict[str, list[float]] = {}
    for sample in samples:
        try:
            view = model.open(sample.image())
        except ImageError:
            continue
        objects = [item for item in sample.objects if not item.ignore]
        for item in objects[:_OBJECTS]:
            for kind, value in _object(view, sample, item).items():
                found.setdefault(kind, []).append(value)
        if model.pathway is None:
            continue
        names = list(dict.fromkeys(item.label for item in objects if item.label))
        for name in names[:_NAMES]:
            truth = decode_rle(
                merge_rles([o.rle for o in sample.objects if o.label == name], sample.size)
            )
            iou = masked_iou(view.segment(text=name).mask, truth, exclude=sample.void_mask())
            found.setdefault("text", []).append(iou)
    return {kind: sum(values) / len(values) for kind, values in found.items()}


def show_change(before: Mapping[str, float], after: Mapping[str, float], *, photos: int) -> None:
    """Print a table of mean IoU before and after."""
    console = Console()
    if not after:
        console.print("No photo was held out, so nothing was measured: see --held-out.")
        return
    table = Table("prompt", "before", "after", "change")
    for kind, value in after.items():
        table.add_row(kind, f"{before[kind]:.3f}", f"{value:.3f}", f"{value - before[kind]:+.3f}")
    console.print(f"Mean IoU on {photos} photos that were held out:")
    console.print(table)


def _object(view: ImageView, sample: Sample, item: ObjectMask) -> dict[str, float]:
    """IoU of one object by click and by box; nothing for an empty mask."""
    truth, void = decode_rle(item.rle), sample.void_mask()
    if not (truth & ~void).any():
        return {}
    click = next_click(np.zeros_like(truth), truth, void=void)
    assert click is not None
    box = rle_boxes([item.rle])[0]
    answers = {
        "click": view.segment(points=[(click.x, click.y)]),
        "box": view.segment(box=box),
    }
    return {
        kind: masked_iou(
            answer.masks[0] if len(answer) else np.zeros_like(truth), truth, exclude=void
        )
        for kind, answer in answers.items()
    }
