"""Which parameters are trained, at which rate, with which weight decay."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from textsam.modeling.config import SamConfig, TimmConfig, TinyViTConfig, ViTConfig
from textsam.modeling.image_encoder import ImageEncoderViT
from textsam.modeling.layers import DropPath
from textsam.modeling.sam import Sam
from training.engine import EngineConfig, RatedPart, build_optimizer
from training.engine.optim import encoder_blocks, layer_depths, optimizer_groups, set_rates

VIT = SamConfig(
    encoder=ViTConfig(
        width=16, depth=3, heads=2, global_attention_indexes=(2,), window_size=2, drop_path=0.4
    ),
    image_size=64,
    embed_dim=16,
)


def rates_by_name(module: nn.Module, groups: list[dict]) -> dict[str, tuple[float, float]]:
    names = {id(p): name for name, p in module.named_parameters()}
    return {
        names[id(p)]: (group["base_lr"], group["weight_decay"])
        for group in groups
        for p in group["params"]
    }


def test_layer_wise_rates_of_the_paper_s_vit() -> None:
    encoder = ImageEncoderViT(VIT)
    part = RatedPart(module=encoder, layer_decay=0.8)
    groups = optimizer_groups([part], peak_rate=8e-4, weight_decay=0.1)
    rates = rates_by_name(encoder, groups)
    assert rates.keys() == {name for name, _ in encoder.named_parameters()}
    # Three blocks: the patches are four layers from the output, the neck is at it.
    wanted = {
        "patch_embed.weight": (8e-4 * 0.8**4, 0.1),
        "position_embedding": (8e-4 * 0.8**4, 0.0),
        "blocks.0.attention.qkv.weight": (8e-4 * 0.8**3, 0.1),
        "blocks.0.norm1.weight": (8e-4 * 0.8**3, 0.0),
        "blocks.2.mlp.0.bias": (8e-4 * 0.8, 0.0),
        "neck.0.weight": (8e-4, 0.1),
    }
    for name, expected in wanted.items():
        assert rates[name] == pytest.approx(expected), name


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0", "convnext_atto"])
def test_depths_of_timm_backbones_rise_from_stem_to_neck(name: str) -> None:
    backbone = timm.create_model(name, pretrained=False, features_only=True)
    depths, top = layer_depths(backbone)
    blocks = {"resnet18": 8, "efficientnet_lite0": 16, "convnext_atto": 12}[name]
    assert len(encoder_blocks(backbone)) == blocks
    assert top == blocks + 1
    found = list(depths.values())
    assert found == sorted(found)
    assert set(found) == set(range(blocks + 1))
    first = next(name for name in depths if depths[name] == 1)
    assert all(depths[n] == 0 for n in list(depths)[: list(depths).index(first)])


def test_depths_of_a_timm_encoder_and_of_tinyvit() -> None:
    encoder = Sam(SamConfig(encoder=TimmConfig(name="resnet18"), image_size=64)).image_encoder
    depths, top = layer_depths(encoder)
    assert top == 9
    assert depths["backbone.conv1.weight"] == 0
    assert {depth for name, depth in depths.items() if not name.startswith("backbone")} == {9}

    tiny = TinyViTConfig(widths=(8, 8, 8, 8), heads=(1, 1, 1, 1), depths=(1, 2, 1, 1))
    encoder = Sam(SamConfig(encoder=tiny, image_size=64, embed_dim=16)).image_encoder
    depths, top = layer_depths(encoder)
    assert top == 6
    assert {d for n, d in depths.items() if n.startswith("stem")} == {0}
    assert {d for n, d in depths.items() if n.startswith("stages.1.blocks.1")} == {3}
    assert {d for n, d in depths.items() if n.startswith("neck")} == {6}


def test_a_network_without_blocks_has_no_layer_wise_rates() -> None:
    with pytest.raises(ValueError, match="Linear has none"):
        layer_depths(nn.Linear(2, 2))


def test_drop_path_is_a_field_of_the_encoder_s_config() -> None:
    rates = [m.rate for m in ImageEncoderViT(VIT).modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.0, 0.2, 0.4])


def test_a_parameter_has_one_rate() -> None:
    class Two(nn.Module):
        def __init__(self, parts: int) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)
            self.parts = parts

        def rates(self) -> list[RatedPart]:
            return [RatedPart(module=m) for m in (self.a, self.b, self)[: self.parts]]

    config = EngineConfig(steps=1)
    with pytest.raises(ValueError, match=r"leaves out 2 .*'b.weight'"):
        build_optimizer(Two(1), config=config)
    assert len(build_optimizer(Two(2), config=config).param_groups) == 2
    with pytest.raises(ValueError, match="two rated parts"):
        build_optimizer(Two(3), config=config)


def test_what_is_frozen_is_not_in_the_optimizer() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2).requires_grad_(False))
    groups = build_optimizer(module, config=EngineConfig(steps=1)).param_groups
    assert {id(p) for g in groups for p in g["params"]} == {id(p) for p in module[0].parameters()}
    module.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        build_optimizer(module, config=EngineConfig(steps=1))


def test_vectors_are_not_decayed() -> None:
    module = nn.ModuleDict({"one": nn.Embedding(1, 4), "four": nn.Embedding(4, 4)})
    groups = optimizer_groups([RatedPart(module=module)], peak_rate=1.0, weight_decay=0.1)
    assert rates_by_name(module, groups) == {"one.weight": (1.0, 0.0), "four.weight": (1.0, 0.1)}


def test_a_schedule_scales_every_rate() -> None:
    a, b = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    parts = [RatedPart(module=a), RatedPart(module=b, share=0.1)]
    optimizer = torch.optim.AdamW(optimizer_groups(parts, peak_rate=2.0, weight_decay=0.1))
    for factor in (0.5, 0.25):
        set_rates(optimizer, factor)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([2 * factor, 0.2 * factor])
