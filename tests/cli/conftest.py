"""A stand-in for the model of the command line, so that no test of it loads networks."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import textsam


@pytest.fixture
def replace_model(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Replaces `TextSAM.from_pretrained`, as commands see it, by a function."""

    def replace(from_pretrained: Callable[..., Any]) -> None:
        # Not monkeypatch.setattr: it would look up the real class, and so import torch.
        stand_in = SimpleNamespace(from_pretrained=from_pretrained)
        monkeypatch.setitem(vars(textsam), "TextSAM", stand_in)

    return replace
