"""Reading and writing safetensors files, the weights of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from textsam.errors import WeightsError
from textsam.modeling.file_kinds import describe_foreign_file
from textsam.values.files import write_atomically

__all__ = ["read_metadata", "read_tensors", "write_tensors"]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU; a `WeightsError` if missing or damaged."""
    with _weights_errors(path):
        return load_file(path)


def read_metadata(path: Path) -> dict[str, str]:
    """Read what a safetensors file says about itself; raises as `read_tensors`."""
    with _weights_errors(path), safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


@contextmanager
def _weights_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise WeightsError(f"there is no file {path}") from error
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            describe_foreign_file(path) or f"{path} is damaged or not a safetensors file: {error}"
        ) from error


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    *,
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a safetensors file, complete or not at all; `dtype` is that of floating tensors."""
    stored = {
        key: value.detach()
        .to(dtype if value.is_floating_point() else None)
        .cpu()
        .contiguous()  # safetensors refuses views
        for key, value in tensors.items()
    }
    write_atomically(path, save(stored, metadata={"format": "pt", **(metadata or {})}))
