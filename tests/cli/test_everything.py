"""`textsam everything` and `textsam refine`, with a stand-in model."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from textsam.batch.batch_run import sa1b_id
from textsam.batch.folders import everything_folder
from textsam.cli.app import app
from textsam.results.interop import from_sa1b
from textsam.results.segmentation import Segmentation
from textsam.tasks import refinement
from textsam.values.settings import AutomaticSettings


class StandIn:
    """Finds the left half and the lower half of a photo."""

    name = "stand-in"

    def __init__(self) -> None:
        self.settings: list[AutomaticSettings] = []
        self.named: list[dict[str, Any]] = []
        self.parts = SimpleNamespace(
            require_clip=lambda: None, phrase_key=str.casefold, device=torch.device("cpu")
        )

    def everything(
        self, image: Any, settings: Any = None, *, progress: Any = None, **named: Any
    ) -> Segmentation:
        self.settings.append(settings)
        self.named.append(named)
        if progress is not None:
            progress(1, 2)
        masks = np.zeros((2, *image.shape[:2]), bool)
        masks[0, :, : image.shape[1] // 2] = True
        masks[1, image.shape[0] // 2 :] = True
        labels = [named["names"][0], None] if named else None
        numbers: dict[str, Any] = {"iou": [0.9, 0.7], "stability": [0.8, 0.6]}
        return Segmentation.from_masks(masks, labels=labels, **numbers, image=image)


@pytest.fixture
def model(replace_model: Any) -> StandIn:
    model = StandIn()
    replace_model(lambda *_, **__: model)
    return model


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: StandIn) -> Any:
    """Runs a command line in a folder with `street.jpg` and a folder `in` of two photos."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    Image.new("RGB", (40, 30), "grey").save("street.jpg")
    Path("in").mkdir()
    Image.new("RGB", (40, 30), "grey").save("in/sa_12.jpg")
    Image.new("RGB", (20, 10), "grey").save("in/b.png")
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, [str(argument) for argument in arguments])


def test_one_photo_as_a_picture_numbers_codes_and_sa1b(run: Any) -> None:
    assert run("everything", "street.jpg", "-o", "a.png").exit_code == 0
    assert Image.open("a.png").size == (40, 30)
    assert run("everything", "street.jpg", "-o", "n.png", "--kind", "instances").exit_code == 0
    assert set(np.unique(np.asarray(Image.open("n.png")))) == {0, 1, 2}
    assert run("everything", "street.jpg", "-o", "a.json").exit_code == 0
    assert [round(float(x), 2) for x in Segmentation.load("a.json").iou] == [0.9, 0.7]
    result = run("everything", "street.jpg", "--format", "sa1b", "-o", "s.json")
    assert result.exit_code == 0 and "2 masks" in result.stdout
    payload = json.loads(Path("s.json").read_text())
    assert payload["image"]["file_name"] == "street.jpg"
    assert len(from_sa1b(payload)) == 2


def test_settings_reach_the_model(run: Any, model: StandIn) -> None:
    options = ("--points-per-side", 5, "--crop-n-layers", 1, "--pred-iou-thresh", 0.2)
    arguments = ("everything", "street.jpg", "-o", "a.png", "--preset", "paper", *options)
    assert run(*arguments, "--stability-score-thresh", 0.1, "--refine").exit_code == 0
    (settings,) = model.settings
    paper = AutomaticSettings.from_preset("paper")
    assert (settings.points_per_side, settings.crop_n_layers) == (5, 1)
    assert (settings.pred_iou_thresh, settings.stability_score_thresh, settings.refine) == (
        0.2,
        0.1,
        True,
    )
    assert (
        settings.min_mask_region_area == paper.min_mask_region_area
        and settings.max_area == paper.max_area
    )


