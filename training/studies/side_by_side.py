"""Time two checkouts side by side: what a photo, a phrase and a click cost before and after.

    git worktree add ../before COMMIT
    python -m training.studies.side_by_side ../before . --rounds 15

One process for each checkout; they take turns, so that other work on the machine slows both down.
The median of each figure is printed, and the median of the ratios within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

# Runs in a checkout of any age, so it uses nothing but the calls that README has always shown.
_ROUND = """
import json, sys, time
import torch
from textsam import TextSAM

torch.set_num_threads(int(sys.argv[2]))
model = TextSAM.from_pretrained("tiny")

def timed(call):
    start = time.perf_counter()
    value = call()
    return value, time.perf_counter() - start

for _ in sys.stdin:
    seconds = {}
    view, seconds["encode"] = timed(lambda: model.open(sys.argv[1]))
    _, seconds["first phrase"] = timed(lambda: view.segment(text="wheel"))
    _, seconds["further phrase"] = timed(lambda: view.segment(text="bus"))
    _, seconds["absent phrase"] = timed(lambda: view.segment(text="giraffe"))
    _, seconds["box"] = timed(lambda: view.segment(box=(120, 115, 575, 310)))
    _, seconds["click"] = timed(lambda: view.click(300, 200))
    print(json.dumps(seconds), flush=True)
"""


def _start(checkout: Path, photo: Path, *, threads: int) -> subprocess.Popen[str]:
    """A process that imports textsam from a checkout and times one round for each line it reads."""
    path = str(checkout.resolve())
    return subprocess.Popen(
        [sys.executable, "-c", _ROUND, str(photo.resolve()), str(threads)],
        cwd=path,
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


def _round(process: subprocess.Popen[str]) -> dict[str, float]:
    """Seconds of each step of one round."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    line = process.stdout.readline()
    if not line:  # the checkout has no such calls
        raise RuntimeError(f"the process in {process.args!r:.60} ended; see its error")
    seconds: dict[str, float] = json.loads(line)
    return seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Print medians for both checkouts and their ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("old", type=Path, help="the checkout to compare with")
    parser.add_argument("new", type=Path, help="the checkout to judge")
    parser.add_argument("--photo", type=Path, default=Path("examples/bus.jpg"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    checkouts = (options.old, options.new)
    old, new = (_start(path, options.photo, threads=options.threads) for path in checkouts)
    with old, new:
        # The first round of either pays for lazy imports and warm caches.
        pairs = [(_round(old), _round(new)) for _ in range(options.rounds + 1)][1:]
    print(f"{'step':16} {'old, ms':>9} {'new, ms':>9} {'new / old':>10}")
    for step in pairs[0][0]:
        before, after = (1000 * median(pair[side][step] for pair in pairs) for side in (0, 1))
        ratio = median(second[step] / first[step] for first, second in pairs)
        print(f"{step:16} {before:9.1f} {after:9.1f} {ratio:10.2f}")


if __name__ == "__main__":
    main()
