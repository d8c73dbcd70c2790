"""Many results as ONE data set of another tool, and back: `write_set`, `read_set`.

    write_set([("bus.jpg", model.segment("bus.jpg", "wheel"))], "set", format="yolo")
    for photo, result in read_set("set"): ...

docs/formats.md says what each format keeps, and who reads it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from textsam.results.formats.coco_set import read_coco, write_coco
from textsam.results.formats.cvat import read_cvat, write_cvat
from textsam.results.formats.geo_files import (
    read_geojson,
    read_gpkg,
    write_geojson,
    write_gpkg,
)
from textsam.results.formats.label_studio import read_label_studio, write_label_studio
from textsam.results.formats.labelme import read_labelme, write_labelme
from textsam.results.formats.parquet_set import read_parquet, write_parquet
from textsam.results.formats.pascal_voc import read_voc, write_voc
from textsam.results.formats.set_photo import (
    PhotoPlace,
    SetOptions,
    SetPhoto,
    make_photos,
)
from textsam.results.formats.yolo_set import read_yolo, write_yolo
from textsam.results.segmentation import Segmentation
from textsam.results.storage import dump_json
from textsam.values.files import remove_parts, write_atomically
from textsam.values.settings import SetFormat

__all__ = ["read_set", "write_set"]

# The files of the last set in a folder, so that those of photos that are gone can be removed.
_LIST = Path(".textsam", "set.json")


@dataclass(frozen=True, kw_only=True)
class _Format:
    write: Callable[[Path, Sequence[SetPhoto], SetOptions], None]
    read: Callable[[Path], Iterator[tuple[Path, Segmentation]]]
    sign: str  # the file or folder that tells it from the others
    polygons: bool | None = None  # whether it has polygons only, or masks only
    photos: PhotoPlace = "copy"


_FORMATS: dict[SetFormat, _Format] = {
    "coco": _Format(write=write_coco, read=read_coco, sign="annotations.json"),
    "yolo": _Format(write=write_yolo, read=read_yolo, sign="data.yaml", polygons=True),
    "cvat": _Format(write=write_cvat, read=read_cvat, sign="annotations.xml"),
    "voc": _Format(write=write_voc, read=read_voc, sign="Annotations", polygons=True),
    # Maps are large, and GIS programs open them beside the file.
    "geojson": _Format(
        write=write_geojson, read=read_geojson, sign="masks.geojson", polygons=True, photos="none"
    ),
    "gpkg": _Format(
        write=write_gpkg, read=read_gpkg, sign="masks.gpkg", polygons=True, photos="none"
    ),
    "labelstudio": _Format(write=write_label_studio, read=read_label_studio, sign="tasks.json"),
    "parquet": _Format(
        write=write_parquet, read=read_parquet, sign="masks.parquet", polygons=False
    ),
    # Last, as its sign is any JSON file.
    "labelme": _Format(write=write_labelme, read=read_labelme, sign="images"),
}


def write_set(
    items: Iterable[tuple[str | Path, Segmentation]],
    folder: str | Path,
    *,
    format: SetFormat,
    names: Sequence[str] = (),
    polygons: bool | None = None,
    tolerance: float = 0.5,
    photos: PhotoPlace | None = None,
) -> Path:
    """Write photos with their masks as one data set.

    Ids depend on the names of the photos alone: a photo keeps its own, and those of its masks, when
    others come or go. A set of an earlier call in the same folder is replaced.

    Args:
        items: Photos and their results.
        folder: Where to; created if it is missing.
        format: See docs/formats.md.
        names: Class names in order; other labels follow. Masks without a label are "object".
        polygons: Whether masks become polygons; by default only where the format's readers expect
            them (yolo, labelme, voc, geojson, gpkg). Masks are exact.
        tolerance: For polygons, the maximum distance in pixels of a corner from the line that
            replaces it; 0 is exact.
        photos: "copy" the photos into the set, "link" them, or "none": leave them where they are,
            which is the default of geojson and gpkg.

    Returns:
        The folder.

    Raises:
        ValueError: An unknown format, or an option that does not fit it.
        MissingExtraError: gpkg needs the extra `geo`, parquet `search`.
        OSError: A photo cannot be copied, or the folder not be written.
    """
    kept = [(Path(path), result) for path, result in items]
    photo_list = make_photos([(path, path.name, partial(_same, result)) for path, result in kept])
    options = make_options(
        format, names=names, polygons=polygons, tolerance=tolerance, photos=photos
    )
    return assemble_set(photo_list, Path(folder), format, options)


def _same(result: Segmentation) -> Segmentation:
    return result


def make_options(
    format: SetFormat,
    *,
    names: Sequence[str] = (),
    polygons: bool | None = None,
    tolerance: float = 0.5,
    photos: PhotoPlace | None = None,
) -> SetOptions:
    """Check the options of `write_set`."""
    if format not in _FORMATS:
        near = get_close_matches(str(format), _FORMATS, n=1)
        advice = f'. Type: format="{near[0]}"' if near else ""
        if str(format) == "fiftyone":
            advice = '. FiftyOne reads COCO: format="coco"; docs/formats.md has its line'
        raise ValueError(f"got format {format!r}; wanted one of {', '.join(_FORMATS)}{advice}")
    only = _FORMATS[format].polygons
    if polygons is not None and only is not None and polygons is not only:
        what = "polygons" if only else "exact masks"
        raise ValueError(f"got polygons={polygons} with format {format!r}, which has {what} only")
    if not 0 <= tolerance < 100:
        raise ValueError(f"got tolerance {tolerance}; wanted pixels, 0 (exact) or more, e.g. 0.5")
    if photos not in ("copy", "link", "none", None):
        raise ValueError(f'got photos {photos!r}; wanted "copy", "link" or "none"')
    return SetOptions(
        names=list(dict.fromkeys(names)),
        polygons=polygons,
        tolerance=tolerance,
        photos=photos or _FORMATS[format].photos,
    )


def assemble_set(
    photos: Sequence[SetPhoto], folder: Path, format: SetFormat, options: SetOptions
) -> Path:
    """Write a set, and remove what an earlier one in that folder leaves behind."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / _LIST
    manifest.parent.mkdir(exist_ok=True)
    before = set(json.loads(manifest.read_bytes())) if manifest.is_file() else set()
    _FORMATS[format].write(folder, photos, options)
    for place in {path.parent for path in options.written}:
        remove_parts(place)  # of killed runs
    now = {path.relative_to(folder).as_posix() for path in options.written}
    for name in before - now:
        (folder / name).unlink(missing_ok=True)
    write_atomically(manifest, dump_json(sorted(now)))
    return folder


