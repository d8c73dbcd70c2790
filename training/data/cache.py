"""A source kept decoded on disk: photos as raw pixels, masks as run lengths.

For photos larger than the training frame: a view of three megapixels takes a third of the time from
a cache at 1024 px. Photos of 400 px gain a tenth, for twenty times their space.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from textsam.values.geometry import Frame
from textsam.values.images import resize_image
from textsam.values.rle import RLE, decode_rle, encode_mask, rle_from_json, rle_to_json

from .sample import ObjectMask, Sample
from .source import Source


class CachedSource:
    """Another source whose photos are decoded once.

    Views do not change, unless `long_side` makes photos smaller. Several processes may fill one
    cache: files are written under another name and then moved.
    """

    def __init__(self, source: Source, folder: Path | str, *, long_side: int | None = None) -> None:
        if long_side is not None and long_side < 1:
            raise ValueError(f"long_side={long_side}; wanted at least 1 pixel")
        self.source = source
        self.folder = Path(folder)
        self.long_side = long_side
        self.folder.mkdir(parents=True, exist_ok=True)
        said = {
            "source": getattr(source, "name", ""),
            "photos": len(source),
            "long_side": long_side,
        }
        about = self.folder / "cache.json"
        if not about.exists():
            _write(about, json.dumps(said).encode())
        # Written by whichever process came first; the others compare.
        if (there := json.loads(about.read_bytes())) != said:
            raise ValueError(
                f"{self.folder} holds the cache of {there}; this is {said}. Give another folder, "
                "or delete it"
            )

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        about = self.folder / f"{index:08d}.json"
        photo = about.with_suffix(".ppm")
        try:
            content = json.loads(about.read_bytes())
        except FileNotFoundError:
            sample = self.source[index]
            image = sample.image()
            if self.long_side is not None and max(sample.size) > self.long_side:
                sample = _smaller(sample, self.long_side)
                image = resize_image(image, sample.size)
            height, width = sample.size
            _write(photo, b"P6 %d %d 255\n" % (width, height) + image.tobytes())
            # Last, so that a photo with this file beside it is whole.
            _write(about, json.dumps(_to_json(sample)).encode())
            return replace(sample, encoded=photo)
        return _from_json(content, photo)


def _smaller(sample: Sample, long_side: int) -> Sample:
    """The sample with masks of the reduced size."""
    height, width = sample.size
    size = Frame(height=height, width=width, image_size=long_side).resized

    def resized(rle: RLE) -> RLE:
        grey = Image.fromarray(decode_rle(rle).view(np.uint8) * 255)
        small = grey.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return encode_mask(np.asarray(small) > 127)

    return replace(
        sample,
        size=size,
        void=None if sample.void is None else resized(sample.void),
        objects=tuple(replace(item, rle=resized(item.rle)) for item in sample.objects),
    )


def _to_json(sample: Sample) -> dict[str, Any]:
    return {
        "image_id": sample.image_id,
        "source": sample.source,
        "size": sample.size,
        "exhaustive": sample.exhaustive,
        "void": None if sample.void is None else rle_to_json(sample.void),
        "objects": [[o.label, o.kind, rle_to_json(o.rle), o.ignore] for o in sample.objects],
        "absent": sample.absent,
    }


def _from_json(content: dict[str, Any], photo: Path) -> Sample:
    objects = tuple(
        ObjectMask(label=label, kind=kind, rle=rle_from_json(rle), ignore=ignore)
        for label, kind, rle, ignore in content["objects"]
    )
    return Sample(
        image_id=content["image_id"],
        source=content["source"],
        encoded=photo,
        size=(content["size"][0], content["size"][1]),
        exhaustive=content["exhaustive"],
        void=None if content["void"] is None else rle_from_json(content["void"]),
        objects=objects,
        absent=tuple(content["absent"]),
    )


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(data)
    os.replace(draft, path)
