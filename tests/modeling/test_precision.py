"""Half precision changes a model's numbers a little, and nothing else; compiled is the same."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from textsam import TextSAM
from textsam.errors import WeightsError
from textsam.modeling import precision
from textsam.modeling.config import SamConfig, ViTConfig
from textsam.modeling.precision import choose_device, choose_dtype
from textsam.modeling.sam import Sam
from textsam.weights.convert import write_huggingface

PHOTO = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
HALF = ("bfloat16", "float16")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random SAM as transformers saves it."""
    torch.manual_seed(0)
    vit = ViTConfig(width=32, depth=2, heads=2, global_attention_indexes=(1,), window_size=2)
    sam = Sam(SamConfig(encoder=vit, image_size=64, embed_dim=32, decoder_heads=8))
    folder = tmp_path_factory.mktemp("sam")
    write_huggingface(folder, sam.config, sam.state_dict())
    return folder


@pytest.mark.parametrize("dtype", HALF)
def test_a_random_sam_in_half_precision(folder: Path, dtype: str) -> None:
    half = TextSAM.from_pretrained(folder, dtype=dtype)
    weights = half.sam.image_encoder.parameters()
    assert {weight.dtype for weight in weights} == {choose_dtype(dtype)}
    assert half.open(PHOTO).photo.features.embedding.dtype == torch.float32
    full = TextSAM.from_pretrained(folder)
    for prompt in ({"points": [(20, 20)]}, {"box": (5, 5, 40, 30)}):
        a, b = (model.open(PHOTO).predict(**prompt) for model in (full, half))
        assert b.logits.dtype == b.iou.dtype == np.float32
        spread = float(np.abs(a.logits).max())
        np.testing.assert_allclose(a.logits, b.logits, atol=0.05 * spread)
        np.testing.assert_allclose(a.iou, b.iou, atol=0.05)
        assert np.abs(a.logits - b.logits).max() > 0  # it did compute in half precision


@pytest.mark.parametrize("dtype", HALF)
def test_tiny_in_half_precision(repo: Path, dtype: str) -> None:
    half = TextSAM.from_pretrained("tiny", dtype=dtype)
    full = TextSAM.from_pretrained("tiny")
    photo = repo / "examples" / "bus.jpg"
    a, b = (model.open(photo).text_map("wheel") for model in (full, half))
    assert b.dtype == np.float32
    assert float(np.abs(a - b).mean()) < 0.02
    a, b = (model.segment(photo, text="wheel") for model in (full, half))
    assert len(a) == len(b) > 0
    assert b.scores.dtype == a.scores.dtype
    np.testing.assert_allclose(a.scores, b.scores, atol=0.05)
    both, either = (a.masks & b.masks).sum((1, 2)), (a.masks | b.masks).sum((1, 2))
    assert (both / either > 0.9).all()


def test_a_model_changes_its_type_and_back(folder: Path, tmp_path: Path) -> None:
    model = TextSAM.from_pretrained(folder)
    before = model.open(PHOTO).predict(box=(5, 5, 40, 30)).logits
    assert model.to("bfloat16") is model
    model.save_pretrained(tmp_path)
    saved = TextSAM.from_pretrained(tmp_path)  # the files are bfloat16, the memory float32
    assert {weight.dtype for weight in saved.sam.parameters()} == {torch.float32}
    model.to(torch.float32)
    again = model.open(PHOTO).predict(box=(5, 5, 40, 30)).logits
    np.testing.assert_allclose(saved.open(PHOTO).predict(box=(5, 5, 40, 30)).logits, again)
    assert np.abs(before - again).max() > 0  # what was rounded stays rounded


@pytest.mark.parametrize("dtype", ["int8", "float64", torch.int64, "half a byte"])
def test_other_types_are_refused(folder: Path, dtype: str | torch.dtype) -> None:
    with pytest.raises(WeightsError, match="wanted float32, bfloat16, float16"):
        TextSAM.from_pretrained(folder, dtype=dtype)


