"""What is left of a mask after each format, read by the library that people read it with.

    python -m training.studies.round_trips

One row for each format, one column for each kind of mask: the lowest IoU of a mask, "=" if all are
exact; and the seconds to write and read everything.
"""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from textsam.results.segmentation import Segmentation

Masks = NDArray[np.bool_]


def shapes() -> dict[str, Segmentation]:
    """Kinds of masks by name, on photos of several sizes."""
    thing = _drawn((120, 160), (30, 20, 110, 90))
    found: dict[str, Segmentation] = {}
    hole = thing & ~_drawn((120, 160), (50, 40, 80, 70)) & ~_drawn((120, 160), (84, 40, 90, 60))
    found["holes"] = _named([hole])
    parts = thing | _drawn((120, 160), (114, 30, 150, 80)) | _drawn((120, 160), (40, 94, 100, 115))
    found["parts"] = _named([parts])
    dots = np.zeros((3, 40, 50), dtype=bool)
    dots[0, 7, 9] = dots[1, 0, 0] = dots[2, 39, 49] = True
    found["pixels"] = _named(list(dots))
    edge = np.zeros((3, 60, 80), dtype=bool)
    edge[0, -1], edge[1, :, -1], edge[2, 30:, 40:] = True, True, True
    found["last row, column"] = _named(list(edge))
    found["nothing"] = Segmentation((50, 60), [])
    found["slanted"] = _named([thing, _drawn((120, 160), (10, 5, 60, 110), turn=30)])
    noise = np.random.default_rng(0).random((90, 90)) < 0.5
    found["noise"] = _named([noise])
    many = np.zeros((1000, 210, 260), dtype=bool)
    for index in range(1000):
        y, x = divmod(index, 40)
        many[index, 8 * y : 8 * y + 3 + index % 5, 6 * x : 6 * x + 2 + index % 7] = True
    found["1,000 masks"] = _named(list(many))
    return found


def _drawn(size: tuple[int, int], box: tuple[int, int, int, int], *, turn: int = 0) -> Masks:
    """An ellipse, or if it is turned, a rectangle."""
    canvas = Image.new("1", (size[1], size[0]))
    if turn:
        ImageDraw.Draw(canvas).rectangle(box, fill=1)
        canvas = canvas.rotate(turn)
    else:
        ImageDraw.Draw(canvas).ellipse(box, fill=1)
    return np.asarray(canvas)


def _named(masks: list[Masks]) -> Segmentation:
    labels = ["dog" if index % 2 else "tree" for index in range(len(masks))]
    return Segmentation.from_masks(np.stack(masks), labels=labels)


def write_photo(folder: Path, name: str, result: Segmentation) -> Path:
    """A grey photo of the result's size."""
    path = folder / f"{name.replace(' ', '_').replace(',', '')}.png"
    Image.new("RGB", result.size[::-1], (90, 90, 90)).save(path)
    return path


def by_pycocotools(folder: Path) -> Iterator[tuple[str, Masks]]:
    """Masks of a COCO file, with the name of their photo."""
    from pycocotools.coco import COCO

    with redirect_stdout(StringIO()):
        data = COCO(str(folder / "annotations.json"))
    for image in data.loadImgs(data.getImgIds()):
        masks = [data.annToMask(a) for a in data.loadAnns(data.getAnnIds([image["id"]]))]
        yield Path(image["file_name"]).stem, np.asarray(masks, dtype=bool)


def by_supervision(folder: Path, kind: str) -> Iterator[tuple[str, Masks]]:
    """Masks as `supervision.DetectionDataset` reads them."""
    import supervision

    photos = str(folder / ("JPEGImages" if kind == "voc" else "images"))
    read = supervision.DetectionDataset
    if kind == "coco":
        data = read.from_coco(photos, str(folder / "annotations.json"), force_masks=True)
    elif kind == "yolo":
        labels, names = str(folder / "labels"), str(folder / "data.yaml")
        data = read.from_yolo(photos, labels, names, force_masks=True)
    elif kind == "labelme":
        data = read.from_labelme(photos, photos, force_masks=True)
    else:
        data = read.from_pascal_voc(photos, str(folder / "Annotations"), force_masks=True)
    for path, detections in data.annotations.items():
        masks = detections.mask
        yield Path(path).stem, np.asarray([] if masks is None else masks, dtype=bool)


def by_geopandas(folder: Path, kind: str) -> Iterator[tuple[str, Masks]]:
    """Masks burnt by rasterio from what geopandas reads: pixels whose centre is inside."""
    geopandas = import_module("geopandas")
    rasterize = import_module("rasterio.features").rasterize

    layer = {"layer": "masks"} if kind == "gpkg" else {}
    frame = geopandas.read_file(folder / f"masks.{kind}", **layer)
    assert frame.geometry.is_valid.all()
    for photo, rows in frame.groupby("photo"):
        # By our own reader the size alone.
        size = Image.open(next(folder.rglob(photo))).size[::-1]
        masks = [rasterize([shape], size) for shape in rows.geometry]
        yield Path(photo).stem, np.asarray(masks, dtype=bool)


