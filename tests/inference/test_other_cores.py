"""SAM-HQ, SAM 2.1 and EdgeTAM from folders in hub layout, through everything that a core is for."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from textsam.cli.app import app
from textsam.errors import WeightsError
from textsam.inference.model import TextSAM
from textsam.inference.photo.encoded import encode_photo
from textsam.modeling.config import SamConfig, ViTConfig
from textsam.modeling.huggingface.cores import HuggingFaceCore
from textsam.modeling.sam import Sam
from textsam.search.data_photos import DataPhoto, ListedPhotos
from textsam.search.embed import Embedder
from textsam.search.index import MaskIndex
from textsam.search.job import EmbedSettings, embed_data_set
from textsam.tasks.edges import edges
from textsam.tasks.instances import instances
from textsam.tasks.proposals import proposals
from textsam.tasks.refinement import refine
from textsam.values.settings import AutomaticSettings, FocusSettings
from textsam.weights.convert import write_huggingface

from ..modeling.hub_cores import SIDE, write_core
from .conftest import build_clip

Photo = NDArray[np.uint8]
KINDS = ("sam_hq", "sam2", "edgetam")
# Few points, and nothing dropped: a random model's masks are worth nothing.
GRID = AutomaticSettings(
    points_per_side=2, pred_iou_thresh=-1e9, stability_score_thresh=0.0, box_nms_thresh=1.0
)
HQ = SamConfig(
    encoder=ViTConfig(width=24, depth=2, heads=2, global_attention_indexes=(1,)),
    image_size=SIDE,
    embed_dim=32,
    decoder_heads=4,
    decoder_mlp=48,
    iou_hidden=24,
    hq=True,
)


def write_folder(kind: str, folder: Path) -> Path:
    if kind == "sam_hq":
        torch.manual_seed(2)
        write_huggingface(folder, HQ, Sam(HQ).state_dict())
    else:
        write_core(kind, folder)
    return folder


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def core_model(folder: Path) -> TextSAM:
    return TextSAM.from_pretrained(folder, local_files_only=True)


@pytest.fixture(scope="module")
def clip_model(core_model: TextSAM) -> TextSAM:
    return TextSAM(core_model.sam, clip=build_clip(), name=core_model.name)


def test_points_boxes_and_masks(core_model: TextSAM, photo: Photo) -> None:
    view = core_model.open(photo)
    mask = np.zeros((50, 90), np.bool_)
    mask[10:30, 20:60] = True
    for prompt in (
        {"points": (40, 20)},
        {"points": [(40, 20), (10, 40), (70, 9)], "labels": [1, 0, 1]},
        {"box": (10, 5, 70, 40)},
        {"mask": mask},
        {"points": (40, 20), "box": (10, 5, 70, 40), "mask": mask},
    ):
        found = view.predict(**prompt)  # type: ignore[arg-type]
        assert found.logits.shape == (4, 50, 90) and np.isfinite(found.logits).all()
        assert found.logits.std() > 0
        assert view.segment(**prompt).size == (50, 90)  # type: ignore[arg-type]
    # One decoder call per photo equals a call per box.
    boxes = np.array([(10, 5, 70, 40), (0, 0, 20, 30), (30, 20, 90, 50)], np.float32)
    together = instances(view, boxes, refine=False)
    for number, box in enumerate(boxes):
        one = view.predict(box=box).logits[0] > 0
        assert (together.masks[number] != one).mean() < 1e-2


def test_clicks_and_undo(core_model: TextSAM, photo: Photo) -> None:
    view = core_model.open(photo)
    first = view.click(40, 20)
    second = view.click(60, 30, foreground=False)
    assert first.size == second.size == (50, 90)
    undone = view.undo()
    assert [m.tobytes() for m in undone.masks] == [m.tobytes() for m in first.masks]
    redone = view.redo()
    assert [m.tobytes() for m in redone.masks] == [m.tobytes() for m in second.masks]


def test_zoom_and_tiles(core_model: TextSAM, photo: Photo) -> None:
    model = TextSAM(core_model.sam, focus=FocusSettings(min_side=8))
    found = model.open(photo).predict(box=(10, 10, 25, 22))
    assert found.logits.shape == (4, 50, 90)
    assert any(window is not None for window in found.masks[0].windows)
    tiled = model.open_tiled(np.tile(photo, (4, 3, 1)), tile=128, overlap=32)
    assert tiled.everything(GRID).size == (200, 270)


def test_everything_and_phrases(clip_model: TextSAM, photo: Photo) -> None:
    found = clip_model.everything(photo, GRID)
    assert len(found) and found.masks.shape[1:] == (50, 90)
    refined = AutomaticSettings(**{**vars(GRID), "refine": True, "crop_n_layers": 1})
    assert clip_model.everything(photo, refined).size == (50, 90)
    view = clip_model.open(photo)
    view.everything(GRID)
    ranked = view.segment(text="a thing", strategy="rank", threshold=1e-3)
    assert ranked.size == (50, 90)
    assert view.explain(text="a thing", strategy="rank")


def test_search(clip_model: TextSAM, photo: Photo) -> None:
    stream = io.BytesIO()
    Image.fromarray(photo).save(stream, "PNG")
    for latents in ("photo", "crops"):
        embedder = Embedder(clip_model, latents=latents)  # type: ignore[arg-type]
        index = MaskIndex.open("memory://", model=embedder)
        photos = [DataPhoto(dataset="noise", image="one", encoded=stream.getvalue())]
        report = embed_data_set(
            embedder, ListedPhotos(photos), index, settings=EmbedSettings(batch=2, automatic=GRID)
        )
        assert report.masks > 0 and not report.failed
        assert len(index.search("a thing", k=2)) == min(2, report.masks)
        assert index.search(image=photo, space="sam", k=1)[0].image == "one"


def test_tasks(core_model: TextSAM, photo: Photo) -> None:
    view = core_model.open(photo)
    assert len(proposals(view, settings=GRID)) > 0
    assert edges(view, settings="paper").shape == (50, 90)
    mask = np.zeros((1, 50, 90), np.bool_)
    mask[0, 10:30, 20:60] = True
    assert refine(view, mask).size == (50, 90)


def test_half_precision_and_saving(folder: Path, photo: Photo, tmp_path: Path) -> None:
    model = TextSAM.from_pretrained(folder, clip=build_clip())
    expected = model.open(photo).predict(box=(10, 5, 70, 40), mask=np.ones((50, 90), np.bool_))
    model.save_pretrained(tmp_path / "whole")
    again = TextSAM.from_pretrained(tmp_path / "whole", local_files_only=True)
    assert again.clip is not None and again.clip.name == "random-clip"
    assert vars(again.sam.config) == vars(model.sam.config)
    found = again.open(photo).predict(box=(10, 5, 70, 40), mask=np.ones((50, 90), np.bool_))
    np.testing.assert_array_equal(found.logits, expected.logits)
    model.save_pretrained(tmp_path / "half", dtype=torch.float16)
    halved = TextSAM.from_pretrained(tmp_path / "half")
    assert {p.dtype for p in halved.sam.parameters()} == {torch.float32}
    model.to("bfloat16")
    rough = model.open(photo).predict(box=(10, 5, 70, 40), mask=np.ones((50, 90), np.bool_))
    assert np.corrcoef(rough.logits.ravel(), expected.logits.ravel())[0, 1] > 0.9


def test_info_says_what_it_is(folder: Path) -> None:
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    result = CliRunner().invoke(app, ["info", str(folder)])
    assert result.exit_code == 0
    names = {"sam_hq": "SAM-HQ", "sam2": "SAM 2", "edgetam": "EdgeTAM"}
    assert f"{names[kind]}, as transformers saves it" in result.output


def test_a_photo_fills_the_frame_of_sam_2(folder: Path, core_model: TextSAM, photo: Photo) -> None:
    encoded = encode_photo(core_model.parts, photo)
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    assert encoded.frame.stretched == (kind != "sam_hq")
    assert encoded.frame.padding == ((0, 0) if encoded.frame.stretched else (28, 0))


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder("sam2", tmp_path_factory.mktemp("broken"))


def test_incomplete_weights_are_refused(broken: Path, tmp_path: Path) -> None:
    state = load_file(broken / "model.safetensors")
    lost, other = "mask_decoder.iou_token.weight", dict(state)
    del other[lost]
    for name, tensors, message in (
        ("missing", other, f"missing_keys.*{lost}"),
        ("unknown", {**state, "extra.weight": torch.zeros(2)}, r"unexpected_keys.*extra\.weight"),
        ("shape", {**state, lost: torch.zeros(2, 32)}, "cannot be read as a sam2|iou_token"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_bytes((broken / "config.json").read_bytes())
        save_file(tensors, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(WeightsError, match=message):
            TextSAM.from_pretrained(tmp_path / name)


def test_pickled_weights_are_refused(broken: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((broken / "config.json").read_bytes())
    torch.save(load_file(broken / "model.safetensors"), tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="safetensors"):
        TextSAM.from_pretrained(tmp_path)


def test_a_processor_decides_how_photos_are_resized(broken: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((broken / name).read_bytes())
    plain = TextSAM.from_pretrained(tmp_path).sam.config
    assert plain.stretched and plain.pixel_mean == (123.675, 116.28, 103.53)
    values = {"size": {"longest_edge": SIDE}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    place = tmp_path / "preprocessor_config.json"
    place.write_text(json.dumps(values))
    model = TextSAM.from_pretrained(tmp_path)
    assert not model.sam.config.stretched
    assert model.sam.config.pixel_mean == (127.5, 127.5, 127.5)
    photo = np.full((20, 40, 3), 200, np.uint8)
    assert model.open(photo).predict(box=(3, 3, 20, 15)).logits.shape == (4, 20, 40)
    place.write_text(json.dumps({"size": {"height": 32, "width": SIDE}}))
    with pytest.raises(WeightsError, match="its network takes 64 pixels"):
        TextSAM.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "backbone",
    [
        {"architecture": "hf-hub:owner/model"},
        {"architecture": "local-dir:/tmp"},
        {"architecture": "test_convnext", "model_args": {"checkpoint_path": "evil.pth"}},
    ],
)
def test_hostile_backbones_are_refused(backbone: dict[str, object], tmp_path: Path) -> None:
    vision = {"backbone_config": {"model_type": "timm_wrapper", **backbone}}
    values = {"model_type": "edgetam", "vision_config": vision}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(WeightsError, match="plain name of a timm model"):
        TextSAM.from_pretrained(tmp_path)


def test_training_is_for_networks_of_ours(core_model: TextSAM) -> None:
    if isinstance(core_model.sam, HuggingFaceCore):
        with pytest.raises(WeightsError, match="does not train"):
            core_model.parts.require_sam()
        core_model.sam.train()
        assert not core_model.sam.network.training
    else:
        assert core_model.parts.require_sam() is core_model.sam