def test_short_names_of_types(folder: Path) -> None:
    assert choose_dtype("bf16") == choose_dtype("torch.bfloat16") == torch.bfloat16
    assert choose_dtype("fp16") == choose_dtype("half") == choose_dtype(torch.float16)
    model = TextSAM.from_pretrained(folder, dtype="bf16")
    assert next(model.sam.image_encoder.parameters()).dtype == torch.bfloat16
    assert next(model.to("fp32").sam.image_encoder.parameters()).dtype == torch.float32


def test_devices() -> None:
    with pytest.raises(WeightsError, match="cannot use device 'gpu'; wanted auto, cpu, cuda"):
        TextSAM.from_pretrained("tiny", device="gpu")
    usable = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    chosen = choose_device("auto").type
    assert chosen == next((name for name, can in usable.items() if can), "cpu")
    assert TextSAM.from_pretrained("tiny", device="auto").device.type == chosen


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, chosen: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto").type == chosen


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("cuda", "torch sees no NVIDIA GPU here"),
        ("mps", "this torch is built without MPS|torch sees no Apple GPU here"),
        ("xpu", "torch sees no xpu here"),
        ("meta", "torch sees no meta here"),
    ],
)
def test_missing_devices(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, why: str
) -> None:
    """In one line, with what to type; and before a model is downloaded."""
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for load in (
        lambda: TextSAM.from_pretrained("owner/not-here", device=name),
        lambda: TextSAM.from_pretrained(folder).to(torch.device(name)),
    ):
        with pytest.raises(WeightsError, match=rf"'{name}': ({why})") as caught:
            load()
        assert 'Type: device="auto"' in str(caught.value) and "\n" not in str(caught.value)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    with pytest.raises(WeightsError, match="'cuda': this torch is built without CUDA"):
        choose_device("cuda")


def test_a_gpu_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(WeightsError, match="cannot use device 'cuda:2': there are 2 GPUs"):
        choose_device("cuda:2")


def test_compiled_is_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One graph for the encoder; the decoder's serve one prompt, and any number of them."""
    plain = TextSAM.from_pretrained(folder)
    real, graphs = torch.compile, []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    def compile(function: object, **_: object) -> object:
        return real(function, backend=backend)  # a compiler of C++ would take half a minute

    monkeypatch.setattr(torch, "compile", compile)
    torch._dynamo.reset()
    fast = TextSAM.from_pretrained(folder, compile=True)
    assert plain.sam.state_dict().keys() == fast.sam.state_dict().keys()
    a, b = (model.open(PHOTO) for model in (plain, fast))
    assert len(graphs) == 1
    for count in (1, 2, 3, 4, 5, 7, 1):
        boxes = [(i, i, 30 + i, 25 + i) for i in range(count)]
        ours, theirs = (view.segment(boxes=boxes) for view in (a, b))
        np.testing.assert_allclose(ours.iou, theirs.iou, atol=1e-4)
        assert (ours.masks == theirs.masks).mean() > 0.999
    assert 2 <= len(graphs) - 1 <= 6


def test_what_compiling_needs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = TextSAM.from_pretrained(folder)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        WeightsError, match=r"no C\+\+ compiler 'no-such-compiler'.*leave out compile"
    ):
        model.compile()
    monkeypatch.setenv("CXX", sys.executable)
    monkeypatch.setattr(precision.sysconfig, "get_paths", lambda: {"include": str(folder)})
    with pytest.raises(WeightsError, match=r"there is no Python\.h in"):
        TextSAM.from_pretrained(folder, compile=True)
    monkeypatch.setattr(precision, "find_spec", lambda _: None)
    with pytest.raises(WeightsError, match="cannot compile for cuda: Triton is not installed"):
        precision.compile_networks(model.sam, torch.device("cuda"))
