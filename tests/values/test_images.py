"""Every way to hold an image gives the same RGB pixels, and everything else a clear error."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from textsam.errors import ImageError, ImageNote
from textsam.values import images
from textsam.values.images import load_image


def _picture(height: int = 24, width: int = 36) -> np.ndarray:
    """A smooth RGB picture, which survives JPEG and colour conversion, with no symmetry."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [255 * x / (width - 1), 255 * y / (height - 1), 40 + 3 * x]
    return np.stack(channels, axis=-1).astype(np.uint8)


def _encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


PICTURE = _picture()
PNG = _encoded(Image.fromarray(PICTURE))


def _assert_close(image: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert image.dtype == np.uint8
    assert image.shape == expected.shape
    assert image.flags.c_contiguous
    assert image.flags.writeable
    assert np.abs(image.astype(int) - expected).max() <= tolerance


# Sources ------------------------------------------------------------------------------------------


def _sources() -> dict[str, Any]:
    tensor = torch.from_numpy(PICTURE)
    unit = PICTURE.astype(np.float32) / 255
    return {
        "bytes": PNG,
        "bytearray": bytearray(PNG),
        "memoryview": memoryview(PNG),
        "file object": io.BytesIO(PNG),
        "pil": Image.open(io.BytesIO(PNG)),
        "hwc": PICTURE,
        "chw": PICTURE.transpose(2, 0, 1),
        "flipped view": PICTURE[:, ::-1].copy()[:, ::-1],
        "float32": unit,
        "float64": PICTURE / 255,
        "float chw": unit.transpose(2, 0, 1),
        "rounding errors": unit * 1.000002 - 1e-7,
        "tensor hwc": tensor,
        "tensor chw": tensor.permute(2, 0, 1),
        "float tensor": torch.from_numpy(unit),
        "grad tensor": torch.from_numpy(unit).requires_grad_(),
        "rgba array": np.dstack([PICTURE, np.full(PICTURE.shape[:2], 255, np.uint8)]),
    }


@pytest.mark.parametrize("name", sorted(_sources()))
def test_all_sources_agree(name: str) -> None:
    source = _sources()[name]
    image = load_image(source)
    _assert_close(image, PICTURE, 0)
    if isinstance(source, np.ndarray):
        assert not np.shares_memory(image, source)
    if isinstance(source, torch.Tensor):
        assert not np.shares_memory(image, source.detach().numpy())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_tensors(dtype: torch.dtype) -> None:
    tensor = (torch.from_numpy(PICTURE) / 255).to(dtype)
    _assert_close(load_image(tensor), PICTURE, 1)


@settings(deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(5, 20), st.integers(5, 20), st.just(3))))
def test_bytes_and_floats_are_the_same_picture(pixels: np.ndarray) -> None:
    np.testing.assert_array_equal(load_image(pixels), pixels)
    for dtype in (np.float32, np.float64, np.float16):
        np.testing.assert_array_equal(load_image((pixels / 255).astype(dtype)), pixels)
    np.testing.assert_array_equal(load_image(pixels.transpose(2, 0, 1)), pixels)
    np.testing.assert_array_equal(load_image(_encoded(Image.fromarray(pixels))), pixels)


def test_paths(tmp_path: Path) -> None:
    path = tmp_path / "a picture é.png"
    path.write_bytes(PNG)
    _assert_close(load_image(path), PICTURE, 0)
    _assert_close(load_image(str(path)), PICTURE, 0)
    with path.open("rb") as file:
        _assert_close(load_image(file), PICTURE, 0)


def test_home_and_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    _assert_close(load_image("~/a.png"), PICTURE, 0)
    _assert_close(load_image("a.png"), PICTURE, 0)


