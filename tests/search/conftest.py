"""Every engine, real: memory, a folder, an object store and a Ray cluster on this machine; and the
random models of tests/inference, which take milliseconds.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from uuid import uuid4

import numpy as np
import pytest
from numpy.typing import NDArray

from textsam.inference.model import TextSAM
from textsam.search import lance_engine as lance
from textsam.search.index import MaskIndex

pytest.importorskip("lancedb")
pytest.importorskip("moto")


def _load(name: str) -> ModuleType:
    """A module that is no test, by its path from this folder."""
    path = Path(__file__).parent / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"tests_search_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def known() -> ModuleType:
    """`known.py`: rows and vectors that follow from each other."""
    return _load("known")


@pytest.fixture(scope="session")
def photo_sets() -> ModuleType:
    """`photo_sets.py`: data sets of noise."""
    return _load("photo_sets")


@pytest.fixture(scope="session")
def model() -> TextSAM:
    """With a CLIP and a dense text head."""
    return _load("../inference/conftest").build_model()


@pytest.fixture(scope="session")
def handless_model() -> TextSAM:
    """A bare SAM, which takes no phrases."""
    return _load("../inference/conftest").build_model(text=False)


@pytest.fixture
def photo() -> NDArray[np.uint8]:
    """(50, 90, 3) noise."""
    return np.random.default_rng(5).integers(0, 256, (50, 90, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def store() -> Iterator[dict[str, str]]:
    """An object store that speaks S3, on this machine; what Lance needs to reach it."""
    import boto3

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # In a process of its own: some calls of pylance hold this one's lock while they wait for it.
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    options = {
        "aws_access_key_id": "tests",
        "aws_secret_access_key": "tests",
        "region": "us-east-1",
        "endpoint": f"http://127.0.0.1:{port}",
        "allow_http": "true",
    }
    _wait_for(port, server)
    client = boto3.client(
        "s3",
        endpoint_url=options["endpoint"],
        region_name=options["region"],
        aws_access_key_id="tests",
        aws_secret_access_key="tests",
    )
    client.create_bucket(Bucket="masks")
    yield options
    server.terminate()
    server.wait()


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    """Until the server takes connections."""
    deadline = time.monotonic() + 120
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert server.poll() is None and time.monotonic() < deadline, "no object store"
            time.sleep(0.05)


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A Ray cluster of two workers on this machine."""
    ray = pytest.importorskip("ray")
    pytest.importorskip("lance_ray")
    # Ray's workers give way to all else by default, which on a busy machine is to stand still.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (how Ray spells it)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(params=["memory", "lance", "s3", "ray"])
def engine_name(request: pytest.FixtureRequest) -> str:
    """Each engine in turn; Lance twice, on a folder and on an object store."""
    return request.param


@pytest.fixture
def open_index(
    engine_name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Callable[..., MaskIndex]:
    """Open an index of this test: the same one each time, but for the memory's."""
    if engine_name == "memory":
        return lambda **options: MaskIndex.open("memory://", **options)
    if engine_name == "s3":
        uri, store = f"s3://masks/{uuid4().hex}", request.getfixturevalue("store")
        return lambda **options: MaskIndex.open(uri, storage_options=store, **options)
    if engine_name == "ray":
        request.getfixturevalue("cluster")
    folder = tmp_path / "masks.lance"
    return lambda **options: MaskIndex.open(folder, engine=engine_name, **options)


@pytest.fixture
def small_indexes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search structures from a hundred rows on, in cells of thirty, few of them looked into."""
    monkeypatch.setattr(lance, "INDEX_FROM", 100)
    monkeypatch.setattr(lance, "CELL_ROWS", 30)
    monkeypatch.setattr(lance, "CELLS_SEARCHED", 4)
