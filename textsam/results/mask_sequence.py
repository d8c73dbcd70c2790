"""An immutable sequence of the masks of one image; `Segmentation` adds pictures and files to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, Literal, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from textsam.pictures.draw import check_photo
from textsam.results.columns import (
    Columns,
    MaskResult,
    as_array,
    frozen,
    join_columns,
    make_columns,
    merge_labels,
    positions,
)
from textsam.values.candidates import PhraseAnswer
from textsam.values.rle import (
    RLE,
    decode_rle,
    decode_rles,
    encode_masks,
    merge_rles,
    rle_areas,
    rle_boxes,
)

__all__ = ["MaskSequence"]


class MaskSequence(Sequence[MaskResult]):
    """An immutable sequence of the masks of one image.

    Index by position (one `MaskResult`), by slice, bool array, integer array or label (a
    result again). An empty result has the same attributes with K = 0. What is chosen from a result
    keeps its photo and its answers.
    """

    __slots__ = ("_answers", "_cache", "_columns", "_image")

    def __init__(
        self,
        size: tuple[int, int],
        rles: Iterable[RLE],
        *,
        scores: ArrayLike | None = None,
        iou: ArrayLike | None = None,
        stability: ArrayLike | None = None,
        labels: Sequence[str | None] | None = None,
        presence: Mapping[str, float] | None = None,
        image: NDArray[np.uint8] | None = None,
        answers: Iterable[PhraseAnswer] = (),
    ) -> None:
        """Collect K masks.

        Args:
            size: (H, W) of the image, original pixels.
            rles: K masks of that size.
            scores: (K,) numbers; None for unknown. So are the next two.
            iou: (K,).
            stability: (K,).
            labels: K phrases or None; None for no labels at all.
            presence: Probability, 0 to 1, that each phrase that was asked for is in the image,
                those without a mask included.
            image: (H, W, 3) uint8 RGB that the masks belong to, if pictures shall be drawn without
                naming it again. Referred to, not copied.
            answers: What became of each phrase, for `explain`.

        Raises:
            ValueError: Sizes or lengths that do not fit, infinite numbers, labels that are no text,
                a presence outside 0 to 1, answers about another image.
        """
        self._columns = make_columns(
            size,
            rles,
            scores=scores,
            iou=iou,
            stability=stability,
            labels=labels,
            presence=presence,
        )
        self._image = None if image is None else _checked_image(image, self.size)
        self._answers = _checked_answers(answers, self.size)
        self._cache: dict[str, Any] = {}

    @classmethod
    def _of(
        cls,
        columns: Columns,
        image: NDArray[np.uint8] | None,
        answers: tuple[PhraseAnswer, ...] = (),
    ) -> Self:
        """Wrap columns and answers that were checked before."""
        for array in (columns.scores, columns.iou, columns.stability):
            frozen(array)  # unpickled arrays are writable
        result = cls.__new__(cls)
        result._columns = columns
        result._image = None if image is None else _checked_image(image, columns.size)
        result._answers = answers
        result._cache = {}
        return result

    @classmethod
    def from_masks(cls, masks: ArrayLike, **columns: Any) -> Self:
        """Make a result of bool masks (K, H, W); the keywords are those of the class."""
        array = as_array(masks)
        rles = encode_masks(array)
        return cls((array.shape[1], array.shape[2]), rles, **columns)

    @classmethod
    def concatenate(cls, results: Iterable[Self]) -> Self:
        """Join results of one image, masks in order; of two presences of a phrase the higher stays.

        Answers are joined in order too, each once: parts of one result share theirs.

        Raises:
            ValueError: No result given, or results of images of different sizes.
        """
        parts = list(results)
        image = next((part.image for part in parts if part.image is not None), None)
        columns = join_columns([part._columns for part in parts])
        # A dict by the answers themselves: they compare by identity.
        answers = dict.fromkeys(answer for part in parts for answer in part._answers)
        return cls._of(columns, image, tuple(answers))

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image, original pixels."""
        return self._columns.size

    @property
    def image(self) -> NDArray[np.uint8] | None:
        """(H, W, 3) uint8 RGB, read-only; None if the result does not know its image."""
        return self._image

    @property
    def answers(self) -> tuple[PhraseAnswer, ...]:
        """What became of each phrase, masks that were dropped included.

        Always of the whole question, also where only some of its masks were chosen. Empty for masks
        from clicks and boxes, and for a result from a file: files do not hold answers.
        """
        return self._answers

    @property
    def rles(self) -> list[RLE]:
        """K run-length codes."""
        return list(self._columns.rles)

    @property
    def masks(self) -> NDArray[np.bool_]:
        """(K, H, W) bool, read-only; decoded at the first use and kept."""
        return self._array("masks", lambda: decode_rles(self._columns.rles, self.size))

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W) bool, read-only: the union of all masks."""
        return self._array("mask", lambda: decode_rle(merge_rles(self._columns.rles, self.size)))

    @property
    def boxes(self) -> NDArray[np.float32]:
        """(K, 4) float32, read-only: half-open x0, y0, x1, y1; zeros for an empty mask."""
        return self._array("boxes", lambda: rle_boxes(self._columns.rles).astype(np.float32))

    @property
    def areas(self) -> NDArray[np.int64]:
        """(K,) int64, read-only: pixels of each mask."""
        return self._array("areas", lambda: rle_areas(self._columns.rles))

    @property
    def scores(self) -> NDArray[np.float32]:
        """(K,) float32, read-only: how probably the label describes the mask; NaN if unknown."""
        return self._columns.scores

    @property
    def iou(self) -> NDArray[np.float32]:
        """(K,) float32, read-only: predicted IoU; NaN if unknown."""
        return self._columns.iou

    @property
    def stability(self) -> NDArray[np.float32]:
        """(K,) float32, read-only: stability score; NaN if unknown."""
        return self._columns.stability

    @property
    def labels(self) -> list[str | None]:
        """K phrases; None where a mask has none."""
        return list(self._columns.labels)

    @property
    def presence(self) -> dict[str, float]:
        """Probability that each phrase that was asked for is in the image."""
        return dict(self._columns.presence)

    def label_map(self, *, by: Literal["mask", "label"] = "mask") -> NDArray[np.int32]:
        """Number the pixels: 0 for nothing, masks or labels (as `class_names`) from 1.

        Where masks overlap, the smaller one is seen.

        Returns:
            (H, W) int32.
        """
        return self._columns.label_map(by=by)

    def class_names(self) -> list[str]:
        """Phrases in the order asked for, then labels that were not asked for, each once."""
        return self._columns.names()

    def __len__(self) -> int:
        """K, the number of masks."""
        return len(self._columns.rles)

    def __iter__(self) -> Iterator[MaskResult]:
        """The masks, one by one."""
        return iter(self._items())

    @overload
    def __getitem__(self, key: int | np.integer[Any]) -> MaskResult: ...
    @overload
    def __getitem__(self, key: slice | str | Sequence[Any] | NDArray[Any]) -> Self: ...
    def __getitem__(self, key: Any) -> MaskResult | Self:
        """Choose by position, slice, bool array (K,), integer array, or label.

        A label that was asked for and not found gives an empty result.

        Raises:
            IndexError: A position that is not there, or an array that fits no mask.
            KeyError: A label that was neither found nor asked for.
        """
        if isinstance(key, str):
            labels = self._columns.labels
            if key not in labels and key not in self._columns.presence:
                raise KeyError(f"no label {key!r}; there are {self.class_names()}")
            return self._take([index for index, label in enumerate(labels) if label == key])
        if isinstance(key, slice):
            return self._take(range(len(self))[key])
        if isinstance(key, Integral) and not isinstance(key, bool):
            return self._items()[int(key)]
        return self._take(positions(as_array(key), len(self)))

    def top(self, k: int, *, by: Literal["scores", "iou", "stability", "areas"] = "scores") -> Self:
        """The k masks with the highest value, highest first; unknown ones last, in their order."""
        if k < 0:
            raise ValueError(f"top: k={k}; wanted 0 or more")
        values = np.nan_to_num(np.asarray(getattr(self, by), dtype=np.float64), nan=-np.inf)
        return self._take(np.argsort(-values, kind="stable")[:k].tolist())

    def filter(
        self,
        *,
        min_score: float | None = None,
        min_iou: float | None = None,
        min_stability: float | None = None,
        min_area: int | None = None,
    ) -> Self:
        """The masks that reach every given bound; one whose value is unknown (NaN) reaches none."""
        keep = np.ones(len(self), dtype=np.bool_)
        for values, least in (
            (self.scores, min_score),
            (self.iou, min_iou),
            (self.stability, min_stability),
            (self.areas, min_area),
        ):
            if least is not None:
                keep &= values >= least
        return self[keep]

    def merge(self) -> Self:
        """One mask per label: the union of its masks, with their highest score; IoU is unknown."""
        return type(self)._of(merge_labels(self._columns), self._image, self._answers)

    def _take(self, chosen: Iterable[int]) -> Self:
        return type(self)._of(self._columns.take(chosen), self._image, self._answers)

    def _items(self) -> tuple[MaskResult, ...]:
        if "items" not in self._cache:
            self._cache["items"] = self._columns.items(self._image)
        items: tuple[MaskResult, ...] = self._cache["items"]
        return items

    def _array(self, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """An array that is made at the first use and kept, read-only."""
        if name not in self._cache:
            self._cache[name] = frozen(make())
        array: NDArray[Any] = self._cache[name]
        return array

    def __repr__(self) -> str:
        """Size, labels with their best scores, and phrases that found nothing."""
        return f"<{type(self).__name__} {self._columns}>"

    def __eq__(self, other: object) -> bool:
        """Whether masks, numbers, labels and presence are the same.

        Photo and answers are not compared.
        """
        if not isinstance(other, MaskSequence):
            return NotImplemented
        return self._columns == other._columns

    def __hash__(self) -> int:
        """Of the masks and labels."""
        return hash(self._columns)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without what was decoded."""
        return type(self)._of, (self._columns, self._image, self._answers)


def _checked_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A read-only view of an RGB photo of a size."""
    check_photo(image, size)
    view = image.view()
    view.flags.writeable = False
    return view


def _checked_answers(
    answers: Iterable[PhraseAnswer], size: tuple[int, int]
) -> tuple[PhraseAnswer, ...]:
    """Answers whose masks all belong to an image (H, W)."""
    given = tuple(answers)
    for answer in given:
        for candidate in answer.candidates:
            if candidate.rle.size != size:
                raise ValueError(
                    f"got an answer about {answer.phrase!r} with a mask of {candidate.rle.size}; "
                    f"wanted {size} (height, width), the size of the result"
                )
    return given
