"""TIFF, GeoTIFF and other photos with more than 8 bits or 4 bands, which Pillow cuts or refuses.

Pillow reads ordinary TIFF; `tifffile` (extra "photos") the others, and `rasterio` (extra "geo")
those that lie on a map. Where neither is installed, what Pillow would read wrong is an error.
"""

from __future__ import annotations

import io
import re
import warnings
from importlib.util import find_spec
from typing import Any

import numpy as np
from PIL import Image

from textsam.errors import ImageError, require
from textsam.values.pixels import Interpretation, Raster, ReadOptions

__all__ = [
    "TIFF_STARTS",
    "deep_raster",
    "is_plain_tiff",
    "missing_reader",
    "page_count",
    "read_tiff",
]

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# Tags, by number: TIFF 6.0, GeoTIFF, GDAL, DNG.
_BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _PLANAR = 258, 259, 262, 274, 277, 284
_EXTRA_SAMPLES, _FORMAT, _MAX_SAMPLE = 338, 339, 341
_GDAL_METADATA, _GDAL_NODATA, _DNG_VERSION = 42112, 42113, 50706
_GEO_TAGS = (33550, 34264, 34735, _GDAL_METADATA, _GDAL_NODATA)

_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_JPEG = (6, 7, 34892)

_ALL_COLOURS = ("red", "green", "blue")

# The SIZ marker of JPEG 2000: its length, then 36 bytes up to the depth of the first component.
_SIZ = re.compile(rb"\xff\x4f\xff\x51.{38}(.)", re.DOTALL)


def is_plain_tiff(image: Image.Image) -> bool:
    """Whether Pillow reads an opened TIFF exactly: 8 bits at most, at most four bands, no map."""
    tags: Any = getattr(image, "tag_v2", {})
    if _DNG_VERSION in tags:
        raise ImageError(
            "load_image: the photo is camera raw (DNG), whose first page is a small preview. Type: "
            "load_image(rawpy.imread(path).postprocess())"
        )
    if any(tag in tags for tag in _GEO_TAGS) or len(tags.get(_EXTRA_SAMPLES, ())) > 1:
        return False
    is_byte = max(tags.get(_BITS, (1,))) <= 8 and set(tags.get(_FORMAT, (1,))) == {1}
    return is_byte and page_count(image) == 1


def page_count(image: Image.Image) -> int:
    """Pages or frames of a file that Pillow opened."""
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # a later page that Pillow does not read
        return 2


def read_tiff(data: bytes, options: ReadOptions) -> tuple[Raster, int] | None:
    """Read a TIFF by tifffile, or by rasterio if it lies on a map.

    Returns:
        The raster and its orientation (1 to 8, as in EXIF); None if neither is installed.
    """
    has_rasterio = find_spec("rasterio") is not None
    if find_spec("tifffile") is None:
        return (_by_rasterio(data), 1) if has_rasterio else None
    tifffile: Any = require("tifffile", "photos")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        # Smaller copies and masks belong to the page before them.
        pages = [page for page in file.pages if not (_flag(page, 1) or _flag(page, 4))]
        pages = pages or list(file.pages)[:1]
        page: Any = pages[options.page_index(len(pages))]
        tags = page.tags
        if has_rasterio and page is pages[0] and any(tag in tags for tag in _GEO_TAGS):
            return _by_rasterio(data), 1
        return _by_tifffile(file, page), int(tags.valueof(_ORIENTATION, 1))


