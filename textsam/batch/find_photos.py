"""Which photos a list of files and folders means, and where each one's output goes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

__all__ = ["PHOTO_SUFFIXES", "RESERVED_NAMES", "Photo", "find_photos"]

PHOTO_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm"}
    | {".tif", ".tiff", ".webp"}
)

# Files that a run itself writes into the output folder.
RESERVED_NAMES = frozenset({"classes.txt", "errors.jsonl", "summary.json"})


@dataclass(frozen=True)
class Photo:
    """A photo of a run.

    Attributes:
        path: Where it is.
        name: Its path below the folder that was given, with `/`; its file name if given itself.
        output: Path of its output below the output folder, with `/`.
    """

    path: Path
    name: str
    output: str


def find_photos(paths: Sequence[Path], out_dir: Path, *, suffix: str) -> list[Photo]:
    """List photos in a fixed order, and name their outputs.

    Folders are searched with all their folders, for `PHOTO_SUFFIXES`; hidden files and the output
    folder are passed over. A file that is named itself is taken whatever its suffix, and even if it
    is missing, so that it can be reported. `a/b.jpg` below a folder becomes `a/b` + suffix; of
    photos that differ only in their suffix, each keeps it (`b.jpg.json`).

    Args:
        paths: Files and folders.
        out_dir: Where outputs go; need not exist.
        suffix: Of the outputs, e.g. `".png"`.

    Returns:
        At least one photo; a file that was named twice only once.

    Raises:
        ValueError: No photos, two that would be written to one output, or one that would be
            overwritten.
    """
    folders = [path for path in paths if path.is_dir()]
    named: dict[Path, str] = {}
    for path in paths:
        if path in folders:
            # Several folders may hold the same names.
            prefix = PurePosixPath(path.resolve().name if len(folders) > 1 else "")
            for photo in _walk(path, out_dir):
                named.setdefault(photo, (prefix / photo.relative_to(path).as_posix()).as_posix())
        else:
            named.setdefault(path, path.name)
    if not named:
        raise ValueError(
            f"no photos in {', '.join(str(path) for path in paths) or 'an empty list'}; looked for "
            f"{' '.join(sorted(PHOTO_SUFFIXES))}"
        )
    unique = {path.resolve(): (path, name) for path, name in reversed(named.items())}
    chosen = list(reversed(unique.values()))
    # Some file systems do not tell A from a.
    stems = Counter(_stem(name).casefold() + suffix for _, name in chosen)
    stems.update(RESERVED_NAMES)
    photos = []
    for path, name in chosen:
        shared = stems[_stem(name).casefold() + suffix] > 1
        photos.append(Photo(path, name, (name if shared else _stem(name)) + suffix))
    _check_outputs(photos, out_dir)
    return photos


def _walk(folder: Path, out_dir: Path) -> Iterator[Path]:
    """Photos below a folder, by name."""
    output = out_dir.resolve()
    if folder.resolve() == output:
        raise ValueError(
            f"the output folder {str(out_dir)!r} is the folder of the photos; give another, "
            f"e.g. {out_dir / 'masks'}"
        )
    for root, folders, files in os.walk(folder):
        here = Path(root)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (here / name).resolve() != output
        )
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in PHOTO_SUFFIXES:
                yield here / name


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def _check_outputs(photos: Sequence[Photo], out_dir: Path) -> None:
    sources = {photo.path.resolve() for photo in photos}
    taken: dict[str, Photo] = {}
    for photo in photos:
        other = taken.setdefault(photo.output.casefold(), photo)
        if other is not photo:
            raise ValueError(
                f"{str(other.path)!r} and {str(photo.path)!r} would both be written to "
                f"{photo.output!r}; give the folder above them, or run them apart"
            )
        if (out_dir / photo.output).resolve() in sources:
            raise ValueError(
                f"{str(out_dir / photo.output)!r} is a photo of this run and would be overwritten; "
                "give another output folder"
            )
