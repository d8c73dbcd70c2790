"""What README.md shows is run: its Python as one program, its `textsam` commands one by one.

A fence under `<!-- not run: why -->` is left out: for what needs a download or another machine.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from tests.warm_python import run_python

README = Path(__file__).resolve().parents[1] / "README.md"
SHELLS = ("bash", "sh", "shell", "console")
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
_NOT_RUN = re.compile(r"<!--\s*not run\b[^>]*-->\s*\Z")
_LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")


@dataclass(frozen=True)
class Fence:
    """A fenced block: its language, its text, and the line of the file that it starts on."""

    language: str
    text: str
    line: int


def read_fences(text: str) -> list[Fence]:
    """The fenced blocks of a Markdown text that are to be run."""
    return [
        Fence(match[1], match[2], text.count("\n", 0, match.start(2)) + 1)
        for match in _FENCE.finditer(text)
        if not _NOT_RUN.search(text, 0, match.start())
    ]


def as_program(fences: Sequence[Fence]) -> str:
    """The Python fences as one program, in which each line has the number that it has in the file.

    Later fences go on where earlier ones stopped, as a reader would.
    """
    program = ""
    for fence in fences:
        if fence.language == "python":
            program += "\n" * (fence.line - 1 - program.count("\n")) + fence.text
    return program


def textsam_commands(fences: Sequence[Fence]) -> list[list[str]]:
    """Every `textsam ...` of the shell fences, also where it stands after `&&`."""
    commands = []
    for fence in fences:
        if fence.language in SHELLS:
            lines = fence.text.replace("\\\n", " ").splitlines()
            for part in (part for line in lines for part in line.removeprefix("$ ").split("&&")):
                words = shlex.split(part, comments=True)
                if words[:1] == ["textsam"]:
                    commands.append(words)
    return commands


@pytest.fixture(scope="module")
def readme() -> str:
    assert README.is_file(), f"{README} is missing"
    return README.read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, repo: Path) -> Path:
    """An empty folder with the photos in it, as the README calls them."""
    shutil.copytree(repo / "examples", tmp_path / "examples")
    return tmp_path


def test_python_runs(readme: str, folder: Path) -> None:
    program = as_program(read_fences(readme))
    assert "segment(" in program, "README.md shows no Python that segments a photo"
    (folder / "README.py").write_text(program, encoding="utf-8")
    done = run_python("README.py", cwd=folder)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("name", ["coming_from", "photos", "segmentation"])
def test_pages_run(name: str, repo: Path, folder: Path) -> None:
    """All blocks of a page as one program."""
    if name == "coming_from":
        pytest.importorskip("supervision")
    program = as_program(read_fences((repo / "docs" / f"{name}.md").read_text(encoding="utf-8")))
    assert program.count("\n") > 5
    (folder / "page.py").write_text(program, encoding="utf-8")
    done = run_python("page.py", cwd=folder)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_commands_run(readme: str, folder: Path) -> None:
    commands = textsam_commands(read_fences(readme))
    assert any(command[1:2] == ["segment"] for command in commands), commands
    for command in commands:
        done = run_python("-m", *command, cwd=folder)
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
        for option, value in pairwise(command):
            if option in ("-o", "--out", "--output"):
                assert (folder / value).exists(), f"{shlex.join(command)} left no {value}"
                if value.endswith(".png"):
                    with Image.open(folder / value) as picture:
                        picture.verify()


def test_the_two_commands_are_there(readme: str) -> None:
    """One sets up and does the main job, one sets up and runs the tests (as `.ci/run` does)."""
    shell = [fence.text for fence in read_fences(readme) if fence.language in SHELLS]
    main = [text for text in shell if "pip install" in text and "textsam segment" in text]
    tests = [text for text in shell if "pip install" in text and "python -m pytest" in text]
    assert main, "no shell block installs and segments"
    assert tests, "no shell block installs and tests"


@pytest.mark.parametrize(
    "name",
    [
        *("README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/phrases.md"),
        *("docs/training.md", "docs/embeddings.md", "docs/explorer.md", "docs/search.md"),
        *(
            "docs/models.md",
            "docs/coming_from.md",
            "docs/formats.md",
            "docs/segmentation.md",
            "docs/photos.md",
            "docs/devices.md",
        ),
    ],
)
def test_links_into_the_repo_exist(name: str, repo: Path) -> None:
    page = repo / name
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))  # registry["vit_b"](...) is no link
    links = [first or second for first, second in _LINK.findall(text)]
    for link in links:
        if not re.match(r"[a-z]+:|#", link):
            assert (page.parent / link.partition("#")[0]).exists(), f"{name} links to {link}"


def test_fences_are_read() -> None:
    text = "a\n```python\nx = 1\n```\n<!-- not run: big -->\n```python\ny\n```\n```python\nx\n```\n"
    fences = read_fences(text)
    assert [fence.text for fence in fences] == ["x = 1\n", "x\n"]
    assert as_program(fences).splitlines() == ["", "", "x = 1", *[""] * 6, "x"]
    shell = "```bash\npip install x && textsam info \\\n  'red bus'\n# textsam no\n```\n"
    commands = textsam_commands(read_fences(shell))
    assert commands == [["textsam", "info", "red bus"]]
