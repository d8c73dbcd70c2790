"""The toy objective, and processes that train it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.warm_python import Program

TOY = Path(__file__).with_name("toy.py")

Launch = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("engine_toy", TOY)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["engine_toy"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def launch() -> Launch:
    """Train a case in a process of its own, or in several under torchrun."""

    def start(case: dict[str, Any], *, processes: int = 1) -> subprocess.CompletedProcess[str]:
        words = [str(TOY), json.dumps([case], default=str)]
        if processes == 1:
            return Program(*words, cwd=TOY.parent).wait(timeout=240)
        torchrun = [
            *("-m", "torch.distributed.run", "--rdzv_backend", "c10d"),
            *("--rdzv_endpoint", "localhost:0", "--nproc_per_node", str(processes)),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        for name in ("ACCELERATE_USE_FSDP", "RANK", "LOCAL_RANK", "WORLD_SIZE"):
            environment.pop(name, None)
        return subprocess.run(
            [sys.executable, *torchrun, *words],
            capture_output=True,
            text=True,
            timeout=240,  # seconds; torch alone takes ten to import on a busy core
            env=environment,
        )

    return start


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
