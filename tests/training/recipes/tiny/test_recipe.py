"""The stages of `tiny`: their order, what each starts from, and that they run and resume."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from tests.warm_python import run_group
from textsam.errors import TextSamError
from textsam.inference.model import TextSAM
from training.data.plan import is_kept_out
from training.engine import CheckpointStore, rate_factor
from training.recipes.tiny import lease, stages
from training.recipes.tiny import recipe as recipe_module
from training.recipes.tiny.recipe import TinyClipRecipe, TinyRecipe
from training.recipes.tiny.stage_settings import FILES
from training.recipes.tiny.stages import STAGES

SCRIPT = Path(__file__).with_name("small_tiny.py")


@pytest.fixture(scope="module")
def small() -> Iterator[ModuleType]:
    """The recipe at toy sizes, for the tests of this file."""
    spec = importlib.util.spec_from_file_location("small_tiny", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        module.shrink(patch.setattr)
        yield module
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained(small: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all stages were gone through, by one process."""
    folder = tmp_path_factory.mktemp("tiny")
    small.write_data(folder / "data")
    assert small.small_recipe(folder).prepare()() is None
    return folder


def losses(folder: Path) -> list[float]:
    records = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if "loss" in record]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    path = CheckpointStore(folder).newest()
    assert path is not None
    return {name: value.clone() for name, value in CheckpointStore.read(path)["model"].items()}


def test_all_stages_leave_a_model_that_answers(trained: Path) -> None:
    for name in ("dense", "points", "full", "joint", "final", "wide", "words", "broad"):
        assert len(losses(trained / "runs" / name)) == 1, name
    model = TextSAM.from_pretrained(trained / "runs" / "tiny")
    assert model.pathway is not None and model.pathway.config.dense_source == "sam"
    photo = torch.randint(0, 255, (48, 64, 3), dtype=torch.uint8).numpy()
    assert model.open(photo).text_map("red disc").shape == (48, 64)
    averaged = CheckpointStore.read(CheckpointStore(trained / "runs" / "wide").paths()[0])
    assert averaged["average"]  # of the weights, which are what is exported


def test_a_stage_that_is_done_is_passed_over_and_one_that_is_not_goes_on(
    small: ModuleType, trained: Path, tmp_path: Path
) -> None:
    done = losses(trained / "runs" / "joint")
    small.small_recipe(trained, stages=("clip", "joint")).prepare()()
    assert losses(trained / "runs" / "joint") == done
    shutil.copytree(trained / "runs" / "clip", tmp_path / "runs" / "clip")
    shutil.copytree(trained / "runs" / "full", tmp_path / "runs" / "full")
    (tmp_path / "data").symlink_to(trained / "data")
    # One step with a limit of time that is over after it, then the rest.
    first = small.small_recipe(tmp_path, stages=("joint",), seconds=1e-9)
    assert first.prepare()() is None
    assert int(CheckpointStore(tmp_path / "runs" / "joint").paths()[0].name[11:19]) < 2
    small.small_recipe(tmp_path, stages=("joint",), workers=1).prepare()()
    expected = weights(trained / "runs" / "joint")
    for name, value in weights(tmp_path / "runs" / "joint").items():
        assert torch.equal(value, expected[name]), name


