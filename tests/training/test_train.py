"""`python -m training.train`: what it says, that it learns, resumes exactly and shares its work."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch

from tests.warm_python import Program
from training.recipes.debug import DebugRecipe
from training.recipes.registry import RECIPES, summary
from training.train import main, parse

ROOT = Path(__file__).resolve().parents[2]
# Small enough that most of the time is spent on starting processes.
SHORT = [
    *("debug", "--image-size", "64", "--engine.steps", "16", "--engine.log-every", "1"),
    *("--engine.checkpoint-every", "4"),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def losses(folder: Path) -> dict[int, float]:
    records = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return {record["step"]: record["loss"] for record in records if "loss" in record}


def leaves(kind: Any, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Each option of a dataclass, and whether a comment or a docstring explains it."""
    types = get_type_hints(kind)
    code = "\n".join(inspect.getsource(base) for base in kind.__mro__ if is_dataclass(base))
    for item in fields(kind):
        option = f"{prefix}{item.name.replace('_', '-')}"
        if is_dataclass(types[item.name]):
            yield from leaves(types[item.name], f"{option}.")
        else:
            name = (
                item.name
            )  # explained in the line above, behind the field, or under `Attributes:`
            patterns = rf"^    # .*\n    {name}: |^    {name}: .*  # |^        {name}: "
            yield option, bool(re.search(patterns, code, re.MULTILINE))


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight")
    assert main([*SHORT, "--folder", str(folder)]) == 0
    return folder


def test_help_lists_every_recipe_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, recipe in RECIPES.items():
        line = next(line for line in lines if line.split()[:1] == [name])
        assert line.rstrip().endswith(summary(recipe))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_explains_all_its_fields(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"python -m training.train {name}" in text
    for option, documented in leaves(RECIPES[name]):
        assert re.search(rf"--{re.escape(option)}\b", text), option
        assert documented, f"{option} has no help"


def test_the_nearest_recipe_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fine-tun"]) == 2
    assert "Did you mean finetune?" in " ".join(capsys.readouterr().err.split())


def test_the_nearest_field_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["debug", "--engine.stpes", "3"])
    assert stop.value.code == 2
    assert "--engine.steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sam_vit_b", "--data", "nowhere.parquet"], "is not there"),
        (["sam_vit_h", "--data", "x.parquet", "--encoder", "gone.pth"], "no file gone.pth"),
        (["finetune", "--data", "coco:a.json"], "wanted two paths"),
        (["finetune", "--data", "parquet:a.parquet?share=-1"], "positive number"),
        (["text_pathway", "--data", "parquet:gone.parquet"], "gone.parquet"),
        (["debug", "--images", "5", "--engine.accumulation", "2"], "multiple"),
        (["tiny", "--data", "/nowhere"], "lacks voc.parquet"),
    ],
)
def test_a_mistake_is_told_before_any_work(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    started = time.process_time()
    assert main(words) == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert time.process_time() - started < 3  # seconds; loading a model takes longer


def test_fields_reach_the_recipe() -> None:
    recipe = parse(["debug", "--engine.seed", "3", "--objective.frozen", "image_encoder"])
    assert isinstance(recipe, DebugRecipe)
    assert recipe.engine.seed == 3
    assert recipe.objective.frozen == ("image_encoder",)
    assert recipe.objective.box_trains_single  # what is not named stays the recipe's own


def test_debug_overfits_its_photos(tmp_path: Path) -> None:
    assert main(["debug", "--folder", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert record["evaluation"]["drawn_iou"] > 0.95
    assert len(list(tmp_path.glob("pictures/*/drawn.png"))) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_run_goes_on_bit_for_bit(straight: Path, tmp_path: Path) -> None:
    run = Program("-m", "training.train", *SHORT, "--folder", str(tmp_path), cwd=ROOT)
    log = tmp_path / "log.jsonl"
    while run.process.is_alive() and not (log.exists() and log.read_text().count("\n") >= 6):
        time.sleep(0.01)
    run.process.kill()
    done = run.wait()
    assert done.returncode == -signal.SIGKILL, done.stderr
    reached = len(losses(tmp_path))
    assert 6 <= reached < 16
    assert main([*SHORT, "--folder", str(tmp_path)]) == 0
    assert losses(tmp_path) == losses(straight)


def test_two_processes_equal_one(straight: Path, tmp_path: Path) -> None:
    words = [
        *(sys.executable, "-m", "torch.distributed.run", "--rdzv-backend", "c10d"),
        *("--rdzv-endpoint", "localhost:0", "--nproc-per-node", "2"),
        *("-m", "training.train", *SHORT, "--folder", str(tmp_path)),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        environment.pop(name, None)
    done = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    two, one = losses(tmp_path), losses(straight)
    assert two.keys() == one.keys()
    first = range(1, 9)  # later, rounding has grown by the steps in between
    assert [two[n] for n in first] == pytest.approx([one[n] for n in first], rel=1e-4)
