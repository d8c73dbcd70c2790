"""`training.evaluation.big_photos`: mosaics with known objects, and a stand-in that finds them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from textsam.values.rle import decode_rle, encode_mask
from training.data import ObjectMask, Sample
from training.evaluation import big_photos, command
from training.evaluation.data_sets import BadInputError, DataSet


def make_sample(level: int, size: tuple[int, int], label: str) -> Sample:
    """A grey photo with one object, its left third."""
    file = io.BytesIO()
    Image.new("RGB", size[::-1], (level,) * 3).save(file, "PNG")
    mask = np.zeros(size, dtype=bool)
    mask[:, : size[1] // 3] = True
    return Sample(
        image_id=str(level),
        source="made",
        encoded=file.getvalue(),
        size=size,
        exhaustive=True,
        void=None,
        objects=(ObjectMask(label=label, kind="thing", rle=encode_mask(mask), ignore=False),),
    )


SAMPLES = (
    make_sample(50, (60, 90), "bus"),
    make_sample(90, (80, 70), "bus"),
    make_sample(130, (50, 50), "cat"),
)
DATA = DataSet(name="made", path=Path("made.parquet"), samples=SAMPLES, labels=("bus", "cat"))


def test_a_mosaic_s_objects_lie_on_their_photos() -> None:
    picture, truths = big_photos.mosaic(SAMPLES, "bus", pixels=120_000, seed=0)
    assert picture.shape == (300, 400, 3)
    photos = round((picture[..., 0] == 50).sum() / 5400 + (picture[..., 0] == 90).sum() / 5600)
    assert len(truths) == photos > 8
    assert not (picture == 130).any()
    taken = np.zeros(picture.shape[:2], dtype=bool)
    for rle in truths:
        mask = decode_rle(rle)
        assert not (mask & taken).any()
        taken |= mask
        assert set(np.unique(picture[mask])) in ({50}, {90})
        assert mask.sum() in (60 * 30, 80 * 23)


def test_figures_of_what_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    _, truths = big_photos.mosaic(SAMPLES, "bus", pixels=120_000, seed=0)

    def ask(name: str, file: Path, label: str, tile: int | None) -> dict[str, Any]:
        assert tile == 128
        assert np.load(file).shape == (300, 400, 3)
        empty = encode_mask(np.eye(300, 400, dtype=bool))
        found = [*truths[1:], empty, truths[1]]  # one is missed, one wrong, one twice
        return {"rles": found, "tiles": 4, "seconds": 1.0, "peak": 100.0}

    monkeypatch.setattr(big_photos, "in_fresh_process", lambda function, *a: ask(*a))
    row = big_photos.measure_size("tiny", DATA, label="bus", megapixels=0.12, tile=128, seed=0)
    count = len(truths)
    assert (row["height"], row["width"], row["objects"]) == (300, 400, count)
    assert row["recall"] == pytest.approx((count - 1) / count)
    assert row["precision"] == pytest.approx((count - 1) / (count + 1))
    assert row["photo"] == pytest.approx(300 * 400 * 3 / 2**20)


@pytest.mark.parametrize(("label", "pixels"), [("sail", 120_000), ("bus", 400)])
def test_a_mosaic_that_cannot_be_is_refused(label: str, pixels: float) -> None:
    with pytest.raises(BadInputError, match="no photo"):
        big_photos.mosaic(SAMPLES, label, pixels=pixels, seed=0)


def test_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "load_model", lambda name: None)
    monkeypatch.setattr(command, "read_sets", lambda paths, limit: [DATA])

    def measured(name: str, data: DataSet, **options: Any) -> dict[str, Any]:
        known = {"height": 300, "width": 400, "tiles": 4, "seconds": 7.0, "peak": 812.0}
        return {**known, "photo": 300.0, "objects": 8, "masks": 7, "recall": 0.5, "precision": 1.0}

    monkeypatch.setattr(big_photos, "measure_size", measured)
    report = tmp_path / "big.json"
    assert big_photos.main(["made.parquet", "--label", "bus", "--json", str(report)]) == 0
    printed = capsys.readouterr().out
    assert "400 x 300" in printed
    assert "812" in printed
    assert '"recall": 0.5' in report.read_text()
