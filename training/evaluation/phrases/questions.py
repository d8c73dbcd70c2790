"""What a photo is asked: the phrases that it has, a wrong one for each, and absent ones.

A phrase is a label of the file's annotators. Absent phrases are drawn from all labels of the file,
since only there "not labelled" means "not there"; half of them are SIBLINGS, the names that the
model's own CLIP text tower puts nearest to a phrase of the photo: where it has a left wing mirror
and no headlight, "headlight" is the hard question and "bird" is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textsam.values.rle import RLE, decode_rle, merge_rles

from ...data import Sample
from ..data_sets import seeded_rng

Mask = NDArray[np.bool_]

# Labels that stand for "the thing that was annotated" and say nothing: GrabCut's only one, and the
# empty one of SA-1B.
NAMELESS = frozenset({"object", ""})


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """A label that a photo has."""

    label: str  # the phrase
    rles: tuple[RLE, ...]  # its objects that are not `ignore`, one by one
    single: bool  # whether there is exactly one, and no `ignore` object of this label beside it
    truth: Mask  # (H, W) bool, union of its objects
    # (H, W) bool, pixels without a truth for this label: the void, and its own `ignore` objects.
    ignored: Mask
    wrong: str | None  # A label that the photo does not have; None if the file has none


@dataclass(frozen=True, kw_only=True)
class AbsentPhrase:
    """A label that a photo does not have; `sibling` if it was drawn as a hard one."""

    label: str
    sibling: bool


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What one photo is asked."""

    phrases: tuple[Phrase, ...]  # what it has
    absent: tuple[AbsentPhrase, ...] = ()  # the drawn phrases that it does not have
    rest: tuple[str, ...] = ()  # further absent labels, for AP and AUROC

    @property
    def any(self) -> bool:
        """Whether there is anything to ask."""
        return bool(self.phrases or self.absent)


class Siblings:
    """Which labels of a file are nearest to each other in the model's CLIP text space (n, n)."""

    def __init__(self, labels: Iterable[str], similarity: NDArray[np.float32]) -> None:
        self.labels = tuple(labels)
        self.similarity = similarity
        self._place = {label: index for index, label in enumerate(self.labels)}
        if similarity.shape != (len(self.labels),) * 2:
            raise ValueError(
                f"got similarities {similarity.shape} of {len(self.labels)} labels; wanted one for "
                "each pair"
            )

    @classmethod
    def from_clip(cls, clip: Any, labels: Iterable[str]) -> Siblings:
        """By the text embeddings of a `ClipEncoder`."""
        names = [label for label in labels if label not in NAMELESS]
        if not names:
            return cls((), np.zeros((0, 0), np.float32))
        embeddings = clip.encode_text(names).float().cpu().numpy()
        return cls(names, embeddings @ embeddings.T)

    def nearest(self, phrases: Iterable[str], among: Iterable[str]) -> list[str]:
        """Labels by falling similarity to the nearest of some phrases; unknown ones last."""
        rows = [self._place[phrase] for phrase in phrases if phrase in self._place]
        known = [label for label in sorted(among) if label in self._place]
        if not rows or not known:
            return sorted(among)
        columns = [self._place[label] for label in known]
        closeness = self.similarity[np.ix_(rows, columns)].max(axis=0)
        order = np.argsort(-closeness, kind="stable")
        ranked = [known[index] for index in order]
        return ranked + [label for label in sorted(among) if label not in self._place]


def ignored_pixels(sample: Sample, label: str | None = None) -> Mask:
    """Pixels without a truth, (H, W): the void, and `ignore` objects (crowds, say)."""
    own = [o.rle for o in sample.objects if o.ignore and label in (None, o.label)]
    return sample.void_mask() | decode_rle(merge_rles(own, sample.size))


def absent_labels(sample: Sample, vocabulary: Iterable[str]) -> list[str]:
    """Labels that the photo does not have, not even as `ignore`."""
    return sorted(set(vocabulary) - {o.label for o in sample.objects} - NAMELESS)


def draw_wrong(
    right: Sequence[str], absent: Iterable[str], rng: np.random.Generator
) -> dict[str, str | None]:
    """A wrong phrase for each right one, all different as long as there are enough."""
    pool = sorted(absent)
    if not pool:
        return dict.fromkeys(right)
    order = rng.permutation(len(pool))
    return {label: pool[order[i % len(pool)]] for i, label in enumerate(right)}


def present_phrases(
    sample: Sample, vocabulary: Iterable[str], skipped: dict[str, int], *, seed: int
) -> list[Phrase]:
    """The phrases that a photo has, in the order of its objects.

    A label with `ignore` objects only is neither present nor absent. In a photo that is not
    exhaustive only single objects are asked for: the rest of the phrase may be unlabelled.
    """
    rles: dict[str, list[RLE]] = {}
    for o in sample.objects:
        if o.label in NAMELESS:
            skipped["objects without a name"] += 1
        elif not o.ignore:
            rles.setdefault(o.label, []).append(o.rle)
    crowded = {o.label for o in sample.objects if o.ignore}
    anything_ignored = ignored_pixels(sample)
    # A wrong phrase may not be there at all, not even as `ignore`.
    absent = absent_labels(sample, vocabulary)
    wrong = draw_wrong(list(rles), absent, seeded_rng(seed, sample.image_id))
    phrases = []
    for label, own in rles.items():
        truth = decode_rle(merge_rles(own, sample.size))
        single = len(own) == 1 and label not in crowded
        if not (truth & ~anything_ignored).any():
            skipped["phrases wholly void"] += 1
        elif not (single or sample.exhaustive):
            skipped["phrases not single"] += 1
        else:
            phrases.append(
                Phrase(
                    label=label,
                    rles=tuple(own),
                    single=single,
                    truth=truth,
                    ignored=ignored_pixels(sample, label),
                    wrong=wrong[label],
                )
            )
    return phrases


def draw_absent(
    sample: Sample, vocabulary: Iterable[str], siblings: Siblings | None, *, count: int, seed: int
) -> list[AbsentPhrase]:
    """Absent phrases of a photo: half siblings of what it has, the others at random."""
    pool = absent_labels(sample, vocabulary)
    present = {o.label for o in sample.objects if not o.ignore}
    hard: list[str] = []
    if siblings is not None and present:
        hard = siblings.nearest(present, pool)[: count // 2]
    easy = [label for label in pool if label not in hard]
    # Another key than that of the wrong phrases: the two draws are independent.
    order = seeded_rng(seed, f"{sample.image_id}/absent").permutation(len(easy))
    others = [easy[index] for index in order[: count - len(hard)]]
    return [AbsentPhrase(label=label, sibling=True) for label in hard] + [
        AbsentPhrase(label=label, sibling=False) for label in others
    ]


def questions_of(
    sample: Sample,
    vocabulary: Sequence[str],
    siblings: Siblings | None,
    skipped: dict[str, int],
    *,
    absent: int,
    seed: int,
) -> Questions:
    """Everything that a photo is asked; absent phrases only where it is exhaustive."""
    phrases = tuple(present_phrases(sample, vocabulary, skipped, seed=seed))
    if not (absent and sample.exhaustive):
        return Questions(phrases=phrases)
    drawn = tuple(draw_absent(sample, vocabulary, siblings, count=absent, seed=seed))
    # AP and AUROC ask every label once, so the drawn ones are not asked again.
    known = {item.label for item in drawn}
    rest = [label for label in absent_labels(sample, vocabulary) if label not in known]
    return Questions(phrases=phrases, absent=drawn, rest=tuple(rest))
