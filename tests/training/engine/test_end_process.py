"""A process that trained with others leaves with its status, whatever gloo's threads are doing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.warm_python import run_python

PROGRAM = """
import atexit, sys, tempfile
import torch, torch.distributed as dist
from training.recipes.base import end_process

if {together}:
    with tempfile.NamedTemporaryFile() as store:
        dist.init_process_group("gloo", f"file://{{store.name}}", rank=0, world_size=1)
    torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 3))
atexit.register(print, "taken apart")
print("done", end=" ")  # without a line's end: it waits in the buffer
end_process({status})
"""


@pytest.mark.parametrize(("together", "said"), [(True, "done "), (False, "done taken apart\n")])
@pytest.mark.parametrize("status", [0, 3])
def test_status_and_output_survive(together: bool, said: str, status: int, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(together=together, status=status))
    done = run_python(str(program), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (status, said), done.stderr
