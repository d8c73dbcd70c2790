"""`training.evaluation.transfer` on a model that knows the truth, and on one that does not."""

from __future__ import annotations

import io
import math
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from textsam.results.segmentation import Segmentation
from textsam.values.rle import encode_mask
from training.data import ObjectMask, Sample
from training.evaluation import command, transfer
from training.evaluation.data_sets import DataSet
from training.evaluation.phrases.examples import Examples
from training.evaluation.phrases.questions import Siblings

SIZE = (24, 40)
LABELS = ("door", "horse", "wheel")


def left() -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[:, :20] = True
    return mask


def speck() -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[:4, :2] = True
    return mask


def make_sample(number: int, objects: dict[str, np.ndarray]) -> Sample:
    """A photo of grey level `number` that names all it has."""
    file = io.BytesIO()
    Image.new("RGB", SIZE[::-1], (number,) * 3).save(file, "PNG")
    return Sample(
        image_id=str(number),
        source="made",
        encoded=file.getvalue(),
        size=SIZE,
        void=None,
        objects=tuple(
            ObjectMask(label=label, kind="thing", rle=encode_mask(mask), ignore=False)
            for label, mask in objects.items()
        ),
        exhaustive=True,
    )


SAMPLES = (
    make_sample(0, {"wheel": left(), "door": ~left()}),
    make_sample(1, {"wheel": ~left()}),
    make_sample(2, {"horse": left(), "door": speck()}),
    make_sample(3, {"door": left()}),
)


class Knowing:
    """Finds by name what is there; by example whatever `sees` makes of the example's name."""

    has_dense_text = False
    clip = SimpleNamespace(encode_text=lambda names: torch.eye(len(names)))

    def __init__(self, sees: dict[str, str]) -> None:
        self.sees = sees
        self.made: list[tuple[int, str]] = []
        self.unlike: list[list[str]] = []

    def concept(self, shown: list[Segmentation], unlike: list[Segmentation] | None = None) -> str:
        seen: list[tuple[int, str]] = []
        for item in [each[0] for each in (*shown, *(unlike or []))]:
            assert item.image is not None
            number = int(item.image[0, 0, 0])
            truth = {o.label: o.rle for o in SAMPLES[number].objects}
            assert item.rle == truth[str(item.label)]
            seen.append((number, str(item.label)))
        self.made += seen[: len(shown)]
        self.unlike.append([label for _, label in seen[len(shown) :]])
        [label] = {label for _, label in seen[: len(shown)]}
        return self.sees.get(label, label)

    @contextmanager
    def open(self, image: np.ndarray) -> Any:
        here = {o.label: o.rle for o in SAMPLES[int(image[0, 0, 0])].objects}

        def segment(**options: Any) -> Segmentation:
            asked = options.get("text") or options["like"]
            rles = [here[asked]] if asked in here else []
            presence = {options.get("text") or "x": 0.9 if rles else 0.1}
            return Segmentation(
                SIZE, rles, scores=[0.9] * len(rles), labels=[asked] * len(rles), presence=presence
            )

        yield SimpleNamespace(size=SIZE, segment=segment)


DATA = DataSet(name="known", path=Path("known.parquet"), samples=SAMPLES, labels=LABELS)


def test_a_model_that_knows_is_right_both_ways() -> None:
    model = Knowing({})
    found = transfer.measure_set(model, DATA, absent=10, seed=0)
    for way in transfer.ways_of(1, 0):
        assert found[way]["union"] == 1
        assert found[way]["instances"]["recall"] == found[way]["instances"]["precision"] == 1
        assert found[way]["verdicts"]["absent_empty"] == 1
        # the horse has no second photo; a door that is a speck may be asked for
        assert found[way]["verdicts"]["present"] == 5
    assert found["photos"] == 4
    assert len(set(model.made)) == len(model.made)  # each example is embedded once
    assert (2, "door") not in model.made
    assert (2, "horse") in model.made  # for other photos, which lack it


def test_examples_that_mislead_are_seen_in_the_figures() -> None:
    found = transfer.measure_set(Knowing({"wheel": "door"}), DATA, absent=10, seed=0)
    name, example = (found[way] for way in found["ways"])
    assert name["union"] == 1
    assert example["union"] == pytest.approx(3 / 5)  # both wheels are lost
    assert example["instances"]["recall"] == pytest.approx(3 / 5)
    assert example["verdicts"]["absent_empty"] < 1  # "wheel" finds the door of photo 3


def test_an_example_is_of_another_photo() -> None:
    examples = Examples(Knowing({}), SAMPLES, seed=0)
    for _ in range(2):
        assert examples.concept("wheel", besides="0") == "wheel"
        assert examples.concept("horse", besides="2") is None
        assert examples.concept("horse", besides="0") == "horse"
    assert examples.concept("sail", besides="0") is None
    with pytest.raises(ValueError, match="no photo but 2"):
        examples.segment(None, text="horse", image_id="2")


def test_several_examples_and_examples_of_other_names() -> None:
    model = Knowing({})
    found = transfer.measure_set(model, DATA, absent=10, seed=0, positives=3, negatives=2)
    assert found["ways"] == ["by name", "by example", "by 3 examples", "by 3 + 2 unlike"]
    for way in found["ways"]:  # the same questions
        assert found[way]["verdicts"]["present"] == 5
    assert max(map(len, model.unlike)) == 2
    siblings = Siblings(LABELS, np.eye(3, dtype=np.float32))
    examples = Examples(model, SAMPLES, seed=0, positives=3, negatives=2, siblings=siblings)
    model.made.clear()
    examples.concept("wheel", besides="9")
    assert sorted(model.made) == [(0, "wheel"), (1, "wheel")]  # there is no third
    assert sorted(model.unlike[-1]) == ["door", "horse"]


def test_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "load_model", lambda name: Knowing({}))
    monkeypatch.setattr(command, "read_sets", lambda paths, limit: [DATA])
    report = tmp_path / "out.json"
    assert transfer.main(["known.parquet", "--json", str(report)]) == 0
    printed = capsys.readouterr().out
    assert "known, by name" in printed
    assert "known, by example" in printed
    assert report.stat().st_size > 100
    assert not math.isnan(transfer.measure_set(Knowing({}), DATA, absent=0, seed=0)["photos"])


def test_a_model_without_clip_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = Knowing({})
    bare.clip = None  # type: ignore[assignment]
    monkeypatch.setattr(command, "load_model", lambda name: bare)
    monkeypatch.setattr(command, "read_sets", lambda paths, limit: [DATA])
    assert transfer.main(["known.parquet"]) == 2
    assert "has no CLIP" in capsys.readouterr().err
