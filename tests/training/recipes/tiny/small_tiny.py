"""`tiny` at toy sizes, on drawn photos: in this process, or as a script under torchrun.

python small_tiny.py FOLDER STAGE [STAGE ...]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[4]))

import pyarrow as pa
import pyarrow.parquet as pq
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from textsam.modeling.config import SamConfig, TimmConfig
from textsam.values.calibration import Calibration
from training.data.drawn_shapes import draw_samples
from training.recipes.base import end_process
from training.recipes.tiny import clip, networks, stages
from training.recipes.tiny import stage_settings as settings
from training.recipes.tiny.lexicon import Lexicon
from training.recipes.tiny.recipe import TinyRecipe
from training.recipes.tiny.vocabulary import PhraseList

SIDE = 64
BACKBONE = "test_efficientnet"
SAM = SamConfig(
    encoder=TimmConfig(name=BACKBONE, context_depth=1, context_width=32, neck_blocks=1),
    image_size=SIDE,
    embed_dim=32,
    decoder_heads=4,
    decoder_mlp=48,
    iou_hidden=24,
    first_layer_residual=True,
    pixel_mean=networks.PIXEL_MEAN,
    pixel_std=networks.PIXEL_STD,
)
CLIP: dict[str, Any] = {
    **clip.TINY_CLIP,
    "embed_dim": 16,
    "vision_cfg": {
        **clip.TINY_CLIP["vision_cfg"],
        "timm_model_name": BACKBONE,
        "image_size": 32,
    },
    "text_cfg": {**clip.TINY_CLIP["text_cfg"], "width": 8, "heads": 2, "layers": 1},
}


def write_data(folder: Path, *, photos: int = 9) -> None:
    """A Parquet file of drawn photos in the place of each of tiny's; row 7 is kept out."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(settings.FILES):
        rows = [
            {
                "image": {"bytes": sample.encoded, "path": None},
                "image_id": sample.image_id,
                "source": name,
                "height": sample.size[0],
                "width": sample.size[1],
                "exhaustive": sample.exhaustive,
                "void": None,
                "objects": [
                    {
                        "label": item.label,
                        "kind": item.kind,
                        "rle": item.rle.counts.decode(),
                        "ignore": False,
                    }
                    for item in sample.objects
                ],
            }
            for sample in draw_samples(photos, seed=seed, side=SIDE)
        ]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")


def backbone_state() -> dict[str, Tensor]:
    """Random weights in the place of ImageNet's, with a classifier of three classes."""
    torch.manual_seed(3)
    return dict(timm.create_model(BACKBONE, num_classes=3).state_dict())


def teach(texts: Sequence[str]) -> Tensor:
    """Random embeddings in the place of a sentence encoder's."""
    generator = torch.Generator().manual_seed(len(texts))
    return F.normalize(torch.randn(len(texts), 16, generator=generator), dim=-1)


def _phrases(lexicon: Lexicon, *, seed: int) -> PhraseList:
    names = lexicon.labels
    return PhraseList(
        phrases=names * 40,
        meanings=names * 40,
        copies=[1] * (20 * len(names)) + [2] * (20 * len(names)),
    )


def shrink(patch: Callable[[Any, str, Any], None]) -> None:
    """Put toy sizes into the recipe; `patch` is `setattr`, or a fixture's that takes it back."""
    for module in (networks, stages):
        patch(module, "TINY_SAM", SAM)
    patch(clip, "TINY_CLIP", CLIP)
    for module in (networks, clip):
        patch(module, "efficientnet_lite_state", backbone_state)
    patch(clip, "imagenet_names", lambda: [["disc"], ["square", "box"], ["bar"]])
    patch(stages, "teacher_embeddings", teach)
    patch(stages, "phrase_list", _phrases)
    patch(stages, "choose_calibration", lambda *_, **__: Calibration())
    patch(stages, "_POINTS_SIZE", SIDE)
    dense = settings.dense_loader
    patch(
        settings,
        "dense_loader",
        lambda **options: replace(dense(**options), view=replace(_SMALL_VIEW, jitter=0.5)),
    )
    small = {
        name: replace(
            stage,
            image_size=SIDE,
            images=4,
            view=replace(stage.view, image_size=SIDE, min_area=4),
            phrases=replace(stage.phrases, min_area=8, phrase_share=0.6),
        )
        for name, stage in settings.JOINT_STAGES.items()
    }
    patch(settings, "JOINT_STAGES", small)


_SMALL_VIEW = replace(settings.JOINT_STAGES["joint"].view, image_size=SIDE, min_area=4)


def small_recipe(folder: Path, **changes: Any) -> TinyRecipe:
    """All stages, two steps each."""
    short = ("head", "dense", "points", "words", *settings.JOINT_STAGES)
    steps = {f"{name}_steps": 2 for name in short}
    fields: dict[str, Any] = {
        **steps,
        "data": folder / "data",
        "runs": folder / "runs",
        "text_epochs": 1.0,
        "threads": 1,
        "cpu": True,
        **changes,
    }
    return TinyRecipe(**fields)


if __name__ == "__main__":
    shrink(setattr)
    small_recipe(Path(sys.argv[1]), stages=tuple(sys.argv[2:])).prepare()()
    end_process(0)
