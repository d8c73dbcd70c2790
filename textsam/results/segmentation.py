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

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, Self, get_args, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from textsam.pictures import draw
from textsam.results import storage
from textsam.results.explanation import Explanation
from textsam.results.mask_table import (
    MaskResult,
    MaskTable,
    checked_answers,
    checked_image,
    join_tables,
    make_table,
    merge_labels,
    positions,
    read_only,
)
from textsam.values.files import write_atomically
from textsam.values.geometry import as_array
from textsam.values.images import ImageSource, load_image
from textsam.values.judge import PhraseAnswer
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

PictureKind = Literal["overlay", "cutout", "mask", "instances", "classes", "compare"]

# A notebook shows no more, and a 12-megapixel PNG would bloat its file.
_NOTEBOOK_SIDE = 1024


class Segmentation(Sequence[MaskResult]):
    """An immutable sequence of the masks of one image.

    Index by position (one `MaskResult`), by slice, bool array, integer array or label (a result
    again). An empty result has the same attributes with K = 0. A part of a result keeps its photo
    and its answers. Draw it with `plot`, write it with `save`.
    """

    __slots__ = ("_answers", "_cache", "_image", "_table")  # immutable: no further attributes

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
        image: NDArray[np.uint8] | None = None,
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
            image: (H, W, 3) uint8 RGB of the masks, for pictures. Not copied.
            answers: What became of each phrase, for `explain`.

        Raises:
            ValueError: Sizes or lengths do not fit, numbers are infinite, labels are no text, a
                presence is outside 0 to 1, or answers are about another image.
        """
        self._table = make_table(
            size,
            rles,
            scores=scores,
            iou=iou,
            stability=stability,
            similarity=similarity,
            labels=labels,
            presence=presence,
        )
        self._image = None if image is None else checked_image(image, self.size)
        self._answers = checked_answers(answers, self.size)
        self._cache: dict[str, Any] = {}

    @classmethod
    def _of(
        cls,
        table: MaskTable,
        image: NDArray[np.uint8] | None,
        answers: tuple[PhraseAnswer, ...] = (),
    ) -> Self:
        """Wrap a table and answers that were checked before."""
        for values in table.numbers.values():
            read_only(values)  # unpickled arrays are writable
        result = cls.__new__(cls)
        result._table = table
        result._image = None if image is None else checked_image(image, table.size)
        result._answers = answers
        result._cache = {}
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
        image = next((part.image for part in parts if part.image is not None), None)
        # A dict by the answers themselves: they compare by identity.
        answers = dict.fromkeys(answer for part in parts for answer in part._answers)
        return cls._of(join_tables([part._table for part in parts]), image, tuple(answers))

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
        return cls._of(table, None if image is None else load_image(image))

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image, original pixels."""
        return self._table.size

    @property
    def image(self) -> NDArray[np.uint8] | None:
        """(H, W, 3) uint8 RGB, read-only; None if the result does not know its image."""
        return self._image

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
        """(K, H, W) bool, read-only; decoded when first used and kept."""
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
                raise KeyError(f"no label {key!r}; there are {self.class_names()}")
            return self._take([index for index, label in enumerate(labels) if label == key])
        if isinstance(key, slice):
            return self._take(range(len(self))[key])
        # True is an integer in Python; as an index it is a mistake.
        if isinstance(key, Integral) and not isinstance(key, bool):
            return self._items()[int(key)]
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
        return self._of(merge_labels(self._table), self._image, self._answers)

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
        photo = self._image if image is None else self._photo(image)
        return Explanation(self.size, self.answers, image=photo)

    def plot(
        self,
        image: ImageSource | None = None,
        *,
        scores: bool = True,
        alpha: float = 0.45,
        outline: bool = True,
        dim: float = 0.15,
    ) -> Image.Image:
        """Draw the masks over the photo.

        Args:
            image: The photo; by default the one that the result knows.
            scores: Whether labels show their scores.
            alpha: Opacity of the tint, 0 to 1.
            outline: Whether masks get an outline.
            dim: How far everything outside the masks is darkened, 0 to 1.

        Returns:
            RGB picture of the photo's size.

        Raises:
            ValueError: There is no photo, or it is not of the masks' size.
        """
        return draw.overlay(
            self._photo(image),
            self._table.rles,
            texts=[_tag_text(item, scores=scores) for item in self],
            colors=draw.mask_colors(self._table.labels),
            alpha=alpha,
            outline=outline,
            dim=dim,
        )

    def picture(
        self, kind: PictureKind = "overlay", *, image: ImageSource | None = None
    ) -> Image.Image:
        """Make a picture of the result.

        Args:
            kind: `"overlay"`: see `plot`; `"cutout"`: the photo with all else transparent;
                `"compare"`: the photo beside the overlay; `"mask"`: the union in white on black;
                `"instances"` and `"classes"`: the numbers of `label_map` in colours. The last three
                need no photo.
            image: The photo; by default the one that the result knows.

        Raises:
            ValueError: Another kind, or no photo where one is needed.
        """
        if kind == "overlay":
            return self.plot(image)
        if kind == "cutout":
            return draw.cutout(self._photo(image), self._table.rles)
        if kind == "compare":
            return draw.side_by_side([Image.fromarray(self._photo(image)), self.plot(image)])
        if kind == "mask":
            return draw.mask_picture(self._table.rles, self.size)
        if kind in ("instances", "classes"):
            return draw.indexed_picture(
                self.label_map(by="mask" if kind == "instances" else "label")
            )
        raise ValueError(f"got picture kind {kind!r}; wanted one of {list(get_args(PictureKind))}")

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that `save` writes, e.g. for a web service."""
        return storage.table_to_json(self._table)

    def save(
        self,
        path: str | Path,
        *,
        kind: PictureKind | None = None,
        image: ImageSource | None = None,
        names: Sequence[str] | None = None,
    ) -> Path:
        """Write the result; the suffix decides the format. A file is complete or not there at all.

        | suffix | content | can be loaded |
        |---|---|---|
        | `.png` `.jpg` `.jpeg` `.webp` | a picture, see `picture` | no |
        | `.json` | everything but the photo, masks as COCO RLE | yes |
        | `.npz` | everything but the photo, masks as packed bits | yes |
        | `.txt` | YOLO segmentation: `class x1 y1 x2 y2 ...` per mask, 0 to 1 | no |

        No file holds `answers`: write the reasons with `explain().save("why.json")`.

        Args:
            path: The file, replaced if it is there.
            kind: The kind of picture; the overlay by default.
            image: The photo, for pictures; by default the one that the result knows.
            names: Class names in order, for `.txt` only; `class_names` by default. Give them where
                several photos must agree.

        Raises:
            ValueError: An unknown suffix, an option that does not fit it, or no photo to draw on.
            OSError: The file cannot be written.
        """
        path = Path(path)
        data = storage.encode_result(
            self._table,
            path,
            picture=lambda: self.picture(kind or "overlay", image=image),
            kind=kind,
            names=names,
        )
        return write_atomically(path, data)

    def __repr__(self) -> str:
        """Size, labels with their best scores, and phrases without a mask."""
        return f"<{type(self).__name__} {self._table}>"

    def _repr_png_(self) -> bytes:
        """The overlay for a notebook, on black if the photo is not known."""
        # Without a photo on black: a notebook shows a result rather than an error.
        photo = np.zeros((*self.size, 3), dtype=np.uint8) if self._image is None else self._image
        picture = self.plot(photo)
        picture.thumbnail((_NOTEBOOK_SIDE, _NOTEBOOK_SIDE))
        return draw.encode_picture(picture, ".png")

    def __eq__(self, other: object) -> bool:
        """Whether masks, numbers, labels and presence are equal; photo and answers do not count."""
        if not isinstance(other, Segmentation):
            return NotImplemented
        return self._table == other._table

    def __hash__(self) -> int:
        return hash(self._table)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the decoded masks."""
        return type(self)._of, (self._table, self._image, self._answers)

    def _take(self, chosen: Iterable[int]) -> Self:
        return self._of(self._table.take(chosen), self._image, self._answers)

    def _items(self) -> tuple[MaskResult, ...]:
        if "items" not in self._cache:
            self._cache["items"] = self._table.items(self._image)
        items: tuple[MaskResult, ...] = self._cache["items"]
        return items

    def _cached(self, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """An array that is made when first used and kept, read-only."""
        if name not in self._cache:
            self._cache[name] = read_only(make())
        array: NDArray[Any] = self._cache[name]
        return array

    def _photo(self, image: ImageSource | None) -> NDArray[np.uint8]:
        if image is not None:
            # The size settles what load_image rightly calls ambiguous: a photo three pixels high.
            if isinstance(image, np.ndarray) and image.shape == (*self.size, 3):
                return image if image.dtype == np.uint8 else load_image(image)
            return load_image(image)
        if self._image is None:
            raise ValueError(
                "this result does not know its photo (files of results do not hold it); give it: "
                'plot("photo.jpg"), save(..., image="photo.jpg") or load(..., image="photo.jpg")'
            )
        return self._image


def _tag_text(item: MaskResult, *, scores: bool) -> str | None:
    if item.label is None or not scores or math.isnan(item.score):
        return item.label
    return f"{item.label} {item.score:.2f}"
