"""How many files of the library run to answer the main question."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import textsam
from textsam import TextSAM, segment

ROOT = Path(textsam.__file__).parent
# 28 while timm, open_clip and one decoder for training and inference did what four files now do.
MAX_FILES = 32


def files_that_run(question: Any) -> list[str]:
    """Files of textsam in which a function is entered, in the order in which they are."""
    entered: dict[str, None] = {}

    def watch(frame: FrameType, event: str, _: Any) -> None:
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(str(ROOT)) and frame.f_code.co_name != "<module>":
            entered.setdefault(str(Path(path).relative_to(ROOT)))

    previous = sys.getprofile()
    sys.setprofile(watch)
    try:
        question()
    finally:
        sys.setprofile(previous)
    return list(entered)


def test_a_phrase_passes_through_few_files(repo: Path) -> None:
    model = TextSAM.from_pretrained("tiny")
    photo = repo / "examples" / "bus.jpg"
    files = files_that_run(lambda: segment(photo, text="wheel", model=model))
    assert "inference/view.py" in files
    assert len(files) <= MAX_FILES, "\n".join(files)
