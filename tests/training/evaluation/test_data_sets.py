"""`training.evaluation.data_sets`: what the commands can be pointed at."""

from __future__ import annotations

import io
import json
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.training.data.coco_faults import write_coco
from textsam.values.rle import decode_rle, encode_mask
from training.data import ParquetSource, load_samples
from training.data.coco import CocoSource
from training.data.public.listed import ListedSource
from training.data.public.voc import VOC_NAMES
from training.evaluation import command, points
from training.evaluation.data_sets import BadInputError, known_labels, read_sets
from training.studies.unseen_names import __main__ as names

from ..data import public_sets as made

SPECS = {
    "voc": (made.voc, ["2007_000033"]),
    "sbd": (made.sbd, ["2008_000003"]),
    "davis": (made.davis, ["goat/00000"]),
    "grabcut": (made.grabcut, ["106024"]),
    "berkeley": (made.berkeley, ["12003"]),
    "ade20k": (made.ade20k, ["ADE_val_00000001"]),
}


def _parquet(path: Path, *, groups: list[str | None] | None = None, photos: int = 2) -> Path:
    file = io.BytesIO()
    Image.new("RGB", (8, 6)).save(file, "PNG")
    counts = encode_mask(made.NUMBERS == 1).counts.decode()
    one = {"label": "cat", "kind": "thing", "rle": counts, "ignore": False}
    rows = [
        {
            "image": {"bytes": file.getvalue(), "path": None},
            "image_id": str(number),
            "height": 6,
            "width": 8,
            "exhaustive": True,
            "void": None,
            "objects": [
                one if group is None else {**one, "group": group} for group in groups or [None]
            ],
        }
        for number in range(photos)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("kind", SPECS)
def test_a_limit_reads_no_other_annotation(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, wanted = SPECS[kind]
    spec, asked = f"{kind}:{make(tmp_path)}", []
    whole = ListedSource.__getitem__
    monkeypatch.setattr(ListedSource, "__getitem__", lambda s, i: asked.append(i) or whole(s, i))

    (data,) = read_sets([spec], limit=1)

    assert [sample.image_id for sample in data.samples] == wanted
    assert asked == [0]
    assert (data.path, data.broken) == (spec, 0)
    assert all(isinstance(sample.encoded, Path) for sample in data.samples)
    assert len(read_sets([spec])[0].samples) > 1


def test_labels_are_the_sets_even_where_few_photos_are_read(tmp_path: Path) -> None:
    (data,) = read_sets([f"voc:{made.voc(tmp_path)}"], limit=1)

    assert data.labels == tuple(sorted(VOC_NAMES))
    assert known_labels(f"voc:{tmp_path}") == data.labels
    assert known_labels(f"parquet:{_parquet(tmp_path / 'a.parquet')}") == ()


def test_labels_of_a_source_that_does_not_say_are_those_that_were_read(tmp_path: Path) -> None:
    (data,) = read_sets([f"parquet:{_parquet(tmp_path / 'a.parquet')}"])
    assert data.labels == ("cat",)


def test_files_and_specs_go_together(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "voc_val.parquet")
    root = made.voc(tmp_path)
    spec = f"voc:{root}?split=val"

    assert [d.name for d in read_sets([path, f"{spec}&name=mine"])] == ["voc_val", "mine"]
    # Two of one name are told apart by where they are.
    assert [d.name for d in read_sets([path, spec])] == [f"{tmp_path.name}/voc_val", spec]
    both = read_sets([spec, f"{spec}&masks=class"])
    assert [d.name for d in both] == [spec, f"{spec}&masks=class"]


def test_broken_photos_are_left_out_and_counted_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = made.voc(tmp_path) / "VOCdevkit/VOC2012"
    (root / "ImageSets/Segmentation/val.txt").write_text("2007_000033\n2007_000042\nnone\n")
    (root / "JPEGImages/2007_000042.jpg").write_bytes(b"no picture")

    (data,) = read_sets([f"voc:{root}"])

    assert [s.image_id for s in data.samples] == ["2007_000033"] and data.broken == 2
    note = capsys.readouterr().err
    assert len(note.splitlines()) == 1
    assert "voc_val: 2 of 3 photos are broken and left out; the first: " in note
    assert "2007_000042.jpg" in note


def test_a_photo_of_another_size_than_its_masks_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = made.grabcut(tmp_path)
    made.photo(root / "data_GT/106024.jpg", size=(12, 16))
    (data,) = read_sets([f"grabcut:{root}"])
    assert [s.image_id for s in data.samples] == ["banana1"]
    assert "'106024' is (12, 16) (height, width)" in capsys.readouterr().err


def test_rows_of_another_schema_are_no_traceback(tmp_path: Path) -> None:
    columns = ("image", "image_id", "height", "width", "exhaustive", "void", "objects")
    pq.write_table(pa.table({name: [1] for name in columns}), tmp_path / "flat.parquet")
    with pytest.raises(
        BadInputError, match=r"flat\.parquet: column image holds int64; wanted a struct"
    ):
        read_sets([f"parquet:{tmp_path / 'flat.parquet'}"])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("voc:{}", "VOC: looked in .* for the folders JPEGImages"),
        ("voc:{}/none", "there is no folder .*none"),
        ("coco:{}/i.json@{}", "no folder|no file"),
        ("vok:{}", "there is no file vok:.*'vok' is no kind of source"),
        ("bsds500:{}", "contours and no masks"),
        ("parquet:{}", r"has no \*\.parquet in it"),
    ],
)
def test_a_source_that_cannot_be_opened_is_one_line(
    tmp_path: Path, spec: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadInputError, match=message):
        read_sets([spec.format(tmp_path, tmp_path)])
    assert points.main([spec.format(tmp_path, tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: [a.update(iscrowd=1) for a in c["annotations"]], "2 are crowds"),
        (lambda c: [a.pop("segmentation") for a in c["annotations"]], "2 have a bbox and no mask"),
        (lambda c: c["annotations"].clear(), "1 no annotation"),
        (lambda c: c["images"].clear(), "has no photo"),
    ],
)
def test_a_set_in_which_nothing_can_be_measured_is_one_line(
    tmp_path: Path, change: Any, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_coco(tmp_path, lambda content, folder: change(content))
    assert points.main([f"coco:{path}@{tmp_path / 'images'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "error: instances" in line and told in line


def test_a_stream_is_cut_off_and_broken_rows_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for index in range(6):
        photo, mask = io.BytesIO(), io.BytesIO()
        Image.new("RGB", (8, 6), (index, 0, 0)).save(photo, "PNG")
        Image.fromarray(made.NUMBERS).save(mask, "PNG")
        broken = index == 1
        rows.append({"image": b"broken" if broken else photo.getvalue(), "map": mask.getvalue()})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    spec = (
        f"hf:parquet?data_files={tmp_path / 'rows.parquet'}&streaming=true&buffer=1&label_map=map"
        "&values=object"
    )

    (data,) = read_sets([spec], limit=3)

    assert len(data.samples) == 2 and data.broken == 1
    assert "1 of 3 photos are broken" in capsys.readouterr().err
    assert [len(sample.objects) for sample in data.samples] == [2, 2]
    with pytest.raises(BadInputError, match=r"is a stream and has no end .* Add --limit N"):
        read_sets([spec])


class _Truthful:
    """Opens a photo; every mask is that of `NUMBERS == 1`."""

    @contextmanager
    def open(self, image: np.ndarray) -> Any:
        logits = np.stack([np.where(made.NUMBERS == 1, 1.0, -1.0)] * 4).astype(np.float32)
        answer = SimpleNamespace(logits=logits, iou=np.full(4, 0.5, np.float32))
        yield SimpleNamespace(predict=lambda **_: answer)


def test_points_measures_a_set_as_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "load_model", lambda name: _Truthful())
    root, report = made.grabcut(tmp_path), tmp_path / "report.json"
    (root / "boundary_GT/banana1.bmp").write_bytes(b"broken")
    few = ["--min-area", "1", "--json", str(report)]

    assert points.main([f"grabcut:{root}", *few, "--limit", "1"]) == 0
    content = json.loads(report.read_text())
    assert content["sets"][0]["photos"] == 1 and "broken" not in content["sets"][0]
    assert content["settings"]["data"] == [f"grabcut:{root}"]
    assert content["sets"][0]["means"]["iou@1"] == 1.0

    assert points.main([f"grabcut:{root}", str(_parquet(tmp_path / "a.parquet")), *few]) == 0
    first, second = json.loads(report.read_text())["sets"]
    assert (first["name"], first["photos"], first["broken"]) == ("grabcut", 1, 1)
    assert (second["name"], second["photos"], second["means"]["iou@1"]) == ("a", 2, 1.0)
    assert "grabcut" in capsys.readouterr().out


def test_names_takes_the_labels_of_a_source(tmp_path: Path) -> None:
    root = made.voc(tmp_path)
    assert names._vocabulary(names.NamesOptions(data=(f"voc:{root}",))) == sorted(VOC_NAMES)
    path = _parquet(tmp_path / "a.parquet")
    assert names._vocabulary(names.NamesOptions(data=(str(path),))) == ["cat"]
    with pytest.raises(BadInputError, match=r"does not list its labels\. Give --vocabulary"):
        names._vocabulary(names.NamesOptions(data=(f"parquet:{path}",)))


def test_the_group_of_an_object_counts_before_that_of_its_photo(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "grouped.parquet", groups=["dark", "", "light"])
    pq.write_table(pq.read_table(path).append_column("group", [["all", None]]), path)

    (data,) = read_sets([path])
    spec = read_sets([f"parquet:{path}"])[0]

    for read in (data, spec):
        groups = [[o.group for o in sample.objects] for sample in read.samples]
        assert groups == [["dark", "all", "light"], ["dark", "", "light"]]
    plain = load_samples([_parquet(tmp_path / "plain.parquet")])
    assert [o.group for o in plain[0].objects] == [""]


def test_the_group_of_a_photo_is_read_row_by_row_too(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "photos.parquet")
    pq.write_table(pq.read_table(path).append_column("group", [["young", "old"]]), path)
    source = ParquetSource([path])
    assert [source[i].objects[0].group for i in range(2)] == ["young", "old"]


def test_the_group_of_a_coco_annotation(tmp_path: Path) -> None:
    made.photo(tmp_path / "images/a.jpg")
    square = [[1, 1, 4, 1, 4, 4, 1, 4]]
    extras: list[dict[str, Any]] = [
        {"attributes": {"group": "dark", "occluded": False}, "group": "outer"},
        {"group": "light"},
        {"attributes": ["none"]},
        {},
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 6, "width": 8}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": 1, "segmentation": square, **extra}
            for n, extra in enumerate(extras)
        ],
        "categories": [{"id": 1, "name": "person"}],
    }
    (tmp_path / "i.json").write_text(json.dumps(content))

    sample = CocoSource(tmp_path / "i.json", tmp_path / "images")[0]

    assert [o.group for o in sample.objects] == ["dark", "light", "", ""]
    assert decode_rle(sample.objects[0].rle).any()
