"""What is measured of the default strategy beside its instances: the parts of `evaluation.text`.

`UnionTally` the union of a phrase's masks and single objects · `ClickTally` one corrective click ·
`ExclusionTally` what `exclude=` takes away · `MapTally` semantic maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textsam.values.rle import decode_rle

from ...data import Sample
from ..clicks.simulated_clicks import next_click
from ..figures.case_sheets import Gallery, MaskCase
from ..figures.intervals import mean, ratio_interval
from ..figures.matching import masked_iou
from .asking import StrategyView
from .questions import NAMELESS, Phrase, Questions, Siblings, ignored_pixels

Mask = NDArray[np.bool_]

_GOOD = 0.7  # from this IoU on an object needs no click


@dataclass(frozen=True, kw_only=True)
class TextItem:
    """The figures of one phrase in one photo; None where something was not asked.

    `union`, `union_wrong`, `found` and `found_wrong` are of strategy "auto" (found: whether it
    painted a pixel), `top`, `best` and `top_wrong` of strategy "prompt".
    """

    image_id: str
    label: str
    wrong: str | None
    exhaustive: bool
    instances: int
    single: bool
    whole: float
    union: float
    found: bool
    union_wrong: float | None
    found_wrong: bool | None
    top: float | None
    best: float | None
    top_wrong: float | None


class UnionTally:
    """The union of a phrase's masks, and single objects; each beside a wrong phrase.

    The union of all masks of the default strategy is compared with the union of all objects of that
    name. Where exactly one object bears the name and with `prompt`, strategy "prompt" (the paper's
    way, arXiv 2304.02643, Section 7.5) is measured on it: its first mask, and the best of its
    three. Both are repeated with a WRONG phrase, a label of the file that this photo does not have,
    against the RIGHT phrase's truth: a model that does not listen scores the same. The whole image
    as an answer is the floor.
    """

    def __init__(self, *, prompt: bool) -> None:
        self.prompt = prompt
        self.items: list[TextItem] = []

    def add_photo(self, view: StrategyView, sample: Sample, phrases: Sequence[Phrase]) -> None:
        """Measure the phrases of a photo."""
        # Crowds of every label: the wrong phrase is measured against the same pixels.
        exclude = ignored_pixels(sample)
        for phrase in phrases:
            self.items.append(self._measure(view, phrase, sample, exclude))

    def _measure(
        self, view: StrategyView, phrase: Phrase, sample: Sample, exclude: Mask
    ) -> TextItem:
        def iou(mask: Mask) -> float:
            return masked_iou(mask, phrase.truth, exclude=exclude)

        def prompt_ious(text: str | None) -> list[float | None]:
            """IoU of each mask of strategy "prompt"; of no mask 0, and None without a question."""
            if text is None or not (self.prompt and phrase.single):
                return [None]
            answer = view.view.segment(text=text, strategy="prompt")
            return [iou(decode_rle(rle)) for rle in answer.rles] or [0.0]

        right = view.ask(phrase.label)
        wrong = None if phrase.wrong is None else view.ask(phrase.wrong)
        ious = prompt_ious(phrase.label)
        return TextItem(
            image_id=sample.image_id,
            label=phrase.label,
            wrong=phrase.wrong,
            exhaustive=sample.exhaustive,
            instances=len(phrase.rles),
            single=phrase.single,
            whole=iou(np.ones_like(phrase.truth)),
            union=iou(right.union),
            found=right.answered,
            union_wrong=None if wrong is None else iou(wrong.union),
            found_wrong=None if wrong is None else wrong.answered,
            top=ious[0],
            best=max((value for value in ious if value is not None), default=None),
            top_wrong=prompt_ious(phrase.wrong)[0],
        )

    def figures(self) -> dict[str, Any]:
        """Means of phrases (of exhaustive photos), of single objects; and `items`."""
        every = [item for item in self.items if item.exhaustive]
        wrong = [None if i.found_wrong is None else not i.found_wrong for i in every]
        single = [item for item in self.items if item.single]
        return {
            "means": {
                **_item_means(every, ("union", "union_wrong", "whole")),
                "phrases": len(every),
                "absent_empty": mean(wrong),
            },
            "single": {
                origin: {
                    **_item_means(
                        items, ("top", "best", "top_wrong", "union", "union_wrong", "whole")
                    ),
                    "objects": len(items),
                }
                for origin, items in (
                    ("not exhaustive", [i for i in single if not i.exhaustive]),
                    ("exhaustive", [i for i in single if i.exhaustive]),
                )
            },
            "items": self.items,
        }


def _item_means(items: Sequence[TextItem], keys: Sequence[str]) -> dict[str, Any]:
    means = {key: mean(getattr(item, key) for item in items) for key in keys}
    return means | {"present_answered": mean(i.found for i in items)}


def correct_once(view: Any, phrase: Phrase, sample: Sample) -> tuple[dict[str, Any], Mask]:
    """Ask for a single object by name, and click once if its mask is below IoU .7.

    Of the masks of the answer, the one that overlaps the object most is the one that a person would
    go on with (an empty mask, if there is none). The click is given by `next_click`, at the pixel
    farthest from the border of its error, through `view.click`, which keeps the phrase.

    Returns:
        `image_id`, `label`, `found` (whether the text gave a mask at all), `before`, `after` (IoU),
        `foreground` (of the click; None if none was due), and the last mask (H, W).
    """
    answer = view.segment(text=phrase.label, strategy="auto")
    masks = [decode_rle(rle) for rle in answer.rles]
    overlaps = [masked_iou(mask, phrase.truth, exclude=phrase.ignored) for mask in masks]
    # The best mask, not the first: a person would continue with that one.
    before = after = max(overlaps, default=0.0)
    mask = masks[int(np.argmax(overlaps))] if masks else np.zeros_like(phrase.truth)
    click = None
    if before < _GOOD:
        click = next_click(mask, phrase.truth, void=phrase.ignored)
    if click is not None:
        mask = view.click(click.x, click.y, foreground=click.foreground).mask
        after = masked_iou(mask, phrase.truth, exclude=phrase.ignored)
    item = {
        "image_id": sample.image_id,
        "label": phrase.label,
        "found": bool(masks),
        "before": before,
        "after": after,
        "foreground": None if click is None else click.foreground,
    }
    return item, mask


class ClickTally:
    """One click on each single object; `gallery` takes those that the click helped least."""

    def __init__(self, *, gallery: Gallery | None = None) -> None:
        self.items: list[dict[str, Any]] = []  # see `correct_once`
        self.gallery = gallery

    def add_photo(self, view: Any, sample: Sample, phrases: Sequence[Phrase]) -> None:
        """Measure the single objects of a photo."""
        for phrase in phrases:
            if phrase.single:
                item, mask = correct_once(view, phrase, sample)
                self.items.append(item)
                if self.gallery is not None and item["foreground"] is not None:
                    gain = item["after"] - item["before"]
                    self.gallery.add(MaskCase.of(gain, sample, mask, phrase.truth, phrase.label))

    def figures(self, *, seed: int) -> dict[str, Any]:
        """Means over single objects.

        Returns:
            `objects`, `good` (share at .7 or better by text alone), `clicked` (number below),
            `before`, `after`, `gain` and `gain_interval` over those that were clicked; `found`,
            `gain_found`: how many of them had a mask to correct, and their gain; `items`. None
            where there is none.
        """
        clicked = [item for item in self.items if item["foreground"] is not None]
        gains = [(item["image_id"], item["after"] - item["before"], 1) for item in clicked]
        found = [item["found"] for item in clicked]
        return {
            "objects": len(self.items),
            "good": mean(item["before"] >= _GOOD for item in self.items),
            "clicked": len(clicked),
            "before": mean(item["before"] for item in clicked),
            "after": mean(item["after"] for item in clicked),
            "gain": mean(gain for _, gain, _ in gains),
            "gain_interval": ratio_interval(gains, seed=seed),
            "found": sum(found),
            "gain_found": mean(
                gain for (_, gain, _), there in zip(gains, found, strict=True) if there
            ),
            "items": self.items,
        }


class ExclusionTally:
    """A phrase with an exclusion: what `exclude=` takes away, of wrong pixels and of right ones.

    What a person does is measured: a phrase is asked, its answer spills over other things, and the
    thing that it spills over most, a label that the photo has, is asked again as `exclude`. Where
    it spills over nothing the present label nearest in CLIP's text space is excluded all the same:
    that must cost no right pixel. Asked are the phrases of exhaustive photos and their absent
    siblings, of which every pixel is wrong. Pixels without a truth count nowhere.
    """

    def __init__(self, siblings: Siblings | None) -> None:
        self.siblings = siblings
        # `image_id`, `label`, `excluded`, `present`, and painted pixels `_before` and `_after` the
        # exclusion: `spilled` lie on the excluded label's truth and not on the phrase's own,
        # `wrong` anywhere off the phrase's own truth, `right` on it.
        self.items: list[dict[str, Any]] = []

    def add_photo(self, view: StrategyView, sample: Sample, questions: Questions) -> None:
        """Measure the phrases of an exhaustive photo, and its absent siblings."""
        nothing = np.zeros(sample.size, dtype=bool)
        asked = [(p.label, p.truth & ~p.ignored, ~p.ignored) for p in questions.phrases]
        counted = ~sample.void_mask()
        asked += [(item.label, nothing, counted) for item in questions.absent if item.sibling]
        for label, truth, counted in asked:
            others = [p for p in questions.phrases if p.label != label]
            # The view keeps its answers: other figures ask for the same phrase.
            before = view.ask(label).union & counted
            if not others or not before.any():
                continue
            excluded = self._phrase_to_exclude(label, before & ~truth, others)
            after = view.view.segment(text=label, exclude=excluded.label).mask & counted
            regions = {"spilled": excluded.truth & ~truth, "wrong": ~truth, "right": truth}
            counts = {
                f"{name}_{when}": int(np.count_nonzero(mask & region))
                for name, region in regions.items()
                for when, mask in (("before", before), ("after", after))
            }
            item = {"image_id": sample.image_id, "label": label, "excluded": excluded.label}
            self.items.append(item | {"present": bool(truth.any())} | counts)

    def _phrase_to_exclude(self, label: str, wrong: Mask, others: Sequence[Phrase]) -> Phrase:
        """The label that was painted over most; of none, the nearest in meaning."""
        spills = [int(np.count_nonzero(wrong & phrase.truth)) for phrase in others]
        if any(spills) or self.siblings is None:
            return others[int(np.argmax(spills))]
        nearest = self.siblings.nearest([label], [phrase.label for phrase in others])[0]
        return next(phrase for phrase in others if phrase.label == nearest)

    def figures(self, *, seed: int) -> dict[str, Any]:
        """Shares of pixels, over all phrases together.

        Returns:
            `phrases`; `spilling`, how many painted the excluded thing; `spilled_removed` (of the
            pixels on the excluded thing), `wrong_removed` (of all wrong pixels), `right_lost`, and
            the same with `_interval`; `items`. None without such pixels.
        """
        spilling = sum(item["spilled_before"] > 0 for item in self.items)
        means: dict[str, Any] = {"phrases": len(self.items), "spilling": spilling}
        for key in ("spilled_removed", "wrong_removed", "right_lost"):
            name = key.partition("_")[0]
            rows = [
                (i["image_id"], i[f"{name}_before"] - i[f"{name}_after"], i[f"{name}_before"])
                for i in self.items
            ]
            total = sum(before for *_, before in rows)
            means[key] = sum(change for _, change, _ in rows) / total if total else None
            means[f"{key}_interval"] = ratio_interval(rows, seed=seed)
        return means | {"items": self.items}


class Confusion:
    """Pixels by true label and painted label; 0 is nothing, labels count from 1."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self.counts = np.zeros((len(labels) + 1,) * 2, dtype=np.int64)

    def add(self, truth: NDArray[np.int64], painted: NDArray[np.int64], counted: Mask) -> None:
        """Add a photo: two maps (H, W) of label numbers, and which pixels count."""
        size = len(self.counts)
        # One number for each (true, painted) pair, counted in one pass.
        pairs = truth[counted] * size + painted[counted]
        self.counts += np.bincount(pairs, minlength=size * size).reshape(size, size)

    def figures(self) -> dict[str, Any]:
        """`miou` over labels that some photo has, `nothing` (its IoU), `accuracy`, `labels`."""
        hits = np.diag(self.counts)
        there = self.counts.sum(axis=1)
        union = there + self.counts.sum(axis=0) - hits
        iou = hits / np.maximum(union, 1)
        # As VOC and ADE20K: a label that no photo has counts nowhere, even where it is painted.
        known = [index for index in range(1, len(iou)) if there[index]]
        total = int(self.counts.sum())
        return {
            "miou": float(np.mean(iou[known])) if known else None,
            "nothing": float(iou[0]) if union[0] else None,
            "accuracy": float(hits.sum() / total) if total else None,
            "labels": {self.labels[index - 1]: float(iou[index]) for index in known},
        }


