"""ClipEncoder: sources of models, folders that round-trip offline, text cache, and crops."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import textsam.clip.loading
from textsam.clip import encoder as encoder_module
from textsam.clip.encoder import ClipEncoder
from textsam.errors import ImageError, PromptError, WeightsError

SIDE = 32
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
VIT = {"image_size": SIDE, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "vit": {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TEXT},
    "tiny-like": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 64,
            "timm_model_name": "test_efficientnet",
            "timm_pool": "avg",
            "timm_proj": "mlp",
        },
        "text_cfg": TEXT,
    },
    "resnet": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32},
        "text_cfg": TEXT,
    },
    "siglip-like": {
        "embed_dim": 96,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 160,
            "timm_model_name": "test_vit3",
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": TEXT
        | {
            "vocab_size": 64,
            "context_length": 8,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": 1e-6},
        },
    },
}


class LetterTokenizer:
    """Stands in for a sentencepiece tokenizer: one token a letter, padded with ones."""

    def __call__(self, texts: list[str]) -> Tensor:
        tokens = torch.ones(len(texts), 8, dtype=torch.long)
        for row, text in enumerate(texts):
            codes = [2 + ord(letter) % 62 for letter in text.lower()[:8]]
            tokens[row, : len(codes)] = torch.tensor(codes)
        return tokens


def make(kind: str) -> ClipEncoder:
    torch.manual_seed(0)
    config = json.loads(json.dumps(CONFIGS[kind]))
    build = dict(config)
    custom = build.pop("custom_text", False)
    model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**build)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    length = config["text_cfg"]["context_length"]
    letters = config["text_cfg"]["vocab_size"] == 64
    return ClipEncoder.from_model(
        model,
        tokenizer=LetterTokenizer()
        if letters
        else open_clip.SimpleTokenizer(context_length=length),
        name=kind,
        config=config,
        mean=MEAN,
        std=STD,
    )


@pytest.fixture(scope="module")
def encoders() -> dict[str, ClipEncoder]:
    return {kind: make(kind) for kind in CONFIGS}


def random_crops(encoder: ClipEncoder, count: int = 5) -> tuple[Tensor, Tensor]:
    side = encoder.image_size
    masks = torch.zeros(count, side, side)
    masks[:, side // 4 : side // 2, side // 4 :] = 1
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8), masks


# --- text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONFIGS)
def test_text_embeddings_have_length_one_and_batches_equal_loops(
    encoders: dict[str, ClipEncoder], kind: str
) -> None:
    encoder = encoders[kind]
    phrases = ["wheel", "a red door", "cat", "wheel"]
    encoder.clear_cache()
    batch = encoder.encode_text(phrases, batch_size=2)
    assert batch.shape == (4, encoder.width)
    assert batch.dtype == torch.float32
    torch.testing.assert_close(batch.norm(dim=1), torch.ones(4))
    assert torch.equal(batch[0], batch[3])
    assert not torch.equal(batch[0], batch[1])
    encoder.clear_cache()
    loop = torch.cat([encoder.encode_text([phrase]) for phrase in phrases])
    torch.testing.assert_close(batch, loop, rtol=1e-5, atol=1e-6)


def test_templates_are_averaged_on_the_sphere(encoders: dict[str, ClipEncoder]) -> None:
    encoder = encoders["vit"]
    templates = ("a photo of a {}.", "the {}")
    got = encoder.encode_text(["wheel", "door"], templates=templates)
    sentences = [[t.format(p) for p in ("wheel", "door")] for t in templates]
    parts = [encoder.encode_text(both, plain=False) for both in sentences]
    torch.testing.assert_close(got, F.normalize(parts[0] + parts[1], dim=-1))
    assert not torch.allclose(got, encoder.encode_text(["wheel", "door"]))


def test_braces_in_a_phrase_are_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make("vit")
    sentences: list[str] = []
    tokenizer = encoder.tokenizer
    monkeypatch.setattr(
        encoder, "tokenizer", lambda texts: [sentences.extend(texts), tokenizer(texts)][1]
    )
    encoder.encode_text("{0} {}", templates=["a {}.", "the {}"])
    assert sentences == ["a {0} {}.", "the {0} {}"]


def test_a_model_s_own_templates_are_its_default() -> None:
    encoder = make("vit")
    encoder.templates = ("a {}",)
    plain = encoder.encode_text(["a wheel"], templates="plain", plain=False)
    torch.testing.assert_close(encoder.encode_text("wheel"), plain)


def count_texts(encoder: ClipEncoder) -> list[int]:
    """Wrap the tokenizer; the list grows by the number of sentences of every call."""
    counts: list[int] = []
    original = encoder.tokenizer

    def counted(texts: list[str]) -> Tensor:
        counts.append(len(texts))
        return original(texts)

    encoder.tokenizer = counted
    return counts


def test_every_phrase_is_embedded_once() -> None:
    encoder = make("vit")
    counts = count_texts(encoder)
    first = encoder.encode_text(["wheel", "door", "wheel"])
    again = encoder.encode_text(["door", "wheel", "  door "])
    assert counts == [2]
    assert torch.equal(first[[1, 0, 1]], again)
    encoder.encode_text(["door"], templates="photo")
    assert counts == [2, 1]
    encoder.clear_cache()
    encoder.encode_text(["door"])
    assert counts == [2, 1, 1]


def test_the_cache_is_bounded_and_keeps_what_was_used_last() -> None:
    encoder = make("vit")
    encoder.cache_size = 3
    counts = count_texts(encoder)
    assert len(encoder.encode_text([f"thing {k}" for k in range(10)])) == 10
    assert len(encoder._cache) == 3
    encoder.encode_text(["thing 7"])  # the oldest of the three becomes the newest
    encoder.encode_text(["new"])
    encoder.encode_text(["thing 7", "thing 9"])
    assert counts == [10, 1]
    encoder.encode_text(["thing 8"])
    assert counts == [10, 1, 1]


def test_changing_a_result_does_not_change_the_cache(encoders: dict[str, ClipEncoder]) -> None:
    encoder = encoders["vit"]
    wanted = encoder.encode_text(["boat"]).clone()
    encoder.encode_text(["boat"]).zero_()
    assert torch.equal(encoder.encode_text(["boat"]), wanted)


def test_embeddings_may_be_trained_on(encoders: dict[str, ClipEncoder]) -> None:
    """They are no inference tensors, which autograd would refuse to save."""
    encoder = encoders["vit"]
    crops, masks = random_crops(encoder)
    layer = nn.Linear(encoder.width, 4)
    for embedding in (encoder.encode_text(["wheel"]), encoder.encode_crops(crops, masks)):
        assert not embedding.requires_grad
        layer(embedding).square().sum().backward()


@pytest.mark.parametrize("bad", [[], "", ["wheel", " "], [3], None, [["wheel"]]])
def test_bad_phrases_are_refused(encoders: dict[str, ClipEncoder], bad: Any) -> None:
    with pytest.raises(PromptError):
        encoders["vit"].encode_text(bad)


# --- crops ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONFIGS)
def test_crop_embeddings_have_length_one_and_batches_equal_loops(
    encoders: dict[str, ClipEncoder], kind: str
) -> None:
    encoder = encoders[kind]
    crops, masks = random_crops(encoder)
    for inside in (None, masks):
        batch = encoder.encode_crops(crops, inside, batch_size=2)
        assert batch.shape == (5, encoder.width)
        torch.testing.assert_close(batch.norm(dim=1), torch.ones(5))
        for k in range(5):
            one = encoder.encode_crops(crops[k : k + 1], None if inside is None else masks[k, None])
            torch.testing.assert_close(batch[k], one[0], rtol=1e-4, atol=1e-5)


def test_without_masks_it_is_open_clip_s_embedding(encoders: dict[str, ClipEncoder]) -> None:
    encoder = encoders["vit"]
    crops, _ = random_crops(encoder)
    pixels = crops.float() / 255
    pixels = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    with torch.no_grad():
        wanted = encoder.model.encode_image(pixels, normalize=True)
    torch.testing.assert_close(encoder.encode_crops(crops), wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(encoder.encode_crops(pixels), wanted, rtol=1e-5, atol=1e-6)


def test_encode_masks_crops_and_embeds(encoders: dict[str, ClipEncoder]) -> None:
    encoder = encoders["tiny-like"]
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    masks = np.zeros((3, 50, 70), bool)
    masks[0, 5:20, 5:30] = masks[1, 30:45, 40:60] = masks[2] = True
    got = encoder.encode_masks(image, masks, expand=1.5, zero_outside=[True, False, True])
    assert got.shape == (3, encoder.width)
    noisy = image.copy()
    noisy[~masks[0]] = 255
    again = encoder.encode_masks(noisy, masks[:1], expand=1.5, zero_outside=True)
    torch.testing.assert_close(again, got[:1])
    assert encoder.encode_masks(image, masks[:0]).shape == (0, encoder.width)


def test_crops_that_do_not_fit_are_refused(encoders: dict[str, ClipEncoder]) -> None:
    encoder = encoders["vit"]
    crops, masks = random_crops(encoder)
    for bad in (crops[0], crops[..., :16], crops.permute(0, 2, 3, 1)):
        with pytest.raises(ImageError, match="square_crops"):
            encoder.encode_crops(bad)
    with pytest.raises(ImageError, match="uint8"):
        encoder.encode_crops(crops.long())
    with pytest.raises(PromptError):
        encoder.encode_crops(crops, masks[:2])
    with pytest.raises(PromptError, match="empty"):
        encoder.encode_crops(crops, masks * 0)


def test_logits_are_the_model_s_own(encoders: dict[str, ClipEncoder]) -> None:
    for kind in ("vit", "siglip-like"):
        encoder = encoders[kind]
        crops, _ = random_crops(encoder)
        phrases = ["wheel", "door"]
        with torch.no_grad():
            tokens = encoder.tokenizer(phrases)
            wanted, _ = encoder.model.get_logits(encoder.normalize(crops), tokens)
        got = encoder.logits(encoder.encode_crops(crops), encoder.encode_text(phrases))
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


# --- sources --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vit", "tiny-like", "resnet"])
def test_a_folder_round_trips(encoders: dict[str, ClipEncoder], kind: str, tmp_path: Path) -> None:
    encoder = encoders[kind]
    crops, masks = random_crops(encoder)
    folder = encoder.save(tmp_path / "clip")
    assert sorted(file.name for file in folder.iterdir()) == [
        "open_clip_config.json",
        "open_clip_model.safetensors",
    ]
    for name in (folder, str(folder), f"local-dir:{folder}"):
        loaded = ClipEncoder.from_pretrained(name, local_files_only=True)
        assert (loaded.name, loaded.width) == (kind, 24)
        assert (loaded.mean, loaded.std) == (MEAN, STD)
        assert loaded.image_size == encoder.image_size
        assert loaded.config == CONFIGS[kind]
        for key, value in encoder.model.state_dict().items():
            assert torch.equal(value, loaded.model.state_dict()[key]), key
        assert torch.equal(loaded.encode_text(["wheel"]), encoder.encode_text(["wheel"]))
        assert torch.equal(loaded.encode_crops(crops, masks), encoder.encode_crops(crops, masks))


def test_open_clip_reads_the_folder_too(encoders: dict[str, ClipEncoder], tmp_path: Path) -> None:
    encoder = encoders["tiny-like"]
    encoder.save(tmp_path)
    model = open_clip.create_model(f"local-dir:{tmp_path}", require_pretrained=True).eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(["wheel"])
    with torch.no_grad():
        got = model.encode_text(tokens, normalize=True)
    torch.testing.assert_close(got, encoder.encode_text(["wheel"]))
    assert open_clip.get_model_preprocess_cfg(model)["mean"] in (MEAN, list(MEAN))


def test_half_precision_files_load_as_float(
    encoders: dict[str, ClipEncoder], tmp_path: Path
) -> None:
    encoder = encoders["tiny-like"]
    encoder.save(tmp_path / "half", dtype=torch.float16)
    encoder.save(tmp_path / "full")
    sizes = [
        (tmp_path / which / "open_clip_model.safetensors").stat().st_size
        for which in ("half", "full")
    ]
    assert sizes[0] < 0.55 * sizes[1]
    loaded = ClipEncoder.from_pretrained(tmp_path / "half")
    assert loaded.dtype == torch.float32
    cosine = (loaded.encode_text(["wheel"]) * encoder.encode_text(["wheel"])).sum()
    assert float(cosine) > 0.999


@pytest.mark.parametrize("kind", ["vit", "tiny-like", "resnet"])
def test_low_precision_in_memory(
    encoders: dict[str, ClipEncoder], kind: str, tmp_path: Path
) -> None:
    encoder = encoders[kind]
    encoder.save(tmp_path)
    loaded = ClipEncoder.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert loaded.dtype == torch.bfloat16
    crops, masks = random_crops(encoder)
    for got, wanted in (
        (loaded.encode_text(["wheel"]), encoder.encode_text(["wheel"])),
        (loaded.encode_crops(crops, masks), encoder.encode_crops(crops, masks)),
    ):
        assert got.dtype == torch.float32
        assert float((got * wanted).sum(1).amin()) > 0.99


def test_templates_travel_with_the_folder(tmp_path: Path) -> None:
    encoder = make("vit")
    encoder.templates = ("a {}", "the {}")
    encoder.save(tmp_path)
    assert ClipEncoder.from_pretrained(tmp_path).templates == ("a {}", "the {}")
    assert ClipEncoder.from_pretrained(tmp_path, templates="photo").templates[0].startswith("a ph")


def test_a_folder_loads_fast_and_without_random_numbers(
    encoders: dict[str, ClipEncoder], tmp_path: Path
) -> None:
    encoders["tiny-like"].save(tmp_path)
    state = torch.random.get_rng_state()
    seconds = []
    for _ in range(3):
        start = time.process_time()
        ClipEncoder.from_pretrained(tmp_path, local_files_only=True)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 1.0
    assert torch.equal(torch.random.get_rng_state(), state)


def test_nothing_in_a_folder_asks_for_pretrained_parts(
    encoders: dict[str, ClipEncoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm

    encoders["tiny-like"].save(tmp_path)
    path = tmp_path / "open_clip_config.json"
    content = json.loads(path.read_text())
    content["model_cfg"]["vision_cfg"]["timm_model_pretrained"] = True
    path.write_text(json.dumps(content))
    seen = []
    original = timm.create_model

    def create(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["pretrained"])
        return original(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", create)
    ClipEncoder.from_pretrained(tmp_path)
    assert seen == [False]


@pytest.mark.parametrize("damage", ["no config", "bad config", "no weights", "bad weights", "key"])
def test_damaged_folders_are_refused(
    encoders: dict[str, ClipEncoder], tmp_path: Path, damage: str
) -> None:
    encoders["vit"].save(tmp_path)
    config, weights = (tmp_path / name for name in ("open_clip_config.json", FILE))
    if damage == "no config":
        config.unlink()
    elif damage == "bad config":
        config.write_text("[1]")
    elif damage == "no weights":
        weights.unlink()
    elif damage == "bad weights":
        weights.write_bytes(b"nothing")
    else:
        from safetensors.torch import load_file, save_file

        tensors = load_file(weights)
        tensors.pop("visual.proj")
        save_file(tensors, weights)
    with pytest.raises(WeightsError, match="visual.proj" if damage == "key" else tmp_path.name):
        ClipEncoder.from_pretrained(tmp_path)


FILE = "open_clip_model.safetensors"


@pytest.fixture
def hub(
    encoders: dict[str, ClipEncoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[tuple[str, str, bool]]]:
    """A hub in a folder. Returns a function: files it holds -> the requests it gets."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    encoders["vit"].save(tmp_path)
    requests: list[tuple[str, str, bool]] = []

    def start(*held: str) -> list[tuple[str, str, bool]]:
        def download(
            repo: str, name: str, *, revision: str | None, cache_dir: Any, local_files_only: bool
        ) -> str:
            repo = repo if revision is None else f"{repo} at {revision}"
            requests.append((repo, name, local_files_only))
            if name not in held:
                raise LocalEntryNotFoundError(f"{name} is not here")
            return str(tmp_path / name)

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        return requests

    return start


