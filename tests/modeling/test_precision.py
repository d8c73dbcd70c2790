"""Half precision changes a model's numbers a little, and nothing else; compiled is the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from textsam import TextSAM
from textsam.errors import WeightsError
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


def test_devices() -> None:
    with pytest.raises(WeightsError, match="cannot use device 'gpu'; wanted auto, cpu, cuda"):
        TextSAM.from_pretrained("tiny", device="gpu")
    usable = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    chosen = choose_device("auto").type
    assert chosen == next((name for name, can in usable.items() if can), "cpu")
    assert TextSAM.from_pretrained("tiny", device="auto").device.type == chosen


def test_compiled_is_the_same(folder: Path, tmp_path: Path) -> None:
    plain, fast = TextSAM.from_pretrained(folder), TextSAM.from_pretrained(folder, compile=True)
    assert plain.sam.state_dict().keys() == fast.sam.state_dict().keys()
    calls = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        calls.append(len(inputs))
        return graph.forward

    torch._dynamo.reset()
    fast.sam.image_encoder.compile(backend=backend)  # a compiler of C++ would take half a minute
    a, b = (model.open(PHOTO).predict(points=[(20, 20)]) for model in (plain, fast))
    assert calls
    np.testing.assert_allclose(a.logits, b.logits, atol=1e-5)
