"""Embeddings of a frozen core and a frozen CLIP, computed once and read from disk.

A pathway for ViT-H then trains on one GPU, or overnight on a CPU. Embeddings depend on a source's
row alone, so views must not be jittered or mirrored, and crops come from fixed variants. They lie
in a folder named by a fingerprint of everything they depend on (weights and settings of both
towers), in safetensors files with some rows each (`Shard`). The pixels of a photo are compared by
checksum when it is read: changed data or views are refused.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import quote
from zlib import crc32

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from textsam.clip.encoder import ClipEncoder
from textsam.errors import WeightsError
from textsam.modeling.image_encoder import ImageFeatures
from textsam.modeling.sam import Sam
from textsam.values.files import remove_parts, write_atomically

from ..data import Sample, Source, View, ViewConfig, make_view
from ..data.batch import ViewBatch
from .crops import CropConfig, CropOptions, cut_crops, min_crop_area, variant_options

logger = logging.getLogger(__name__)

# Shards that stay open: a process may have about 1,000 open files.
_MOST_OPEN = 256
_AGAIN = "Type: cache.build(name, source), which computes only what is missing"
_DTYPES = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """What is stored."""

    view: ViewConfig  # As the training has it; without jitter and flip
    # Fixed variants of each mask's crop
    crops: CropConfig = field(default_factory=lambda: CropConfig(variants=4))
    # Rows of a source in one file; ViT-H has 2 MB a photo in half precision
    photos_per_shard: int = 32
    # Of the image embeddings on disk. Those of crops are small and stay float32.
    dtype: Literal["float16", "float32"] = "float16"

    def __post_init__(self) -> None:
        if self.view.jitter or self.view.flip:
            raise ValueError(
                f"jitter is {self.view.jitter}, flip {self.view.flip}; embeddings are computed "
                "beforehand for one view of a photo. Type: ViewConfig(jitter=0.0, flip=0.0)"
            )
        if self.view.min_area < min_crop_area(self.view.image_size):
            raise ValueError(
                f"min_area is {self.view.min_area}; wanted at least "
                f"{min_crop_area(self.view.image_size)} (Appendix D.5). Type: "
                f"ViewConfig(min_area=min_crop_area({self.view.image_size}))"
            )
        if self.crops.variants is None:
            raise ValueError("crops need fixed variants here. Type: CropConfig(variants=4)")
        if self.photos_per_shard < 1:
            raise ValueError(f"photos_per_shard is {self.photos_per_shard}; wanted at least 1")


class BuildReport(NamedTuple):
    """Numbers of shards written and kept, and why rows are missing (row -> reason)."""

    written: int
    kept: int
    skipped: dict[int, str]


class EmbeddingCache:
    """Stored embeddings of one core and one CLIP, in the shards of `folder`."""

    def __init__(
        self, folder: str | Path, sam: Sam, clip: ClipEncoder, *, config: CacheConfig
    ) -> None:
        if sam.config.image_size != config.view.image_size:
            raise ValueError(
                f"views have {config.view.image_size} pixels, the core {sam.config.image_size}; "
                f"type ViewConfig(image_size={sam.config.image_size})"
            )
        self.config = config
        self.fingerprint = fingerprint(sam, clip, config=config)
        self.folder = Path(folder) / self.fingerprint
        self._sam = sam
        self._clip = clip
        self._open: OrderedDict[Path, Shard] = OrderedDict()
        self._verified: set[Path] = set()

    def __deepcopy__(self, memo: dict[int, Any]) -> EmbeddingCache:
        """The same object: a copy of an objective reads the same files."""
        return self

    def build(
        self,
        name: str,
        source: Source | Sequence[Sample],
        *,
        photos: int = 4,
        rank: int = 0,
        world: int = 1,
    ) -> BuildReport:
        """Compute missing and damaged shards; intact ones are kept."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if world == 1:  # else another process may be writing them
            remove_parts(self.folder)
        written, kept, skipped = 0, 0, dict[int, str]()
        count, size = len(source), self.config.photos_per_shard
        for number in range(rank, -(-count // size), world):
            path = shard_path(self.folder, name, number)
            rows = range(number * size, min(count, (number + 1) * size))
            shard = self._whole(path, rows)
            kept += shard is not None
            if shard is None:
                # A damaged shard may still be memory-mapped.
                self._open.pop(path, None)
                write_atomically(path, self._compute(name, source, rows, photos=photos))
                shard = Shard(path, fingerprint=self.fingerprint)
                written += 1
                logger.info("%s: rows %d to %d embedded", name, rows.start, rows.stop)
            skipped |= shard.skipped
        return BuildReport(written, kept, skipped)

    def features(self, batch: ViewBatch, *, device: torch.device | str) -> ImageFeatures:
        """Image embeddings of a batch's photos, float32."""
        photos = []
        for view, (source, row) in zip(batch.views, batch.origin, strict=True):
            photos.append(self._shard(source, row).photo(row, _sum_of_pixels(view)))
        maps = [torch.stack(parts).to(device).float() for parts in zip(*photos, strict=True)]
        return ImageFeatures(embedding=maps[0], skips=tuple(maps[1:]))

    def embeddings(self, batch: ViewBatch, options: CropOptions, chosen: Tensor) -> Tensor:
        """Crop embeddings (n, D) float32 of the chosen masks, (P,) bool."""
        if options.variant is None:
            raise ValueError("these crops are drawn afresh. Type: CropConfig(variants=...)")
        found, position = [], 0
        for view, (source, row) in zip(batch.views, batch.origin, strict=True):
            areas = view.masks.flatten(1).sum(1).tolist()
            for index, area in zip(view.objects, areas, strict=True):
                if chosen[position]:
                    shard = self._shard(source, row)
                    found.append(shard.crops(row, index, area)[int(options.variant[position])])
                position += 1
        return torch.stack(found) if found else torch.empty(0, self._clip.width)

    def _shard(self, source: str, row: int) -> Shard:
        path = shard_path(self.folder, source, row // self.config.photos_per_shard)
        shard = self._open.pop(path, None)
        if shard is None:
            verify = path not in self._verified
            shard = Shard(path, fingerprint=self.fingerprint, verify=verify)
            self._verified.add(path)
        self._open[path] = shard
        if len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)
        return shard

    def _whole(self, path: Path, rows: range) -> Shard | None:
        """An intact shard of these rows."""
        if not path.exists():
            return None
        try:
            shard = Shard(path, fingerprint=self.fingerprint)
        except WeightsError as error:
            logger.warning("%s; computing it again", error)
            return None
        if shard.rows != (rows.start, rows.stop):
            logger.info("%s ends at another row than the source; computing it again", path)
            return None
        return shard

    @torch.no_grad()
    def _compute(
        self, name: str, source: Source | Sequence[Sample], rows: range, *, photos: int
    ) -> bytes:
        """The content of one shard."""
        view_config = replace(self.config.view, max_masks=2**31)
        views: dict[int, View] = {}
        skipped: dict[int, str] = {}
        for row in rows:
            try:
                view = make_view(source[row], np.random.default_rng(0), config=view_config)
            except (ValueError, OSError) as error:
                logger.warning("%s row %d is broken: %s", name, row, error)
                skipped[row] = str(error)
                continue
            if view is None:
                skipped[row] = "no mask of a useful size"
            else:
                views[row] = view
        maps = self._encode(list(views.values()), photos=photos)
        tensors = {f"map_{i}": m.to(_DTYPES[self.config.dtype]) for i, m in enumerate(maps)}
        tensors |= self._crop_tensors(name, views)
        tensors["row"] = torch.tensor(list(views), dtype=torch.int64)
        sums = [_sum_of_pixels(view) for view in views.values()]
        tensors["pixels"] = torch.tensor(sums, dtype=torch.int64)
        metadata = {
            "format": "pt",
            "textsam": "embeddings",
            "fingerprint": self.fingerprint,
            "rows": json.dumps([rows.start, rows.stop]),
            "skipped": json.dumps(skipped),
            "sums": json.dumps({key: crc32(_bytes_of(tensor)) for key, tensor in tensors.items()}),
        }
        return to_bytes(tensors, metadata=metadata)

    def _encode(self, views: Sequence[View], *, photos: int) -> list[Tensor]:
        """Embedding and skips of photos, each (n, C, ...), on the CPU."""
        encoder = self._sam.image_encoder
        learning = encoder.training
        encoder.eval()
        parts = []
        for start in range(0, len(views), photos):
            pixels = self._sam.preprocess([v.pixels for v in views[start : start + photos]])
            features = self._sam.encode_image(pixels)
            parts.append([m.float().cpu() for m in (features.embedding, *features.skips)])
        encoder.train(learning)
        return [torch.cat(maps).contiguous() for maps in zip(*parts, strict=True)]

    def _crop_tensors(self, source: str, views: Mapping[int, View]) -> dict[str, Tensor]:
        """Embeddings (m, V, D) of the masks of all views; their rows, objects and areas (m,)."""
        config = self.config.crops
        assert config.variants is not None
        embeddings, keys = [], []
        for row, view in views.items():
            options = [variant_options(source, row, index, config=config) for index in view.objects]
            rows = []
            for variant in range(config.variants):
                chosen = CropOptions(
                    expand=np.array([expand[variant] for expand, _ in options]),
                    zero_outside=np.array([zeroed[variant] for _, zeroed in options]),
                    variant=None,
                )
                every = np.ones(len(options), bool)
                crops, shares = cut_crops([view], chosen, size=self._clip.image_size, chosen=every)
                rows.append(self._clip.encode_crops(crops, shares).cpu())
            embeddings.append(torch.stack(rows, dim=1))
            areas = view.masks.flatten(1).sum(1).tolist()
            keys += [(row, index, area) for index, area in zip(view.objects, areas, strict=True)]
        empty = torch.empty(0, config.variants, self._clip.width)
        key = torch.tensor(keys, dtype=torch.int64).reshape(-1, 3)
        return {"crops": torch.cat([empty, *embeddings]), "mask": key}


def shard_path(folder: Path, source: str, number: int) -> Path:
    """Where shard `number` of a source lies; the name may hold what a file's name may not."""
    return folder / f"{quote(source, safe='')}-{number:06d}.safetensors"


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


class Shard:
    """A file with embeddings of some rows of a source.

    It is verified once and then read row by row through a memory map.
    """

    def __init__(self, path: Path, *, fingerprint: str, verify: bool = True) -> None:
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
            if crc32(_bytes_of(self._file.get_tensor(name))) != sums[name]:
                raise WeightsError(f"{path} is damaged: checksum of {name!r} differs. {_AGAIN}")
        self.rows: tuple[int, int] = (first, stop)
        self.skipped: dict[int, str] = skipped  # rows that have no embeddings, and why
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


def fingerprint(sam: Sam, clip: ClipEncoder, *, config: CacheConfig) -> str:
    """32 hexadecimal digits that change with anything the stored numbers depend on."""
    view = {k: v for k, v in asdict(config.view).items() if k != "max_masks"}
    settings = {
        "sam": sam.config.to_dict(),
        "clip": [clip.name, clip.config, clip.image_size, clip.mean, clip.std],
        "view": view,
        "crops": asdict(config.crops),
        "stored": [config.photos_per_shard, config.dtype],
    }
    digest = blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=16)
    for tower in (sam.image_encoder, clip.model.visual):
        for name, tensor in sorted(tower.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(_bytes_of(tensor.detach().cpu()))
    return digest.hexdigest()


def _sum_of_pixels(view: View) -> int:
    return crc32(_bytes_of(view.pixels.cpu()), crc32(str(tuple(view.pixels.shape)).encode()))
