"""What `like=` and `unlike=` take, as masks that know their photo.

An example is a mask of a result, or a photo with the place of the thing in it: a box, a point, a
mask or a phrase. Places without a photo are in the photo that is segmented.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.errors import PromptError
from textsam.inference.photo.encoded import EncodedPhoto, encode_photo
from textsam.inference.photo.zoom import WindowCache, predict
from textsam.results.mask_result import MaskResult
from textsam.results.segmentation import Segmentation
from textsam.values.geometry import as_array
from textsam.values.images import ImageSource
from textsam.values.photo import Photo
from textsam.values.prompts import ArrayLike, make_prompt
from textsam.values.rle import RLE, encode_mask
from textsam.weights.parts import ModelParts

# A box, a point or a mask, several of them, a phrase, or a mask of a result.
Place: TypeAlias = "ArrayLike | str | RLE | MaskResult | Segmentation"
Example: TypeAlias = (
    "MaskResult | Segmentation | tuple[ImageSource, Place] | ArrayLike | Sequence[Example]"
)

# The masks of a phrase in a photo.
Find: TypeAlias = Callable[[EncodedPhoto, str], Segmentation]

_WANTED = (
    "segmentation[0] of another photo, a Segmentation, a photo with the place of the thing, "
    '("dog.jpg", (x0, y0, x1, y1)), or a list of such examples'
)


class ExamplePhotos:
    """The photos of examples, each read and encoded once."""

    def __init__(self, parts: ModelParts, photo: EncodedPhoto | None = None) -> None:
        """Start with the photo that is segmented, or without one."""
        self.parts = parts
        self.photo = photo
        self._encoded: list[EncodedPhoto] = [] if photo is None else [photo]
        self._read: dict[str, EncodedPhoto] = {}

    def of(self, photo: Photo) -> EncodedPhoto:
        """The encoding of a mask's photo."""
        for known in self._encoded:
            if is_of(photo, known):
                return known
        self._encoded.append(encode_photo(self.parts, photo))
        return self._encoded[-1]

    def open(self, source: ImageSource) -> EncodedPhoto:
        """The encoding of whatever `load_image` takes."""
        key = os.fspath(source) if isinstance(source, str | os.PathLike) else f"id {id(source)}"
        if str(key) not in self._read:
            self._read[str(key)] = self.of(Photo.open(source))
        return self._read[str(key)]


def read_examples(photos: ExamplePhotos, given: Any, *, name: str, find: Find) -> list[MaskResult]:
    """The masks that `like` or `unlike` (`name`) gives, each with its photo.

    Raises:
        PromptError: No example, an empty one, one without its photo, a place outside the photo, or
            something else.
    """
    examples = list(_read(photos, given, name, find))
    if not examples:
        raise PromptError(f"{name} has no mask; wanted {_WANTED}")
    for item in examples:
        if item.photo is None:
            raise PromptError(
                f"a mask in {name} has no photo (files of results do not contain it). Type: "
                f'Segmentation.load("result.json", image="photo.jpg"), or {name}=("photo.jpg", '
                "mask)"
            )
        if not item.area:
            raise PromptError(f"a mask in {name} is empty")
    return examples


def _read(photos: ExamplePhotos, given: Any, name: str, find: Find) -> Iterator[MaskResult]:
    if isinstance(given, MaskResult):
        yield given
    elif isinstance(given, Segmentation):
        yield from given
    elif isinstance(given, str | os.PathLike) or _is_picture(given):
        shown = repr(given) if isinstance(given, str | os.PathLike) else "photo"
        raise PromptError(
            f"{name} is {shown} alone; say where the thing is in the photo: {name}=({shown}, "
            f'(x0, y0, x1, y1)), a point or a mask, or {name}=({shown}, "dog"). For a phrase '
            'type text="dog"'
        )
    elif isinstance(given, RLE) or _is_numbers(given):
        if photos.photo is None:
            raise PromptError(
                f"{name} has a place without its photo, and several photos are asked. Type: "
                f'{name}=("dog.jpg", (x0, y0, x1, y1))'
            )
        yield from _at(photos.photo, given, name, find)
    elif _is_pair(given):
        source, place = given
        yield from _at(photos.open(source), place, name, find)
    elif isinstance(given, list | tuple):
        for item in given:
            yield from _read(photos, item, name, find)
    else:
        raise PromptError(f"{name} is a {type(given).__name__}; wanted {_WANTED}")