# Modes, depth, alpha ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "tolerance"),
    [("RGB", 0), ("RGBA", 0), ("RGBX", 0), ("RGBa", 0), ("CMYK", 0), ("YCbCr", 3), ("HSV", 8)],
)
def test_colour_modes(mode: str, tolerance: int) -> None:
    base = Image.fromarray(PICTURE)
    image = base.convert("RGBA").convert(mode) if mode == "RGBa" else base.convert(mode)
    _assert_close(load_image(image), PICTURE, tolerance)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "PA", "F", "I;16", "I;16B", "I;16L"])
def test_grey_and_palette_modes(mode: str) -> None:
    grey = Image.fromarray(PICTURE).convert("L")
    expected = np.asarray(grey.convert("RGB"))
    if mode == "F":
        image = Image.fromarray(np.asarray(grey, dtype=np.float32) / 255)
    elif mode.startswith("I"):
        order = ">" if mode.endswith("B") else "<"
        wide = np.asarray(grey).astype(np.uint16) * 257
        image = Image.frombytes(mode, grey.size, wide.astype(f"{order}u2").tobytes())
    elif mode == "La":
        image = grey.convert("LA").convert("La")
    elif mode == "PA":
        image = grey.convert("P").convert("PA")
    else:
        image = grey.convert(mode)
        expected = np.asarray(image.convert("RGB"))
    _assert_close(load_image(image), expected, 0)


def test_lab() -> None:
    from PIL import ImageCms

    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    muted = PICTURE // 2 + 64  # 8-bit Lab is coarse at the edge of the gamut
    image = ImageCms.profileToProfile(Image.fromarray(muted), srgb, lab, outputMode="LAB")
    assert image is not None
    assert image.mode == "LAB"
    _assert_close(load_image(_encoded(image, "TIFF")), muted, 6)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_files(kind: str) -> None:
    wide = np.linspace(0, 65535, 24 * 36).astype(np.uint16).reshape(24, 36)
    data = _encoded(Image.fromarray(wide), kind)
    expected = np.repeat(np.rint(wide / 257)[..., None], 3, axis=2)
    image = load_image(data)
    _assert_close(image, expected, 0)
    assert image.max() == 255


def test_16_bit_grey_png_with_a_transparent_value() -> None:
    wide = np.full((4, 5), 10_000, np.uint16)
    wide[0] = 1234
    image = load_image(_encoded(Image.fromarray(wide), transparency=1234), white=65535)
    assert (image[0] == 255).all()
    assert (image[1:] == 39).all()


def test_32_bit_integers_are_refused_and_floats_read() -> None:
    deep = Image.fromarray(np.full((4, 5), 70_000, np.int32))
    with pytest.raises(ImageError, match=r"int32 values in 70000\.\.70000"):
        load_image(_encoded(deep, "TIFF"))
    unit = Image.fromarray(np.full((4, 5), 0.5, np.float32))
    assert (load_image(_encoded(unit, "TIFF")) == 128).all()
    with pytest.raises(ImageError, match=r"does not say which is white"):
        load_image(Image.fromarray(np.full((4, 5), 7.0, np.float32)))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_files(kind: str) -> None:
    options = {"quality": 98} if kind == "JPEG" else {}
    data = _encoded(Image.fromarray(PICTURE).convert("CMYK"), kind, **options)
    _assert_close(load_image(data), PICTURE, 12)


@pytest.mark.filterwarnings("ignore:half-transparent")
def test_alpha_is_composited_on_white() -> None:
    rgba = np.zeros((2, 5, 4), np.uint8)
    rgba[..., :3] = (200, 100, 0)
    rgba[..., 3] = [0, 64, 128, 254, 255]
    alpha = rgba[..., 3:] / 255
    expected = np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha))
    for source in (
        rgba,
        rgba.transpose(2, 0, 1),
        torch.from_numpy(rgba),
        rgba / 255,
        Image.fromarray(rgba),
        _encoded(Image.fromarray(rgba)),
        _encoded(Image.fromarray(rgba), "WEBP", lossless=True, exact=True),
    ):
        _assert_close(load_image(source), expected, 0)


