"""What a file is that should hold weights and does not, by its first bytes and its name.

People save a web page, a Git LFS pointer or half a download as `model.pth`, or have a model in the
format of another program. Each of these has one sentence that says which it is and what to type.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

__all__ = ["describe_foreign_file"]

_LFS = b"version https://git-lfs.github.com/spec/"
_EXPORT = (
    "textsam runs networks in torch: wanted the .pth or .safetensors that it was exported from"
)
# Formats of other programs, by suffix.
_FOREIGN = {
    ".onnx": f"is an ONNX graph. {_EXPORT}",
    ".engine": f"is a TensorRT engine. {_EXPORT}",
    ".trt": f"is a TensorRT engine. {_EXPORT}",
    ".plan": f"is a TensorRT engine. {_EXPORT}",
    ".mlpackage": f"is a Core ML package. {_EXPORT}",
    ".mlmodel": f"is a Core ML model. {_EXPORT}",
    ".tflite": f"is a TensorFlow Lite model. {_EXPORT}",
    ".gguf": f"is a GGUF file of llama.cpp. {_EXPORT}",
    ".h5": f"is an HDF5 file of Keras. {_EXPORT}",
    ".msgpack": f"is a msgpack file of Flax. {_EXPORT}",
    ".tar": "is an archive: unpack it, then give the file inside",
    ".gz": "is an archive: unpack it, then give the file inside",
}
# The same by first bytes, under whatever name.
_MAGIC = {
    b"GGUF": ".gguf",
    b"ftrt": ".engine",
    b"\x89HDF": ".h5",
    b"\x1f\x8b": ".gz",
}
_AGAIN = "download or copy it again"


def describe_foreign_file(path: Path) -> str | None:
    """Say what a file is that holds no weights, and what to type; None if it may hold some."""
    if path.suffix.lower() in _FOREIGN and path.suffix.lower() not in (".tar", ".gz"):
        return f"{path} {_FOREIGN[path.suffix.lower()]}"
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(1024)
    size = path.stat().st_size
    what = _by_content(path, head, size)
    if what is None and path.suffix.lower() == ".safetensors":
        what = _cut_safetensors(head, size, path)
    return None if what is None else f"{path} {what}"


def _by_content(path: Path, head: bytes, size: int) -> str | None:
    if not size:
        return f"is empty (0 bytes): {_AGAIN}"
    if head.startswith(_LFS):
        return (
            "is a Git LFS pointer, the address of the weights and not the weights. In its "
            f"repository type: git lfs install && git lfs pull --include {path.name}"
        )
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return (
            "is a web page, perhaps of a login or an error, saved under that name: open the "
            "address in a browser, and download the file itself"
        )
    if not head.strip(b"\0"):
        return f"begins with {len(head)} zero bytes, as a download that was cut off: {_AGAIN}"
    if head[257:262] == b"ustar":
        return _FOREIGN[".tar"]
    for magic, suffix in _MAGIC.items():
        if head.startswith(magic):
            return _FOREIGN[suffix]
    if text.startswith((b"{", b"[")) and path.suffix.lower() != ".json":
        return f"is JSON text, perhaps the error of a server: {_AGAIN}"
    return _by_archive(path, size) if head.startswith(b"PK") else None


def _by_archive(path: Path, size: int) -> str | None:
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    except zipfile.BadZipFile:
        # The list of contents is at the end.
        return f"is cut off: its {size:,} bytes lack the end of the file. {_AGAIN.capitalize()}"
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        return (
            "is TorchScript, a program with its weights, which textsam does not run. Where you "
            f"trust it, save its weights alone: torch.save(torch.jit.load({str(path)!r})"
            '.state_dict(), "weights.pth")'
        )
    if not any(name.endswith("data.pkl") for name in names):
        return f"is a zip archive of {', '.join(names[:3])}: unpack it, then give the file inside"
    return None


def _cut_safetensors(head: bytes, size: int, path: Path) -> str | None:
    """Compare the length that the header states with that of the file."""
    length = int.from_bytes(head[:8], "little")
    if size < 8 or length > size - 8:
        if head[8:9] == b"{":
            return f"is cut off: it has {size:,} bytes, its header alone {length:,}. {_AGAIN}"
        return None
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(8 + length)[8:])
        ends = [t["data_offsets"][1] for key, t in header.items() if key != "__metadata__"]
        whole = 8 + length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None
    return (
        f"is cut off: it has {size:,} of its {whole:,} bytes. {_AGAIN.capitalize()}"
        if size < whole
        else None
    )
