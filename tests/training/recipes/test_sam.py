"""`sam_vit_*`: the paper's numbers, to the optimizer's groups; and a tiny run from end to end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from textsam.inference.model import TextSAM
from textsam.modeling.config import SamConfig, ViTConfig
from textsam.modeling.layers import DropPath
from textsam.modeling.sam import Sam
from training.data import ViewConfig
from training.engine import EngineConfig, build_optimizer, rate_factor
from training.objectives.sam_objective import SamObjective
from training.prompting import PromptConfig
from training.recipes.base import photos_per_batch
from training.recipes.sam import SamRecipe, SamVitB, SamVitH, SamVitL
from training.recipes.sources import DataMix

# RECIPE 4: recipe, blocks, images, steps, rate, layer decay, drop path.
PAPER = [
    (SamVitH, 32, 256, 90_000, 8e-4, 0.8, 0.4),
    (SamVitL, 24, 128, 180_000, 4e-4, 0.8, 0.4),
    (SamVitB, 12, 128, 180_000, 8e-4, 0.6, 0.6),
]


@pytest.mark.parametrize(("recipe", "blocks", "images", "steps", "rate", "decay", "drop"), PAPER)
def test_the_papers_numbers_reach_network_and_optimizer(
    recipe: Callable[..., SamRecipe],
    blocks: int,
    images: int,
    steps: int,
    rate: float,
    decay: float,
    drop: float,
) -> None:
    chosen = recipe(data=("sa1b:x",))
    with torch.device("meta"):
        objective = SamObjective(Sam(chosen.sizes()), config=chosen.objective)
    engine = chosen.engine
    assert (chosen.images, engine.steps, chosen.masks) == (images, steps, 64)
    assert engine.betas == (0.9, 0.999)
    rates = [m.rate for m in objective.sam.image_encoder.modules() if isinstance(m, DropPath)]
    assert len(rates) == blocks and rates[0] == 0 and rates[-1] == pytest.approx(drop)
    dropout = {m.p for m in objective.sam.mask_decoder.modules() if isinstance(m, torch.nn.Dropout)}
    assert dropout == {0.1}
    assert objective.config.prompts.rounds == 11 and objective.config.frozen == ()

    group_of = {
        id(p): group
        for group in build_optimizer(objective, config=engine).param_groups
        for p in group["params"]
    }
    encoder = objective.sam.image_encoder
    for module, power in ((encoder.neck[0], 0), (encoder.blocks[-1].mlp[0], 1)):
        assert group_of[id(module.weight)]["base_lr"] == pytest.approx(rate * decay**power)
    first = group_of[id(encoder.patch_embed.weight)]
    assert first["base_lr"] == pytest.approx(rate * decay ** (blocks + 1))
    assert first["weight_decay"] == 0.1
    token = group_of[id(objective.sam.mask_decoder.mask_tokens.weight)]
    assert token["base_lr"] == pytest.approx(rate)
    assert group_of[id(encoder.patch_embed.bias)]["weight_decay"] == 0

    assert rate_factor(124, config=engine) == pytest.approx(0.5)  # warm-up over 250 steps
    assert rate_factor(250, config=engine) == 1
    later = [round(steps * share) for share in (60_000 / 90_000, 86_666 / 90_000)]
    found = [rate_factor(step + offset, config=engine) for step in later for offset in (-1, 0)]
    assert found == pytest.approx([1, 0.1, 0.1, 0.01])


def test_only_data_annotated_by_hand_is_jittered() -> None:
    recipe = SamVitB(data=("x",))
    mix = DataMix(sources={}, kinds=("sa1b", "sa1b"))
    assert recipe.view(mix) == ViewConfig.unchanged()
    assert recipe.view(replace(mix, kinds=("coco",))) == ViewConfig.large_scale_jitter()
    both = replace(mix, kinds=("coco", "sa1b"))
    with pytest.raises(ValueError, match="Type: --jitter on"):
        recipe.view(both)
    assert replace(recipe, jitter="on").view(both).scale == (0.1, 2.0)


def test_photos_are_shared_out_over_accumulated_batches() -> None:
    engine = EngineConfig(steps=1, accumulation=4)
    assert photos_per_batch(256, engine) == 64
    with pytest.raises(ValueError, match="multiple"):
        photos_per_batch(6, engine)


@dataclass(frozen=True, kw_only=True)
class Small(SamVitB):
    """The recipe at 64 px."""

    SIZE: ClassVar[str] = "vit_b"

    def sizes(self) -> SamConfig:
        encoder = ViTConfig(
            width=32,
            depth=2,
            heads=2,
            global_attention_indexes=(1,),
            window_size=2,
            drop_path=self.drop_path,
        )
        return SamConfig(
            encoder=encoder, image_size=64, embed_dim=32, decoder_heads=4, decoder_mlp=32
        )


def test_the_recipe_runs_and_leaves_a_model(coco_data: Callable[..., str], tmp_path: Path) -> None:
    line = coco_data(4)
    recipe = Small(data=(line,), shown=(line,), folder=tmp_path / "run", images=4, workers=0)
    engine = EngineConfig(steps=2, accumulation=2, ema_decay=0.5, cpu=True, tensorboard=False)
    prompts = PromptConfig(points=1, silent_among=0, silent_last=0)
    recipe = replace(recipe, engine=engine, objective=replace(recipe.objective, prompts=prompts))
    result = recipe.prepare()()
    assert result is not None and result.reason == "done" and result.step == 2
    assert "shown_iou" in result.figures
    assert len(list(tmp_path.glob("run/pictures/*/shown.png"))) == 1
    model = TextSAM.from_pretrained(tmp_path / "run" / "model")
    fresh = recipe.build().sam.state_dict()
    changed = [k for k, v in model.sam.state_dict().items() if not torch.equal(v, fresh[k])]
    assert len(changed) > 0.8 * len(fresh)
