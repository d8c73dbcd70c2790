"""The Parquet readers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from textsam.values.rle import decode_rle
from training.data import ParquetSource, load_samples


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
    for read in (load_samples, ParquetSource):
        with pytest.raises(ValueError, match=r"edges\.parquet has no column .*objects"):
            read([path])


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row.update(image=None),
        lambda row: row.update(height=None),
        lambda row: row.update(objects=None),
        lambda row: row.update(void="junk"),
    ],
)
def test_one_bad_photo_costs_itself(parquet: Path, tmp_path: Path, change: Any) -> None:
    path, (_, good) = _changed(parquet, tmp_path, change), load_samples([parquet])
    assert load_samples([path]) == [good]
    source = ParquetSource([path])
    with pytest.raises(ValueError, match=r"no value in column|of another type|damaged RLE"):
        source[0]
    assert source[1] == good


@pytest.mark.parametrize("junk", [None, "junk", ""])
def test_one_bad_mask_costs_itself(parquet: Path, tmp_path: Path, junk: str | None) -> None:
    whole = load_samples([parquet])[0].objects

    def add(row: dict[str, Any]) -> None:
        row["exhaustive"] = True
        row["objects"].append({**row["objects"][0], "rle": junk})

    source = ParquetSource([_changed(parquet, tmp_path, add)])
    assert source[0].objects == whole and len(source.problems) == 1
    assert not source[0].exhaustive  # what was lost may be anywhere
    assert load_samples([tmp_path / "changed.parquet"])[0] == source[0]


def _changed(parquet: Path, folder: Path, change: Any) -> Path:
    """The file with its first row changed."""
    table = pq.read_table(parquet)
    rows = table.to_pylist()
    change(rows[0])
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / "changed.parquet")
    return folder / "changed.parquet"


def test_lazy_rows_equal_the_eager_ones(grouped_parquet: list[Path]) -> None:
    source = ParquetSource(grouped_parquet, window=1)
    assert source.groups == [4, 4, 2, 4, 4, 2]
    eager = load_samples(grouped_parquet)
    assert len(source) == len(eager) == 20
    for row in (19, 0, 7, 8, 9, 10, 3):
        assert source[row] == eager[row]
    assert len(source._tables) == 2  # bounded: the window and one more
    with pytest.raises(IndexError):
        source[20]


def test_what_was_read_does_not_travel_to_a_worker(grouped_parquet: list[Path]) -> None:
    source = ParquetSource(grouped_parquet)
    expected = source[11]
    copy = pickle.loads(pickle.dumps(source))
    assert not copy._tables and copy[11] == expected


def test_no_file_and_no_row_are_refused(tmp_path: Path, parquet: Path) -> None:
    with pytest.raises(ValueError, match="no file"):
        ParquetSource([])
    empty = tmp_path / "empty.parquet"
    pq.write_table(pq.read_table(parquet).slice(0, 0), empty)
    with pytest.raises(ValueError, match="no row"):
        ParquetSource([empty])
