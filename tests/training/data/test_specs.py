"""Sources named in a line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data import ParquetSource, Source, SourceSpec, open_source
from training.data.coco import CocoSource
from training.data.label_pngs import LabelPngSource
from training.data.sa1b import Sa1bSource


@pytest.fixture
def coco(tmp_path: Path) -> str:
    path = tmp_path / "i@1.json"
    images = [{"id": 1, "file_name": "a.png", "height": 4, "width": 4}]
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    (tmp_path / "images").mkdir()
    return f"{path}@{tmp_path / 'images'}"


def test_every_kind_is_opened(tmp_path: Path, parquet: Path, coco: str) -> None:
    sa1b = tmp_path / "sa1b"
    sa1b.mkdir()
    (sa1b / "sa_1.json").write_text("{}")
    (tmp_path / "labels").mkdir()
    Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / "labels" / "a.png")
    (tmp_path / "names.txt").write_text("background\ndog")
    pngs = f"pngs:{tmp_path / 'images'}@{tmp_path / 'labels'}"
    for text, kind in [
        (f"parquet:{parquet}", ParquetSource),
        (f"parquet:{tmp_path}", ParquetSource),
        (f"parquet:{parquet},{parquet}?name=twice&window=2", ParquetSource),
        (f"coco:{coco}?exhaustive=true&name=mine", CocoSource),
        (f"sa1b:{sa1b}", Sa1bSource),
        (f"{pngs}?names={tmp_path / 'names.txt'}&regions=true&void=none", LabelPngSource),
        (str(parquet), ParquetSource),
        (str(sa1b), Sa1bSource),
    ]:
        source = open_source(text)
        assert isinstance(source, kind) and isinstance(source, Source)
    assert len(open_source(f"parquet:{parquet},{parquet}")) == 4  # type: ignore[arg-type]
    named = open_source(f"coco:{coco}?exhaustive=true&name=mine")
    assert isinstance(named, CocoSource) and named.exhaustive and named.name == "mine"


def test_text_and_fields_say_the_same(coco: str) -> None:
    spec = SourceSpec.parse(f"coco:{coco}?exhaustive=true")
    path, _, images = coco.rpartition("@")
    assert spec == SourceSpec(kind="coco", path=path, beside=images, options={"exhaustive": "true"})


@pytest.mark.parametrize(
    "text",
    [
        "parquet:a.parquet,/b/c.parquet?name=x+y",
        "coco:i.json@photos?exhaustive=true",
        "hf:owner/set?masks=objects.rle&data_files=%2Fa%2Fb.parquet",
    ],
)
def test_full_paths_as_text(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same source from any folder; a name on the hub is no path."""
    monkeypatch.chdir(tmp_path)
    spec = SourceSpec.parse(text)
    full = spec.absolute()
    assert SourceSpec.parse(str(spec)) == spec and SourceSpec.parse(str(full)) == full
    assert full.options == spec.options and full.absolute() == full
    if spec.kind == "parquet":
        assert full.path == f"{tmp_path}/a.parquet,/b/c.parquet"
    if spec.kind == "coco":
        assert (full.path, full.beside) == (f"{tmp_path}/i.json", f"{tmp_path}/photos")
    if spec.kind == "hf":
        assert full == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere", r"is not there. Say its kind: parquet:FILE"),
        ("colour:x", "Say its kind"),
        ("coco:x.json", "wanted two paths. Type: coco:INSTANCES"),
        ("pngs:@labels", "wanted two paths"),
        ("parquet:", "has no path"),
        ("parquet:x.parquet?speed=9", "has no option speed; it has name, window"),
        ("parquet:x.parquet?speed", "are no options"),
        ("parquet:x.parquet?window=few", "wanted a whole number"),
        ("hf:owner/set", "wanted one of them"),
        ("hf:owner/set?masks=m&streaming=yes", "wanted true or false"),
        ("pngs:a@b?values=colour", "wanted class or object"),
    ],
)
def test_what_cannot_be_meant_says_what_to_type(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_source(text)


def test_a_bare_path_that_can_mean_two_things_is_not_guessed(tmp_path: Path, parquet: Path) -> None:
    (tmp_path / "sa_1.json").write_text("{}")
    for path in (tmp_path, tmp_path / "sa_1.json"):
        with pytest.raises(
            ValueError, match=r"cannot be told from its path|alone lacks its photos\. Type: coco:"
        ):
            open_source(str(path))


def test_coco_is_not_taken_for_lvis(coco: str) -> None:
    with pytest.raises(ValueError, match=r"it is not LVIS\. Type: coco:"):
        open_source(f"lvis:{coco}")
