"""An encoder run by onnxruntime or OpenVINO gives what torch gives, or says why it cannot."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from textsam import TextSAM
from textsam.errors import MissingExtraError, WeightsError
from textsam.modeling import encoder_backend
from textsam.modeling.config import SamConfig, ViTConfig
from textsam.modeling.encoder_backend import attach_backend
from textsam.modeling.sam import Sam
from textsam.weights.convert import write_huggingface

from .hub_cores import write_core

PHOTO = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)


def write_sam(folder: Path, *, seed: int) -> Path:
    torch.manual_seed(seed)
    vit = ViTConfig(width=16, depth=2, heads=2, global_attention_indexes=(1,), window_size=3)
    sam = Sam(SamConfig(encoder=vit, image_size=64, embed_dim=32, decoder_heads=8))
    with torch.no_grad():
        for weight in sam.image_encoder.parameters():
            weight.normal_(0.0, 0.3)  # relative positions start as zeros
    write_huggingface(folder, sam.config, sam.state_dict())
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sam(tmp_path_factory.mktemp("sam"), seed=0)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("cache")
        patch.setenv("TEXTSAM_CACHE", str(home))
        yield home


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_same_masks(folder: Path, backend: str, tmp_path: Path) -> None:
    pytest.importorskip(backend)
    plain = TextSAM.from_pretrained(folder)
    other = TextSAM.from_pretrained(folder, backend=backend)  # type: ignore[arg-type]
    assert (plain.backend, other.backend) == ("torch", backend)
    assert f"backend={backend}" in repr(other)
    a, b = (model.open(PHOTO).predict(points=[(20, 20)]) for model in (plain, other))
    np.testing.assert_allclose(a.logits, b.logits, atol=1e-4 * np.abs(a.logits).max())
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        both = other.sam.image_encoder(pixels).embedding
        wanted = plain.sam.image_encoder(pixels).embedding
    np.testing.assert_allclose(both, wanted, atol=1e-4 * float(wanted.abs().max()))
    # Weights are those of torch, under their names.
    other.save_pretrained(tmp_path)
    saved = TextSAM.from_pretrained(tmp_path).sam.state_dict()
    assert all(torch.equal(value, saved[key]) for key, value in plain.sam.state_dict().items())
    attach_backend(other.sam, "torch", name="x")
    assert other.backend == "torch"


def test_it_is_exported_once(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ArithmeticError("no such\n operator")

    TextSAM.from_pretrained(folder, backend="onnxruntime")
    monkeypatch.setattr(torch.onnx, "export", fail)
    TextSAM.from_pretrained(folder, backend="onnxruntime")
    with pytest.raises(WeightsError, match="cannot be exported for backend='onnxruntime': Arith"):
        TextSAM.from_pretrained(write_sam(tmp_path, seed=1), backend="onnxruntime")
    assert not list((cache / "encoders").glob("unfinished-*"))


def test_a_graph_of_something_else_is_refused(folder: Path, cache: Path) -> None:
    TextSAM.from_pretrained(folder, backend="onnxruntime")
    (record,) = (cache / "encoders").glob("*/encoder.json")
    content = json.loads(record.read_text())
    assert content["errors"]["onnxruntime"] < 1e-4
    record.write_text(json.dumps(content | {"errors": {}}))
    sam = TextSAM.from_pretrained(folder).sam
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder_backend, "_key", lambda _: record.parent.name)
        with torch.no_grad():
            next(sam.image_encoder.parameters()).mul_(1.5)
        with pytest.raises(WeightsError, match="computes x otherwise than torch: they differ by"):
            attach_backend(sam, "onnxruntime", name="x")
    record.write_text(json.dumps(content))
    assert "forward" not in vars(sam.image_encoder)


def test_what_it_does_not_do(folder: Path, tmp_path: Path) -> None:
    model = TextSAM.from_pretrained(folder, backend="onnxruntime")
    for target in ("bf16", torch.float16):
        with pytest.raises(WeightsError, match="'onnxruntime' runs the image encoder in float32"):
            model.to(target)
    assert model.to("cpu").to("float32").backend == "onnxruntime"
    with pytest.raises(WeightsError, match="give compile=True or backend, not both"):
        model.compile()
    with pytest.raises(WeightsError, match=r"float32 on the CPU; .* is torch\.bfloat16"):
        TextSAM.from_pretrained(folder, dtype="bf16", backend="onnxruntime")
    with pytest.raises(WeightsError, match="gives no gradients"):
        model.sam.image_encoder(torch.zeros(1, 3, 64, 64))
    with pytest.raises(WeightsError, match="wanted torch, onnxruntime, openvino"):
        TextSAM.from_pretrained(folder, backend="tensorrt")  # type: ignore[arg-type]
    write_core("sam2", tmp_path)
    with pytest.raises(WeightsError, match="is a HuggingFaceCore of another project"):
        TextSAM.from_pretrained(tmp_path, backend="onnxruntime")


@pytest.mark.parametrize(
    ("backend", "package", "extra"),
    [("onnxruntime", "onnxruntime", "export"), ("openvino", "openvino", "openvino")],
)
def test_a_missing_package(
    folder: Path, monkeypatch: pytest.MonkeyPatch, backend: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"pip install .textsam\[{extra}\]"):
        TextSAM.from_pretrained(folder, backend=backend)  # type: ignore[arg-type]


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TEXTSAM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert encoder_backend.cache_folder() == tmp_path / "textsam"
