"""The tree stays easy to find one's way in: few entries, short functions, names used once."""

from __future__ import annotations

import ast
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("textsam", "training", "demos")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]

MAX_ENTRIES = 15  # modules and packages at the top of textsam/
# In any folder, `__init__` not counted.
MAX_MODULES = 16
MAX_FUNCTION_LINES = 60  # signature and docstring included
MIN_COMMENT_SHARE = 0.03
# Of Python and of the page's JavaScript, CSS and HTML: 45,000 at the redesign, and what later
# features needed: context blocks of `tiny`, everyday phrases, a lent GPU,
# models of the hub, cores around other projects' networks, detectors,
# SAM 3, map sources, colours of phrases,
# photos of every kind (TIFF, maps, stores),
# several objects in one call, lists of photos in batches,
# results that hold no pixels and convert to what other libraries take,
# checkpoints and COCO files as people have them,
# examples of what is not meant, levels by phrase, names for everything,
# a decoder for inference, exported models and their runtime without torch,
# a page that runs `tiny` in a browser, other runtimes and GPUs, the benchmark of speed.
MAX_LINES = 66_500

# A command or a recipe has the name that people type, which is often that of what it runs.
COMMANDS = ("textsam/cli", "training/evaluation", "training/recipes", "demos/benchmarks")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function of the project with its file."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield name_of(path), node


def test_few_entries_at_the_top() -> None:
    entries = [
        item.name
        for item in (ROOT / "textsam").iterdir()
        if item.suffix == ".py" or (item.is_dir() and any(item.glob("*.py")))
    ]
    assert len(entries) <= MAX_ENTRIES, sorted(entries)


def test_no_folder_holds_too_many_modules() -> None:
    counts = Counter(name_of(path.parent) for path in FILES if path.stem != "__init__")
    assert not {folder: n for folder, n in counts.items() if n > MAX_MODULES}


def test_no_function_is_too_long() -> None:
    long = {
        f"{file}:{node.lineno} {node.name}": length
        for file, node in functions()
        if (length := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
    }
    assert not long


def test_no_file_name_occurs_twice() -> None:
    homes: dict[str, list[str]] = {}
    for path in FILES:
        if not path.stem.startswith("__") and name_of(path.parent) not in COMMANDS:
            homes.setdefault(path.stem, []).append(name_of(path))
    assert not {stem: paths for stem, paths in sorted(homes.items()) if len(paths) > 1}


def test_no_class_name_occurs_twice() -> None:
    homes: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(f"{name_of(path)}:{node.lineno}")
    assert not {name: places for name, places in sorted(homes.items()) if len(places) > 1}


def test_the_surprising_lines_have_comments() -> None:
    """On lines of their own or behind the code that they explain."""
    comments = total = 0
    for path in FILES:
        with path.open("rb") as file:
            tokens = tokenize.tokenize(file.readline)
            comments += sum(token.type == tokenize.COMMENT for token in tokens)
        total += len(path.read_text(encoding="utf-8").splitlines())
    assert comments / total >= MIN_COMMENT_SHARE, (comments, total)


def test_lines() -> None:
    kinds = {".js", ".mjs", ".css", ".html"}
    # What npm downloads and builds is no source of ours.
    made = {"node_modules", "dist"}
    found = (path for path in (ROOT / "demos").rglob("*") if not made & set(path.parts))
    page = [path for path in found if path.suffix in kinds]
    total = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in [*FILES, *page])
    assert total <= MAX_LINES


@pytest.mark.parametrize(
    ("pattern", "instead"),
    [
        (r"\bRECIPE,? (section )?\d", "users do not have that page: cite the paper's section"),
        (r"(?<!\w)\(code\)", 'say "as in the released code"'),
        (r"\b(least|most)_[a-z]+\b", "min_ and max_, as in segment-anything's parameters"),
    ],
)
def test_words(pattern: str, instead: str) -> None:
    lines = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in FILES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(pattern, line)
    ]
    assert not lines, "\n".join([instead, *lines])


def test_public_names_are_documented() -> None:
    """Public modules, classes, functions and methods have a docstring."""
    bare = []
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        nodes: list[ast.Module | ast.ClassDef | ast.FunctionDef] = [tree]
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                nodes.append(node)
                members = node.body if isinstance(node, ast.ClassDef) else []
                nodes += [member for member in members if isinstance(member, ast.FunctionDef)]
        bare += [
            f"{name_of(path)}:{getattr(node, 'lineno', 1)}"
            for node in nodes
            if not getattr(node, "name", "module").startswith("_")
            and ast.get_docstring(node) is None
            and not any("overload" in ast.unparse(d) for d in getattr(node, "decorator_list", []))
        ]
    # The script in cells begins with a cell of text.
    assert not [place for place in bare if not place.startswith("demos/first_steps.py")]
