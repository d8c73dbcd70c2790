"""Kinds of photos, each written from a known picture; prints how each of them is read.

`python tests/values/photo_kinds.py` prints a row per kind: the mean that is right, and the mean
that `textsam.load_image` reads or the error that it raises. `test_photo_kinds.py` tests each row.
"""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH = 48, 64


def _picture() -> NDArray[np.float64]:
    """A smooth picture (H, W, 3) in 0..1, without symmetry."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    channels = [x / (WIDTH - 1), y / (HEIGHT - 1), 0.2 + 0.3 * x / (WIDTH - 1)]
    return np.stack(channels, axis=-1)


UNIT = _picture()
RGB = np.rint(UNIT * 255).astype(np.uint8)
RGB16 = np.rint(UNIT * 65535).astype(np.uint16)
RGB12 = np.rint(UNIT * 4095).astype(np.uint16)
GREY, GREY16, GREY12 = (np.ascontiguousarray(each[..., 0]) for each in (RGB, RGB16, RGB12))
ALPHA = np.rint(np.linspace(0, 255, HEIGHT)[:, None].repeat(WIDTH, axis=1)).astype(np.uint8)
OPAQUE_EDGE = np.where(np.arange(WIDTH) < 8, 0, 255).astype(np.uint8)[None].repeat(HEIGHT, axis=0)


@dataclass(frozen=True)
class Kind:
    """A photo, the pixels that it shows, and how it has to be asked for them.

    Attributes:
        name: What it is.
        write: Gives its bytes.
        wanted: (H, W, 3) 0..255, or a pattern that the error must match.
        options: Keywords of `load_image`.
        tolerance: Maximum difference of a pixel, for photos that are not lossless.
        note: A pattern that the note must match; None for no note.
    """

    name: str
    write: Callable[[], bytes]
    wanted: NDArray[Any] | str
    options: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 1
    note: str | None = None


def _pil(pixels: Any, suffix: str, mode: str | None = None, **options: Any) -> Callable[[], bytes]:
    def write() -> bytes:
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        image = image if mode is None else image.convert(mode)
        file = io.BytesIO()
        image.save(file, suffix, **options)
        return file.getvalue()

    return write


def _tiff(pixels: NDArray[Any], **options: Any) -> Callable[[], bytes]:
    def write() -> bytes:
        import tifffile

        file = io.BytesIO()
        with tifffile.TiffWriter(
            file, byteorder=options.pop("byteorder", "<"), bigtiff=options.pop("bigtiff", False)
        ) as writer:
            writer.write(pixels, **{"metadata": None, **options})
        return file.getvalue()

    return write


def _pages(*pages: NDArray[Any], **options: Any) -> Callable[[], bytes]:
    def write() -> bytes:
        import tifffile

        file = io.BytesIO()
        with tifffile.TiffWriter(file) as writer:
            for index, page in enumerate(pages):
                reduced = {"subfiletype": 1} if index and options.get("reduced") else {}
                writer.write(page, metadata=None, **reduced)
        return file.getvalue()

    return write


def _geo(bands: NDArray[Any], colours: str = "", mask: Any = None, **options: Any) -> Any:
    def write() -> bytes:
        import rasterio
        from rasterio.enums import ColorInterp
        from rasterio.io import MemoryFile

        count, height, width = bands.shape
        shape = {"count": count, "height": height, "width": width, "dtype": str(bands.dtype)}
        place = rasterio.transform.from_origin(500_000, 5_400_000, 10, 10)
        georeference = {"crs": "EPSG:32633", "transform": place}
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile() as memory:
            with memory.open(driver="GTiff", **shape, **georeference, **options) as file:
                file.write(bands)
                if colours:
                    file.colorinterp = [ColorInterp[name] for name in colours.split()]
                if mask is not None:
                    file.write_mask(mask)
            return bytes(memory.read())

    return write


def _codec(name: str, pixels: NDArray[Any], **options: Any) -> Callable[[], bytes]:
    def write() -> bytes:
        import imagecodecs

        return bytes(getattr(imagecodecs, f"{name}_encode")(pixels, **options))

    return write


def _heif(**options: Any) -> Callable[[], bytes]:
    def write() -> bytes:
        import pillow_heif

        pillow_heif.register_heif_opener()
        return _pil(RGB, "HEIF", quality=-1, chroma=444, **options)()

    return write


def _jxl(pixels: Any, **options: Any) -> Callable[[], bytes]:
    def write() -> bytes:
        import pillow_jxl  # noqa: F401

        return _pil(pixels, "JXL", lossless=True, **options)()

    return write


def _psd() -> bytes:
    header = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, HEIGHT, WIDTH, 8, 3)
    return header + bytes(12) + b"\0\0" + RGB.transpose(2, 0, 1).tobytes()


def _bmp32(*, has_alpha: bool) -> bytes:
    """A BMP of 32 bits: with a mask for alpha (V4), or with a byte that means nothing."""
    fourth = OPAQUE_EDGE if has_alpha else np.zeros_like(OPAQUE_EDGE)
    body = np.dstack([RGB[..., ::-1], fourth])[::-1].tobytes()
    info = (WIDTH, HEIGHT, 1, 32)
    if has_alpha:
        masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        header = struct.pack("<IiiHHIIiiII", 108, *info, 3, len(body), 0, 0, 0, 0)
        header += struct.pack("<IIII", *masks) + b"BGRs" + bytes(48)
    else:
        header = struct.pack("<IiiHHIIiiII", 40, *info, 0, len(body), 0, 0, 0, 0)
    start = 14 + len(header)
    return struct.pack("<2sIHHI", b"BM", start + len(body), 0, 0, start) + header + body


def _exif(orientation: int) -> Any:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _grey(pixels: NDArray[Any]) -> NDArray[Any]:
    return np.repeat(pixels[..., None], 3, axis=2)


def _over(colour: float, alpha: NDArray[Any], pixels: NDArray[Any] = RGB) -> NDArray[Any]:
    share = alpha[..., None] / 255
    return pixels * share + colour * (1 - share)


def _five() -> NDArray[np.uint8]:
    """Bands blue, green, red, two others, as satellites have them: (H, W, 5)."""
    return np.dstack([RGB[..., ::-1], RGB[..., :2] // 2])


def _inks(depth: int) -> NDArray[Any]:
    """CMYK with some black: (H, W, 4) of 8 or 16 bits."""
    white = 2**depth - 1
    inks = np.dstack([1 - UNIT, np.full(UNIT.shape[:2], 0.25)])
    return np.rint(inks * white).astype(np.uint8 if depth == 8 else np.uint16)


def _palette() -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Indices (H, W) and colours (3, 256) 16 bit of a TIFF with a palette."""
    colours = np.stack([np.arange(256) * 257, 65535 - np.arange(256) * 257, np.full(256, 7 * 257)])
    return GREY, colours.astype(np.uint16)


