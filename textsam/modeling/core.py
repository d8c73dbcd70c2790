"""What inference needs of a promptable network: `Sam`, or an adapter around another project's.

Images, prompts and masks are as in `Sam`: encode an image once, decode any number of prompts on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from textsam.modeling.image_encoder import ImageFeatures
from textsam.modeling.mask_decoder import MaskPrediction, PromptBatch

__all__ = ["Core", "CoreConfig"]


class CoreConfig(Protocol):
    """Sizes of a core; `SamConfig` has them."""

    @property
    def image_size(self) -> int:
        """Side S of the square model frame, model pixels."""

    @property
    def stretched(self) -> bool:
        """Whether images fill the square, or keep their aspect and are padded; see `Frame`."""

    @property
    def embed_dim(self) -> int:
        """Channels C of the image embedding."""

    @property
    def mask_size(self) -> int:
        """Side m of mask prompts and of the decoder's logits, cells."""

    @property
    def pixel_mean(self) -> tuple[float, float, float]:
        """Mean of RGB in 0..255, the colour that is zero after normalisation."""

    @property
    def pixel_std(self) -> tuple[float, float, float]:
        """Standard deviation of RGB in 0..255."""


class Core(Protocol):
    """A network that encodes images and decodes prompts; always also an `nn.Module`."""

    pixel_mean: Tensor  # (3, 1, 1), on the device of the network
    pixel_std: Tensor

    @property
    def config(self) -> CoreConfig:
        """Sizes and pixel statistics."""

    @property
    def image_encoder(self) -> nn.Module:
        """The part whose weights decide what `encode_image` returns."""

    def preprocess(self, images: Sequence[Tensor]) -> Tensor:
        """B images (3, h, w), RGB in 0..255 and of size `Frame.resized` -> (B, 3, S, S) float."""

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """Encode (B, 3, S, S) once; any number of `decode` calls may follow."""

    def decode(self, features: ImageFeatures, prompts: PromptBatch) -> MaskPrediction:
        """P prompts in the model frame -> four masks each, as `MaskPrediction` describes them."""

    def to(self, device: str | torch.device) -> Any:
        """Move the network in place."""

    def eval(self) -> Any:
        """Turn off dropout and the like, and return the network."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All weights that training may change."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors by name."""
