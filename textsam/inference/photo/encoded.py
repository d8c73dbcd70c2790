"""An encoded photo, and phrases on it: as embedding, as prompt tokens, and as a map.

The image encoder runs once, every prompt uses its output. The map of a phrase holds, for each place
of the photo, the log odds that the phrase is there. The text-aligned features of the photo are
computed once (`EncodedPhoto.text_features`); each further phrase costs one product with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from textsam.clip.pathway import tower_maps
from textsam.errors import WeightsError
from textsam.modeling.huggingface.detectors import DetectorPhoto
from textsam.modeling.image_encoder import ImageFeatures, TimmEncoder
from textsam.modeling.precision import in_float32
from textsam.modeling.prepared_decoder import PreparedImage
from textsam.modeling.sam import Sam
from textsam.values.geometry import Frame, Window
from textsam.values.images import resize_image
from textsam.values.photo import Photo
from textsam.weights.parts import ModelParts

# Logits of a bool mask as a prompt, about as large as the decoder's own where it is sure.
_MASK_LOGIT = 8.0


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class EncodedPhoto:
    """A photo and its encoding by a model; made by `encode_photo`.

    Attributes:
        parts: Networks and settings of the model.
        image: (H, W, 3) uint8 RGB.
        frame: The original and the model frame.
        features: Output of the image encoder.
        origin: The photo as results know it: where to read it again.
    """

    parts: ModelParts
    image: NDArray[np.uint8]
    frame: Frame
    features: ImageFeatures
    origin: Photo

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the photo."""
        return self.frame.size

    @property
    def text_frame(self) -> Frame:
        """Frame of phrase maps, which may be of another size than the SAM's, and stretched."""
        height, width = self.size
        if source := self.parts.map_source:
            return Frame(height=height, width=width, image_size=source.image_size, stretched=True)
        _, pathway = self.parts.require_text()
        return Frame(height=height, width=width, image_size=pathway.config.dense_image_size)

    @cached_property
    @torch.no_grad()
    def prepared(self) -> PreparedImage | None:
        """What decoding needs and no prompt changes, computed at the first prompt.

        None for cores of other projects, which have no such form.
        """
        sam = self.parts.sam
        return sam.prepare(self.features) if isinstance(sam, Sam) else None

    @cached_property
    def text_features(self) -> Tensor:
        """What maps of phrases start from, computed at the first phrase.

        Text-aligned features (1, D, h8, w8), or those of the map source.
        """
        if source := self.parts.map_source:
            return source.encode(self.image)
        return _encode_for_text(self)

    @cached_property
    def concept_features(self) -> Any:
        """What the concept model needs of the photo, computed at the first phrase."""
        return self.parts.require_concept().features(self.features)

    @cached_property
    def detector_photo(self) -> DetectorPhoto:
        """The photo as the detector reads it, with what a further phrase takes from there."""
        return self.parts.require_detector().read(self.image)


def encode_photo(parts: ModelParts, photo: NDArray[np.uint8] | Photo) -> EncodedPhoto:
    """Encode a photo, or pixels (H, W, 3) uint8 RGB."""
    return encode_photos(parts, [photo])[0]


@in_float32
@torch.no_grad()
def encode_photos(
    parts: ModelParts, photos: Sequence[NDArray[np.uint8] | Photo]
) -> list[EncodedPhoto]:
    """Encode photos of any sizes, as many at once as the device likes."""
    size = batch_size(parts)
    encoded: list[EncodedPhoto] = []
    for start in range(0, len(photos), size):
        group = photos[start : start + size]
        origins = [each if isinstance(each, Photo) else Photo(each) for each in group]
        images = [origin.pixels() for origin in origins]
        frames = [_frame_of(parts, origin.size) for origin in origins]
        pixels = [_to_tensor(*pair).to(parts.device) for pair in zip(images, frames, strict=True)]
        features = parts.sam.encode_image(parts.sam.preprocess(pixels))
        encoded += [
            EncodedPhoto(
                parts=parts,
                image=images[index],
                frame=frames[index],
                features=features[index],
                origin=origin,
            )
            for index, origin in enumerate(origins)
        ]
    return encoded


def _frame_of(parts: ModelParts, size: tuple[int, int]) -> Frame:
    config = parts.sam.config
    return Frame(
        height=size[0], width=size[1], image_size=config.image_size, stretched=config.stretched
    )


def batch_size(parts: ModelParts) -> int:
    """Photos that are encoded at once.

    One on a CPU: a batch of 8 takes `tiny` twice as long for each photo, since its activations no
    longer fit into the processor's cache (`python -m training.evaluation.speed`).
    """
    return 1 if parts.device.type == "cpu" else 8


def encode_window(photo: EncodedPhoto, window: Window) -> EncodedPhoto:
    """Encode a window of a photo as a photo of its own."""
    return encode_windows(photo, [window])[0]


