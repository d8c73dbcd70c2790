"""Clicks and boxes: mIoU after n clicks, oracle of three, NoC, box mIoU.

    python -m training.evaluation.points dev/grabcut.parquet dev/coco_mval.parquet --json F.json

The paper's centre protocol (arXiv 2304.02643, Section 7.1 and Appendix D.1): click the pixel
farthest from the mask's boundary, then the one farthest from the boundary of the error region of
the last prediction, whose logits are fed back. One click is ambiguous, so of the three readings the
one with the highest predicted IoU counts ("oracle": the best of them); later the single mask does.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from textsam.errors import TextSamError
from textsam.geometry import mask_to_box
from textsam.rle import decode_rle

from ..data import ObjectMask, Sample
from .protocol import (
    Click,
    clicks_needed,
    iou_after,
    masked_iou,
    mean,
    next_click,
    seeded_rng,
)
from .sheet import Gallery, add_sheet_option, write_sheet
from .table import (
    BadInputError,
    DataSet,
    add_common_options,
    at_least,
    complain,
    measure_files,
    number,
    numbers,
    progress,
    show_table,
)

__all__ = ["ClickConfig", "ClickRun", "PointItem", "click_object", "main", "measure_set"]

Mask = NDArray[np.bool_]


class Prediction(Protocol):
    """What `ImageView.predict` gives back; index 0 is the single mask, 1..3 are the readings."""

    @property
    def logits(self) -> NDArray[np.float32]:
        """(4, H, W), original pixels."""

    @property
    def iou(self) -> NDArray[np.float32]:
        """(4,) predicted IoU."""


class PromptedView(Protocol):
    """The one method of `textsam.inference.view.ImageView` that is measured here."""

    def predict(
        self,
        *,
        points: NDArray[np.float32] | None = None,
        labels: NDArray[np.int64] | None = None,
        box: NDArray[np.float32] | None = None,
        previous: Any = None,
        reading: int = 0,
    ) -> Prediction:
        """Masks of one prompt, or of an earlier prediction that the prompt corrects."""


@dataclass(frozen=True, kw_only=True)
class ClickConfig:
    """Settings of the protocol.

    `min_area` drops masks below 32 px: less than about one cell (5.3 x 5.3 px) of the logits of
    a 384-px model on a 512-px photo, where IoU measures rounding. No mask in our dev sets is
    smaller, so nothing hard is left out of their figures.
    """

    clicks: int = 20
    columns: tuple[int, ...] = (1, 2, 3, 5, 9)
    levels: tuple[float, ...] = (0.85, 0.90)
    min_area: int = 32
    per_photo: int | None = None
    seed: int = 0

    def shown(self) -> tuple[int, ...]:
        """The numbers of clicks that have a column."""
        return tuple(clicks for clicks in self.columns if clicks <= self.clicks)

    def is_settled(self, curve: Sequence[float]) -> bool:
        """Whether further clicks change no figure: columns are full, levels were reached."""
        return len(curve) >= max(self.shown()) and max(curve) >= max(self.levels)


@dataclass(frozen=True)
class ClickRun:
    """IoU after 1, 2, ... clicks, the best reading's at the first, and the clicks."""

    curve: list[float]
    oracle: float
    clicks: list[Click]


@dataclass(frozen=True, kw_only=True)
class PointItem:
    """The figures of one object; `iou` after 1, 2, ... clicks, as many as were given."""

    image_id: str
    object: int
    label: str
    area: int
    iou: list[float]
    oracle: float
    noc: dict[str, int]
    box: float


@dataclass(kw_only=True)
class _Tally:
    """What a set's photos gave."""

    items: list[PointItem] = field(default_factory=list)
    skipped: dict[str, int] = field(
        default_factory=lambda: {"ignore": 0, "small": 0, "void": 0, "over the cap": 0}
    )
    opened: int = 0
    seconds: float = 0.0


