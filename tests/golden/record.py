"""Record the answers of the golden test again: `python -m tests.golden.record [QUESTION ...]`.

Do so for a deliberate change only, in a commit of its own; `git diff` shows which answers changed.
With names of questions, the answers to all others stay as they are.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

RECORD = Path(__file__).with_name("golden.json")
_LINE = 96  # characters; what fits is written on one line, so that a diff shows whole masks


def as_text(value: Any, indent: str = "") -> str:
    """JSON with short values on one line each."""
    line = json.dumps(value)
    if not isinstance(value, dict | list) or len(indent) + len(line) <= _LINE or not value:
        return line
    if isinstance(value, dict) and ("pixels" in value or "evidence" in value):
        return line
    inner = indent + " "
    if isinstance(value, list):
        parts = [as_text(item, inner) for item in value]
        return "[\n" + ",\n".join(inner + part for part in parts) + f"\n{indent}]"
    parts = [f"{json.dumps(key)}: {as_text(item, inner)}" for key, item in value.items()]
    return "{\n" + ",\n".join(inner + part for part in parts) + f"\n{indent}}}"


def main() -> None:
    from tests.golden import answers

    torch.set_num_threads(1)
    names = sys.argv[1:]
    recorded = json.loads(RECORD.read_text())["answers"] if names else {}
    for name in names or answers.QUESTIONS:
        start = time.process_time()
        recorded[name] = answers.QUESTIONS[name]()
        sys.stderr.write(f"{name}: {time.process_time() - start:.1f} s\n")
    RECORD.write_text(as_text({"machine": answers.machine(), "answers": recorded}) + "\n")


if __name__ == "__main__":
    main()
