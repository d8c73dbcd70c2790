"""A file of stored embeddings, verified once and then read row by row through a memory map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zlib import crc32

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from textsam.errors import WeightsError

_AGAIN = "Type: cache.build(name, source), which computes only what is missing"


def shard_path(folder: Path, source: str, number: int) -> Path:
    """Where shard `number` of a source lies; the name may hold what a file's name may not."""
    return folder / f"{quote(source, safe='')}-{number:06d}.safetensors"


def sum_of(tensor: Tensor) -> int:
    """CRC-32 of a tensor's bytes."""
    return crc32(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


class Shard:
    """Embeddings of some rows of a source.

    Attributes:
        rows: First row and the one after the last.
        skipped: Rows in between that have no embeddings, and why.
    """

    def __init__(self, path: Path, *, fingerprint: str, verify: bool = True) -> None:
        """Open a shard."""
        self.path = path
        if not path.exists():
            raise WeightsError(f"there are no embeddings {path}. {_AGAIN}")
        try:
            self._file: Any = safe_open(path, framework="pt").__enter__()
        except SafetensorError as error:
            raise WeightsError(f"{path} is damaged: {error}. {_AGAIN}") from error
        metadata = self._file.metadata() or {}
        if metadata.get("fingerprint") != fingerprint:
            raise WeightsError(f"{path} holds embeddings of other towers or settings. {_AGAIN}")
        names = set(self._file.keys())
        try:
            sums = json.loads(metadata["sums"])
            first, stop = json.loads(metadata["rows"])
            skipped = {int(row): str(why) for row, why in json.loads(metadata["skipped"]).items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WeightsError(f"{path} is damaged: its header lacks {error}. {_AGAIN}") from error
        if set(sums) != names:
            raise WeightsError(f"{path} is damaged: it holds {sorted(names)}. {_AGAIN}")
        for name in sorted(names) if verify else ():
            if sum_of(self._file.get_tensor(name)) != sums[name]:
                raise WeightsError(f"{path} is damaged: checksum of {name!r} differs. {_AGAIN}")
        self.rows: tuple[int, int] = (first, stop)
        self.skipped: dict[int, str] = skipped
        rows = self._file.get_tensor("row").tolist()
        self._photos = {row: place for place, row in enumerate(rows)}
        self._pixels: list[int] = self._file.get_tensor("pixels").tolist()
        self._masks: dict[tuple[int, int], tuple[int, int]] = {
            (row, index): (place, area)
            for place, (row, index, area) in enumerate(self._file.get_tensor("mask").tolist())
        }
        self._maps = sorted(name for name in names if name.startswith("map_"))

    def photo(self, row: int, pixels: int) -> tuple[Tensor, ...]:
        """Maps of a photo, (C, ...) each, as stored."""
        place = self._photos.get(row)
        if place is None:
            reason = self.skipped.get(row, "it is not among its rows")
            raise WeightsError(f"{self.path} has no photo of row {row}: {reason}. {_AGAIN}")
        if self._pixels[place] != pixels:
            raise WeightsError(
                f"row {row} of {self.path} was embedded from other pixels: the source changed, or "
                "the view is jittered. Remove the file, or type ViewConfig(jitter=0.0, flip=0.0)"
            )
        return tuple(self._file.get_slice(name)[place : place + 1][0] for name in self._maps)

    def crops(self, row: int, index: int, area: int) -> Tensor:
        """Embeddings (V, D) of object `index` of a row, whose mask has `area` pixels."""
        place, stored = self._masks.get((row, index), (None, 0))
        if place is None or stored != area:
            what = "is not stored" if place is None else f"was stored with {stored} pixels"
            raise WeightsError(
                f"object {index} of row {row}, {area} pixels, {what} in {self.path}: the source "
                "changed. Remove the file and build it again"
            )
        crops: Tensor = self._file.get_slice("crops")[place : place + 1][0]
        return crops