def test_a_folder_goes_on_where_it_was(run: Any, model: StandIn) -> None:
    assert run("everything", "in", "-o", "out", "--format", "sa1b").exit_code == 0
    numbered = json.loads(Path("out/sa_12.json").read_text())
    assert numbered["image"]["image_id"] == 12
    assert len(model.settings) == 2
    result = run("everything", "in", "-o", "out", "--format", "sa1b")
    assert "2 kept" in result.stdout and len(model.settings) == 2
    assert (
        run("everything", "in", "-o", "out", "--format", "sa1b", "--preset", "paper").exit_code == 0
    )
    assert len(model.settings) == 4  # other settings are another run


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("everything", "in"), "-o FOLDER"),
        (("everything", "nothing.jpg"), "nothing.jpg"),
        (("everything", "street.jpg", "-o", "a.txt"), ".json"),
        (("everything", "street.jpg", "-o", "street.jpg"), "overwritten"),
        (("everything", "street.jpg", "--points-per-side", 0), "points_per_side"),
        (("refine", "a.png", "-o", "b.png"), "--photo"),
        (("refine", "street.jpg", "--photo", "street.jpg", "-o", "b.png"), "pixel numbers"),
        (("refine", "a.png", "--photo", "street.jpg", "-o", "a.png"), "overwritten"),
        (("refine", "a.png", "--photos", "in", "-o", "b.json"), "COCO"),
    ],
)
def test_bad_command_lines_are_one_line(run: Any, arguments: tuple[Any, ...], told: str) -> None:
    before = sorted(Path().rglob("*"))
    result = run(*arguments)
    assert result.exit_code == 1
    assert told in result.stderr and len(result.stderr.splitlines()) == 1
    assert sorted(Path().rglob("*")) == before


def test_numbers_of_photos_in_sa1b() -> None:
    assert sa1b_id("sa_223750.jpg") == sa1b_id("x/223750.png") == 223750
    assert sa1b_id("cat.jpg") == sa1b_id("cat.jpg") != sa1b_id("dog.jpg")


def test_an_unknown_format_of_everything(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wanted one of"):
        everything_folder(StandIn(), tmp_path, tmp_path / "out", format="txt")


def test_refine_gives_numbers_for_numbers(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("everything", "street.jpg", "-o", "n.png", "--kind", "instances").exit_code == 0
    asked: dict[str, Any] = {}

    def same(model: Any, masks: Segmentation, *, image: Any, box: bool) -> Segmentation:
        asked.update(masks=len(masks), box=box)
        return masks

    monkeypatch.setattr(refinement, "refine", same)
    result = run("refine", "n.png", "--photo", "street.jpg", "-o", "again.png", "--no-box")
    assert result.exit_code == 0, result.output
    assert asked == {"masks": 2, "box": False}
    np.testing.assert_array_equal(
        np.asarray(Image.open("again.png")), np.asarray(Image.open("n.png"))
    )


def test_refine_a_coco_file(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("labels.json").write_text("{}")
    asked: dict[str, Any] = {}

    def counted(model: Any, annotations: Path, **options: Any) -> int:
        asked.update(annotations=annotations, photos=options["photos"], out=options["out"])
        return 7

    monkeypatch.setattr(refinement, "refine_coco", counted)
    result = run("refine", "labels.json", "--photos", "in", "-o", "better.json")
    assert result.exit_code == 0 and "7 masks refined" in result.stdout
    assert asked == {
        "annotations": Path("labels.json"),
        "photos": Path("in"),
        "out": Path("better.json"),
    }


def test_names_reach_the_model(run: Any, model: StandIn) -> None:
    words = ("--names", "wheel, door", "--names", "red car", "--threshold", "door=0.4")
    one = run("everything", "street.jpg", *words)
    assert one.exit_code == 0, one.output
    wanted = {"names": ["wheel", "door", "red car"], "threshold": {"door": 0.4}}
    assert model.named == [wanted]
    assert "2 masks, 1 of them without a name" in one.stdout
    many = run("everything", "in", "-o", "out", "--names", "wheel", "--format", "json")
    assert many.exit_code == 0, many.output
    assert model.named[1:] == [{"names": ["wheel"], "threshold": None}] * 2
    kept = run("everything", "in", "-o", "out", "--names", "wheel", "--format", "json")
    assert len(model.named) == 3  # nothing runs again
    assert kept.exit_code == 0
    for typed, said in (
        (("--names", "wheel", "--threshold", "door=0.4"), "threshold names 'door'"),
        (("--threshold", "0.4"), "threshold goes with names"),
    ):
        wrong = run("everything", "in", "-o", "out2", *typed)
        assert wrong.exit_code == 1
        assert said in " ".join(wrong.stderr.split())
