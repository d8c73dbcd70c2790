"""GeoJSON and GeoPackage: one file for all photos, polygons with their holes.

Corners are map coordinates where the photo has them (GeoTIFF, world file), else pixels, with y
pointing down. GeoJSON's map coordinates are longitude and latitude (RFC 7946), if the photo says
what its own are; a GeoPackage keeps those of the photos.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textsam.errors import require
from textsam.results.formats.set_photo import SetOptions, SetPhoto, annotation_id
from textsam.results.polygons import fill_polygons, mask_to_rings, ring_area
from textsam.results.segmentation import Segmentation
from textsam.results.storage import dump_json
from textsam.values.files import open_atomically
from textsam.values.georeference import Georeference, read_georeference

_DEGREES = "EPSG:4326"  # longitude, latitude


def write_geojson(folder: Path, photos: Sequence[SetPhoto], options: SetOptions) -> None:
    """Write `masks.geojson`."""
    with open_atomically(options.new_file(folder / "masks.geojson")) as file:
        # A foreign member, which readers pass over: photos without masks have no feature.
        file.write(b'{"type": "FeatureCollection", "features": [')
        between, sizes = b"\n", {}
        for photo in photos:
            place = options.place(photo, folder / "images")
            rows = _rows(photo, place, options, degrees=True)
            sizes[photo.name] = next(rows)
            for properties, geometry in rows:
                feature = {
                    "type": "Feature",
                    "id": properties["id"],
                    "properties": properties,
                    "geometry": {"type": "MultiPolygon", "coordinates": geometry},
                }
                file.write(between + dump_json(feature).rstrip(b"\n"))
                between = b",\n"
        file.write(b"\n], " + dump_json({"photos": sizes})[1:])


def write_gpkg(folder: Path, photos: Sequence[SetPhoto], options: SetOptions) -> None:
    """Write `masks.gpkg` with the layers `masks` and `photos`, by geopandas (extra `geo`)."""
    geopandas = require("geopandas", "geo")
    shapely = require("shapely.geometry", "geo")
    table, geometries, sizes = [], [], {}
    for photo in photos:
        place = options.place(photo, folder / "images")
        rows = _rows(photo, place, options, degrees=False)
        sizes[photo.name] = next(rows)
        for properties, geometry in rows:
            table.append(properties)
            geometries.append(shapely.shape({"type": "MultiPolygon", "coordinates": geometry}))
    systems = {size["crs"] for size in sizes.values()}
    if len(systems) > 1:
        raise ValueError(
            f"got photos in several coordinate systems, {sorted(map(str, systems))}; a layer has "
            "one. Make a set for each, or use geojson"
        )
    path = options.new_file(folder / "masks.gpkg")
    part = path.with_name(".part.gpkg")
    part.unlink(missing_ok=True)
    columns = ["photo", "label", "score", "iou", "area", "id", "crs"]
    frame = geopandas.GeoDataFrame(
        {name: [row[name] for row in table] for name in columns},
        geometry=geometries,
        crs=next(iter(systems), None),
    )
    with warnings.catch_warnings():
        # Said of pixels, which have no coordinate system.
        warnings.filterwarnings("ignore", "'crs' was not provided")
        frame.to_file(part, layer="masks", driver="GPKG", engine="pyogrio")
    bare = [{"photo": name, "size": json.dumps(size)} for name, size in sizes.items()]
    require("pyogrio", "geo").write_dataframe(
        require("pandas", "geo").DataFrame(bare, columns=["photo", "size"]),
        part,
        layer="photos",
        append=True,
    )
    part.replace(path)


def _rows(photo: SetPhoto, file: Path, options: SetOptions, *, degrees: bool) -> Iterator[Any]:
    """First what must be known of the photo, then properties and coordinates of each mask."""
    result, place = photo.load(), read_georeference(photo.path)
    system = None if place is None else place.crs
    if degrees and system is not None:
        system = _DEGREES
    height, width = result.size
    affine = None if place is None else list(place.transform)
    own = None if place is None else place.crs
    name = file.as_posix() if options.photos == "none" else f"images/{photo.name}"
    size = {"height": height, "width": width, "file": name}
    yield {**size, "crs": system, "transform": affine, "photo_crs": own}
    for index, item in enumerate(result):
        geometry = [
            [_closed(_on_map(ring, place, degrees=degrees)) for ring in polygon]
            for polygon in _polygons(item.mask, options.tolerance)
        ]
        properties = {
            "photo": photo.name,
            "label": options.names[options.number(item.label)],
            "score": None if math.isnan(item.score) else round(item.score, 6),
            "iou": None if math.isnan(item.iou) else round(item.iou, 6),
            "area": item.area,
            "id": annotation_id(photo, index),
            "crs": system,
        }
        yield properties, geometry


def _polygons(mask: NDArray[np.bool_], tolerance: float) -> list[list[NDArray[np.float32]]]:
    """Outer rings, each with its holes; no ring touches itself, as the simple features want it."""
    rings = [part for ring in mask_to_rings(mask, tolerance=tolerance) for part in _split(ring)]
    outer = [[ring] for ring in rings if ring_area(ring) > 0]
    for hole in (ring for ring in rings if ring_area(ring) < 0):
        # The smallest ring around it: they are sorted here from the smallest.
        outer.sort(key=lambda polygon: ring_area(polygon[0]))
        middle = _inner_point(hole)
        home = next((polygon for polygon in outer if _contains(polygon[0], middle)), outer[-1])
        home.append(hole)
    return outer


def _split(ring: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Cut a ring into rings where it comes to a corner for the second time."""
    corners: list[tuple[float, float]] = []
    places: dict[tuple[float, float], int] = {}
    for x, y in ring.tolist():
        if (x, y) in places:
            start = places[x, y]
            loop = corners[start:]
            del corners[start:]
            for corner in loop:
                del places[corner]
            if len(loop) >= 3:
                yield np.asarray(loop, dtype=np.float32)
        places[x, y] = len(corners)
        corners.append((x, y))
    if len(corners) >= 3:
        yield np.asarray(corners, dtype=np.float32)


