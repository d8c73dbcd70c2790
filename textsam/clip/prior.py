"""What a classifier knows about names that nobody trained the image head on.

A CNN tower that starts from an ImageNet classifier keeps a use for the classifier's last layer: the
embeddings of its class names, mixed by its probabilities (ConSE, arXiv 1312.5650), place a crop
near a name that no training mask ever bore. The mixture is added to the head's own embedding, by
how sure the classifier is. It lies beside the weights in a file of its own, so that open_clip still
loads the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from textsam.errors import WeightsError

__all__ = ["PRIOR_FILE", "ClassPrior", "HeadWithPrior", "attach_prior", "read_prior", "write_prior"]

PRIOR_FILE = "class_prior.safetensors"


class ClassPrior(nn.Module):
    """A classifier's opinion in the space of text embeddings.

    Attributes:
        weight: (K, C) of the linear classifier over the tower's pooled features.
        bias: (K,).
        names: (K, D) unit text embeddings of its class names.
        share: How much a certain opinion counts beside the head's unit embedding.
        most: Classes that are mixed (ConSE's T).
    """

    weight: Tensor
    bias: Tensor
    names: Tensor

    def __init__(
        self, weight: Tensor, bias: Tensor, names: Tensor, *, share: float = 0.5, most: int = 10
    ) -> None:
        super().__init__()
        if weight.ndim != 2 or bias.shape != weight.shape[:1] or len(names) != len(weight):
            raise ValueError(
                f"weight {tuple(weight.shape)}, bias {tuple(bias.shape)}, names "
                f"{tuple(names.shape)}; wanted (K, C), (K,) and (K, D)"
            )
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.register_buffer("names", names)
        self.share = share
        self.most = min(most, len(weight))

    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled features (n, C) -> (n, D): the opinion, as long as `share` times its certainty."""
        logits = pooled @ self.weight.T + self.bias
        probability, classes = logits.softmax(-1).topk(self.most)
        mixed = (probability[..., None] * self.names[classes]).sum(1)
        opinion = self.share * probability[:, :1] * F.normalize(mixed, dim=-1)
        return torch.as_tensor(opinion)


class HeadWithPrior(nn.Module):
    """An image head whose embedding a `ClassPrior` is added to."""

    def __init__(self, head: nn.Module, prior: ClassPrior) -> None:
        super().__init__()
        self.head = head
        self.prior = prior

    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled features (n, C) -> embeddings (n, D), not of unit length."""
        return torch.as_tensor(F.normalize(self.head(pooled), dim=-1) + self.prior(pooled))


def attach_prior(model: Any, prior: ClassPrior) -> None:
    """Let an open_clip model with a timm CNN tower use a prior, in place of one that it has.

    Raises:
        WeightsError: The prior was made for another tower.
    """
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
    """Write a prior; `dtype` is that of the file, as in memory when None."""
    tensors = {
        key: value.detach().to(dtype).cpu().contiguous()
        for key, value in prior.state_dict().items()
    }
    save_file(
        tensors,
        path,
        metadata={"format": "pt", "share": f"{prior.share:g}", "most": f"{prior.most}"},
    )


def read_prior(path: Path) -> ClassPrior:
    """Read what `write_prior` wrote, as float32.

    Raises:
        WeightsError: The file is damaged or something else.
    """
    from safetensors import safe_open

    try:
        tensors = {key: value.float() for key, value in load_file(path).items()}
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return ClassPrior(
            tensors["weight"],
            tensors["bias"],
            tensors["names"],
            share=float(metadata["share"]),
            most=int(metadata["most"]),
        )
    except (SafetensorError, KeyError, ValueError) as error:
        raise WeightsError(f"{path} is damaged or no class prior: {error}") from error
