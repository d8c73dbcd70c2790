"""Reads images from any source as uint8 RGB arrays (H, W, 3), and resizes them.

A photo is turned upright by its EXIF orientation, so that H and W are those that a viewer shows;
alpha is composited on white; grey, palette, CMYK, YCbCr and Lab become RGB; 16-bit grey is scaled
from its full range, 0..65535. Of an animation or a multi-page file the first frame is read. Colour
profiles are not applied.

The meaning of an array is never guessed: uint8 is 0..255, floats are 0..1, and a shape that could
be both channels-first and channels-last is an error.
"""

from __future__ import annotations

import http.client
import io
import math
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.errors import ImageError
from textsam.values.geometry import as_array, is_tensor

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
    source: ImageSource, *, timeout: float = 30.0, max_bytes: int = 256 * 1024 * 1024
) -> NDArray[np.uint8]:
    """Read an image from wherever it is.

    Args:
        source: A path (str or Path), an http(s) URL, the bytes of an image file, a binary file
            object, a PIL image, a numpy array or a torch tensor on any device. Arrays and tensors:
            (H, W), or with 1, 3 or 4 channels, last or first; uint8 in 0..255 or floats in 0..1.
        timeout: Maximum time in seconds for a whole download.
        max_bytes: Maximum size of a download.

    Returns:
        (H, W, 3) uint8 RGB, contiguous, sharing no memory with the source.

    Raises:
        ImageError: The source is none of these, cannot be reached or read, is damaged, has NaN or
            values outside its range, or has an ambiguous shape.
    """
    if isinstance(source, Image.Image):
        return _pil_to_rgb(source, "the PIL image")
    if is_tensor(source):
        return _array_to_rgb(as_array(source), "tensor")
    if isinstance(source, np.ndarray):
        return _array_to_rgb(source, "array")
    if isinstance(source, str):
        scheme, colon, _ = source.partition("://")
        if scheme.lower() in ("http", "https"):
            return _decode(_download(source, timeout, max_bytes), source)
        if (colon and scheme.isalnum()) or source.startswith("data:"):
            raise ImageError(
                f"load_image: got {source[:80]!r}; of addresses only http:// and https:// are "
                "read. Open it yourself and give its bytes"
            )
        return _decode(_read_path(source), source)
    if isinstance(source, os.PathLike):
        return _decode(_read_path(os.fsdecode(source)), os.fsdecode(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode(bytes(source), "the given bytes")
    if hasattr(source, "read"):
        return _decode(_read_file(source), f"the file {getattr(source, 'name', source)!r}")
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
    if size != photo.shape[:2]:
        raise ValueError(
            f"got masks of {size[0]}x{size[1]} on a photo of {photo.shape[0]}x{photo.shape[1]} "
            "(height x width): this is not the photo that they were made from"
        )


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


def _download(url: str, timeout: float, max_bytes: int) -> bytes:
    """Download a URL, within a total time and a number of bytes."""
    deadline = time.monotonic() + timeout
    too_big = f"load_image: {url} is larger than max_bytes={max_bytes}; give a larger max_bytes"
    # Pasted addresses have spaces and umlauts; "%" is safe, so that quoted ones stay as they are.
    quoted = urllib.parse.quote(url, safe="%/:?#[]@!$&'()*+,;=~")
    data = bytearray()
    try:
        # Some servers, e.g. Wikimedia's, refuse the user agent of urllib.
        request = urllib.request.Request(quoted, headers={"User-Agent": "textsam"})
        with urllib.request.urlopen(request, timeout=timeout) as response:
            declared = response.headers.get("Content-Length", "")
            if declared.isdigit() and int(declared) > max_bytes:
                raise ImageError(too_big)
            # `read1` returns as soon as data arrives, so that a slow server meets the deadline.
            while chunk := response.read1(1 << 20):
                data += chunk
                if len(data) > max_bytes:
                    raise ImageError(too_big)
                if time.monotonic() > deadline:
                    raise TimeoutError("timed out")
            if declared.isdigit() and len(data) < int(declared):
                raise ImageError(
                    f"load_image: {url} ended after {len(data)} of {declared} bytes; try again"
                )
    except ImageError:
        raise
    except urllib.error.HTTPError as error:
        raise ImageError(f"load_image: {url} answered {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        # urllib wraps a timeout of the connection, but not one of reading.
        if isinstance(getattr(error, "reason", error), TimeoutError):
            why = f"took over {timeout:g} s; give a longer timeout"
            raise ImageError(f"load_image: {url} {why}") from error
        raise ImageError(f"load_image: cannot fetch {url}: {error}") from error
    return bytes(data)


def _decode(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decode the bytes of an image file; `name` is what errors call it."""
    if not data:
        raise ImageError(f"load_image: {name} is empty (0 bytes); wanted an image file")
    try:
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise ImageError(_bomb(name, error)) from error
    except Exception as error:  # Pillow's readers raise many types for damaged headers
        raise ImageError(
            f"load_image: {name} is not an image that Pillow reads: {_guess(data)}"
        ) from error
    with image:
        return _pil_to_rgb(image, name)


def _guess(data: bytes) -> str:
    """Describe bytes that are no image."""
    start = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for prefix, meaning in _NOT_IMAGES:
        if start.startswith(prefix):
            return f"it looks like {meaning}"
    if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc"):
        return (
            "it is HEIC. Type: pip install pillow-heif, then "
            "pillow_heif.register_heif_opener() in Python"
        )
    return f"{len(data)} bytes that begin with {data[:16]!r}"


def _bomb(name: str, error: Exception) -> str:
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
    return (
        f"load_image: {name} is too large to decode safely ({error}): the limit is {limit:.0f} "
        "megapixels, and each takes 7 MB while it is read. If you trust the file, type "
        "PIL.Image.MAX_IMAGE_PIXELS = None first, or give model.open_tiled an array (H, W, 3), "
        "e.g. a np.memmap"
    )


def _pil_to_rgb(image: Image.Image, name: str) -> NDArray[np.uint8]:
    try:
        image.load()
        upright = _upright(image)
        if upright.mode == "F" or upright.mode.startswith("I"):
            return _deep_to_rgb(upright, image.format, name)
        return _pil_colours(upright)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(_bomb(name, error)) from error
    except Exception as error:  # the decoders raise OSError, SyntaxError, struct.error, ...
        raise ImageError(f"load_image: {name} is damaged or cut off: {error}") from error


def _upright(image: Image.Image) -> Image.Image:
    """Turn a loaded image as its EXIF (or XMP) orientation says."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a picture with a damaged EXIF block can still be read
        orientation = 1
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _pil_colours(image: Image.Image) -> NDArray[np.uint8]:
    """8-bit modes of PIL to RGB."""
    if image.mode == "LAB":
        from PIL import ImageCms

        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        return np.array(converted)
    if image.mode == "La":  # premultiplied grey, which Pillow does not convert to RGBA
        image = image.convert("LA")
    if image.has_transparency_data:
        return _over_white(np.array(image.convert("RGBA")))
    width, height = image.size
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    rows = max(1, _BAND_PIXELS // width)
    for start in range(0, height, rows):  # converted at once, it would be copied twice
        band = image.crop((0, start, width, min(start + rows, height)))
        pixels[start : start + rows] = np.asarray(band.convert("RGB"))
    return pixels


def _deep_to_rgb(image: Image.Image, file_format: str | None, name: str) -> NDArray[np.uint8]:
    """Grey with 16 bits or more to RGB; `transpose` loses the format, so it is an argument."""
    values = np.asarray(image)
    if image.mode == "F":
        return _array_to_rgb(values, name)
    # Pillow reads 16-bit PGM (and, in older releases, PNG) into 32-bit integers, scaled to 65535.
    if image.mode == "I" and file_format not in ("PNG", "PPM"):
        raise ImageError(
            f"load_image: {name} has 32-bit integers (mode I), whose value of white is unknown. "
            "Scale it yourself: load_image((np.asarray(image) / white).astype(np.float32))"
        )
    grey = ((values.astype(np.uint32) + 128) // 257).clip(0, 255).astype(np.uint8)
    clear = image.info.get("transparency")  # PNG may declare one grey to be transparent
    if isinstance(clear, int):
        grey[values == clear] = 255
    return _grey_to_rgb(grey)


def _array_to_rgb(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    array = _channels_last(array, name)
    values = _to_bytes(array, name)
    channels = values.shape[2]
    if channels == 1:
        return _grey_to_rgb(values[..., 0])
    if channels == 4:
        return _over_white(values)
    return np.array(values, order="C")


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
        advice = "(array / white).astype(np.float32) with the value that is white, or uint8 0..255"
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


def _grey_to_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[..., None], 3, axis=2)


def _over_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Composite (H, W, 4) uint8 on white, rounding to the nearest."""
    alpha = rgba[..., 3:].astype(np.uint16)
    # At most 255 * 255 + 127 = 65,152: fits 16 bits.
    blended = rgba[..., :3] * alpha + 255 * (255 - alpha) + 127
    return (blended // 255).astype(np.uint8)


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