def test_palettes_with_transparency() -> None:
    image = Image.new("P", (4, 3), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((0, 0), 0)
    for data in (_encoded(image, transparency=0), _encoded(image, "GIF", transparency=0)):
        loaded = load_image(data)
        assert loaded[0, 0].tolist() == [255, 255, 255]
        assert loaded[1, 1].tolist() == [200, 100, 50]
    half = load_image(_encoded(image, transparency=bytes([255, 0])))
    assert half[0, 0].tolist() == [10, 20, 30]
    assert half[1, 1].tolist() == [255, 255, 255]


def test_rgb_with_a_transparent_colour() -> None:
    with pytest.warns(ImageNote, match="transparent everywhere"):
        image = load_image(_encoded(Image.new("RGB", (3, 2), (1, 2, 3)), transparency=(1, 2, 3)))
    assert (image == 255).all()


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = _encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with pytest.warns(ImageNote, match="2 pages; page 1 is read"):
        assert load_image(data)[0, 0].tolist() == [255, 0, 0]


def test_grey_arrays_in_all_layouts() -> None:
    grey = PICTURE[..., 0]
    expected = np.repeat(grey[..., None], 3, axis=2)
    for source in (grey, grey[..., None], grey[None], grey / 255, torch.from_numpy(grey)):
        _assert_close(load_image(source), expected, 0)


# EXIF ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 98} if kind in ("JPEG", "WEBP") else {}
    data = _encoded(Image.fromarray(PICTURE), kind, exif=exif, **options)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    loaded = load_image(data)
    assert loaded.shape[:2] == ((36, 24) if orientation > 4 else (24, 36))
    _assert_close(loaded, expected, 0)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a)),
        (9, lambda a: a),
        (0, lambda a: a),
    ],
)
def test_orientation_by_hand(orientation: int, upright: Callable[[np.ndarray], np.ndarray]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _encoded(Image.fromarray(PICTURE), exif=exif)
    np.testing.assert_array_equal(load_image(data), upright(PICTURE))


def test_orientation_of_16_bit_and_of_an_open_pil_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = np.arange(24 * 36, dtype=np.uint16).reshape(24, 36) * 70
    loaded = load_image(_encoded(Image.fromarray(wide), exif=exif))
    np.testing.assert_array_equal(loaded[..., 0], np.rot90(np.rint(wide / 257), -1))
    image = Image.open(io.BytesIO(_encoded(Image.fromarray(PICTURE), exif=exif)))
    np.testing.assert_array_equal(load_image(image), np.rot90(PICTURE, -1))
    assert image.size == (36, 24)  # the caller's image is left as it was


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_costs_nothing() -> None:
    data = _encoded(Image.fromarray(PICTURE), exif=b"Exif\0\0MM\0*\xff\xff\xff\xffrubbish")
    _assert_close(load_image(data), PICTURE, 0)


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_cut_off_files(kind: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    data = _encoded(Image.fromarray(noise), kind)
    path = tmp_path / "cut.bin"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=r"cut\.bin"):
        load_image(path)


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=80), st.integers(0, len(PNG) - 1))
def test_overwritten_bytes_raise_nothing_else(rubbish: bytes, place: int) -> None:
    data = PNG[:place] + rubbish + PNG[place + len(rubbish) :]
    try:
        image = load_image(data)
    except ImageError:
        return
    assert image.dtype == np.uint8


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"hello, this is no image", "begin with b'hello"),
        (b"\n <!DOCTYPE html><html>", "web page"),
        (b"<html></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<svg xmlns=''/>", "SVG"),
        (b"%PDF-1.7", "PDF"),
        (b'{"error": 404}', "JSON"),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", "pip install -U pillow"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0crx isom", "camera raw"),
    ],
)
def test_bytes_that_are_no_image(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "thing.jpg"
    path.write_bytes(data)
    for source in (data, io.BytesIO(data), path):
        with pytest.raises(ImageError, match=message):
            load_image(source)


def test_paths_that_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError, match=r"no file 'missing\.png' \(looked in"):
        load_image("missing.png")
    with pytest.raises(ImageError, match="is a folder"):
        load_image(tmp_path)
    with pytest.raises(ImageError, match="empty path"):
        load_image("")
    for path in ("nul\0.png", "x" * 5000, "~nobody-of-this-name/a.png"):
        with pytest.raises(ImageError, match="load_image"):
            load_image(path)


