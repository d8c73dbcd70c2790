"""The photos in a list of files and folders, and the output file of each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

PHOTO_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm"}
    | {".tif", ".tiff", ".webp"}
)

# Files that a run writes besides the outputs.
RESERVED_NAMES = frozenset({"classes.txt", "errors.jsonl", "summary.json"})


@dataclass(frozen=True)
class PhotoFile:
    """A photo of a run."""

    path: Path
    name: str  # below the folder that was searched, with "/"; the file name of a single photo
    output: str  # path of its output below the output folder, with "/"


def find_photos(paths: Sequence[Path], out_dir: Path, *, suffix: str) -> list[PhotoFile]:
    """List photos in a fixed order, and name their outputs.

    Folders are searched recursively for `PHOTO_SUFFIXES`, without hidden files and without the
    output folder. Files in `paths` are listed whatever their suffix, even if they do not exist, so
    that a run can report them. The output of `a/b.jpg` is `a/b` + suffix; photos that differ only
    in their suffix keep it (`b.jpg.json`).

    Raises:
        ValueError: There are no photos, two photos have the same output, or an output would
            overwrite a photo.
    """
    # Everything that is no folder counts as a photo, so that a mistyped name is reported.
    folders = [path for path in paths if path.is_dir()]
    names: dict[Path, str] = {}
    for path in paths:
        if path in folders:
            # Several folders may hold the same names.
            prefix = PurePosixPath(path.resolve().name if len(folders) > 1 else "")
            for photo in _walk(path, out_dir):
                names.setdefault(photo, (prefix / photo.relative_to(path).as_posix()).as_posix())
        else:
            names.setdefault(path, path.name)
    if not names:
        raise ValueError(
            f"no photos in {', '.join(str(path) for path in paths) or 'an empty list'}; looked for "
            f"{' '.join(sorted(PHOTO_SUFFIXES))}"
        )
    unique = {path.resolve(): (path, name) for path, name in reversed(names.items())}
    # Reversed twice: of a file that is named twice the first name counts.
    files = list(reversed(unique.values()))
    # casefold: some file systems do not distinguish upper from lower case.
    stems = Counter(_stem(name).casefold() + suffix for _, name in files)
    stems.update(RESERVED_NAMES)
    photos = []
    for path, name in files:
        is_shared = stems[_stem(name).casefold() + suffix] > 1
        photos.append(PhotoFile(path, name, (name if is_shared else _stem(name)) + suffix))
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
        # Changed in place, which is how os.walk is told what to enter.
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


def _check_outputs(photos: Sequence[PhotoFile], out_dir: Path) -> None:
    sources = {photo.path.resolve() for photo in photos}
    outputs: dict[str, PhotoFile] = {}
    for photo in photos:
        other = outputs.setdefault(photo.output.casefold(), photo)
        if other is not photo:
            raise ValueError(
                f"{str(other.path)!r} and {str(photo.path)!r} would both be written to "
                f"{photo.output!r}; give the folder above them, or make two runs"
            )
        if (out_dir / photo.output).resolve() in sources:
            raise ValueError(
                f"{str(out_dir / photo.output)!r} is a photo of this run and would be overwritten; "
                "give another output folder"
            )
