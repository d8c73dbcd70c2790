"""A data set into an index: all of it, once, whatever happens in between."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from textsam.inference.model import TextSAM
from textsam.search.data_photos import DataPhoto, ListedPhotos
from textsam.search.embed import Embedder
from textsam.search.index import MaskIndex
from textsam.search.job import EmbedSettings, PhotoEmbedder, embed_data_set
from textsam.search.records import read_rows, read_vectors
from textsam.values.settings import AutomaticSettings

SETTINGS = EmbedSettings(batch=3)
# Few points, and nothing dropped: a random model's masks are worth nothing.
GRID = AutomaticSettings(
    points_per_side=2, pred_iou_thresh=-1e9, stability_score_thresh=0.0, box_nms_thresh=1.0
)


@pytest.fixture(scope="module")
def embedder(model: TextSAM) -> Embedder:
    return Embedder(model, latents="photo")


@pytest.fixture
def index() -> MaskIndex:
    return MaskIndex.open("memory://")


def test_every_mask_is_in_once(
    embedder: Embedder, index: MaskIndex, photo_sets: ModuleType
) -> None:
    photos = photo_sets.photos(7)
    told = []
    report = embed_data_set(
        embedder, ListedPhotos(photos), index, settings=SETTINGS, progress=told.append
    )
    wanted = {
        (photo.image, mask.label, mask.rle.counts)
        for photo in photos
        for mask in photo.masks
        if not mask.rle.is_empty
    }
    [table] = index.rows()
    got = [(row.image, row.label, row.rle.counts) for row in read_rows(table)]
    assert sorted(map(str, got)) == sorted(map(str, wanted))
    assert (report.photos, report.masks, report.kept) == (7, len(wanted), 0)
    assert not report.failed
    assert [one.image for one in told] == [photo.image for photo in photos]


def test_vectors_are_those_of_the_masks(
    embedder: Embedder, index: MaskIndex, photo_sets: ModuleType
) -> None:
    photos = photo_sets.photos(4)
    embed_data_set(embedder, ListedPhotos(photos), index, settings=SETTINGS)
    for photo in photos:
        rles = [mask.rle for mask in photo.masks if not mask.rle.is_empty]
        for space, vectors in embedder.masks(photo.encoded, rles).vectors.items():
            found = index.search(vector=vectors[-1], k=1, space=space)[0]
            assert found.image == photo.image and found.rle == rles[-1]
            assert found.cosine > 1 - 1e-5


def test_what_is_there_is_not_embedded_again(
    embedder: Embedder, index: MaskIndex, photo_sets: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = photo_sets.photos(7)
    embed_data_set(embedder, ListedPhotos(photos[:4]), index, settings=SETTINGS)
    before = index.count()
    # A mask is new in a photo that is known.
    photos[1] = replace(photos[1], masks=(*photos[1].masks, photos[2].masks[2]))
    embedded = []

    class Watched(Embedder):
        def photos(self, photos):
            photos = list(photos)
            embedded.extend(rle for _, rles in photos for rle in rles)
            return super().photos(photos)

    watched = Watched(embedder.model, latents="photo")
    report = embed_data_set(watched, ListedPhotos(photos), index, settings=SETTINGS)
    assert report.kept == before
    assert len(embedded) == report.masks == index.count() - before
    assert photos[2].masks[2].rle in embedded


def test_a_run_that_is_stopped_goes_on(
    embedder: Embedder, index: MaskIndex, photo_sets: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was embedded when Ctrl-C came is in."""
    source = ListedPhotos(photo_sets.photos(9))
    embed = PhotoEmbedder.embed

    def stop(self, rows):
        if 6 in rows:
            raise KeyboardInterrupt
        return embed(self, rows)

    monkeypatch.setattr(PhotoEmbedder, "embed", stop)
    with pytest.raises(KeyboardInterrupt):
        embed_data_set(embedder, source, index, settings=SETTINGS)
    first = index.count()
    assert first == sum(len(photo.masks) - 1 for photo in photo_sets.photos(6))
    monkeypatch.undo()
    report = embed_data_set(embedder, source, index, settings=SETTINGS)
    assert (report.kept, report.masks) == (first, index.count() - first)


