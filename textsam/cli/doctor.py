"""`textsam doctor`: versions, device, weights and extras, and what to type if one is missing."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from textsam.cli.console import make_console, one_line_errors
from textsam.cli.options import JsonOption

if TYPE_CHECKING:
    from rich.table import Table

# For a checkout that is only on the path; an installed package states its own requirements.
_REQUIRED = [
    *("torch", "torchvision", "open_clip_torch", "timm", "transformers", "numpy", "pillow"),
    *("safetensors", "huggingface_hub", "pycocotools", "filelock", "typer", "rich"),
]

_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9._-]+)")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    part: str  # "system", "packages", "weights" or "extras"
    name: str  # what was checked, for example a package
    value: str  # its version or state
    advice: str = ""  # a command that fixes it; empty if nothing is wrong or missing
    needed: bool = False  # whether textsam cannot work without it

    @property
    def is_problem(self) -> bool:
        """Whether textsam cannot work because of this."""
        return self.needed and bool(self.advice)


def doctor(as_json: JsonOption = False) -> None:
    """Check versions, device, threads, weights and extras; say what to type if one is missing."""
    with one_line_errors():
        findings = examine()
        problems = [finding for finding in findings if finding.is_problem]
        if as_json:
            typer.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
        else:
            console = make_console()
            console.print(_findings_table(findings))
            for finding in problems:
                line = f"{finding.name}: {finding.value}. Type: {finding.advice}"
                console.print(line, style="red", markup=False)
            if not problems:
                console.print("Everything needed for segmentation is installed.", style="green")
        if problems:
            raise typer.Exit(1)


def examine() -> list[Finding]:
    """Check everything; never raises, and downloads nothing."""
    from textsam import __version__

    needs = _requirements()
    system = {
        "textsam": f"{__version__}, {Path(__file__).parents[1]}",
        "python": f"{platform.python_version()}, {sys.executable}",
        "platform": platform.platform(),
    }
    first = [Finding("system", name, value) for name, value in system.items()]
    packages = [_package(name) for name in needs.get("", _REQUIRED)]
    extras = [_extra(extra, names) for extra, names in sorted(needs.items()) if extra]
    return [*first, *_torch(), *packages, *_weights(), *extras]


def _torch() -> list[Finding]:
    """Device and threads, as torch reports them."""
    try:
        import torch
    # A broken binary raises OSError, ImportError and others.
    except Exception as error:
        advice = "pip install --force-reinstall torch"
        why = f"cannot be imported: {' '.join(str(error).split())}"
        return [Finding("system", "device", why, advice, needed=True)]
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        device = f"cuda: {torch.cuda.get_device_name(0)}, {memory:.0f} GiB"
    elif torch.backends.mps.is_available():
        device = "mps: Apple GPU"
    else:
        device = "cpu (no GPU that torch can use)"
    # In a container fewer cores may be usable than the machine has; macOS cannot tell.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = f"{torch.get_num_threads()} of {cores} cores"
    if limit := os.environ.get("OMP_NUM_THREADS"):
        threads += f" (OMP_NUM_THREADS={limit})"
    return [Finding("system", "device", device), Finding("system", "threads", threads)]


def _weights() -> list[Finding]:
    from textsam.weights.info import find_model, is_here
    from textsam.weights.model_table import MODELS

    findings = []
    absent = 0
    for model in MODELS:
        if is_here(model):
            folders = [find_model(part.id) for part in model.repositories]
            files = [file for folder in folders if folder for file in folder.rglob("*")]
            size = sum(file.stat().st_size for file in files if file.is_file()) / 1e6
            value = f"here, {size:,.0f} MB; phrases: {_phrases_of(model.name)}"
            findings.append(Finding("weights", model.name, value))
        elif model.shipped:
            advice = "pip install --force-reinstall textsam"
            findings.append(Finding("weights", model.name, "missing", advice, needed=True))
        else:
            absent += 1
    # Weights on the Hub are not needed until a command names them.
    value = f"{absent} not here; the first use downloads one. Type: textsam models"
    return [*findings, Finding("weights", "other models", value)]


def _phrases_of(name: str) -> str:
    """Which strategy answers phrases and why, or that its files cannot tell."""
    from textsam.cli.info import describe_phrases
    from textsam.weights.info import read_model_info

    try:
        return describe_phrases(name, read_model_info(name).config)
    # A report says what is broken; it does not break.
    except Exception as error:
        return f"unknown, {' '.join(str(error).split())}"


def _package(name: str) -> Finding:
    version = _version(name)
    advice = "" if version else f"pip install {name}"
    return Finding("packages", name, version or "missing", advice, needed=True)


def _extra(extra: str, names: list[str]) -> Finding:
    versions = {name: _version(name) for name in names}
    if missing := [name for name, version in versions.items() if not version]:
        advice = f'pip install "textsam[{extra}]"'
        return Finding("extras", extra, f"without {', '.join(missing)}", advice)
    return Finding("extras", extra, ", ".join(f"{name} {v}" for name, v in versions.items()))


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _requirements() -> dict[str, list[str]]:
    """Names of the packages that textsam requires, by extra; `""` for those always required."""
    try:
        lines = importlib.metadata.requires("textsam") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    needs: dict[str, list[str]] = {}
    for line in lines:
        name, extra = _REQUIREMENT.match(line), _EXTRA.search(line)
        # The extra `[all]` lists textsam itself with its other extras: no package to check.
        if name is not None and name[1] != "textsam":
            needs.setdefault(extra[1] if extra else "", []).append(name[1])
    return needs


def _findings_table(findings: Sequence[Finding]) -> Table:
    from rich.markup import escape

    from textsam.cli.tables import make_table

    table = make_table("", "", "", header=False)
    part = None
    for finding in findings:
        if part is not None and finding.part != part:
            table.add_section()
        color = "red" if finding.is_problem else "yellow" if finding.advice else "green"
        advice = f"; {finding.advice}" if finding.advice else ""
        table.add_row(
            finding.part if finding.part != part else "",
            escape(finding.name),
            f"[{color}]{escape(finding.value)}[/{color}]{escape(advice)}",
        )
        part = finding.part
    return table
