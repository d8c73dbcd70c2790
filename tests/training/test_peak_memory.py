"""Peak memory is this process's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from training.peak_memory import peak_bytes

ROOT = Path(__file__).resolve().parents[2]


def test_it_rises_with_what_is_held_and_never_falls() -> None:
    before = peak_bytes()
    block = np.ones(max(2 * before, 1 << 28) // 8)  # more than ever before
    held = peak_bytes()
    assert held >= before + block.nbytes // 2
    del block
    assert peak_bytes() >= 0.99 * held  # the kernel counts pages in bundles


def test_a_process_does_not_begin_with_its_parents_peak() -> None:
    block = np.ones(1 << 26)  # 512 MiB
    code = "from training.peak_memory import peak_bytes; print(peak_bytes())"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(result.stdout) < block.nbytes
