"""Errors can be caught as what they are, survive a process border, and say what to type."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from textsam.errors import (
    ImageError,
    MissingExtraError,
    PromptError,
    TextSamError,
    WeightsError,
    require,
)


@pytest.mark.parametrize("kind", [ImageError, PromptError, WeightsError])
def test_argument_errors_are_value_errors(kind: type[Exception]) -> None:
    assert issubclass(kind, TextSamError)
    assert issubclass(kind, ValueError)


def test_missing_extra_is_an_import_error() -> None:
    assert issubclass(MissingExtraError, TextSamError)
    assert issubclass(MissingExtraError, ImportError)


def test_require_returns_the_innermost_module() -> None:
    assert require("json", "any") is json
    assert require("os.path", "any").__name__ in ("posixpath", "ntpath")


def test_require_names_the_extra_and_the_module() -> None:
    with pytest.raises(MissingExtraError) as caught:
        require("surely_not_installed.inner", "demo")
    assert 'pip install "textsam[demo]"' in str(caught.value)
    assert "'surely_not_installed'" in str(caught.value)
    assert "is not installed" in str(caught.value)
    assert caught.value.name == "surely_not_installed.inner"


def test_require_tells_a_broken_module_from_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_installed.py").write_text("import surely_not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtraError, match=r"cannot be imported.*surely_not_installed"):
        require("half_installed", "search")


@pytest.mark.parametrize("kind", [ImageError, PromptError, WeightsError, MissingExtraError])
def test_errors_cross_process_borders(kind: type[Exception]) -> None:
    error = kind("what came")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is kind
        assert str(twin) == "what came"


def test_the_values_do_not_import_torch() -> None:
    code = (
        "import sys; import textsam.errors, textsam.values.geometry, textsam.values.rle, "
        "textsam.values.images, textsam.values.prompts; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
