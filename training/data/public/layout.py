"""Where a set's files should be, and what to say when they are not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def find_root(root: Path | str, places: Sequence[str], *, marks: Sequence[str], what: str) -> Path:
    """The folder that holds all of `marks`: `root` itself, or one of `places` in it.

    So a user may name the folder that an archive was unpacked in, or any that leads to the data.
    """
    root = Path(root)
    if not root.is_dir():
        raise NotADirectoryError(f"{what}: there is no folder {root}")
    for place in places:
        folder = root / place
        if all((folder / mark).is_dir() for mark in marks):
            return folder
    looked = ", ".join(str(root / place) for place in places)
    raise FileNotFoundError(
        f"{what}: looked in {looked} for the folders {', '.join(marks)}, and none has them all. "
        f"Name the folder into which {what} was unpacked"
    )


def wanted_folder(folder: Path, what: str) -> Path:
    """The folder, if it is there."""
    if not folder.is_dir():
        beside = sorted(p.name for p in folder.parent.iterdir()) if folder.parent.is_dir() else []
        raise NotADirectoryError(
            f"{what}: there is no folder {folder}; beside it are {_first(beside)}"
        )
    return folder


def read_split(file: Path, what: str) -> list[str]:
    """The lines of a list of photos, without empty ones."""
    if not file.is_file():
        lists = sorted(p.stem for p in file.parent.glob("*.txt"))
        raise FileNotFoundError(
            f"{what}: there is no list {file}; "
            + (f"for split= there are {_first(lists)}" if lists else f"{file.parent} has no list")
        )
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    if not any(lines):
        raise ValueError(f"{what}: the list {file} is empty")
    return [line for line in lines if line]


def _first(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "") or "nothing"
