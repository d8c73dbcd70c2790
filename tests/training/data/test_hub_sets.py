"""Data sets of Hugging Face `datasets`, made in memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from textsam.errors import ImageError, MissingExtraError
from textsam.values.rle import decode_rle, encode_mask, rle_to_json
from training.data import LoaderConfig, StreamSource, ViewConfig, ViewLoader, open_source
from training.data.hub_sets import HubColumns, HubSource, HubStream
from training.data.label_pngs import LabelMapConfig

datasets = pytest.importorskip("datasets", reason="needs the extra train")

BY_OBJECT = HubColumns(masks="objects.rle", labels="objects.label", image_id="image_id")


@pytest.fixture
def rows(drawing: Callable, encode: Callable[..., bytes]) -> list[dict[str, Any]]:
    made = []
    for number in range(8):
        image, masks = drawing(number)
        made.append(
            {
                "image": {"bytes": encode(image), "path": None},
                "image_id": f"photo-{number}",
                "masks": [{"bytes": encode(m.view(np.uint8) * 255), "path": None} for m in masks],
                "objects": [
                    {"rle": encode_mask(m).counts.decode(), "label": name}
                    for m, name in zip(masks, ("dog", "cat"), strict=True)
                ],
                "codes": [rle_to_json(encode_mask(m)) for m in masks],
                "numbers": [1, 0],
                "map": {
                    "bytes": encode((masks[0] + 2 * (masks[1] & ~masks[0])).astype(np.uint8)),
                    "path": None,
                },
            }
        )
    return made


@pytest.fixture
def dataset(rows: list[dict[str, Any]]) -> Any:
    data = datasets.Dataset.from_list(rows)
    for column, feature in [
        ("image", datasets.Image()),
        ("masks", datasets.List(datasets.Image())),
        ("map", datasets.Image()),
        ("numbers", datasets.List(datasets.ClassLabel(names=["cat", "dog"]))),
    ]:
        data = data.cast_column(column, feature)
    return data


@pytest.mark.parametrize(
    "columns",
    [
        BY_OBJECT,
        HubColumns(masks="codes", labels="numbers"),
        HubColumns(masks="masks", labels="numbers"),
    ],
)
def test_every_way_to_write_masks_is_read(
    dataset: Any, drawing: Callable, columns: HubColumns
) -> None:
    source = HubSource(dataset, columns=columns)
    assert len(source) == 8
    for number in (0, 7):
        image, masks = drawing(number)
        sample = source[number]
        np.testing.assert_array_equal(sample.image(), image)
        assert [o.label for o in sample.objects] == ["dog", "cat"]
        for item, mask in zip(sample.objects, masks, strict=True):
            np.testing.assert_array_equal(decode_rle(item.rle), mask)


def test_a_label_map_is_read(dataset: Any, drawing: Callable) -> None:
    config = LabelMapConfig(names={1: "dog", 2: "cat"})
    source = HubSource(dataset, columns=HubColumns(label_map="map", map_config=config))
    _, masks = drawing(3)
    assert [o.label for o in source[3].objects] == ["dog", "cat"]
    np.testing.assert_array_equal(decode_rle(source[3].objects[0].rle), masks[0])


def test_no_picture_is_decoded_by_the_library(
    dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(datasets.Image, "decode_example", refuse)
    columns = HubColumns(masks="masks", labels="numbers")
    assert HubSource(dataset, columns=columns)[0].size == (40, 80)
    stream = HubStream(dataset.to_iterable_dataset(), columns=columns, buffer=2)
    assert len(list(stream)) == 8


def test_a_stream_is_shuffled_by_seed_and_epoch(dataset: Any) -> None:
    stream = HubStream(dataset.to_iterable_dataset(num_shards=4), columns=BY_OBJECT, buffer=3)
    assert isinstance(stream, StreamSource)
    assert not isinstance(HubSource(dataset, columns=BY_OBJECT), StreamSource)

    def order(seed: int, epoch: int) -> list[str]:
        return [stream.sample(row).image_id for row in stream.rows(seed=seed, epoch=epoch)]

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(s, e)) for s in (1, 2) for e in (0, 1)}) == 4
    assert sorted(order(1, 0)) == sorted(order(2, 1)) == [f"photo-{n}" for n in range(8)]


@pytest.mark.parametrize("streaming", [False, True])
def test_the_loader_takes_both(dataset: Any, streaming: bool) -> None:
    """With any workers and ranks, as every source; shards are not dealt out by the library."""
    if streaming:
        source: Any = HubStream(dataset.to_iterable_dataset(num_shards=4), columns=BY_OBJECT)
    else:
        source = HubSource(dataset, columns=BY_OBJECT)
    view = ViewConfig(image_size=48, min_area=4)

    def batches(workers: int, rank: int = 0, world: int = 1) -> list[Any]:
        config = LoaderConfig(photos_per_step=4, workers=workers, seed=1, view=view)
        loader = ViewLoader({"hub": source}, config=config, rank=rank, world=world)
        return list(loader.batches(1, 4))

    alone = batches(0)
    for one, two in zip(alone, batches(2), strict=True):
        assert one.origin == two.origin and torch.equal(one.masks, two.masks)
    for one, two in zip(alone, batches(1, rank=1, world=2), strict=True):
        assert one.origin[1::2] == two.origin and one.seeds[1::2] == two.seeds


def test_what_is_broken_names_itself(rows: list[dict[str, Any]]) -> None:
    rows[0]["image"] = {"bytes": b"no picture", "path": None}
    rows[1]["codes"] = rows[1]["codes"][:1]
    rows[2]["codes"][0]["counts"] = "0"
    data = datasets.Dataset.from_list(rows)
    source = HubSource(data, columns=HubColumns(masks="codes", labels="numbers", names={0: "cat"}))
    with pytest.raises(ImageError, match="cannot read the size"):
        source[0]
    with pytest.raises(ValueError, match="1 masks and 2 labels"):
        source[1]
    assert len(source[2].objects) == 1 and "damaged RLE" in str(source.problems)
    with pytest.raises(ValueError, match="label 1 is a number and there are 1 names"):
        source[3]


def test_photos_without_masks(dataset: Any) -> None:
    """Opened because somebody said so, not because a column was forgotten."""
    source = HubSource(dataset, columns=HubColumns(bare=True))
    assert not source.has_masks and HubSource(dataset, columns=BY_OBJECT).has_masks
    assert source[0].objects == () and source[0].image().shape[2] == 3
    with pytest.raises(ValueError, match="bare photos have no masks"):
        HubColumns(bare=True, masks="codes")


def test_columns_that_are_not_there_are_named(dataset: Any) -> None:
    with pytest.raises(ValueError, match=r"no column \['photo'\]; it has .*'image'"):
        HubSource(dataset, columns=HubColumns(image="photo", masks="codes"))
    with pytest.raises(ValueError, match="wanted one of them"):
        HubColumns()
    with pytest.raises(ValueError, match="Use HubStream"):
        HubSource(dataset.to_iterable_dataset(), columns=BY_OBJECT)
    with pytest.raises(ValueError, match="Use HubSource"):
        HubStream(dataset, columns=BY_OBJECT)


def test_pictures_and_arrays_without_declared_columns(drawing: Callable) -> None:
    image, masks = drawing(0)

    def generate() -> Any:
        yield {"image": Image.fromarray(image), "masks": [m.astype(int).tolist() for m in masks]}

    data = datasets.IterableDataset.from_generator(generate)
    (sample,) = HubStream(data, columns=HubColumns(masks="masks"), buffer=1)
    np.testing.assert_array_equal(sample.image(), image)
    np.testing.assert_array_equal(decode_rle(sample.objects[1].rle), masks[1])
    assert [o.label for o in sample.objects] == ["", ""]


def test_a_spec_opens_local_files(
    parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
    text = f"hf:parquet?data_files={parquet}&masks=objects.rle&labels=objects.label&streaming=true"
    stream = open_source(text)
    assert isinstance(stream, HubStream)
    assert {o.label for sample in stream for o in sample.objects} == {"dog", "cat"}


def test_without_datasets_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r'pip install "textsam\[train\]"'):
        open_source("hf:owner/set?masks=m")
