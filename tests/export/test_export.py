"""Exported graphs give what the model gives; what cannot be exported is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from textsam.cli.app import app
from textsam.clip.encoder import ClipEncoder
from textsam.errors import PromptError, WeightsError
from textsam.export import export_model
from textsam.export.clip_tokens import PhraseTokenizer, tokenizer_table
from textsam.export.graphs import DecoderGraph, pack_features, unpack_features
from textsam.export.parity import TOLERANCES, Parity, check_parity
from textsam.export.runtime import load
from textsam.inference.model import TextSAM
from textsam.modeling.config import SamConfig, TinyViTConfig, ViTConfig
from textsam.modeling.mask_decoder import PromptBatch
from textsam.modeling.sam import Sam
from textsam.values.images import load_image

SMALL: dict[str, Any] = {
    "image_size": 128,
    "embed_dim": 32,
    "mask_channels": 8,
    "decoder_heads": 2,
    "decoder_mlp": 64,
    "iou_hidden": 32,
}
VIT = ViTConfig(width=48, depth=2, heads=3, global_attention_indexes=(1,), window_size=3)
TINY_VIT = TinyViTConfig(widths=(16, 24, 32, 40), depths=(1, 1, 1, 1), heads=(1, 2, 2, 2))


def test_every_graph_is_near_the_model(exported) -> None:
    names = ("encoder", "decoder", "decoder_text", "text", "text_map")
    assert {row.file for row in exported.rows} == {f"{name}.onnx" for name in names}
    assert max(row.error for row in exported.rows) <= TOLERANCES["fp32"]
    check_parity(exported.rows)


def test_the_folder_says_what_is_in_it(exported) -> None:
    config = json.loads((exported.folder / "textsam.json").read_text())
    assert (config["format"], config["version"], config["opset"]) == ("textsam-onnx", 1, 18)
    assert config["image_size"] == 64 and config["mask_size"] == 16
    for name, facts in config["files"].items():
        assert (exported.folder / name).stat().st_size == facts["bytes"], name
    # Nothing beside the files that it names.
    assert {path.name for path in exported.folder.iterdir()} == {*config["files"], "textsam.json"}


def test_the_decoder_has_the_official_names_and_any_number_of_points(exported) -> None:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(exported.folder / "decoder.onnx"))
    assert [each.name for each in session.get_inputs()] == [
        *("image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input"),
        "orig_im_size",
    ]
    names = ["masks", "iou_predictions", "low_res_masks"]
    assert [each.name for each in session.get_outputs()] == names
    channels = session.get_inputs()[0].shape[1]
    for points in (1, 2, 7):
        feeds = {
            "image_embeddings": np.zeros((1, channels, 4, 4), np.float32),
            "point_coords": np.ones((1, points, 2), np.float32),
            "point_labels": np.ones((1, points), np.float32),
            "mask_input": np.zeros((1, 1, 16, 16), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
            "orig_im_size": np.array([31, 77], np.float32),
        }
        masks, iou, low_res = session.run(None, feeds)
        assert masks.shape == (1, 4, 31, 77)
        assert iou.shape == (1, 4) and low_res.shape == (1, 4, 16, 16)


def test_phrases_become_the_ids_of_open_clip(exported) -> None:
    clip = ClipEncoder.from_pretrained("tiny")
    tokenizer = PhraseTokenizer(tokenizer_table(clip))
    for phrase in (
        *("a dog's bowl", "The wheels.", "3 red cars", "it's 42nd St. & more!!", "naïve café"),
        *("犬と猫", "don't we'll 'tis", "😀😀 x", "a" * 200, "foo&amp;bar", "½ cup²", "word " * 60),
    ):
        wanted = clip.tokenizer([clip.plain(phrase)]).numpy()
        assert (tokenizer(phrase) == wanted).all(), phrase
    # Each phrase in each template, the rows of a phrase together.
    ours = PhraseTokenizer.read(exported.folder / "tokenizer.json")
    wanted = exported.model.clip.tokenizer(["wheel", "a photo of a wheel."]).numpy()
    assert (ours("the wheels") == wanted).all()


@pytest.mark.parametrize("encoder", [VIT, TINY_VIT], ids=["ViT", "TinyViT"])
@pytest.mark.parametrize("hq", [False, True])
def test_packed_features_decode_as_the_features_do(encoder, hq: bool) -> None:
    sam = Sam(SamConfig(encoder=encoder, hq=hq, **SMALL)).eval()
    prompts = PromptBatch(
        points=torch.rand(2, 3, 2) * 128,
        labels=torch.tensor([[1, 0, -1], [2, 3, 1]]),
        image_index=torch.zeros(2, dtype=torch.int64),
        masks=torch.randn(2, 1, 32, 32),
    )
    with torch.no_grad():
        features = sam.encode_image(torch.randn(1, 3, 128, 128))
        packed = pack_features(features)
        again = unpack_features(packed, sam)
        assert (again.embedding == features.embedding).all()
        assert (again.detail is None) != hq and (not hq or (again.detail == features.detail).all())
        wanted = sam.decode(features, prompts)
        labels = prompts.labels.float()
        iou, logits = DecoderGraph(sam)(
            packed, prompts.points, labels, prompts.masks, torch.ones(1)
        )
    assert (iou - wanted.iou).abs().max() < 1e-5
    assert (logits - wanted.logits).abs().max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("encoder", [VIT, TINY_VIT], ids=["ViT", "TinyViT"])
def test_vits_are_exported(encoder, tmp_path: Path) -> None:
    model = TextSAM(Sam(SamConfig(encoder=encoder, **SMALL)), name="random")
    rows = export_model(model, tmp_path, parts=["encoder"])
    assert [row.output for row in rows] == ["image_embeddings"] and rows[0].error <= 1e-4
    assert json.loads((tmp_path / "textsam.json").read_text())["text"] is None
    with pytest.raises(WeightsError, match="answers no phrases"):
        load(tmp_path).segment(np.zeros((20, 30, 3), np.uint8), text="wheel")
    with pytest.raises(WeightsError, match=r"has no decoder\.onnx"):
        load(tmp_path).segment(np.zeros((20, 30, 3), np.uint8), points=[(3, 4)])


QUERIES: list[dict[str, Any]] = [
    {"text": "wheel"},
    {"text": ["wheel", "a photo of a dog"], "threshold": 0.3},
    {"text": "zebra", "threshold": 0.999},
    {"points": [(60, 40)]},
    {"points": [(60, 40), (20, 10)], "labels": [1, 0]},
    {"box": (10, 5, 80, 45)},
    {"text": "wheel", "points": [(60, 40)]},
]


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_the_runtime_answers_as_the_model(exported, query: dict[str, Any]) -> None:
    photo = np.random.default_rng(3).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    ours = load(exported.folder, threads=1).segment(photo, **query)
    wanted = exported.model.open(photo).segment(**query)
    assert len(ours) == len(wanted) and ours.masks.shape[1:] == (50, 90)
    assert tuple(wanted.labels) == ours.labels
    for mask, other in zip(ours.masks, wanted.masks, strict=True):
        assert (mask & other).sum() / (mask | other).sum() >= 0.99
    np.testing.assert_allclose(ours.scores, wanted.scores, atol=1e-3)
    np.testing.assert_allclose(ours.iou, wanted.iou, atol=1e-4)
    for phrase, presence in ours.presence.items():
        assert presence == pytest.approx(wanted.presence[phrase], abs=1e-4)
    assert (ours.boxes == wanted.boxes).all()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({}, "nothing to segment"),
        ({"text": ["a", "b"], "box": (1, 2, 9, 9)}, "2 phrases with points or a box"),
        ({"text": "a", "threshold": 2.0}, "threshold is 2.0"),
        ({"points": [(5, 5)], "labels": [0]}, "no point is on the object"),
        ({"points": [(500, 5)]}, "outside"),
    ],
)
def test_queries_that_mean_nothing_are_refused(exported, query, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        load(exported.folder).segment(np.zeros((50, 90, 3), np.uint8), **query)


def test_the_runtime_imports_no_torch(exported, repo: Path) -> None:
    code = (
        "import sys\n"
        "for name in 'torch torchvision pycocotools transformers open_clip onnx'.split():\n"
        "    sys.modules[name] = None\n"  # importing one of them fails
        "from textsam.export.runtime import load\n"
        f"model = load({str(exported.folder)!r}, threads=1)\n"
        f"view = model.open({str(repo / 'examples' / 'bus.jpg')!r})\n"
        "print(len(view.segment(box=(10, 10, 200, 200))), len(view.segment('wheel').scores))\n"
        "print(sorted(m for m in sys.modules if m.startswith('torch') and sys.modules[m]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=repo)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp16", "int8"])
def test_smaller_weights_stay_near(dtype, tmp_path: Path, exported) -> None:
    rows = export_model(exported.model, tmp_path, parts=["encoder"], dtype=dtype)
    full = (exported.folder / "encoder.onnx").stat().st_size
    assert (tmp_path / "encoder.onnx").stat().st_size < full
    assert 1e-6 < max(row.error for row in rows) <= TOLERANCES[dtype]


def test_a_difference_is_an_error() -> None:
    good = Parity(file="a.onnx", output="x", shape=(1,), error=1e-6, limit=1e-4)
    bad = Parity(file="b.onnx", output="masks", shape=(1,), error=float("nan"), limit=1e-4)
    check_parity([good])
    with pytest.raises(WeightsError, match=r"b\.onnx differs from the model: masks"):
        check_parity([good, bad])


def test_what_cannot_be_exported_says_why(exported, tmp_path: Path) -> None:
    model = exported.model
    with pytest.raises(PromptError, match="part is 'head'; wanted 'encoder', 'decoder', 'text'"):
        export_model(model, tmp_path, parts=["head"])  # type: ignore[list-item]
    with pytest.raises(PromptError, match="dtype is 'bf16'"):
        export_model(model, tmp_path, dtype="bf16")  # type: ignore[arg-type]
    bare = TextSAM(Sam(SamConfig(encoder=VIT, **SMALL)), name="bare")
    with pytest.raises(WeightsError, match="bare takes no phrases"):
        export_model(bare, tmp_path, parts=["text"])
    other = TextSAM(bare.sam, name="sam2")
    other.sam = _Foreign()
    with pytest.raises(WeightsError, match=r"sam2 is a _Foreign of another project"):
        export_model(other, tmp_path)
    odd = SimpleNamespace(name="siglip", tokenizer=lambda texts: texts)
    with pytest.raises(WeightsError, match="byte-pair encoding"):
        tokenizer_table(odd)  # type: ignore[arg-type]


class _Foreign(torch.nn.Module):
    pass


def test_a_folder_that_is_none_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"it has no textsam\.json"):
        load(tmp_path)
    (tmp_path / "textsam.json").write_text('{"format": "textsam-onnx", "version": 9}')
    with pytest.raises(WeightsError, match="pip install -U textsam"):
        load(tmp_path)


def test_the_command_without_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    done = CliRunner().invoke(app, ["export", "tiny", "-o", str(tmp_path / "out")])
    assert done.exit_code == 1 and 'pip install "textsam[export]"' in done.output


@pytest.mark.slow
def test_tiny_answers_the_same_on_photos(tmp_path: Path, repo: Path) -> None:
    """The shipped model by its command: phrases, nothing here, clicks and boxes."""
    done = CliRunner().invoke(app, ["export", "tiny", "-o", str(tmp_path)])
    assert done.exit_code == 0 and "decoder_text.onnx" in done.output, done.output
    small, model = load(tmp_path), TextSAM.from_pretrained("tiny")
    for photo, queries in {
        "bus": [{"text": "wheel"}, {"text": "elephant"}, {"box": (50, 100, 400, 300)}],
        "banana": [{"text": "yellow banana"}, {"text": "blue banana"}, {"points": [(300, 200)]}],
    }.items():
        image = load_image(repo / "examples" / f"{photo}.jpg")
        view, other = small.open(image), model.open(image)
        for query in queries:
            ours, wanted = view.segment(**query), other.segment(**query)
            assert len(ours) == len(wanted), (photo, query)
            for mask, same in zip(ours.masks, wanted.masks, strict=True):
                assert (mask & same).sum() / (mask | same).sum() >= 0.99, (photo, query)
