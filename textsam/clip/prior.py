"""A class prior: an ImageNet classifier adds what it knows to CLIP's image embeddings.

A CNN tower that started from an ImageNet classifier can still use the classifier's last layer. The
text embeddings of the class names, averaged with its probabilities (ConSE, arXiv 1312.5650), place
a crop near names that no training mask had. This average, weighted by how certain the classifier
is, is added to the embedding of CLIP's own head.

The prior is saved in a file of its own, so that open_clip can still load the other weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textsam.errors import WeightsError
from textsam.modeling.tensor_files import read_metadata, read_tensors, write_tensors

__all__ = ["PRIOR_FILE", "ClassPrior", "HeadWithPrior", "attach_prior", "read_prior", "write_prior"]

PRIOR_FILE = "class_prior.safetensors"


class ClassPrior(nn.Module):
    """A linear classifier whose prediction is a mixture of text embeddings."""

    weight: Tensor  # (K, C) of the classifier, over the tower's pooled features
    bias: Tensor  # (K,) of the classifier
    names: Tensor  # (K, D) unit text embeddings of the class names

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        names: Tensor,
        *,
        share: float = 0.5,
        max_classes: int = 10,
    ) -> None:
        """Take the classifier; `max_classes` is the number of likeliest classes that are mixed."""
        super().__init__()
        if weight.ndim != 2 or bias.shape != weight.shape[:1] or len(names) != len(weight):
            raise ValueError(
                f"weight {tuple(weight.shape)}, bias {tuple(bias.shape)}, names "
                f"{tuple(names.shape)}; wanted (K, C), (K,) and (K, D)"
            )
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.register_buffer("names", names)
        self.share = share  # length of a fully certain prediction; the head's embedding has 1
        self.max_classes = min(max_classes, len(weight))

    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled features (n, C) -> (n, D) of length `share` times the highest probability."""
        logits = pooled @ self.weight.T + self.bias
        probabilities, classes = logits.softmax(-1).topk(self.max_classes)
        mixture = (probabilities[..., None] * self.names[classes]).sum(1)
        # The highest probability comes first: topk sorts.
        return self.share * probabilities[:, :1] * F.normalize(mixture, dim=-1)


class HeadWithPrior(nn.Module):
    """An image head whose embedding is added to the mixture of a `ClassPrior`."""

    def __init__(self, head: nn.Module, prior: ClassPrior) -> None:
        super().__init__()
        self.head = head
        self.prior = prior

    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled features (n, C) -> embeddings (n, D), not of unit length."""
        return torch.as_tensor(F.normalize(self.head(pooled), dim=-1) + self.prior(pooled))


def attach_prior(model: Any, prior: ClassPrior) -> None:
    """Add a prior to an open_clip model with a timm CNN tower, replacing an earlier one."""
    head = model.visual.head
    if isinstance(head, HeadWithPrior):
        head = head.head
    features, width = getattr(model.visual.trunk, "num_features", None), prior.weight.shape[1]
    if features != width:
        raise WeightsError(
            f"the class prior is for a tower of {width} features, this one has {features}"
        )
    model.visual.head = HeadWithPrior(head, prior)


def write_prior(path: Path, prior: ClassPrior, *, dtype: torch.dtype | None = None) -> None:
    """Write a prior; its tensors are stored as `dtype`, by default as they are in memory."""
    metadata = {"share": f"{prior.share:g}", "most": f"{prior.max_classes}"}
    write_tensors(path, prior.state_dict(), dtype=dtype, metadata=metadata)


def read_prior(path: Path) -> ClassPrior:
    """Read what `write_prior` wrote, as float32; a `WeightsError` for anything else."""
    tensors, metadata = read_tensors(path), read_metadata(path)
    try:
        return ClassPrior(
            *(tensors[key].float() for key in ("weight", "bias", "names")),
            share=float(metadata["share"]),
            max_classes=int(metadata["most"]),
        )
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path} is not a class prior: {error!r}") from error