def test_the_last_stage_can_start_from_a_model(
    small: ModuleType, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").symlink_to(trained / "data")
    start = str(trained / "runs" / "tiny")
    recipe = small.small_recipe(
        tmp_path, stages=("clip", "words", "broad", "export"), init_from=start
    )
    replace(recipe, images=3).prepare()()
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == [
        "broad",
        "clip",
        "tiny",
        "words",
    ]
    before, after = (TextSAM.from_pretrained(p) for p in (start, tmp_path / "runs" / "tiny"))
    assert before.pathway is not None and after.pathway is not None
    assert torch.equal(before.pathway.text_mean, after.pathway.text_mean)
    # The text tower goes on from the model's.
    words = [m.clip.encode_text(["disc", "square"]) for m in (before, after) if m.clip is not None]
    assert 0 < (words[0] - words[1]).abs().max() < 0.5
    weight = "mask_decoder.transformer.blocks.0.mlp.0.weight"
    old, new = (model.sam.state_dict().get(weight) for model in (before, after))
    if old is not None and new is not None:
        assert 0 < (old - new).abs().max() < 0.1


def test_a_machine_lent_for_seconds_trains_to_the_end_of_them(
    small: ModuleType, trained: Path, tmp_path: Path
) -> None:
    """Packed, trained and unpacked as on the machine that is lent, and then calibrated here."""
    start, runs = trained / "runs" / "tiny", tmp_path / "runs"
    shutil.copytree(trained / "runs" / "clip", runs / "clip")
    sent, back, model = (tmp_path / name for name in ("sent", "back", "model"))
    pack = ["pack", "--data", str(trained / "data"), "--runs", str(runs), "--init-from", str(start)]
    lease.main([*pack, "--out", str(sent), "--part-mib", "1"])
    parts = sorted(path.name for path in sent.iterdir())
    assert parts == [f"part-{n:03d}" for n in range(len(parts))] != []
    assert all(path.stat().st_size <= 1 << 20 for path in sent.iterdir())
    began = time.monotonic()
    options = ["--images", "3", "--workers", "0", "--cpu", "--seconds", "10"]
    lease.main(["train", "--lease", str(sent), "--out", str(back), *options])
    assert time.monotonic() - began < 40
    lease.main(["unpack", "--trained", str(back), "--runs", str(runs), "--out", str(model)])
    before, after = (TextSAM.from_pretrained(path) for path in (start, model))
    old, new = (m.sam.state_dict() for m in (before, after))
    assert old.keys() == new.keys()
    assert any(not torch.equal(old[name], new[name]) for name in old)
    folder = tmp_path / "exported"
    shutil.copytree(runs / "clip", folder / "clip")
    small.small_recipe(
        tmp_path, data=trained / "data", runs=folder, init_from=str(model), stages=("export",)
    ).prepare()()
    exported = TextSAM.from_pretrained(folder / "tiny").sam.state_dict()
    assert all(torch.equal(exported[name], new[name]) for name in new)


def test_the_pace_of_a_run_leaves_its_first_steps_out(tmp_path: Path) -> None:
    CheckpointStore(tmp_path).save(45, {"step": 45})
    assert lease._pace(tmp_path, seconds=90) == (45, 2.0)
    lines = [{"step": 20, "seconds": 60.0}, {"step": 40, "seconds": 80.0}, {"evaluated": 40}]
    (tmp_path / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert lease._pace(tmp_path, seconds=90) == (45, 1.0)


def test_two_processes_train_what_one_trains(trained: Path, tmp_path: Path) -> None:
    """Text tower, image head, dense head, core, and both together."""
    (tmp_path / "data").symlink_to(trained / "data")
    names = ("clip", "dense", "points", "full", "joint")
    run_group(str(SCRIPT), str(tmp_path), *names, cwd=tmp_path)
    for name in ("clip/text", "dense", "points", "full", "joint"):
        one, two = (folder / "runs" / name for folder in (trained, tmp_path))
        assert losses(two) == pytest.approx(losses(one), rel=2e-3), name
        expected = weights(one)
        for key, value in weights(two).items():
            torch.testing.assert_close(value, expected[key], rtol=1e-3, atol=2e-3)


@pytest.fixture
def recipe(tmp_path: Path) -> TinyRecipe:
    """With files that stand where the data would."""
    for name in FILES:
        (tmp_path / f"{name}.parquet").touch()
    return TinyRecipe(data=tmp_path, runs=tmp_path / "runs", threads=1)


def test_stages_run_in_their_order_whatever_was_typed(
    recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tuple(STAGES) == recipe.stages  # by default all of them
    run: list[str] = []

    def stage(name: str) -> Any:
        return lambda _: run.append(name)

    monkeypatch.setattr(recipe_module, "STAGES", {name: stage(name) for name in STAGES})
    replace(recipe, stages=("export", "dense", "full")).prepare()()
    assert run == ["dense", "full", "export"]
    run.clear()
    TinyClipRecipe(data=recipe.data, runs=recipe.runs, threads=1).prepare()()
    assert run == ["clip"]


def test_a_signal_ends_the_run_and_a_limit_of_time_only_its_stage(
    recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Result:
        def __init__(self, reason: str) -> None:
            self.reason = reason

    results = {"dense": Result("seconds"), "points": Result("SIGTERM"), "full": Result("done")}
    run: list[str] = []

    def stage(name: str) -> Any:
        return lambda _: (run.append(name), results[name])[1]

    monkeypatch.setattr(recipe_module, "STAGES", {name: stage(name) for name in results})
    ended = replace(recipe, stages=("dense", "points", "full")).prepare()()
    assert run == ["dense", "points"] and ended is results["points"]


def test_missing_data_are_named_before_any_stage(recipe: TinyRecipe) -> None:
    (recipe.data / "voc.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks voc\.parquet"):
        recipe.prepare()


def test_a_stage_says_which_one_must_come_before(recipe: TinyRecipe) -> None:
    sam: Any = nn.Linear(2, 2)
    with pytest.raises(TextSamError, match=r"points yet\. Type: --stages points"):
        stages._load(recipe.runs / "points", sam, sam)
    with pytest.raises(TextSamError, match=r"clip yet\. Type: --stages clip"):
        stages._text_parts(recipe)
    state = {"sam.weight": torch.ones(2, 2), "sam.bias": torch.ones(2)}
    CheckpointStore(recipe.runs / "points").save(7, {"step": 7, "model": state, "average": {}})
    assert stages._load(recipe.runs / "points", sam, sam) == 7
    assert bool((sam.weight == 1).all())


def test_rates_rise_stay_and_fall(recipe: TinyRecipe) -> None:
    engine = recipe.engine(steps=1000, peak_rate=5e-4, warmup=100, tail=0.2, seed=4)
    assert (engine.peak_rate, engine.weight_decay, engine.seed) == (5e-4, 0.05, 4)
    factors = [rate_factor(step, config=engine) for step in (0, 99, 500, 799, 900)]
    assert factors == pytest.approx([0.01, 1, 1, 1, 0.5])
    still = recipe.engine(steps=1000, warmup=100, tail=1e-6)
    assert rate_factor(999, config=still) == 1


def test_the_last_stage_and_the_calibration_share_no_photo(
    recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"voc": list(range(45)), "coco": list(range(19))}
    monkeypatch.setattr(TinyRecipe, "samples", lambda self: rows)
    shown, kept = recipe.mix(dict.fromkeys(rows, 1.0), kept_out=True).sources, recipe.kept_out()
    assert {name: sorted([*shown[name], *kept[name]]) for name in rows} == rows
    assert kept == {"voc": [7, 27], "coco": [7]}
    assert [is_kept_out(i) for i in (6, 7, 27)] == [False, True, True]


@pytest.mark.parametrize("name", ["../outside", "/outside", "link"])
def test_parts_of_a_lent_machine_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo(name)
        if name == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(member)
    (tmp_path / "part-000").write_bytes(archive.getvalue())
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(TextSamError, match="is no file inside"):
        lease._read_parts(tmp_path, target)
    assert not list(target.iterdir()) and not (tmp_path / "outside").exists()
