"""One browser page: its explorer, and a folder for the files that the browser fetches.

Folders have names that cannot be guessed, because whoever knows a file's address can read it.
"""

from __future__ import annotations

import secrets
import shutil
import time
from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder
from PIL import Image

from textsam.errors import ImageError

from ..explorer.explorer import Explorer
from ..explorer.photos import EncodedPhotos, example_photos, read_photo
from ..explorer.scene import empty_scene, scene_of

__all__ = ["Session", "close_session"]

# What the browser shows is near enough to the pixels that are worked on.
_SHOWN_QUALITY = 93


class Session:
    """What belongs to one page."""

    def __init__(self, photos: EncodedPhotos) -> None:
        """Begin without a photo."""
        self.explorer = Explorer(photos)
        self._folder = Path(get_upload_folder()) / f"textsam-{secrets.token_hex(16)}"
        self._photo_url: str | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Session:
        """Itself: Gradio copies the values of states, and a page has one session."""
        return self

    @property
    def folder(self) -> Path:
        """Where files for this page lie; made when first used."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder

    def open_upload(self, path: str, name: str) -> None:
        """Open a photo that the browser sent.

        Raises:
            ImageError: The path is none of an upload, or the file is no photo.
        """
        uploads = Path(get_upload_folder()).resolve()
        real = Path(path).resolve()
        # The browser names the path, and the server has more files than uploads.
        if not real.is_relative_to(uploads):
            raise ImageError("That file was not sent with this page; open it again")
        self._open(real, name)

    def open_example(self, name: str) -> None:
        """Open one of the photos that come along.

        Raises:
            ImageError: There is no such example.
        """
        found = next((path for path in example_photos() if path.stem == name), None)
        if found is None:
            raise ImageError(f"There is no example {name[:40]!r}")
        self._open(found, found.name)

    def open_file(self, path: Path) -> None:
        """Open a file that the server itself names: a photo of its index."""
        self._open(path, path.name)

    def scene(self, *, message: str | None = None, error: bool = False) -> dict[str, Any]:
        """What the browser shows."""
        return scene_of(self.explorer, photo_url=self._photo_url, message=message, error=error)

    def close(self) -> None:
        """Delete its files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def new_file_folder(self) -> Path:
        """An empty folder for one file to be downloaded."""
        folder = self.folder / f"export-{secrets.token_hex(4)}"
        folder.mkdir()
        # Of the files made before, the last few may still be on their way.
        old = sorted(self.folder.glob("export-*"), key=lambda path: path.stat().st_mtime)
        for path in old[:-4]:
            shutil.rmtree(path, ignore_errors=True)
        return folder

    def _open(self, path: Path, name: str) -> None:
        photo = read_photo(path, name)
        self.explorer.open(photo)
        shown = self.folder / f"photo-{time.time_ns()}.jpg"
        Image.fromarray(photo.image).save(shown, "JPEG", quality=_SHOWN_QUALITY, subsampling=0)
        for old in self.folder.glob("photo-*.jpg"):
            if old != shown:
                old.unlink(missing_ok=True)
        self._photo_url = f"gradio_api/file={shown}"


def close_session(session: Session | None) -> None:
    """What Gradio calls when a page has gone."""
    if session is not None:
        session.close()


def no_session() -> dict[str, Any]:
    """The scene of a page that was left alone for too long."""
    return empty_scene(
        "This page was idle for long and forgot its photo; open it again", error=True
    )
