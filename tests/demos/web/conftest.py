"""The page with `tiny`, built and exported once, in one Chromium."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import textsam
from demos.benchmarks.browser import find_chromium, open_chromium
from demos.web.static_site import HOME, write_site

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def _digest(paths: Iterator[Path]) -> str:
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(path.read_bytes())
    return total.hexdigest()[:16]


@pytest.fixture(scope="session")
def bundle() -> Path:
    """The page, built from the source as it is now."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed, which builds the page")
    # Everything that esbuild needs is there after the first time.
    has_packages = (HOME / "node_modules" / "esbuild").is_dir()
    command = ["npm", "run", "build" if has_packages else "setup"]
    run = subprocess.run(command, cwd=HOME, capture_output=True, text=True, timeout=300)
    if run.returncode and not has_packages:
        pytest.skip(f"npm could not fetch the page's packages: {run.stderr[-300:]}")
    assert run.returncode == 0, run.stderr
    return HOME / "dist"


@pytest.fixture(scope="session")
def exported(request: pytest.FixtureRequest) -> Path:
    """`tiny` as ONNX, kept in pytest's cache, since the exporter takes a minute or more."""
    pytest.importorskip("onnxscript", reason="the page's model is exported with onnxscript")
    if given := os.environ.get("TEXTSAM_TINY_ONNX"):
        return Path(given)
    from textsam.export.exporting import export_model

    home = Path(textsam.__file__).parent
    sources = [*(home / "weights" / "tiny").rglob("*"), *(home / "export").glob("*.py")]
    sources += (home / "modeling").glob("*.py")
    digest = _digest(path for path in sources if path.is_file())
    cache: Any = request.config.cache
    folder = Path(cache.mkdir("textsam_onnx")) / digest
    if not (folder / "textsam.json").is_file():
        export_model("tiny", folder, dtype="fp16")
    return folder


@pytest.fixture(scope="session")
def site(bundle: Path, exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `textsam demo --static` writes it."""
    return write_site(tmp_path_factory.mktemp("web") / "site", model=exported)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A browser for all tests of the page."""
    pytest.importorskip("playwright", reason="the browser's tests need playwright")
    if find_chromium() is None:
        pytest.skip("Chromium is not installed")
    with open_chromium() as browser:
        yield browser
