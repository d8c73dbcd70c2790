"""The wheel: one import name, everything that has to be inside, nothing that has not."""

from __future__ import annotations

import email
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.message import Message
from pathlib import Path, PurePosixPath

import pytest

import textsam
from tests.warm_python import run_python

# The promise for what ships with the package, in bytes.
MOST_SHIPPED = 48_000_000


@pytest.fixture(scope="module")
def wheel(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel of this checkout, built without isolation and without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.iterdir()
    assert path.name == f"textsam-{textsam.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    """METADATA of the wheel."""
    return email.message_from_bytes(wheel.read(f"{info_folder()}/METADATA"))


def info_folder() -> str:
    """Folder of the wheel's own data."""
    return f"textsam-{textsam.__version__}.dist-info"


def files_of(folder: Path) -> dict[str, int]:
    """Relative paths and sizes of what lies in a folder, without what Python and tools leave."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and not {"__pycache__", ".mypy_cache", "node_modules"} & set(path.parts)
    }


def test_one_import_name(wheel: zipfile.ZipFile) -> None:
    tops = {PurePosixPath(name).parts[0] for name in wheel.namelist()}
    assert tops == {"textsam", info_folder()}


def test_everything_is_inside(wheel: zipfile.ZipFile, repo: Path) -> None:
    inside = {item.filename: item.file_size for item in wheel.infolist()}
    expected = {f"textsam/{name}": size for name, size in files_of(repo / "textsam").items()}
    for source, place in (
        ("training", "training"),
        ("demos", "demos"),
        ("examples", "demos/examples"),
    ):
        expected |= {
            f"textsam/{place}/{name}": size for name, size in files_of(repo / source).items()
        }
    found = {name: size for name, size in inside.items() if name.startswith("textsam/")}
    assert found == expected
    assert inside["textsam/py.typed"] == 0
    assert inside[f"{info_folder()}/licenses/LICENSE"] > 10_000


def test_the_shipped_model_is_inside_and_small(wheel: zipfile.ZipFile) -> None:
    folder = "textsam/weights/tiny/"
    inside = {
        item.filename: item.file_size
        for item in wheel.infolist()
        if item.filename.startswith(folder)
    }
    assert any(name.endswith(".safetensors") for name in inside), "the wheel ships no weights"
    assert sum(inside.values()) <= MOST_SHIPPED, inside


def test_metadata(metadata: Message, wheel: zipfile.ZipFile) -> None:
    assert metadata["Name"] == "textsam"
    assert metadata["Version"] == textsam.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra", [])) >= {"train", "eval", "demo", "test", "all"}
    assert "textsam" in metadata.get_payload()
    entry_points = wheel.read(f"{info_folder()}/entry_points.txt").decode()
    assert "textsam = textsam.cli.app:main" in entry_points


def test_bounds_are_lower_ones(metadata: Message) -> None:
    for line in metadata.get_all("Requires-Dist", []):
        requirement = line.partition(";")[0]
        assert not set("<=!~") & set(requirement.replace(">=", "")), line


def test_it_works_from_where_it_is_installed(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """Unpacked elsewhere, every module imports: those of the guests too, under their other name."""
    wheel.extractall(tmp_path)
    code = """
import importlib, pkgutil, sys, textsam
for module in pkgutil.walk_packages(textsam.__path__, "textsam."):
    if not module.name.endswith(("__main__", "demos.first_steps")):  # a script
        importlib.import_module(module.name)
assert {"textsam.training.data", "textsam.demos.page.app"} <= set(sys.modules)
assert not {"training", "demos"} & set(sys.modules)
print(textsam.__file__)
"""
    # The program's folder comes first on the path, so this is not the checkout.
    program = tmp_path / "program.py"
    program.write_text(code)
    done = run_python(str(program), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == tmp_path / "textsam" / "__init__.py"
