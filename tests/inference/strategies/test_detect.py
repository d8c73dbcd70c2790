"""Strategy "detect": boxes of a detector become judged masks, in one call of the decoder."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.detector_folders import FAMILIES, write_detector
from textsam import TextSAM
from textsam.errors import WeightsError
from textsam.inference.strategies import detect
from textsam.inference.strategies.answering import choose_strategy
from textsam.modeling.huggingface.detectors import Detector, DetectorPhoto
from textsam.modeling.huggingface.found_boxes import FoundBoxes
from textsam.search.data_photos import DataPhoto, ListedPhotos
from textsam.search.embed import Embedder
from textsam.search.index import MaskIndex
from textsam.search.job import EmbedSettings, embed_data_set
from textsam.values.calibration import Calibration
from textsam.values.judge import Candidate, Curve, StrategyCurves
from textsam.values.rle import decode_rle, encode_masks
from textsam.values.settings import AutomaticSettings

Photo = np.ndarray[Any, Any]


class ListedBoxes:
    """A detector that knows its boxes: (phrase, box, score) each, and counts its questions."""

    name, family, box_level, text_level = "listed", "listed", 0.35, 0.25

    def __init__(self, *items: tuple[str, Sequence[float], float]) -> None:
        self.items = items
        self.asked: list[tuple[str, ...]] = []

    def read(self, image: Photo) -> DetectorPhoto:
        return DetectorPhoto(size=image.shape[:2], inputs={})

    def find(self, photo: DetectorPhoto, phrases: Sequence[str]) -> FoundBoxes:
        self.asked.append(tuple(phrases))
        items = sorted((i for i in self.items if i[0] in phrases), key=lambda item: -item[2])
        text = np.zeros((len(items), len(phrases)), np.float32)
        for row, (phrase, _, score) in enumerate(items):
            text[row, list(phrases).index(phrase)] = score
        return FoundBoxes(
            boxes=np.array([box for _, box, _ in items], np.float32).reshape(-1, 4),
            scores=text.max(1, initial=0),
            text_scores=text,
            own=text > 0,
        )

    def find_many(
        self, photos: Sequence[DetectorPhoto], phrases: Sequence[str]
    ) -> list[FoundBoxes]:
        return [self.find(photo, phrases) for photo in photos]


def grid(phrase: str, score: float, *, count: int = 12) -> list[tuple[str, list[float], float]]:
    """Boxes side by side, of falling score."""
    places = [(15 * (i % 6), 25 * (i // 6)) for i in range(count)]
    return [(phrase, [x, y, x + 14, y + 24], score - 0.01 * i) for i, (x, y) in enumerate(places)]


@pytest.fixture
def listed(handless_model: TextSAM) -> Any:
    """A model without CLIP whose detector is given by its boxes."""

    def build(*items: tuple[str, Sequence[float], float]) -> TextSAM:
        return TextSAM(handless_model.sam, detector=ListedBoxes(*items), name="listed")  # type: ignore[arg-type]

    return build


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("detectors")
    return {family: write_detector(root / family, family) for family in FAMILIES}


def count_calls(monkeypatch: pytest.MonkeyPatch, target: Any, name: str) -> list[int]:
    """How many prompts each later call of a method brings."""
    calls: list[int] = []
    own = getattr(target, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(len(args[-1].points) if name == "decode_prepared" else 1)
        return own(*args, **kwargs)

    monkeypatch.setattr(target, name, counted)
    return calls


def test_twelve_boxes_cost_one_call_of_the_decoder(
    listed: Any, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = listed(*grid("wheel", 0.9, count=8), *grid("door", 0.8, count=4))
    view = model.open(photo)
    decoded = count_calls(monkeypatch, model.sam, "decode_prepared")
    encoded = count_calls(monkeypatch, model.sam, "encode_image")
    result = view.segment(text=["wheel", "door"])
    assert decoded == [12]
    assert {item.label for item in result} <= {"wheel", "door"}
    view.segment(text="door")
    assert decoded == [12, 4]
    assert not encoded  # a second phrase asks the photo as it was encoded


def test_masks_are_those_of_the_boxes_one_by_one(listed: Any, photo: Photo) -> None:
    items = grid("wheel", 0.9, count=6)
    view = listed(*items).open(photo)
    [answer] = view.segment(text="wheel").answers
    assert answer.strategy == "detect"
    assert len(answer.candidates) == 6
    by_score = {round(item.score, 2): item for item in answer.candidates}
    for _, box, score in items:
        alone = view.predict(box=box)
        own = by_score[round(score, 2)]
        assert own.iou == pytest.approx(alone.iou[0], abs=1e-5)
        assert (decode_rle(own.rle) == (alone.logits[0] > 0)).all()


def test_levels_are_the_detectors_and_the_threshold_takes_their_place(
    listed: Any, photo: Photo
) -> None:
    boxes = [[0, 0, 30, 50], [40, 0, 60, 50], [70, 0, 90, 50]]
    strong = [("wheel", box, score) for box, score in zip(boxes, (0.6, 0.3, 0.2), strict=True)]
    weak = [("door", boxes[0], 0.3)]
    view = listed(*strong, *weak).open(photo)
    answers = {item.phrase: item for item in view.segment(text=["wheel", "door"]).answers}
    wheel, door = answers["wheel"], answers["door"]
    assert (wheel.levels.presence, wheel.levels.score) == (0.35, 0.25)
    assert [item.gate for item in wheel.candidates if item.gate != "duplicate"][-1] == "score"
    assert door.gate == "presence"
    assert door.presence == pytest.approx(0.3, abs=1e-5)
    loose = view.segment(text=["wheel", "door"], threshold=0.1)
    assert {item.phrase for item in loose.answers if item.gate is None} == {"wheel", "door"}
    text = str(view.explain("door"))
    assert "presence 0.30 < 0.35" in text
    assert "threshold=0.3" in text  # what to type to get it


def test_a_box_that_an_excluded_phrase_fits_better_is_dropped(
    listed: Any, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detect, "_decode", filled_boxes)
    near, far = [10, 5, 40, 45], [60, 5, 85, 45]
    items = [("wheel", near, 0.5), ("wheel", far, 0.45), ("steering wheel", near, 0.8)]
    view = listed(*items).open(photo)
    assert len(view.segment(text="wheel").answers[0].candidates) == 2
    for keyword, gate in (("exclude", "exclusion"), ("background", "background")):
        [answer] = view.segment(text="wheel", **{keyword: "steering wheel"}).answers
        gates = {round(item.score, 2): item.gate for item in answer.candidates}
        assert gates == {0.5: gate, 0.45: None}
    [answer] = view.segment(text="wheel", exclude="door").answers
    assert len(answer.candidates) == 2
    assert answer.candidates[0].gate is None
    assert "exclusion" not in {item.gate for item in answer.candidates}


def filled_boxes(photo: Any, boxes: Photo) -> list[Candidate]:
    """Boxes as masks, in place of the decoder's."""
    masks = np.zeros((len(boxes), *photo.size), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.astype(int), strict=True):
        mask[y0:y1, x0:x1] = True
    return [Candidate(rle=rle, iou=0.9, stability=0.9) for rle in encode_masks(masks)]