def read_set(
    path: str | Path, *, format: SetFormat | None = None
) -> Iterator[tuple[Path, Segmentation]]:
    """Read a data set as pairs of a photo and its masks, photo by photo.

    Args:
        path: The folder of the set, or its one file.
        format: Its format; by default what the files say.

    Raises:
        ValueError: It is no data set that is known, or a damaged one.
    """
    path = Path(path)
    if format is None:
        format = _format_of(path)
    elif format not in _FORMATS:
        make_options(format)
    if not path.exists():
        raise ValueError(f"there is no data set {str(path)!r}")
    return _FORMATS[format].read(path)


def _format_of(path: Path) -> SetFormat:
    if path.is_dir():
        for name, kind in _FORMATS.items():
            if (path / kind.sign).exists():
                return name
        if next(path.glob("*.json"), None) is not None:
            return "labelme"
    suffixes: dict[str, SetFormat] = {
        **{".xml": "cvat", ".yaml": "yolo", ".geojson": "geojson", ".gpkg": "gpkg"},
        ".parquet": "parquet",
    }
    if path.suffix in suffixes:
        return suffixes[path.suffix]
    if path.is_file() and path.suffix == ".json":
        data: Any = json.loads(path.read_bytes())
        keys: dict[str, SetFormat] = {"shapes": "labelme", "features": "geojson", "images": "coco"}
        if isinstance(data, list):
            return "labelstudio"
        for key, name in keys.items():
            if key in data:
                return name
    raise ValueError(
        f"{str(path)!r} is no data set that is known; wanted {', '.join(_FORMATS)}: a folder "
        f"with {', '.join(kind.sign for kind in _FORMATS.values())}, or format="
    )
