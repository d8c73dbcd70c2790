"""`training.studies.costs`: counts against formulas, known networks and a step that really runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from textsam.modeling.config import SAM_CONFIGS, SamConfig, TimmConfig, ViTConfig
from textsam.modeling.sam import Sam
from training.studies.costs import __main__ as command
from training.studies.costs.flops import (
    GPUS,
    PAPER_GPU_HOURS,
    PLANS,
    RunPlan,
    clip_image_flops,
    core_cost,
    count_flops,
    gpu_hours,
    kept_bytes,
    memory_bytes,
    step_flops,
)
from training.studies.costs.timed_step import matmul_rate, measure_step

SMALL = SamConfig(
    encoder=ViTConfig(width=32, depth=2, heads=2, global_attention_indexes=(1,)),
    image_size=128,
    embed_dim=32,
    decoder_heads=4,
    decoder_mlp=48,
    iou_hidden=24,
)


def test_a_multiply_add_is_two_flops():
    a, b = torch.randn(3, 5), torch.randn(5, 7)
    layer = nn.Conv2d(3, 4, 2, stride=2, bias=False)

    assert count_flops(lambda: a @ b) == 2 * 3 * 5 * 7
    assert count_flops(lambda: layer(torch.randn(1, 3, 8, 6))) == 2 * 4 * 3 * (4 * 3) * (2 * 2)


def test_kept_bytes_are_the_tensors_that_the_gradient_needs():
    weight = torch.randn(10, 10, requires_grad=True)
    x = torch.randn(4, 10)

    def two_layers():
        return ((x @ weight).relu() @ weight).sum()

    # The input, and relu's result, which is the second product's input as well; not the weight.
    assert kept_bytes(two_layers, weights=[weight]) == 2 * x.nbytes
    assert kept_bytes(two_layers, weights=[]) == 2 * x.nbytes + weight.nbytes
    with torch.no_grad():
        assert kept_bytes(two_layers, weights=[]) == 0


@pytest.mark.slow
def test_the_published_encoders_have_the_published_size_and_flops():
    """SAM's papers count 2,973 G multiply-adds for ViT-H; we skip the padding's projections."""
    base, huge = core_cost(SAM_CONFIGS["vit_b"]), core_cost(SAM_CONFIGS["vit_h"])

    assert base.encoder_parameters + base.decoder_parameters == pytest.approx(93.7e6, rel=1e-3)
    assert huge.encoder_parameters == pytest.approx(637.0e6, rel=1e-3)
    assert huge.decoder_parameters == base.decoder_parameters
    assert huge.decoder_flops == base.decoder_flops
    assert 0.88 < huge.encoder_flops / (2 * 2973e9) < 1


@pytest.mark.slow
def test_the_released_encoder_counts_what_is_published():
    registry = pytest.importorskip("segment_anything").sam_model_registry
    with torch.device("meta"):
        released = registry["vit_h"]().image_encoder
        pixels = torch.empty(1, 3, 1024, 1024)
    with torch.no_grad():
        flops = count_flops(lambda: released(pixels))

    assert flops == pytest.approx(2 * 2973e9, rel=0.005)


@pytest.mark.slow
def test_clip_counts_what_is_published():
    """open_clip's table of models: 191.1 G multiply-adds for the image tower of ViT-L-14-336."""
    assert clip_image_flops("ViT-L-14-336") == pytest.approx(2 * 191.1e9, rel=0.005)
    with pytest.raises(ValueError, match="knows no model 'ViT-XXL'"):
        clip_image_flops("ViT-XXL")


def test_a_backward_pass_costs_two_forward_passes():
    cost = core_cost(SMALL)
    sam = Sam(SMALL).train()
    pixels = torch.randn(1, 3, 128, 128)

    step = count_flops(lambda: sam.encode_image(pixels).embedding.sum().backward())

    # Three, less what no gradient is asked for: the pixels', a share in a network this small.
    patches = 2 * 64 * 32 * 3 * 16**2
    assert 3 - patches / cost.encoder_flops < step / cost.encoder_flops < 3.01


def test_kept_bytes_of_an_encoder_grow_with_its_depth():
    vit = SMALL.encoder
    assert isinstance(vit, ViTConfig)
    deep = replace(SMALL, encoder=replace(vit, depth=4, global_attention_indexes=(1, 3)))
    shallow, double = core_cost(SMALL), core_cost(deep)

    assert 1.5 < double.encoder_bytes / shallow.encoder_bytes < 2  # the neck is there once
    assert double.decoder_bytes == shallow.decoder_bytes > 0


def test_a_backbone_with_skips_can_be_counted():
    cost = core_cost(replace(SMALL, encoder=TimmConfig(name="test_efficientnet")))

    assert cost.encoder_flops > 0
    assert cost.decoder_flops == core_cost(SMALL).decoder_flops  # skips add, they do not multiply