class MapTally:
    """Semantic maps: mIoU of `view.label_map(phrases)` over a set.

    As PASCAL VOC and ADE20K do it: intersections and unions of each label are summed over all
    photos of the set, and the mean over labels is taken of their ratios. Asked twice: with every
    label of the file, as those sets do, and with the labels only that the photo has, which shows
    the borders alone. "Nothing" is no label; its own IoU is reported beside the mean. Pixels with
    two labels count nowhere.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = [label for label in labels if label not in NAMELESS]
        self.photos = 0
        self._confusions = {"all": Confusion(self.labels), "present": Confusion(self.labels)}
        self._numbers = {label: index for index, label in enumerate(self.labels, start=1)}

    def add_photo(self, view: Any, sample: Sample, phrases: Sequence[Phrase]) -> None:
        """Ask an exhaustive photo for both maps."""
        if not phrases:
            return
        self.photos += 1
        truth, counted = truth_map(sample, phrases, self._numbers)
        asked = {"all": self.labels, "present": [phrase.label for phrase in phrases]}
        for key, labels in asked.items():
            painted = np.asarray(view.label_map(labels).labels)
            # The map numbers the labels in the order of the question; the table in the file's.
            numbers = np.array([0, *(self._numbers[label] for label in labels)], dtype=np.int64)
            self._confusions[key].add(truth, numbers[painted], counted)

    def figures(self) -> dict[str, Any]:
        """`photos`, and `Confusion.figures` as `all` and `present`."""
        figures = {key: confusion.figures() for key, confusion in self._confusions.items()}
        return {"photos": self.photos, **figures}


def truth_map(
    sample: Sample, phrases: Sequence[Phrase], numbers: dict[str, int]
) -> tuple[NDArray[np.int64], Mask]:
    """Label numbers (H, W) of what a photo has, and which pixels have one truth at most."""
    truth = np.zeros(sample.size, dtype=np.int64)
    layers = np.zeros(sample.size, dtype=np.int64)
    for phrase in phrases:
        truth[phrase.truth] = numbers[phrase.label]
        layers += phrase.truth
    return truth, (layers <= 1) & ~ignored_pixels(sample)
