"""`strategy="concept"`: a SAM 3 of random weights behind the same calls as every model."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.inference.conftest import build_model
from tests.modeling.huggingface.hub_folders import write_sam3
from textsam.errors import PromptError, WeightsError
from textsam.inference.model import TextSAM
from textsam.inference.strategies.competition import against_rivals
from textsam.results.segmentation import Segmentation
from textsam.search.data_photos import DataPhoto, ListedPhotos
from textsam.search.embed import Embedder
from textsam.search.index import MaskIndex
from textsam.search.job import EmbedSettings, embed_data_set
from textsam.values.images import resize_image
from textsam.values.judge import Candidate
from textsam.values.rle import decode_rle, encode_mask
from textsam.values.settings import AutomaticSettings

LOW = 0.05  # random scores lie about 0.25


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sam3(tmp_path_factory.mktemp("sam3"))


@pytest.fixture(scope="module")
def model(folder: Path) -> TextSAM:
    return TextSAM.from_pretrained(folder, local_files_only=True)


@pytest.mark.parametrize("threshold", [LOW, 0.2499])
def test_instances_are_its_own_post_processing(model: TextSAM, folder, photo, threshold) -> None:
    from transformers import Sam3Model, Sam3Processor

    view = model.open(photo)
    result = view.segment(text="wheel", threshold=threshold)
    processor = Sam3Processor.from_pretrained(folder)
    pixels = model.sam.preprocess(
        [torch.from_numpy(resize_image(photo, view.frame.resized)).permute(2, 0, 1)]
    )
    with torch.no_grad():
        out = Sam3Model.from_pretrained(folder).eval()(
            pixel_values=pixels, **processor(text="wheel", return_tensors="pt")
        )
    [own] = processor.post_process_instance_segmentation(
        out, threshold=threshold, target_sizes=[photo.shape[:2]]
    )
    order = own["scores"].argsort(descending=True, stable=True)
    order = [k for k in order.tolist() if own["masks"][k].any()]
    assert len(result) == len(order) > 0
    np.testing.assert_allclose(result.scores, own["scores"][order], atol=1e-4)
    wrong = result.masks != own["masks"][order].bool().numpy()
    assert wrong.mean() < 1e-3  # a pixel at the very edge may round to the other side
    [answer] = result.answers
    assert answer.strategy == "concept"
    assert answer.presence == pytest.approx(float(out.presence_logits.sigmoid()), abs=1e-4)


def test_the_photo_is_encoded_once(model: TextSAM, photo, monkeypatch) -> None:
    calls: list[str] = []
    concepts = model.concept_model
    assert concepts is not None
    for name, part in (
        ("backbone", concepts.network.vision_encoder.backbone),
        ("neck", concepts.network.vision_encoder.neck),
        ("decoder", concepts.network.detr_decoder),
    ):
        run = part.forward
        monkeypatch.setattr(
            part, "forward", lambda *a, name=name, run=run, **k: calls.append(name) or run(*a, **k)
        )
    view = model.open(photo)
    view.segment(text="wheel", threshold=LOW)
    assert calls == ["backbone", "neck", "decoder"]
    calls.clear()
    view.segment(text=["car", "sky"], threshold=LOW)
    view.click(20, 20)
    assert calls == ["decoder", "decoder"]


def test_from_text_to_click_to_file(model: TextSAM, photo, tmp_path) -> None:
    view = model.open(photo)
    result = view.segment(text="wheel", threshold=LOW)
    assert set(result.labels) == {"wheel"}
    assert all(item.low_res.shape == (32, 32) for item in view.dialogue.steps[-1].instances)
    corrected = view.click(45, 25)
    assert len(corrected) <= 1
    assert len(view.undo()) == len(result)
    assert view.segment(points=[(20, 20)]).labels == [None] * len(view.dialogue.result)
    assert len(view.segment(box=(5, 5, 60, 40))) <= 1
    result.save(tmp_path / "result.json")
    again = Segmentation.load(tmp_path / "result.json")
    np.testing.assert_array_equal(again.masks, result.masks)
    explanation = view.explain("wheel", threshold=0.9)
    assert explanation.gate("wheel") == "presence"
    assert any(row.mask for row in explanation.table())
    assert explanation.picture().width > 100


def test_default_levels_and_a_calibration_of_its_own(model: TextSAM, photo) -> None:
    [answer] = model.segment(photo, text="wheel").answers
    assert (answer.levels.presence, answer.levels.score) == (0.5, 0.5)
    assert set(answer.evidence) == {"presence"}
    assert answer.similarity.shape == (32, 32)


def test_a_threshold_drops_what_its_own_would(model: TextSAM, photo) -> None:
    """Judging again at another threshold gives what asking again would give."""
    view = model.open(photo)
    explanation = view.explain("wheel", threshold=LOW)
    for threshold in (0.2, 0.25, 0.3):
        [step] = explanation.sweep([threshold])
        assert step.masks == len(view.segment(text="wheel", threshold=threshold))


def test_excluded_and_background_phrases_win_masks(model: TextSAM, photo) -> None:
    """Random weights hardly tell letters apart, so each finds the masks of the others."""
    view = model.open(photo)
    found = view.segment(text="a", threshold=LOW)
    rivaled = view.segment(text="a", exclude=["b", "c"], background="d", threshold=LOW)
    gates = {item.gate for item in rivaled.answers[0].candidates}
    assert gates & {"exclusion", "background"}
    assert len(rivaled) < len(found)


def test_examples_in_the_photo_are_box_prompts(model: TextSAM, photo, monkeypatch) -> None:
    concepts, boxes = model.concept_model, []
    assert concepts is not None
    find = concepts.find
    monkeypatch.setattr(
        concepts, "find", lambda *a, **k: boxes.append(k.get("boxes")) or find(*a, **k)
    )
    view = model.open(photo)
    mask = np.zeros(photo.shape[:2], bool)
    mask[10:30, 20:65] = True
    example = Segmentation(photo.shape[:2], [encode_mask(mask)], image=view.image)
    result = view.segment(like=example, threshold=LOW)
    [given] = boxes
    np.testing.assert_allclose(given, [[20 / 90, 10 / 50, 65 / 90, 30 / 50]], rtol=1e-6)
    assert result.answers[0].strategy == "concept"
    assert result.answers[0].phrase == "like this"
    # Of another photo only the looks are known.
    elsewhere = Segmentation(photo.shape[:2], [encode_mask(mask)], image=photo.copy())
    assert view.segment(like=elsewhere).answers[0].strategy == "like"
    assert len(boxes) == 1


def test_everything_label_map_and_tiles(model: TextSAM) -> None:
    photo = np.random.default_rng(5).integers(0, 256, (90, 200, 3), dtype=np.uint8)
    view = model.open(photo)
    assert isinstance(view.everything(), Segmentation)
    labels = view.label_map(["wheel", "car"], threshold=LOW)
    assert labels.labels.any()
    tiled = model.open_tiled(photo, tile=100, overlap=20)
    result = tiled.segment(text="wheel", threshold=LOW)
    assert {answer.strategy for answer in result.answers} == {"concept"}
    exclusive = view.segment(text=["wheel", "car"], threshold=LOW, overlap="exclusive")
    assert exclusive.masks.sum(0).max() == 1


def test_masks_are_embedded_by_its_encoder(model: TextSAM, photo) -> None:
    view = model.open(photo)
    masks = view.segment(text="wheel", threshold=LOW)[:2]
    embedder = Embedder(model, latents="photo")
    vectors = embedder.masks(view.photo, masks).vectors["sam"]
    assert vectors.shape == (2, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    stream = io.BytesIO()
    Image.fromarray(photo).save(stream, "PNG")
    index = MaskIndex.open("memory://", model=embedder)
    photos = [DataPhoto(dataset="noise", image="one", encoded=stream.getvalue())]
    loose = AutomaticSettings(
        points_per_side=3, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1
    )
    settings = EmbedSettings(batch=2, automatic=loose)
    report = embed_data_set(embedder, ListedPhotos(photos), index, settings=settings)
    assert report.masks == len(index) > 0
    assert index.search(like=masks[0], space="sam", k=1)[0].image == "one"


def test_it_is_not_written_again(model: TextSAM, tmp_path) -> None:
    with pytest.raises(WeightsError, match="copy its folder"):
        model.save_pretrained(tmp_path / "sam3")
    assert not (tmp_path / "sam3").exists()


def test_other_models_say_what_they_lack(photo) -> None:
    with pytest.raises(WeightsError, match=r"no concept model.*facebook/sam3"):
        build_model(text=False).segment(photo, text="wheel", strategy="concept")


def test_queries_it_refuses(model: TextSAM, photo) -> None:
    with pytest.raises(PromptError, match="no pixel would be left"):
        model.segment(photo, text="wheel", exclude="wheel")
    with pytest.raises(WeightsError, match="has no CLIP"):
        model.segment(photo, text="wheel", strategy="rank")


def rectangle(x0: int, y0: int, x1: int, y1: int, score: float) -> Candidate:
    mask = np.zeros((40, 40), bool)
    mask[y0:y1, x0:x1] = True
    return Candidate(rle=encode_mask(mask), score=score, low_res=np.zeros((4, 4), np.float16))


def test_rivals_take_the_same_object_and_parts_inside() -> None:
    person = rectangle(0, 0, 18, 40, 0.6)
    hat, crowd = rectangle(5, 0, 15, 6, 0.9), rectangle(0, 0, 40, 40, 0.9)
    same = rectangle(0, 2, 18, 40, 0.7)
    [left] = against_rivals([person], [("exclusion", hat)])
    assert left.rival is None
    assert left.low_res is None
    assert decode_rle(left.rle).sum() == 18 * 40 - 10 * 6
    [alone] = against_rivals([person], [("background", crowd)])
    assert alone == person  # it lies in the crowd and is no part of it taken away
    [dropped] = against_rivals([person], [("exclusion", hat), ("exclusion", same)])
    gate, own, other = dropped.rival
    assert (gate, own < other) == ("exclusion", True)
    [kept] = against_rivals([person], [("exclusion", replace(hat, score=0.1))])
    assert kept == person
