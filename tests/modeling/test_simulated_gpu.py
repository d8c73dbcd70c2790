"""Every entry point on a GPU, by its rules: nothing mixes devices or needs float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from textsam import TextSAM
from textsam.modeling.config import SamConfig, ViTConfig
from textsam.modeling.sam import Sam
from textsam.modeling.vit_attention import attend, attend_fused, attend_in_chunks
from textsam.search.embed import Embedder
from textsam.tasks.refinement import refine
from textsam.values.settings import AutomaticSettings

from ..detector_folders import write_detector
from .hub_cores import write_core
from .simulated_device import DeviceRuleError, has_mps_kernel, simulated_gpu

PHOTO = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)


def test_the_rules() -> None:
    with simulated_gpu() as refused:
        there, here = torch.arange(4.0).to("cuda"), torch.ones(4)
        assert there.device.type == torch.zeros(2, device="cuda").device.type == "cuda"
        assert torch.tensor([1], device="cuda").is_cuda
        assert (there + 1).cpu().tolist() == (2 * there + here.to("cuda") - there).tolist()
        assert float(there.mul_(torch.tensor(2.0)).sum()) == 12 and there[1].item() == 2
        for mixed in (lambda: there + here, lambda: torch.cat([here, there]), lambda: here[there]):
            with pytest.raises((DeviceRuleError, IndexError)):
                mixed()
        with pytest.raises((TypeError, RuntimeError), match="numpy"):
            there.numpy()
        with pytest.raises(TypeError, match="no float64"):
            there.double()
        with pytest.raises(TypeError, match="no float64"):
            torch.from_numpy(np.zeros(2)).to("cuda")
        with pytest.raises(DeviceRuleError, match=r"heaviside\.default has no kernel for MPS"):
            torch.heaviside(there, there)
        assert len(refused) >= 5
    assert (there.inner + here).tolist() == [1, 3, 5, 7]
    assert has_mps_kernel("aten::convolution", "") and has_mps_kernel("aten::add", "Tensor")


@pytest.fixture(scope="module")
def tiny() -> tuple[TextSAM, TextSAM]:
    return TextSAM.from_pretrained("tiny"), TextSAM.from_pretrained("tiny")


def test_tiny(tiny: tuple[TextSAM, TextSAM], repo: Path) -> None:
    """Phrases, clicks, boxes, maps, everything, examples, vectors, rough masks."""
    here, there = tiny
    photo = repo / "examples" / "dog.jpg"
    few = AutomaticSettings(points_per_side=2)

    def ask(model: TextSAM) -> list[np.ndarray]:
        view = model.open(photo)
        box = view.segment(box=(100, 100, 300, 300))
        everything = view.everything(few)
        results = [box, everything, view.click(300, 200), view.segment(text="dog", exclude="grass")]
        results += [view.segment(text="dog", strategy="prompt"), view.similar(box[0])]
        results += [view.segment(text="dog", points=[(300, 200)]), model.segment(photo, like=box)]
        arrays = [result.masks for result in results] + [result.scores for result in results]
        arrays += [view.label_map(["dog", "grass"]).labels, refine(view, box).masks]
        return [*arrays, *Embedder(model).masks(photo, box).vectors.values()]

    wanted = ask(here)
    with simulated_gpu() as refused:
        there.to("cuda")
        assert there.device.type == "cuda"
        assert all(weight.is_cuda for weight in there.sam.parameters())
        answers = ask(there)
        there.to("cpu")
    assert not refused
    for ours, theirs in zip(answers, wanted, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours.astype(float), theirs.astype(float), atol=1e-4)


def test_attention_of_a_plain_vit() -> None:
    """SDPA with the positions as part of its dot product, where a CPU attends in chunks."""
    torch.manual_seed(0)
    vit = ViTConfig(width=16, depth=2, heads=2, global_attention_indexes=(1,), window_size=3)
    config = SamConfig(encoder=vit, image_size=64, embed_dim=32, decoder_heads=8)
    plain, moved = Sam(config).eval(), Sam(config).eval()
    with torch.no_grad():
        for weight in plain.image_encoder.parameters():
            weight.normal_(0.0, 0.3)  # relative positions start as zeros
    moved.load_state_dict(plain.state_dict())
    here, there = TextSAM(plain), TextSAM(moved)
    wanted = here.open(PHOTO).predict(points=[(20, 20)])
    with simulated_gpu() as refused:
        given = there.to("cuda").open(PHOTO).predict(points=[(20, 20)])
    assert not refused
    np.testing.assert_allclose(given.logits, wanted.logits, atol=1e-5)


def test_attention_by_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU attends in chunks, a tracer in few, a GPU in one fused kernel, MPS in several."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 4, 6, 8).unbind()
    rows, columns = torch.randn(4, 6, 2), torch.randn(4, 6, 3)
    wanted = attend_in_chunks(q, k, v, rows, columns)
    calls: list[tuple[str, int]] = []

    def record(name, function):
        def run(*tensors, **options):
            calls.append((name, options.get("chunk_logits") or len(tensors[0])))
            return function(*tensors, **options)

        monkeypatch.setattr(f"textsam.modeling.vit_attention.{function.__name__}", run)

    record("chunks", attend_in_chunks)
    record("fused", attend_fused)
    torch.testing.assert_close(attend(q, k, v, rows, columns), wanted)
    with monkeypatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        attend(q, k, v, rows, columns)
    (_, few), (name, many) = calls
    assert name == "chunks" and many > few
    calls.clear()
    with simulated_gpu():
        on_gpu = attend(*(x.to("cuda") for x in (q, k, v, rows, columns)))
    torch.testing.assert_close(on_gpu.cpu(), wanted)
    assert calls == [("fused", 4)]
    calls.clear()
    with monkeypatch.context() as patch:
        patch.setattr("textsam.modeling.vit_attention._MPS_LOGITS", 3 * 36)
        patch.setattr("textsam.modeling.vit_attention._device_kind", lambda _: "mps")
        torch.testing.assert_close(attend(q, k, v, rows, columns), wanted)
    assert calls == [("fused", 3), ("fused", 1)]


@pytest.mark.parametrize("kind", ["core", "detector"])
def test_networks_of_transformers(kind: str, tmp_path: Path) -> None:
    """SAM 2.1 with clicks; Grounding DINO with phrases."""
    write_core("sam2", tmp_path / "core")
    parts = {}
    if kind == "detector":
        parts["detector"] = write_detector(tmp_path / "detector", "grounding-dino")
    here, there = (TextSAM.from_pretrained(tmp_path / "core", **parts) for _ in range(2))

    def ask(model: TextSAM) -> np.ndarray:
        if kind == "core":
            return model.open(PHOTO).predict(points=[(20, 20)]).logits
        return model.segment(PHOTO, text="a", strategy="detect", threshold=0.01).scores

    wanted = ask(here)
    with simulated_gpu() as refused:
        given = ask(there.to("cuda"))
    assert not refused
    np.testing.assert_allclose(given, wanted, atol=1e-4)
