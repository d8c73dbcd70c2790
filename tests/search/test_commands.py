"""`textsam embed` and `textsam search`, with a random model, on data sets of every kind."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from textsam.cli.app import app
from textsam.cli.inputs.data_sources import open_photo
from textsam.inference.model import TextSAM
from textsam.search.index import MaskIndex
from textsam.search.records import read_rows
from textsam.values.images import load_image
from textsam.values.rle import decode_rle, rle_to_json

pytest.importorskip("lancedb")
pytest.importorskip("datasets")


def write_parquet(path: Path, photo_sets: ModuleType, count: int) -> None:
    """Photos with masks in textsam's own layout."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def row(number: int) -> dict[str, Any]:
        objects = [
            {
                "label": mask.label or "",
                "kind": "thing",
                "rle": mask.rle.counts.decode(),
                "ignore": index == 1,  # a crowd
            }
            for index, mask in enumerate(photo_sets.masks(number))
        ]
        return {
            "image": {"bytes": photo_sets.encoded(number), "path": None},
            "image_id": f"n#{number}",
            "height": photo_sets.SIZE[0],
            "width": photo_sets.SIZE[1],
            "exhaustive": True,
            "void": None,
            "objects": objects,
        }

    pq.write_table(pa.Table.from_pylist([row(number) for number in range(count)]), path)


