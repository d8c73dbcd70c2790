"""MATLAB's files, as SBD and BSDS500 have them: structs in cells, read as nested arrays.

MATLAB knows neither scalars nor lists: a struct comes as a (1, 1) array with named fields, and a
list of structs as a cell array (1, N) of those.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textsam.errors import ImageError, require


def read_mat(path: Path, variable: str) -> NDArray[Any]:
    """One variable of a file of MATLAB 5 to 7."""
    if not path.is_file():
        raise ImageError(f"there is no file {path}; wanted the annotation {variable!r} in it")
    loadmat = require("scipy.io", "train").loadmat
    try:
        content = loadmat(path)
    except Exception as error:  # scipy raises whatever a damaged file leads it to
        raise ImageError(f"{path} cannot be read as a MATLAB file: {error}") from error
    if variable not in content:
        there = sorted(key for key in content if not key.startswith("__"))
        raise ImageError(f"{path} holds {there}; wanted the variable {variable!r}")
    return np.asarray(content[variable])


def structs_of(cells: NDArray[Any], *, path: Path) -> list[NDArray[Any]]:
    """The structs of a cell array, or the one struct that stands alone; `path` for errors."""
    found = [cells] if cells.dtype.names else [np.asarray(cell) for cell in cells.ravel()]
    if not found or any(struct.size != 1 or not struct.dtype.names for struct in found):
        raise ImageError(f"{path}: wanted a MATLAB struct, or a cell array of them")
    return found


def mat_field(struct: NDArray[Any], field: str, *, path: Path) -> NDArray[Any]:
    """A field of a struct as MATLAB has it, at least two-dimensional; `path` for errors."""
    if field not in (struct.dtype.names or ()):
        raise ImageError(f"{path}: its struct has {struct.dtype.names}; wanted the field {field!r}")
    return np.asarray(struct.ravel()[0][field])