def encode_windows(photo: EncodedPhoto, windows: Sequence[Window]) -> list[EncodedPhoto]:
    """Encode windows of a photo as photos of their own."""
    parts = [np.ascontiguousarray(photo.image[window.slices]) for window in windows]
    return encode_photos(photo.parts, parts)


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
        encoder = _timm_encoder(photo.parts)
        maps = list(encoder.pyramid(pixels.to(next(encoder.parameters()).dtype)))
    else:
        maps = tower_maps(clip.model.visual, pixels, strides=pathway.config.dense_strides)
    return pathway.dense.features([each.float() for each in maps])  # encoders may be in half


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


def to_original_frame(logits: Tensor, frame: Frame) -> Tensor:
    """Upscale logits (K, m, m) of the model frame to (K, H, W), bilinear, without the padding."""
    if frame.stretched:  # in one step, as SAM 2's released code
        return F.interpolate(logits[None], frame.size, mode="bilinear", align_corners=False)[0]
    # In two steps, first to the model frame and then to the photo, as in the released code.
    height, width = frame.resized
    full = _to_model_frame(logits, frame)
    cut = full[..., :height, :width]
    if (height, width) == frame.size:
        return cut[0]
    return F.interpolate(cut, frame.size, mode="bilinear", align_corners=False)[0]


def _to_model_frame(logits: Tensor, frame: Frame) -> Tensor:
    """Upscale logits (K, m, m) to (1, K, S, S), bilinear; rows and columns of padding may lack."""
    size, side = logits.shape[-1], frame.image_size
    scale, rest = divmod(side, size)
    rows = columns = size
    if not rest:
        # One cell more than the photo covers: with a whole scale, those beyond change nothing.
        rows, columns = (min(size, n + 1) for n in frame.covered(size))
    inner = logits[None, :, :rows, :columns]
    target = (scale * rows, scale * columns) if not rest else (side, side)
    return F.interpolate(inner, target, mode="bilinear", align_corners=False)


def mask_to_low_res(
    mask: NDArray[np.bool_] | NDArray[np.float32], frame: Frame, size: int
) -> Tensor:
    """A mask of the photo, (H, W) bool or logits, as a mask prompt (1, 1, m, m) of logits."""
    values = torch.from_numpy(np.array(mask, dtype=np.float32))[None, None]
    if mask.dtype == np.bool_:
        values = (2 * values - 1) * _MASK_LOGIT
    inner = frame.covered(size)
    return _pad_grid(F.interpolate(values, inner, mode="area"), size)


def embed_phrases(parts: ModelParts, phrases: Sequence[str]) -> Tensor:
    """Embeddings (P, D) of phrases: unit and centred for the pathway, or the map source's own."""
    if parts.map_source is not None:
        return parts.map_source.embed(phrases)
    clip, pathway = parts.require_text()
    return pathway.centre(clip.encode_text(list(phrases)).to(parts.device), "text")


@torch.no_grad()
def phrase_tokens(parts: ModelParts, embeddings: Tensor) -> Tensor | None:
    """Prompt tokens (P, T, C) of embeddings (P, D); a map source has none, its map is all."""
    if parts.map_source is not None:
        return None
    _, pathway = parts.require_text()
    return torch.as_tensor(pathway(embeddings))


@torch.no_grad()
def map_logits(photo: EncodedPhoto, embeddings: Tensor) -> Tensor:
    """Maps (P, h8, w8) of log odds of embeddings (P, D), in the square of `text_frame`."""
    if source := photo.parts.map_source:
        return source.logits(photo.text_features, embeddings)
    _, pathway = photo.parts.require_text()
    features = photo.text_features.expand(len(embeddings), -1, -1, -1)
    assert pathway.dense is not None
    return pathway.dense.logits(features, embeddings).float().cpu()


def text_map(photo: EncodedPhoto, phrase: str) -> NDArray[np.float32]:
    """Probability of a phrase at each pixel, (H, W) float32."""
    maps = map_logits(photo, embed_phrases(photo.parts, [phrase]))
    return to_original_frame(maps, photo.text_frame)[0].sigmoid().numpy()


def to_mask_prompts(photo: EncodedPhoto, maps: Tensor, frame: Frame | None = None) -> Tensor:
    """Square maps (P, n, n) of a frame, `text_frame` if None, as mask prompts (P, 1, m, m)."""
    frame = frame or photo.text_frame
    size = 4 * photo.features.embedding.shape[-1]
    if frame.stretched == photo.frame.stretched:
        # Both put the photo in the same part of the square, so a resize is all it takes.
        return F.interpolate(maps[:, None], (size, size), mode="bilinear", align_corners=False)
    rows, columns = frame.covered(maps.shape[-1])
    inner = photo.frame.covered(size)
    small = F.interpolate(
        maps[:, None, :rows, :columns], inner, mode="bilinear", align_corners=False
    )
    return _pad_grid(small, size)


def _pad_grid(logits: Tensor, size: int) -> Tensor:
    """Pad (..., rows, columns) at the bottom and right to (..., size, size), surely outside."""
    rows, columns = logits.shape[-2:]
    return F.pad(logits, (0, size - columns, 0, size - rows), value=-_MASK_LOGIT)
