"""A short hash of a way to embed: settings and weights, so that unlike vectors are told apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["fingerprint"]

_DIGITS = 16  # 64 bits: two of a million ways are the same with a chance of 3e-8


def fingerprint(settings: Mapping[str, Any], network: nn.Module) -> str:
    """Hash settings and every weight and buffer of a network.

    The weights count as they are in memory: those of a model in float16 are others than its
    float32 ones, and give other vectors. Where the network lies does not count.

    Args:
        settings: Values that JSON knows; their order does not count.
        network: Its whole state is read, some seconds for gigabytes.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode())
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        # As bytes, since numpy has no bfloat16; `reshape` because a number has no axis to view by.
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()[:_DIGITS]
