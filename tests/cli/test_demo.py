"""`textsam demo`: what it says, and what it does without gradio."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from textsam.cli.app import app


def test_without_gradio_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    done = CliRunner().invoke(app, ["demo"])
    assert done.exit_code == 1
    assert 'pip install "textsam[demo]"' in done.output


def test_it_serves_at_once_and_says_what_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace_model: Any
) -> None:
    """The page is there while the model is still being loaded; Ctrl-C ends it."""
    pytest.importorskip("gradio")
    log = tmp_path / "log"
    page_was_read, has_ended = threading.Event(), threading.Event()
    problems: list[BaseException] = []

    def from_pretrained(name: str, **_: Any) -> Any:
        assert page_was_read.wait(60)
        return SimpleNamespace(name=name)

    def visit() -> None:
        """Read the page, let the model be loaded, and press Ctrl-C."""
        try:
            address = _wait_for(log, r"open (http://127\.0\.0\.1:\d+/) .*being loaded")[1]
            with urllib.request.urlopen(address, timeout=60) as answer:
                assert b"textsam" in answer.read()
            assert "is loaded" not in log.read_text()
            page_was_read.set()
            _wait_for(log, "tiny is loaded; Ctrl-C stops")
        except BaseException as problem:
            problems.append(problem)
        finally:
            page_was_read.set()
            # Not once it has ended: that would stop the tests. Again, since an interrupt that comes
            # while Python finalizes an object is lost.
            while not has_ended.is_set():
                os.kill(os.getpid(), signal.SIGINT)
                has_ended.wait(5)

    replace_model(from_pretrained)
    # In this process, where gradio has been imported, which takes most of the time.
    with log.open("w", buffering=1) as output:
        monkeypatch.setattr(sys, "stderr", output)
        monkeypatch.setattr(sys, "stdout", output)
        visitor = threading.Thread(target=visit)
        # Shells start background jobs with interrupts ignored.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        visitor.start()
        try:
            app(["demo", "--port", "0"], standalone_mode=False)
        finally:
            has_ended.set()
            visitor.join(60)
            signal.signal(signal.SIGINT, before)
    assert not problems, problems
    assert "Traceback" not in log.read_text()


def test_a_port_that_is_taken_is_told() -> None:
    pytest.importorskip("gradio")
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = CliRunner().invoke(app, ["demo", "--port", str(port)])
    assert done.exit_code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.output


def _wait_for(log: Path, words: str) -> re.Match[str]:
    for _ in range(1200):
        match = re.search(words, log.read_text())
        if match:
            return match
        time.sleep(0.1)
    raise AssertionError(log.read_text())