def _shown(palette: tuple[NDArray[np.uint8], NDArray[np.uint16]]) -> NDArray[Any]:
    indices, colours = palette
    return (colours.T / 257)[indices]


BIT = GREY > 90
FIVE = _five()
INK_RGB = 255 * UNIT * 0.75
REFLECTANCE = np.rint(UNIT * 3000 + 200).astype(np.uint16)  # of a satellite: white is not told
HOLE = np.zeros((HEIGHT, WIDTH), bool)
HOLE[:, :16] = True
FRAMES = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
ANIMATED = {"save_all": True, "append_images": FRAMES[1:]}


def _with_hole(value: float, colour: int) -> tuple[NDArray[Any], NDArray[Any]]:
    stored = RGB.copy()
    stored[HOLE] = value
    shown = RGB.copy()
    shown[HOLE] = colour
    return stored, shown


def _tiff_kinds() -> list[Kind]:
    separate = {"planarconfig": "separate", "photometric": "rgb"}
    rgb16 = [
        Kind("TIFF RGB 16", _tiff(RGB16, photometric="rgb"), RGB),
        Kind("TIFF RGB 16, planes", _tiff(RGB16.transpose(2, 0, 1), **separate), RGB),
        Kind("TIFF RGB 16, big-endian", _tiff(RGB16, photometric="rgb", byteorder=">"), RGB),
        Kind("TIFF RGB 16, BigTIFF", _tiff(RGB16, photometric="rgb", bigtiff=True), RGB),
        Kind("TIFF RGB 16, tiles", _tiff(RGB16, photometric="rgb", tile=(16, 16)), RGB),
        Kind(
            "TIFF RGB 16, planes in tiles, deflate",
            _tiff(RGB16.transpose(2, 0, 1), tile=(16, 16), compression="zlib", **separate),
            RGB,
        ),
        *(
            Kind(
                f"TIFF RGB 16, {name}, predictor",
                _tiff(RGB16, photometric="rgb", compression=name, predictor=True),
                RGB,
            )
            for name in ("lzw", "zlib", "zstd")
        ),
        Kind("TIFF RGB 12 in 16", _tiff(RGB12, photometric="rgb"), RGB, note="12 bits"),
        Kind(
            "TIFF RGB 12 in 16, white=4095",
            _tiff(RGB12, photometric="rgb"),
            RGB,
            {"white": 4095},
        ),
        Kind(
            "TIFF RGB 16, turned",
            _tiff(RGB16, photometric="rgb", extratags=[(274, 3, 1, 6, True)]),
            np.rot90(RGB, -1),
        ),
        Kind(
            "TIFF RGBA 16",
            _tiff(
                np.dstack([RGB16, ALPHA.astype(np.uint16) * 257]),
                photometric="rgb",
                extrasamples=["unassalpha"],
            ),
            _over(255, ALPHA),
            note="half-transparent",
        ),
    ]
    rgb8 = [
        Kind("TIFF RGB 8", _tiff(RGB, photometric="rgb"), RGB),
        Kind("TIFF RGB 8, planes", _tiff(RGB.transpose(2, 0, 1), **separate), RGB),
        Kind("TIFF RGB 8, BigTIFF big-endian", _tiff(RGB, bigtiff=True, byteorder=">"), RGB),
        Kind("TIFF RGB 8, tiles, lzw", _tiff(RGB, tile=(16, 16), compression="lzw"), RGB),
        Kind(
            "TIFF RGB 8, JPEG inside",
            _tiff(RGB, photometric="rgb", compression="jpeg", compressionargs={"level": 98}),
            RGB,
            tolerance=8,
        ),
        Kind(
            "TIFF YCbCr, JPEG inside",
            _pil(RGB, "TIFF", compression="jpeg", quality=98),
            RGB,
            tolerance=12,
        ),
        Kind(
            "TIFF RGB 8, deflate, predictor",
            _tiff(RGB, photometric="rgb", compression="zlib", predictor=True),
            RGB,
        ),
        Kind("TIFF CMYK 8", _tiff(_inks(8), photometric="separated"), INK_RGB, tolerance=2),
        Kind("TIFF CMYK 16", _tiff(_inks(16), photometric="separated"), INK_RGB, tolerance=2),
        Kind("TIFF palette", _tiff(GREY, colormap=_palette()[1]), _shown(_palette())),
        Kind(
            "TIFF RGB 8 premultiplied",
            _tiff(
                np.dstack([np.rint(RGB * (ALPHA[..., None] / 255)).astype(np.uint8), ALPHA]),
                photometric="rgb",
                extrasamples=["assocalpha"],
            ),
            _over(255, ALPHA),
            note="half-transparent",
            tolerance=2,
        ),
        Kind(
            "TIFF RGB + infrared",
            _tiff(np.dstack([RGB, ALPHA]), photometric="rgb", extrasamples=["unspecified"]),
            RGB,
        ),
        Kind(
            "TIFF RGB + 2 bands",
            _tiff(
                np.dstack([RGB, RGB[..., :2]]), photometric="rgb", extrasamples=["unspecified"] * 2
            ),
            RGB,
        ),
    ]
    return rgb16 + rgb8