def test_hub_ids_are_read_and_local_files_only_is_passed_on(hub: Callable[..., Any]) -> None:
    requests = hub("open_clip_config.json", FILE)
    encoder = ClipEncoder.from_pretrained("hf-hub:org/clip", local_files_only=True)
    assert encoder.mean == MEAN
    assert requests == [
        ("org/clip", "open_clip_config.json", True),
        ("org/clip", FILE, True),
    ]
    ClipEncoder.from_pretrained("hf-hub:org/clip@v1")
    assert requests[2:] == [
        ("org/clip at v1", "open_clip_config.json", False),
        ("org/clip at v1", FILE, False),
    ]


def test_what_is_not_in_the_cache_is_said(hub: Callable[..., Any]) -> None:
    hub("open_clip_config.json")
    with pytest.raises(WeightsError, match=r"open_clip_model\.safetensors.*org/clip"):
        ClipEncoder.from_pretrained("hf-hub:org/clip", local_files_only=True)
    hub()
    with pytest.raises(WeightsError, match="vit_large_patch14_clip_336"):
        ClipEncoder.from_pretrained("ViT-L-14-336/openai", local_files_only=True)


def test_no_network_is_tried_with_local_files_only(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="org/clip"):
        ClipEncoder.from_pretrained("hf-hub:org/clip", local_files_only=True, cache_dir=tmp_path)


