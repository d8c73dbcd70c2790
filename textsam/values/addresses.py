"""Photos at an address: over HTTP, and on stores by `fsspec`; bounded in size and time."""

from __future__ import annotations

import http.client
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from textsam.errors import ImageError, one_line, require

__all__ = ["ADDRESSES", "download", "fetch", "is_address"]

# Beside http(s), and what to install for each; None: nothing beyond fsspec and huggingface_hub.
ADDRESSES = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "hf": None,
    "file": None,
    "memory": None,
}

_CHUNK = 1 << 20


def is_address(name: str) -> bool:
    """Whether a name is an address rather than a path."""
    scheme, colon, _ = name.partition("://")
    return bool(colon) and scheme.lower() in ("http", "https", *ADDRESSES)


def download(url: str, timeout: float, max_bytes: int) -> bytes:
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


def fetch(address: str, timeout: float, max_bytes: int) -> bytes:
    """Read an address by fsspec, within a total time and a number of bytes.

    Raises:
        ImageError: It cannot be read, is too large, or needs a package that is not installed.
    """
    scheme, _, rest = address.partition("://")
    scheme = scheme.lower()
    if scheme == "hf":
        # Registers itself with fsspec; an old fsspec does not know it by name.
        require("huggingface_hub", "search")
    found: list[Any] = []
    # Stores have time limits of their own, or none; a thread can be left alone at ours.
    reader = threading.Thread(
        target=_read_into, args=(found, f"{scheme}://{rest}", timeout, max_bytes), daemon=True
    )
    reader.start()
    reader.join(timeout)
    if not found:
        raise ImageError(f"load_image: {address} took over {timeout:g} s; give a longer timeout")
    (answer,) = found
    if isinstance(answer, bytes):
        return answer
    if isinstance(answer, ImageError):
        raise answer
    if isinstance(answer, ImportError):
        package = ADDRESSES[scheme] or answer.name or "fsspec"
        raise ImageError(
            f"load_image: {address} needs {package!r}, which is not installed. "
            f"Type: pip install {package}"
        ) from answer
    if isinstance(answer, FileNotFoundError):
        raise ImageError(f"load_image: there is no file {address!r}") from answer
    raise ImageError(f"load_image: cannot read {address}: {one_line(answer)}") from answer


def _read_into(found: list[Any], address: str, timeout: float, max_bytes: int) -> None:
    """Add the bytes at an address to a list, or the error."""
    deadline = time.monotonic() + timeout
    data = bytearray()
    try:
        fsspec: Any = require("fsspec", "search")
        with fsspec.open(address, "rb") as file:
            while chunk := file.read(_CHUNK):
                data += chunk
                if len(data) > max_bytes:
                    raise ImageError(
                        f"load_image: {address} is larger than max_bytes={max_bytes}; give a "
                        "larger max_bytes"
                    )
                if time.monotonic() > deadline:
                    return
        found.append(bytes(data))
    except BaseException as error:  # whatever a store raises is told in the caller's thread
        found.append(error)
