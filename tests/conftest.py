"""What holds for every test: no network but this machine, fixed seeds, no writing into the repo."""

from __future__ import annotations

import ipaddress
import os
import random
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# Before anything imports the libraries that read them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Processes of pytest-xdist share the cores: threads beyond those only wait for each other. Not set
# in the process that starts them: they would inherit its number, which is for one process.
if processes := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    threads = max(1, (os.cpu_count() or 1) // int(processes))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))

# Shared machines stall: a slow example is no failure, and CI draws the same examples every time.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


# Longest first, and before all others: no process is left alone with one of them at the end.
LONG_FILES = (
    "tests/test_readme.py",
    "tests/search/test_ray_job.py",
    "tests/training/test_train.py",
    "tests/demos/web/test_static_page.py",
    "tests/demos/page/test_browser.py",
    "tests/training/recipes/tiny/test_recipe.py",
    "tests/search/test_killed.py",
    "tests/search/test_conformance.py",
    "tests/demos/test_first_steps.py",
    "tests/training/engine/test_lost_process.py",
    "tests/golden/test_golden.py",
)


def pytest_xdist_auto_num_workers() -> int:
    """Half again as many processes as cores: tests wait for browsers, Ray and other programs."""
    return max(1, (os.cpu_count() or 1) * 3 // 2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the files; the tests of one stay in their order."""
    places = {name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))


@pytest.fixture(scope="session")
def repo() -> Path:
    """Root of the checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def seeds():
    """Every test starts from the same random state, in whatever order the tests run."""
    random.seed(0)
    np.random.seed(0)  # code under test may use it
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def only_this_machine():
    """A test that needs the network fails at once, and says so, instead of waiting for it."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
            raise OSError(f"tests use no network: refused a connection to {address[0]}")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        yield


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


_STATUS = pytest.StashKey[int]()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End at once, with the tests' own status.

    A model that a test's server was still loading in a thread makes libraries abort while Python
    takes itself down ("terminate called without an active exception"), after all tests have passed.
    """
    # A worker of pytest-xdist still has to tell its controller that it is done.
    if _STATUS in config.stash and not hasattr(config, "workerinput"):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[_STATUS])
