"""Signals are wishes of the run, not of the loader's workers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from training.engine.processes import StopSignals


@pytest.fixture(autouse=True)
def python_own_handler() -> Iterator[None]:
    """A shell starts background jobs with SIGINT ignored, and a test run may be one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_second_signal_is_not_caught() -> None:
    with StopSignals() as signals:
        assert signals.received is None
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_worker_ends_on_sigterm_and_survives_ctrl_c() -> None:
    read, write = os.pipe()
    with StopSignals() as signals:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGINT)
            os.write(write, b"alive")
            while True:
                time.sleep(1)
        assert os.read(read, 5) == b"alive"
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGTERM
        assert signals.received is None
