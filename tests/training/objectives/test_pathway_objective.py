"""Training of the text pathway: what is asked, what learns, how the modality gap is narrowed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from textsam.clip.pathway import PathwayConfig, TextPathway
from textsam.errors import WeightsError
from textsam.inference.model import TextSAM
from textsam.modeling.mask_decoder import ABSENT, FOREGROUND, NOT_A_POINT, PromptBatch
from textsam.weights.model_folder import read_pathway
from training.engine.optim import optimizer_groups
from training.losses import mask_iou
from training.objectives.crops import CropConfig, choose_crops, cut_crops
from training.objectives.pathway_objective import (
    PathwayObjective,
    PathwayObjectiveConfig,
    write_adapter,
)
from training.objectives.randomness import photo_random
from training.objectives.rounds import Truth
from training.objectives.sam_objective import encode_views
from training.prompting import PromptConfig, PromptSimulator

SHORT = PromptConfig(points=1, silent_among=0, silent_last=0)
Make = Callable[..., PathwayObjective]


@pytest.fixture
def make(
    make_sam: Callable[..., Any], make_clip: Callable[..., Any], make_pathway: Callable[[], Any]
) -> Make:
    def build(core: str = "vit", clip: str = "vit", **changes: Any) -> PathwayObjective:
        config = PathwayObjectiveConfig(**{"prompts": SHORT, **changes})
        return PathwayObjective(
            make_sam(core), make_pathway(), make_clip(clip), config=config
        ).train()

    return build


def _first(objective: PathwayObjective, batch: Any) -> tuple[PromptBatch, Tensor]:
    random = photo_random(batch, stream="prompts")
    config = objective.config.prompts
    simulator = PromptSimulator(batch.masks, batch.image_index, random, config=config)
    return objective._first(batch, simulator, objective._features(batch))


def _image_embeddings(objective: PathwayObjective, batch: Any) -> Tensor:
    """Unit embeddings of all crops, the long way."""
    clip = objective.clip
    options = choose_crops(batch, config=objective.config.crops)
    every = torch.ones(len(batch.masks), dtype=torch.bool).numpy()
    return clip.encode_crops(*cut_crops(batch.views, options, size=clip.image_size, chosen=every))


def _gradients(objective: PathwayObjective, batch: Any, weight: float = 1.0) -> dict[str, Tensor]:
    objective.zero_grad()
    (objective(batch).loss * weight).backward()
    return {n: p.grad.clone() for n, p in objective.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("core", "clip"), [("vit", "cnn"), ("tiny_vit", "vit"), ("timm", "vit")])
def test_any_core_and_any_clip_train_the_pathway_alone(
    core: str, clip: str, make: Make, make_batch: Callable[..., Any]
) -> None:
    objective = make(core, clip)
    before = {n: v.clone() for n, v in objective.state_dict().items()}
    assert before and all(name.startswith("pathway.") for name in before)
    gradients = _gradients(objective, make_batch())
    learning = {n for n, p in objective.named_parameters() if p.requires_grad}
    assert set(gradients) == learning and all(n.startswith("pathway.") for n in learning)
    assert all(g.abs().sum() > 0 for g in gradients.values())
    assert objective.trained() == ("pathway",)


@pytest.mark.parametrize(
    "trained",
    [
        ("prompt_encoder", "mask_decoder", "pathway"),
        ("image_encoder", "prompt_encoder", "mask_decoder", "clip", "pathway"),
    ],
)
def test_what_is_not_frozen_learns(
    trained: tuple[str, ...], make: Make, make_batch: Callable[..., Any]
) -> None:
    frozen = tuple(name for name in PathwayObjective.PARTS if name not in trained)
    objective = make(frozen=frozen)
    gradients = _gradients(objective, make_batch())
    paths = {PathwayObjective.PARTS[name] for name in trained}
    moved = {
        next(p for p in PathwayObjective.PARTS.values() if n.startswith(f"{p}."))
        for n, g in gradients.items()
        if g.abs().sum() > 0
    }
    assert moved == paths
    missing = [n for n, p in objective.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
    assert not any(n.startswith("clip_model.") and ".visual." not in n for n in gradients)
    assert {n.split(".")[0] for n in objective.state_dict()} == {p.split(".")[0] for p in paths}
    assert not any(m.training for m in objective.clip_model.modules())
    other = make(frozen=frozen)
    objective.pathway.token_type.data.fill_(3)
    other.load_state_dict(objective.state_dict())
    assert (other.pathway.token_type == 3).all()


def test_the_prompt_is_the_masked_embedding_of_the_crop(
    make: Make, make_batch: Callable[..., Any]
) -> None:
    objective, batch = make(), make_batch()
    prompts, named = _first(objective, batch)
    assert prompts.labels.tolist() == [[NOT_A_POINT, ABSENT]] * 6
    assert prompts.has_tokens is not None and prompts.has_tokens.all() and not named.any()
    expected = objective.pathway(_image_embeddings(objective, batch))
    torch.testing.assert_close(prompts.tokens, expected)


def test_a_batch_equals_its_photos(make: Make, make_batch: Callable[..., Any]) -> None:
    objective = make(noise=0.5, label_share=0.5, point_share=0.3, clip_share=0.7)
    batch, parts = make_batch((2, 1, 3)), [make_batch((2, 1)), make_batch((3,), first=2)]
    whole = _gradients(objective, batch)
    split = [_gradients(objective, part, part.weight / batch.weight) for part in parts]
    for name, value in whole.items():
        total = split[0][name] + split[1][name]
        torch.testing.assert_close(value, total, rtol=1e-4, atol=1e-6, msg=name)


def test_kinds_of_first_prompts_have_their_shares(
    make: Make, make_batch: Callable[..., Any]
) -> None:
    objective = make(clip_share=0.8, label_share=0.5, point_share=0.25)
    batch = make_batch((20,) * 50, names="dog cat")
    with torch.no_grad():
        prompts, named = _first(objective, batch)
    asked = prompts.has_tokens
    assert asked is not None
    clicked = asked & (prompts.labels[:, 0] == FOREGROUND)
    for rows, base, share in ((asked, ~named | named, 0.8), (named, asked, 0.5)):
        assert (rows.sum() / base.sum()).item() == pytest.approx(share, abs=0.06)
    assert (clicked.sum() / asked.sum()).item() == pytest.approx(0.25, abs=0.06)
    assert not (named & ~asked).any()
    x, y = prompts.points[clicked, 0].long().unbind(1)
    assert batch.masks[clicked, y, x].all()


def test_names_are_asked_by_text_where_there_is_one(
    make: Make, make_batch: Callable[..., Any]
) -> None:
    objective, batch = make(label_share=1.0), make_batch((2, 2))
    labels = (("dog", ""), ("cat", "dog"))
    batch = replace(batch, labels=labels)
    prompts, named = _first(objective, batch)
    assert named.tolist() == [True, False, True, True]
    text = objective.clip.encode_text(["dog", "cat", "dog"])
    torch.testing.assert_close(prompts.tokens[named], objective.pathway(text))
    own = objective.pathway(_image_embeddings(objective, batch))
    torch.testing.assert_close(prompts.tokens[1], own[1])
    figures = objective(batch).figures
    assert not figures["iou_label"].isnan() and figures["iou_point"].isnan()


def test_noise_is_added_to_image_embeddings_while_training(
    make: Make, make_batch: Callable[..., Any]
) -> None:
    batch = make_batch((20, 20))
    plain, noisy = make(), make(noise=0.5)
    names, every = ["dog"] * 40, torch.ones(40, dtype=torch.bool)
    with torch.no_grad():
        clean = plain._embeddings(batch, names, every, ~every)
        moved = noisy._embeddings(batch, names, every, ~every)
        again = noisy._embeddings(batch, names, every, ~every)
        text = noisy._embeddings(batch, names, every, every)
        noisy.eval()
        at_rest = noisy._embeddings(batch, names, every, ~every)
    assert torch.equal(moved, again)  # from the photo's seed
    torch.testing.assert_close(moved.norm(dim=1), torch.ones(40))
    # A random vector of length 0.5 is nearly orthogonal to the embedding: the cosine falls to
    # 1 / sqrt(1 + 0.5^2).
    assert (clean * moved).sum(1).mean().item() == pytest.approx(1.25**-0.5, abs=0.03)
    assert torch.equal(at_rest, clean)
    torch.testing.assert_close(text, noisy.clip.encode_text(["dog"]).expand(40, -1))


def test_centres_are_the_means_over_names(make: Make, make_batch: Callable[..., Any]) -> None:
    objective = make(centring=True, label_share=0.5)
    batches = [make_batch((2, 1), names="dog"), make_batch((1,), first=2, names="cat")]
    with pytest.raises(ValueError, match="measure_centres"):
        objective(batches[0])
    assert objective.measure_centres(batches) == 4
    dogs, cats = (_image_embeddings(objective, batch) for batch in batches)
    expected = (dogs.mean(0) + cats.mean(0)) / 2
    torch.testing.assert_close(objective.pathway.image_mean, expected)
    text = objective.clip.encode_text(["cat", "dog"]).mean(0)
    torch.testing.assert_close(objective.pathway.text_mean, text)
    objective(batches[0]).loss.backward()
    prompts, named = _first(objective, batches[0])
    centred = F.normalize(dogs - expected, dim=-1)
    torch.testing.assert_close(prompts.tokens[~named], objective.pathway(centred)[~named])
    assert "pathway.image_mean" in objective.state_dict()
    with pytest.raises(ValueError, match="carries means"):
        PathwayObjective(
            objective.sam,
            objective.pathway,
            objective.clip,
            config=PathwayObjectiveConfig(),
        )


def test_centres_need_masks_and_phrases(make: Make, make_batch: Callable[..., Any]) -> None:
    objective = make(centring=True)
    batch = make_batch((2,), names="")
    with pytest.raises(ValueError, match="2 masks, 0 phrases"):
        objective.measure_centres([batch])
    with pytest.raises(ValueError, match="0 masks"):
        objective.measure_centres([], phrases=["dog"])
    objective.measure_centres([batch], phrases=["dog", "cat"])
    torch.testing.assert_close(
        objective.pathway.image_mean, _image_embeddings(objective, batch).mean(0)
    )


def test_half_precision_is_close(make: Make, make_batch: Callable[..., Any]) -> None:
    objective = make(frozen=("image_encoder", "clip"), noise=0.1, label_share=0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = objective(make_batch()).loss
    half.backward()
    assert half.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in objective.pathway.parameters())
    assert half.item() == pytest.approx(objective(make_batch()).loss.item(), rel=0.05)


def test_each_part_has_its_rate(make: Make) -> None:
    objective = make(frozen=("prompt_encoder",), core_rate=0.1, clip_rate=0.01, layer_decay=0.5)
    rates = {id(part.module): (part.share, part.layer_decay) for part in objective.rates()}
    assert rates == {
        id(objective.sam.image_encoder): (0.1, 0.5),
        id(objective.sam.mask_decoder): (0.1, None),
        id(objective.clip_model.visual): (0.01, None),
        id(objective.pathway): (1.0, None),
    }
    groups = optimizer_groups(objective.rates(), peak_rate=1.0, weight_decay=0.1)
    rated = {id(p) for group in groups for p in group["params"]}
    assert rated == {id(p) for p in objective.parameters() if p.requires_grad}


def test_small_masks_are_refused(make: Make, make_batch: Callable[..., Any]) -> None:
    batch = make_batch((1,))
    masks = torch.zeros_like(batch.views[0].masks)
    masks[0, :6, :6] = True
    batch = replace(batch, views=(replace(batch.views[0], masks=masks),))
    with pytest.raises(ValueError, match=r"36 pixels.*at least 39"):
        make()(batch)


def test_settings_that_cannot_be_are_refused(
    make: Make, make_sam: Callable[..., Any], make_clip: Callable[..., Any]
) -> None:
    for name in ("clip_share", "point_share", "label_share"):
        with pytest.raises(ValueError, match=name):
            PathwayObjectiveConfig(**{name: 1.5})
    with pytest.raises(ValueError, match="noise"):
        PathwayObjectiveConfig(noise=-1)
    narrow = TextPathway(PathwayConfig(clip_width=24, prompt_width=16))
    with pytest.raises(WeightsError, match="prompt_width=32"):
        PathwayObjective(make_sam(), narrow, make_clip(), config=PathwayObjectiveConfig())


def test_the_adapter_names_its_core_and_its_clip(
    make: Make, make_sam: Callable[..., Any], make_clip: Callable[..., Any], tmp_path: Path
) -> None:
    objective = make()
    path = write_adapter(tmp_path / "pathway.safetensors", objective, sam="my-core")
    again = read_pathway(path, sam="my-core", clip="random-clip")
    assert torch.equal(again.token_type, objective.pathway.token_type)
    assert path.stat().st_size < 20_000
    for sam, clip in (("other", "random-clip"), ("my-core", "other")):
        with pytest.raises(WeightsError, match="was trained for"):
            read_pathway(path, sam=sam, clip=clip)
    model = TextSAM(make_sam(), clip=make_clip(), pathway=again, name="my-core")
    assert model.pathway is not None
    with pytest.raises(ValueError, match=r"\['mask_decoder'\] were trained, too"):
        write_adapter(path, make(frozen=("image_encoder", "prompt_encoder", "clip")), sam="my-core")


def test_the_pathway_learns_which_of_two_things_is_meant(
    make: Make, make_batch: Callable[..., Any]
) -> None:
    one = PromptConfig(points=0, silent_among=0, silent_last=0)
    frozen = ("prompt_encoder", "clip")
    crops = CropConfig(variants=1)
    objective = make("vit", prompts=one, frozen=frozen, recompute=False, crops=crops)
    parameters = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    batch = make_batch((2, 2))
    for _ in range(60):
        optimizer.zero_grad()
        objective(batch).loss.backward()
        optimizer.step()
    prompts, _ = _first(objective, batch)
    assert prompts.tokens is not None
    swapped = replace(prompts, tokens=prompts.tokens[[1, 0, 3, 2]])
    size = objective.sam.config.mask_size
    truth = Truth.of(batch, mask_size=size)
    reached = []
    for asked in (prompts, swapped):
        with torch.no_grad():
            features = encode_views(objective.sam, batch, frozen=True)
            best = objective.sam.decode(features, asked).multiple().best()
        reached.append(mask_iou(best.logits, truth.target, truth.weight).mean().item())
    assert reached[0] > 0.7 > 0.4 > reached[1]
