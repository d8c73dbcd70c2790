"""The random model of tests/inference for what is unit by unit; the real app with `tiny` once."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demos.explorer.explorer import Explorer
from demos.explorer.photo_cache import PhotoCache, UserPhoto, read_photo
from textsam.inference.model import TextSAM

from ..inference.conftest import build_model


@pytest.fixture(scope="session")
def model() -> TextSAM:
    """Random, with a dense text head; milliseconds a photo."""
    return build_model()


@pytest.fixture
def photos(model: TextSAM) -> PhotoCache:
    return PhotoCache(lambda: model)


@pytest.fixture
def photo_file(tmp_path: Path) -> Path:
    """A PNG of 90 x 50 pixels of noise."""
    pixels = np.random.default_rng(5).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    path = tmp_path / "noise.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def photo(photo_file: Path) -> UserPhoto:
    return read_photo(photo_file)


@pytest.fixture
def explorer(photos: PhotoCache, photo: UserPhoto) -> Explorer:
    found = Explorer(photos)
    found.open(photo)
    return found


@pytest.fixture(scope="session")
def huge_png() -> bytes:
    """A PNG whose header says 20,000 x 10,000 pixels, and which holds none of them."""
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = (20_000).to_bytes(4, "big") + (10_000).to_bytes(4, "big")
    import zlib

    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


@pytest.fixture(scope="session")
def small_bus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bus at 200 pixels, for what takes long on more."""
    path = tmp_path_factory.mktemp("small") / "small_bus.png"
    with Image.open(Path(__file__).parents[2] / "examples" / "bus.jpg") as photo:
        photo.resize((200, 133)).save(path)
    return path


@pytest.fixture(scope="session")
def tiny() -> TextSAM:
    """The model that ships."""
    return TextSAM.from_pretrained("tiny")


@pytest.fixture(scope="session")
def index_folder(tiny: TextSAM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the wheels of the bus and the cat, each in a data set of its own."""
    pytest.importorskip("lancedb", reason="the index needs lancedb")
    from textsam.search.embed import Embedder
    from textsam.search.index import MaskIndex
    from textsam.search.records import MaskRow

    folder = tmp_path_factory.mktemp("search") / "masks.lance"
    embedder = Embedder(tiny, latents="photo")
    index = MaskIndex.open(folder, model=embedder)
    examples = Path(__file__).parents[2] / "examples"
    for name, phrase in (("bus", "wheel"), ("cat", "cat")):
        path = examples / f"{name}.jpg"
        found = tiny.segment(path, text=phrase)
        rows = [
            MaskRow(dataset=f"{name} photos", image=str(path), rle=mask.rle, label=phrase)
            for mask in found
        ]
        index.add(rows, embedder.masks(tiny.open(path), found.rles))
    index.close()
    return folder


@pytest.fixture(scope="session")
def server(
    tiny: TextSAM, index_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, PhotoCache]]:
    """The app with `tiny` on a free port: its address, and its photos."""
    pytest.importorskip("gradio", reason="the explorer needs gradio")
    import os

    # Uploads go where the test run's other files go, and not into the machine's /tmp/gradio.
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("gradio"))
    from demos.page.app import build_app, start_server

    app, photos = build_app("tiny", lambda: tiny, index=str(index_folder))
    url = start_server(app, mcp=True)
    photos.model()  # a failure to load is told here and not by a timeout
    yield url, photos
    app.close()


Write = Callable[[str, bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file to upload."""

    def put(name: str, data: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return put