def test_the_pixels_of_an_excluded_part_are_cut(
    listed: Any, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detect, "_decode", filled_boxes)
    items = [("bus", [10, 5, 80, 45], 0.6), ("wheel", [20, 30, 30, 40], 0.8)]
    view = listed(*items, ("window", [40, 10, 50, 20], 0.5)).open(photo)
    whole = view.segment(text="bus")[0].area
    assert whole == 70 * 40
    for keyword in ("exclude", "background"):
        cut = view.segment(text="bus", **{keyword: "wheel"})
        assert cut[0].area == whole - 100
        assert not cut.mask[35, 25]
    # A part that fits its phrase less well than the whole does is no rival.
    assert view.segment(text="bus", exclude="window")[0].area == whole


def test_phrases_share_pixels_or_do_not(listed: Any, photo: Photo) -> None:
    box = [10, 5, 60, 45]
    view = listed(("car", box, 0.9), ("van", box, 0.5)).open(photo)
    both = view.segment(text=["car", "van"])
    assert sorted(item.label for item in both) == ["car", "van"]
    exclusive = view.segment(text=["car", "van"], overlap="exclusive")
    assert [item.label for item in exclusive] == ["car"]
    assert exclusive.answers[1].gate == "overlap"


def test_a_phrase_whose_boxes_are_all_anothers(listed: Any, photo: Photo) -> None:
    model = listed(("cat", [10, 5, 60, 45], 0.9))
    own = model.detector.find

    def likened(photo: DetectorPhoto, phrases: Sequence[str]) -> FoundBoxes:
        found = own(photo, phrases)
        text = found.text_scores.copy()
        text[:, 1] = 0.5  # the cat is a dog, too, but rather a cat
        return replace(found, text_scores=text)

    model.detector.find = likened
    answers = model.open(photo).segment(text=["cat", "dog"]).answers
    assert [item.gate for item in answers] == [None, "overlap"]
    assert "another phrase fits the box better, 0.90 > 0.50" in answers[1].candidates[0].reason