def _at(photo: EncodedPhoto, place: Any, name: str, find: Find) -> Iterator[MaskResult]:
    """The masks at a place of a photo."""
    if isinstance(place, str):
        found = find(photo, place)
        if not len(found):
            raise PromptError(
                f"{name}: the model finds no {place!r} in its photo; give a box: "
                f"{name}=(photo, (x0, y0, x1, y1))"
            )
        yield from found
        return
    if isinstance(place, RLE | MaskResult):
        place = Segmentation(place.size, [place]) if isinstance(place, RLE) else [place]
    if isinstance(place, Segmentation | list) and all(isinstance(i, MaskResult) for i in place):
        for item in place:
            if item.rle.size != photo.size:
                raise PromptError(
                    f"a mask in {name} has size {item.rle.size}, its photo {photo.size} (height, "
                    "width)"
                )
            yield replace(item, photo=photo.origin)
        return
    array = as_array(place)
    masks = array.shape[-2:] == photo.size or array.dtype == np.bool_
    several = array.ndim == 3 if masks else array.ndim == 2
    if not masks and (array.ndim not in (1, 2) or array.shape[-1] not in (2, 4)):
        raise PromptError(
            f"{name} has a place of shape {array.shape}; wanted a box (x0, y0, x1, y1), a point "
            f"(x, y) or a mask of shape {photo.size}, the (height, width) of its photo"
        )
    for one in array if several else array[None]:
        yield MaskResult(encode_mask(_mask_at(photo, one, masks)), photo=photo.origin)


def _mask_at(photo: EncodedPhoto, place: NDArray[Any], is_mask: bool) -> NDArray[np.bool_]:
    """(H, W) bool of a box (4,), a point (2,) or a mask (H, W)."""
    if is_mask:
        mask = make_prompt(photo.size, mask=place).mask
        assert mask is not None
        return mask > 0
    is_box = len(place) == 4
    prompt = make_prompt(
        photo.size, box=place if is_box else None, points=None if is_box else place
    )
    found = predict(photo, prompt, windows=WindowCache())
    # Mask 0 is for unambiguous prompts; of a point's three readings the likeliest counts.
    chosen = 0 if is_box else 1 + int(np.argmax(found.iou[1:]))
    return np.asarray(found.logits[chosen] > 0)


def _is_pair(given: Any) -> bool:
    """Whether it is a photo with a place in it."""
    if not isinstance(given, list | tuple) or len(given) != 2 or _is_result(given[0]):
        return False
    if isinstance(given[0], list | tuple):
        return False
    if isinstance(given[0], str) and isinstance(given[1], str):
        # Two phrases, typed by mistake, are no photo with a phrase.
        return "://" in given[0] or os.path.exists(given[0])
    return isinstance(given[0], str | os.PathLike | bytes) or _is_picture(given[0])


def _is_result(given: Any) -> bool:
    return isinstance(given, MaskResult | Segmentation | RLE)


def _is_picture(given: Any) -> bool:
    """Whether it is an image in memory or an open file: not a mask, box or point."""
    if isinstance(given, Image.Image) or hasattr(given, "read"):
        return True
    shape: tuple[int, ...] = tuple(getattr(given, "shape", ()))
    return len(shape) == 3 and (shape[-1] in (1, 3, 4) or shape[0] in (1, 3, 4))


def _is_numbers(given: Any) -> bool:
    """Whether it is a box, a point, a mask, or a table of them."""
    if _is_result(given) or isinstance(given, str | bytes):
        return False
    if isinstance(given, list | tuple) and any(_is_result(item) for item in given):
        return False
    try:
        array = as_array(given)
    except (ValueError, TypeError):  # lists of unequal length
        return False
    return array.dtype.kind in "biuf" and 0 < array.ndim <= 3 and array.size > 0


def is_of(photo: Photo, encoded: EncodedPhoto) -> bool:
    """Whether it is this photo, or an array in the same memory; content is not compared."""
    if photo is encoded.origin or photo.size != encoded.size:
        return photo is encoded.origin
    one, other = photo.pixels(), encoded.image
    place = (one.ctypes.data, one.shape, one.strides)
    return place == (other.ctypes.data, other.shape, other.strides)
