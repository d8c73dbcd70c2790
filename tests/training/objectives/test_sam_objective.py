"""Training of the core: eleven rounds, one scalar, the same gradients however it is cut up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from textsam.modeling.sam import Sam
from training.engine.optim import optimizer_groups
from training.objectives import rounds
from training.objectives.rounds import Truth, set_decoder_dropout
from training.objectives.sam_objective import SamObjective, SamObjectiveConfig
from training.prompting import PromptConfig

SHORT = PromptConfig(points=2)


def _gradients(objective: nn.Module, batch: Any, *, weight: float = 1.0) -> dict[str, Tensor]:
    objective.zero_grad()
    (objective(batch).loss * weight).backward()
    return {n: p.grad.clone() for n, p in objective.named_parameters() if p.grad is not None}


def _assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", ["vit", "tiny_vit", "timm"])
def test_any_core_gets_a_gradient_everywhere(
    kind: str, make_sam: Callable[..., Sam], make_batch: Callable[..., Any]
) -> None:
    objective = SamObjective(make_sam(kind), config=SamObjectiveConfig(prompts=SHORT)).train()
    output = objective(make_batch())
    assert output.loss.shape == () and output.loss.isfinite()
    output.loss.backward()
    without = [n for n, p in objective.named_parameters() if p.requires_grad and p.grad is None]
    assert not without  # what DDP waits for
    moved = {n.split(".")[1] for n, p in objective.named_parameters() if (p.grad != 0).any()}
    assert moved == {"image_encoder", "prompt_encoder", "mask_decoder"}


def test_every_parameter_gets_a_gradient_in_a_single_round(
    make_sam: Callable[..., Sam], make_batch: Callable[..., Any]
) -> None:
    one = PromptConfig(points=0, silent_among=0, silent_last=0)
    objective = SamObjective(make_sam(), config=SamObjectiveConfig(prompts=one))
    objective(make_batch()).loss.backward()
    assert all(p.grad is not None for p in objective.parameters())


def test_the_paper_has_eleven_rounds_and_figures_have_fixed_names(
    make_sam: Callable[..., Sam], make_batch: Callable[..., Any]
) -> None:
    objective = SamObjective(make_sam(), config=SamObjectiveConfig())
    with torch.no_grad():
        figures = objective(make_batch()).figures
        few = objective(make_batch((1,))).figures
    assert list(figures) == ["iou_point", "iou_box", *(f"iou_{n}" for n in range(2, 12))]
    assert list(few) == list(figures)
    assert not any(value.requires_grad for value in figures.values())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputed_rounds_have_the_same_gradients(
    dropout: float, make_sam: Callable[..., Sam], make_batch: Callable[..., Any]
) -> None:
    made = []
    for recompute in (True, False):
        config = SamObjectiveConfig(prompts=SHORT, recompute=recompute, decoder_dropout=dropout)
        objective = SamObjective(make_sam(), config=config).train()
        torch.manual_seed(3)
        made.append(_gradients(objective, make_batch()))
    _assert_equal(*made)


def test_recomputing_holds_one_round_of_activations(
    make_sam: Callable[..., Sam], make_batch: Callable[..., Any]
) -> None:
    def saved(recompute: bool, points: int) -> int:
        prompts = PromptConfig(points=points)
        config = SamObjectiveConfig(prompts=prompts, recompute=recompute, frozen=("image_encoder",))
        objective = SamObjective(make_sam(), config=config)
        sizes: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = objective(make_batch()).loss
        assert loss.requires_grad
        return sum(sizes.values())

    few, many = saved(False, 2), saved(False, 8)
    assert many > 1.8 * few  # grows with the rounds
    assert saved(True, 8) < 0.2 * few


def test_a_batch_is_the_weighted_mean_of_its_photos(
    make_sam: Callable[..., Sam], make_batch: Callable[..., Any]
) -> None:
    """What two ranks, or accumulated micro-batches, come to."""
    objective = SamObjective(make_sam("timm"), config=SamObjectiveConfig(prompts=SHORT)).train()
    batch, parts = make_batch((2, 1, 3)), [make_batch((2, 1)), make_batch((3,), first=2)]
    whole = _gradients(objective, batch)
    total: dict[str, Tensor] = {}
    for part in parts:
        for name, value in _gradients(objective, part, weight=part.weight / batch.weight).items():
            total[name] = total.get(name, torch.zeros_like(value)) + value
    _assert_equal(whole, total)


@pytest.mark.parametrize("frozen", ["image_encoder", "prompt_encoder", "mask_decoder"])
def test_parts_can_be_frozen(
    frozen: str, make_sam: Callable[..., Sam], make_batch: Callable[..., Any]
) -> None:
    config = SamObjectiveConfig(prompts=SHORT, frozen=(frozen,))  # type: ignore[arg-type]
    objective = SamObjective(make_sam("tiny_vit"), config=config).train()
    gradients = _gradients(objective, make_batch())
    still = [n for n in gradients if n.startswith(f"sam.{frozen}.")]
    assert gradients and not still
    assert not any(m.training for m in objective.part(frozen).modules())


def test_the_first_prompt_has_three_readings_and_the_rest_one(
    make_sam: Callable[..., Sam],
    make_batch: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[Tensor, Tensor, Any]] = []
    honest = rounds._decode_round

    def spy(sam: Sam, features: Any, prompts: Any, truth: Any, loss: Any, *use: Any) -> Any:
        made = honest(sam, features, prompts, truth, loss, *use)
        prediction = sam.decode(features, prompts)
        best = prediction.multiple().best() if use[2].all() else prediction.single()
        assert torch.equal(made[1], best.logits)
        seen.append((*use, prompts))
        return made

    monkeypatch.setattr(rounds, "_decode_round", spy)
    with torch.no_grad():
        SamObjective(make_sam(), config=SamObjectiveConfig(prompts=SHORT))(make_batch())
        assert [bool(multiple.all()) for _, multiple, _, _ in seen] == [True, *[False] * 4]
        assert [bool(single.any()) for single, _, _, _ in seen] == [False, *[True] * 4]
        seen.clear()
        both = SamObjectiveConfig(prompts=replace(SHORT, box_probability=1), box_trains_single=True)
        SamObjective(make_sam(), config=both)(make_batch())
    assert seen[0][0].all() and seen[0][1].all()


def test_void_and_padding_have_no_part_in_it(
    make_sam: Callable[..., Sam], make_batch: Callable[..., Any]
) -> None:
    batch = make_batch((2,))
    void = torch.zeros(64, 64, dtype=torch.bool)
    void[:16, :32] = True
    batch = replace(batch, views=(replace(batch.views[0], void=void),))
    truth = Truth.of(batch, mask_size=16)
    assert torch.equal(truth.ignore[0], truth.ignore[1])
    expected = void.clone()
    expected[48:] = True  # photos are 48 high
    assert torch.equal(truth.ignore[0], expected)
    assert truth.weight.shape == (2, 1, 16, 16)
    cells = truth.weight[0, 0]
    assert (cells[:4, :8] == 0).all() and (cells[12:] == 0).all() and (cells[4:12] == 1).all()


def test_dropout_acts_in_training_only(
    make_sam: Callable[..., Sam], make_batch: Callable[..., Any]
) -> None:
    sam = make_sam()
    plain = SamObjective(sam, config=SamObjectiveConfig(prompts=SHORT)).eval()
    batch = make_batch()
    with torch.no_grad():
        before = plain(batch).loss
        dropping = SamObjective(sam, config=SamObjectiveConfig(prompts=SHORT, decoder_dropout=0.1))
        assert dropping.eval()(batch).loss == before
        dropping.train()
        a, b = dropping(batch).loss, dropping(batch).loss
    assert a != b and a != before
    assert make_sam(decoder_dropout=0.1).mask_decoder.transformer.blocks[0].dropout.p == 0.1
    with pytest.raises(ValueError, match=r"dropout is 1\.5"):
        set_decoder_dropout(sam, 1.5)


def test_a_core_learns_drawn_rectangles(
    make_sam: Callable[..., Sam], make_batch: Callable[..., Any]
) -> None:
    two = PromptConfig(points=1, silent_among=0, silent_last=0)
    config = SamObjectiveConfig(prompts=two, recompute=False)
    objective = SamObjective(make_sam(), config=config).train()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    reached = []
    for step in range(40):
        optimizer.zero_grad()
        output = objective(make_batch((2, 2), step=step))
        output.loss.backward()
        optimizer.step()
        reached.append(float(output.figures["iou_2"]))
    assert sum(reached[-5:]) / 5 > 0.5 > 0.2 > sum(reached[:3]) / 3


def test_what_is_trained_has_its_rate(make_sam: Callable[..., Sam]) -> None:
    config = SamObjectiveConfig(encoder_rate=0.1, layer_decay=0.8, frozen=("prompt_encoder",))
    objective = SamObjective(make_sam(), config=config)
    encoder, decoder = objective.rates()
    assert encoder.module is objective.sam.image_encoder and decoder.share == 1.0
    assert (encoder.share, encoder.layer_decay, decoder.layer_decay) == (0.1, 0.8, None)
    groups = optimizer_groups([encoder, decoder], peak_rate=1.0, weight_decay=0.1)
    rated = {id(p) for group in groups for p in group["params"]}
    assert rated == {id(p) for p in objective.parameters() if p.requires_grad}
    assert max(group["lr"] for group in groups) == 1.0
