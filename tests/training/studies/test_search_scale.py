"""`training.studies.search_scale` on some hundred rows, and the synthetic rows it makes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from textsam.search.index import MaskIndex
from textsam.search.records import MaskRow, MaskVectors, SpaceName, VectorSpace
from textsam.values.rle import encode_mask
from training.studies.search_scale import __main__ as search_scale
from training.studies.search_scale.synthetic_rows import find_clusters, likeness, synthetic_rows

pytest.importorskip("lancedb")

SPACES: dict[SpaceName, VectorSpace] = {
    "clip": VectorSpace(name="clip", width=32, model="tests", preprocessing="a"),
    "sam": VectorSpace(name="sam", width=16, model="tests", preprocessing="b"),
}


def clumped(count: int) -> dict[SpaceName, np.ndarray]:
    """(count, width) unit vectors around ten centres, each clump flat: four dimensions."""
    rng = np.random.default_rng(0)
    own = rng.integers(0, 10, count)
    made: dict[SpaceName, np.ndarray] = {}
    for name, space in SPACES.items():
        centres = rng.normal(size=(10, space.width))
        planes = rng.normal(size=(10, 4, space.width))
        array = centres[own] + 0.3 * np.einsum(
            "ni,niw->nw", rng.normal(size=(count, 4)), planes[own]
        )
        made[name] = (array / np.linalg.norm(array, axis=1, keepdims=True)).astype(np.float32)
    return made


def test_synthetic_rows_are_clustered_like_the_real_ones() -> None:
    """Nearer to each other than chance, and no nearer than real ones; another seed, other rows."""
    real = clumped(400)
    clusters = find_clusters(real, seed=0)
    rows, made = synthetic_rows(clusters, SPACES, 400, seed=1)
    assert len({row.id for row in rows}) == 400
    again, _ = synthetic_rows(clusters, SPACES, 400, seed=2)
    assert not {row.id for row in rows} & {row.id for row in again}
    rng = np.random.default_rng(0)
    for name, array in made.vectors.items():
        np.testing.assert_allclose(np.linalg.norm(array, axis=1), 1, atol=1e-5)
        noise = rng.normal(size=array.shape).astype(np.float32)
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        told, wanted, chance = likeness(array), likeness(real[name]), likeness(noise)
        assert abs(told["tenth"] - wanted["tenth"]) < 0.1 * (wanted["tenth"] - chance["tenth"])
        assert told["dimension"] < (wanted["dimension"] + chance["dimension"]) / 2


def test_likeness_knows_the_dimension() -> None:
    """Points of spheres of three and six dimensions."""
    rng = np.random.default_rng(0)
    for width, low, high in ((4, 2.7, 3.3), (7, 5.3, 6.7)):
        points = rng.normal(size=(2000, width)).astype(np.float32)
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        assert low < likeness(points)["dimension"] < high


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = encode_mask(np.ones((4, 4), dtype=np.bool_))
    rows = [MaskRow(dataset="real", image=str(i), rle=mask) for i in range(120)]
    uri, report = str(tmp_path / "real.lance"), tmp_path / "report.json"
    with MaskIndex.open(uri) as index:
        index.add(rows, MaskVectors(spaces=SPACES, vectors=clumped(120)))
    options = ["--out", str(tmp_path / "out.lance"), "--rows", "1000", "--json", str(report)]
    assert search_scale.main([uri, *options, "--queries", "100"]) == 2
    assert "at least 220 real masks" in capsys.readouterr().err
    assert search_scale.main([uri, *options, "--queries", "10"]) == 0
    assert "1000 rows" in capsys.readouterr().out
    [told] = json.loads(report.read_text())["sets"]
    assert told["built"]["rows"] == told["built"]["added"] == 1000
    for space in SPACES:
        # So few rows have no cells: the search is exact.
        assert told[space]["recall"] == told[space]["scan_recall"] == 1
        assert 0 < told[space]["p50"] <= told[space]["p95"]
    with MaskIndex.open(str(tmp_path / "out.lance")) as index:
        assert index.datasets()["real"] == 110
