"""Many photos in one call: read ahead, encoded in batches, each with an answer or an error."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.errors import ImageError, MissingExtraError, PromptError, WeightsError
from textsam.inference.photo.encoded import batch_size, encode_photos
from textsam.inference.strategies.answering import find_together, reads_boxes
from textsam.inference.strategies.query import Query
from textsam.inference.view import ImageView
from textsam.results.segmentation import Segmentation
from textsam.values.photo import Photo
from textsam.weights.parts import ModelParts

__all__ = ["OnError", "answer_each", "answer_photos", "check_list", "group_size", "read_pairs"]

OnError = Literal["raise", "skip"]
Ask: TypeAlias = Callable[[ImageView], Segmentation]

_TOGETHER = 8  # photos that a detector is asked about at once, which a GPU needs to be busy


def group_size(parts: ModelParts, query: Query | None = None) -> int:
    """Photos that are read, encoded and asked at once."""
    if query is not None and reads_boxes(parts, query):
        return _TOGETHER
    return batch_size(parts)


def answer_each(
    parts: ModelParts,
    photos: Sequence[Photo | NDArray[np.uint8]],
    asks: Sequence[Ask],  # one for each photo
    *,
    query: Query | None = None,  # the one that all are asked, which a detector answers at once
) -> list[Segmentation | Exception]:
    """Encode a group of photos together and ask each; an error stands in the place of its photo.

    Raises:
        WeightsError: The model cannot be asked that way; `MissingExtraError` likewise.
    """
    distinct = list({id(photo): photo for photo in photos}.values())
    encoded = dict(zip(map(id, distinct), encode_photos(parts, distinct), strict=True))
    views = [ImageView(encoded[id(photo)]) for photo in photos]
    if query is not None and views and reads_boxes(parts, query):
        find_together(list(encoded.values()), query)
    answers: list[Segmentation | Exception] = []
    for ask, view in zip(asks, views, strict=True):
        try:
            answers.append(ask(view))
        except (WeightsError, MissingExtraError):  # every further photo would fail as well
            raise
        except Exception as error:
            answers.append(error)
    return answers


def answer_photos(
    parts: ModelParts,
    sources: Sequence[Any],
    asks: Sequence[Ask],
    *,
    query: Query | None = None,
    on_error: OnError = "raise",
    progress: Callable[[int, int], None] | None = None,  # called with (photos done, photos in all)
) -> list[Any]:
    """Answers for a list of photos in its order; None for those that are skipped.

    A photo that is named several times is encoded once.

    Raises:
        PromptError: `on_error` is neither; or a photo cannot be asked that, with its position.
        ImageError: Something is no image; the message names the position. What can be seen without
            decoding the photos (missing files, files that are no images) is seen first.
    """
    if on_error not in ("raise", "skip"):
        raise PromptError(f'on_error is {on_error!r}; wanted "raise" or "skip"')
    places: dict[Any, list[int]] = {}
    for index, source in enumerate(sources):
        places.setdefault(_key(source), []).append(index)
    first = [indices[0] for indices in places.values()]
    if on_error == "raise":
        for index in first:
            _check_source(sources[index], index)
    answers: list[Any] = [None] * len(sources)
    size = group_size(parts, query)
    for done, group in _read_ahead([(index, sources[index]) for index in first], size):
        good = [(index, photo) for index, photo in group if isinstance(photo, Photo)]
        # The same photo may be asked several things.
        pairs = [(i, photo) for index, photo in good for i in places[_key(sources[index])]]
        asked, photos = [i for i, _ in pairs], [photo for _, photo in pairs]
        found: dict[int, Segmentation | Exception] = {
            i: bad
            for index, bad in group
            if isinstance(bad, Exception)
            for i in places[_key(sources[index])]
        }
        results = answer_each(parts, photos, [asks[i] for i in asked], query=query)
        found |= zip(asked, results, strict=True)
        for index, answer in sorted(found.items()):
            if isinstance(answer, Exception):
                _fail(answer, index, sources[index], on_error)
            else:
                answers[index] = answer
        if progress is not None:
            progress(done, len(first))
    return answers


def _key(source: Any) -> Any:
    return str(source) if isinstance(source, str | Path) else id(source)


def _check_source(source: Any, index: int) -> None:
    """Raise early for a file that is missing or no image, which its first bytes tell."""
    if not isinstance(source, str | os.PathLike) or "://" in str(source):
        return
    try:
        with Image.open(source):
            return
    except Exception:  # other readers may take it, or say best why not
        try:
            Photo.open(source)
        except ImageError as error:
            _fail(error, index, source, "raise")


def _read_ahead(
    sources: Sequence[tuple[int, Any]], size: int
) -> Iterator[tuple[int, list[tuple[int, Photo | Exception]]]]:
    """Groups of photos with their positions, and how many are done after each.

    The next group is decoded while the last one is in use, and no more than that.
    """
    groups = [sources[start : start + size] for start in range(0, len(sources), size)]
    if not groups:
        return
    done = 0
    with ThreadPoolExecutor(1, thread_name_prefix="textsam-read") as reader:
        coming = reader.submit(_read, groups[0])
        for group in [*groups[1:], None]:
            photos = coming.result()
            if group is not None:
                coming = reader.submit(_read, group)
            done += len(photos)
            yield done, photos


def _read(group: Sequence[tuple[int, Any]]) -> list[tuple[int, Photo | Exception]]:
    photos: list[tuple[int, Photo | Exception]] = []
    for index, source in group:
        try:
            photos.append((index, Photo.open(source)))
        except ImageError as error:
            photos.append((index, error))
    return photos


def _fail(error: Exception, index: int, source: Any, on_error: OnError) -> None:
    """Raise the error of a photo with its position and name, or warn."""
    name = f" ({str(source)[:80]!r})" if isinstance(source, str | os.PathLike) else ""
    where = f"image {index}{name}"
    if not isinstance(error, ImageError | PromptError):
        error.add_note(f"at {where}")
        raise error
    if on_error == "skip":
        warnings.warn(f"skipped {where}: {error}", stacklevel=4)
        return
    hint = 'To go on without such photos type: on_error="skip"'
    raise type(error)(f"{where}: {error}. {hint}") from error


def check_list(images: Any) -> list[Any] | None:
    """The photos of a list or a tuple; None for one photo.

    Raises:
        PromptError: A generator, or numbers.
    """
    if isinstance(images, Iterator | range | set | frozenset | Mapping) and not hasattr(
        images, "read"
    ):
        raise PromptError(
            f"got a {type(images).__name__}; wanted a photo or a list of them. Type: "
            "segment(list(photos), ...); or, to have one result at a time, for photo in photos: "
            "model.segment(photo, ...); or write files: segment_folder(model, folder, out, ...)"
        )
    if not isinstance(images, list | tuple):
        return None
    if images and all(isinstance(item, int | float | list | tuple) for item in images):
        raise PromptError(
            "the list holds numbers, not images: a list means several images; give one image as a "
            'numpy array. For a phrase of each photo type: segment_pairs([(photo, "dog"), ...])'
        )
    return list(images)


def read_pairs(pairs: Any) -> list[tuple[Any, dict[str, Any]]]:
    """Photos with the keywords that each is asked with.

    Raises:
        PromptError: Something is no pair of a photo and a phrase, phrases or keywords.
    """
    if isinstance(pairs, str | bytes | Mapping) or not hasattr(pairs, "__iter__"):
        raise PromptError(
            f'got {type(pairs).__name__}; wanted pairs: [("a.jpg", "dog"), ("b.jpg", "cat")]'
        )
    found: list[tuple[Any, dict[str, Any]]] = []
    for index, pair in enumerate(pairs):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise PromptError(
                f"pair {index} is {pair!r:.80}; wanted (photo, phrase) or (photo, "
                '{"boxes": [[x0, y0, x1, y1]]}). For two lists type: zip(photos, phrases)'
            )
        photo, question = pair
        keywords = dict(question) if isinstance(question, Mapping) else {"text": question}
        found.append((photo, keywords))
    return found
