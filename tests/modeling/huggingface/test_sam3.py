"""SAM 3: its own instances and presence, its tracker as a core, one image encoder for both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.modeling.huggingface.hub_folders import write_sam3
from textsam.errors import WeightsError
from textsam.modeling.huggingface.sam3 import ConceptModel, Sam3Core, read_sam3
from textsam.modeling.mask_decoder import PromptBatch

CLOSE: dict[str, float] = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sam3(tmp_path_factory.mktemp("sam3"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> tuple[Sam3Core, ConceptModel]:
    core, concepts = read_sam3(folder, name="random-sam3")
    assert concepts is not None
    return core.eval(), concepts


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    """Detector, tracker and processor, loaded apart from ours."""
    from transformers import Sam3Model, Sam3Processor, Sam3TrackerModel

    return (
        Sam3Model.from_pretrained(folder).eval(),
        Sam3TrackerModel.from_pretrained(folder).eval(),
        Sam3Processor.from_pretrained(folder),
    )


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    """Two photos in the model frame, normalised."""
    return torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(3)) * 2 - 1


def test_preprocessing_is_the_processors(loaded, reference) -> None:
    core, _ = loaded
    *_, processor = reference
    image = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    expected = processor(images=image, text="a", return_tensors="pt").pixel_values
    ours = core.preprocess([torch.from_numpy(image).permute(2, 0, 1)])
    torch.testing.assert_close(ours, expected, **CLOSE)


@torch.no_grad()
def test_embeddings_are_the_trackers_own(loaded, reference, pixels) -> None:
    core, _ = loaded
    _, tracker, _ = reference
    features = core.encode_image(pixels)
    fine, middle, embedding = tracker.get_image_embeddings(pixels)
    torch.testing.assert_close(features.embedding, embedding, **CLOSE)
    torch.testing.assert_close(features.skips[0], middle, **CLOSE)
    torch.testing.assert_close(features.skips[1], fine, **CLOSE)


def prompts_of_two_images(masks: torch.Tensor | None) -> tuple[PromptBatch, list[dict[str, Any]]]:
    """A point, a point with a negative one, and a box; ours, and the arguments of transformers."""
    points = torch.tensor(
        [
            [[30.0, 40.0], [0, 0], [0, 0]],
            [[80.0, 20.0], [10, 100], [0, 0]],
            [[5.0, 10.0], [90, 70], [0, 0]],
        ]
    )
    labels = torch.tensor([[1, -1, -2], [1, 0, -1], [2, 3, -2]])
    ours = PromptBatch(
        points=points, labels=labels, image_index=torch.tensor([0, 1, 1]), masks=masks
    )
    theirs: list[dict[str, Any]] = [
        {"input_points": points[0, None, None, :1], "input_labels": labels[0, None, None, :1]},
        {"input_points": points[1, None, None, :2], "input_labels": labels[1, None, None, :2]},
        {"input_boxes": points[2, :2].reshape(1, 1, 4)},
    ]
    return ours, theirs


@torch.no_grad()
@pytest.mark.parametrize("with_masks", [False, True])
def test_masks_are_the_trackers_own(loaded, reference, pixels, with_masks) -> None:
    core, _ = loaded
    _, tracker, _ = reference
    masks = torch.randn(3, 1, 32, 32) if with_masks else None
    prompts, theirs = prompts_of_two_images(masks)
    found = core.decode(core.encode_image(pixels), prompts)
    assert found.logits.shape == (3, 4, 32, 32)
    for row, arguments in enumerate(theirs):
        image = pixels[prompts.image_index[row], None]
        if masks is not None:
            arguments["input_masks"] = masks[row, None]
        for many, ours in ((False, slice(0, 1)), (True, slice(1, 4))):
            own = tracker(pixel_values=image, multimask_output=many, **arguments)
            torch.testing.assert_close(found.logits[row, ours], own.pred_masks[0, 0], **CLOSE)
            torch.testing.assert_close(found.iou[row, ours], own.iou_scores[0, 0], **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("phrase", ["wheel", "a red car"])
def test_instances_are_its_own(tmp_path, pixels, seed, phrase) -> None:
    from transformers import Sam3Model, Sam3Processor

    folder = write_sam3(tmp_path, seed=seed)
    core, concepts = read_sam3(folder, name="random-sam3")
    assert concepts is not None
    model, processor = (
        Sam3Model.from_pretrained(folder).eval(),
        Sam3Processor.from_pretrained(folder),
    )
    text = processor(text=phrase, return_tensors="pt")
    out = model(pixel_values=pixels[:1], **text)
    found = concepts.find(concepts.features(core.encode_image(pixels[:1])), phrase)
    torch.testing.assert_close(found.logits, out.pred_masks[0], **CLOSE)
    assert found.presence == pytest.approx(float(out.presence_logits.sigmoid()), abs=1e-5)
    [own] = processor.post_process_instance_segmentation(out, threshold=0.0)
    torch.testing.assert_close(found.scores, own["scores"], **CLOSE)
    np.testing.assert_allclose(found.similarity, out.semantic_seg[0, 0].sigmoid(), atol=1e-4)


@torch.no_grad()
def test_examples_are_its_box_prompts(loaded, reference, pixels) -> None:
    core, concepts = loaded
    model, _, processor = reference
    boxes = [[10.0, 20.0, 60.0, 50.0], [5.0, 5.0, 30.0, 100.0]]
    inputs = processor(
        images=np.zeros((100, 200, 3), np.uint8), input_boxes=[boxes], return_tensors="pt"
    )
    inputs["pixel_values"] = pixels[:1]
    del inputs["original_sizes"]
    out = model(**inputs)
    features = concepts.features(core.encode_image(pixels[:1]))
    shares = np.array(boxes, np.float32) / np.array([200, 100, 200, 100], np.float32)
    found = concepts.find(features, boxes=shares)
    torch.testing.assert_close(found.logits, out.pred_masks[0], **CLOSE)
    assert found.presence == pytest.approx(float(out.presence_logits.sigmoid()), abs=1e-5)
    one = concepts.find(features, boxes=shares[:1])
    assert (one.logits - found.logits).abs().max() > 1e-3


def test_one_image_encoder_for_both(loaded) -> None:
    core, concepts = loaded
    ours = core.network.vision_encoder.backbone
    assert concepts.network.vision_encoder.backbone is ours


def test_a_tracker_alone(folder: Path, tmp_path: Path) -> None:
    from transformers import Sam3TrackerModel

    Sam3TrackerModel.from_pretrained(folder).save_pretrained(tmp_path)
    core, concepts = read_sam3(tmp_path, name="tracker")
    assert concepts is None
    assert core.config.image_size == 112


def test_a_detector_alone(folder: Path, tmp_path: Path) -> None:
    """It has no core for clicks, and a random one would be no help."""
    from transformers import Sam3Model

    Sam3Model.from_pretrained(folder).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"without the tracker.*sam3_video"):
        read_sam3(tmp_path, name="detector")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "timm_wrapper", "architecture": "hf-hub:a/b"}, "backbone of timm"),
        ({"patch_size": "many"}, "damaged|cannot be loaded"),
    ],
)
def test_a_config_that_does_not_fit(folder: Path, tmp_path: Path, change, message) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["tracker_config"]["vision_config"]["backbone_config"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=message):
        read_sam3(tmp_path, name="odd")


def test_missing_weights_are_an_error(folder: Path, tmp_path: Path) -> None:
    """A detector alone would get a random tracker."""
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    kept = {key: value for key, value in tensors.items() if key.startswith("detector_model")}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lacks \d+ weights of Sam3TrackerModel"):
        read_sam3(tmp_path, name="half")
