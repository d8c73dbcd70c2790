"""`finetune`: a user's photos in, a model folder out, and figures before and after."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from textsam.inference.model import TextSAM
from training.data import ObjectMask
from training.data.drawn_shapes import draw_samples
from training.recipes.finetune import measure_model
from training.recipes.sources import DataMix, split_mix
from training.train import main

SETTINGS = [
    *("--images", "2", "--engine.cpu", "--engine.steps", "3", "--engine.log-every", "1"),
    *("--engine.checkpoint-every", "2", "--engine.no-tensorboard", "--engine.warmup", "1"),
    *("--prompts.points", "1", "--text-share", "0.8"),
]


@pytest.mark.parametrize("phrases", [False, True], ids=["a core alone", "with phrases"])
def test_six_photos_become_a_model(
    phrases: bool,
    model_folder: Callable[..., Path],
    coco_data: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start, folder = model_folder(phrases=phrases), tmp_path / "run"
    words = ["--data", coco_data(6), "--model", str(start), "--folder", str(folder), *SETTINGS]
    assert main(["finetune", *words]) == 0
    change = json.loads((folder / "change.json").read_text())
    kinds = {"click", "box", "text"} if phrases else {"click", "box"}
    assert change["photos"] == 1 and change["before"].keys() == change["after"].keys() == kinds
    out = capsys.readouterr().out
    assert "1 photos that were held out" in out and "before" in out

    before, after = TextSAM.from_pretrained(start), TextSAM.from_pretrained(folder / "model")
    old, new = before.sam.state_dict(), after.sam.state_dict()
    moved = {name.split(".")[0] for name, value in new.items() if (value != old[name]).any()}
    assert moved == {"prompt_encoder", "mask_decoder"}
    if phrases:
        assert before.clip is not None and after.clip is not None
        assert before.pathway is not None and after.pathway is not None
        assert torch.equal(before.clip.encode_text("red disc"), after.clip.encode_text("red disc"))
        for name, value in before.pathway.state_dict().items():
            same = torch.equal(value, after.pathway.state_dict()[name])
            assert same == (not name.startswith(("projection", "token_type"))), name
        records = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
        assert any(record.get("iou_label") is not None for record in records)


def test_clip_cannot_be_trained(
    model_folder: Callable[..., Path],
    coco_data: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--data", coco_data(6), "--model", str(model_folder(phrases=True))]
    assert main(["finetune", *words, "--frozen", "image_encoder"]) == 2
    assert "Add clip to --frozen" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: [a.update(iscrowd=1) for a in c["annotations"]], "annotations .* are crowds"),
        (
            lambda c: [a.update(segmentation=None, bbox=[1, 1, 9, 9]) for a in c["annotations"]],
            "have a bbox and no mask",
        ),
        (lambda c: c["annotations"].clear(), "2 have no annotation; it has no annotation"),
        (lambda c: c["images"].clear(), "has no photo"),
        (lambda c: [i.update(file_name="x.png") for i in c["images"]], "cannot be read .*no photo"),
        (
            lambda c: [a.update(segmentation=5) for a in c["annotations"]],
            "neither|a segmentation that is no mask",
        ),
    ],
)
def test_a_set_without_a_mask_is_one_line(
    change: Callable[[Any], Any],
    told: str,
    coco_data: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--data", coco_data(2), "--folder", str(tmp_path / "run"), *SETTINGS]
    content = json.loads((tmp_path / "instances.json").read_text())
    change(content)
    (tmp_path / "instances.json").write_text(json.dumps(content))
    assert main(["finetune", *words]) == 1
    err = " ".join(capsys.readouterr().err.split())
    assert err.startswith("error: instances") and re.search(told, err)


def test_a_set_whose_masks_are_all_too_small_fails_in_a_line(
    model_folder: Callable[..., Path],
    coco_data: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Which shows only when views are made; with and without workers."""
    words = ["--data", coco_data(2), "--model", str(model_folder()), *SETTINGS]
    content = json.loads((tmp_path / "instances.json").read_text())
    for annotation in content["annotations"]:
        annotation["segmentation"] = [[1.0, 1.0, 3.0, 1.0, 3.0, 3.0]]
    (tmp_path / "instances.json").write_text(json.dumps(content))
    for workers in ("0", "1"):
        run = ["--folder", str(tmp_path / f"run{workers}"), "--workers", workers]
        assert main(["finetune", *words, *run]) == 1
        err = " ".join(capsys.readouterr().err.split())
        assert err.startswith("error: source 'instances': none of 200 photos")
        assert "Traceback" not in err


def test_photos_are_held_out_by_source_and_never_trained_on() -> None:
    samples = draw_samples(10, side=32)
    mix = DataMix(sources={"a": samples[:7], "b": samples[7:]})
    kept, out = split_mix(mix, share=0.3, seed=0)
    seen = [source[i].image_id for source in kept.sources.values() for i in range(len(source))]
    assert len(seen) == 7 and len(out) == 3
    assert sorted([*seen, *(s.image_id for s in out)]) == sorted(s.image_id for s in samples)
    assert [s.image_id for s in split_mix(mix, share=0.3, seed=0)[1]] == [s.image_id for s in out]
    assert {s.image_id for s in split_mix(mix, share=0.3, seed=1)[1]} != {s.image_id for s in out}
    assert split_mix(mix, share=0.0, seed=0) == (mix, [])
    broken = [replace(sample, encoded=b"no photo") for sample in samples[:2]]
    assert len(split_mix(DataMix(sources={"a": broken}), share=0.5, seed=0)[1]) == 0
    with pytest.raises(ValueError, match="takes two"):
        split_mix(DataMix(sources={"a": samples[:1]}), share=0.3, seed=0)


def test_objects_to_ignore_are_not_measured(model_folder: Callable[..., Path]) -> None:
    model = TextSAM.from_pretrained(model_folder())
    sample = draw_samples(1, side=64)[0]
    ignored = tuple(replace(item, ignore=True) for item in sample.objects)
    assert all(isinstance(item, ObjectMask) for item in ignored)
    assert measure_model(model, [replace(sample, objects=ignored)]) == {}
    assert measure_model(model, [sample]).keys() == {"click", "box"}
