"""What the library answers today, as plain values: the questions of the golden test.

Only public interfaces are used, so that the test survives any change inside. A question that is
added or changed here is recorded with `python -m tests.golden.record`.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image

from textsam import MaskIndex, TextSAM, load_image, segment
from textsam.search.embed import Embedder
from textsam.search.records import MaskRow

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
QUESTIONS: dict[str, Callable[[], Any]] = {}


def question(function: Callable[[], Any]) -> Callable[[], Any]:
    QUESTIONS[function.__name__] = function
    return function


def machine() -> dict[str, str]:
    """What decides the last digits of a score: only on an equal machine answers are equal."""
    return {
        "torch": torch.__version__.split("+")[0],
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


# Models and photos


@lru_cache
def tiny() -> TextSAM:
    return TextSAM.from_pretrained("tiny")


@lru_cache
def photo(name: str, width: int = 0) -> Any:
    """(H, W, 3) uint8 of an example, scaled down to a width if one is given."""
    array = load_image(EXAMPLES / f"{name}.jpg")
    if not width:
        return array
    height = round(width * array.shape[0] / array.shape[1])
    return np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.BILINEAR))


@lru_cache
def random_sam() -> TextSAM:
    """A SAM of the released geometry in small: windowed and global attention, seeded weights."""
    from transformers import SamConfig, SamModel

    vision = {
        "hidden_size": 48,
        "output_channels": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "image_size": 128,
        "window_size": 3,  # does not divide 8 patches, so that windows are padded
        "global_attn_indexes": [1],
        "num_pos_feats": 16,
        "mlp_dim": 96,
    }
    prompt = {"hidden_size": 32, "image_size": 128, "image_embedding_size": 8}
    decoder = {
        "hidden_size": 32,
        "mlp_dim": 64,
        "num_attention_heads": 4,
        "iou_head_hidden_dim": 32,
    }
    sam = SamModel(
        SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    )
    state = sam.state_dict()
    random = np.random.default_rng(16)
    for name in sorted(state):
        values = random.standard_normal(state[name].shape)
        if "norm" in name and name.endswith("weight"):
            values = 1 + 0.1 * values
        elif state[name].ndim == 1:
            values = 0.1 * values
        elif "embed" not in name:
            values /= np.sqrt(values[0].size)
        # Masks with sharp borders in some places only, and a high predicted IoU: then the filters
        # of automatic masks keep some and drop others.
        if re.search(r"upscale_conv\d\.weight", name):
            values *= 5
        if re.search(r"output_hypernetworks_mlps\.\d\.proj_out", name):
            values = 60 * values if name.endswith("weight") else np.full_like(values, -150.0)
        if "iou_prediction_head.proj_out" in name:
            values = 0.2 * values + (0.9 if name.endswith("bias") else 0.0)
        state[name].copy_(torch.from_numpy(values))
    with tempfile.TemporaryDirectory() as folder:
        sam.save_pretrained(folder)
        return TextSAM.from_pretrained(folder, clip=tiny().clip)


# Answers as plain values


def number(value: float) -> float | None:
    value = float(value)
    return round(value, 7) if np.isfinite(value) else None


def numbers_in(text: str) -> list[float]:
    """The numbers of a sentence, whose words may be changed."""
    return sorted(float(part) for part in re.findall(r"\d+\.\d+|\d+", text))


def pixels(array: Any) -> str:
    """A hash of an integer or boolean array."""
    array = np.asarray(array)
    data = np.packbits(array) if array.dtype == np.bool_ else array.astype(np.int32)
    return hashlib.sha256(repr(array.shape).encode() + data.tobytes()).hexdigest()[:16]


def masks(result: Any) -> dict[str, Any]:
    items = [
        {
            "label": item.label,
            "area": int(item.area),
            "box": [int(side) for side in item.box],
            "pixels": pixels(item.mask),
            "score": number(item.score),
            "iou": number(item.iou),
            "stability": number(item.stability),
            **({} if np.isnan(item.similarity) else {"similarity": number(item.similarity)}),
        }
        for item in result
    ]
    presence = {name: number(value) for name, value in result.presence.items()}
    return {"size": list(result.size), "presence": presence, "masks": items}


def reasons(why: Any) -> dict[str, Any]:
    phrases = [
        {
            "phrase": phrase,
            "gate": why.gate(phrase),
            "advice": why.advice(phrase),
            "numbers": numbers_in(why.sentence(phrase).replace(phrase, "")),
        }
        for phrase in why.phrases
    ]
    table = [
        {
            "phrase": row.phrase,
            "mask": row.mask,
            "gate": row.gate,
            "score": number(row.score),
            "evidence": {name: number(value) for name, value in row.evidence.items()},
            "numbers": numbers_in(row.reason),
            "box": None if row.box is None else [int(side) for side in row.box],
            "area": row.area,
        }
        for row in why.table()
    ]
    steps = [[step.threshold, step.masks, step.phrases, step.exact] for step in why.sweep()]
    return {"phrases": phrases, "table": table, "sweep": steps}


def explained(view: Any, **options: Any) -> dict[str, Any]:
    result = view.segment(**options)
    return {"result": masks(result), "why": reasons(result.explain())}


# Phrases


@question
def one_phrase() -> Any:
    return masks(segment(EXAMPLES / "bus.jpg", text="wheel"))


@question
def several_phrases() -> Any:
    view = tiny().open(photo("bus"))
    return explained(view, text=["bus", "wheel", "window", "giraffe"])


@question
def thresholds() -> Any:
    view = tiny().open(photo("horses"))
    return [explained(view, text="horse", threshold=level) for level in (0.02, 0.3, 0.6, 0.95)]


@question
def exclusion_and_background() -> Any:
    view = tiny().open(photo("bus"))
    return {
        "exclude": explained(view, text="bus", exclude="wheel"),
        "exclude itself": explained(view, text="wheel", exclude=["tyre", "wheel of a bus"]),
        "background": explained(view, text=["bus", "wheel"], background=["road", "building"]),
        "both": explained(view, text="window", exclude="wheel", background="bus", threshold=0.01),
    }


@question
def exclusive_overlap() -> Any:
    view = tiny().open(photo("bus"))
    return {
        "phrases": explained(view, text=["bus", "wheel"], overlap="exclusive"),
        "alike": explained(view, text=["cat", "dog", "bus", "truck"], overlap="exclusive"),
    }


@question
def strategy_prompt() -> Any:
    view = tiny().open(photo("banana"))
    return explained(view, text=["banana", "fork"], strategy="prompt", overlap="exclusive")


@question
def list_of_photos() -> Any:
    photos = [photo("cat"), photo("dog")]
    return [masks(result) for result in tiny().segment(photos, text=["cat", "dog", "paw"])]


@question
def explain_again() -> Any:
    view = tiny().open(photo("cat"))
    return {
        "absent": reasons(view.explain(["wheel", "cat", "giraffe"])),
        "strict": reasons(view.explain("cat", threshold=0.99)),
        "excluded": reasons(view.explain("cat", exclude="animal", background="wall")),
    }


@question
def label_map() -> Any:
    found = {}
    view = tiny().open(photo("bus"))
    for name, options in {
        "plain": {},
        "background": {"background": ["building", "tree"]},
        "strict": {"threshold": 0.5},
    }.items():
        areas = view.label_map(["bus", "road", "sky", "wheel"], **options)
        shares = {phrase: number(share) for phrase, share in areas.shares().items()}
        found[name] = {"shares": shares, "pixels": pixels(areas.labels)}
    return found


# Examples, clicks, boxes and masks


@question
def by_example() -> Any:
    bus = tiny().open(photo("bus"))
    wheel = bus.segment(text="wheel")[0]
    cats = tiny().segment(photo("cat"), text="cat")
    concept = tiny().concept(cats)
    return {
        "same photo": explained(bus, like=wheel),
        "click after": masks(bus.click(500, 290)),
        "other photo": explained(tiny().open(photo("dog")), like=concept),
        "low": explained(tiny().open(photo("horses")), like=concept, threshold=0.02),
    }


@question
def clicks_after_a_phrase() -> Any:
    view = tiny().open(photo("bus"))
    return {
        "text": masks(view.segment(text="wheel")),
        "on one": masks(view.click(225, 290)),
        "beside": masks(view.click(240, 270, foreground=False)),
        "undo": masks(view.undo()),
        "undo again": masks(view.undo()),
        "another": masks(view.click(500, 285)),
        "elsewhere": masks(view.click(300, 200)),
    }


@question
def clicks_alone() -> Any:
    view = tiny().open(photo("dog"))
    steps = {
        "first": masks(view.click(213, 320)),
        "second": masks(view.click(150, 450)),
        "off": masks(view.click(10, 10, foreground=False)),
        "undo": masks(view.undo()),
    }
    view.undo()
    steps["nothing left"] = masks(view.undo())
    return steps


@question
def small_things() -> Any:
    """Windows: a model with `focus` encodes small things again."""
    view = tiny().open(photo("horses"))
    return {
        "box": masks(view.segment(box=(150, 130, 210, 200))),
        "point": masks(view.segment(points=[(180, 160)], multimask=False)),
        "click": masks(view.click(190, 170)),
        "far away": masks(view.click(420, 250)),
        "text and box": masks(view.segment(text="horse", box=(150, 130, 210, 200))),
    }


@question
def points_boxes_masks() -> Any:
    view = tiny().open(photo("dog"))
    rough = np.zeros(view.size, dtype=bool)
    rough[150:500, 100:350] = True
    return {
        "point": masks(view.segment(points=[(213, 320)])),
        "labels": masks(view.segment(points=[(213, 320), (20, 20)], labels=[1, 0])),
        "three readings": masks(view.segment(box=(60, 40, 400, 620), multimask=True)),
        "box": masks(view.segment(box=(60, 40, 400, 620))),
        "box and points": masks(
            view.segment(box=(60, 40, 400, 620), points=[(213, 320), (70, 50)], labels=[1, 0])
        ),
        "mask": masks(view.segment(mask=rough)),
        "mask and point": masks(view.segment(mask=rough, points=[(213, 320)])),
        "text and point": masks(view.segment(text="dog", points=[(213, 320)])),
        "text and mask": masks(view.segment(text="dog", mask=rough)),
    }


# Everything


@question
def everything_and_its_ranks() -> Any:
    """One view, so that the masks of everything are made once."""
    view = tiny().open(photo("cat", 160))
    everything = view.everything("fast")
    cat = view.segment(text="cat", strategy="rank")
    index = MaskIndex.open("memory://", model=Embedder(tiny(), latents="photo"))
    rows = [
        MaskRow(dataset="golden", image="cat", rle=item.rle, score=item.score, iou=item.iou)
        for item in everything[:8]
    ]
    index.add(rows, index.embedder.masks(view.image, [row.rle for row in rows]))
    return {
        "everything": masks(everything),
        "rank": explained(view, text=["cat", "wheel"], strategy="rank"),
        "rank, exclude": explained(view, text="cat", exclude="carpet", strategy="rank"),
        "rank, background": explained(
            view, text="cat", background=["wall", "animal"], strategy="rank", threshold=0.3
        ),
        "similar": masks(view.similar(cat[0], threshold=0.5)),
        "search text": hits(index.search(text="cat", k=5)),
        "search mask": hits(index.search(mask=everything[0], k=5)),
        "search looks": hits(index.search(image=view.image, mask=cat[0].mask, space="sam", k=5)),
        "search like": hits(index.search(like=list(everything[:2]), k=3)),
    }


def hits(results: Any) -> list[dict[str, Any]]:
    return [
        {
            "box": [int(side) for side in hit.box],
            "area": int(hit.area),
            "pixels": hit.id,
            "score": number(hit.cosine),
        }
        for hit in results
    ]


# Tiles


@question
def tiles() -> Any:
    view = tiny().open_tiled(photo("bus"), tile=430, overlap=100)
    return {
        "text": explained(view, text=["bus", "wheel", "giraffe"]),
        "exclude": explained(view, text="bus", exclude="wheel", overlap="exclusive"),
        "why": reasons(view.explain("cat")),
        "one tile": masks(tiny().open_tiled(photo("cat"), tile=1024).segment(text="cat")),
    }


@question
def tiles_of_a_random_sam() -> Any:
    view = random_sam().open_tiled(photo("dog", 240), tile=240, overlap=60)
    return masks(view.everything())


# A SAM of the released geometry


@question
def random_sam_prompts() -> Any:
    view = random_sam().open(photo("bus", 120))
    rough = np.zeros(view.size, dtype=bool)
    rough[20:60, 30:90] = True
    return {
        "point": masks(view.segment(points=[(60, 40)])),
        "points": masks(view.segment(points=[(60, 40), (10, 70)], labels=[1, 0])),
        "click": masks(view.click(90, 20)),
        "box": masks(view.segment(box=(20, 10, 100, 60))),
        "three readings": masks(view.segment(box=(20, 10, 100, 60), multimask=True)),
        "mask": masks(view.segment(mask=rough)),
        "all": masks(view.segment(mask=rough, points=[(60, 40)], box=(20, 10, 100, 60))),
    }


@question
def random_sam_everything() -> Any:
    view = random_sam().open(photo("cat", 240))
    presets = ("fast", "released-code", "paper")
    return {preset: masks(view.everything(preset)) for preset in presets}


@question
def random_sam_rank() -> Any:
    """Without a pathway "auto" is "rank", and examples are compared with masks of everything."""
    view = random_sam().open(photo("banana", 240))
    fruit = view.segment(text="banana")
    return {
        "text": explained(view, text=["banana", "wheel"]),
        "like": explained(view, like=fruit[0]) if len(fruit) else None,
    }