def test_broken_photos_are_told_and_stop_nothing(
    embedder: Embedder, index: MaskIndex, photo_sets: ModuleType
) -> None:
    photos = photo_sets.photos(5)
    photos[1] = replace(photos[1], encoded=b"no picture")
    photos[3] = replace(photos[3], encoded=photos[0].encoded[:200])
    small = replace(photos[4], image="other size", masks=(masks_of_other_size(),))
    report = embed_data_set(embedder, ListedPhotos([*photos, small]), index, settings=SETTINGS)
    assert [failed.image for failed in report.failed] == ["photo 1", "photo 3", "other size"]
    assert "(8, 9)" in str(report.failed[2].error) and "(40, 60)" in str(report.failed[2].error)
    assert report.photos == 6
    assert index.count() == report.masks == sum(len(photos[i].masks) - 1 for i in (0, 2, 4))


def masks_of_other_size():
    from textsam.search.data_photos import DataMask
    from textsam.values.rle import encode_mask

    return DataMask(rle=encode_mask(np.ones((8, 9), np.bool_)))


def test_everything_where_no_masks_are_given(
    embedder: Embedder, index: MaskIndex, photo_sets: ModuleType
) -> None:
    photos = photo_sets.photos(2, given=False)
    settings = EmbedSettings(automatic=GRID)
    report = embed_data_set(embedder, ListedPhotos(photos), index, settings=settings)
    masks = embedder.model.everything(photos[0].encoded, GRID)
    [table] = index.rows()
    got = [row for row in read_rows(table) if row.image == "photo 0"]
    assert len(masks) > 0
    assert {row.rle.counts for row in got} == {item.rle.counts for item in masks if item.area}
    assert all(row.label is None and not np.isnan(row.iou) for row in got)
    again = embed_data_set(embedder, ListedPhotos(photos), index, settings=settings)
    assert (again.masks, again.kept) == (0, report.masks)
    # From one encoding, shared by the masks and their latents.
    alone = embedder.masks(photos[0].encoded, [row.rle for row in got]).vectors["sam"]
    rows = [i for i, row in enumerate(read_rows(table)) if row.image == "photo 0"]
    np.testing.assert_allclose(read_vectors(table, "sam")[rows], alone, atol=1e-5)


def test_given_masks_do_not_hide_that_automatic_ones_are_missing(
    embedder: Embedder, index: MaskIndex, photo_sets: ModuleType
) -> None:
    source = ListedPhotos(photo_sets.photos(2))
    embed_data_set(embedder, source, index)
    settings = EmbedSettings(masks="everything", automatic=GRID)
    assert embed_data_set(embedder, source, index, settings=settings).masks > 0


def test_commits_come_by_rows_and_by_time(
    embedder: Embedder, photo_sets: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = []

    class Watched(MaskIndex):
        def add_tables(self, tables):
            tables = list(tables)
            commits.extend([sum(table.num_rows for table in tables)] if tables else [])
            return super().add_tables(tables)

    def run(**settings):
        commits.clear()
        index = Watched(MaskIndex.open("memory://").engine)
        source = ListedPhotos(photo_sets.photos(6))
        embed_data_set(embedder, source, index, settings=EmbedSettings(batch=1, **settings))
        return list(commits)

    assert run() == [12]
    assert run(commit_rows=3) == [3, 3, 3, 3]
    assert run(commit_seconds=0.0) == [1, 2, 3, 1, 2, 3]


def test_a_limit(embedder: Embedder, index: MaskIndex, photo_sets: ModuleType) -> None:
    report = embed_data_set(embedder, photo_sets.Stream(9), index, settings=EmbedSettings(limit=4))
    assert report.photos == 4


def test_what_cannot_be_meant_is_refused_before_anything_is_embedded(
    embedder: Embedder, index: MaskIndex, photo_sets: ModuleType
) -> None:
    with pytest.raises(ValueError, match="batch=0"):
        EmbedSettings(batch=0)
    bare = ListedPhotos(photo_sets.photos(2, given=False))
    with pytest.raises(ValueError, match="come without masks"):
        embed_data_set(embedder, bare, index, settings=EmbedSettings(masks="given"))
    with pytest.raises(ValueError, match="masks='some'"):
        embed_data_set(embedder, bare, index, settings=EmbedSettings(masks="some"))  # type: ignore[arg-type]
    source = ListedPhotos([*photo_sets.photos(1), DataPhoto(dataset="a", image="b", encoded=b"")])
    embed_data_set(embedder, source, index)
    crops = Embedder(embedder.model, latents="crops")
    with pytest.raises(ValueError, match="They differ in preprocessing"):
        embed_data_set(crops, source, index)
    only = Embedder(embedder.model, spaces=["clip"])
    with pytest.raises(ValueError, match="every row needs all of them"):
        embed_data_set(only, source, index)
    assert index.add_tables([None, None]) == 0