def deep_raster(data: bytes, image: Image.Image) -> Raster | None:
    """Colour PNG and JPEG 2000 of more than 8 bits, which Pillow cuts to 8; None for any other."""
    kind = {"PNG": "png", "JPEG2000": "jpeg2k"}.get(image.format or "")
    depth = data[24] if kind == "png" else 8
    _check_size(image.height, image.width)
    siz = _SIZ.search(data[:4096]) if kind == "jpeg2k" else None
    if siz is not None:
        depth = (siz[1][0] & 0x7F) + 1
    if depth <= 8 or image.mode[:1] == "I" or "transparency" in image.info:
        return None
    if find_spec("imagecodecs") is None:
        # PNG: Pillow keeps the upper byte, of which dark files, or 12 bits in 16, leave little.
        if kind == "png" and max(high for _, high in image.getextrema()) >= 64:  # type: ignore
            return None
        raise ImageError(_needs("imagecodecs", f"{depth} bits a colour"))
    decode = getattr(require("imagecodecs", "photos"), f"{kind}_decode")
    values = np.atleast_3d(decode(data))
    count = values.shape[2]
    alpha = count - 1 if count in (2, 4) else None
    # 12-bit JPEG 2000 says so; a PNG has 16 bits whatever it holds.
    white = 2.0**depth - 1 if depth < 16 else None
    return Raster(values=values, colours=range(3 if count > 2 else 1), alpha=alpha, white=white)


def missing_reader(image: Image.Image | None) -> str | None:
    """Why a TIFF that is not plain needs another reader than Pillow; None if it needs none."""
    tags: Any = getattr(image, "tag_v2", {})
    bits = max(tags.get(_BITS, (1,)))
    if image is not None and set(tags.get(_FORMAT, (1,))) == {1}:
        in_one_plane = tags.get(_PLANAR, 1) == 1 or tags.get(_SAMPLES, 1) == 1
        is_light = bits <= 8 or image.mode[:1] == "I" or _is_light(image)
        is_usual = tags.get(_PHOTOMETRIC) != _MIN_IS_WHITE or bits <= 8
        if bits <= 16 and in_one_plane and is_light and is_usual:
            return None
    return _needs("tifffile", f"a TIFF of this kind ({bits} bits)")


def _check_size(height: int, width: int) -> None:
    """Refuse a picture of more pixels than Pillow would decode."""
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    if limit and height * width > limit:
        raise Image.DecompressionBombError(f"{height} x {width} pixels")


def _is_light(image: Image.Image) -> bool:
    return max(high for _, high in image.getextrema()) >= 64  # type: ignore


def _needs(module: str, what: str) -> str:
    return f'load_image: {what} needs {module!r}. Type: pip install "textsam[photos]"'


def _flag(page: Any, bit: int) -> bool:
    """A bit of NewSubfileType: 1, a smaller copy; 4, a mask."""
    return bool(int(getattr(page, "subfiletype", 0)) & bit)


def _by_tifffile(file: Any, page: Any) -> Raster:
    _check_size(page.imagelength, page.imagewidth)
    photometric, bits = int(page.photometric), page.bitspersample
    values = page.asarray()
    axes = page.axes.replace("Z", "") if page.imagedepth == 1 else page.axes
    if axes not in ("YX", "YXS", "SYX"):
        raise ImageError(f"load_image: a TIFF with axes {page.axes}; wanted one picture (Y, X)")
    values = np.moveaxis(values, 0, 2) if axes == "SYX" else values.reshape(*values.shape[:2], -1)
    if photometric == _PALETTE:
        # (3, 2**bits) 16 bit; some writers fill 8 of them only.
        table = page.colormap.T
        values = table[values[..., 0]] if table.max() > 255 else (table * 257)[values[..., 0]]
        return Raster(values=values, colours=(0, 1, 2), white=65535)
    counts = {_MIN_IS_WHITE: 1, _MIN_IS_BLACK: 1, _RGB: 3, _CMYK: 4, _YCBCR: 3}
    if photometric not in counts:
        name = getattr(page.photometric, "name", photometric)
        raise ImageError(f"load_image: a TIFF of {name} colours is not read; save it as RGB first")
    extra = [int(kind) for kind in page.extrasamples]
    # tifffile turns the YCbCr of JPEG into RGB.
    is_ycbcr = photometric == _YCBCR and int(page.compression) not in _JPEG
    kinds: dict[int, Interpretation] = {_CMYK: "cmyk", _YCBCR: "ycbcr" if is_ycbcr else "colours"}
    alpha = next((counts[photometric] + i for i, kind in enumerate(extra) if kind in (1, 2)), None)
    colours: Any = range(counts[photometric])
    if photometric == _MIN_IS_BLACK and values.shape[2] - (alpha is not None) > 1:
        colours = None
    names = _band_names(page.tags.valueof(_GDAL_METADATA, ""), photometric, values.shape[2])
    if names != _band_names("", photometric, values.shape[2]):
        # GDAL calls a fourth band of 8 bits alpha in the TIFF's own tags, whatever it is.
        colours = _named_colours(names) or colours
        alpha = names.index("alpha") if "alpha" in names else None
    return Raster(
        values=values,
        colours=colours,
        alpha=alpha,
        premultiplied=1 in extra,
        white=_told_white(page, values.dtype, bits),
        min_is_white=photometric == _MIN_IS_WHITE and values.dtype.kind in "bu",
        valid=_mask_after(file, page),
        nodata=_number(page.tags.valueof(_GDAL_NODATA, "")),
        kind=kinds.get(photometric, "colours"),
    )


