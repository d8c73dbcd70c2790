"""The stages of `tiny`: their order, what each starts from, and their numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from textsam.errors import TextSamError
from training.engine import CheckpointStore, rate_factor
from training.recipes import tiny_run, tiny_stages
from training.recipes.dense_text import DenseConfig
from training.recipes.tiny import SOURCES, TinyConfig
from training.recipes.tiny_joint import JointConfig
from training.recipes.tiny_run import TinyClipRecipe, TinyRecipe, is_kept
from training.recipes.tiny_stages import STAGES


@pytest.fixture
def recipe(tmp_path: Path) -> TinyRecipe:
    """With files that stand where the data would."""
    for name in SOURCES:
        (tmp_path / f"{name}.parquet").touch()
    return TinyRecipe(data=tmp_path, runs=tmp_path / "runs", threads=1)


def test_stages_run_in_their_order_whatever_was_typed(
    recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tuple(STAGES) == recipe.stages  # by default all of them
    run: list[str] = []
    stages = {name: lambda _, name=name: run.append(name) for name in STAGES}
    monkeypatch.setattr(tiny_run, "STAGES", stages)
    replace(recipe, stages=("export", "dense", "full")).prepare()()
    assert run == ["dense", "full", "export"]
    run.clear()
    TinyClipRecipe(data=recipe.data, runs=recipe.runs, threads=1).prepare()()
    assert run == ["clip"]


def test_missing_data_are_named_before_any_stage(recipe: TinyRecipe) -> None:
    (recipe.data / "voc.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks voc\.parquet"):
        recipe.prepare()


def test_a_stage_says_which_one_must_come_before(recipe: TinyRecipe) -> None:
    part = {"sam": nn.Linear(2, 2)}
    with pytest.raises(TextSamError, match=r"points yet\. Type: --stages points"):
        tiny_stages._load(recipe.runs / "points", part)
    CheckpointStore(recipe.runs / "points").save(
        7,
        {
            "step": 7,
            "model": {"sam.weight": torch.ones(2, 2), "sam.bias": torch.ones(2)},
            "average": {},
        },
    )
    assert tiny_stages._load(recipe.runs / "points", part) == 7
    assert bool((part["sam"].weight == 1).all())


@pytest.mark.parametrize(
    ("config", "rate", "decay"),
    [
        (TinyConfig(seed=4), 8e-4, 0.05),
        (DenseConfig(seed=4), 2e-3, 0.02),
        (JointConfig(seed=4), 5e-4, 0.05),
    ],
    ids=["core", "dense", "joint"],
)
def test_a_stages_settings_become_the_engines(
    recipe: TinyRecipe, config: object, rate: float, decay: float
) -> None:
    engine = recipe.engine(steps=1000, warmup=100, tail=0.2, config=config)
    assert (engine.peak_rate, engine.weight_decay, engine.seed) == (rate, decay, 4)
    found = [rate_factor(step, config=engine) for step in (0, 99, 500, 799, 900)]
    assert found == pytest.approx([0.01, 1, 1, 1, 0.5])
    still = recipe.engine(steps=1000, warmup=100, tail=1e-6, config=config)
    assert rate_factor(999, config=still) == 1


def test_the_last_stage_and_the_calibration_share_no_photo(
    recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"voc": list(range(45)), "coco": list(range(19))}
    monkeypatch.setattr(TinyRecipe, "samples", lambda self: rows)
    seen, kept = recipe.seen(), recipe.kept()
    assert {name: sorted(seen[name] + kept[name]) for name in rows} == rows  # type: ignore[operator]
    assert kept == {"voc": [7, 27], "coco": [7]}
    assert [is_kept(i) for i in (6, 7, 27)] == [False, True, True]
