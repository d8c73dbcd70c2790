"""Strict two-way key maps and safe reading; with real foreign key sets: tests/parity."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from textsam.errors import WeightsError
from textsam.modeling.config import SAM_CONFIGS, SamConfig, TimmConfig, TinyViTConfig, ViTConfig
from textsam.modeling.sam import Sam
from textsam.weights.convert import (
    config_from_huggingface,
    config_to_huggingface,
    read_checkpoint,
    write_huggingface,
)
from textsam.weights.released_names import (
    from_huggingface,
    from_mobile_sam,
    from_official,
    to_huggingface,
    to_mobile_sam,
    to_official,
)
from textsam.weights.strict import KeyMap, infer_config, mlp_ratio

VIT = SamConfig(
    encoder=ViTConfig(width=12, depth=3, heads=2, global_attention_indexes=(1,), mlp_ratio=2.5),
    image_size=96,
    embed_dim=32,
    mask_channels=8,
    decoder_mlp=24,
    multimasks=2,
    iou_depth=4,
    iou_hidden=20,
)
TINY = SamConfig(
    encoder=TinyViTConfig(
        widths=(8, 8, 12, 16), depths=(1, 2, 1, 1), heads=(2, 1, 3, 2), window_sizes=(7, 3, 4, 5)
    ),
    embed_dim=32,
)
WAYS = {
    "official": (VIT, to_official, from_official),
    "huggingface": (VIT, to_huggingface, from_huggingface),
    "mobile_sam": (TINY, to_mobile_sam, from_mobile_sam),
    "hq official": (replace(VIT, hq=True), to_official, from_official),
    "hq huggingface": (replace(VIT, hq=True), to_huggingface, from_huggingface),
    "hq light": (replace(TINY, hq=True), to_mobile_sam, from_mobile_sam),
}


def random_state(config: SamConfig, dtype=torch.float32):
    torch.manual_seed(0)
    state = Sam(config).state_dict()
    return {
        k: torch.randn(t.shape).to(dtype if t.is_floating_point() else t.dtype)
        for k, t in state.items()
    }


@pytest.fixture(params=WAYS)
def way(request):
    config, to_theirs, from_theirs = WAYS[request.param]
    return random_state(config), to_theirs, from_theirs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", WAYS)
def test_round_trip_is_the_identity(name, dtype):
    config, to_theirs, from_theirs = WAYS[name]
    state = random_state(config, dtype)
    theirs = to_theirs(state)
    back = from_theirs(theirs)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)
    assert all(back[key].dtype == state[key].dtype for key in state)
    again = to_theirs(back)
    assert again.keys() == theirs.keys()
    assert all(torch.equal(again[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("config", [VIT, TINY, *SAM_CONFIGS.values()])
def test_sizes_are_read_off_the_shapes(config):
    with torch.device("meta"):
        state = Sam(config).state_dict()
    assert infer_config(state) == config


def test_grid_as_large_as_a_window_is_read_as_global():
    with torch.device("meta"):
        state = Sam(SamConfig(encoder=VIT.encoder, image_size=224)).state_dict()
    assert infer_config(state).encoder.global_attention_indexes == (0, 1, 2)


def test_every_missing_key_is_named(way):
    state, to_theirs, from_theirs = way
    theirs = to_theirs(state)
    unused = ("image_encoder.head.", "image_encoder.norm_head.")
    for key in theirs:
        if key.startswith(unused):
            continue
        with pytest.raises(WeightsError) as error:
            from_theirs({k: t for k, t in theirs.items() if k != key})
        assert key in str(error.value)


@pytest.mark.parametrize(
    "key",
    [
        "surprise",
        "image_encoder.neck.0.bias",
        "mask_decoder.iou_token.weight.more",
        "mask_decoder.upscale_1.gain",  # ours, not theirs
        "prompt_encoder.point_embeddings.weight",
        "vision_encoder.layers.0.attn.q_norm",
    ],
)
def test_extra_keys_are_named(way, key):
    state, to_theirs, from_theirs = way
    with pytest.raises(WeightsError, match=f"unexpected: {key}"):
        from_theirs({**to_theirs(state), key: torch.zeros(1)})


def test_wrong_shapes_are_named(way):
    state, to_theirs, from_theirs = way
    theirs = to_theirs(state)
    key = "mask_decoder.iou_token.weight"
    with pytest.raises(WeightsError, match=rf"{key} is \(1, 5\), wanted \(1, 32\)"):
        from_theirs({**theirs, key: torch.zeros(1, 5)})
    stacked = next(k for k in theirs if ".point_embed" in k)
    with pytest.raises(WeightsError, match=stacked):
        from_theirs({**theirs, stacked: torch.zeros(1, 5)})
    with pytest.raises(WeightsError, match="wanted 2 dimensions"):
        from_theirs({**theirs, "mask_decoder.mask_tokens.weight": torch.zeros(1, 3, 32)})


def test_incomplete_weights_of_ours_are_refused(way):
    state, to_theirs, _ = way
    state.pop("mask_decoder.iou_token.weight")
    with pytest.raises(WeightsError, match=r"missing: mask_decoder\.iou_token\.weight"):
        to_theirs(state)


def test_networks_without_counterpart_are_refused():
    with pytest.raises(WeightsError, match=r"no counterpart for image_encoder\.stem"):
        to_official(random_state(TINY))
    with pytest.raises(WeightsError, match=r"no counterpart for image_encoder\."):
        to_mobile_sam(random_state(VIT))
    with pytest.raises(WeightsError, match="ViT image encoder"):
        config_to_huggingface(SamConfig(encoder=TimmConfig(name="resnet18")))


def test_absurd_indices_do_not_build_absurd_networks():
    state = to_official(random_state(VIT))
    state["mask_decoder.transformer.layers.999999999.norm1.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError, match="beyond the number of weights"):
        from_official(state)


def test_tied_matrix_of_old_huggingface_files():
    state = to_huggingface(random_state(VIT))
    tied, name = (
        state["shared_image_embedding.positional_embedding"],
        "prompt_encoder.shared_embedding",
    )
    assert from_huggingface({**state, f"{name}.positional_embedding": tied.clone()})
    with pytest.raises(WeightsError, match="differ"):
        from_huggingface({**state, f"{name}.positional_embedding": tied + 1})


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize("name", ["official", "mobile_sam"])
def test_read_file(tmp_path, name, suffix):
    config, to_theirs, _ = WAYS[name]
    state, path = random_state(config), tmp_path / f"model{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(to_theirs(state), path)
    found, weights = read_checkpoint(path)
    assert found == config
    assert all(torch.equal(weights[key], state[key]) for key in state)
    Sam(found).load_state_dict(weights, strict=True)


class Malicious:
    """Unpickling this would create a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize(
    "write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))]
)
def test_pickled_code_does_not_run(tmp_path, write):
    path, target = tmp_path / "model.pth", tmp_path / "owned"
    write({"image_encoder.x": Malicious(target)}, path)
    with pytest.raises(WeightsError, match="weights_only=True"):
        read_checkpoint(path)
    assert not target.exists()


