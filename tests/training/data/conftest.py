"""Tiny photos with masks: where an object is, the photo is red, so that both can be compared."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from textsam.values.rle import encode_mask
from training.data import ObjectMask, Sample


def disc(height: int, width: int, y: float, x: float, radius: float) -> NDArray[np.bool_]:
    yy, xx = np.mgrid[0:height, 0:width]
    return (yy - y) ** 2 + (xx - x) ** 2 <= radius**2


def encoded(image: NDArray[np.uint8], kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def two_discs(number: int) -> tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]:
    """A photo with two red discs, a little different for each number."""
    height, width = [(40, 80), (90, 60)][number % 2]
    masks = [
        disc(height, width, 20, 20, 7 + number % 3),
        disc(height, width, 24, 45, 6),
    ]
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 2] = number
    for mask in masks:
        image[mask] = (255, 0, number)
    return image, masks


def sample_of(number: int, *, data: bytes | Path | None = None) -> Sample:
    image, masks = two_discs(number)
    return Sample(
        image_id=f"photo-{number}",
        source="made",
        encoded=encoded(image) if data is None else data,
        size=(image.shape[0], image.shape[1]),
        exhaustive=bool(number % 2),
        void=None,
        objects=tuple(
            ObjectMask(label=name, kind="thing", rle=encode_mask(mask), ignore=False)
            for name, mask in zip(("dog", "cat"), masks, strict=True)
        ),
    )


@pytest.fixture
def make_sample() -> Callable[..., Sample]:
    """`make_sample(number, data=...)`."""
    return sample_of


@pytest.fixture
def samples() -> list[Sample]:
    """Twelve sound photos."""
    return [sample_of(number) for number in range(12)]


@pytest.fixture
def drawing() -> Callable[[int], tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]]:
    """`drawing(number)`: the photo as an array, and its two masks."""
    return two_discs


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """`encode(image, "JPEG", exif=...)`."""
    return encoded


def parquet_rows(count: int) -> list[dict[str, Any]]:
    rows = []
    for number in range(count):
        image, masks = two_discs(number)
        height, width = image.shape[:2]
        void = encode_mask(disc(height, width, 5, 5, 3)).counts.decode() if number % 2 else None
        objects = [
            {
                "label": name,
                "kind": "thing",
                "rle": encode_mask(mask).counts.decode(),
                "area": int(mask.sum()),
                "bbox": [0.0, 0.0, 1.0, 1.0],
                "ignore": name == "cat",
            }
            for name, mask in zip(("dog", "cat"), masks, strict=True)
        ]
        rows.append(
            {
                "image": {"bytes": encoded(image), "path": None},
                "image_id": f"photo-{number}",
                "source": "made",
                "license": "none",
                "height": height,
                "width": width,
                "exhaustive": bool(number % 2),
                "void": void,
                "objects": objects,
            }
        )
    return rows


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """A file of two photos."""
    path = tmp_path / "made.parquet"
    pq.write_table(pa.Table.from_pylist(parquet_rows(2)), path)
    return path


@pytest.fixture
def grouped_parquet(tmp_path: Path) -> list[Path]:
    """Two files of 10 photos, in row groups of 4, 4 and 2."""
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    rows = parquet_rows(20)
    for path, part in zip(paths, (rows[:10], rows[10:]), strict=True):
        pq.write_table(pa.Table.from_pylist(part), path, row_group_size=4)
    return paths
