"""The session of one browser page: its explorer, and a folder for files that the browser fetches.

The folders' names cannot be guessed, because whoever knows a file's address can read the file.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder
from PIL import Image

from textsam.errors import ImageError, TextSamError

from ..explorer.explorer import Explorer
from ..explorer.photo_cache import PhotoCache, example_photos, read_photo
from ..explorer.scene import scene_of

_LOG = logging.getLogger(__name__)

EXPIRED = "This page was idle for a long time and its photo was closed; open it again"
_JPEG_QUALITY = 93  # of the photo in the browser; masks are computed on the original pixels


class Session:
    """What belongs to one page."""

    def __init__(self, photos: PhotoCache) -> None:
        self.explorer = Explorer(photos)
        self.lock = threading.RLock()  # a page's events run on several threads
        self._folder = Path(get_upload_folder()) / f"textsam-{secrets.token_hex(16)}"
        self._photo_url: str | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Session:
        """The session itself: Gradio copies the values of states, but a page has one session."""
        return self

    @property
    def folder(self) -> Path:
        """The folder of this page's files; created when first used."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder

    def open_upload(self, path: str, name: str) -> None:
        """Open a photo that the browser uploaded."""
        uploads = Path(get_upload_folder()).resolve()
        real = Path(path).resolve()
        # The browser sends the path, and a forged one could name any file of the server.
        if not real.is_relative_to(uploads):
            raise ImageError("This file was not uploaded by this page; open it again")
        self.open_file(real, name)

    def open_example(self, name: str) -> None:
        """Open an example photo."""
        path = next((path for path in example_photos() if path.stem == name), None)
        if path is None:
            raise ImageError(f"There is no example {name[:40]!r}")
        self.open_file(path)

    def open_file(self, path: Path, name: str | None = None) -> None:
        """Open a file of the server, such as a photo of an index."""
        photo = read_photo(path, name)
        self.explorer.open(photo)
        # A new name for every photo, so that browsers do not show one from their cache.
        shown = self.folder / f"photo-{time.time_ns()}.jpg"
        Image.fromarray(photo.image).save(shown, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
        for old in self.folder.glob("photo-*.jpg"):
            if old != shown:
                old.unlink(missing_ok=True)
        self._photo_url = f"gradio_api/file={shown}"

    def scene(self, *, message: str | None = None, error: bool = False) -> dict[str, Any]:
        """What the browser shows."""
        return scene_of(self.explorer, photo_url=self._photo_url, message=message, error=error)

    def new_export_folder(self) -> Path:
        """An empty folder for one file to download."""
        folder = self.folder / f"export-{secrets.token_hex(4)}"
        folder.mkdir()
        # The browser may still be downloading the files made last.
        old = sorted(self.folder.glob("export-*"), key=lambda path: path.stat().st_mtime)
        for path in old[:-4]:
            shutil.rmtree(path, ignore_errors=True)
        return folder


def close_session(session: Session | None) -> None:
    """Delete the files of a page; Gradio calls this when the page has gone."""
    if session is not None:
        shutil.rmtree(session._folder, ignore_errors=True)


def error_message(error: Exception) -> str:
    """One sentence for the user; an unexpected error goes to the log with its traceback."""
    if isinstance(error, TextSamError):
        return " ".join(str(error).split())
    _LOG.error("unexpected error", exc_info=error)
    return "Something went wrong; the server's log has the details. Your objects are still here"
