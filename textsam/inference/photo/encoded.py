"""An encoded photo: the image encoder runs once, every prompt uses its output."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from textsam.clip.pathway import tower_maps
from textsam.errors import WeightsError
from textsam.modeling.image_encoder import ImageFeatures, TimmEncoder
from textsam.values.geometry import Frame, Window
from textsam.values.images import resize_image
from textsam.weights.parts import ModelParts

__all__ = ["EncodedPhoto", "encode_photo", "encode_window"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class EncodedPhoto:
    """A photo and its encoding by a model; made by `encode_photo`.

    Attributes:
        parts: Networks and settings of the model.
        image: (H, W, 3) uint8 RGB.
        frame: The original and the model frame.
        features: Output of the image encoder.
    """

    parts: ModelParts
    image: NDArray[np.uint8]
    frame: Frame
    features: ImageFeatures

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the photo."""
        return self.frame.size

    @property
    def text_frame(self) -> Frame:
        """Frame of phrase maps; the dense text head may work at another size than the SAM."""
        _, pathway = self.parts.require_text()
        height, width = self.size
        return Frame(height=height, width=width, image_size=pathway.config.dense_image_size)

    @cached_property
    def text_features(self) -> Tensor:
        """Text-aligned features (1, D, h8, w8), computed at the first phrase.

        Raises:
            WeightsError: The model has no dense text head.
        """
        return _encode_for_text(self)


@torch.no_grad()
def encode_photo(parts: ModelParts, image: NDArray[np.uint8]) -> EncodedPhoto:
    """Encode an image (H, W, 3) uint8 RGB."""
    height, width = image.shape[:2]
    frame = Frame(height=height, width=width, image_size=parts.sam.config.image_size)
    pixels = _to_tensor(image, frame).to(parts.device)
    features = parts.sam.encode_image(parts.sam.preprocess([pixels]))
    return EncodedPhoto(parts=parts, image=image, frame=frame, features=features)


def encode_window(photo: EncodedPhoto, window: Window) -> EncodedPhoto:
    """Encode a window of a photo as a photo of its own."""
    return encode_photo(photo.parts, np.ascontiguousarray(photo.image[window.slices]))


@torch.no_grad()
def _encode_for_text(photo: EncodedPhoto) -> Tensor:
    clip, pathway = photo.parts.require_text()
    if pathway.dense is None:
        raise WeightsError("the text pathway of this model has no dense head, so it has no map")
    frame, sam = photo.text_frame, photo.parts.sam
    by_sam = pathway.config.dense_source == "sam"
    if by_sam and frame == photo.frame:  # the SAM's own encoding serves, nothing runs again
        return pathway.dense.features(photo.features.pyramid)
    pixels = _to_tensor(photo.image, frame)[None].to(photo.parts.device)
    pixels = (pixels - sam.pixel_mean) / sam.pixel_std if by_sam else clip.normalize(pixels)
    bottom, right = frame.padding
    pixels = F.pad(pixels, (0, right, 0, bottom))  # after normalisation: padding is zero, not black
    if by_sam:
        return pathway.dense.features(_timm_encoder(photo.parts).pyramid(pixels))
    maps = tower_maps(clip.model.visual, pixels, strides=pathway.config.dense_strides)
    return pathway.dense.features(maps)


def _to_tensor(image: NDArray[np.uint8], frame: Frame) -> Tensor:
    """(3, h, w) uint8 of the model frame, without padding."""
    return torch.from_numpy(resize_image(image, frame.resized)).permute(2, 0, 1)


def _timm_encoder(parts: ModelParts) -> TimmEncoder:
    encoder = parts.sam.image_encoder
    if not isinstance(encoder, TimmEncoder):
        raise WeightsError(
            f"the text pathway's dense head reads a timm backbone's maps, and {parts.name} has a "
            f"{type(encoder).__name__}: it was trained for another SAM"
        )
    return encoder