@pytest.mark.parametrize("url", ["ftp://host/a.png", "c://b/a.png", "data:image/png;base64,xx"])
def test_other_addresses(url: str) -> None:
    with pytest.raises(ImageError, match="of addresses these are read: http://"):
        load_image(url)


@pytest.mark.parametrize("source", [None, 3, [PICTURE], (1, 2), {"image": 1}, object()])
def test_other_types(source: Any) -> None:
    with pytest.raises(ImageError, match=r"got \w+; wanted a path"):
        load_image(source)


def test_lists_say_one_image() -> None:
    with pytest.raises(ImageError, match="one by one"):
        load_image([PICTURE])  # type: ignore[arg-type]


def test_files_in_text_mode(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("hello")
    with path.open() as file, pytest.raises(ImageError, match='mode "rb"'):
        load_image(file)  # type: ignore[arg-type]
    closed = path.open("rb")
    closed.close()
    with pytest.raises(ImageError, match="cannot read"):
        load_image(closed)


def test_closed_pil_images() -> None:
    image = Image.open(io.BytesIO(PNG))
    image.close()
    with pytest.raises(ImageError, match="PIL image"):
        load_image(image)


@pytest.mark.parametrize(
    "shape",
    [
        (3, 9, 3),
        (4, 9, 3),
        (1, 9, 1),
        (1, 5, 3),
        (5, 6, 2),
        (2, 5, 6),
        (7,),
        (),
        (0, 5, 3),
        (5, 0),
        (1, 3, 5, 6),
        (2, 5, 6, 3),
        (1, 1, 3, 5, 6),
    ],
)
def test_layouts_that_cannot_be_meant(shape: tuple[int, ...]) -> None:
    for source in (np.zeros(shape, np.uint8), torch.zeros(shape)):
        with pytest.raises(ImageError, match="shape"):
            load_image(source)


def test_ambiguous_layouts_say_so() -> None:
    with pytest.raises(ImageError, match=r"can be \(H, W, C\) or \(C, H, W\)"):
        load_image(np.zeros((3, 50, 3), np.uint8))
    with pytest.raises(ImageError, match="a batch"):
        load_image(torch.zeros(1, 3, 50, 60))


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint16, np.int32, np.int64, complex, object])
def test_other_dtypes(dtype: type) -> None:
    with pytest.raises(ImageError, match=r"wanted uint8 in 0\.\.255 or floats in 0\.\.1"):
        load_image(np.zeros((5, 6, 3), dtype))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "NaN"),
        (np.inf, "NaN or infinity"),
        (255.0, "array / 255"),
        (-1.5, "std"),
        (1.1, "array / 255"),
    ],
)
@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
def test_floats_out_of_range(value: float, message: str, make: Callable[..., Any]) -> None:
    image = np.full((5, 6, 3), 0.5)
    image[2, 3, 1] = value
    with pytest.raises(ImageError, match=message):
        load_image(make(image))


def test_decompression_bombs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match="MAX_IMAGE_PIXELS"):
        load_image(PNG)


# URLs ---------------------------------------------------------------------------------------------


