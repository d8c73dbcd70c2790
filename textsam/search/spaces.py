"""Which vectors may be compared with which: same network, same way into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["MaskVectors", "SpaceName", "VectorSpace"]

SpaceName = Literal["clip", "sam"]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class VectorSpace:
    """Where vectors come from; two of them compare only if their spaces are equal.

    Attributes:
        name: "clip", masked CLIP, which text reaches too; or "sam", the SAM's latents
            (arXiv 2304.02643, Appendix D.6), which no text reaches.
        width: Length of a vector.
        model: Id of the network that made them.
        preprocessing: Hash of everything between the photo and the network (crop, size, mean, how
            the mask is applied) and of the network's weights.
    """

    name: SpaceName
    width: int
    model: str
    preprocessing: str


@dataclass(frozen=True, kw_only=True)
class MaskVectors:
    """The embeddings of N masks.

    Attributes:
        spaces: The spaces that have vectors, by name.
        vectors: (N, width) float32 of length 1 for each of them.
    """

    spaces: Mapping[SpaceName, VectorSpace]
    vectors: Mapping[SpaceName, FloatArray]

    def __len__(self) -> int:
        return len(next(iter(self.vectors.values()))) if self.vectors else 0
