"""Writing and serving the page, and what the command says."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from demos.web import static_site
from demos.web.static_site import find_bundle, page_weight, serve_site, write_site
from textsam.cli.app import app
from textsam.errors import MissingExtraError


@pytest.fixture
def fake_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the module, with a bundle of a few bytes."""
    bundle = tmp_path / "home" / "dist"
    bundle.mkdir(parents=True)
    for name in ("index.html", "page.js", "ort-wasm-simd-threaded.wasm"):
        (bundle / name).write_text(name)
    (bundle / "ort-wasm-simd-threaded.asyncify.wasm").write_text("x" * 1000)
    monkeypatch.setattr(static_site, "HOME", tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A folder as `textsam export` writes it, without graphs."""
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "tokenizer.json").write_text("{}")
    (folder / "textsam.json").write_text(json.dumps({"files": {"tokenizer.json": {}}}))
    return folder


def test_without_the_bundle_it_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static_site, "HOME", tmp_path)
    with pytest.raises(MissingExtraError, match=r"npm --prefix .* run setup"):
        find_bundle()
    result = CliRunner().invoke(app, ["demo", "--static", str(tmp_path / "site")])
    assert result.exit_code == 1 and "npm --prefix" in result.output.replace("\n", " ")


def test_serve_alone_is_refused() -> None:
    result = CliRunner().invoke(app, ["demo", "--serve"])
    assert result.exit_code != 0 and "--static FOLDER" in result.output.replace("\n", " ")


def test_a_folder_holds_the_page_and_the_model(
    fake_home: Path, model_folder: Path, tmp_path: Path
) -> None:
    site = write_site(tmp_path / "site", model=model_folder)
    (site / "part-OLD.js").write_text("left by an earlier version")
    write_site(site, model=site / "model")  # again, with the model that is there
    assert (site / "index.html").is_file() and not (site / "part-OLD.js").exists()
    described = json.loads((site / "model" / "textsam.json").read_text())["files"]
    assert described["tokenizer.json"]["bytes"] == 2
    assert page_weight(site, gpu=True) - page_weight(site) == 1000 - len(
        "ort-wasm-simd-threaded.wasm"
    )


def test_a_name_is_exported_in_half_precision(fake_home: Path, tmp_path: Path) -> None:
    asked = []

    def export(model: str, folder: Path, *, dtype: str) -> None:
        asked.append((model, dtype))
        folder.mkdir(parents=True)
        (folder / "textsam.json").write_text('{"files": {}}')

    write_site(tmp_path / "site", model="tiny", export=export)
    assert asked == [("tiny", "fp16")]


@pytest.mark.parametrize("isolated", [True, False])
def test_headers(fake_home: Path, model_folder: Path, tmp_path: Path, isolated: bool) -> None:
    site = write_site(tmp_path / "site", model=model_folder)
    with serve_site(site, isolated=isolated) as url:
        with urllib.request.urlopen(url) as answer:
            assert (answer.headers["Cross-Origin-Opener-Policy"] == "same-origin") is isolated
            assert (answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp") is isolated
            assert answer.headers["Cache-Control"] == "no-cache"
        with urllib.request.urlopen(f"{url}ort-wasm-simd-threaded.wasm?v=1") as answer:
            assert answer.headers["Content-Type"] == "application/wasm"
            assert "immutable" in answer.headers["Cache-Control"]
