"""The own format: what is written is read back, and what does not fit is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from textsam.clip.encoder import ClipEncoder
from textsam.clip.pathway import PathwayConfig, TextPathway
from textsam.errors import WeightsError
from textsam.inference.model import TextSAM
from textsam.modeling.config import SamConfig, TimmConfig
from textsam.modeling.sam import Sam
from textsam.values.settings import TextSettings
from textsam.weights.convert import write_huggingface
from textsam.weights.model_folder import read_pathway, write_pathway

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
SIZES = {"embed_dim": 32, "decoder_heads": 4, "decoder_mlp": 48, "iou_hidden": 24}
CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def model() -> TextSAM:
    import open_clip

    torch.manual_seed(0)
    sam = Sam(SamConfig(encoder=TimmConfig(name="test_efficientnet"), image_size=64, **SIZES))
    clip = ClipEncoder.from_model(
        open_clip.CLIP(**CLIP),
        tokenizer=open_clip.SimpleTokenizer(context_length=12),
        name="random-clip",
        config=CLIP,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    pathway = TextPathway(PathwayConfig(clip_width=16, prompt_width=32, hidden=24))
    settings = TextSettings(threshold=0.4, min_quality=0.2)
    return TextSAM(sam, clip=clip, pathway=pathway, text_settings=settings, name="random")


@pytest.fixture
def folder(model: TextSAM, tmp_path: Path) -> Path:
    return model.save_pretrained(tmp_path / "model")


def test_round_trip_is_exact(model: TextSAM, folder: Path) -> None:
    again = TextSAM.from_pretrained(folder)
    assert again.name == "random"
    assert again.text_settings == model.text_settings
    assert again.clip is not None and again.clip.name == "random-clip"
    for ours, theirs in ((model.sam, again.sam), (model.pathway, again.pathway)):
        assert ours is not None and theirs is not None
        for key, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[key]), key
    a, b = (m.open(PHOTO).predict(text="dog", points=[(20, 20)]) for m in (model, again))
    np.testing.assert_array_equal(a.logits, b.logits)


def test_half_precision_on_disk_is_single_in_memory(model: TextSAM, tmp_path: Path) -> None:
    full, half = model.save_pretrained(tmp_path / "full"), tmp_path / "half"
    model.save_pretrained(half, dtype=torch.float16)
    name = "model.safetensors"
    assert (half / name).stat().st_size < 0.6 * (full / name).stat().st_size
    again = TextSAM.from_pretrained(half)
    assert {p.dtype for p in again.sam.parameters()} == {torch.float32}
    a, b = (m.open(PHOTO).predict(points=[(20, 20)]) for m in (model, again))
    np.testing.assert_allclose(a.low_res, b.low_res, atol=0.02)


@pytest.mark.parametrize("part", ["sam", "pathway"])
def test_missing_extra_and_misshapen_keys_are_named(folder: Path, part: str) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    key = next(k for k in sorted(state) if k.startswith(part + "."))
    bare = key.removeprefix(part + ".")
    cases = {
        "lacks": {k: v for k, v in state.items() if k != key},
        "unknown": {**state, f"{part}.surplus": torch.zeros(1)},
        "misshapen": {**state, key: torch.zeros(7, 7, 7)},
    }
    for what, broken in cases.items():
        save_file(broken, path)
        with pytest.raises(WeightsError, match=what) as error:
            TextSAM.from_pretrained(folder)
        assert (bare if what != "unknown" else "surplus") in str(error.value)


def test_damaged_files_are_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=r"model\.safetensors is cut off: it has"):
        TextSAM.from_pretrained(folder)
    path.unlink()
    with pytest.raises(WeightsError, match="no file"):
        TextSAM.from_pretrained(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"cannot read .*config\.json"):
        TextSAM.from_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"no config\.json"):
        TextSAM.from_pretrained(folder)


def test_a_newer_format_says_how_to_read_it(folder: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "version": 99}))
    with pytest.raises(WeightsError, match="pip install -U textsam"):
        TextSAM.from_pretrained(folder)


def test_a_name_that_is_nowhere_is_named() -> None:
    with pytest.raises(WeightsError, match=r"no model 'facebook/not-here' in the local cache"):
        TextSAM.from_pretrained("facebook/not-here", local_files_only=True)
    with pytest.raises(WeightsError, match="no file or folder"):
        TextSAM.from_pretrained("/no/such/folder/at all")


def test_a_hugging_face_folder_loads_and_takes_no_text(tmp_path: Path) -> None:
    from textsam.modeling.config import ViTConfig

    torch.manual_seed(0)
    vit = ViTConfig(width=32, depth=2, heads=2, global_attention_indexes=(1,), window_size=2)
    sam = Sam(SamConfig(encoder=vit, image_size=64, embed_dim=32, decoder_heads=8))
    write_huggingface(tmp_path, sam.config, sam.state_dict())
    again = TextSAM.from_pretrained(tmp_path)
    a, b = (m.open(PHOTO).predict(box=(5, 5, 40, 30)) for m in (TextSAM(sam), again))
    np.testing.assert_allclose(a.logits, b.logits, atol=1e-6)
    with pytest.raises(WeightsError, match="takes no phrases"):
        again.segment(PHOTO, text="dog")


def test_a_pathway_belongs_to_its_sam_and_its_clip(
    model: TextSAM, folder: Path, tmp_path: Path
) -> None:
    assert model.pathway is not None
    path = write_pathway(tmp_path / "p.safetensors", model.pathway, sam="random", clip="tiny")
    with pytest.raises(WeightsError, match="trained for clip 'tiny'"):
        TextSAM.from_pretrained(folder, pathway=path)
    with pytest.raises(WeightsError, match="trained for sam 'random'"):
        read_pathway(path, sam="other", clip="tiny")
    with pytest.raises(WeightsError, match="not a textsam pathway"):
        read_pathway(folder / "model.safetensors", sam="random", clip="tiny")
    own = write_pathway(tmp_path / "q.safetensors", model.pathway, sam="random", clip="random-clip")
    again = TextSAM.from_pretrained(folder, pathway=own)
    assert again.pathway is not None
    assert torch.equal(again.pathway.token_type, model.pathway.token_type)


def test_another_clip_leaves_the_pathway_behind(folder: Path) -> None:
    swapped = TextSAM.from_pretrained(folder, clip=folder / "clip")
    assert swapped.pathway is None
    with pytest.raises(WeightsError, match="no trained text pathway"):
        swapped.segment(PHOTO, text="dog", strategy="prompt")


def test_a_pathway_of_other_widths_is_refused(model: TextSAM) -> None:
    with pytest.raises(WeightsError, match="CLIP width is 99"):
        TextSAM(
            model.sam,
            clip=model.clip,
            pathway=TextPathway(PathwayConfig(clip_width=99, prompt_width=32)),
        )
