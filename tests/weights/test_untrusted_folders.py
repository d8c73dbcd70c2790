"""A model folder is data: nothing in it runs as code, and what it may say is a fixed list."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from textsam.clip.encoder import ClipEncoder
from textsam.errors import WeightsError
from textsam.inference.model import TextSAM
from textsam.modeling.config import SamConfig, TimmConfig
from textsam.modeling.sam import Sam

CLIP: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
PLANTED = """
import pathlib
pathlib.Path({marker!r}).touch()
from transformers import PreTrainedTokenizerFast

class Planted(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture(autouse=True)
def modules_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where transformers would copy a folder's Python before it runs it."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "m"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the terminal was asked"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    sizes: dict[str, int] = {"embed_dim": 32, "decoder_heads": 4, "decoder_mlp": 48}
    sam = Sam(SamConfig(encoder=TimmConfig(name="test_efficientnet"), image_size=64, **sizes))
    clip = ClipEncoder.from_model(
        open_clip.CLIP(**CLIP),
        tokenizer=open_clip.SimpleTokenizer(context_length=12),
        name="random-clip",
        config=CLIP,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    return TextSAM(sam, clip=clip).save_pretrained(tmp_path_factory.mktemp("saved"))


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def edit(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_clip(folder: Path, section: str | None, key: str, value: Any) -> None:
    def change(content: Any) -> None:
        config = content["model_cfg"]
        (config if section is None else config.setdefault(section, {}))[key] = value

    edit(folder / "clip" / "open_clip_config.json", change)


def plant_tokenizer(folder: Path) -> Path:
    """Put a tokenizer beside the CLIP whose Python leaves a file; returns that file's path."""
    marker = folder.parent / "the planted code ran"
    clip = folder / "clip"
    (clip / "planted.py").write_text(PLANTED.format(marker=str(marker)))
    words = {"tokenizer_class": "Planted", "auto_map": {"AutoTokenizer": ["planted.Planted", None]}}
    (clip / "tokenizer_config.json").write_text(json.dumps(words))
    edit_clip(folder, "text_cfg", "hf_tokenizer_name", "org/words")
    return marker


def load_model(folder: Path) -> object:
    return TextSAM.from_pretrained(folder, local_files_only=True)


def load_clip(folder: Path) -> object:
    return ClipEncoder.from_pretrained(folder / "clip", local_files_only=True)


@pytest.mark.parametrize("load", [load_model, load_clip])
@pytest.mark.parametrize("trust", [True, "yes", None])
def test_a_planted_tokenizer_never_runs(
    folder: Path, load: Callable[[Path], object], trust: object
) -> None:
    marker = plant_tokenizer(folder)
    if trust is not None:
        edit_clip(folder, "text_cfg", "tokenizer_kwargs", {"trust_remote_code": trust})
    wanted = "auto_map" if trust is None else r"tokenizer_kwargs\.trust_remote_code"
    with pytest.raises(WeightsError, match=wanted):
        load(folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("text_cfg", "tokenizer_kwargs", {"bpe_path": "/etc/hostname"}),
        ("text_cfg", "tokenizer_kwargs", {"clean": ["lower"]}),
        ("text_cfg", "tokenizer_kwargs", "clean"),
        ("text_cfg", "trust_remote_code", True),
        ("text_cfg", "norm_kwargs", {"device": "cuda"}),
        ("text_cfg", "act_kwargs", {"approximate": {"any": "thing"}}),
        ("text_cfg", "hf_model_name", "../../elsewhere"),
        ("text_cfg", "width", {"any": "thing"}),
        ("vision_cfg", "timm_model_name", "hf-hub:org/backbone"),
        ("vision_cfg", "timm_model_name", "local-dir:/backbone"),
        ("vision_cfg", "custom", "module.Class"),
        ("multimodal_cfg", "custom", 1),
        (None, "custom", {"module": "os"}),
        (None, "cast_dtype", "float16"),
        (None, "text_cfg", "module.Class"),
    ],
)
def test_what_a_config_may_not_say_is_refused_by_name(
    folder: Path, section: str | None, key: str, value: Any
) -> None:
    edit_clip(folder, section, key, value)
    place = key if section is None else f"{section}.{key}"
    with pytest.raises(WeightsError) as error:
        load_model(folder)
    assert place in str(error.value)
    assert "open_clip_config.json" in str(error.value)
    assert "ClipEncoder.from_model" in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_map", {"AutoConfig": "planted.Planted"}),
        ("attn_implementation", "org/kernels"),
        ("model_type", "planted"),
    ],
)
def test_a_text_tower_s_config_runs_no_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: object
) -> None:
    import huggingface_hub

    path = folder / "tower" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"model_type": "xlm-roberta", key: value}))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(path))
    edit_clip(folder, "text_cfg", "hf_model_name", "org/tower")
    with pytest.raises(WeightsError, match=key):
        load_model(folder)


def test_a_folder_s_tokenizer_is_not_fetched_with_local_files_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    wishes = []

    def ask(name: str, **options: Any) -> None:
        wishes.append((name, options))
        raise OSError("not here")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", ask)
    edit_clip(folder, "text_cfg", "hf_tokenizer_name", "org/words")
    edit_clip(folder, "text_cfg", "tokenizer_kwargs", {"clean": "canonicalize"})
    with pytest.raises(WeightsError, match="org/words"):
        load_model(folder)
    (wish,) = wishes
    assert wish[1]["local_files_only"] is True
    assert wish[1]["trust_remote_code"] is False


@pytest.mark.parametrize("name", ["hf-hub:org/backbone", "local-dir:/b", "org/backbone", "../b"])
def test_a_backbone_is_a_plain_timm_name(folder: Path, name: str) -> None:
    edit(folder / "config.json", lambda content: content["sam"]["encoder"].update(name=name))
    with pytest.raises(WeightsError, match="encoder name") as error:
        load_model(folder)
    assert name in str(error.value)


def test_a_clip_that_is_named_must_be_there(folder: Path) -> None:
    (folder / "clip").rename(folder / "elsewhere")
    with pytest.raises(WeightsError, match=r"'random-clip'.*clip"):
        load_model(folder)
    edit(folder / "config.json", lambda content: content.update(clip=None))
    model = TextSAM.from_pretrained(folder)
    assert model.clip is None


def test_every_model_of_open_clip_passes_the_list(tmp_path: Path) -> None:
    from textsam.clip.allowed_config import check_model_config

    for name in open_clip.list_models():
        check_model_config(open_clip.get_model_config(name), path=tmp_path)
