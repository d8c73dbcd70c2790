"""What a process does that adds rows in small batches until it is done or killed.

No test module: run by its path, with `URI`, `DATASET`, `COUNT`, `BATCH` (rows), `PAUSE` (seconds
after each), `KNOWN` (path of `known.py`) and `TOLD` (a file that gets a line for each batch that is
in) as globals.
"""

from __future__ import annotations

import runpy
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from textsam.search.index import MaskIndex


def write(given: dict[str, Any]) -> None:
    """Add the batches."""
    known = SimpleNamespace(**runpy.run_path(given["KNOWN"]))
    count, size = given["COUNT"], given["BATCH"]
    with Path(given["TOLD"]).open("a") as told, MaskIndex.open(given["URI"]) as index:
        print("ready", file=told, flush=True)
        for start in range(0, count, size):
            rows = known.make_rows(given["DATASET"], range(start, min(start + size, count)))
            index.add(rows, known.vectors_of(rows))
            print(start + len(rows), file=told, flush=True)
            time.sleep(given["PAUSE"])


if __name__ == "__main__":
    write(globals())
