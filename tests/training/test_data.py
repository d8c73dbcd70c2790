"""The Parquet reader and the training view."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from textsam.rle import decode_rle, encode_mask
from training.data import Sample, ViewConfig, load_samples, make_view

WHOLE = ViewConfig(image_size=64, jitter=0.0, flip=0.0, min_area=1)


def _disc(height: int, width: int, y: float, x: float, radius: float) -> NDArray[np.bool_]:
    yy, xx = np.mgrid[0:height, 0:width]
    return (yy - y) ** 2 + (xx - x) ** 2 <= radius**2


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """Two photos; where an object is, the photo is red, so that both can be compared."""
    rows = []
    for number, (height, width) in enumerate([(40, 80), (90, 60)]):
        masks = [_disc(height, width, 20, 20, 9), _disc(height, width, 25, 45, 6)]
        image = np.zeros((height, width, 3), np.uint8)
        for mask in masks:
            image[mask] = (255, 0, 0)
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        void = encode_mask(_disc(height, width, 5, 5, 3)).counts.decode() if number else None
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
                "image": {"bytes": buffer.getvalue(), "path": None},
                "image_id": f"photo-{number}",
                "source": "made",
                "license": "none",
                "height": height,
                "width": width,
                "exhaustive": bool(number),
                "void": void,
                "objects": objects,
            }
        )
    path = tmp_path / "made.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def sample(parquet: Path) -> Sample:
    return load_samples([parquet])[1]


def test_reader_keeps_everything(parquet: Path) -> None:
    first, second = load_samples([parquet])
    assert (first.image_id, first.size, first.exhaustive) == ("photo-0", (40, 80), False)
    assert first.image().shape == (40, 80, 3)
    assert not first.void_mask().any()
    assert second.void_mask()[5, 5]
    assert [o.label for o in second.objects] == ["dog", "cat"]
    assert [o.ignore for o in second.objects] == [False, True]
    red = second.image()[..., 0] > 0
    both = decode_rle(second.objects[0].rle) | decode_rle(second.objects[1].rle)
    np.testing.assert_array_equal(red, both)


def test_a_file_of_another_schema_is_named(tmp_path: Path) -> None:
    path = tmp_path / "edges.parquet"
    pq.write_table(pa.table({"image": [b""], "boundaries": [b""]}), path)
    with pytest.raises(ValueError, match=r"edges\.parquet has no column .*objects"):
        load_samples([path])


def test_the_whole_photo_fills_the_frame(sample: Sample) -> None:
    view = make_view(sample, np.random.default_rng(0), config=WHOLE)
    assert view is not None
    assert view.pixels.shape == (3, 64, 43)
    assert view.masks.shape == (1, 64, 64)  # the cat is `ignore`
    assert view.objects == (0,)
    assert not view.masks[..., 43:].any()
    assert view.void.any()


@pytest.mark.parametrize("seed", range(12))
def test_masks_follow_the_picture_through_scale_cut_and_mirror(sample: Sample, seed: int) -> None:
    config = ViewConfig(image_size=64, jitter=1.0, scale=(0.6, 1.9), flip=0.5, min_area=20)
    view = make_view(sample, np.random.default_rng(seed), config=config, candidates=[0, 1])
    if view is None:
        pytest.skip("this cut holds no object")
    height, width = view.pixels.shape[1:]
    assert max(height, width) <= 64
    red = view.pixels[0] > 127
    drawn = view.masks.any(0)[:height, :width]
    assert (drawn & ~red).sum() == 0  # a dropped object may leave red, never the reverse
    if len(view.masks) == 2:
        assert torch.equal(drawn, red)


def test_a_seed_gives_the_same_view(sample: Sample) -> None:
    config = ViewConfig(image_size=64, jitter=1.0)
    a, b = (make_view(sample, np.random.default_rng(7), config=config) for _ in range(2))
    assert a is not None and b is not None
    assert torch.equal(a.pixels, b.pixels) and torch.equal(a.masks, b.masks)
    assert a.flipped == b.flipped


def test_masks_of_useless_size_are_dropped(sample: Sample) -> None:
    rng = np.random.default_rng(0)
    huge = ViewConfig(image_size=64, jitter=0.0, min_area=10_000)
    assert make_view(sample, rng, config=huge) is None
    # Appendix A drops masks over 90% of the image; 1% here shows the rule.
    assert make_view(sample, rng, config=ViewConfig(image_size=64, max_share=0.01)) is None