def test_files_that_are_no_checkpoint(tmp_path):
    def check(message, *, name="model.pth", value=None):
        path = tmp_path / name
        if value is not None:
            torch.save(value, path)
        with pytest.raises(WeightsError, match=message):
            read_checkpoint(path)

    check("there is no file or folder", name="absent.pth")
    check("not a plain state dict: epoch", value={"epoch": 3, "image_encoder.x": torch.zeros(1)})
    check("contains a list", value=[torch.zeros(1)])
    sam_2 = {"model": {"image_encoder.trunk.pos_embed": torch.zeros(1)}}
    check(r"SAM 2 file.*facebook/sam2\.1-hiera", value=sam_2)
    check(r"no key begins with 'image_encoder\.'", value={"layer.weight": torch.zeros(1)})
    check("give the folder", value=to_huggingface(random_state(VIT)))
    check("ends in '.xyz'", name="model.xyz", value={})
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    check("not a safetensors file", name="broken.safetensors")
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    check("weights_only", name="broken.pth")


@pytest.mark.parametrize(("config", "write"), [(VIT, to_official), (TINY, to_mobile_sam)])
def test_official_sam_hq_files(tmp_path, config, write):
    """Keys as in `segment_anything_hq/modeling/mask_decoder_hq.py` of SysCV/sam-hq."""
    config = replace(config, hq=True)
    state = random_state(config)
    theirs = write(state)
    added = {k for k in theirs if "hf_" in k or "compress" in k or "embedding_" in k}
    assert {key.split(".")[1] for key in added if key.startswith("mask_decoder.")} == {
        "hf_token",
        "hf_mlp",
        "compress_vit_feat",
        "embedding_encoder",
        "embedding_maskfeature",
    }
    assert theirs["mask_decoder.compress_vit_feat.0.weight"].shape[0] == config.early_width
    torch.save(theirs, tmp_path / "sam_hq.pth")
    found, weights = read_checkpoint(tmp_path / "sam_hq.pth")
    assert found.hq and found.early_width == config.early_width
    assert all(torch.equal(weights[key], state[key]) for key in state)