class _Handler(BaseHTTPRequestHandler):
    """Answers by path; every way in which a server can disappoint."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in ("/a.png", "/a%20picture%20%C3%A9.png"):
            self._answer(PNG, {"Content-Length": str(len(PNG))})
        elif path == "/no-length":
            self._answer(PNG, {})
        elif path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/a.png")
            self.end_headers()
        elif path == "/to-file":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
        elif path == "/short":
            self._answer(PNG[:50], {"Content-Length": str(len(PNG))})
        elif path == "/page":
            self._answer(b"<!doctype html><p>hello", {})
        elif path == "/agent":
            assert self.headers["User-Agent"].startswith("textsam")
            self._answer(PNG, {})
        elif path == "/slow":
            time.sleep(1.0)
        elif path == "/drip":
            self._answer(b"", {"Content-Length": "1000"})
            for _ in range(20):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.05)
        else:
            self.send_error(404)

    def _answer(self, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what some of the tests are about."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = _Server(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.mark.parametrize(
    "path",
    ["/a.png", "/a.png?size=3&x=%20", "/a picture é.png", "/no-length", "/moved", "/agent"],
)
def test_urls(site: str, path: str) -> None:
    _assert_close(load_image(site + path), PICTURE, 0)
    _assert_close(load_image(site.replace("http", "HTTP") + path), PICTURE, 0)


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("/nothing", {}, "answered 404"),
        ("/to-file", {}, "/to-file"),
        ("/short", {}, "ended after 50 of"),
        ("/page", {}, "web page"),
        ("/a.png", {"max_bytes": 20}, "max_bytes=20"),
        ("/no-length", {"max_bytes": 20}, "max_bytes=20"),
        ("/slow", {"timeout": 0.2}, r"took over 0\.2 s"),
        ("/drip", {"timeout": 0.2}, r"took over 0\.2 s"),
    ],
)
def test_urls_that_disappoint(site: str, path: str, options: dict[str, Any], message: str) -> None:
    start = time.monotonic()
    with pytest.raises(ImageError, match=message):
        load_image(site + path, **options)
    assert time.monotonic() - start < 0.9


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/a.png", "http://", "http://[::1", "http://a b/"]
)
def test_urls_that_lead_nowhere(url: str) -> None:
    with pytest.raises(ImageError, match="http://"):
        load_image(url, timeout=2)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK"])
def test_reading_in_bands_changes_nothing(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (53, 40, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).convert(mode)
    at_once = load_image(picture)
    monkeypatch.setattr(images, "_BAND_PIXELS", 100)  # two rows
    np.testing.assert_array_equal(load_image(picture), at_once)


# Stores -------------------------------------------------------------------------------------------


@pytest.fixture
def stored() -> Iterator[Any]:
    """The files of a store in memory."""
    files = fsspec.filesystem("memory")
    files.pipe("/shelf/a picture é.png", PNG)
    yield files
    files.rm("/shelf", recursive=True)


def test_stores(stored: Any, tmp_path: Path) -> None:
    _assert_close(load_image("memory://shelf/a picture é.png"), PICTURE, 0)
    path = tmp_path / "a b.png"
    path.write_bytes(PNG)
    _assert_close(load_image(f"file://{path}"), PICTURE, 0)
    _assert_close(load_image(f"FILE://{path}"), PICTURE, 0)


def test_stores_that_disappoint(stored: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match=r"there is no file 'memory://shelf/b\.png'"):
        load_image("memory://shelf/b.png")
    with pytest.raises(ImageError, match="is larger than max_bytes=20"):
        load_image("memory://shelf/a picture é.png", max_bytes=20)
    for address, package in (("s3://b/a.png", "s3fs"), ("gs://b/a.png", "gcsfs")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ImageError, match=f"Type: pip install {package}"):
            load_image(address)


def test_stores_that_are_slow(stored: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(stored), "_open", lambda *_, **__: time.sleep(1))
    start = time.monotonic()
    with pytest.raises(ImageError, match=r"took over 0\.1 s"):
        load_image("memory://shelf/a picture é.png", timeout=0.1)
    assert time.monotonic() - start < 0.9
