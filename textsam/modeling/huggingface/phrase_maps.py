"""Map sources: networks that tell for each place of a photo how likely a phrase is there.

A map takes the place of the dense text head of a model (`clip/pathway.py`): it finds, and points in
it separate the instances. CLIPSeg (arXiv 2112.10003) is the first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.errors import WeightsError
from textsam.modeling.huggingface.cores import read_network

__all__ = ["ClipSegMaps", "MapSource", "read_map_source"]

_BATCH = 32  # phrases in a pass


class MapSource(Protocol):
    """What inference needs of a network that gives maps of phrases.

    Attributes:
        name: What it was loaded as.
        image_size: Side of its square input, pixels; photos are stretched to it.
    """

    name: str
    image_size: int

    def encode(self, image: NDArray[np.uint8]) -> Tensor:
        """Whatever the maps need of an image (H, W, 3) RGB, computed once per photo."""

    def embed(self, phrases: Sequence[str]) -> Tensor:
        """Embeddings (P, D) of phrases, which do not depend on the photo."""

    def logits(self, features: Tensor, embeddings: Tensor) -> Tensor:
        """Square maps (P, n, n) of log odds, stretched over the photo that the features are of."""

    def to(self, target: str | torch.device | torch.dtype) -> Any:
        """Move the network in place, or change its type; what it returns stays float32."""

    def save(self, folder: Path) -> None:
        """Write a folder that `read_map_source` reads."""


class ClipSegMaps:
    """CLIPSeg (arXiv 2112.10003) of `transformers` as a map source."""

    def __init__(self, model: Any, processor: Any, *, name: str = "clipseg") -> None:
        size = processor.image_processor.size
        if size.get("height") is None or size["height"] != size.get("width"):
            raise WeightsError(
                f"{name} resizes photos to {dict(size)}; wanted a square, e.g. height and width 352"
            )
        self.name = name
        self.image_size = int(size["height"])
        self._model = model.eval()
        self._processor = processor

    @torch.no_grad()
    def encode(self, image: NDArray[np.uint8]) -> Tensor:
        """Activations (L, 1, N, C) of the CLIP image tower, those that the decoder reads."""
        pixels = self._processor.image_processor(images=image, return_tensors="pt").pixel_values
        states = self._model.clip.vision_model(
            pixels.to(self._model.device, self._model.dtype),
            interpolate_pos_encoding=True,
            output_hidden_states=True,
            return_dict=True,
        ).hidden_states
        # The first hidden state is the input of the first layer.
        return torch.stack([states[1 + layer] for layer in self._model.config.extract_layers])

    @torch.no_grad()
    def embed(self, phrases: Sequence[str]) -> Tensor:
        """Embeddings (P, D) of phrases, as typed: CLIPSeg was trained with and without "a"."""
        rows = []
        for start in range(0, len(phrases), _BATCH):
            text = self._processor.tokenizer(
                list(phrases[start : start + _BATCH]),
                padding=True,
                truncation=True,
                return_tensors="pt",
            ).to(self._model.device)
            rows.append(self._model.get_conditional_embeddings(len(text.input_ids), **text))
        return torch.cat(rows)

    @torch.no_grad()
    def logits(self, features: Tensor, embeddings: Tensor) -> Tensor:
        """Maps (P, n, n) of log odds, float32 on the CPU."""
        maps = []
        for phrases in embeddings.split(_BATCH):
            layers = [layer.expand(len(phrases), -1, -1) for layer in features]
            maps.append(self._model.decoder(layers, phrases).logits.float().cpu())
        # A decoder of one phrase drops that axis.
        return torch.cat([part.reshape(-1, *part.shape[-2:]) for part in maps])

    def to(self, target: str | torch.device | torch.dtype) -> ClipSegMaps:
        """Move the network in place, or change its type."""
        self._model.to(target)
        return self

    def save(self, folder: Path) -> None:
        """Write the folder that `transformers` reads."""
        self._model.save_pretrained(folder)
        self._processor.save_pretrained(folder)


def read_map_source(folder: Path, *, name: str) -> MapSource:
    """Load a map source from a folder in hub layout, or raise a `WeightsError`."""
    try:
        kind = json.loads((folder / "config.json").read_text("utf-8")).get("model_type")
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder} has no readable config.json: {error}") from error
    if kind != "clipseg":
        raise WeightsError(
            f"{name} is a {kind!r}, which gives no maps of phrases; wanted a CLIPSeg, e.g. "
            'map_source="CIDAS/clipseg-rd64-refined"'
        )
    from transformers import AutoProcessor, CLIPSegForImageSegmentation

    model = read_network(CLIPSegForImageSegmentation, folder, name=name)
    try:
        processor = AutoProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            folder, local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise WeightsError(f"{name} has no processor that can be read: {error}") from error
    return ClipSegMaps(model, processor, name=name)
