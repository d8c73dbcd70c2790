"""Drawn photos in COCO's format."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from textsam.values.rle import rle_to_json
from training.data.drawn_shapes import draw_samples

SIDE = 64


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def coco_data(tmp_path: Path) -> Callable[..., str]:
    """Write drawn photos as a COCO file with its folder; returns the source's line."""

    def write(count: int = 6) -> str:
        folder = tmp_path / "photos"
        folder.mkdir()
        images, annotations, categories = [], [], dict[str, int]()
        for number, sample in enumerate(draw_samples(count, side=SIDE)):
            assert isinstance(sample.encoded, bytes)
            (folder / f"{number}.png").write_bytes(sample.encoded)
            size = {"height": sample.size[0], "width": sample.size[1]}
            images.append({"id": number, "file_name": f"{number}.png", **size})
            for item in sample.objects:
                annotations.append(
                    {
                        "id": len(annotations),
                        "image_id": number,
                        "category_id": categories.setdefault(item.label, len(categories)),
                        "segmentation": rle_to_json(item.rle),
                    }
                )
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": n, "name": name} for name, n in categories.items()],
        }
        (tmp_path / "instances.json").write_text(json.dumps(content))
        return f"coco:{tmp_path / 'instances.json'}@{folder}?exhaustive=true"

    return write
