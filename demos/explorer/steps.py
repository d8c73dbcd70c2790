"""Undo and redo: the boards that were, and those that were taken back."""

from __future__ import annotations

from textsam.errors import PromptError

from .board import Board

__all__ = ["Steps"]

_MOST = 40


class Steps:
    """The last steps of one user; boards are never changed in place, so keeping them is enough."""

    def __init__(self) -> None:
        """Begin without any."""
        self._past: list[Board] = []
        self._future: list[Board] = []

    @property
    def counts(self) -> tuple[int, int]:
        """How many steps can be undone and redone."""
        return len(self._past), len(self._future)

    def add(self, board: Board) -> None:
        """Keep a board that gives way to a new one; what was undone cannot be redone any more."""
        self._past = [*self._past, board][-_MOST:]
        self._future = []

    def back(self, board: Board) -> Board:
        """The board before this one.

        Raises:
            PromptError: There is none.
        """
        if not self._past:
            raise PromptError("There is nothing to undo")
        self._future.append(board)
        return self._past.pop()

    def forth(self, board: Board) -> Board:
        """The board that was there before `back`.

        Raises:
            PromptError: There is none.
        """
        if not self._future:
            raise PromptError("There is nothing to redo")
        self._past.append(board)
        return self._future.pop()