def _told_white(page: Any, dtype: Any, bits: int) -> float | None:
    if dtype.kind == "u" and bits < 8 * dtype.itemsize:
        return float(2**bits - 1)
    top = page.tags.valueof(_MAX_SAMPLE, None)
    return None if top is None else float(np.max(top)) or None


def _band_names(metadata: Any, photometric: int, count: int) -> list[str]:
    """Names of bands by GDAL's metadata, where they differ from what the TIFF says; "" for none."""
    names = list(_ALL_COLOURS) if photometric == _RGB else []
    names = [*names, *[""] * count][:count]
    for band, name in re.findall(r'sample="(\d+)" role="colorinterp">(\w+)<', str(metadata)):
        if int(band) < count:
            names[int(band)] = name.lower()
    return names


def _mask_after(file: Any, page: Any) -> Any:
    """The mask that GDAL writes as the next page, (H, W) bool."""
    later = [other for other in file.pages if other.index > page.index][:1]
    if not (later and _flag(later[0], 4)):
        return None
    mask = later[0].asarray() != 0
    return mask if mask.shape == (page.imagelength, page.imagewidth) else None


def _number(text: Any) -> float | None:
    try:
        return float(str(text).strip("\0 "))
    except ValueError:
        return None


def _by_rasterio(data: bytes) -> Raster:
    rasterio: Any = require("rasterio", "geo")
    memory_file = require("rasterio.io", "geo").MemoryFile
    with warnings.catch_warnings(), memory_file(data) as memory:
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with memory.open() as dataset:
            _check_size(dataset.height, dataset.width)
            names = [colour.name.lower() for colour in dataset.colorinterp]
            values = np.moveaxis(dataset.read(), 0, 2)
            if names[0] == "palette":
                table = dataset.colormap(1)
                colours = np.array([table.get(i, (0, 0, 0, 255))[:3] for i in range(256)], np.uint8)
                values = colours[values[..., 0]]
                return Raster(values=values, colours=(0, 1, 2))
            alpha = names.index("alpha") if "alpha" in names else None
            structure = dataset.tags(ns="IMAGE_STRUCTURE")
            bits = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS")
            flags = {flag.name for flag in dataset.mask_flag_enums[0]}
            has_mask = "per_dataset" in flags and alpha is None
            return Raster(
                values=values,
                colours=_named_colours(names),
                alpha=alpha,
                white=2.0 ** int(bits) - 1 if bits else None,
                min_is_white=structure.get("MINISWHITE") == "YES",
                valid=dataset.dataset_mask() != 0 if has_mask else None,
                nodata=dataset.nodata,
                kind="cmyk" if "cyan" in names else "colours",
            )


def _named_colours(names: list[str]) -> list[int] | None:
    for wanted in (_ALL_COLOURS, ("cyan", "magenta", "yellow", "black")):
        if all(name in names for name in wanted):
            return [names.index(name) for name in wanted]
    return [0] if names[0] == "gray" and set(names[1:]) <= {"alpha"} else None
