"""A writer that is killed, and readers beside one that is not."""

from __future__ import annotations

import random
import runpy
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.warm_python import FORK
from textsam.search.index import MaskIndex
from textsam.search.records import read_vectors
from textsam.search.results import SearchResult
from textsam.search.where import Where

HERE = Path(__file__).parent
BATCH = 10


class Writer:
    """A process that runs `writer.py`; it has opened the index when this is made."""

    def __init__(
        self, uri: Path, dataset: str, count: int, told: Path, *, pause: float = 0
    ) -> None:
        """Start it."""
        told.write_text("")
        self._told = told
        given = {"URI": str(uri), "DATASET": dataset, "COUNT": count, "BATCH": BATCH}
        given |= {"KNOWN": str(HERE / "known.py"), "TOLD": str(told), "PAUSE": pause}
        arguments = (str(HERE / "writer.py"), given, "__main__")
        self.process = FORK.Process(target=runpy.run_path, args=arguments, daemon=True)
        self.process.start()
        self.wait_for(lambda: self._told.read_text() != "")

    def wait_for(self, done: Callable[[], bool]) -> None:
        """Wait until something is so, or the process has ended."""
        deadline = time.monotonic() + 120
        while not done() and self.process.is_alive():
            assert time.monotonic() < deadline, "the writer stands still"
            time.sleep(0.001)

    @property
    def rows(self) -> int:
        """How many rows it has said were in."""
        # Its last line may be half there.
        *lines, _ = self._told.read_text().split("\n")
        return int(lines[-1]) if lines and lines[-1] != "ready" else 0


def check_whole(index: MaskIndex, known: ModuleType) -> int:
    """Every row is whole: its id and both vectors follow from what it says; how many rows."""
    seen = set()
    for batch in index.rows():
        for row_id, dataset, image in zip(
            *(batch.column(name).to_pylist() for name in ("id", "dataset", "image")), strict=True
        ):
            assert known.make_rows(dataset, [int(image)])[0].id == row_id
            assert row_id not in seen
            seen.add(row_id)
        for name, space in known.SPACES.items():
            names = (batch.column(column).to_pylist() for column in ("dataset", "image"))
            for dataset, image, vector in zip(*names, read_vectors(batch, name), strict=True):
                wanted = known.vector(f"{int(image) % 7}#{dataset}/{image}", space)
                np.testing.assert_array_equal(vector, wanted)
    assert index.count() == len(seen)
    return len(seen)


def test_killed_at_many_moments(tmp_path: Path, known: ModuleType) -> None:
    """kill -9 loses at most the batch in flight, and the next writer continues from there."""
    uri, count = tmp_path / "masks.lance", 400
    moments, ends = random.Random(3), [0]
    for kill in range(10):
        writer = Writer(uri, "ships", count, tmp_path / f"told{kill}")
        if kill >= 3:  # the first ones while the table is created
            goal = ends[-1] + BATCH * moments.randrange(3)
            writer.wait_for(lambda goal=goal, writer=writer: writer.rows >= goal)
        time.sleep(moments.uniform(0, 0.03))
        writer.process.kill()
        writer.process.join()
        assert writer.process.exitcode == -signal.SIGKILL
        with MaskIndex.open(uri) as index:
            rows = check_whole(index, known) if index.spaces else 0
        assert rows % BATCH == 0
        # What it said was in is in; at most one batch more, which it could not say any more.
        assert max(writer.rows, ends[-1]) <= rows <= max(writer.rows, ends[-1]) + BATCH
        ends.append(rows)
    assert len(set(ends)) > 4
    # The same again, to the end: nothing twice, nothing left out.
    with MaskIndex.open(uri) as index:
        rows = known.make_rows("ships", range(count))
        assert index.add(rows, known.vectors_of(rows)) == count - ends[-1]
        assert check_whole(index, known) == count
        index.compact()
        assert check_whole(index, known) == count


def test_two_writers_of_the_same_rows(tmp_path: Path, known: ModuleType) -> None:
    """Neither fails, and no row is there twice."""
    uri = tmp_path / "masks.lance"
    writers = [Writer(uri, "ships", 100, tmp_path / f"told{i}") for i in range(2)]
    for writer in writers:
        writer.process.join()
        assert writer.process.exitcode == 0 and writer.rows == 100
    with MaskIndex.open(uri) as index:
        assert check_whole(index, known) == 100


def test_fifty_readers_beside_a_writer(tmp_path: Path, known: ModuleType) -> None:
    """No error, no row in part, and never fewer rows than before."""
    uri = tmp_path / "masks.lance"
    with MaskIndex.open(uri) as index:
        first = known.make_rows("ships", range(100))
        index.add(first, known.vectors_of(first))
    opened, ended = threading.Barrier(51), threading.Event()
    failed: list[BaseException] = []
    seen: list[set[int]] = []

    def read(number: int) -> None:
        counts = [100]
        try:
            with MaskIndex.open(uri) as reader:
                assert reader.count() == 100
                opened.wait(120)
                while not ended.is_set():
                    query = known.vector(f"{number % 7}#{number}", known.CLIP)
                    found = reader.search(vector=query, k=5)
                    assert len(found) == 5
                    for result in found:
                        check_found(result, query, known)
                    counts.append(reader.count())
                    assert counts[-1] % BATCH == 0 and counts[-1] >= counts[-2]
                    time.sleep(0.05)
            seen.append(set(counts))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    try:
        opened.wait(120)
        writer = Writer(uri, "ports", 150, tmp_path / "told", pause=0.1)
        writer.process.join()
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert not failed, failed[0]
    assert writer.process.exitcode == 0 and writer.rows == 150
    assert len(seen) == 50
    assert len(set().union(*seen)) > 3, "the readers did not see the writer at work"
    with MaskIndex.open(uri) as index:
        assert check_whole(index, known) == 250
        assert index.count(Where(datasets=["ports"])) == 150


def check_found(result: SearchResult, query: np.ndarray, known: ModuleType) -> None:
    """The row is as it was added, and its cosine is of its own vector."""
    assert result.id == known.make_rows(result.dataset, [int(result.image)])[0].id
    own = float(known.vector(known.key_of(result), known.CLIP) @ query)
    assert result.cosine == pytest.approx(own, abs=1e-5)