@pytest.fixture
def small_cores(monkeypatch):
    """Every core is the small one: the sums are what is tested, and take no time."""
    for name in ("vit_b", "vit_l", "vit_h"):
        monkeypatch.setitem(SAM_CONFIGS, name, SMALL)


@pytest.mark.usefixtures("small_cores")
def test_flops_of_a_step_are_the_sum_of_its_parts():
    plan = RunPlan(name="x", core="vit_b", steps=1, images=4, masks=3, rounds=2, recompute=False)
    cost = plan.cost

    parts = step_flops(plan)

    assert parts["encoder"] == 4 * 3 * cost.encoder_flops
    assert parts["decoder"] == 4 * 3 * 2 * 3 * cost.decoder_flops
    assert parts["clip"] == 0
    again = step_flops(replace(plan, recompute=True))
    assert again["decoder"] == pytest.approx(parts["decoder"] * 4 / 3)
    assert step_flops(replace(plan, encoder="frozen"))["encoder"] == 4 * cost.encoder_flops
    assert step_flops(replace(plan, encoder="cached"))["encoder"] == 0
    spoken = step_flops(replace(plan, clip="RN50"))
    assert spoken["clip"] == 12 * clip_image_flops("RN50") > 0


def test_the_plans_are_the_papers():
    numbers = {plan.name: (plan.steps, plan.images) for plan in PLANS}

    assert numbers["sam_vit_h"] == (90_000, 256)
    assert numbers["sam_vit_l"] == numbers["sam_vit_b"] == (180_000, 128)
    assert numbers["text_pathway, all trained"] == (120_000, 128)
    assert all((plan.masks, plan.rounds) == (64, 11) for plan in PLANS)


def test_gpu_hours():
    assert gpu_hours(312e12 * 3600, GPUS["A100"], utilisation=1.0) == pytest.approx(1.0)
    assert gpu_hours(312e12 * 3600, GPUS["A100"], utilisation=0.25) == pytest.approx(4.0)
    with pytest.raises(ValueError, match="wanted a share"):
        gpu_hours(1.0, GPUS["A100"], utilisation=30)


@pytest.mark.slow
def test_the_papers_own_hours_are_a_plausible_share_of_the_peak():
    """256 A100 for 68 hours: below the peak of fp32 (6%) and far above nothing."""
    assert PAPER_GPU_HOURS == 17_408
    assert 0.01 < command._paper_utilisation() < 0.3


@pytest.mark.usefixtures("small_cores")
def test_memory_grows_by_the_image_and_shrinks_with_what_is_frozen():
    plan = RunPlan(name="x", core="vit_b", steps=1, images=4)
    sizes = [memory_bytes(plan, images=n) for n in (1, 2, 3)]

    assert sizes[1] - sizes[0] == pytest.approx(sizes[2] - sizes[1])
    assert sizes[0] > 18 * (plan.cost.encoder_parameters + plan.cost.decoder_parameters)
    frozen, cached = (
        memory_bytes(replace(plan, encoder=kind), images=1)  # type: ignore[arg-type]
        for kind in ("frozen", "cached")
    )
    assert sizes[0] > frozen > cached
    kept = memory_bytes(replace(plan, recompute=False), images=1)
    assert kept - sizes[0] == 10 * 64 * plan.cost.decoder_bytes


def test_a_measured_step_is_what_was_modelled():
    measured = measure_step(SMALL, images=2, masks=3, rounds=2)

    assert 0.95 < measured.counted_flops / measured.model_flops < 1.01
    assert 0 < measured.encoder_seconds + measured.decoder_seconds < measured.seconds
    assert measured.utilisation == pytest.approx(
        measured.model_flops / measured.seconds / measured.matmul_rate
    )


def test_the_rate_of_products_is_positive():
    assert matmul_rate(side=64, repeats=1) > 0


@pytest.mark.usefixtures("small_cores")
def test_the_command_prints_every_run(capsys):
    assert command.main(["--utilisation", "0.5", "--a100-price", "1.5"]) == 0

    printed = " ".join(capsys.readouterr().out.split())
    for plan in PLANS:
        assert plan.name.split(",")[0] in printed
    assert "50% of the peak" in printed
    assert "$1.5 and $3 an hour" in printed
    assert command.main(["--utilisation", "30"]) == 2
    assert "wanted a share" in capsys.readouterr().err


@pytest.mark.usefixtures("small_cores")
def test_the_command_measures_when_asked(capsys):
    assert command.main(["--measure", "--masks", "1", "--rounds", "1"]) == 0
    assert "measured / modelled" in capsys.readouterr().out
