"""`textsam demo --static FOLDER`: a page that runs an exported model in the browser, as files.

    write_site("site", model="tiny")
    with serve_site("site", port=0) as url: ...

The page is JavaScript (`src/`), bundled once by `npm run setup` into `dist/`; a wheel brings the
bundle along. Any web server can serve the folder. Threads need two headers, which `serve_site`
sends, and which the page's service worker adds on hosts that do not.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from textsam.errors import MissingExtraError
from textsam.values.files import write_atomically

from .lean_graphs import prune, split_photo

__all__ = ["find_bundle", "make_lean", "open_server", "page_weight", "serve_site", "write_site"]

HOME = Path(__file__).parent
MODEL_FOLDER = "model"
# Without these two a browser gives the page no memory that threads share.
ISOLATION = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}
_DAYS_365 = 365 * 24 * 3600
# Browsers with WebGPU load this build of onnxruntime-web, the others the smaller one.
_GPU_BUILD = "ort-wasm-simd-threaded.asyncify."
_CPU_BUILD = "ort-wasm-simd-threaded."


def find_bundle() -> Path:
    """The built page.

    Raises:
        MissingExtraError: It has not been built; the message says what to type.
    """
    bundle = HOME / "dist"
    if not (bundle / "index.html").is_file():
        raise MissingExtraError(
            "The page for the browser is not built. With Node.js (18 or newer) type: "
            f"npm --prefix {HOME} run setup"
        )
    return bundle


def write_site(
    folder: str | Path,
    *,
    model: str | Path = "tiny",
    export: Callable[..., Any] | None = None,
) -> Path:
    """Write the page and a model into a folder.

    Args:
        folder: Created if it does not exist; files of the page that are there are replaced.
        model: A name as `TextSAM.from_pretrained` takes; or a folder of `textsam export`, which is
            copied.
        export: Writes a model's files into a folder; `textsam.export.export_model` by default.

    Returns:
        The folder.

    Raises:
        MissingExtraError: The page is not built, or `textsam[export]` is not installed.
        WeightsError: There is no such model, or it cannot be exported.
    """
    bundle, folder = find_bundle(), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / MODEL_FOLDER
    if (Path(model) / "textsam.json").is_file():
        if target.resolve() != Path(model).resolve():
            shutil.copytree(model, target, dirs_exist_ok=True)
    else:
        if export is None:
            from textsam.export.exporting import export_model

            export = export_model
        # Half the size to download; the browser computes in float32 all the same.
        export(model, target, dtype="fp16")
    make_lean(target)
    # Last, so that a folder with a page has a model.
    for stale in folder.glob("part-*.js*"):
        stale.unlink()
    shutil.copytree(bundle, folder, dirs_exist_ok=True)
    return folder


def make_lean(folder: Path) -> None:
    """Take out of an exported model what the page does not need."""
    for name in ("decoder", "decoder_text"):
        if (folder / f"{name}.onnx").is_file():
            prune(folder / f"{name}.onnx", ["low_res_masks", "iou_predictions"])
            split_photo(folder / f"{name}.onnx", folder / f"{name}_photo.onnx")
    description = json.loads((folder / "textsam.json").read_text(encoding="utf-8"))
    names = {*description["files"], *(path.name for path in folder.glob("*.onnx"))}
    description["files"] = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name in sorted(names)
        if (data := (folder / name).read_bytes())
    }
    text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / "textsam.json", text.encode())


def page_weight(folder: str | Path, *, gpu: bool = False) -> int:
    """Bytes of all files that a browser transfers, with WebGPU or with WebAssembly alone."""
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    is_gpu_part = _parts_of_gpu(Path(folder))
    total = 0
    for path in files:
        name = path.name
        if name.endswith((".txt", ".md", ".map")):
            continue  # licences, which the page does not load
        if name.startswith(_CPU_BUILD) and name.startswith(_GPU_BUILD) is not gpu:
            continue
        if name in is_gpu_part and is_gpu_part[name] is not gpu:
            continue
        total += path.stat().st_size
    return total


def _parts_of_gpu(folder: Path) -> dict[str, bool]:
    """Which parts of the bundle hold onnxruntime-web, and whether it is the build for WebGPU."""
    found = {}
    for path in folder.glob("part-*.js"):
        text = path.read_text(encoding="utf-8")
        if "onnxruntime" in text and len(text) > 20_000:
            found[path.name] = "asyncify" in text
    return found


class _Handler(SimpleHTTPRequestHandler):
    """Files of one folder, with the headers of isolation and the types that browsers insist on."""

    extensions_map = {  # noqa: RUF012  # as the base class declares it
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
        ".onnx": "application/octet-stream",
    }
    protocol_version = "HTTP/1.1"
    isolated = True

    def end_headers(self) -> None:
        if self.isolated:
            for name, value in ISOLATION.items():
                self.send_header(name, value)
        # Files with a version in their address never change.
        fixed = "?v=" in self.path
        kept = f"public, max-age={_DAYS_365}, immutable" if fixed else "no-cache"
        self.send_header("Cache-Control", kept)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def open_server(
    folder: str | Path, *, port: int = 0, isolated: bool = True, host: str = "127.0.0.1"
) -> ThreadingHTTPServer:
    """A server of a folder on this machine; `port` 0 is any free one.

    `isolated=False` leaves out the headers that threads need, as most hosts do.
    """

    class Handler(_Handler):
        pass

    Handler.isolated = isolated
    directory = str(Path(folder).resolve())

    def handle(*args: Any) -> Handler:
        return Handler(*args, directory=directory)

    return ThreadingHTTPServer((host, port), handle)


@contextmanager
def serve_site(folder: str | Path, *, port: int = 0, isolated: bool = True) -> Iterator[str]:
    """The address of a folder that is served in the background."""
    server = open_server(folder, port=port, isolated=isolated)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
