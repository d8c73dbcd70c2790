"""`textsam demo`: what it says, and what it does without gradio."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from textsam.cli.app import app


def test_without_gradio_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    done = CliRunner().invoke(app, ["demo"])
    assert done.exit_code == 1
    assert 'pip install "textsam[demo]"' in done.output


def test_it_serves_at_once_and_says_what_it_does(repo: Path, tmp_path: Path) -> None:
    """The page is there while the model is still being loaded; Ctrl-C ends it."""
    pytest.importorskip("gradio")
    log = tmp_path / "log"
    command = [sys.executable, "-m", "textsam", "demo", "--port", "0"]
    with log.open("w") as output:
        # What a shell starts with & ignores SIGINT, and so would its children.
        server = subprocess.Popen(
            command,
            cwd=repo,
            stderr=output,
            stdout=output,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    try:
        address = _wait_for(log, r"open (http://127\.0\.0\.1:\d+/) .*being loaded", server)[1]
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert b"textsam" in answer.read()
        _wait_for(log, "tiny is loaded; Ctrl-C stops", server)
        server.send_signal(signal.SIGINT)
        server.wait(timeout=60)
    finally:
        server.kill()
    assert "Traceback" not in log.read_text()


def test_a_port_that_is_taken_is_told(repo: Path) -> None:
    pytest.importorskip("gradio")
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = CliRunner().invoke(app, ["demo", "--port", str(port)])
    assert done.exit_code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.output


def _wait_for(log: Path, words: str, server: subprocess.Popen) -> re.Match:
    for _ in range(1200):
        found = re.search(words, log.read_text())
        if found:
            return found
        assert server.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(log.read_text())
