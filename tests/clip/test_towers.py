"""Towers of other kinds, as the hub holds them: many languages (XLM-R), sigmoid scores (SigLIP).

Small and random, in the files and with the config that open_clip's own models have, read from a hub
cache without the network, and asked through the same call as any other.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import Unigram
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig

from textsam.clip.encoder import ClipEncoder
from textsam.clip.pathway import PathwayConfig, TextPathway
from textsam.inference.model import TextSAM
from textsam.modeling.config import SamConfig, TimmConfig
from textsam.modeling.sam import Sam
from textsam.values.settings import AUTOMATIC_PRESETS, AutomaticSettings

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WORDS = (
    *("a", "wheel", "un", "roue", "ein", "Rad", "車輪", "колесо", "bicycle", "vélo", "Fahrrad"),
    *("自行车", "the", "of", "photo"),
)
ALL = AutomaticSettings(
    points_per_side=4, pred_iou_thresh=-99.0, stability_score_thresh=0.0, box_nms_thresh=1.0
)

XLM = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 32, "head_width": 16, "layers": 2},
    "text_cfg": {
        "hf_model_name": "towers/xlm",
        "hf_tokenizer_name": "towers/xlm",
        "hf_pooler_type": "mean_pooler",
    },
}
SIGLIP = {
    "embed_dim": 96,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 160,
        "timm_model_name": "test_vit3",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": {
        "context_length": 16,
        "vocab_size": 160,
        "hf_tokenizer_name": "towers/siglip-words",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": 96,
        "heads": 2,
        "layers": 2,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-06},
    },
}


def in_cache(cache: Path, repository: str) -> Path:
    """The folder in which a hub cache holds the files of a repository."""
    root = cache / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / "main").write_text(COMMIT)
    folder = root / "snapshots" / COMMIT
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_words(folder: Path) -> int:
    """A sentencepiece-like tokenizer (Unigram); returns the size of its vocabulary."""
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0)]
    letters = sorted({letter for word in WORDS for letter in word.lower()} | set("▁"))
    pieces += [(letter, -6.0) for letter in letters] + [(f"▁{w.lower()}", -2.0) for w in WORDS]
    pieces = list(dict(pieces).items())
    raw = Tokenizer(Unigram(pieces, unk_id=3))
    raw.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Metaspace()
    special = {
        *(("bos_token", "<s>"), ("pad_token", "<pad>")),
        *(("eos_token", "</s>"), ("unk_token", "<unk>")),
    }
    PreTrainedTokenizerFast(tokenizer_object=raw, **dict(special)).save_pretrained(folder)
    return len(pieces)


def write_tower(cache: Path, kind: str) -> None:
    folder = in_cache(cache, f"towers/{kind}")
    torch.manual_seed(0)
    config: dict[str, Any] = json.loads(json.dumps({"xlm": XLM, "siglip": SIGLIP}[kind]))
    build = json.loads(json.dumps(config))
    if kind == "xlm":
        size = write_words(folder)
        XLMRobertaConfig(
            vocab_size=size,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
            max_position_embeddings=90,
            type_vocab_size=1,
        ).save_pretrained(folder)
        build["text_cfg"] |= {"hf_model_name": str(folder), "hf_model_pretrained": False}
    else:
        words = in_cache(cache, "towers/siglip-words")
        assert write_words(words) <= 160
        # How a cache remembers that the hub has no such file: SigLIP's has a tokenizer only.
        lacking = words.parents[1] / ".no_exist" / COMMIT / "config.json"
        lacking.parent.mkdir(parents=True)
        lacking.touch()
        build.pop("custom_text")
    model = open_clip.CustomTextCLIP(**build)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    half = [0.5, 0.5, 0.5]
    content = {"model_cfg": config, "preprocess_cfg": {"mean": half, "std": half}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ClipEncoder]:
    cache = tmp_path_factory.mktemp("hub")
    loaded: dict[str, ClipEncoder] = {}

    def load(kind: str) -> ClipEncoder:
        if kind not in loaded:
            write_tower(cache, kind)
            loaded[kind] = ClipEncoder.from_pretrained(
                f"hf-hub:towers/{kind}", cache_dir=cache, local_files_only=True
            )
        return loaded[kind]

    return load


def small_sam() -> Sam:
    torch.manual_seed(1)
    return Sam(
        SamConfig(
            encoder=TimmConfig(name="test_efficientnet"),
            image_size=64,
            embed_dim=32,
            decoder_heads=4,
            decoder_mlp=48,
            iou_hidden=24,
            first_layer_residual=True,
        )
    )


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (50, 90, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["xlm", "siglip"])
def test_phrases_are_what_open_clip_makes_of_them(
    towers: Callable[[str], ClipEncoder], kind: str
) -> None:
    encoder = towers(kind)
    phrases = ["roue", "車輪", "колесо", "ein Fahrrad"]
    tokens = encoder.tokenizer(phrases)
    assert len({tuple(row) for row in tokens.tolist()}) == 4  # no tongue is <unk>
    with torch.no_grad():
        wanted = encoder.model.encode_text(tokens, normalize=True)
    got = encoder.encode_text(phrases, templates="{}")
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    assert encoder.is_pairwise == (kind == "siglip")


@pytest.mark.parametrize("strategy", ["rank", "auto", "prompt"])
@pytest.mark.parametrize("kind", ["xlm", "siglip"])
def test_the_same_call(
    towers: Callable[[str], ClipEncoder],
    kind: str,
    strategy: str,
    photo: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(AUTOMATIC_PRESETS, "fast", ALL)
    clip = towers(kind)
    config = PathwayConfig(
        clip_width=clip.width,
        prompt_width=32,
        hidden=24,
        dense_channels=(32, 48, 64),  # of the core's backbone: it serves any CLIP
        dense_width=16,
        dense_image_size=64,
        dense_source="sam",
    )
    pathway = None if strategy == "rank" else TextPathway(config)
    model = TextSAM(small_sam(), clip=clip, pathway=pathway, name=kind)
    found = model.segment(photo, text=["車輪", "vélo"], strategy=strategy, threshold=0.001)
    assert [answer.phrase for answer in found.answers] == ["車輪", "vélo"]
    assert set(found.presence) == {"車輪", "vélo"}
    assert all(0 <= value <= 1 for value in found.presence.values())
    if strategy == "prompt":
        assert found.class_names() == ["車輪", "vélo"]


def test_a_sigmoid_tower_s_score_is_its_own_probability(
    towers: Callable[[str], ClipEncoder], photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SigLIP's sigmoid of scale x cosine + bias (arXiv 2303.15343), whatever else is asked."""
    monkeypatch.setitem(AUTOMATIC_PRESETS, "fast", ALL)
    clip = towers("siglip")
    monkeypatch.setattr(clip.model, "logit_bias", torch.nn.Parameter(torch.tensor(0.0)))
    model = TextSAM(small_sam(), clip=clip, name="siglip")
    view = model.open(photo)
    found = view.segment(text="roue", strategy="rank", threshold=0.001)
    assert len(found)
    [text] = clip.encode_text(["roue"])
    for item in found:
        [own] = clip.encode_masks(photo, [item.mask], expand=1.5)
        logit = clip.model.logit_scale.detach().exp() * (own @ text)
        assert item.score == pytest.approx(float(torch.sigmoid(logit)), abs=1e-4)
    beside = view.segment(text=["roue", "vélo"], strategy="rank", threshold=0.001)["roue"]
    np.testing.assert_allclose(beside.scores, found.scores, rtol=1e-6)  # products of other shapes
