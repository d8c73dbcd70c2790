from __future__ import annotations

import pytest

from demos.explorer.board import Board
from demos.explorer.steps import Steps
from textsam.errors import PromptError


def test_the_last_forty_steps_are_kept() -> None:
    steps, boards = Steps(), [Board() for _ in range(61)]
    for board in boards[:-1]:
        steps.add(board)
    assert steps.counts == (40, 0)
    board = boards[-1]
    for expected in boards[-2:-42:-1]:
        board = steps.back(board)
        assert board is expected
    assert steps.counts == (0, 40)
    with pytest.raises(PromptError, match="nothing to undo"):
        steps.back(board)
    assert steps.counts == (0, 40)  # what failed took no step
