"""Detectors of every family: the processor's own boxes, scores and labels, phrases as typed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.detector_folders import FAMILIES, write_detector
from textsam.errors import PromptError, WeightsError
from textsam.modeling.huggingface.detectors import Detector
from textsam.modeling.huggingface.found_boxes import FoundBoxes, box_iou, join_groups

PHRASES = ["Front door", "cat", "Wheel"]
# Random logits are small for some families and huge for others.
THRESHOLD = {"mm-grounding-dino": 0.02}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each family."""
    root = tmp_path_factory.mktemp("detectors")
    return {family: write_detector(root / family, family) for family in FAMILIES}


@pytest.fixture(scope="module")
def detectors(folders: dict[str, Path]) -> dict[str, Detector]:
    return {family: Detector.from_pretrained(folder) for family, folder in folders.items()}


def photo(seed: int = 0, size: tuple[int, int] = (50, 90)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def own_results(detector: Detector, image: np.ndarray, phrases: list[str], threshold: float):
    """What the model's own processor says, the way its documentation shows."""
    from transformers import AutoModelForZeroShotObjectDetection

    model = AutoModelForZeroShotObjectDetection.from_pretrained(detector.name).eval()
    processor, options = detector.processor, {}
    text = phrases
    if detector.family.startswith("owl"):
        text = [[f"a photo of a {phrase}" for phrase in phrases]]
    elif "grounding" in detector.family:
        text = [phrases]
    inputs = processor(images=image, text=text, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    if "grounding" in detector.family:
        # Nothing of the text is dropped, so that a label is the whole text of a box's best tokens.
        options["text_threshold"] = 0.0
    sizes = [image.shape[:2]]
    [result] = processor.post_process_grounded_object_detection(
        outputs, threshold=threshold, target_sizes=sizes, **options
    )
    return result, outputs, inputs


@pytest.mark.parametrize("family", FAMILIES)
def test_boxes_scores_and_labels_are_the_processors(
    detectors: dict[str, Detector], family: str
) -> None:
    detector, image = detectors[family], photo()
    threshold = THRESHOLD.get(family, 0.3)
    result, outputs, inputs = own_results(detector, image, PHRASES, threshold)
    found = detector.find(detector.read(image), PHRASES)
    kept = found.scores > threshold
    order = result["scores"].argsort(descending=True, stable=True)
    assert kept.sum() == len(order) > 0
    np.testing.assert_allclose(found.scores[kept], result["scores"][order], atol=1e-4)
    expected = result["boxes"][order].numpy()
    expected[:, 0::2] = expected[:, 0::2].clip(0, 90)
    expected[:, 1::2] = expected[:, 1::2].clip(0, 50)
    np.testing.assert_allclose(found.boxes[kept], expected, atol=1e-2)
    if "grounding" not in family:
        assert (found.own[kept].argmax(1) == result["labels"][order].numpy()).all()
        return
    # Its labels are the text of all tokens above a level; at the level of a box's best token they
    # are that token, which must be one of the phrase that the box belongs to.
    [probabilities], [ids] = outputs.logits.sigmoid(), inputs["input_ids"]
    text = detector.processor.tokenizer.convert_ids_to_tokens(ids)
    stops = [place for place, token in enumerate(text) if token == "."]
    rows = (probabilities.amax(1) > threshold).nonzero()[:, 0][order]
    for place, row in enumerate(rows.tolist()):
        best = [
            float(probabilities[row, start + 1 : stop].max())
            for start, stop in zip([0, *stops], stops, strict=False)
        ]
        assert found.own[place].tolist() == [score == max(best) for score in best]
        np.testing.assert_allclose(found.text_scores[place], best, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_photo_gives_alone_is_computed_once(
    detectors: dict[str, Detector], family: str
) -> None:
    detector, opened = detectors[family], detectors[family].read(photo())
    backbone = {
        "owlv2": "owlv2.vision_model.encoder",
        "owlvit": "owlvit.vision_model.encoder",
        "omdet-turbo": "vision_backbone.vision_backbone",
    }.get(family, "model.backbone.conv_encoder")
    runs: list[int] = []
    tower = detector.model.get_submodule(backbone)
    hook = tower.register_forward_hook(lambda *_: runs.append(1))
    try:
        first = detector.find(opened, ["cat"])
        second = detector.find(opened, ["dog"])
        assert len(runs) == 1
        fresh = detector.find(detector.read(photo()), ["dog"])
        assert len(runs) == 2
    finally:
        hook.remove()
    np.testing.assert_allclose(second.boxes, fresh.boxes, atol=1e-4)
    np.testing.assert_allclose(second.text_scores, fresh.text_scores, atol=1e-5)
    assert not np.allclose(first.text_scores, second.text_scores)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_of_photos_gives_what_one_at_a_time_gives(
    detectors: dict[str, Detector], family: str
) -> None:
    detector = detectors[family]
    images = [photo(1), photo(2), photo(3, size=(80, 40)), photo(4)]
    opened = [detector.read(image) for image in images]
    many = detector.find_many(opened, PHRASES)
    for item, image, own in zip(many, images, opened, strict=True):
        alone = detector.find(detector.read(image), PHRASES)
        np.testing.assert_allclose(item.boxes, alone.boxes, atol=1e-3)
        np.testing.assert_allclose(item.text_scores, alone.text_scores, atol=1e-4)
        assert detector.find(own, PHRASES) is item  # the open photo has the answer already


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_detector_is_the_same(
    detectors: dict[str, Detector], family: str, tmp_path: Path
) -> None:
    detector = detectors[family]
    again = Detector.from_pretrained(detector.save(tmp_path))
    assert (again.name, again.family) == (str(tmp_path), family)
    one, other = (item.find(item.read(photo()), PHRASES) for item in (detector, again))
    np.testing.assert_array_equal(one.boxes, other.boxes)
    np.testing.assert_array_equal(one.text_scores, other.text_scores)


@pytest.mark.parametrize("family", FAMILIES)
def test_phrases_keep_their_places_however_they_are_typed(
    detectors: dict[str, Detector], family: str
) -> None:
    detector, opened = detectors[family], detectors[family].read(photo())
    found = detector.find(opened, ["Cat", "st. bernard?", "cat"])
    assert found.text_scores.shape == found.own.shape == (len(found), 3)
    if "grounding" in family:  # lower case is one prompt, and the answer to both
        assert (found.text_scores[:, 0] == found.text_scores[:, 2]).all()
        assert (found.own[:, 0] == found.own[:, 2]).all()
        plain = detector.find(detector.read(photo()), ["cat", "st bernard"])
        np.testing.assert_array_equal(found.text_scores[:, :2], plain.text_scores)


@pytest.mark.parametrize("family", ["grounding-dino", "omdet-turbo"])
def test_a_long_list_is_asked_in_runs_that_fit(detectors: dict[str, Detector], family: str) -> None:
    detector, opened = detectors[family], detectors[family].read(photo())
    names = [f"thing number {chr(97 + i)}" for i in range(12)]
    runs: list[int] = []
    hook = detector.model.register_forward_hook(lambda *_: runs.append(1))
    try:
        found = detector.find(opened, names)
    finally:
        hook.remove()
    assert len(runs) > 1
    assert found.own.shape[1] == 12
    assert (np.diff(found.scores) <= 0).all()
    # Of two boxes of two runs at one place, only the better one is anybody's.
    run_of = np.where(found.text_scores > 0, np.arange(12), 99).min(1)
    owned = found.own.any(1)
    same = box_iou(found.boxes, found.boxes) > 0.8
    pairs = same & owned[:, None] & owned[None] & (run_of[:, None] != run_of[None])
    assert not pairs.any()


def test_phrases_that_cannot_be_read_are_refused(detectors: dict[str, Detector]) -> None:
    dino = detectors["grounding-dino"]
    with pytest.raises(PromptError, match="no letter or digit"):
        dino.find(dino.read(photo()), ["..."])
    for family in ("grounding-dino", "owlv2", "omdet-turbo"):
        detector = detectors[family]
        with pytest.raises(PromptError, match="tokens; the detector reads"):
            detector.find(detector.read(photo()), ["cat", "very " * 40 + "long"])


def test_owl_has_room_for_the_template_or_does_without(detectors: dict[str, Detector]) -> None:
    rules = detectors["owlv2"]._rules
    assert rules.prompt("  red   car ") == "a photo of a red car"
    assert rules.prompt("The red car") == "a photo of The red car"
    assert rules.prompt("a photo of cats") == "a photo of cats"
    assert rules.prompt("a" * 25) == "a" * 25


def test_folders_that_are_no_detectors(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not a zero-shot detector"):
        Detector.from_pretrained(tmp_path)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in folders["owlvit"].iterdir():
        content = file.read_bytes()
        if file.suffix == ".safetensors":
            content = content[: len(content) // 2]
        (damaged / file.name).write_bytes(content)
    with pytest.raises(WeightsError, match="not a zero-shot detector"):
        Detector.from_pretrained(damaged)


def test_weights_that_are_missing_are_named(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in folders["owlvit"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["box_head.dense0.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lacks 1 weights .*box_head\.dense0\.weight"):
        Detector.from_pretrained(tmp_path)


def test_boxes_of_two_runs_at_one_place() -> None:
    """The dog is found by both runs, the cat by one."""

    def group(box: list[float], score: float) -> FoundBoxes:
        return FoundBoxes(
            boxes=np.array([box], np.float32),
            scores=np.array([score], np.float32),
            text_scores=np.array([[score]], np.float32),
            own=np.array([[True]]),
        )

    joined = join_groups([group([0, 0, 10, 10], 0.4), group([0, 0, 10, 9.5], 0.9)])
    assert joined.own.tolist() == [[False, True], [False, False]]
    joined = join_groups([group([0, 0, 10, 10], 0.4), group([5, 0, 15, 10], 0.9)])
    assert joined.own.tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_stays_near(folders: dict[str, Path], family: str) -> None:
    detector = Detector.from_pretrained(folders[family])
    exact = detector.find(detector.read(photo()), PHRASES)
    near = detector.to(torch.bfloat16).find(detector.read(photo()), PHRASES)
    assert near.scores.dtype == np.float32
    np.testing.assert_allclose(np.sort(near.scores), np.sort(exact.scores), atol=0.05)
