"""What an image encoder returns: one frozen value that the decoder reads."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["ImageFeatures"]


@dataclass(frozen=True, kw_only=True)
class ImageFeatures:
    """Features of B images, all in the padded square model frame.

    Attributes:
        embedding: (B, C, s, s) at stride 16, the only part that every encoder has.
        skips: Maps to add while the decoder upscales: (B, C/4, 2s, 2s) and (B, C/8, 4s, 4s); empty
            for encoders without them.
        pyramid: The backbone's own maps (B, C_i, S / stride, S / stride), finest first, for a dense
            text head that reads the core (`textsam.clip.dense`); empty for plain ViTs.
    """

    embedding: Tensor
    skips: tuple[Tensor, ...] = ()
    pyramid: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        """Number of images B."""
        return len(self.embedding)

    def __getitem__(self, index: int | slice | Tensor) -> ImageFeatures:
        """Select images; an int keeps the batch axis, so the result is always batched."""
        if isinstance(index, int):
            index = slice(index, index + 1)
        return ImageFeatures(
            embedding=self.embedding[index],
            skips=tuple(x[index] for x in self.skips),
            pyramid=tuple(x[index] for x in self.pyramid),
        )

    def of_prompts(self, image_index: Tensor) -> ImageFeatures:
        """Features of each prompt's image, without the pyramid; those of one image are not copied.

        Args:
            image_index: (P,) int64.
        """
        maps = (self.embedding, *self.skips)
        if len(self) == 1:
            maps = tuple(x.expand(len(image_index), -1, -1, -1) for x in maps)
        else:
            maps = tuple(x[image_index] for x in maps)
        return ImageFeatures(embedding=maps[0], skips=maps[1:])