def _grey_tiff_kinds() -> list[Kind]:
    black = {"photometric": "minisblack"}
    return [
        Kind("TIFF grey 16", _tiff(GREY16), _grey(GREY)),
        Kind("TIFF grey 16, big-endian", _tiff(GREY16, byteorder=">"), _grey(GREY)),
        Kind("TIFF grey 12 in 16", _tiff(GREY12), _grey(GREY), note="12 bits"),
        Kind("TIFF grey 8, min is white", _tiff(GREY, photometric="miniswhite"), _grey(255 - GREY)),
        Kind(
            "TIFF grey 16, min is white",
            _tiff(GREY16, photometric="miniswhite"),
            _grey(255 - GREY),
        ),
        Kind("TIFF 1 bit", _tiff(BIT, **black), _grey(BIT * 255)),
        Kind("TIFF 1 bit, min is white", _tiff(BIT, photometric="miniswhite"), _grey(~BIT * 255)),
        Kind("TIFF float", _tiff(UNIT[..., 0].astype(np.float32)), _grey(GREY)),
        Kind(
            "TIFF float, big-endian, predictor",
            _tiff(
                UNIT[..., 0].astype(np.float32), byteorder=">", compression="zlib", predictor=True
            ),
            _grey(GREY),
        ),
        Kind("TIFF float RGB", _tiff(UNIT.astype(np.float32), photometric="rgb"), RGB),
        Kind("TIFF float64 RGB", _tiff(UNIT, photometric="rgb"), RGB),
        Kind("TIFF float16 grey", _tiff(UNIT[..., 0].astype(np.float16)), _grey(GREY)),
        Kind(
            "TIFF float RGB to 255",
            _tiff((UNIT * 255).astype(np.float32), photometric="rgb"),
            "white=",
        ),
        Kind(
            "TIFF float RGB to 255, white=255",
            _tiff((UNIT * 255).astype(np.float32), photometric="rgb"),
            RGB,
            {"white": 255},
        ),
        Kind("TIFF grey 32", _tiff((GREY12.astype(np.uint32)) * 100), "white="),
        Kind(
            "TIFF grey 32, white=",
            _tiff((GREY12.astype(np.uint32)) * 100),
            _grey(GREY),
            {"white": 409_500},
        ),
        Kind(
            "TIFF signed 16, white=",
            _tiff(GREY12.astype(np.int16)),
            _grey(GREY),
            {"white": 4095},
        ),
        Kind("TIFF 5 bands", _tiff(FIVE, planarconfig="contig", **black), r"bands=\(3, 2, 1\)"),
        Kind(
            "TIFF 5 bands, bands=(3, 2, 1)",
            _tiff(FIVE, planarconfig="contig", **black),
            RGB,
            {"bands": (3, 2, 1)},
        ),
        Kind(
            "TIFF 5 bands in planes, bands=(3, 2, 1)",
            _tiff(FIVE.transpose(2, 0, 1), planarconfig="separate", **black),
            RGB,
            {"bands": (3, 2, 1)},
        ),
        Kind(
            "TIFF 5 bands, bands=2",
            _tiff(FIVE, planarconfig="contig", **black),
            _grey(RGB[..., 1]),
            {"bands": 2},
        ),
        Kind("TIFF 3 pages", _pages(RGB, 255 - RGB, RGB // 2), RGB, note="3 pages"),
        Kind("TIFF 3 pages, page=2", _pages(RGB, 255 - RGB, RGB // 2), 255 - RGB, {"page": 2}),
        Kind("TIFF 3 pages, page=4", _pages(RGB, 255 - RGB, RGB // 2), "3 pages", {"page": 4}),
        Kind(
            "TIFF 2 pages of 16 bits, page=2",
            _pages(RGB16, 65535 - RGB16),
            255 - RGB,
            {"page": 2},
        ),
        Kind("TIFF with smaller copies", _pages(RGB, RGB[::2, ::2], reduced=True), RGB),
    ]


def _geo_kinds() -> list[Kind]:
    stored, shown = _with_hole(255, 255)
    zeros, zeros_shown = _with_hole(0, 255)
    wide = RGB16.transpose(2, 0, 1)
    nodata = np.where(HOLE, -9999.0, UNIT[..., 0]).astype(np.float32)
    return [
        Kind("GeoTIFF RGB", _geo(RGB.transpose(2, 0, 1)), RGB),
        Kind("GeoTIFF RGB 16", _geo(wide, photometric="rgb"), RGB),
        Kind(
            "GeoTIFF blue, green, red, infrared",
            _geo(FIVE[..., :4].transpose(2, 0, 1), "blue green red undefined"),
            RGB,
        ),
        Kind(
            "GeoTIFF reflectance, white=3200",
            _geo(REFLECTANCE.transpose(2, 0, 1), photometric="rgb"),
            REFLECTANCE / 3200 * 255,
            {"white": 3200},
        ),
        Kind(
            "GeoTIFF nodata 0",
            _geo(zeros.transpose(2, 0, 1), photometric="rgb", nodata=0),
            np.where((zeros == 0).all(axis=2)[..., None], 255, zeros_shown),
        ),
        Kind(
            "GeoTIFF nodata 0, alpha=black",
            _geo(zeros.transpose(2, 0, 1), photometric="rgb", nodata=0),
            zeros,
            {"alpha": "black"},
        ),
        Kind(
            "GeoTIFF float, nodata -9999",
            _geo(nodata[None], nodata=-9999),
            np.where(HOLE[..., None], 255, _grey(GREY)),
        ),
        Kind(
            "GeoTIFF float, nodata -9999, ignored",
            _geo(nodata[None], nodata=-9999),
            np.where(HOLE[..., None], 0, _grey(GREY)),
            {"alpha": "ignore"},
        ),
        Kind(
            "GeoTIFF with a mask",
            _geo(stored.transpose(2, 0, 1), photometric="rgb", mask=~HOLE),
            shown,
        ),
    ]


def _other_kinds() -> list[Kind]:
    palette = Image.fromarray(GREY).convert("P")
    palette.putpalette((_palette()[1].T // 257).astype(np.uint8).ravel().tolist())
    shown = _shown(_palette())
    grey_alpha = np.dstack([GREY16, ALPHA.astype(np.uint16) * 257])
    half = {"note": "half-transparent"}
    adobe = {"quality": 98, "subsampling": 0}
    return [
        Kind("PNG grey 16", _codec("png", GREY16), _grey(GREY)),
        Kind(
            "PNG grey 16 + alpha", _codec("png", grey_alpha), _over(255, ALPHA, _grey(GREY)), **half
        ),
        Kind("PNG RGB 16", _codec("png", RGB16), RGB),
        Kind("PNG RGB 12 in 16", _codec("png", RGB12), RGB, note="12 bits"),
        Kind(
            "PNG RGBA 16",
            _codec("png", np.dstack([RGB16, ALPHA.astype(np.uint16) * 257])),
            _over(255, ALPHA),
            **half,
        ),
        Kind("PNG RGBA", _pil(np.dstack([RGB, OPAQUE_EDGE]), "PNG"), _over(255, OPAQUE_EDGE)),
        Kind(
            "PNG RGBA, alpha=black",
            _pil(np.dstack([RGB, ALPHA]), "PNG"),
            _over(0, ALPHA),
            {"alpha": "black"},
        ),
        Kind(
            "PNG RGBA, alpha=ignore", _pil(np.dstack([RGB, ALPHA]), "PNG"), RGB, {"alpha": "ignore"}
        ),
        Kind(
            "PNG RGBA, all clear",
            _pil(np.dstack([RGB, ALPHA * 0]), "PNG"),
            np.full_like(RGB, 255),
            note="transparent everywhere",
        ),
        Kind("PNG palette", _pil(palette, "PNG"), shown),
        Kind(
            "PNG palette + transparency",
            _pil(palette, "PNG", transparency=bytes([0] * 40 + [255] * 216)),
            np.where(GREY[..., None] < 40, 255, shown),
        ),
        Kind("PNG 1 bit", _pil(Image.fromarray(BIT), "PNG"), _grey(BIT * 255)),
        Kind("PNG turned", _pil(RGB, "PNG", exif=_exif(6)), np.rot90(RGB, -1)),
        Kind("WebP turned", _pil(RGB, "WEBP", lossless=True, exif=_exif(8)), np.rot90(RGB)),
        Kind(
            "JPEG turned", _pil(RGB, "JPEG", exif=_exif(3), **adobe), RGB[::-1, ::-1], tolerance=8
        ),
        Kind("JPEG grey", _pil(GREY, "JPEG", **adobe), _grey(GREY), tolerance=8),
        Kind(
            "JPEG CMYK, inverted by Adobe",
            _pil(Image.fromarray(_inks(8), "CMYK"), "JPEG", **adobe),
            INK_RGB,
            tolerance=12,
        ),
        Kind("MPO", _pil(FRAMES[0], "MPO", **ANIMATED, **adobe), RGB, tolerance=8),
        Kind("GIF animated", _pil(FRAMES[0], "GIF", **ANIMATED), RGB, tolerance=60, note="2 pages"),
        Kind(
            "WebP animated", _pil(FRAMES[0], "WEBP", lossless=True, **ANIMATED), RGB, note="2 pages"
        ),
        Kind(
            "WebP animated, page=2",
            _pil(FRAMES[0], "WEBP", lossless=True, **ANIMATED),
            255 - RGB,
            {"page": 2},
        ),
        Kind("PNG animated", _pil(FRAMES[0], "PNG", **ANIMATED), RGB, note="2 pages"),
        Kind("PSD", _psd, RGB),
        Kind("BMP + alpha", lambda: _bmp32(has_alpha=True), _over(255, OPAQUE_EDGE)),
        Kind("BMP 32 bits without alpha", lambda: _bmp32(has_alpha=False), RGB),
        Kind("PGM 16", _pil(Image.fromarray(GREY16), "PPM"), _grey(GREY)),
        Kind("JPEG 2000 RGB 16", _codec("jpeg2k", RGB16, level=0), RGB),
        Kind("AVIF", _pil(RGB, "AVIF", quality=100, subsampling="4:4:4"), RGB, tolerance=4),
        Kind(
            "AVIF turned",
            _pil(RGB, "AVIF", quality=100, subsampling="4:4:4", exif=_exif(6)),
            np.rot90(RGB, -1),
            tolerance=4,
        ),
        Kind("HEIC", _heif(), RGB, tolerance=4),
        Kind("HEIC turned", _heif(exif=_exif(6).tobytes()), np.rot90(RGB, -1), tolerance=4),
        Kind("JPEG XL", _jxl(RGB), RGB),
        Kind("JPEG XL RGBA", _jxl(np.dstack([RGB, OPAQUE_EDGE])), _over(255, OPAQUE_EDGE)),
        Kind("JPEG XL grey 16", _jxl(Image.fromarray(GREY16)), _grey(GREY)),
        Kind("JPEG XL RGB 16", _codec("jpegxl", RGB16, lossless=True), RGB),
    ]


KINDS = [*_tiff_kinds(), *_grey_tiff_kinds(), *_geo_kinds(), *_other_kinds()]


def main() -> None:
    """Print the table."""
    from textsam import load_image

    warnings.simplefilter("ignore")
    # In another process: some writers register readers with Pillow.
    write = "import pickle, sys, photo_kinds as p; pickle.dump([k.write() for k in p.KINDS], {})"
    command = [sys.executable, "-W", "ignore", "-c", write.format("sys.stdout.buffer")]
    written = subprocess.run(command, cwd=Path(__file__).parent, check=True, stdout=-1).stdout
    right = 0
    for kind, data in zip(KINDS, pickle.loads(written), strict=True):
        wanted = kind.wanted if isinstance(kind.wanted, str) else f"{kind.wanted.mean():.1f}"
        is_right = False
        try:
            image = load_image(data, **kind.options)
        except Exception as error:
            is_right = isinstance(kind.wanted, str)
            read = f"{type(error).__name__}: {' '.join(str(error).split())[:70]}"
        else:
            read = f"{image.mean():.1f}"
            if not isinstance(kind.wanted, str) and image.shape == kind.wanted.shape:
                is_right = bool(np.abs(image.astype(float) - kind.wanted).max() <= kind.tolerance)
        right += is_right
        print(f"| {kind.name} | {wanted} | {read} | {'right' if is_right else 'WRONG'} |")
    print(f"{right} of {len(KINDS)} right")


if __name__ == "__main__":
    main()
