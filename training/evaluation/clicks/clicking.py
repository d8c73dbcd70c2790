"""Clicking objects by the paper's protocol: what `points`, `interactive`, `fairness` share.

The centre protocol (arXiv 2304.02643, Section 7.1 and Appendix D.1): click the pixel farthest from
the mask's boundary, then the one farthest from the boundary of the error region of the last
prediction, whose logits are fed back. One click is ambiguous, so of the three readings the one with
the highest predicted IoU counts ("oracle": the best of them); later the single mask does. The
random variant clicks anywhere in the mask, and then anywhere in the error region (Appendix A).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from textsam.values.geometry import mask_to_box
from textsam.values.rle import decode_rle

from ...data import ObjectMask, Sample
from ..figures.bootstrap import Interval, Score, mean_interval
from ..figures.sheet import Gallery
from ..table import DataSet, progress
from .protocol import (
    Click,
    clicks_needed,
    iou_after,
    masked_iou,
    mean,
    next_click,
    random_click,
    seeded_rng,
)

__all__ = [
    "ClickConfig",
    "ClickRun",
    "PointItem",
    "Sampling",
    "click_object",
    "item_interval",
    "measure_set",
]

Sampling = Literal["centre", "random"]

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
    sampling: Sampling = "centre"

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
    group: str = ""


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
    view: PromptedView,
    truth: Mask,
    *,
    void: Mask | None = None,
    config: ClickConfig,
    rng: np.random.Generator | None = None,
) -> ClickRun | None:
    """Click one object until the figures are known.

    Args:
        view: An open photo.
        truth: (H, W) bool.
        void: (H, W) bool, pixels that count neither as error nor for the IoU.
        config: How many clicks at most, and what is wanted of them.
        rng: Draws random clicks; a fresh one of the config's seed by default.

    Returns:
        The IoUs, or None if nothing of the truth lies outside the void.
    """
    if rng is None:
        rng = np.random.default_rng(config.seed)
    mask, oracle = np.zeros_like(truth), 0.0
    previous: Prediction | None = None
    chosen = 0
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
        `intervals` (mean, low, high and objects of each mean but the failures: 95%, over photos),
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
        "intervals": {
            name: list(item_interval(tally.items, of, seed=config.seed))
            for name, of in _figures(config).items()
        }
        if tally.items
        else None,
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
            rng = seeded_rng(config.seed, f"{sample.image_id} {index}")
            run = click_object(view, truth, void=void, config=config, rng=rng)
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
                    group=o.group,
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
    return figures


def item_interval(
    items: Sequence[PointItem], figure: Callable[[PointItem], float], *, seed: int = 0
) -> Interval:
    """Mean of a figure over objects, with its 95% interval over photos.

    Raises:
        ValueError: There is no object.
    """
    scores = [
        Score(photo=item.image_id, object=str(item.object), value=figure(item)) for item in items
    ]
    return mean_interval(scores, seed=seed)


def _means(items: Sequence[PointItem], config: ClickConfig) -> dict[str, float | None]:
    """Means over objects; `noc failed` is the share that never reached the level."""
    means = {name: mean(of(item) for item in items) for name, of in _figures(config).items()}
    for level in config.levels:
        means[f"noc failed@{level:.2f}"] = mean(max(item.iou) < level for item in items)
    return means
