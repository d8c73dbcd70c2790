"""The photos in a list of files and folders, and the output file of each."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from textsam.values.addresses import is_address

_READ = """
    .apng .avif .bmp .gif .heic .heif .hif .j2k .jfif .jp2 .jpe .jpeg .jpg .jxl .mpo .pbm .pgm
    .png .ppm .tif .tiff .webp
"""
PHOTO_SUFFIXES = frozenset(_READ.split())

# Pictures that are not read: camera raw, drawings, documents, layers, scans. A folder run counts
# them, so that no photo is left out without a word.
_OTHERS = """
    .3fr .ai .arw .cr2 .cr3 .crw .dcm .dds .dicom .dng .ecw .eps .exr .fits .hdr .ico .iiq .img
    .jxr .kdc .mrw .nef .nrw .orf .pcx .pdf .pef .psb .psd .raf .raw .rw2 .rwl .sr2 .srw .svg .tga
    .vrt .x3f .xcf
"""
OTHER_PICTURES = frozenset(_OTHERS.split())

# Files that a run writes besides the outputs.
RESERVED_NAMES = frozenset({"classes.txt", "errors.jsonl", "summary.json"})


@dataclass(frozen=True)
class PhotoFile:
    """A photo of a run."""

    path: Path
    name: str  # below the folder that was searched, with "/"; the file name of a single photo
    output: str  # path of its output below the output folder, with "/"


@dataclass(frozen=True)
class FoundPhotos:
    """The photos of a run, and what was left out."""

    photos: list[PhotoFile]
    left_out: dict[str, int] = field(default_factory=dict)  # pictures of other kinds, by suffix


def find_photos(paths: Sequence[Path], out_dir: Path, *, suffix: str) -> FoundPhotos:
    """List photos in a fixed order, and name their outputs.

    Patterns ("photos/*.jpg", "**" for subfolders) are expanded where no file has that name.
    Folders are searched recursively for `PHOTO_SUFFIXES`, through links too, without hidden files
    and without the output folder. Files in `paths` are listed whatever their suffix, even if they
    do not exist, so that a run can report them. The output of `a/b.jpg` is `a/b` + suffix; photos
    that differ only in their suffix keep it (`b.jpg.json`).

    Raises:
        ValueError: There are no photos, two photos have the same output, an output would
            overwrite a photo, or a path is an address.
    """
    paths = [Path(name) for path in paths for name in expand_pattern(str(path))]
    left_out: Counter[str] = Counter()
    # Everything that is no folder counts as a photo, so that a mistyped name is reported.
    folders = [path for path in paths if path.is_dir()]
    names: dict[Path, str] = {}
    for path in paths:
        if path in folders:
            # Several folders may hold the same names.
            prefix = PurePosixPath(path.resolve().name if len(folders) > 1 else "")
            for photo in _walk(path, out_dir, left_out):
                names.setdefault(photo, (prefix / photo.relative_to(path).as_posix()).as_posix())
        else:
            names.setdefault(path, path.name)
    if not names:
        others = f" There are {count_suffixes(left_out)}." if left_out else ""
        raise ValueError(
            f"no photos in {', '.join(str(path) for path in paths) or 'an empty list'}; looked for "
            f"{' '.join(sorted(PHOTO_SUFFIXES))}.{others}"
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
    return FoundPhotos(photos, dict(sorted(left_out.items())))


def expand_pattern(name: str) -> list[str]:
    """The files that a pattern means, by name; a name without * ? [ or of a file is itself.

    Raises:
        ValueError: Nothing matches, or the name is an address of which a run takes none.
    """
    # A Path made of an address has lost a slash.
    if not is_address(name) and is_address(name.replace(":/", "://", 1)):
        name = name.replace(":/", "://", 1)
    if is_address(name):
        raise ValueError(f"a run reads files; {name} is an address: give it alone, or download it")
    name = os.path.expanduser(name)
    if not glob.has_magic(name) or os.path.lexists(name):
        return [name]
    if found := sorted(glob.glob(name, recursive=True)):
        return found
    raise ValueError(f"no photos match {name!r} (looked in {Path.cwd()})")


def count_suffixes(left_out: dict[str, int]) -> str:
    """For people: "3 .cr2, 1 .psd"."""
    return ", ".join(f"{count} {suffix}" for suffix, count in left_out.items())


def _walk(folder: Path, out_dir: Path, left_out: Counter[str]) -> Iterator[Path]:
    """Photos below a folder, by name; counts pictures of other kinds."""
    output = out_dir.resolve()
    if folder.resolve() == output:
        raise ValueError(
            f"the output folder {str(out_dir)!r} is the folder of the photos; give another, "
            f"e.g. {out_dir / 'masks'}"
        )
    # Links may lead back up; each folder is searched once.
    seen = {folder.resolve(), output}
    for root, folders, files in os.walk(folder, followlinks=True):
        here = Path(root)
        entered = []
        # A folder has its own name rather than that of a link to it.
        for name in sorted(folders, key=lambda name: ((here / name).is_symlink(), name)):
            place = (here / name).resolve()
            if not name.startswith(".") and place not in seen:
                seen.add(place)
                entered.append(name)
        # Changed in place, which is how os.walk is told what to enter.
        folders[:] = entered
        for name in sorted(files):
            suffix = Path(name).suffix.lower()
            if name.startswith("."):
                continue
            if suffix in PHOTO_SUFFIXES:
                yield here / name
            elif suffix in OTHER_PICTURES:
                left_out[suffix] += 1


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