def test_huggingface_folder(tmp_path):
    state = random_state(VIT)
    write_huggingface(tmp_path, VIT, state)
    statistics = {"image_mean": [0.5, 0.25, 0.485], "image_std": [0.2, 0.2, 0.225]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(statistics))
    config, weights = read_checkpoint(tmp_path)
    assert config.encoder == VIT.encoder
    assert config.pixel_mean == (127.5, 63.75, 123.675)
    assert config.pixel_std == (51.0, 51.0, 57.375)
    assert all(torch.equal(weights[key], state[key]) for key in state)


def test_huggingface_shards(tmp_path):
    write_huggingface(tmp_path, VIT, random_state(VIT))
    whole = read_checkpoint(tmp_path)[1]
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"neither model\.safetensors nor"):
        read_checkpoint(tmp_path)
    tensors = to_huggingface(whole)
    keys = sorted(tensors)
    places = {key: f"part-{index % 2}.safetensors" for index, key in enumerate(keys)}
    for part in set(places.values()):
        save_file({k: tensors[k] for k in keys if places[k] == part}, tmp_path / part)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    weights = read_checkpoint(tmp_path)[1]
    assert all(torch.equal(weights[key], whole[key]) for key in whole)
    for broken, message in (
        ({**places, "more": "part-0.safetensors"}, "lack more"),
        ({**places, "more": "../secret.safetensors"}, "not a plain file name"),
        ({**places, "more": "absent.safetensors"}, r"no file .*absent\.safetensors"),
        (None, "no 'weight_map'"),
    ):
        index.write_text(json.dumps({"weight_map": broken}))
        with pytest.raises(WeightsError, match=message):
            read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        (None, {"model_type": "sam2"}, "model_type 'sam2'"),
        ("vision_config", {"use_rel_pos": False}, "vision_config.use_rel_pos is False"),
        ("vision_config", {"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ("vision_config", {"image_size": 512}, "another part says"),
        ("mask_decoder_config", {"hidden_size": 64}, "another part says"),
    ],
)
def test_other_huggingface_models_are_refused(part, change, message):
    values = config_to_huggingface(VIT)
    (values if part is None else values[part]).update(change)
    with pytest.raises(WeightsError, match=message):
        config_from_huggingface(values)


def test_huggingface_defaults_are_vit_b():
    config = config_from_huggingface({"model_type": "sam", "vision_config": {}})
    expected = SAM_CONFIGS["vit_b"]
    assert (config.encoder, config.image_size) == (expected.encoder, expected.image_size)
    assert config.decoder_norm_eps == 1e-6


def test_folder_without_or_with_broken_config(tmp_path):
    with pytest.raises(WeightsError, match=r"cannot read .*config\.json"):
        read_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(WeightsError, match="wanted a JSON object"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("width", [7, 48, 768, 1280])
def test_mlp_ratio_is_exact(width):
    for hidden in range(1, 5 * width, 3):
        assert int(width * mlp_ratio(hidden, width)) == hidden
    assert mlp_ratio(4 * width, width) == 4.0


def test_key_map_prefers_the_longest_pair():
    key_map = KeyMap("x", [("a.#", "b.#"), ("a.#.deep", "c.#.d")])
    assert key_map.theirs("a.3.weight") == ["b.3.weight"]
    assert key_map.theirs("a.3.deep.weight") == ["c.3.d.weight"]
    assert key_map.theirs("a.3") == ["b.3"]
    assert key_map.theirs("ab.3") == key_map.theirs("a.x") == key_map.theirs("z") == []
