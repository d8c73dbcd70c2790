"""Where the pixels of a photo lie on a map: the georeference of a GeoTIFF and its relatives."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from textsam.errors import ImageError, require

__all__ = ["Georeference", "read_georeference"]

# First bytes of TIFF, BigTIFF and JPEG 2000, whose files hold georeferences.
_GEO_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\0\0\0\x0cjP  ")


class Georeference(NamedTuple):
    """A coordinate system and how pixels come into it.

    Attributes:
        crs: "EPSG:32633" if the system has such a number, else its WKT; None if the file has a
            transform but does not name its system.
        transform: (a, b, c, d, e, f), as `affine` and rasterio write it: the pixel position (x, y),
            continuous with (0, 0) at the top left corner of the photo, lies at
            (a x + b y + c, d x + e y + f).
    """

    crs: str | None
    transform: tuple[float, float, float, float, float, float]


def read_georeference(source: str | os.PathLike[str] | bytes) -> Georeference | None:
    """Read the georeference of a photo, given as its file or its bytes; None if it has none.

    GeoTIFF, georeferenced JPEG 2000, and any photo with a world file (.tfw, .jgw, .wld) beside it.

    Raises:
        ImageError: There is no such file, or it is damaged.
        MissingExtraError: The photo may have one, and rasterio (extra "geo") is not installed.
    """
    if not _may_have_one(source):
        return None
    rasterio: Any = require("rasterio", "geo")
    opened = io.BytesIO(source) if isinstance(source, bytes) else os.fspath(source)
    try:
        with warnings.catch_warnings():
            # Said of every photo that has no georeference.
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(opened) as dataset:
                crs, transform = dataset.crs, dataset.transform
    except rasterio.errors.RasterioError as error:
        name = "the given bytes" if isinstance(source, bytes) else repr(os.fspath(source))
        raise ImageError(f"read_georeference: {name} cannot be read: {error}") from error
    if crs is None and transform.is_identity:
        return None
    a, b, c, d, e, f = (float(number) for number in transform[:6])
    return Georeference(_crs_name(crs), (a, b, c, d, e, f))


def _may_have_one(source: str | os.PathLike[str] | bytes) -> bool:
    if isinstance(source, bytes):
        return source.startswith(_GEO_STARTS)
    path = Path(source)
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise ImageError(f"read_georeference: cannot read {str(path)!r}: {error}") from error
    # GDAL's names of world files: .tfw beside .tif, or .tifw, or .wld.
    suffix = path.suffix
    world = (f"{suffix[:2]}{suffix[-1:]}w", f"{suffix}w", ".wld")
    has_world = bool(suffix) and any(path.with_suffix(name).is_file() for name in world)
    return start.startswith(_GEO_STARTS) or has_world


def _crs_name(crs: Any) -> str | None:
    if not crs:
        return None
    code = crs.to_epsg()
    return crs.to_wkt() if code is None else f"EPSG:{code}"
