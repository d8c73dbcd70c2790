"""The result: an immutable sequence of masks of one image, with what is known of each.

    result = model.segment("street.jpg", text=["wheel", "door"])
    len(result); result[0].score; result["wheel"].top(2); result.filter(min_score=0.5)
    result.masks  # (K, H, W) bool, decoded when first used
    result.save("street.png"); result.save("street.json"); Segmentation.load("street.json")

Masks stay run-length codes until pixels are asked for. The numbers of a mask are never blended:
`score` (probability that the label describes it), `iou` (predicted by the decoder), `stability`
and, from `ImageView.similar`, `similarity`; NaN stands for "not measured".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from textsam.results import storage
from textsam.results.convertible import Convertible
from textsam.results.drawable import PictureKind
from textsam.results.explanation import Explanation
from textsam.results.mask_result import MaskResult, mask_results
from textsam.results.mask_table import (
    MaskTable,
    checked_answers,
    join_tables,
    make_table,
    merge_labels,
    positions,
    read_only,
)
from textsam.values.geometry import as_array
from textsam.values.images import ImageSource
from textsam.values.judge import PhraseAnswer
from textsam.values.photo import Photo, Remade, as_photo
from textsam.values.rle import (
    RLE,
    decode_rle,
    decode_rles,
    encode_masks,
    merge_rles,
    rle_areas,
    rle_boxes,
)

__all__ = ["MaskResult", "PictureKind", "Segmentation"]


class Segmentation(Convertible, Sequence[MaskResult]):
    """An immutable sequence of the masks of one image.

    Index by position (one `MaskResult`), by slice, bool array, integer array or label (a result
    again). An empty result has the same attributes with K = 0. A part of a result keeps its photo
    and its answers. Draw it with `plot`, write it with `save`.

    A result does not hold the pixels of a photo that came from a path, an address or bytes: they
    are read again when they are needed (`Photo`). Pixels that were given as an array stay, until
    `without_image`. Decoded masks stay while somebody uses them or they are among the latest.
    """

    # Immutable: no further attributes.
    __slots__ = ("_answers", "_arrays", "_columns", "_items_made", "_photo")

    def __init__(
        self,
        size: tuple[int, int],
        rles: Iterable[RLE],
        *,
        scores: ArrayLike | None = None,
        iou: ArrayLike | None = None,
        stability: ArrayLike | None = None,
        similarity: ArrayLike | None = None,
        labels: Sequence[str | None] | None = None,
        presence: Mapping[str, float] | None = None,
        image: NDArray[np.uint8] | Photo | None = None,
        answers: Iterable[PhraseAnswer] = (),
    ) -> None:
        """Collect K masks.

        Args:
            size: (H, W) of the image, original pixels.
            rles: K masks of that size.
            scores: (K,) probabilities that the label describes the mask; None for unknown.
            iou: (K,) predicted IoU; None for unknown.
            stability: (K,) stability scores; None for unknown.
            similarity: (K,) cosines with a mask, -1 to 1; None for unknown.
            labels: K phrases or None; None for no labels at all.
            presence: Probability, 0 to 1, that each phrase that was asked for is in the image, also
                of phrases without a mask.
            image: (H, W, 3) uint8 RGB of the masks, for pictures, which is not copied; or a
                `Photo`, which is read when it is needed.
            answers: What became of each phrase, for `explain`.

        Raises:
            ValueError: Sizes or lengths do not fit, numbers are infinite, labels are no text, a
                presence is outside 0 to 1, or answers are about another image.
        """
        table = make_table(
            size,
            rles,
            scores=scores,
            iou=iou,
            stability=stability,
            similarity=similarity,
            labels=labels,
            presence=presence,
        )
        self._set(table, as_photo(image, table.size), checked_answers(answers, table.size))

    def _set(
        self, table: MaskTable, photo: Photo | None, answers: tuple[PhraseAnswer, ...]
    ) -> None:
        self._columns = table
        self._photo = photo
        self._answers = answers
        self._arrays: dict[str, Remade] = {}
        self._items_made: tuple[MaskResult, ...] | None = None

    @classmethod
    def _of(
        cls,
        table: MaskTable,
        photo: Photo | None,
        answers: tuple[PhraseAnswer, ...] = (),
    ) -> Self:
        """Wrap a table, a photo and answers that were checked before."""
        for values in table.numbers.values():
            read_only(values)  # unpickled arrays are writable
        result = cls.__new__(cls)
        result._set(table, photo, answers)
        return result

    @classmethod
    def from_masks(cls, masks: ArrayLike, **columns: Any) -> Self:
        """Make a result of bool masks (K, H, W); the keywords are those of the class."""
        array = as_array(masks)
        return cls((array.shape[1], array.shape[2]), encode_masks(array), **columns)

    @classmethod
    def concatenate(cls, results: Iterable[Self]) -> Self:
        """Join results of one image, masks in order; of two presences of a phrase the higher stays.

        Answers are joined in order too, each once: parts of one result share theirs.

        Raises:
            ValueError: No result given, or results of images of different sizes.
        """
        parts = list(results)
        photo = next((part.photo for part in parts if part.photo is not None), None)
        # A dict by the answers themselves: they compare by identity.
        answers = dict.fromkeys(answer for part in parts for answer in part._answers)
        return cls._of(join_tables([part._table for part in parts]), photo, tuple(answers))

    @classmethod
    def load(cls, path: str | Path, *, image: ImageSource | None = None) -> Self:
        """Read a `.json` or `.npz` file that `save` wrote.

        Args:
            path: The file.
            image: The photo, for drawing; files of results do not hold it.

        Raises:
            ValueError: Another suffix, another format, a newer version, or a damaged file.
            OSError: The file cannot be read.
        """
        table = storage.read_table(Path(path))
        return cls._of(table, as_photo(None if image is None else Photo.open(image), table.size))

    @property
    def _table(self) -> MaskTable:
        return self._columns

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image, original pixels."""
        return self._table.size

    @property
    def photo(self) -> Photo | None:
        """Where the photo comes from (`photo.source`), and its pixels; None if it is not known."""
        return self._photo

    def without_image(self) -> Self:
        """The same result without its photo, e.g. to keep the results of a video's frames."""
        return self._of(self._table, None, self._answers)

    def with_image(self, image: ImageSource | None = None) -> Self:
        """The same result with the pixels of its photo, also in pickles.

        Args:
            image: The photo; by default the one that the result knows.

        Raises:
            ImageError: The photo is not known, or cannot be read.
            ValueError: It is of another size.
        """
        photo = as_photo(Photo(self._pixels(image)), self.size)
        assert photo is not None
        return self._of(self._table, photo.pin(), self._answers)

    @property
    def answers(self) -> tuple[PhraseAnswer, ...]:
        """What became of each phrase, with the masks that were dropped.

        Of all phrases that were asked for, also if this is a part of a result. Empty for masks from
        clicks and boxes, and for a result from a file: files do not hold answers.
        """
        return self._answers

    @property
    def rles(self) -> list[RLE]:
        """K run-length codes."""
        return list(self._table.rles)

    @property
    def masks(self) -> NDArray[np.bool_]:
        """(K, H, W) bool, read-only; decoded when used.

        For one mask after the other take `result[i].mask`. For torch: `masks_tensor`.
        """
        return self._cached("masks", lambda: decode_rles(self._table.rles, self.size))

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W) bool, read-only: the union of all masks."""
        return self._cached("mask", lambda: decode_rle(merge_rles(self._table.rles, self.size)))

    @property
    def boxes(self) -> NDArray[np.float32]:
        """(K, 4) float32, read-only: half-open x0, y0, x1, y1; zeros for an empty mask."""
        return self._cached("boxes", lambda: rle_boxes(self._table.rles).astype(np.float32))

    @property
    def areas(self) -> NDArray[np.int64]:
        """(K,) int64, read-only: pixels of each mask."""
        return self._cached("areas", lambda: rle_areas(self._table.rles))

    @property
    def scores(self) -> NDArray[np.float32]:
        """(K,) float32, read-only: probability that the label describes the mask, or NaN."""
        return self._table.scores

    @property
    def iou(self) -> NDArray[np.float32]:
        """(K,) float32, read-only: predicted IoU, or NaN."""
        return self._table.iou

    @property
    def stability(self) -> NDArray[np.float32]:
        """(K,) float32, read-only: stability score, or NaN."""
        return self._table.stability

    @property
    def similarity(self) -> NDArray[np.float32]:
        """(K,) float32, read-only: cosine with the mask given to `ImageView.similar`, or NaN."""
        return self._table.similarity

    @property
    def labels(self) -> list[str | None]:
        """K phrases; None where a mask has none."""
        return list(self._table.labels)

    @property
    def presence(self) -> dict[str, float]:
        """Probability that each phrase that was asked for is in the image."""
        return dict(self._table.presence)

    def label_map(self, *, by: Literal["mask", "label"] = "mask") -> NDArray[np.int32]:
        """Number the pixels: 0 for nothing, masks or labels (as `class_names`) from 1.

        Where masks overlap, the smaller one is on top.

        Returns:
            (H, W) int32.

        Raises:
            ValueError: By label, and a mask has none.
        """
        return self._table.label_map(by=by)

    def class_names(self) -> list[str]:
        """Phrases in the order asked for, then labels that were not asked for, each once."""
        return self._table.names()

    def __len__(self) -> int:
        return len(self._table.rles)

    def __iter__(self) -> Iterator[MaskResult]:
        return iter(self._items())

    @overload
    def __getitem__(self, key: int | np.integer[Any]) -> MaskResult: ...
    @overload
    def __getitem__(self, key: slice | str | Sequence[Any] | NDArray[Any]) -> Self: ...
    def __getitem__(self, key: Any) -> MaskResult | Self:
        """Choose by position, slice, bool array (K,), integer array, or label.

        A label that was asked for and has no mask gives an empty result.

        Raises:
            IndexError: A position that is not there, or an array that fits no mask.
            KeyError: A label that no mask has and that was not asked for.
        """
        if isinstance(key, str):
            labels = self._table.labels
            if key not in labels and key not in self._table.presence:
                raise _unknown_label(key, self.class_names(), dir(self))
            return self._take([index for index, label in enumerate(labels) if label == key])
        if isinstance(key, slice):
            return self._take(range(len(self))[key])
        # True is an integer in Python; as an index it is a mistake.
        if isinstance(key, Integral) and not isinstance(key, bool):
            return self._items()[self._position(int(key))]
        return self._take(positions(as_array(key), len(self)))

    def top(
        self, k: int, *, by: Literal["scores", "iou", "stability", "similarity", "areas"] = "scores"
    ) -> Self:
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
        min_similarity: float | None = None,
        min_area: int | None = None,
    ) -> Self:
        """The masks that reach every given bound; one whose value is unknown (NaN) reaches none."""
        keep = np.ones(len(self), dtype=np.bool_)
        for values, bound in (
            (self.scores, min_score),
            (self.iou, min_iou),
            (self.stability, min_stability),
            (self.similarity, min_similarity),
            (self.areas, min_area),
        ):
            if bound is not None:
                keep &= values >= bound  # False for NaN
        return self[keep]

    def merge(self) -> Self:
        """One mask per label: the union of its masks, with their highest score; IoU is unknown."""
        return self._of(merge_labels(self._table), self._photo, self._answers)

    def explain(self, *, image: ImageSource | None = None) -> Explanation:
        """Tell why the result is what it is: what was considered, and which gate dropped it.

        About all phrases that were asked for, also if this is a part of a result.

        Args:
            image: The photo, for the picture; by default the one that the result knows.

        Raises:
            ValueError: The masks do not come from phrases, or the result was read from a file.
        """
        if not self.answers:
            raise ValueError(
                "this result cannot be explained: its masks come from clicks or a box, or it was "
                "read from a file, which does not hold its reasons. Ask with a phrase: "
                'view.segment(text="wheel").explain()'
            )
        photo = self._photo if image is None else self._pixels(image)
        return Explanation(self.size, self.answers, image=photo)

    def __repr__(self) -> str:
        """Size, labels with their best scores, and phrases without a mask."""
        return f"<{type(self).__name__} {self._table}>"

    def __eq__(self, other: object) -> bool:
        """Whether masks, numbers, labels and presence are equal; photo and answers do not count."""
        if not isinstance(other, Segmentation):
            return NotImplemented
        return self._table == other._table

    def __hash__(self) -> int:
        return hash(self._table)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without decoded masks, and without pixels but after `with_image`."""
        return type(self)._of, (self._table, self._photo, self._answers)

    def _take(self, chosen: Iterable[int]) -> Self:
        return self._of(self._table.take(chosen), self._photo, self._answers)

    def _items(self) -> tuple[MaskResult, ...]:
        if self._items_made is None:
            self._items_made = mask_results(self._table, self._photo)
        return self._items_made

    def _cached(self, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """A read-only array that is made when used; a large one is not kept for ever."""
        return self._arrays.setdefault(name, Remade()).get(lambda: read_only(make()))


def _unknown_label(label: str, names: list[str], attributes: list[str]) -> KeyError:
    if label in attributes:
        return KeyError(f"no label {label!r}; results are no dictionaries. Type: result.{label}")
    if not names:
        return KeyError(f"no label {label!r}: these masks have none. Type: segment(text={label!r})")
    near = get_close_matches(label, names, n=1)
    hint = f"result[{near[0]!r}]" if near else f"segment(text={[*names, label]})"
    return KeyError(f"no label {label!r} was asked for; there are {names}. Type: {hint}")
