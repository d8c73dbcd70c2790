"""What is looked for, as a vector: a phrase, masks of a photo, rows of the index, vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from textsam.errors import PromptError
from textsam.results.columns import MaskResult
from textsam.search.results import SearchResult
from textsam.search.spaces import MaskVectors, SpaceName, VectorSpace
from textsam.values.rle import RLE, encode_mask

__all__ = [
    "Embedder",
    "LikeSource",
    "MaskSource",
    "check_same",
    "examples_vector",
    "mask_vector",
    "only_vector",
    "text_vector",
    "unit",
]

FloatArray = npt.NDArray[np.float32]
MaskSource: TypeAlias = RLE | npt.NDArray[np.bool_]
# Rows of an index, or masks that know their photo.
LikeSource: TypeAlias = "SearchResult | MaskResult | Iterable[SearchResult | MaskResult]"


@runtime_checkable
class Embedder(Protocol):
    """What makes vectors of phrases and masks; `textsam.search.embed` has one for a `TextSAM`."""

    @property
    def spaces(self) -> Mapping[SpaceName, VectorSpace]:
        """The spaces that it has vectors in."""

    def text(self, text: str, /) -> FloatArray:
        """A phrase in the space "clip", (width,) of length 1."""

    def masks(self, image: npt.NDArray[np.uint8], masks: Sequence[RLE], /) -> MaskVectors:
        """N masks of a photo (H, W, 3) uint8 RGB, in all its spaces."""


def check_same(theirs: VectorSpace, ours: VectorSpace) -> None:
    """Refuse vectors of another space.

    Raises:
        ValueError: The spaces are not equal; tells both, and what differs.
    """
    if theirs != ours:
        names = ("name", "width", "model", "preprocessing")
        differ = [n for n in names if getattr(theirs, n) != getattr(ours, n)]
        raise ValueError(
            f"got vectors of {theirs}; this index holds {ours}. They differ in "
            f"{', '.join(differ)}, so their cosines mean nothing. Type the model that made the "
            "index, or embed the masks anew into another index"
        )


def unit(vector: npt.ArrayLike, *, width: int) -> FloatArray:
    """The vector (width,) at length 1.

    Raises:
        ValueError: Another shape, or no direction.
    """
    array = np.asarray(vector, dtype=np.float32)
    if array.shape != (width,):
        raise ValueError(f"got a vector of shape {array.shape}; wanted ({width},)")
    length = float(np.linalg.norm(array))
    if not (np.isfinite(length) and length > 0):
        raise ValueError(f"got a vector of length {length}; wanted one that points somewhere")
    return (array / length).astype(np.float32)


def only_vector(vectors: MaskVectors, name: SpaceName, ours: VectorSpace) -> FloatArray:
    """The mean direction of embedded masks in a space of the index.

    Raises:
        ValueError: They have none there, or of another space than the index's.
    """
    if name not in vectors.spaces:
        have = ", ".join(map(repr, vectors.spaces)) or "none"
        raise ValueError(f"got vectors of {have}; wanted some of space {name!r}")
    check_same(vectors.spaces[name], ours)
    if not len(vectors):
        raise ValueError("got no vectors; wanted one or more")
    return unit(vectors.vectors[name].mean(axis=0), width=ours.width)


def text_vector(embedder: Embedder, text: str, ours: VectorSpace) -> FloatArray:
    """A phrase.

    Raises:
        PromptError: The space is not "clip", which alone has phrases, or the phrase is empty.
        ValueError: The embedder's space is not the index's.
    """
    if ours.name != "clip":
        raise PromptError(
            f"got text={text!r} for space {ours.name!r}, which no phrase reaches. Type: "
            'space="clip"'
        )
    if not text.strip():
        raise PromptError(f"got text={text!r}; wanted a phrase, such as 'striped sail'")
    check_same(_space_of(embedder, ours.name), ours)
    return unit(embedder.text(text), width=ours.width)


def mask_vector(
    embedder: Embedder,
    image: npt.NDArray[np.uint8],
    mask: MaskSource | None,
    ours: VectorSpace,
) -> FloatArray:
    """A mask of a photo; the whole photo for None.

    Raises:
        PromptError: The mask has another size than the photo, or is empty.
        ValueError: The embedder's space is not the index's.
    """
    size = image.shape[:2]
    given = np.ones(size, dtype=np.bool_) if mask is None else mask
    rle = given if isinstance(given, RLE) else encode_mask(np.asarray(given))
    if rle.size != size:
        raise PromptError(f"the mask has size {rle.size}, the photo {size}; wanted the same")
    if rle.is_empty:
        raise PromptError("the mask is empty: there is nothing to look for")
    check_same(_space_of(embedder, ours.name), ours)
    return only_vector(embedder.masks(image, [rle]), ours.name, ours)


def examples_vector(
    embedder: Embedder, examples: Sequence[MaskResult], ours: VectorSpace
) -> FloatArray:
    """What masks that know their photo have in common: their mean direction.

    Raises:
        PromptError: One does not know its photo.
        ValueError: The embedder's space is not the index's.
    """
    vectors = []
    for example in examples:
        if example.image is None:
            raise PromptError(
                f"{example!r} does not know its photo. Type: search(image=photo, mask=it.rle)"
            )
        vectors.append(mask_vector(embedder, example.image, example.rle, ours))
    return unit(np.mean(vectors, axis=0), width=ours.width)


def _space_of(embedder: Embedder, name: SpaceName) -> VectorSpace:
    if name not in embedder.spaces:
        have: Any = ", ".join(map(repr, embedder.spaces)) or "none"
        raise ValueError(f"the model has no vectors of space {name!r}; it has {have}")
    return embedder.spaces[name]
