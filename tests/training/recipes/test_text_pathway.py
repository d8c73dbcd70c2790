"""`text_pathway`: any core and any CLIP, to an adapter that loads and answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from textsam.errors import WeightsError
from textsam.inference.model import TextSAM
from training.data.drawn_shapes import draw_samples
from training.train import main

SETTINGS = [
    *("--images", "2", "--workers", "0", "--masks", "2", "--hidden", "16", "--engine.cpu"),
    *("--engine.steps", "2", "--engine.log-every", "1", "--engine.precision", "no"),
    *("--engine.no-tensorboard", "--objective.prompts.points", "1"),
    *("--objective.prompts.silent-among", "0", "--objective.prompts.silent-last", "0"),
]


def arguments(core: Path, clip: Path, data: str, folder: Path) -> list[str]:
    names = ("--core", str(core), "--clip", str(clip), "--data", data, "--folder", str(folder))
    return ["text_pathway", *names, *SETTINGS]


def losses(folder: Path) -> list[float]:
    records = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if "loss" in record]


def test_an_adapter_loads_and_answers(
    model_folder: Callable[..., Path],
    clip_folder: Callable[..., Path],
    coco_data: Callable[..., str],
    tmp_path: Path,
) -> None:
    core, clip, folder = model_folder(), clip_folder(), tmp_path / "run"
    words = arguments(core, clip, coco_data(4), folder)
    assert main([*words, "--objective.centring", "--centre-batches", "2"]) == 0
    assert len(losses(folder)) == 2
    adapter = folder / "pathway.safetensors"
    assert adapter.stat().st_size < 60_000  # bytes: the pathway alone
    model = TextSAM.from_pretrained(core, clip=clip, pathway=adapter)
    assert model.pathway is not None and model.pathway.text_mean.any()
    result = model.segment(draw_samples(1, side=64)[0].image(), text="red disc", strategy="prompt")
    assert set(result.labels) <= {"red disc"}
    prediction = model.open(draw_samples(1, side=64)[0].image()).predict(text="red disc")
    assert prediction.logits.shape == (4, 64, 64)
    with pytest.raises(WeightsError, match="was trained for clip"):
        TextSAM.from_pretrained(core, clip=clip_folder("timm"), pathway=adapter)


def test_a_cache_is_filled_once_and_the_whole_model_written_when_more_is_trained(
    model_folder: Callable[..., Path],
    clip_folder: Callable[..., Path],
    coco_data: Callable[..., str],
    tmp_path: Path,
) -> None:
    core, clip, folder, cache = model_folder(), clip_folder(), tmp_path / "run", tmp_path / "cache"
    words = [*arguments(core, clip, coco_data(4), folder), "--cache", str(cache)]
    frozen = ["--objective.frozen", "image_encoder", "clip"]
    assert main([*words, *frozen]) == 0
    shards = {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")}
    assert shards
    trained = TextSAM.from_pretrained(folder / "model")
    assert trained.pathway is not None and trained.clip is not None
    before = TextSAM.from_pretrained(core).sam.state_dict()
    moved = {k.split(".")[0] for k, v in trained.sam.state_dict().items() if (v != before[k]).any()}
    assert moved == {"prompt_encoder", "mask_decoder"}
    words[words.index(str(folder))] = str(tmp_path / "again")
    assert main([*words, *frozen]) == 0
    assert losses(tmp_path / "again") == losses(folder)
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")} == shards


def test_a_cache_refuses_towers_that_are_trained(
    model_folder: Callable[..., Path],
    clip_folder: Callable[..., Path],
    coco_data: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = arguments(model_folder(), clip_folder(), coco_data(4), tmp_path / "run")
    assert main([*words, "--cache", str(tmp_path / "c"), "--objective.frozen", "clip"]) == 2
    assert "cannot be trained on embeddings" in " ".join(capsys.readouterr().err.split())