@pytest.mark.parametrize("typed", ["small/quick", "small::quick"])
@pytest.mark.parametrize("quick", [True, False])
def test_a_tag_decides_on_quick_gelu_and_preprocessing(
    hub: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, typed: str, quick: bool
) -> None:
    """open_clip only warns when `ViT-L-14-336/openai` lacks the activation it was trained with."""
    from open_clip import factory, pretrained

    requests = hub(FILE)
    entry = {"hf_hub": "org/small/", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    monkeypatch.setitem(factory._MODEL_CONFIGS, "small", CONFIGS["vit"])
    monkeypatch.setitem(pretrained._PRETRAINED, "small", {"quick": entry | {"quick_gelu": quick}})
    encoder = ClipEncoder.from_pretrained(typed, local_files_only=True)
    assert encoder.name == "small/quick"
    assert encoder.mean == (0.5, 0.5, 0.5)
    assert requests == [("org/small", FILE, True)]
    activation = encoder.model.visual.transformer.resblocks[0].mlp.gelu
    assert (type(activation).__name__ == "QuickGELU") is quick
    assert encoder.config is not None
    assert encoder.config["quick_gelu"] is quick


def test_a_checkpoint_file_after_a_name(
    hub: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from open_clip import factory

    requests = hub()
    monkeypatch.setitem(factory._MODEL_CONFIGS, "small", CONFIGS["vit"])
    encoder = ClipEncoder.from_pretrained(f"small::{tmp_path / FILE}")
    assert encoder.width == 24
    assert requests == []


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("ViT-L-14-336/openia", "openai"),
        ("ViT-L-14-336", "ViT-L-14-336::openai"),
        ("ViT-L-14-33/openai", "ViT-L-14-336/openai"),
        ("./nothing/here", "hf-hub:"),
        ("", "hf-hub:"),
    ],
)
def test_unknown_names_say_what_to_type(typed: str, hint: str) -> None:
    with pytest.raises(WeightsError, match=hint):
        ClipEncoder.from_pretrained(typed, local_files_only=True)


