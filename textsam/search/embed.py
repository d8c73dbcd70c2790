"""`Embedder`: vectors of masks, by what they show (masked CLIP) and how they look (SAM latents).

    embedder = Embedder("tiny")
    vectors = embedder.masks("street.jpg", segmentation)
    vectors["clip"] @ embedder.text("striped sail")

There are two spaces. "clip" is the masked CLIP embedding that the text pathway is trained on
(arXiv 2304.02643, Appendix D.5), and phrases are vectors of it too. "sam" is the SAM's latents
(Appendix D.6), which have no phrases and need no CLIP. Vectors can be compared only if their
`VectorSpace` is equal: its hash covers the weights and everything between photo and network.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from textsam.clip.mask_crops import crop_batches
from textsam.errors import PromptError, unknown_attribute
from textsam.inference.model import TextSAM
from textsam.inference.photo.encoded import EncodedPhoto, encode_photo
from textsam.inference.photo.sam_embedding import Latents, crop_latents, photo_latents
from textsam.inference.view import ImageView
from textsam.modeling.precision import in_float32
from textsam.results.mask_result import MaskResult
from textsam.results.segmentation import Segmentation
from textsam.search.records import MaskVectors, SpaceName, VectorSpace
from textsam.values.images import ImageSource, load_image
from textsam.values.rle import RLE, encode_mask

Photo: TypeAlias = "ImageView | EncodedPhoto | ImageSource"
Masks: TypeAlias = Segmentation | MaskResult | RLE | NDArray[np.bool_] | Sequence[Any]

# Raise it when the same settings and weights give other vectors than before.
_VERSION = 1
_EXPAND = 1.5  # the middle of the paper's 1x to 2x (Appendix D.5), as in `strategy="rank"`
_HASH_DIGITS = 16  # 64 bits: among a million hashes two are equal with a probability of 3e-8
_ADVICE = {
    "encode": "embedder.text(phrase), or embedder.masks(photo, masks)",
    "similarity": 'vectors["clip"] @ embedder.text(phrase); these are cosines',
}


class Embedder:
    """Embeds masks and phrases with one model.

    Attributes:
        model: A SAM and, if it has one, its CLIP.
        latents: "crops" as in the paper, two passes of the image encoder for each mask; or "photo",
            one encoding of the photo for all its masks: cheaper, but coarse for small masks.
        expand: Side of a crop as a multiple of the longer side of the mask's box, at least 1.
        sam_batch: Crops in a pass of the SAM's image encoder.
        clip_batch: Crops in a pass of CLIP's image tower.
    """

    def __init__(
        self,
        model: TextSAM | str | Path,
        *,
        latents: Latents = "crops",
        spaces: Iterable[SpaceName] | None = None,
        expand: float = _EXPAND,
        sam_batch: int = 8,
        clip_batch: int = 32,
    ) -> None:
        """Choose what is embedded, and how; for most arguments see the attributes.

        The model may be what `TextSAM.from_pretrained` takes: a name, a folder or a file. `spaces`
        are "clip", "sam" or both; by default all that the model has.

        Raises:
            PromptError: An unknown option, or a number below 1.
            WeightsError: The model cannot be loaded, or "clip" of a model without CLIP.
        """
        if latents not in get_args(Latents):
            raise PromptError(f"latents={latents!r}; wanted one of {list(get_args(Latents))}")
        if min(sam_batch, clip_batch) < 1 or not expand >= 1:
            raise PromptError(
                f"sam_batch={sam_batch}, clip_batch={clip_batch}, expand={expand}; wanted at least "
                "1 of each"
            )
        model = load_model(model)
        available = ["clip", "sam"] if model.clip is not None else ["sam"]
        names = available if spaces is None else list(dict.fromkeys(spaces))
        if not names or not set(names) <= set(get_args(SpaceName)):
            raise PromptError(f"spaces={names}; wanted some of {list(get_args(SpaceName))}")
        if "clip" in names:
            model.parts.require_clip()
        self.model = model
        self.latents: Latents = latents
        self.expand = float(expand)
        self.sam_batch = sam_batch
        self.clip_batch = clip_batch
        self._names = tuple(names)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "tiny",
        *,
        clip: str | Path | None = None,
        device: str | None = None,
        dtype: str | None = None,
        **options: Any,
    ) -> Embedder:
        """Load a model as `TextSAM.from_pretrained` and make its embedder with more options.

        A partial of this is what Ray's workers call.
        """
        loaded = TextSAM.from_pretrained(model, clip=clip, device=device, dtype=dtype)
        return cls(loaded, **options)

    @classmethod
    def for_spaces(cls, model: TextSAM, spaces: Mapping[SpaceName, VectorSpace]) -> Embedder:
        """The embedder of a model whose vectors are in given spaces, for example those of an index.

        If they are empty or do not fit the model, the embedder is like any other, and the index
        refuses its vectors.
        """
        # A space stores how latents are made only as a hash, so both ways are tried.
        for latents in get_args(Latents) if "sam" in spaces else get_args(Latents)[:1]:
            embedder = cls(model, latents=latents, spaces=list(spaces) or None)
            if all(embedder.spaces[name] == space for name, space in spaces.items()):
                break
        return embedder

    def __repr__(self) -> str:
        return f"Embedder({self.model!r}, {'+'.join(self._names)}, latents={self.latents!r})"

    @cached_property
    def spaces(self) -> Mapping[SpaceName, VectorSpace]:
        """The spaces of the vectors of `masks`; hashes all weights at the first use."""
        spaces: dict[SpaceName, VectorSpace] = {}
        settings: dict[str, Any]
        if "clip" in self._names:
            clip = self.model.parts.require_clip()
            settings = {"size": clip.image_size, "mean": clip.mean, "std": clip.std}
            settings |= {"version": _VERSION, "expand": self.expand, "templates": clip.templates}
            hashed = fingerprint(settings, clip.model)
            spaces["clip"] = VectorSpace(
                name="clip", width=clip.width, model=clip.name, preprocessing=hashed
            )
        if "sam" in self._names:
            sam, config = self.model.sam, self.model.sam.config
            settings = {
                "size": config.image_size,
                "mean": config.pixel_mean,
                "std": config.pixel_std,
            }
            settings |= {"version": _VERSION, "latents": self.latents}
            # Only where it is so, since indices of padding cores exist already.
            settings |= {"stretched": True} if config.stretched else {}
            # Latents of the whole photo do not depend on the size of crops.
            settings |= {"expand": self.expand} if self.latents == "crops" else {}
            hashed = fingerprint(settings, sam.image_encoder)
            spaces["sam"] = VectorSpace(
                name="sam", width=config.embed_dim, model=self.model.name, preprocessing=hashed
            )
        return spaces

    @in_float32
    def text(self, phrase: str) -> NDArray[np.float32]:
        """Embed a phrase in the space "clip".

        Returns:
            (D,) float32 of length 1.

        Raises:
            PromptError: An empty phrase, several, or an embedder without the space "clip".
            WeightsError: The model has no CLIP.
        """
        clip = self.model.parts.require_clip()
        if "clip" not in self._names:
            raise PromptError('this embedder has no space "clip", which phrases need: spaces=None')
        if not isinstance(phrase, str):
            raise PromptError(
                f"got phrase={phrase!r}; wanted one phrase. For several type: "
                "np.stack([embedder.text(phrase) for phrase in phrases])"
            )
        [vector] = _stack([clip.encode_text(phrase)], clip.width)
        return np.asarray(vector)

    def masks(self, image: Photo, masks: Masks) -> MaskVectors:
        """Embed masks of one photo.

        Args:
            image: An open photo (`TextSAM.open`), whose encoding is used, or whatever
                `textsam.load_image` takes.
            masks: A `Segmentation`, one of its masks, RLEs, or bool masks (H, W) or (n, H, W).

        Returns:
            n vectors in each of `spaces`, in the order of the masks.

        Raises:
            ImageError: The photo cannot be read.
            PromptError: A mask is empty, has another size than the photo, or is no mask.
        """
        return self.photos([(image, masks)])[0]

    @in_float32
    def photos(self, photos: Iterable[tuple[Photo, Masks]]) -> list[MaskVectors]:
        """Embed masks of several photos, in batches across photos; raises as `masks`.

        Args:
            photos: Photos with their masks, as for `masks`. All are decoded at once, so pass some
                dozens at a time.
        """
        pairs = [_checked_photo(image, masks) for image, masks in photos]
        decoded = [(_pixels(image), rles) for image, rles in pairs]
        vectors: dict[SpaceName, NDArray[np.float32]] = {}
        if "clip" in self._names:
            clip = self.model.parts.require_clip()
            crops = crop_batches(
                decoded, size=clip.image_size, expand=self.expand, batch=self.clip_batch
            )
            vectors["clip"] = _stack((clip.encode_crops(*batch) for batch in crops), clip.width)
        if "sam" in self._names:
            sam, rows = self.model.sam, self._photo_latents(pairs)
            if self.latents == "crops":
                rows = crop_latents(sam, decoded, expand=self.expand, batch=self.sam_batch)
            vectors["sam"] = _stack(rows, sam.config.embed_dim)
        # Batches ran across photos, so the vectors are handed back by the numbers of masks.
        ends = np.cumsum([len(rles) for _, rles in pairs])[:-1]
        parts = {name: np.split(rows, ends) for name, rows in vectors.items()}
        return [
            MaskVectors(spaces=self.spaces, vectors={name: parts[name][i] for name in parts})
            for i in range(len(pairs))
        ]

    def _photo_latents(
        self, photos: Sequence[tuple[EncodedPhoto | NDArray[np.uint8], list[RLE]]]
    ) -> Iterator[Tensor]:
        for image, rles in photos:
            if rles:  # a photo without masks need not be encoded
                if not isinstance(image, EncodedPhoto):
                    image = encode_photo(self.model.parts, image)
                yield photo_latents(image, rles)

    if not TYPE_CHECKING:  # a type checker should know of the real attributes only

        def __getattr__(self, name: str) -> Any:
            raise unknown_attribute(self, name, _ADVICE)


def load_model(model: TextSAM | str | Path) -> TextSAM:
    """The model itself, or the one of a name, folder or file."""
    if isinstance(model, str | Path):
        return TextSAM.from_pretrained(model)
    if not isinstance(model, TextSAM):
        raise PromptError(
            f"got model={model!r}; wanted a name such as 'tiny', a folder or file of weights, or a "
            "TextSAM"
        )
    return model


def fingerprint(settings: Mapping[str, Any], network: nn.Module) -> str:
    """Hash settings, in any order, and every weight and buffer of a network: 16 hex digits.

    The weights are hashed as they are in memory: a model in float16 makes other vectors than the
    same model in float32, so its hash differs. This takes some seconds for gigabytes.
    """
    digest = hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode())
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        # As bytes, since numpy has no bfloat16; reshaped, since a scalar has no axis to view by.
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()[:_HASH_DIGITS]


def _checked_photo(
    image: Photo, masks: Masks
) -> tuple[EncodedPhoto | NDArray[np.uint8], list[RLE]]:
    """A photo, encoded or decoded, and its masks, which are not empty and of its size."""
    if isinstance(image, ImageView):
        image = image.photo
    photo = image if isinstance(image, EncodedPhoto) else load_image(image)
    size = _pixels(photo).shape[:2]
    rles = _rles(masks)
    for number, rle in enumerate(rles):
        if rle.size != size:
            raise PromptError(
                f"mask {number} has size {rle.size}, the photo {size} (height, width); wanted "
                "masks of this photo"
            )
        if rle.is_empty:
            raise PromptError(
                f"mask {number} is empty: there is nothing to embed. Type: masks[masks.areas > 0]"
            )
    return photo, rles


def _rles(masks: Masks) -> list[RLE]:
    """The run-length codes of masks in any form."""
    if isinstance(masks, Segmentation):
        return masks.rles
    if isinstance(masks, RLE | MaskResult) or (isinstance(masks, np.ndarray) and masks.ndim == 2):
        masks = [masks]
    rles: list[RLE] = []
    for number, item in enumerate(masks):
        if isinstance(item, MaskResult):
            rles.append(item.rle)
        elif isinstance(item, RLE):
            rles.append(item)
        elif isinstance(item, np.ndarray) and item.dtype == np.bool_ and item.ndim == 2:
            rles.append(encode_mask(item))
        else:
            got = f"{item.dtype} {item.shape}" if isinstance(item, np.ndarray) else type(item)
            raise PromptError(
                f"mask {number} is {got}; wanted a mask of a Segmentation, an RLE, or an array "
                "(H, W) of bools: mask > 0"
            )
    return rles


def _pixels(image: EncodedPhoto | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a photo, encoded or not."""
    return image.image if isinstance(image, EncodedPhoto) else image


@torch.no_grad()
def _stack(batches: Iterable[Tensor], width: int) -> NDArray[np.float32]:
    """The rows of all batches, (n, width) float32; (0, width) without batches."""
    # float(): numpy has no bfloat16, and vectors of every precision are stored alike.
    rows = [batch.float().cpu().numpy() for batch in batches]
    return np.concatenate([np.zeros((0, width), np.float32), *rows])
