"""Python programs in processes of their own, which start with the slow libraries imported.

Importing torch, torchvision, timm and open_clip takes seven seconds of CPU time. Here a process
that has imported them, and nothing of this project, forks for each program; everything else is as
in `python -m ...`: arguments, current folder, environment, output, exit status.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import shlex
import socket
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess

# Not lancedb, which does not like to be forked.
_LIBRARIES = ["torch", "torchvision", "timm", "open_clip", "transformers", "accelerate", "pandas"]

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload([*_LIBRARIES, "lance_namespace"])


class Program:
    """A running `python -m MODULE ...` or `python FILE ...`."""

    def __init__(
        self, *words: str, cwd: Path, environment: Mapping[str, str | None] | None = None
    ) -> None:
        """Start it; variables that are None are removed from its environment."""
        self.words = words
        self._output = [tempfile.NamedTemporaryFile("r") for _ in range(2)]  # noqa: SIM115
        names = [file.name for file in self._output]
        arguments = (list(words), str(cwd), dict(environment or {}), names)
        self.process: BaseProcess = FORK.Process(target=_run, args=arguments, daemon=True)
        self.process.start()

    def wait(self, *, timeout: float = 600) -> CompletedProcess[str]:
        """Its exit status and output, once it has ended; killed after `timeout` seconds."""
        self.process.join(timeout)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        status = self.process.exitcode
        output, errors = (file.read() for file in self._output)
        for file in self._output:
            file.close()
        return CompletedProcess(self.words, -1 if status is None else status, output, errors)


def run_python(
    *words: str, cwd: Path, environment: Mapping[str, str | None] | None = None
) -> CompletedProcess[str]:
    """Run a program to its end."""
    return Program(*words, cwd=cwd, environment=environment).wait()


def run_group(*words: str, cwd: Path, processes: int = 2) -> None:
    """Run a program in processes that work together, as torchrun starts them; all must succeed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_FSDP": None}
    group = [
        Program(*words, cwd=cwd, environment={**shared, "RANK": rank, "LOCAL_RANK": rank})
        for rank in map(str, range(processes))
    ]
    for program in group:
        done = program.wait(timeout=300)
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr[-3000:]}"


def _run(words: list[str], cwd: str, environment: dict[str, str | None], output: list[str]) -> None:
    """In the fork: become the program."""
    for name, stream in zip(output, (1, 2), strict=True):
        os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND), stream)
    os.chdir(cwd)
    for name, value in environment.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            sys.path.insert(0, cwd)
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            sys.path.insert(0, str(Path(words[0]).resolve().parent))
            runpy.run_path(words[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # multiprocessing ends a fork without them
