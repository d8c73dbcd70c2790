"""A worker that is killed ends the run: soon, with a message, and with the checkpoint intact."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.engine import CheckpointStore

TOLD = "another process of this run has ended, so rank 0 of 2 stops"


def test_a_killed_worker_ends_the_run(launch: Callable[..., Any], tmp_path: Path) -> None:
    # torchrun ends the other worker itself, at times before that one has noticed and can tell.
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        started = time.monotonic()
        done = launch(
            {
                "folder": folder,
                "config": {"steps": 1000, "checkpoint_every": 5},
                "kill_at_batch": 8,
                "kill_rank": 1,
            },
            processes=2,
        )
        assert done.returncode not in (0, None)
        assert "Signal 9 (SIGKILL)" in done.stderr  # torchrun's own words
        assert time.monotonic() - started < 200  # seconds, on a busy core; `launch` kills at 240
        newest = CheckpointStore(folder).newest()
        assert newest is not None and CheckpointStore.read(newest)["step"] == 5
        if TOLD in done.stderr:
            break
    assert TOLD in done.stderr
    assert f"The checkpoints in {folder} are intact: start the same command" in done.stderr