def test_nothing_found_is_an_absent_phrase(listed: Any, photo: Photo) -> None:
    [answer] = listed().open(photo).segment(text="wheel").answers
    assert answer.gate == "presence"
    assert answer.presence < 1e-5
    explained = listed().open(photo).explain("wheel")
    assert "nothing" in str(explained)


def test_a_calibration_takes_the_place_of_the_scores(listed: Any, photo: Photo) -> None:
    curves = StrategyCurves(
        presence=Curve(weights={"box": 0.0}, bias=2.0),
        score=Curve(weights={"text": 2.0}, bias=0.0),
        min_presence=0.1,
        min_score=0.4,
    )
    model = listed(("wheel", [10, 5, 60, 45], 0.6))
    model.calibration = Calibration(strategies={"detect": curves})
    [answer] = model.open(photo).segment(text="wheel").answers
    odds = 0.6 / 0.4
    assert answer.presence == pytest.approx(1 / (1 + np.exp(-2)))
    assert answer.candidates[0].score == pytest.approx(odds**2 / (1 + odds**2), abs=1e-5)


def test_a_click_corrects_the_instance_and_keeps_the_phrase(listed: Any, photo: Photo) -> None:
    view = listed(*grid("wheel", 0.9, count=3)).open(photo)
    result = view.segment(text="wheel")
    mask = result.masks[0]
    row, column = np.argwhere(mask)[len(np.argwhere(mask)) // 2]
    clicked = view.click(float(column) + 0.5, float(row) + 0.5)
    assert [item.label for item in clicked] == ["wheel"]
    assert len(view.undo()) == len(result)
    with pytest.raises(
        WeightsError, match="answers phrases on their own"
    ):  # one object is no box's business
        view.segment(text="wheel", points=[(3, 3)])


def test_tiles_and_label_maps(listed: Any, photo: Photo) -> None:
    model = listed(("wheel", [4, 4, 40, 40], 0.9))
    tiled = model.open_tiled(photo, tile=64, overlap=16)
    assert len(tiled.windows) > 1
    result = tiled.segment(text="wheel")
    assert len(result)
    assert result.answers[0].strategy == "detect"
    labels = model.label_map(photo, ["door", "wheel"])
    assert set(np.unique(labels.labels)) == {0, 2}


def test_a_list_of_photos_is_asked_together(
    listed: Any, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = listed(("wheel", [4, 4, 40, 40], 0.9))
    batches = []
    own = model.detector.find_many
    model.detector.find_many = lambda photos, phrases: (
        batches.append(len(photos)) or own(photos, phrases)
    )
    results = model.segment([photo.copy() for _ in range(10)], text="wheel", exclude="door")
    assert batches == [8, 2]
    batches.clear()
    model.segment([photo] * 10, text="wheel", exclude="door")
    assert batches == [1]  # one photo, ten times
    [alone] = [model.segment(photo, text="wheel", exclude="door")]
    assert [list(item.rles) for item in results] == [list(alone.rles)] * 10


def test_who_answers_by_default(
    model: TextSAM, token_model: TextSAM, handless_model: TextSAM, listed: Any
) -> None:
    assert choose_strategy(model.parts).strategy == "auto"
    assert choose_strategy(token_model.parts).strategy == "rank"
    detector: Any = ListedBoxes()
    for own, expected in ((model, "auto"), (token_model, "detect"), (handless_model, "detect")):
        choice = choose_strategy(replace(own.parts, detector=detector))
        assert choice.strategy == expected
        assert choice.reason
    with pytest.raises(WeightsError, match=r"no detector.*detector="):
        model.segment(np.zeros((8, 8, 3), np.uint8), text="wheel", strategy="detect")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_run_by_folder(
    folders: dict[str, Path],
    family: str,
    handless_model: TextSAM,
    photo: Photo,
    tmp_path: Path,
) -> None:
    """Load, ask, explain, exclude, click, everything, search, save and load again, offline."""
    core = handless_model.save_pretrained(tmp_path / "core")
    model = TextSAM.from_pretrained(core, detector=folders[family])
    assert isinstance(model.detector, Detector)
    assert family.split("-")[-1] in repr(model)
    view = model.open(photo)
    result = view.segment(text=["Front door", "cat"], threshold=0.01)
    assert len(result)
    assert {item.label for item in result} <= {"Front door", "cat"}
    assert str(view.explain("Front door", exclude="cat", threshold=0.01))
    view.segment(text="Front door", threshold=0.01)
    assert len(view.click(45, 25)) <= 1
    stream = io.BytesIO()
    Image.fromarray(photo).save(stream, "PNG")
    photos = ListedPhotos([DataPhoto(dataset="noise", image="one", encoded=stream.getvalue())])
    embedder = Embedder(model, latents="photo")
    index = MaskIndex.open("memory://", model=embedder)
    everything = AutomaticSettings(
        points_per_side=3, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1
    )
    settings = EmbedSettings(automatic=everything)
    assert embed_data_set(embedder, photos, index, settings=settings).masks == len(index) > 0
    assert index.search(like=result[0], space="sam", k=1)[0].image == "one"
    again = TextSAM.from_pretrained(model.to("cpu").save_pretrained(tmp_path / "saved"))
    same = again.open(photo).segment(text=["Front door", "cat"], threshold=0.01)
    assert list(same.rles) == list(result.rles)
    np.testing.assert_allclose(same.scores, result.scores, atol=1e-6)


def test_an_explanation_says_who_answered_and_why(listed: Any, photo: Photo) -> None:
    view = listed(("wheel", [4, 4, 40, 40], 0.9)).open(photo)
    explanation = view.explain("wheel")
    assert 'strategy "auto" is "detect" here: it has a detector' in str(explanation)
    assert explanation.to_dict()["phrases"][0]["chosen"].startswith("it has a detector")
    assert "here:" not in str(view.explain("wheel", strategy="detect"))


def test_the_command_line_takes_a_detector(
    handless_model: TextSAM, folders: dict[str, Path], tmp_path: Path
) -> None:
    from typer.testing import CliRunner

    from textsam.cli.app import app

    core = handless_model.save_pretrained(tmp_path / "core")
    pixels = np.random.default_rng(5).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    options = ["-m", str(core), "--detector", str(folders["owlv2"])]
    words = ["segment", str(tmp_path / "photo.png"), "-t", "wheel", "--json", *options]
    output = CliRunner().invoke(app, words)
    assert output.exit_code == 0, output.output
    assert '"labels"' in output.stdout or '"wheel"' in output.stdout
    model = TextSAM.from_pretrained(core, detector=folders["owlv2"])
    saved = model.save_pretrained(tmp_path / "saved")
    for folder, strategy in ((core, "strategy rank"), (saved, "strategy detect")):
        shown = CliRunner().invoke(app, ["info", str(folder)])
        assert strategy in shown.stdout
