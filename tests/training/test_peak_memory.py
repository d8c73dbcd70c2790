"""Peak memory is this process's own."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np

from training.peak_memory import in_fresh_process

ROOT = Path(__file__).resolve().parents[2]


def _printed(code: str) -> list[int]:
    """What a fresh process prints: the tests' own has held gigabytes, which take long to exceed."""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [int(word) for word in result.stdout.split()]


def test_it_rises_with_what_is_held_and_never_falls() -> None:
    before, size, held, after = _printed(
        "import numpy as np\n"
        "from training.peak_memory import peak_bytes\n"
        "before = peak_bytes()\n"
        "block = np.ones(2 * before // 8)\n"  # more than ever before
        "size, held = block.nbytes, peak_bytes()\n"
        "del block\n"
        "print(before, size, held, peak_bytes())"
    )
    assert held >= before + size // 2
    assert after >= 0.99 * held  # the kernel counts pages in bundles


def test_a_process_does_not_begin_with_its_parents_peak() -> None:
    block = np.ones(1 << 26)  # 512 MiB
    (peak,) = _printed("from training.peak_memory import peak_bytes; print(peak_bytes())")
    assert peak < block.nbytes


def test_a_function_runs_elsewhere_and_its_result_comes_back() -> None:
    assert in_fresh_process(math.gcd, 12, 18) == 6
