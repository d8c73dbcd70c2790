"""Objects of other photos in place of a phrase: how `segment(like=...)` is measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from textsam.errors import ImageError
from textsam.results.segmentation import Segmentation
from textsam.values.rle import rle_area

from ...data.sample import ObjectMask, Sample
from ..data_sets import seeded_rng
from .questions import NAMELESS, Questions, Siblings

# An example is no speck: its side is at least this share of the root of the photo's area.
_MIN_SIDE = 0.1
_MAX_PHOTOS = 8  # that are tried for an example of a label


class Examples:
    """For each label objects of other photos, one of each, as the model embeds them.

    `positives` of the label, and `negatives` of the labels that the model's CLIP puts nearest to it
    (`siblings`), one each; fewer where the photos do not have them.
    """

    def __init__(
        self,
        model: Any,
        samples: Sequence[Sample],
        *,
        seed: int,
        positives: int = 1,
        negatives: int = 0,
        siblings: Siblings | None = None,
    ) -> None:
        self.model = model
        self.samples = samples
        self.seed = seed
        self.positives = positives
        self.negatives = negatives
        self.siblings = siblings
        self._rows: dict[str, list[int]] = {}
        for row, sample in enumerate(samples):
            # Rows only: photos are decoded and embedded when an example of them is needed.
            for label in {o.label for o in sample.objects if _is_clear(o, sample)} - NAMELESS:
                self._rows.setdefault(label, []).append(row)
        self._cut: dict[tuple[str, int], Any] = {}
        self._concepts: dict[tuple[tuple[str, int], ...], Any] = {}

    def concept(self, label: str, *, besides: str) -> Any:
        """A concept of the label; None if no photo but `besides` has a clear one."""
        like = self._rows_of(label, self.positives, besides=besides)
        if not like:
            return None
        unlike: list[tuple[str, int]] = []
        if self.negatives:
            assert self.siblings is not None
            for other in self.siblings.nearest([label], set(self._rows) - {label}):
                if len(unlike) < self.negatives:
                    unlike += self._rows_of(other, 1, besides=besides)
        key = (*like, ("", -1), *unlike)
        if key not in self._concepts:
            self._concepts[key] = self.model.concept(
                [self._example(*each) for each in like],
                [self._example(*each) for each in unlike] or None,
            )
        return self._concepts[key]

    def _rows_of(self, label: str, count: int, *, besides: str) -> list[tuple[str, int]]:
        """Up to `count` photos with a clear object of the label, which can be read."""
        rows = self._rows.get(label, [])
        found: list[tuple[str, int]] = []
        for index in seeded_rng(self.seed, label).permutation(len(rows))[:_MAX_PHOTOS]:
            row = rows[index]
            other = self.samples[row].image_id != besides
            if len(found) < count and other and self._example(label, row) is not None:
                found.append((label, row))
        return found

    def answerable(self, questions: Questions, *, besides: str) -> Questions:
        """Those of a photo's questions that there is an example for."""

        def known(labels: Iterable[str]) -> set[str]:
            return {label for label in labels if self.concept(label, besides=besides) is not None}

        phrases = known(phrase.label for phrase in questions.phrases)
        absent = known(item.label for item in questions.absent)
        return replace(
            questions,
            phrases=tuple(p for p in questions.phrases if p.label in phrases),
            absent=tuple(a for a in questions.absent if a.label in absent),
            rest=(),
        )

    def segment(self, view: Any, *, text: str, image_id: str, **options: Any) -> Segmentation:
        """Masks in an open photo of what the label's example shows; see `StrategyView`."""
        concept = self.concept(text, besides=image_id)
        if concept is None:
            raise ValueError(f"no photo but {image_id} has a clear {text!r}")
        options.pop("strategy", None)  # an example has only one way to be searched for
        masks: Segmentation = view.segment(like=concept, **options)
        return masks

    def _example(self, label: str, row: int) -> Any:
        """One clear object of the photo, drawn with its id; None if the photo cannot be read."""
        if (label, row) not in self._cut:
            self._cut[label, row] = self._cut_out(label, self.samples[row])
        return self._cut[label, row]

    def _cut_out(self, label: str, sample: Sample) -> Any:
        try:
            image = sample.image()
        except ImageError:
            return None
        clear = [o for o in sample.objects if o.label == label and _is_clear(o, sample)]
        place = int(seeded_rng(self.seed, sample.image_id).integers(len(clear)))
        return Segmentation(sample.size, [clear[place].rle], labels=[label], image=image)


def _is_clear(item: ObjectMask, sample: Sample) -> bool:
    height, width = sample.size
    return not item.ignore and rle_area(item.rle) >= _MIN_SIDE**2 * height * width