def click_object(
    view: PromptedView, truth: Mask, *, void: Mask | None = None, config: ClickConfig
) -> ClickRun | None:
    """Click one object until the figures are known.

    Args:
        view: An open photo.
        truth: (H, W) bool.
        void: (H, W) bool, pixels that count neither as error nor for the IoU.
        config: How many clicks at most, and what is wanted of them.

    Returns:
        The IoUs, or None if nothing of the truth lies outside the void.
    """
    mask, oracle = np.zeros_like(truth), 0.0
    previous: Prediction | None = None
    chosen = 0
    curve: list[float] = []
    clicks: list[Click] = []
    while len(curve) < config.clicks and not (curve and config.is_settled(curve)):
        click = next_click(mask, truth, void=void, clicked=clicks)
        if click is None:
            break
        clicks.append(click)
        prediction = view.predict(
            points=np.array([[c.x, c.y] for c in clicks], dtype=np.float32),
            labels=np.array([c.foreground for c in clicks], dtype=np.int64),
            previous=previous,
            reading=chosen,
        )
        masks, chosen = prediction.logits > 0, 0
        if len(clicks) == 1:  # ambiguous: three readings, the model says which
            chosen = 1 + int(np.argmax(prediction.iou[1:]))
            oracle = max(masked_iou(m, truth, exclude=void) for m in masks[1:])
        mask, previous = masks[chosen], prediction
        curve.append(masked_iou(mask, truth, exclude=void))
    return ClickRun(curve, oracle, clicks) if curve else None


def measure_set(
    model: Any, data: DataSet, *, config: ClickConfig, gallery: Gallery | None = None
) -> dict[str, Any]:
    """Measure one file.

    Args:
        model: A `TextSAM`: `open(image)` gives a context manager with `predict`.
        data: The photos.
        config: The protocol.
        gallery: Takes the best and worst masks after one click, for a picture sheet.

    Returns:
        `name`, `path`, `photos`, `objects`, `skipped`, `means` (None where nothing was measured),
        `seconds_per_photo` (decoding, encoding and all prompts of a photo) and `items`.
    """
    tally = _Tally()
    for sample in progress(data.samples, data.name):
        started = time.perf_counter()
        _measure_photo(model, sample, tally, config=config, gallery=gallery)
        tally.seconds += time.perf_counter() - started
    return {
        "name": data.name,
        "path": str(data.path),
        "photos": len(data.samples),
        "objects": len(tally.items),
        "skipped": tally.skipped,
        "means": _means(tally.items, config),
        "seconds_per_photo": tally.seconds / tally.opened if tally.opened else None,
        "items": [asdict(item) for item in tally.items],
    }


def _measure_photo(
    model: Any, sample: Sample, tally: _Tally, *, config: ClickConfig, gallery: Gallery | None
) -> None:
    chosen = _choose(sample, tally.skipped, config=config)
    if not chosen:
        return
    void = sample.void_mask()
    tally.opened += 1
    with model.open(sample.image()) as view:
        for index, o, truth in chosen:
            run = click_object(view, truth, void=void, config=config)
            if run is None:
                tally.skipped["void"] += 1
                continue
            # The box of the whole mask, void included: it is what an annotator would draw.
            box = view.predict(box=mask_to_box(truth).astype(np.float32)).logits[0] > 0
            tally.items.append(
                PointItem(
                    image_id=sample.image_id,
                    object=index,
                    label=o.label,
                    area=int(np.count_nonzero(truth)),
                    iou=run.curve,
                    oracle=run.oracle,
                    noc={
                        f"{level:.2f}": clicks_needed(run.curve, level, limit=config.clicks)
                        for level in config.levels
                    },
                    box=masked_iou(box, truth, exclude=void),
                )
            )
            if gallery is not None:
                first = run.clicks[0]
                mask = _one_click(view, first)
                gallery.add(run.curve[0], sample, mask, truth, o.label, [(first.x, first.y)])


def _one_click(view: PromptedView, click: Click) -> Mask:
    """The mask that counted after the first click, (H, W): the reading that the model prefers."""
    prediction = view.predict(
        points=np.array([[click.x, click.y]], dtype=np.float32),
        labels=np.array([click.foreground], dtype=np.int64),
    )
    mask: Mask = prediction.logits[1 + int(np.argmax(prediction.iou[1:]))] > 0
    return mask


def _choose(
    sample: Sample, skipped: dict[str, int], *, config: ClickConfig
) -> list[tuple[int, ObjectMask, Mask]]:
    """The objects to click, with their masks; those left out are counted by reason."""
    useful = []
    for index, o in enumerate(sample.objects):
        truth = decode_rle(o.rle)
        if o.ignore:
            skipped["ignore"] += 1
        elif np.count_nonzero(truth) < config.min_area:
            skipped["small"] += 1
        else:
            useful.append((index, o, truth))
    if config.per_photo is None or len(useful) <= config.per_photo:
        return useful
    skipped["over the cap"] += len(useful) - config.per_photo
    rng = seeded_rng(config.seed, sample.image_id)
    picked = rng.permutation(len(useful))[: config.per_photo]
    return [useful[index] for index in sorted(picked.tolist())]


