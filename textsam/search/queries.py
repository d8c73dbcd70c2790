"""Vectors of queries: a phrase, a mask of a photo, a whole photo, examples, or vectors."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from textsam.errors import PromptError, TextSamError, WeightsError
from textsam.results.mask_result import MaskResult
from textsam.results.segmentation import Segmentation
from textsam.search.records import (
    FloatArray,
    MaskRow,
    MaskVectors,
    SpaceName,
    VectorSpace,
    check_same_space,
)
from textsam.search.results import SearchResults
from textsam.values.rle import RLE, encode_mask

if TYPE_CHECKING:
    from textsam.inference.model import TextSAM

# What other libraries call a keyword of `MaskIndex.search`.
FOREIGN_NAMES = {
    "text": "query phrase prompt",
    "k": "limit top_k topk n n_results num_results count",
    "image": "photo",
    "like": "example examples",
    "vector": "embedding query_vector xq",
    "where": "filter filters",
}

Spaces: TypeAlias = Mapping[SpaceName, VectorSpace]
MaskSource: TypeAlias = RLE | npt.NDArray[np.bool_]
# Rows of an index, or masks that know their photo.
LikeSource: TypeAlias = MaskRow | MaskResult | Iterable[MaskRow | MaskResult]


@runtime_checkable
class MaskEmbedder(Protocol):
    """What makes vectors of phrases and masks; `textsam.search.Embedder` does for a `TextSAM`."""

    @property
    def spaces(self) -> Spaces:
        """The spaces that it makes vectors of."""

    def text(self, text: str, /) -> FloatArray:
        """The vector of a phrase in the space "clip", (width,) of length 1."""

    def masks(self, image: npt.NDArray[np.uint8], masks: Sequence[RLE], /) -> MaskVectors:
        """The vectors of N masks of a photo (H, W, 3) uint8 RGB, in all its spaces."""


# What can be given as the model of an index: a name, a folder or file, a model, or an embedder.
ModelSource: TypeAlias = "str | Path | TextSAM | MaskEmbedder"


class QueryModel:
    """The model that embeds the queries of one index, loaded when it is first needed."""

    def __init__(self, source: ModelSource | None, *, uri: str) -> None:
        """Nothing is loaded yet."""
        self._source = source
        self._uri = uri
        self._model: TextSAM | None = None
        self._embedders: dict[frozenset[SpaceName], MaskEmbedder] = {}
        # Threads that search at the same time share one model.
        self._lock = threading.Lock()

    def embedder(self, stored: Spaces, *names: SpaceName) -> MaskEmbedder:
        """An embedder of some spaces of the index, by default of all."""
        if isinstance(self._source, MaskEmbedder):
            return self._source
        from textsam.search.embed import Embedder, load_model  # they import the networks

        spaces = {name: stored[name] for name in names} if names else stored
        key = frozenset(spaces)
        with self._lock:
            if self._model is None:
                source = self._source
                self._model = (
                    _load_stored(stored, self._uri) if source is None else load_model(source)
                )
            if key not in self._embedders:
                embedder = Embedder.for_spaces(self._model, spaces)
                # A model may have the stored name and other weights.
                if self._source is None and dict(embedder.spaces) != dict(spaces):
                    raise WeightsError(
                        f"{_made_by(spaces, self._uri)}, but with other weights or options than "
                        f"the model that has this name here. {_advice(self._uri)}"
                    )
                self._embedders[key] = embedder
            return self._embedders[key]


def _load_stored(spaces: Spaces, uri: str) -> TextSAM:
    """Load the model that an index names, from this machine only.

    An index may come from anywhere, so its names must not decide what is downloaded.
    """
    from textsam.inference.model import TextSAM

    if not spaces:
        raise PromptError(
            f"the index {uri!r} has no rows that name a model. Type: "
            f'MaskIndex.open({uri!r}, model="tiny")'
        )
    # Without latents the SAM does not matter, so the smallest one carries the CLIP.
    name = spaces["sam"].model if "sam" in spaces else "tiny"
    clip = spaces["clip"].model if "clip" in spaces else None
    try:
        model = TextSAM.from_pretrained(name, local_files_only=True)
        if clip is not None and (model.clip is None or model.clip.name != clip):
            model = TextSAM.from_pretrained(name, clip=clip, local_files_only=True)
    except (TextSamError, OSError) as error:
        raise WeightsError(
            f"{_made_by(spaces, uri)}, which cannot be loaded from this machine ({error}). "
            f"{_advice(uri)}"
        ) from error
    return model


def _made_by(spaces: Spaces, uri: str) -> str:
    names = {"sam": "SAM", "clip": "CLIP"}
    parts = [f"{names[name]} {space.model!r}" for name, space in sorted(spaces.items())]
    return f"the index {uri!r} was made with {' and '.join(parts)}"


def _advice(uri: str) -> str:
    return (
        f"Type: MaskIndex.open({uri!r}, model=...) with the folder or file of the model that made "
        "it, its Hugging Face id, a TextSAM or an Embedder"
    )


def refuse_query(query: Any) -> NoReturn:
    """Say what to type for a query that is no phrase."""
    if isinstance(query, MaskRow | MaskResult | SearchResults | Segmentation):
        advice = "like=query"
    elif isinstance(query, MaskVectors) or np.ndim(query) == 1:
        advice = "vector=query"
    else:
        advice = "vector=query[0], one query at a time" if np.ndim(query) == 2 else "image=query"
    raise PromptError(
        f"got {type(query).__name__} in place of a phrase. Type: search({advice}); it takes one of "
        "text=, image= with or without mask=, like= and vector="
    )


def unit(vector: npt.ArrayLike, *, width: int) -> FloatArray:
    """The vector (width,) scaled to length 1."""
    array = np.asarray(vector, dtype=np.float32)
    if array.shape != (width,):
        raise ValueError(f"got a vector of shape {array.shape}; wanted ({width},), one query")
    length = float(np.linalg.norm(array))
    if not (np.isfinite(length) and length > 0):
        raise ValueError(f"got a vector of length {length}; wanted one that has a direction")
    return (array / length).astype(np.float32)


def mean_vector(vectors: MaskVectors, stored: VectorSpace) -> FloatArray:
    """The mean direction of embedded masks in one space of the index."""
    if stored.name not in vectors.spaces:
        names = ", ".join(map(repr, vectors.spaces)) or "none"
        raise ValueError(f"got vectors of {names}; wanted some of space {stored.name!r}")
    check_same_space(vectors.spaces[stored.name], stored)
    if not len(vectors):
        raise ValueError("got no vectors; wanted one or more")
    # The mean of unit vectors is shorter than 1; only its direction matters.
    return unit(vectors.vectors[stored.name].mean(axis=0), width=stored.width)


def text_vector(embedder: MaskEmbedder, text: str, stored: VectorSpace) -> FloatArray:
    """The vector of a phrase."""
    if not text.strip():
        raise PromptError(f"got text={text!r}; wanted a phrase, such as 'striped sail'")
    check_same_space(_space_of(embedder, stored.name), stored)
    return unit(embedder.text(text), width=stored.width)


def mask_vector(
    embedder: MaskEmbedder,
    image: npt.NDArray[np.uint8],
    mask: MaskSource | None,
    stored: VectorSpace,
) -> FloatArray:
    """The vector of a mask of a photo, or of the whole photo without a mask."""
    size = image.shape[:2]
    if mask is None:
        mask = np.ones(size, dtype=np.bool_)
    rle = mask if isinstance(mask, RLE) else encode_mask(np.asarray(mask))
    if rle.size != size:
        raise PromptError(f"the mask has size {rle.size}, the photo {size}; wanted the same")
    if rle.is_empty:
        raise PromptError("the mask is empty: there is nothing to look for")
    check_same_space(_space_of(embedder, stored.name), stored)
    return mean_vector(embedder.masks(image, [rle]), stored)


def example_vector(embedder: MaskEmbedder, example: MaskResult, stored: VectorSpace) -> FloatArray:
    """The vector of a mask that knows its photo."""
    if example.image is None:
        raise PromptError(
            f"{example!r} does not know its photo. Type: search(image=photo, mask=it.rle)"
        )
    return mask_vector(embedder, example.image, example.rle, stored)


def _space_of(embedder: MaskEmbedder, name: SpaceName) -> VectorSpace:
    """The embedder's space of this name."""
    if name not in embedder.spaces:
        names = ", ".join(map(repr, embedder.spaces)) or "none"
        raise ValueError(f"the model has no vectors of space {name!r}; it has {names}")
    return embedder.spaces[name]
