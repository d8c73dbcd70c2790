"""The random model of tests/inference, which takes milliseconds."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from textsam.inference.model import TextSAM

from ..inference.conftest import build_model


@pytest.fixture(scope="session")
def model() -> TextSAM:
    """A bare SAM: the tasks need no phrase."""
    return build_model(text=False)


@pytest.fixture
def photo() -> NDArray[np.uint8]:
    """(50, 90, 3) noise."""
    return np.random.default_rng(5).integers(0, 256, (50, 90, 3), dtype=np.uint8)