def by_datasets(folder: Path) -> Iterator[tuple[str, Masks]]:
    """Masks of Parquet as `datasets` reads it, decoded by pycocotools."""
    from pycocotools import mask as coco

    datasets = import_module("datasets")
    datasets.disable_progress_bars()
    data = datasets.load_dataset(
        "parquet", data_files=str(folder / "masks.parquet"), cache_dir=str(folder / "cache")
    )["train"]
    for row in data:
        size = [row["height"], row["width"]]
        assert row["image"].size == tuple(size[::-1])
        codes = [{"size": size, "counts": item["rle"].encode()} for item in row["objects"]]
        masks = [coco.decode(code) for code in codes]
        yield Path(row["image_id"]).stem, np.asarray(masks, dtype=bool)


def by_textsam(folder: Path) -> Iterator[tuple[str, Masks]]:
    """Masks as `read_set` reads them."""
    from textsam import read_set

    for path, result in read_set(folder):
        yield path.stem, result.masks


Reader = Callable[[Path], Iterator[tuple[str, Masks]]]
# Name of the row, options of `write_set`, the reader, what it needs installed.
ROWS: list[tuple[str, dict[str, Any], Reader, str]] = [
    ("coco, pycocotools", {"format": "coco"}, by_pycocotools, "pycocotools"),
    ("coco, supervision", {"format": "coco"}, lambda f: by_supervision(f, "coco"), "supervision"),
    ("coco polygons", {"format": "coco", "polygons": True}, by_pycocotools, "pycocotools"),
    ("yolo, supervision", {"format": "yolo"}, lambda f: by_supervision(f, "yolo"), "supervision"),
    ("voc, supervision", {"format": "voc"}, lambda f: by_supervision(f, "voc"), "supervision"),
    ("labelme", {"format": "labelme"}, by_textsam, "PIL"),
    ("labelme masks", {"format": "labelme", "polygons": False}, by_textsam, "PIL"),
    ("cvat", {"format": "cvat"}, by_textsam, "PIL"),
    ("cvat polygons", {"format": "cvat", "polygons": True}, by_textsam, "PIL"),
    ("geojson", {"format": "geojson"}, lambda f: by_geopandas(f, "geojson"), "geopandas"),
    ("gpkg", {"format": "gpkg"}, lambda f: by_geopandas(f, "gpkg"), "pyogrio"),
    ("labelstudio", {"format": "labelstudio"}, by_textsam, "PIL"),
    ("labelstudio polygons", {"format": "labelstudio", "polygons": True}, by_textsam, "PIL"),
    ("parquet, datasets", {"format": "parquet"}, by_datasets, "datasets"),
]
# Those that must come back to the pixel.
EXACT = {"coco, pycocotools", "coco, supervision", "labelme masks", "cvat", "labelstudio"} | {
    "parquet, datasets"
}


def compare(result: Segmentation, masks: Masks) -> tuple[float, bool, float]:
    """Lowest IoU of all masks and whether all are equal, and the lowest of those over 500 px."""
    ious, large = [1.0], [1.0]
    if len(masks) != len(result):
        return 0.0, False, 0.0
    for own, other in zip(result.masks, masks, strict=True):
        iou = float((own & other).sum() / max(1, (own | other).sum()))
        ious.append(iou)
        large += [iou] if own.sum() > 500 else []
    return min(ious), min(ious) == 1.0, min(large)


def round_trip(
    results: dict[str, Segmentation], folder: Path, options: dict[str, Any], read: Reader
) -> dict[str, tuple[float, bool, float]]:
    """Write all results as one set, read it, and compare each photo."""
    from textsam import write_set

    (folder / "photos").mkdir(parents=True)
    photos = {name: write_photo(folder / "photos", name, r) for name, r in results.items()}
    options = {"photos": "copy", "tolerance": 0.5, **options}
    write_set([(photos[name], r) for name, r in results.items()], folder / "set", **options)
    found = dict(read(folder / "set"))
    return {
        name: compare(result, found.get(photos[name].stem, np.zeros((0, *result.size), bool)))
        for name, result in results.items()
    }


@dataclass(frozen=True, kw_only=True)
class RoundTripsOptions:
    """Write masks in every format and read them back with the other library."""

    json: Path | None = None  # also write the figures to this file


def main() -> None:
    """Print the table."""
    arguments = tyro.cli(RoundTripsOptions)
    warnings.simplefilter("ignore")
    results = shapes()
    print("| format, reader | " + " | ".join(results) + " | seconds |")
    print("|---" * (len(results) + 2) + "|")
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for index, (name, options, read, _) in enumerate(ROWS):
            start = time.perf_counter()
            row = round_trip(results, Path(folder) / str(index), options, read)
            _print_row(name, row, time.perf_counter() - start)
            figures[name] = row
    if arguments.json:
        arguments.json.write_text(json.dumps(figures))


def _print_row(name: str, row: dict[str, tuple[float, bool, float]], seconds: float) -> None:
    cells = ["=" if exact else f"{worst:.3f}" for worst, exact, _ in row.values()]
    print(f"| {name} | {' | '.join(cells)} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
