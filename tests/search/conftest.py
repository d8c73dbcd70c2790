"""The random models of tests/inference, which take milliseconds."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from textsam.inference.model import TextSAM


def _inference() -> Any:
    path = Path(__file__).parents[1] / "inference" / "conftest.py"
    spec = importlib.util.spec_from_file_location("tests_inference_conftest", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def model() -> TextSAM:
    """With a CLIP and a dense text head."""
    return _inference().build_model()


@pytest.fixture(scope="session")
def handless_model() -> TextSAM:
    """A bare SAM, which takes no phrases."""
    return _inference().build_model(text=False)


@pytest.fixture
def photo() -> NDArray[np.uint8]:
    """(50, 90, 3) noise."""
    return np.random.default_rng(5).integers(0, 256, (50, 90, 3), dtype=np.uint8)