def _means(items: Sequence[PointItem], config: ClickConfig) -> dict[str, float | None]:
    """Means over objects; `noc failed` is the share that never reached the level."""
    means = {f"iou@{n}": mean(iou_after(i.iou, n) for i in items) for n in config.shown()}
    means["oracle@1"] = mean(item.oracle for item in items)
    for level in config.levels:
        means[f"noc@{level:.2f}"] = mean(item.noc[f"{level:.2f}"] for item in items)
        means[f"noc failed@{level:.2f}"] = mean(max(item.iou) < level for item in items)
    means["box"] = mean(item.box for item in items)
    return means


def _show(sets: Sequence[dict[str, Any]], *, model: str, config: ClickConfig) -> None:
    clicks = [f"IoU@{n}" for n in config.shown()]
    nocs = [f"NoC@{level * 100:.0f}" for level in config.levels]
    columns = ["set", "photos", "objects", *clicks, "oracle", *nocs, "box", "s/photo"]
    rows = []
    for row in sets:
        means = row["means"]
        rows.append(
            [
                row["name"],
                str(row["photos"]),
                str(row["objects"]),
                *numbers(means, [f"iou@{n}" for n in config.shown()]),
                number(means["oracle@1"]),
                *numbers(means, [f"noc@{level:.2f}" for level in config.levels], digits=2),
                number(means["box"]),
                number(row["seconds_per_photo"], digits=2),
            ]
        )
    notes = [
        "IoU@n: mIoU over objects after n clicks; oracle: best of three readings at 1 click; "
        "NoC@q: clicks to IoU q%; box: the true box."
    ]
    for row in sets:
        left_out = [f"{count} {why}" for why, count in row["skipped"].items() if count]
        if left_out:
            notes.append(f"{row['name']}: left out {', '.join(left_out)}")
    title = f"Clicks and boxes, model {model} (NoC of at most {config.clicks})"
    show_table(title, columns, rows, notes=notes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.points",
        description="Measure clicks and boxes: mIoU at 1, 2, 3, 5, 9 clicks by the paper's centre "
        "protocol, oracle of the three readings, number of clicks to IoU 0.85 and 0.90 (NoC), and "
        "mIoU of the true box. Every object of every photo counts, but for those marked 'ignore'.",
    )
    add_common_options(parser)
    defaults = ClickConfig()
    parser.add_argument(
        "--clicks",
        type=at_least(1),
        default=defaults.clicks,
        metavar="N",
        help="most clicks per object; an object stops early once IoU 0.90 and the last column are "
        "reached (default: 20, as the interactive field; 9 is faster and fills every mIoU column)",
    )
    parser.add_argument(
        "--min-area",
        type=at_least(1),
        default=defaults.min_area,
        metavar="PX",
        help="leave out masks of fewer pixels (default: 32, about one cell of the logits of a "
        "384-px model on a 512-px photo)",
    )
    parser.add_argument(
        "--per-photo",
        type=at_least(1),
        metavar="N",
        help="measure at most N objects of a photo, drawn with the seed (default: all)",
    )
    add_sheet_option(parser, "IoU after one click")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (2: the input or the model is at fault)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    config = ClickConfig(
        clicks=options.clicks,
        min_area=options.min_area,
        per_photo=options.per_photo,
        seed=options.seed,
    )

    galleries: dict[str, Gallery] = {}

    def measure(model: Any, data: DataSet) -> dict[str, Any]:
        gallery = galleries.setdefault(data.name, Gallery()) if options.sheet else None
        result = measure_set(model, data, config=config, gallery=gallery)
        write_sheet(options.sheet, galleries, figure="IoU after one click")
        return result

    try:
        measured = measure_files(options, measure, protocol=asdict(config))
    except (BadInputError, TextSamError) as error:
        return complain(parser, error)
    _show(measured, model=options.model, config=config)
    return 0


if __name__ == "__main__":
    sys.exit(main())
