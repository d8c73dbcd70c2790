"""Every evaluation or study that a page shows has the options that the page gives it."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import tyro

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / "README.md", ROOT / "textsam" / "weights" / "tiny" / "README.md"),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "training" / "studies").rglob("README.md")),
]


def _commands() -> set[tuple[str, ...]]:
    found = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"python -m (training\.(?:evaluation|studies)\.[^\n`]+)", text):
            found.add(tuple(shlex.split(line.split("#")[0])))
    return found


def test_documented_commands_can_be_parsed() -> None:
    commands = _commands()
    assert len(commands) > 20
    for name, *arguments in sorted(commands):
        spec = importlib.util.find_spec(name)
        assert spec is not None, name
        package = spec.submodule_search_locations is not None
        module = importlib.import_module(f"{name}.__main__" if package else name)
        (options,) = (
            value
            for key, value in vars(module).items()
            if key.endswith("Options") and value.__module__ == module.__name__
        )
        config = (tyro.conf.PositionalRequiredArgs,)
        parsed = tyro.cli(options, args=arguments, config=config, console_outputs=False)
        assert isinstance(parsed, options), (name, arguments)