def _inner_point(ring: NDArray[np.float32]) -> tuple[float, float]:
    """A point beside the middle of a ring's longest side, inside of it."""
    ends = np.roll(ring, -1, axis=0)
    longest = int(((ends - ring) ** 2).sum(axis=1).argmax())
    (x0, y0), (x1, y1) = ring[longest].tolist(), ends[longest].tolist()
    inwards = 0.01 if ring_area(ring) > 0 else -0.01
    length = math.hypot(x1 - x0, y1 - y0)
    return (x0 + x1) / 2 - inwards * (y1 - y0) / length, (y0 + y1) / 2 + inwards * (
        x1 - x0
    ) / length


def _contains(ring: NDArray[np.float32], point: tuple[float, float]) -> bool:
    """Whether a point is inside a ring (even-odd)."""
    (x0, y0), (x1, y1) = ring.T.astype(np.float64), np.roll(ring, -1, axis=0).T.astype(np.float64)
    x, y = point
    crossed = (y0 <= y) != (y1 <= y)
    at = x0[crossed] + (y - y0[crossed]) * (x1 - x0)[crossed] / (y1 - y0)[crossed]
    return bool((at > x).sum() % 2)


def _on_map(ring: NDArray[Any], place: Georeference | None, *, degrees: bool) -> NDArray[Any]:
    corners = np.asarray(ring, dtype=np.float64)
    if place is None:
        return corners
    a, b, c, d, e, f = place.transform
    x, y = corners.T
    xs, ys = a * x + b * y + c, d * x + e * y + f
    if degrees and place.crs is not None and place.crs != _DEGREES:
        xs, ys = require("rasterio.warp", "geo").transform(place.crs, _DEGREES, xs, ys)
    # Counter-clockwise, as RFC 7946 has it: y points up on a map.
    return np.stack([xs, ys], axis=1)


def _closed(ring: NDArray[Any]) -> list[list[float]]:
    return [*ring.tolist(), ring[0].tolist()]


def read_geojson(folder: Path) -> Iterator[tuple[Path, Segmentation]]:
    """Read what `write_geojson` wrote."""
    path = folder if folder.is_file() else folder / "masks.geojson"
    data = json.loads(path.read_bytes())
    if "photos" not in data:
        raise ValueError(f"{path} does not say how large its photos are; wanted a set of textsam's")
    rows = [(row["properties"], row["geometry"]["coordinates"]) for row in data["features"]]
    yield from _read(path.parent, data["photos"], rows)


def read_gpkg(folder: Path) -> Iterator[tuple[Path, Segmentation]]:
    """Read what `write_gpkg` wrote."""
    path = folder if folder.is_file() else folder / "masks.gpkg"
    read = require("pyogrio", "geo").read_dataframe
    bare = read(path, layer="photos")
    sizes = {
        row.photo: json.loads(row.size_)
        for row in bare.rename(columns={"size": "size_"}).itertuples()
    }
    rows = []
    frame = read(path, layer="masks")
    for row in frame.to_dict("records"):
        geometry = row["geometry"].__geo_interface__["coordinates"] if row["geometry"] else []
        rows.append((row, geometry))
    yield from _read(path.parent, sizes, rows)


def _read(
    folder: Path, sizes: dict[str, Any], rows: Sequence[tuple[dict[str, Any], Any]]
) -> Iterator[tuple[Path, Segmentation]]:
    of_photo: dict[str, list[Any]] = {}
    for properties, geometry in rows:
        of_photo.setdefault(properties["photo"], []).append((properties, geometry))
    for name, size in sizes.items():
        masks, labels, scores = [], [], []
        shape = (int(size["height"]), int(size["width"]))
        for properties, geometry in of_photo.get(name, []):
            mask = np.zeros(shape, dtype=np.bool_)
            for polygon in geometry:
                for ring in polygon:
                    mask ^= fill_polygons([_on_photo(np.asarray(ring)[:, :2], size)], shape)
            masks.append(mask)
            labels.append(properties["label"])
            score = properties.get("score")
            scores.append(math.nan if score is None else float(score))
        stack = np.asarray(masks, dtype=np.bool_).reshape(-1, *shape)
        yield folder / size["file"], Segmentation.from_masks(stack, labels=labels, scores=scores)


def _on_photo(ring: NDArray[Any], size: dict[str, Any]) -> NDArray[Any]:
    """Map coordinates to pixels."""
    if size["transform"] is None:
        return ring
    xs, ys = ring.T
    if size["crs"] != size["photo_crs"]:
        warp = require("rasterio.warp", "geo")
        xs, ys = warp.transform(size["crs"], size["photo_crs"], xs, ys)
    a, b, c, d, e, f = size["transform"]
    offsets = np.stack([np.asarray(xs) - c, np.asarray(ys) - f])
    return np.asarray(np.linalg.solve(np.asarray([[a, b], [d, e]]), offsets).T)
