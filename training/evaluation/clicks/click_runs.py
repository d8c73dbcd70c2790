"""Clicking objects by the paper's protocol: `points` and `fairness`.

The centre protocol (arXiv 2304.02643, Section 7.1 and Appendix D.1): click the pixel farthest from
the mask's boundary, then the one farthest from the boundary of the error region of the last
prediction, whose logits are fed back. One click is ambiguous, so of the three masks the one with
the highest predicted IoU counts ("oracle": the best of them); later the single mask does. The
random variant clicks anywhere in the mask, and then anywhere in the error region (Appendix A).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from textsam.values.geometry import mask_to_box
from textsam.values.rle import decode_rle

from ...data import ObjectMask, Sample
from ..command import progress
from ..data_sets import DataSet, seeded_rng
from ..figures.case_sheets import Gallery, MaskCase
from ..figures.intervals import Interval, Score, mean, mean_interval
from ..figures.matching import boundary_iou, masked_iou
from .simulated_clicks import Click, clicks_needed, iou_after, next_click, random_click

Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ClickConfig:
    """Settings of the protocol."""

    minimum: ClassVar[Mapping[str, int]] = {"clicks": 1, "min_area": 1, "per_photo": 1}

    # Clicks per object at most; an object stops early once IoU 0.90 and the last column are
    # reached. The interactive field gives 20; 9 fills every mIoU column.
    clicks: int = 20
    columns: tuple[int, ...] = (1, 2, 3, 5, 9)  # Numbers of clicks that get a column of mIoU
    levels: tuple[float, ...] = (0.85, 0.90)  # IoU levels of the number of clicks (NoC)
    # Leave out masks of fewer pixels. 32 are about one cell (5.3 x 5.3 px) of the logits of a
    # 384-px model on a 512-px photo, where IoU measures rounding.
    min_area: int = 32
    # Measure at most this many objects of a photo, drawn with the seed.
    per_photo: int | None = None
    seed: int = 0  # Decides every random choice; the same seed gives the same items
    # Where to click: farthest from the border (the paper's main protocol), or anywhere in the mask
    # or the error region.
    sampling: Literal["centre", "random"] = "centre"

    def shown(self) -> tuple[int, ...]:
        """The numbers of clicks that have a column."""
        return tuple(clicks for clicks in self.columns if clicks <= self.clicks)

    def is_settled(self, curve: Sequence[float]) -> bool:
        """Whether further clicks change no figure: columns are full, levels were reached."""
        return len(curve) >= max(self.shown()) and max(curve) >= max(self.levels)


@dataclass(frozen=True)
class ClickRun:
    """IoU after 1, 2, ... clicks, the best of the three masks at the first, and the clicks."""

    curve: list[float]
    oracle: float
    clicks: list[Click]


@dataclass(frozen=True, kw_only=True)
class PointItem:
    """The figures of one object; `iou` after 1, 2, ... clicks, as many as were needed."""

    image_id: str
    object: int
    label: str
    area: int
    iou: list[float]
    oracle: float
    noc: dict[str, int]
    box: float
    box_boundary: float  # boundary IoU of the box's mask
    group: str = ""


def click_object(
    view: Any,
    truth: Mask,
    *,
    void: Mask | None = None,
    config: ClickConfig,
    rng: np.random.Generator | None = None,
) -> ClickRun | None:
    """Click one object (H, W) of an open photo, of which only `predict` is used.

    Pixels of the void count neither as error nor for the IoU; None if nothing of the truth lies
    outside it.
    """
    if rng is None:
        rng = np.random.default_rng(config.seed)
    mask, oracle = np.zeros_like(truth), 0.0
    previous: Any = None
    index = 0
    curve: list[float] = []
    clicks: list[Click] = []
    while len(curve) < config.clicks and not (curve and config.is_settled(curve)):
        if config.sampling == "random":
            click = random_click(mask, truth, rng, void=void)
        else:
            click = next_click(mask, truth, void=void, clicked=clicks)
        if click is None:
            break
        clicks.append(click)
        # All clicks so far, and the logits of the mask that counted after the last one.
        prediction = _predict(view, clicks, previous=previous, reading=index)
        masks, index = prediction.logits > 0, 0
        if len(clicks) == 1:  # ambiguous: of masks 1 to 3 the one with the highest predicted IoU
            index = 1 + int(np.argmax(prediction.iou[1:]))
            oracle = max(masked_iou(m, truth, exclude=void) for m in masks[1:])
        mask, previous = masks[index], prediction
        curve.append(masked_iou(mask, truth, exclude=void))
    return ClickRun(curve, oracle, clicks) if curve else None


def measure_clicks(
    model: Any, data: DataSet, *, config: ClickConfig, gallery: Gallery | None = None
) -> dict[str, Any]:
    """Measure one file.

    Returns:
        `photos`, `objects`, `skipped`, `means` (None where nothing was measured), `intervals` (of
        each mean but the failures: 95%, over photos), `seconds_per_photo` (decoding, encoding and
        all prompts of a photo) and `items`.
    """
    items: list[PointItem] = []
    skipped = {"ignore": 0, "small": 0, "void": 0, "over the cap": 0}
    opened, seconds = 0, 0.0
    for sample in progress(data.samples, data.name):
        started = time.perf_counter()
        objects = _objects_to_click(sample, skipped, config=config)
        if objects:
            opened += 1
            with model.open(sample.image()) as view:
                measured = [_measure_object(view, sample, *o, config, gallery) for o in objects]
            items += [item for item in measured if item is not None]
            skipped["void"] += measured.count(None)
        seconds += time.perf_counter() - started
    figures = _figures(config)
    means = {name: mean(of(item) for item in items) for name, of in figures.items()}
    for level in config.levels:
        # Share of the objects that never reached the level.
        means[f"noc failed@{level:.2f}"] = mean(max(item.iou) < level for item in items)
    intervals: dict[str, Interval] = {}
    if items:
        for name, of in figures.items():
            intervals[name] = mean_interval(item_scores(items, of), seed=config.seed)
    return {
        "photos": len(data.samples),
        "objects": len(items),
        "skipped": skipped,
        "means": means,
        "intervals": intervals,
        "seconds_per_photo": seconds / opened if opened else None,
        "items": items,
    }


def item_scores(items: Sequence[PointItem], figure: Callable[[PointItem], float]) -> list[Score]:
    """A figure of each object, for intervals over photos."""
    return [Score(photo=i.image_id, object=str(i.object), value=figure(i)) for i in items]


def _measure_object(
    view: Any,
    sample: Sample,
    index: int,
    o: ObjectMask,
    truth: Mask,
    config: ClickConfig,
    gallery: Gallery | None,
) -> PointItem | None:
    """Click and box an object (H, W) of an open photo; None if it is wholly void."""
    void = sample.void_mask()
    # For each object its own draws, so that `--per-photo` does not change the others.
    rng = seeded_rng(config.seed, f"{sample.image_id} {index}")
    run = click_object(view, truth, void=void, config=config, rng=rng)
    if run is None:
        return None
    if gallery is not None:
        first = run.clicks[0]
        answer = _predict(view, [first])
        mask = answer.logits[1 + int(np.argmax(answer.iou[1:]))] > 0
        place = (first.x, first.y)
        gallery.add(MaskCase.of(run.curve[0], sample, mask, truth, o.label, [place]))
    # The box of the whole mask, void included: it is what an annotator would draw.
    box = view.predict(box=mask_to_box(truth).astype(np.float32)).logits[0] > 0
    return PointItem(
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
        box_boundary=boundary_iou(box, truth, exclude=void),
        group=o.group,
    )


def _predict(view: Any, clicks: Sequence[Click], **previous: Any) -> Any:
    return view.predict(
        points=np.array([[c.x, c.y] for c in clicks], dtype=np.float32),
        labels=np.array([c.foreground for c in clicks], dtype=np.int64),
        **previous,
    )


def _objects_to_click(
    sample: Sample, skipped: dict[str, int], *, config: ClickConfig
) -> list[tuple[int, ObjectMask, Mask]]:
    """Index, object and mask (H, W) of what is clicked; the others are counted by reason."""
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


def _figures(config: ClickConfig) -> dict[str, Callable[[PointItem], float]]:
    """What is measured of an object, by its name in the tables."""
    figures: dict[str, Callable[[PointItem], float]] = {
        f"iou@{n}": lambda item, n=n: iou_after(item.iou, n)  # type: ignore[misc]
        for n in config.shown()
    }
    figures["oracle@1"] = lambda item: item.oracle
    for level in config.levels:
        key = f"{level:.2f}"
        figures[f"noc@{key}"] = lambda item, key=key: item.noc[key]  # type: ignore[misc]
    figures["box"] = lambda item: item.box
    figures["box boundary"] = lambda item: item.box_boundary
    return figures