def test_tiny_is_the_shipped_folder(
    encoders: dict[str, ClipEncoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert textsam.clip.loading.TINY_FOLDER.parts[-2:] == ("weights", "tiny")
    encoders["tiny-like"].save(tmp_path / "clip")
    monkeypatch.setattr(textsam.clip.loading, "TINY_FOLDER", tmp_path)
    assert ClipEncoder.from_pretrained("tiny").width == 24


# --- models in memory -----------------------------------------------------------------------------


def test_the_width_is_found_without_a_config() -> None:
    for kind in CONFIGS:
        known = make(kind)
        encoder = ClipEncoder.from_model(known.model, tokenizer=known.tokenizer, name="mine")
        assert encoder.width == known.width
        with pytest.raises(WeightsError, match="config=model_cfg"):
            encoder.save("nowhere")


def test_mean_and_std_are_not_guessed() -> None:
    model = open_clip.CLIP(**CONFIGS["vit"])
    tokenizer = open_clip.SimpleTokenizer(context_length=16)
    with pytest.raises(WeightsError, match="mean="):
        ClipEncoder.from_model(model, tokenizer=tokenizer, name="mine")


def test_evaluation_mode_and_moves() -> None:
    encoder = make("vit")
    assert not encoder.model.training
    assert all(parameter.requires_grad for parameter in encoder.model.parameters())
    encoder.encode_text(["wheel"])
    assert encoder.to("cpu") is encoder
    assert len(encoder._cache) == 0
    assert encoder.device == torch.device("cpu")


def test_importing_the_package_is_light() -> None:
    """open_clip and timm are slow to import; only a model that is built needs them."""
    import subprocess
    import sys

    code = (
        "import sys, textsam.clip.encoder, textsam.clip.masked; "
        "sys.exit(any(m in sys.modules for m in ('open_clip', 'timm', 'torchvision')))"
    )
    assert encoder_module.__file__ is not None
    root = Path(encoder_module.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_phrases_are_read_plainly_and_by_aliases(tmp_path: Path) -> None:
    encoder = make("vit")
    plain = encoder.encode_text(["dog", "old steering wheel", "Dog"])
    typed = encoder.encode_text(['"the dog."', "an old steering wheel!", "the Dog"])
    assert torch.equal(plain, typed)
    encoder.aliases = {"wheels": "wheel", "steering wheel": "steering wheel", "racket": "bat"}
    encoder.aliases["tennis racket"] = "tennis racket"
    read = {"old Wheels": "old wheel", "tennis racket": "tennis racket", "wheels of a car": None}
    for phrase, other in read.items():
        assert encoder.plain(phrase) == (other or phrase)
    loaded = ClipEncoder.from_pretrained(encoder.save(tmp_path))
    assert loaded.aliases == encoder.aliases
    assert torch.equal(loaded.encode_text("wheels"), loaded.encode_text("wheel"))
    loaded.plain_phrases = False
    assert not torch.equal(loaded.encode_text("wheels"), loaded.encode_text("wheel"))


@pytest.mark.parametrize("content", ["[]", '{"a": 1}', '{"a": ""}', "{"])
def test_aliases_that_are_no_words_are_refused(tmp_path: Path, content: str) -> None:
    folder = make("vit").save(tmp_path)
    (folder / "aliases.json").write_text(content)
    with pytest.raises(WeightsError, match="aliases"):
        ClipEncoder.from_pretrained(folder)
