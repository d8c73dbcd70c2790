"""What `textsam doctor` looks at: versions, device, weights, optional extras."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from textsam.weights.info import KNOWN_MODELS, find_model

__all__ = ["Finding", "examine"]

# What the installed package says counts; this is for a checkout that is only on the path.
_BASE = [
    *("torch", "torchvision", "open_clip_torch", "timm", "transformers", "numpy", "pillow"),
    *("safetensors", "huggingface_hub", "pycocotools", "typer", "rich"),
]

_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9._-]+)")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        part: What it belongs to: `"system"`, `"packages"`, `"weights"` or `"extras"`.
        name: What was looked at.
        value: What was found.
        advice: What to type to mend it; empty if nothing is wrong or missing.
        needed: Whether textsam does not work without it.
    """

    part: str
    name: str
    value: str
    advice: str = ""
    needed: bool = False

    @property
    def is_problem(self) -> bool:
        """Whether textsam does not work for this."""
        return self.needed and bool(self.advice)


def examine() -> list[Finding]:
    """Look at everything; never raises, and downloads nothing."""
    needs = _requirements()
    packages = [_package(name) for name in needs.get("", _BASE)]
    extras = [_extra(extra, names) for extra, names in sorted(needs.items()) if extra]
    return [*_system(), *_torch(), *packages, *_weights(), *extras]


def _system() -> list[Finding]:
    from textsam import __version__

    return [
        Finding("system", "textsam", f"{__version__}, {Path(__file__).parents[1]}"),
        Finding("system", "python", f"{platform.python_version()}, {sys.executable}"),
        Finding("system", "platform", platform.platform()),
    ]


def _torch() -> list[Finding]:
    """Device and threads, by asking torch itself."""
    try:
        import torch
    except Exception as error:  # a broken binary fails in its own ways
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
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = f"{torch.get_num_threads()} of {cores} cores"
    if limit := os.environ.get("OMP_NUM_THREADS"):
        threads += f" (OMP_NUM_THREADS={limit})"
    return [Finding("system", "device", device), Finding("system", "threads", threads)]


def _weights() -> list[Finding]:
    findings = []
    for model in KNOWN_MODELS:
        folder = find_model(model.name)
        if folder is not None:
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
            findings.append(Finding("weights", model.name, f"here, {size:,.0f} MB"))
        elif model.shipped:
            advice = "pip install --force-reinstall textsam"
            findings.append(Finding("weights", model.name, "missing", advice, needed=True))
        else:
            value = f"not here; its first use downloads {model.megabytes} MB"
            findings.append(Finding("weights", model.name, value))
    return findings


def _package(name: str) -> Finding:
    version = _version(name)
    if version is None:
        return Finding("packages", name, "missing", f"pip install {name}", needed=True)
    return Finding("packages", name, version)


def _extra(extra: str, names: list[str]) -> Finding:
    """Whether everything that an extra brings is there."""
    there = {name: version for name in names if (version := _version(name)) is not None}
    missing = [name for name in names if name not in there]
    if missing:
        advice = f'pip install "textsam[{extra}]"'
        return Finding("extras", extra, f"without {', '.join(missing)}", advice)
    return Finding("extras", extra, ", ".join(f"{name} {there[name]}" for name in names))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _requirements() -> dict[str, list[str]]:
    """Names of what textsam needs, by extra; `""` for the base, absent if not installed."""
    try:
        lines = importlib.metadata.requires("textsam") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    needs: dict[str, list[str]] = {}
    for line in lines:
        name, extra = _REQUIREMENT.match(line), _EXTRA.search(line)
        # `[all]` lists the other extras of textsam itself; it has nothing of its own to look for.
        if name is not None and name[1] != "textsam":
            needs.setdefault(extra[1] if extra else "", []).append(name[1])
    return needs
