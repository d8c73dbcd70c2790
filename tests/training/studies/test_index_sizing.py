"""`training.studies.search_scale.sizing`: what is computed, and that it is computed from files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from textsam.search.index import MaskIndex
from textsam.search.records import MaskRow, MaskVectors, SpaceName, VectorSpace
from textsam.values.rle import encode_mask
from training.studies.search_scale import sizing as search_sizing
from training.studies.search_scale.sizing import IndexCosts, size_of

pytest.importorskip("lancedb")

MEASURED = IndexCosts(
    widths=(384, 128),
    row_bytes=3000.0,
    structure_bytes=100.0,
    rows=(10_000, 40_000),
    build_seconds=(2.0, 16.0),
)
SPACES: dict[SpaceName, VectorSpace] = {
    "clip": VectorSpace(name="clip", width=32, model="tests", preprocessing="a"),
    "sam": VectorSpace(name="sam", width=16, model="tests", preprocessing="b"),
}


def test_bytes_grow_with_rows_and_builds_by_their_power() -> None:
    assert MEASURED.power == pytest.approx(1.5)
    size = size_of(4_000_000, MEASURED, mask_seconds=0.9, gpu_cores=50)
    assert size["row_bytes"] == 12e9 and size["structure_bytes"] == 4e8
    assert size["vector_bytes"] == 4e6 * 4 * (384 + 128)
    assert size["build_hours"] == pytest.approx(16 * 100**1.5 / 3600)
    assert size["embed_hours"] == pytest.approx(1000) and size["gpu_hours"] == pytest.approx(20)
    flat = replace(MEASURED, build_seconds=(2.0, 3.0))
    assert flat.power == 1
    more = size_of(40_000_000, MEASURED, mask_seconds=0.9, gpu_cores=50)
    assert (
        more["query_bytes"] == size["query_bytes"]
        and more["centre_bytes"] == 10 * size["centre_bytes"]
    )
    assert more["centre_hours"] == pytest.approx(100 * size["centre_hours"])


def test_the_command_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("textsam.search.lance_engine.INDEX_FROM", 300)
    monkeypatch.setattr("textsam.search.lance_engine.CELL_ROWS", 100)
    rng = np.random.default_rng(0)
    mask = encode_mask(np.ones((4, 5), np.bool_))
    rows = [MaskRow(dataset="real", image=str(n), rle=mask) for n in range(200)]
    made = {name: rng.normal(size=(200, space.width)) for name, space in SPACES.items()}
    vectors = MaskVectors(
        spaces=SPACES,
        vectors={
            name: (array / np.linalg.norm(array, axis=1, keepdims=True)).astype(np.float32)
            for name, array in made.items()
        },
    )
    with MaskIndex.open(tmp_path / "real.lance") as index:
        index.add(rows, vectors)
    monkeypatch.setattr(search_sizing.SizingOptions, "minimum", {})
    arguments = [str(tmp_path / "real.lance"), "--json", str(tmp_path / "sizes.json")]
    arguments += ["--rows", "400", "800"]
    assert search_sizing.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "1,000,000,000" in shown and "an estimate" in shown
    told = json.loads((tmp_path / "sizes.json").read_text())["sets"][0]
    measured = told["measured"]
    assert sorted(measured["widths"]) == [16, 32]
    assert measured["row_bytes"] > 4 * (16 + 32) and measured["structure_bytes"] > 0
    assert all(seconds > 0 for seconds in measured["build_seconds"])
    assert search_sizing.main([str(tmp_path)]) == 2
    assert "is no folder with an index" in capsys.readouterr().err
