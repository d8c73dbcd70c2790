"""The page's JavaScript modules give what the library gives: node runs them on cases from here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from textsam.export.clip_tokens import tokenizer_table
from textsam.inference.model import TextSAM
from textsam.inference.photo.prediction import connected_components, depth_inside
from textsam.values.colours import colour_match, colour_shares
from textsam.values.geometry import Frame
from textsam.values.images import resize_image
from textsam.values.prompts import COLOURS, split_colour
from textsam.values.rle import encode_mask, rle_area, rle_box

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")

PHRASES = [
    "dog",
    "The  'dogs'.",
    "old steering wheels",
    "a café's door",
    "3 red buses!",
    "person's left-hand glove",
    "日本 寺",
    "don't",
    "x" * 90,
    "an acoustic guitar, a lamp and a very long list of other things that no tower can read at once"
    " because its context ends",
]
COLOURED = ["dark red car", "gray cat", "car", "a pink dress", "red", "red wine", "green-eyed cat"]


def _blobs(rng: np.random.Generator, height: int, width: int) -> np.ndarray[Any, Any]:
    noise = torch.from_numpy(rng.random((1, 1, height, width), dtype=np.float32))
    return (F.avg_pool2d(noise, 5, 1, 2)[0, 0] > 0.5).numpy()


def _mask_case(mask: np.ndarray[Any, Any]) -> dict[str, Any]:
    rle = encode_mask(mask)
    return {
        "mask": mask.astype(int).ravel().tolist(),
        "size": list(mask.shape),
        "counts": rle.counts.decode(),
        "box": rle_box(rle).tolist(),
        "area": rle_area(rle),
    }


def _grid_case(rng: np.random.Generator, size: tuple[int, int], to: tuple[int, int]) -> Any:
    grid = torch.from_numpy(rng.normal(size=size).astype(np.float32))
    smaller = to[0] <= size[0] and to[1] <= size[1]

    def at(mode: str, **options: Any) -> list[float]:
        found = F.interpolate(grid[None, None], to, mode=mode, **options)
        return found.flatten().tolist()

    return {
        "grid": grid.flatten().tolist(),
        "size": size,
        "to": to,
        "bilinear": at("bilinear", align_corners=False),
        "area": at("area") if smaller else None,
    }


def _photo_case(rng: np.random.Generator, size: tuple[int, int], to: tuple[int, int]) -> Any:
    photo = rng.integers(0, 256, (*size, 4), dtype=np.uint8)
    resized = resize_image(np.ascontiguousarray(photo[..., :3]), to)
    return {
        "photo": photo.ravel().tolist(),
        "size": size,
        "to": to,
        "resized": resized.ravel().tolist(),
    }


def _colour_case(rng: np.random.Generator, size: tuple[int, int]) -> Any:
    small = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    photo = np.asarray(Image.fromarray(small).resize(size[::-1]))
    mask = _blobs(rng, *size)
    rle = encode_mask(mask)
    [shares] = colour_shares(photo, [rle])
    opaque = np.concatenate([photo, np.full((*size, 1), 255, np.uint8)], axis=2)
    return {
        "photo": opaque.ravel().tolist(),
        "mask": mask.astype(int).ravel().tolist(),
        "size": size,
        "box": rle_box(rle).tolist(),
        "matches": {colour: colour_match(shares, colour) for colour in COLOURS},
    }


def test_modules(tiny: TextSAM, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    clip = tiny.parts.clip
    assert clip is not None
    masks = [
        _blobs(rng, 37, 53),
        _blobs(rng, 120, 9),
        np.zeros((4, 5), bool),
        np.ones((3, 2), bool),
    ]
    sizes = [((9, 7), (20, 31)), ((128, 128), (512, 512)), ((40, 50), (13, 21)), ((1, 6), (4, 6))]
    frames = [
        Frame(height=h, width=w, image_size=512) for h, w in ((427, 640), (640, 427), (9, 900))
    ]
    regions = [_blobs(rng, 48, 48) for _ in range(3)]
    cases = {
        "table": tokenizer_table(clip),
        "phrases": [
            {
                "phrase": each,
                "plain": clip.plain(each),
                "ids": clip.tokenizer([clip.plain(each)])[0].tolist(),
            }
            for each in PHRASES
        ],
        "colours": [
            {"phrase": each, "colour": split and split._asdict()}
            for each in COLOURED
            for split in [split_colour(each, clip.aliases)]
        ],
        "masks": [_mask_case(mask) for mask in masks],
        "photos": [
            _photo_case(rng, size, to)
            for size, to in (((60, 90), (21, 31)), ((20, 30), (33, 50)), ((31, 40), (31, 17)))
        ],
        "grids": [_grid_case(rng, size, to) for size, to in sizes],
        "frames": [
            {"size": each.size, "resized": each.resized, "covered": each.covered(128)}
            for each in frames
        ],
        "regions": [
            {
                "mask": each.astype(int).ravel().tolist(),
                "size": 48,
                "labels": connected_components(torch.from_numpy(each)).flatten().tolist(),
                "depth": depth_inside(torch.from_numpy(each)).flatten().tolist(),
            }
            for each in regions
        ],
        "colouring": [_colour_case(rng, size) for size in ((70, 90), (250, 301))],
    }
    path = tmp_path / "cases.json"
    path.write_text(json.dumps(cases))
    file = Path(__file__).with_name("modules.test.mjs")
    run = subprocess.run(
        ["node", "--test", str(file)],
        env={**os.environ, "CASES": str(path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert "# pass 8" in run.stdout
