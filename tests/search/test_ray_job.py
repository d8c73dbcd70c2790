"""Workers of a Ray cluster on this machine do what one process does, also when one dies; and they
build search structures on an object store.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from textsam.inference.model import TextSAM
from textsam.search import lance_engine as lance
from textsam.search.data_photos import ListedPhotos, PhotoRows
from textsam.search.embed import Embedder
from textsam.search.index import MaskIndex
from textsam.search.job import EmbedSettings, embed_data_set
from textsam.search.ray_job import embed_on_ray
from textsam.search.records import read_rows, read_vectors

SETTINGS = EmbedSettings(batch=2)
PHOTOS = 24

ray = pytest.importorskip("ray", reason="the extra `scale` is not installed")
pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def load(model: TextSAM, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Embedder]:
    """What the workers load."""
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return functools.partial(Embedder.from_pretrained, str(folder), device="cpu", latents="photo")


@pytest.fixture(autouse=True)
def by_value(photo_sets: ModuleType) -> Iterator[None]:
    """Workers cannot import modules of tests."""
    ray.cloudpickle.register_pickle_by_value(photo_sets)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.cloudpickle.unregister_pickle_by_value(photo_sets)
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def content(index: MaskIndex) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """Rows and vectors by id; fails if an id is there twice."""
    rows, vectors = {}, {}
    count = 0
    for batch in index.rows():
        both = {space: read_vectors(batch, space) for space in index.spaces}
        for place, row in enumerate(read_rows(batch)):
            rows[row.id] = (row.dataset, row.image, row.rle, row.label)
            vectors[row.id] = {space: array[place] for space, array in both.items()}
            count += 1
    assert len(rows) == count
    return rows, vectors


def single(load: Callable[[], Embedder], photo_sets: ModuleType) -> MaskIndex:
    index = MaskIndex.open("memory://")
    source = ListedPhotos(photo_sets.photos(PHOTOS))
    embed_data_set(load(), source, index, settings=SETTINGS)
    return index


def assert_same(one: MaskIndex, other: MaskIndex) -> None:
    rows, vectors = content(one)
    others, theirs = content(other)
    assert rows == others
    for name, spaces in vectors.items():
        for space, vector in spaces.items():
            np.testing.assert_allclose(theirs[name][space], vector, atol=1e-5)


def test_the_same_rows_as_in_one_process(
    load: Callable[[], Embedder], photo_sets: ModuleType, tmp_path: Path
) -> None:
    alone = single(load, photo_sets)
    source = ListedPhotos(photo_sets.photos(PHOTOS))
    told: list[PhotoRows] = []
    report = embed_on_ray(
        load,
        source,
        tmp_path / "masks.lance",
        settings=SETTINGS,
        workers=1,
        progress=told.append,
    )
    assert_same(alone, MaskIndex.open(tmp_path / "masks.lance"))
    assert (report.photos, report.masks, report.kept) == (PHOTOS, alone.count(), 0)
    assert sorted(photo.image for photo in told) == sorted(f"photo {n}" for n in range(PHOTOS))


def test_a_worker_that_dies_is_started_anew(photo_sets: ModuleType, tmp_path: Path) -> None:
    """In the middle of a stream, once; nothing is missing then, and nothing twice.

    Nor is what a run before this one had written embedded again.
    """
    load, mark = photo_sets.HashEmbedder, tmp_path / "died"
    first = ListedPhotos(photo_sets.photos(5))
    with MaskIndex.open(tmp_path / "masks.lance") as index:
        written = embed_data_set(load(), first, index, settings=SETTINGS).masks
    source = photo_sets.Stream(PHOTOS, deadly=11, mark=mark)
    report = embed_on_ray(load, source, tmp_path / "masks.lance", settings=SETTINGS, workers=2)
    assert mark.exists()
    alone = single(load, photo_sets)
    assert_same(alone, MaskIndex.open(tmp_path / "masks.lance"))
    assert (report.photos, report.kept) == (PHOTOS, written)
    assert report.masks == alone.count() - written


class Faulty(ListedPhotos):
    """A source with a fault that is no photo's."""

    def photo(self, row: int, /) -> Any:
        raise KeyError("a fault of the program")


def test_errors_come_back_on_one_line(photo_sets: ModuleType, tmp_path: Path) -> None:
    load, photos = photo_sets.HashEmbedder, photo_sets.photos(3)
    with pytest.raises(ValueError, match="wanted a folder"):
        embed_on_ray(load, ListedPhotos(photos), "memory://")
    with pytest.raises(RuntimeError, match=r"a worker failed: KeyError: .a fault of the program"):
        embed_on_ray(load, Faulty(photos), tmp_path / "masks.lance", workers=1)
    index = MaskIndex.open(tmp_path / "other.lance")
    embed_data_set(load(preprocessing="b"), ListedPhotos(photos), index, settings=SETTINGS)
    with pytest.raises(ValueError, match="They differ in preprocessing"):
        embed_on_ray(load, ListedPhotos(photos), tmp_path / "other.lance")


@pytest.mark.usefixtures("small_indexes")
def test_built_by_workers_read_without_them(store: dict[str, str], known: ModuleType) -> None:
    """Two workers build a segment each, of their own files; who searches needs no Ray."""
    pytest.importorskip("lance_ray")
    uri = "s3://masks/ray"
    writer = MaskIndex.open(uri, engine="ray", storage_options=store)
    rows = known.make_rows("ships", range(200))
    for start in (0, 100):
        part = rows[start : start + 100]
        writer.add(part, known.vectors_of(part))
    # Not by `compact`, which would fold two files of so few rows into one: one segment, one worker.
    writer.engine.build("clip", known.CLIP.width, lance.cells_for(200))
    reader = MaskIndex.open(uri, storage_options=store)
    told = reader.stats(recall=True, sample=10)
    assert told.engine["engine"] == "lance"
    built = told.engine["indexes"]["clip_cells_7"]
    assert built["rows"] == 200 and built["segments"] == 2
    assert told.recall["clip"].recall > 0.9
    query = known.vector(known.key_of(rows[150]), known.CLIP)
    assert reader.search(vector=query, k=1)[0].id == rows[150].id
