"""Writing a CLIP as the folder that `textsam.clip.loading` and open_clip read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textsam.clip.loading import CONFIG_FILE, WEIGHT_FILES, Tokenizer
from textsam.clip.prior import PRIOR_FILE, HeadWithPrior, write_prior

__all__ = ["write_clip"]


def write_clip(
    folder: Path,
    model: Any,
    tokenizer: Tokenizer,
    *,
    config: Mapping[str, Any],
    dtype: torch.dtype | None,
) -> None:
    """Write configuration, weights, tokenizer and, if there is one, the class prior.

    Args:
        folder: Created if it is not there.
        model: An open_clip model.
        tokenizer: Written if it can be.
        config: `model_cfg`, `preprocess_cfg` and `textsam`, whose `name` goes into the weights too.
        dtype: Of floating weights in the file; as in memory when None.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
    head = getattr(model.visual, "head", None)
    if isinstance(head, HeadWithPrior):
        write_prior(folder / PRIOR_FILE, head.prior, dtype=dtype)
    tensors = {
        key: value.detach().to(dtype if value.is_floating_point() else None).cpu().contiguous()
        for key, value in _without_prior(model).items()
    }
    metadata = {"format": "pt", "name": config["textsam"]["name"]}
    save_file(tensors, folder / WEIGHT_FILES[0], metadata=metadata)
    if hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(folder)


def _without_prior(model: Any) -> dict[str, Tensor]:
    """The weights under the keys that open_clip knows: the prior lies in a file of its own."""
    state: dict[str, Tensor] = model.state_dict()
    if not isinstance(getattr(model.visual, "head", None), HeadWithPrior):
        return state
    return {
        key.replace("visual.head.head.", "visual.head."): value
        for key, value in state.items()
        if not key.startswith("visual.head.prior.")
    }
