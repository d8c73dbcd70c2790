"""Past one machine: rows on an object store, search structures built by Ray's workers."""

from __future__ import annotations

from types import ModuleType

import pytest

from textsam.search import lance_engine as lance
from textsam.search.index import MaskIndex


@pytest.mark.usefixtures("cluster", "small_indexes")
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