def write_coco(folder: Path, photo_sets: ModuleType, count: int) -> None:
    """The same photos as files, and a JSON of instances."""
    images, annotations = [], []
    (folder / "photos").mkdir()
    height, width = photo_sets.SIZE
    for number in range(count):
        name = f"{number}.png"
        (folder / "photos" / name).write_bytes(photo_sets.encoded(number))
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        mask = photo_sets.masks(number)[0].rle
        ys, xs = np.nonzero(decode_rle(mask))
        box = [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]
        annotation = {"id": number + 1, "image_id": number, "category_id": 1, "iscrowd": 0}
        annotations.append({**annotation, "segmentation": rle_to_json(mask), "bbox": box})
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "sail"}],
    }
    (folder / "instances.json").write_text(json.dumps(content))


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: TextSAM, photo_sets: ModuleType
) -> Any:
    """Runs a command in a folder with `noise.parquet`, `instances.json` and `photos/`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    _use_model(monkeypatch, model)
    write_parquet(tmp_path / "noise.parquet", photo_sets, 4)
    write_coco(tmp_path, photo_sets, 3)
    runner = CliRunner()

    def invoke(*arguments: Any, code: int = 0) -> Result:
        result = runner.invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == code, result.output
        return result

    return invoke


def _use_model(monkeypatch: pytest.MonkeyPatch, model: TextSAM) -> None:
    """Make commands use this model whatever --model says."""
    monkeypatch.setattr(TextSAM, "from_pretrained", lambda *_, **__: model)


def rows_of(index: str) -> list[Any]:
    with MaskIndex.open(index) as opened:
        return [row for batch in opened.rows() for row in read_rows(batch)]


def test_given_masks_of_a_parquet_file(run: Any, photo_sets: ModuleType) -> None:
    told = run("embed", "noise.parquet", "-o", "masks.lance").output
    rows = rows_of("masks.lance")
    assert f"4 photos: {len(rows)} new masks; in masks.lance" in told
    counts = {(row.image.rpartition(":")[2], row.rle.counts) for row in rows}
    wanted = {
        (f"n#{number}", mask.rle.counts)
        for number in range(4)
        for index, mask in enumerate(photo_sets.masks(number))
        if index != 1 and not mask.rle.is_empty
    }
    assert counts == wanted
    assert {row.dataset for row in rows} == {"noise"} and {row.label for row in rows} == {"sail"}
    # What is known of a photo is enough to find it again, from another folder too.
    pixels = open_photo(rows[0].image)
    number = int(rows[0].image.rpartition("#")[2])
    assert (pixels == load_image(photo_sets.encoded(number))).all()
    again = run("embed", "noise.parquet", "-o", "masks.lance").output
    assert f"0 new masks, {len(rows)} were in the index already" in again


def test_coco_and_a_name(run: Any) -> None:
    data = "coco:instances.json@photos?exhaustive=true"
    run("embed", data, "-o", "masks.lance", "--data-set", "boats", "--limit", 2)
    rows = rows_of("masks.lance")
    assert [row.dataset for row in rows] == ["boats"] * 2
    assert {row.image for row in rows} == {str(Path(f"photos/{n}.png").resolve()) for n in (0, 1)}


@pytest.mark.parametrize("streaming", ["true", "false"])
def test_data_sets_of_the_hub(
    run: Any, streaming: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    options = f"data_files={tmp_path / 'noise.parquet'}&image_id=image_id&streaming={streaming}"
    data = f"hf:parquet?{options}&masks=objects.rle&labels=objects.label&name=hub"
    run("embed", data, "-o", "masks.lance")
    rows = rows_of("masks.lance")
    assert {row.image.rpartition(":")[2] for row in rows} == {f"n#{n}" for n in range(4)}
    assert open_photo(rows[0].image).shape == (40, 60, 3)


def test_photos_without_masks(run: Any, photo_sets: ModuleType) -> None:
    """Broken ones are told, and all else is in; the index may lie among the photos."""
    Path("photos/broken.jpg").write_bytes(b"none")
    result = run("embed", "photos", "-o", "photos/masks.lance", code=1)
    assert "failed" in result.output and "broken.jpg" in result.output
    assert "4 photos" in result.output and "1 photos failed" in result.output
    told = run("embed", "photos", "-o", "other.lance", "--masks", "given", code=1).output
    assert told.strip().splitlines()[-1].startswith("error: these photos come without masks")


def test_search_in_every_way(run: Any, tmp_path: Path) -> None:
    run("embed", "noise.parquet", "-o", "masks.lance")
    run("embed", "coco:instances.json@photos", "-o", "masks.lance", "--data-set", "boats")
    rows = rows_of("masks.lance")
    shown = run("search", "masks.lance", "-t", "sail", "-k", 3).output
    assert "cosine" in shown and "wrote search.png" in shown
    assert Image.open("search.png").width > 500
    # A mask finds itself first, in both spaces, and conditions hold.
    [row] = [row for row in rows if row.image.endswith("photos/2.png")]
    Image.fromarray(decode_rle(row.rle)).save("mask.png")
    photo = np.asarray(Image.open("photos/2.png"))
    alpha = np.where(decode_rle(row.rle), 255, 0).astype(np.uint8)
    Image.fromarray(np.dstack([photo, alpha])).save("cutout.png")
    for query in (["--image", "photos/2.png", "--mask", "mask.png"], ["--mask", "cutout.png"]):
        for space in ("clip", "sam"):
            options = ["--space", space, "--json", "--data-set", "boats", "--min-area", 1]
            lines = run("search", "masks.lance", *query, *options).output.splitlines()
            found = [json.loads(line) for line in lines if line.startswith("{")]
            assert found[0]["image"] == row.image and found[0]["cosine"] > 0.999
            assert {one["dataset"] for one in found} == {"boats"}
    run("search", "masks.lance", "--image", "photos/1.png", "--label", "sail", "-o", "whole.png")
    run("search", "masks.lance", "--like", "photos/1.png", "-p", "20,10", "-o", "click.jpg")
    assert Path("whole.png").exists() and Path("click.jpg").exists()


def test_results_as_a_data_set(run: Any) -> None:
    import datasets

    run("embed", "coco:instances.json@photos", "-o", "masks.lance")
    run("search", "masks.lance", "-t", "sail", "--json", "--save-dataset", "found")
    assert set(datasets.load_from_disk("found")["label"]) == {"sail"}
    assert not Path("search.png").exists()
    told = run("search", "masks.lance", "-t", "sail", "--save-dataset", "found", code=1).output
    assert "already exists" in told


def test_photos_that_have_gone(run: Any) -> None:
    run("embed", "coco:instances.json@photos", "-o", "masks.lance")
    Path("photos/1.png").unlink()
    result = run("search", "masks.lance", "-t", "sail")
    assert "1.png: " in result.output and "no picture of" in result.output
    assert Path("search.png").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere", "-t", "sail"], "there is no index 'nowhere'. Type: textsam embed"),
        (["photos", "-t", "sail"], "is not an index of masks"),
        (["masks.lance", "-t", " "], "wanted a phrase"),
        (["masks.lance"], "got nothing to search for"),
        (["masks.lance", "-t", "a", "--image", "photos/1.png"], "wanted one of"),
        (["masks.lance", "--like", "photos/1.png"], "--like needs --point"),
        (["masks.lance", "-t", "a", "-p", "1,2"], "add --like"),
        (["masks.lance", "--mask", "photos/1.png"], "has no alpha"),
        (["masks.lance", "--image", "photos/1.png", "--mask", "black.png"], "is empty"),
        (["masks.lance", "--image", "photos/1.png", "--mask", "small.png"], "(2, 3)"),
        (["masks.lance", "--image", "photos/1.png", "--mask", "no.png"], "no such file"),
        (["masks.lance", "--image", "noise.parquet"], "noise.parquet"),
        (["masks.lance", "-t", "a", "--space", "sam"], "which has no phrases"),
        (["masks.lance", "-t", "a", "-o", "sheet.txt"], "wanted a picture"),
        (["masks.lance", "-t", "a", "-o", "no/sheet.png"], "there is no folder"),
        (["masks.lance", "-t", "a", "--min-area", 9, "--max-area", 3], "above max_area"),
        (["masks.lance", "-t", "a", "-k", 0], "k=0"),
    ],
)
def test_bad_searches_are_one_line(run: Any, arguments: list[Any], told: str) -> None:
    run("embed", "coco:instances.json@photos", "-o", "masks.lance", "--limit", 1)
    Image.new("L", (60, 40)).save("black.png")
    Image.new("L", (3, 2), 1).save("small.png")
    output = run("search", *arguments, code=1).output.strip().splitlines()[-1]
    assert output.startswith("error: ") and told in output


def test_another_model_is_refused(
    run: Any, monkeypatch: pytest.MonkeyPatch, handless_model: TextSAM
) -> None:
    run("embed", "noise.parquet", "-o", "masks.lance", "--spaces", "sam", "--limit", 1)
    _use_model(monkeypatch, handless_model)
    told = run("embed", "noise.parquet", "-o", "masks.lance", "--latents", "crops", code=1).output
    assert "They differ in" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere.parquet"], "nowhere.parquet"),
        (["instances.json"], "coco:instances.json@FOLDER_OF_PHOTOS"),
        (["empty"], "no photos in"),
        (["photos", "--batch", 0], "batch=0"),
        (["photos", "--workers", 2], "add --engine ray"),
        (["hf:parquet?data_files=noise.parquet"], "wanted one of them"),
    ],
)
def test_bad_data_is_one_line(run: Any, arguments: list[Any], told: str) -> None:
    Path("empty").mkdir()
    output = run("embed", *arguments, "-o", "masks.lance", code=1).output
    assert told in output and output.count("error: ") == 1
    assert not Path("masks.lance").exists()
