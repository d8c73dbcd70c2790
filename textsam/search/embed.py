"""Embeddings of masks: what they show (masked CLIP) and what they look like (the SAM's latents).

    embedder = Embedder(model)
    vectors = embedder.masks("street.jpg", segmentation)
    vectors.vectors["clip"] @ embedder.text("striped sail")

Two spaces, never mixed. "clip" is the masked-CLIP embedding that the text pathway is trained on
(arXiv 2304.02643, Appendix D.5), and a phrase is a vector of it. "sam" is the SAM's latent
(Appendix D.6), which no phrase reaches and which needs no CLIP. Vectors are only comparable if
their `VectorSpace` is equal: its hash covers the weights and everything between photo and network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.clip.mask_crops import crop_batches
from textsam.errors import PromptError
from textsam.inference.photo.encoded import EncodedPhoto
from textsam.inference.photo.phrase_map import require_clip
from textsam.inference.photo.sam_embedding import Latents, crop_latents, photo_latents
from textsam.results.columns import MaskResult
from textsam.results.mask_sequence import MaskSequence
from textsam.search.fingerprint import fingerprint
from textsam.search.spaces import MaskVectors, SpaceName, VectorSpace
from textsam.values.images import ImageSource, load_image
from textsam.values.rle import RLE, encode_mask

if TYPE_CHECKING:
    from textsam.inference.model import TextSAM

__all__ = ["Embedder", "Latents", "Masks", "Photo"]

Photo: TypeAlias = "EncodedPhoto | ImageSource"
_Photos: TypeAlias = Sequence[tuple[NDArray[np.uint8], list[RLE]]]
Masks: TypeAlias = MaskSequence | MaskResult | RLE | NDArray[np.bool_] | Sequence[Any]

# One higher whenever equal settings and weights give other vectors.
_VERSION = 1
_EXPAND = 1.5  # the middle of the paper's 1x to 2x (Appendix D.5), as `strategy="rank"` has it


class Embedder:
    """Embeds masks and phrases with one model.

    Attributes:
        model: Its SAM and, if it has one, its CLIP.
        latents: "crops", the paper's: two passes of the image encoder a mask; or "photo", from one
            encoding of the whole photo for all its masks: cheaper, and coarse for small masks.
        expand: Side of a crop by the longer side of the mask's box, at least 1.
        sam_batch: Crops in a pass of the SAM's image encoder.
        clip_batch: Crops in a pass of CLIP's image tower.
    """

    def __init__(
        self,
        model: TextSAM,
        *,
        latents: Latents = "crops",
        spaces: Iterable[SpaceName] | None = None,
        expand: float = _EXPAND,
        sam_batch: int = 8,
        clip_batch: int = 32,
    ) -> None:
        """Choose what is embedded.

        Args:
            model: The model.
            latents: How the SAM's latents are made.
            spaces: "clip", "sam" or both; by default all that the model has.
            expand: Size of crops.
            sam_batch: At least 1.
            clip_batch: At least 1.

        Raises:
            PromptError: An option that cannot be meant.
            WeightsError: "clip" of a model without CLIP.
        """
        if latents not in get_args(Latents):
            raise PromptError(f"latents={latents!r}; wanted one of {list(get_args(Latents))}")
        if min(sam_batch, clip_batch) < 1 or not expand >= 1:
            raise PromptError(
                f"sam_batch={sam_batch}, clip_batch={clip_batch}, expand={expand}; wanted at least "
                "1 of each"
            )
        known = ["clip", "sam"] if model.clip is not None else ["sam"]
        wanted = known if spaces is None else list(dict.fromkeys(spaces))
        if not wanted or not set(wanted) <= set(get_args(SpaceName)):
            raise PromptError(f"spaces={wanted}; wanted some of {list(get_args(SpaceName))}")
        if "clip" in wanted:
            require_clip(model)
        self.model = model
        self.latents: Latents = latents
        self.expand = float(expand)
        self.sam_batch = sam_batch
        self.clip_batch = clip_batch
        self._wanted = tuple(wanted)

    @classmethod
    def of_spaces(cls, model: TextSAM, spaces: Mapping[SpaceName, VectorSpace]) -> Embedder:
        """The embedder whose vectors lie in given spaces, those of an index say.

        Both kinds of latents are tried, since a space tells them apart only by a hash.

        Args:
            model: The model.
            spaces: By name. If none is given, or nothing of this model fits, the result is like any
                other, and an index refuses its vectors.

        Raises:
            WeightsError: "clip" of a model without CLIP.
        """
        for latents in get_args(Latents) if "sam" in spaces else get_args(Latents)[:1]:
            embedder = cls(model, latents=latents, spaces=list(spaces) or None)
            if all(embedder.spaces[name] == space for name, space in spaces.items()):
                break
        return embedder

    def __repr__(self) -> str:
        return f"Embedder({self.model!r}, {'+'.join(self._wanted)}, latents={self.latents!r})"

    @cached_property
    def spaces(self) -> Mapping[SpaceName, VectorSpace]:
        """The spaces that `masks` gives vectors of; reads all weights at the first use."""
        found: dict[SpaceName, VectorSpace] = {}
        if "clip" in self._wanted:
            clip = require_clip(self.model)
            how: dict[str, Any] = {"size": clip.image_size, "mean": clip.mean, "std": clip.std}
            how |= {"version": _VERSION, "expand": self.expand, "templates": clip.templates}
            found["clip"] = VectorSpace(
                name="clip",
                width=clip.width,
                model=clip.name,
                preprocessing=fingerprint(how, clip.model),
            )
        if "sam" in self._wanted:
            config = self.model.sam.config
            how = {"size": config.image_size, "mean": config.pixel_mean, "std": config.pixel_std}
            how |= {"version": _VERSION, "latents": self.latents}
            how |= {"expand": self.expand} if self.latents == "crops" else {}
            found["sam"] = VectorSpace(
                name="sam",
                width=config.embed_dim,
                model=self.model.name,
                preprocessing=fingerprint(how, self.model.sam.image_encoder),
            )
        return found

    def text(self, phrase: str) -> NDArray[np.float32]:
        """A phrase as a vector of the space "clip".

        Returns:
            (D,) float32 of length 1.

        Raises:
            PromptError: An empty phrase, or the embedder has no "clip".
            WeightsError: The model has no CLIP.
        """
        clip = require_clip(self.model)
        if "clip" not in self._wanted:
            raise PromptError('this embedder has no space "clip", which phrases need: spaces=None')
        [vector] = _stack([clip.encode_text(phrase)], clip.width)
        return np.asarray(vector)

    def masks(self, image: Photo, masks: Masks) -> MaskVectors:
        """Embed masks of one photo.

        Args:
            image: An open photo, whose encoding is used, or whatever `textsam.load_image` takes.
            masks: A `Segmentation`, one of its masks, RLEs, or bool masks (H, W) or (n, H, W).

        Returns:
            n vectors in each of `spaces`, in the order of the masks.

        Raises:
            ImageError: If it is no image.
            PromptError: A mask is empty, of another size than the photo, or no mask.
        """
        return self.photos([(image, masks)])[0]

    def photos(self, photos: Iterable[tuple[Photo, Masks]]) -> list[MaskVectors]:
        """Embed masks of several photos, in batches that go across them.

        Args:
            photos: Photos with their masks, as for `masks`; all are decoded at once, so give some
                dozens at a time.

        Raises:
            ImageError: As `masks`.
            PromptError: As `masks`.
        """
        given = [_checked(image, masks) for image, masks in photos]
        vectors: dict[SpaceName, NDArray[np.float32]] = {}
        if "clip" in self._wanted:
            vectors["clip"] = self._clip([(_pixels(image), rles) for image, rles in given])
        if "sam" in self._wanted:
            if self.latents == "photo":
                vectors["sam"] = self._of_photos(given)
            else:
                vectors["sam"] = self._of_crops([(_pixels(image), rles) for image, rles in given])
        ends = np.cumsum([len(rles) for _, rles in given])[:-1]
        parts = {name: np.split(rows, ends) for name, rows in vectors.items()}
        return [
            MaskVectors(spaces=self.spaces, vectors={name: parts[name][i] for name in parts})
            for i in range(len(given))
        ]

    def _clip(self, photos: _Photos) -> NDArray[np.float32]:
        clip = require_clip(self.model)
        batches = crop_batches(
            photos, size=clip.image_size, expand=self.expand, batch=self.clip_batch
        )
        rows = (clip.encode_crops(crops, shares) for crops, shares in batches)
        return _stack(rows, clip.width)

    def _of_crops(self, photos: _Photos) -> NDArray[np.float32]:
        sam = self.model.sam
        rows = crop_latents(sam, photos, expand=self.expand, batch=self.sam_batch)
        return _stack(rows, sam.config.embed_dim)

    def _of_photos(
        self, photos: Sequence[tuple[EncodedPhoto | NDArray[np.uint8], list[RLE]]]
    ) -> NDArray[np.float32]:
        def rows() -> Iterator[Tensor]:
            for image, rles in photos:
                if rles:
                    seen = image
                    if not isinstance(seen, EncodedPhoto):
                        seen = EncodedPhoto(self.model, seen)
                    yield photo_latents(seen, rles)

        return _stack(rows(), self.model.sam.config.embed_dim)


def _checked(image: Photo, masks: Masks) -> tuple[EncodedPhoto | NDArray[np.uint8], list[RLE]]:
    """A photo, encoded or decoded, and its masks as codes of its size, none of them empty."""
    seen = image if isinstance(image, EncodedPhoto) else load_image(image)
    size = _pixels(seen).shape[:2]
    rles = _codes(masks)
    for index, rle in enumerate(rles):
        if rle.size != size:
            raise PromptError(
                f"mask {index} has size {rle.size}, the photo {size} (height, width); wanted masks "
                "of this photo"
            )
        if rle.is_empty:
            raise PromptError(
                f"mask {index} is empty: there is nothing to embed. Type: masks[masks.areas > 0]"
            )
    return seen, rles


def _codes(masks: Masks) -> list[RLE]:
    if isinstance(masks, MaskSequence):
        return masks.rles
    if isinstance(masks, RLE | MaskResult):
        return _codes([masks])
    found: list[RLE] = []
    single = isinstance(masks, np.ndarray) and masks.ndim == 2
    for index, item in enumerate([masks] if single else masks):
        if isinstance(item, MaskResult):
            found.append(item.rle)
        elif isinstance(item, RLE):
            found.append(item)
        elif isinstance(item, np.ndarray) and item.dtype == np.bool_ and item.ndim == 2:
            found.append(encode_mask(item))
        else:
            got = f"{item.dtype} {item.shape}" if isinstance(item, np.ndarray) else type(item)
            raise PromptError(
                f"mask {index} is {got}; wanted a mask of a Segmentation, an RLE, or an array "
                "(H, W) of bools: mask > 0"
            )
    return found


def _pixels(image: EncodedPhoto | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a photo, encoded or not."""
    return image.image if isinstance(image, EncodedPhoto) else image


@torch.no_grad()
def _stack(batches: Iterable[Tensor], width: int) -> NDArray[np.float32]:
    """Rows of all batches, (n, width) float32, also of none."""
    rows = [batch.float().cpu().numpy() for batch in batches]
    return np.concatenate([np.zeros((0, width), np.float32), *rows])
