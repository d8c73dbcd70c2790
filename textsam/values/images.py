"""Reads images from any source as uint8 RGB arrays (H, W, 3), and resizes them.

A photo is turned upright by its EXIF orientation, so that H and W are those that a viewer shows;
transparent pixels are shown on white; grey, palette, CMYK, YCbCr and Lab become RGB; deeper
values are scaled by the white level that the file tells. Of an animation or a multi-page file the
first page is read. Colour profiles are not applied. What a file leaves open is said in an
`ImageNote`, and can be chosen. docs/photos.md lists what is read.

The meaning of an array is never guessed: uint8 is 0..255, floats are 0..1, and a shape that could
be both channels-first and channels-last is an error.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.errors import ImageError, require
from textsam.values.addresses import ADDRESSES, download, fetch
from textsam.values.geometry import as_array, is_tensor
from textsam.values.pixels import Raster, ReadOptions, White, composite, render
from textsam.values.tiff import (
    TIFF_STARTS,
    deep_raster,
    is_plain_tiff,
    missing_reader,
    page_count,
    read_tiff,
)

if TYPE_CHECKING:
    import torch

__all__ = ["ImageSource", "check_photo", "load_image", "resize_image"]

_Encoded: TypeAlias = bytes | bytearray | memoryview | BinaryIO
ImageSource: TypeAlias = (
    "str | os.PathLike[str] | _Encoded | Image.Image | NDArray[Any] | torch.Tensor"
)

# Larger photos are converted and resized in bands of this many pixels, so that a photo of 100
# megapixels needs little more memory than its own 300 MB.
_BAND_PIXELS = 8 * 1024 * 1024

_WANTED = (
    "a path, an http(s) URL, bytes, a binary file, a PIL image, a numpy array or a torch tensor"
)

# Values of the EXIF tag Orientation (0x0112) and the operations that turn the picture upright.
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Formats that Pillow reads by a plugin: first bytes, or brands after "ftyp"; module, extra, name.
_PLUGINS = (
    (
        (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
        ("pillow_heif", "photos", "HEIC"),
    ),
    ((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"), ("pillow_jxl", "photos", "JPEG XL")),
)

# First bytes of files that are often passed by mistake, and what to do.
_NOT_IMAGES = (
    (b"version https://git-lfs", "a Git LFS pointer; type: git lfs pull"),
    (b"<!doctype", "a web page; give the address of the image itself"),
    (b"<html", "a web page; give the address of the image itself"),
    (b"<svg", "an SVG drawing; export it as PNG first"),
    (b"<?xml", "an XML or SVG file; export it as PNG first"),
    (b"%pdf", "a PDF; export the page as PNG first"),
    (b"{", "JSON or other text"),
)


def load_image(
    source: ImageSource,
    *,
    bands: int | Sequence[int] | None = None,
    white: White = None,
    page: int | None = None,
    alpha: str = "white",
    timeout: float = 30.0,
    max_bytes: int = 256 * 1024 * 1024,
) -> NDArray[np.uint8]:
    """Read an image from wherever it is.

    Args:
        source: A path (str or Path), an address (https://, s3://, gs://, hf://, file://), the
            bytes of an image file, a binary file object, a PIL image, a numpy array or a torch
            tensor on any device. Arrays and tensors: (H, W), or with 1, 3 or 4 channels, last or
            first; uint8 in 0..255 or floats in 0..1, or any numbers with `white`.
        bands: Which bands are red, green and blue, or the one that is grey, counted from 1 as GDAL
            does. By default as the file says.
        white: The value that is white (0 is black). By default what the file says; 16 bits that
            hold 10, 12 or 14 are read as those, with a note. "auto": the value that 99.5 % of the
            pixels do not exceed.
        page: The page of a TIFF, or the frame of an animation, counted from 1.
        alpha: What is behind transparent pixels, and shown where a map has no data: "white",
            another colour ("black", "#808080"), or "ignore" to show their own colours.
        timeout: Maximum time in seconds for a whole download.
        max_bytes: Maximum size of a download.

    Returns:
        (H, W, 3) uint8 RGB, contiguous, sharing no memory with the source.

    Raises:
        ImageError: The source is none of these, cannot be reached or read, is damaged, has NaN or
            values outside its range, has an ambiguous shape, or needs a package (it says which).

    Warns:
        ImageNote: The white level was assumed, or the file has several pages, or much of it is
            half-transparent, and the caller did not choose.
    """
    options = ReadOptions(bands=bands, white=white, page=page, alpha=alpha)
    if isinstance(source, Image.Image):
        return _pil_to_rgb(source, "the PIL image", options)
    if is_tensor(source):
        return _array_to_rgb(as_array(source), "tensor", options)
    if isinstance(source, np.ndarray):
        return _array_to_rgb(source, "array", options)
    if isinstance(source, str):
        return _decode(_read_name(source, timeout, max_bytes), source, options)
    if isinstance(source, os.PathLike):
        return _decode(_read_path(os.fsdecode(source)), os.fsdecode(source), options)
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode(bytes(source), "the given bytes", options)
    if hasattr(source, "read"):
        name = f"the file {getattr(source, 'name', source)!r}"
        return _decode(_read_file(source), name, options)
    hint = ""
    if isinstance(source, list | tuple):
        hint = ". It takes one image: give its items one by one, or type np.asarray(...) first"
    raise ImageError(f"load_image: got {type(source).__name__}; wanted {_WANTED}{hint}")


def check_photo(photo: NDArray[np.uint8], size: tuple[int, int]) -> None:
    """Raise a ValueError unless a photo is uint8 RGB (H, W, 3) of the masks' size (H, W)."""
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
        raise ValueError(
            f"got {photo.dtype} of shape {photo.shape}; wanted uint8 (H, W, 3). "
            "Type: textsam.load_image(...)"
        )
    check_size(size, photo.shape[:2])


def check_size(size: tuple[int, int], photo: tuple[int, ...]) -> None:
    """Raise a ValueError unless masks (H, W) have the size of their photo (H, W)."""
    if size != photo:
        raise ValueError(
            f"got masks of {size[0]}x{size[1]} on a photo of {photo[0]}x{photo[1]} "
            "(height x width): this is not the photo that they were made from"
        )


def _read_name(name: str, timeout: float, max_bytes: int) -> bytes:
    """The bytes of a path or an address."""
    scheme, colon, _ = name.partition("://")
    if scheme.lower() in ("http", "https"):
        return download(name, timeout, max_bytes)
    if colon and scheme.lower() in ADDRESSES:
        return fetch(name, timeout, max_bytes)
    if (colon and scheme.isalnum()) or name.startswith("data:"):
        known = ", ".join(f"{each}://" for each in ("http", "https", *ADDRESSES))
        raise ImageError(
            f"load_image: got {name[:80]!r}; of addresses these are read: {known}. Open it "
            "yourself and give its bytes"
        )
    return _read_path(name)


def _read_path(path: str) -> bytes:
    if not path:
        raise ImageError(f"load_image: got an empty path; wanted {_WANTED}")
    try:
        file = Path(path).expanduser()
        if file.is_dir():
            raise ImageError(
                f"load_image: {path!r} is a folder; wanted one image file. For a whole folder "
                f"type: textsam segment {path} -t PHRASE -o OUT"
            )
        return file.read_bytes()
    except FileNotFoundError as error:
        where = "" if file.is_absolute() else f" (looked in {Path.cwd()})"
        raise ImageError(f"load_image: there is no file {path!r}{where}") from error
    except ImageError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # names too long, with NUL, ~nobody
        raise ImageError(f"load_image: cannot read {path[:200]!r}: {error}") from error


def _read_file(file: Any) -> bytes:
    try:
        data = file.read()
    except (OSError, ValueError) as error:
        raise ImageError(f"load_image: cannot read {file!r}: {error}") from error
    if not isinstance(data, bytes):
        raise ImageError(
            f"load_image: read() of {file!r} gave {type(data).__name__}; wanted bytes. "
            'Open the file with mode "rb"'
        )
    return data


def _decode(data: bytes, name: str, options: ReadOptions) -> NDArray[np.uint8]:
    """Decode the bytes of an image file; `name` is what errors call it."""
    if not data:
        raise ImageError(f"load_image: {name} is empty (0 bytes); wanted an image file")
    try:
        image = _open(data)
        pixels = _read_exactly(data, image, options)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(_bomb(name, error)) from error
    except Exception as error:  # the readers raise many types for damaged files
        raise ImageError(f"load_image: {name} is damaged or cut off: {error}") from error
    if pixels is not None:
        return pixels
    if image is None:
        raise ImageError(f"load_image: {name} is not an image that Pillow reads: {_guess(data)}")
    with image:
        return _pil_to_rgb(image, name, options)


def _open(data: bytes) -> Image.Image | None:
    """Open by Pillow, with the plugin that a format needs; None if it is no image to Pillow."""
    plugin = next((found for starts, found in _PLUGINS if _matches(data, starts)), None)
    if plugin is not None:
        module, extra, name = plugin
        try:
            loaded = require(module, extra)
        except ImportError as error:
            raise ImageError(f"load_image: a {name} photo. {error}") from error
        if module == "pillow_heif":
            loaded.register_heif_opener()
    try:
        return Image.open(io.BytesIO(data))
    except Image.DecompressionBombError:
        raise
    except Exception:  # Pillow's readers raise many types for damaged headers
        return None


def _matches(data: bytes, starts: tuple[bytes, ...]) -> bool:
    return data.startswith(starts) or (data[4:8] == b"ftyp" and data[8:12] in starts)


def _read_exactly(
    data: bytes, image: Image.Image | None, options: ReadOptions
) -> NDArray[np.uint8] | None:
    """Read what Pillow would cut to 8 bits, refuse or misread; None where Pillow is right."""
    if not data.startswith(TIFF_STARTS):
        raster = None if image is None else deep_raster(data, image)
        return None if raster is None else _turned(render(raster, options), image)
    if image is not None and is_plain_tiff(image) and options.bands is None:
        return None
    found = read_tiff(data, options)
    if found is None:
        if reason := missing_reader(image):
            raise ImageError(reason)
        return None
    raster, orientation = found
    pixels: NDArray[np.uint8] = _turned(render(raster, options), orientation)
    return pixels


def _guess(data: bytes) -> str:
    """Describe bytes that are no image."""
    start = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for prefix, meaning in _NOT_IMAGES:
        if start.startswith(prefix):
            return f"it looks like {meaning}"
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "it is AVIF, which Pillow reads from 11.3 on. Type: pip install -U pillow"
    if data[8:10] == b"CR" or data[4:12] == b"ftypcrx ":
        return "it is camera raw. Type: load_image(rawpy.imread(path).postprocess())"
    return f"{len(data)} bytes that begin with {data[:16]!r}"


def _bomb(name: str, error: Exception) -> str:
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
    return (
        f"load_image: {name} is too large to decode safely ({error}): the limit is {limit:.0f} "
        "megapixels, and each takes 7 MB while it is read. If you trust the file, type "
        "PIL.Image.MAX_IMAGE_PIXELS = None first, or give model.open_tiled an array (H, W, 3), "
        "e.g. a np.memmap"
    )


def _pil_to_rgb(image: Image.Image, name: str, options: ReadOptions) -> NDArray[np.uint8]:
    try:
        _choose_page(image, options)
        image.load()
        upright = _turned(image, image)
        if options.bands is not None:
            values = np.atleast_3d(np.asarray(upright))
            raster = Raster(values=values, colours=None)
            return render(raster, options)
        if upright.mode == "F" or upright.mode.startswith("I"):
            return _deep_to_rgb(upright, image, options)
        return _pil_colours(upright, options)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(_bomb(name, error)) from error
    except Exception as error:  # the decoders raise OSError, SyntaxError, struct.error, ...
        raise ImageError(f"load_image: {name} is damaged or cut off: {error}") from error


def _choose_page(image: Image.Image, options: ReadOptions) -> None:
    count = page_count(image)
    # The further frames of MPO are previews and depth, those of PSD its layers; and a PIL image may
    # have been moved to a frame by its owner.
    has_pages = image.format in ("GIF", "WEBP", "PNG", "TIFF", "AVIF") and image.tell() == 0
    index = options.page_index(count, note=has_pages)
    if options.page is not None:
        image.seek(index)


def _turned(image: Any, orientation: Any) -> Any:
    """Turn an image or (H, W, 3) pixels as an orientation says, or as an image's EXIF (or XMP)."""
    if isinstance(orientation, Image.Image):
        # Decoders of JPEG XL turn by themselves, unless it is a JPEG inside.
        is_turned = orientation.format == "JXL" and not getattr(orientation, "jpeg", False)
        try:
            found = 1 if is_turned else orientation.getexif().get(_ORIENTATION_TAG, 1)
        except Exception:  # a picture with a damaged EXIF block can still be read
            found = 1
        orientation = found if isinstance(found, int) else 1
    turn = _UPRIGHT.get(orientation)
    if turn is None:
        return image
    if isinstance(image, Image.Image):
        return image.transpose(turn)
    return np.array(Image.fromarray(image).transpose(turn))


def _pil_colours(image: Image.Image, options: ReadOptions) -> NDArray[np.uint8]:
    """8-bit modes of PIL to RGB."""
    if image.mode == "LAB":
        from PIL import ImageCms

        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        return np.array(converted)
    if image.mode == "La":  # premultiplied grey, which Pillow does not convert to RGBA
        image = image.convert("LA")
    if image.has_transparency_data:
        rgba = np.array(image.convert("RGBA"))
        return composite(np.ascontiguousarray(rgba[..., :3]), rgba[..., 3], options)
    width, height = image.size
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    rows = max(1, _BAND_PIXELS // width)
    for start in range(0, height, rows):  # converted at once, it would be copied twice
        band = image.crop((0, start, width, min(start + rows, height)))
        pixels[start : start + rows] = np.asarray(band.convert("RGB"))
    return pixels


def _deep_to_rgb(image: Image.Image, file: Image.Image, options: ReadOptions) -> NDArray[np.uint8]:
    """Grey with 16 bits or more to RGB; turning loses the format, which `file` still has."""
    values = np.asarray(image)
    # Pillow reads 16-bit PGM (and, in older releases, PNG) into 32-bit integers, scaled to 65535.
    if image.mode == "I" and file.format in ("PNG", "PPM"):
        values = values.clip(0, 65535).astype(np.uint16)
    clear = image.info.get("transparency")  # PNG may declare one grey to be transparent
    valid = values != clear if isinstance(clear, int) else None
    return render(Raster(values=values[..., None], colours=(0,), valid=valid), options)


def _array_to_rgb(array: NDArray[Any], name: str, options: ReadOptions) -> NDArray[np.uint8]:
    if options.bands is not None or options.page is not None:
        raise ImageError(f"load_image: bands= and page= are for files; index the {name} yourself")
    array = _channels_last(array, name)
    if options.white is None:
        array = _to_bytes(array, name)
    elif array.dtype.kind not in "buif":
        raise ImageError(f"load_image: the {name} is {array.dtype}; wanted real numbers")
    channels = array.shape[2]
    alpha = 3 if channels == 4 else None
    colours = range(1 if channels == 1 else 3)
    return np.array(render(Raster(values=array, colours=colours, alpha=alpha), options))


def _channels_last(array: NDArray[Any], name: str) -> NDArray[Any]:
    """The array as (H, W, C) with C of 1, 3 or 4; an ambiguous shape is an error."""
    shape = array.shape
    wanted = "wanted (H, W), (H, W, C) or (C, H, W) with C of 1, 3 or 4"
    if array.ndim == 4:
        raise ImageError(
            f"load_image: the {name} has shape {shape}, a batch; {wanted}. Type: list(batch)"
        )
    if array.ndim not in (2, 3):
        raise ImageError(f"load_image: the {name} has shape {shape}; {wanted}")
    if array.size == 0:
        raise ImageError(f"load_image: the {name} has shape {shape}, no pixels; {wanted}")
    if array.ndim == 2:
        return array[..., None]
    last, first = shape[2] in (1, 3, 4), shape[0] in (1, 3, 4)
    if last and first:
        raise ImageError(
            f"load_image: the {name} has shape {shape}, which can be (H, W, C) or (C, H, W). Say "
            "which: give PIL.Image.fromarray(array), with channels last"
        )
    if not last and not first:
        raise ImageError(f"load_image: the {name} has shape {shape}; {wanted}")
    return array if last else array.transpose(1, 2, 0)


def _to_bytes(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Values to 0..255, refusing ranges that would have to be guessed."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        advice = "load_image(array, white=65535) with the value that is white, or give uint8 0..255"
        if array.dtype == np.bool_:
            advice = "a mask is no image; if you mean one, array.astype(np.uint8) * 255"
        raise ImageError(
            f"load_image: the {name} is {array.dtype}; wanted uint8 in 0..255 or floats in 0..1. "
            f"Type: {advice}"
        )
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        raise ImageError(f"load_image: the {name} holds NaN or infinity; wanted floats in 0..1")
    # Resampling and colour conversion cause rounding errors just outside of 0..1.
    if low < -1e-3 or high > 1 + 1e-3:
        advice = "array / 255" if low >= 0 and high <= 255 else "array * std + mean, unnormalised"
        raise ImageError(
            f"load_image: the {name} is {array.dtype} in {low:.4g}..{high:.4g}; wanted 0..1. "
            f"Type: {advice}"
        )
    return (array.astype(np.float32) * 255 + 0.5).clip(0, 255).astype(np.uint8)


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize as the released code does: Pillow's bilinear filter, with antialiasing.

    (H, W, 3) uint8 -> (h, w, 3) uint8, contiguous, always a copy; `Frame.resized` is the size of
    the model's frame. An `ImageError` for another dtype or shape, or a size that is not positive.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ImageError(
            f"resize_image: got {image.dtype} of shape {image.shape}; wanted uint8 (H, W, 3). "
            "Type: resize_image(load_image(image), size)"
        )
    h, w = (int(side) for side in size)
    if min(h, w, *image.shape[:2]) < 1:
        raise ImageError(f"resize_image: from {image.shape[:2]} to {(h, w)}; wanted (h, w) >= 1")
    height, width = image.shape[:2]
    if height * width <= max(_BAND_PIXELS, h * w):
        pil = Image.fromarray(np.ascontiguousarray(image))
        return np.array(pil.resize((w, h), Image.Resampling.BILINEAR))
    return _resize_in_bands(image, (h, w))


def _resize_in_bands(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize some rows at a time, because Pillow keeps a copy of its input, 4 bytes a pixel."""
    height, width = image.shape[:2]
    h, w = size
    scale = height / h
    reach = math.ceil(max(scale, 1.0)) + 1  # the triangle filter's radius is one target pixel
    rows = max(1, int(_BAND_PIXELS / (width * scale)))
    resized = np.empty((h, w, 3), dtype=np.uint8)
    for start in range(0, h, rows):
        end = min(start + rows, h)
        first = max(0, math.floor(start * scale) - reach)
        last = min(height, math.ceil(end * scale) + reach)
        band = Image.fromarray(np.ascontiguousarray(image[first:last]))
        box = (0, start * scale - first, width, min(end * scale, height) - first)
        shape = (w, end - start)
        resized[start:end] = np.asarray(band.resize(shape, Image.Resampling.BILINEAR, box=box))
    return resized
