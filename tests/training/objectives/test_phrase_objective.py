"""Phrases in fine-tuning are asked as they are in use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from textsam.inference.model import TextSAM
from textsam.inference.photo.encoded import (
    embed_phrases,
    map_logits,
    phrase_tokens,
    to_mask_prompts,
)
from training.data import LoaderConfig, ViewBatch, ViewConfig, ViewLoader
from training.data.drawn_shapes import draw_samples
from training.objectives.pathway_objective import PathwayObjectiveConfig, PhraseObjective
from training.objectives.randomness import photo_random
from training.prompting import PromptConfig, PromptSimulator

SIDE = 64
CONFIG = PathwayObjectiveConfig(
    prompts=PromptConfig(points=1, silent_among=0, silent_last=0),
    frozen=("image_encoder", "clip"),
    clip_share=1.0,
    label_share=1.0,
    centring=True,
    recompute=False,
)


def whole_photos(count: int) -> ViewBatch:
    view = ViewConfig(image_size=SIDE, max_masks=2, jitter=0.0, flip=0.0, min_area=1)
    loader = LoaderConfig(photos_per_step=count, view=view)
    return next(ViewLoader({"drawn": draw_samples(count, side=SIDE)}, config=loader).batches(0, 1))


def objective_of(model: TextSAM, config: PathwayObjectiveConfig) -> PhraseObjective:
    assert model.pathway is not None and model.clip is not None
    return PhraseObjective(model.sam, model.pathway, model.clip, config=config)


@pytest.mark.parametrize("source", ["clip", "sam"])
def test_the_map_and_the_token_are_those_of_use(
    source: str, model_folder: Callable[..., Path]
) -> None:
    model = TextSAM.from_pretrained(model_folder(kind="timm", phrases=True))
    assert model.pathway is not None
    model.pathway.config = replace(model.pathway.config, dense_source=source)
    objective, batch = objective_of(model, CONFIG).eval(), whole_photos(2)
    simulator = PromptSimulator(
        batch.masks,
        batch.image_index,
        photo_random(batch, stream="prompts"),
        config=CONFIG.prompts,
    )
    with torch.no_grad():
        prompts, named = objective._first(batch, simulator, objective._features(batch))
    assert named.all() and prompts.masks is not None and prompts.tokens is not None
    samples, row = draw_samples(2, side=SIDE), 0
    for (_, number), labels in zip(batch.origin, batch.labels, strict=True):
        view = model.open(samples[number].image())
        for label in labels:
            embeddings = embed_phrases(model.parts, [label])
            used = to_mask_prompts(view.photo, map_logits(view.photo, embeddings))[0]
            torch.testing.assert_close(prompts.masks[row], used, rtol=1e-4, atol=1e-4)
            token = phrase_tokens(model.parts, embeddings)[0]
            torch.testing.assert_close(prompts.tokens[row], token)
            row += 1


def test_gradients_reach_what_is_trained_and_nothing_else(
    model_folder: Callable[..., Path],
) -> None:
    model = TextSAM.from_pretrained(model_folder(phrases=True))
    config = replace(CONFIG, clip_share=0.5, label_share=0.5, point_share=0.5)
    objective = objective_of(model, config).train()
    objective(whole_photos(4)).loss.backward()
    reached = {n for n, p in objective.named_parameters() if p.grad is not None}
    wanted = {n for n, p in objective.named_parameters() if p.requires_grad}
    assert reached == wanted
    tops = {".".join(name.split(".")[:2]) for name in wanted}
    assert tops == {
        *("sam.prompt_encoder", "sam.mask_decoder", "pathway.projection", "pathway.token_type")
    }


def test_small_masks_are_never_asked_by_their_crop(model_folder: Callable[..., Path]) -> None:
    model = TextSAM.from_pretrained(model_folder(phrases=True))
    objective, batch = objective_of(model, replace(CONFIG, label_share=0.0)), whole_photos(2)
    for view in batch.views:
        view.masks[:] = False
        view.masks[:, :2, :3] = True  # 6 pixels, where D.5 wants 39 of this frame
    figures = objective(batch).figures
    assert torch.as_tensor(figures["iou_image"]).isnan()
    assert not torch.as_tensor(figures["iou_label"]).isnan()
    nameless = replace(batch, labels=tuple(("",) * len(names) for names in batch.labels))
    figures = objective(nameless).figures
    assert torch.as_tensor(figures["iou_label"]).isnan()
    pointed = torch.stack([torch.as_tensor(figures[f"iou_{kind}"]) for kind in ("point", "box")])
    assert not pointed.isnan().all()
