"""From a phrase to masks: what the strategies of `ImageView.segment(text=...)` do.

`auto`: the pathway's dense map proposes a point for each connected region of the phrase; phrase,
map and point together give one instance each; near-duplicates are dropped. `prompt`: the paper's
way (Section 7.5, Appendix D.5), the CLIP text embedding as the prompt, one object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from textsam.clip.dense import tower_maps
from textsam.errors import PromptError, WeightsError
from textsam.geometry import Frame
from textsam.images import resize_image
from textsam.inference.postprocess import (
    connected_components,
    stability_score,
    to_original_frame,
)
from textsam.modeling.prompt_encoder import FOREGROUND, NOT_A_POINT, PromptBatch
from textsam.modeling.timm_encoder import TimmEncoder
from textsam.rle import RLE, encode_masks, rle_iou
from textsam.segmentation import Segmentation

if TYPE_CHECKING:
    from textsam.clip.encoder import ClipEncoder
    from textsam.clip.pathway import TextPathway
    from textsam.inference.model import TextSAM
    from textsam.inference.view import ImageView, Strategy

__all__ = [
    "TextSettings",
    "dense_frame",
    "dense_logits",
    "dense_prompt",
    "encode_dense",
    "phrase_tokens",
    "segment_phrases",
]


_LARGEST_HOLE = 0.02  # share of the mask's cells
_LEAST_HOLE = 4  # cells


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """Numbers of `auto`; they belong to a model and are saved with it.

    Attributes:
        threshold: Probability from which a place of the map belongs to the phrase.
        peak: Probability that a region must reach somewhere to be an instance.
        min_cells: Smallest region, in cells of the mask prompt's grid.
        duplicate_iou: Two masks that overlap more than this are one.
    """

    threshold: float = 0.5
    peak: float = 0.6
    min_cells: int = 4
    duplicate_iou: float = 0.7


def segment_phrases(
    view: ImageView, phrases: Sequence[str], *, strategy: Strategy, threshold: float | None
) -> Segmentation:
    """Masks of every phrase, in the phrases' order, best score first within a phrase.

    Raises:
        PromptError: For a threshold that is not a probability.
        WeightsError: If the model cannot be asked by text.
    """
    if threshold is not None and not 0 < threshold < 1:
        raise PromptError(f"threshold is {threshold}; it is a probability, between 0 and 1")
    _require_text(view.model)
    parts = []
    for phrase in dict.fromkeys(phrases):
        if strategy == "prompt" or not view.model.has_dense_text:
            parts.append(_readings(view, phrase))
        else:
            parts.append(_instances(view, phrase, threshold=threshold))
    return Segmentation.concatenate(parts)


def phrase_tokens(model: TextSAM, phrases: Sequence[str]) -> Tensor:
    """Prompt tokens (P, T, C) of phrases."""
    _, pathway = _require_text(model)
    with torch.no_grad():
        return torch.as_tensor(pathway(_embed(model, phrases)))


def dense_frame(view: ImageView) -> Frame:
    """Frame of the dense map, which need not be the SAM's."""
    _, pathway = _require_text(view.model)
    height, width = view.size
    return Frame(height=height, width=width, image_size=pathway.config.dense_image_size)


@torch.no_grad()
def encode_dense(view: ImageView) -> Tensor:
    """Text-aligned features (1, D, h8, w8) of the view's photo."""
    clip, pathway = _require_text(view.model)
    if pathway.dense is None:
        raise WeightsError("the text pathway of this model has no dense head, so it has no map")
    frame, sam = dense_frame(view), view.model.sam
    by_sam = pathway.config.dense_source == "sam"
    if by_sam and frame == view.frame:
        return pathway.dense.features(view.features.pyramid)
    photo = torch.from_numpy(resize_image(view.image, frame.resized)).permute(2, 0, 1)[None]
    photo = photo.to(view.model.device)
    pixels = (photo - sam.pixel_mean) / sam.pixel_std if by_sam else clip.normalize(photo)
    bottom, right = frame.padding
    pixels = F.pad(pixels, (0, right, 0, bottom))
    if by_sam:
        return pathway.dense.features(_timm_encoder(view.model).pyramid(pixels))
    maps = tower_maps(clip.model.visual, pixels, strides=pathway.config.dense_strides)
    return pathway.dense.features(maps)


@torch.no_grad()
def dense_logits(view: ImageView, phrases: Sequence[str]) -> Tensor:
    """Maps of logits (P, h8, w8) in the padded frame of the dense head, on the CPU."""
    _, pathway = _require_text(view.model)
    features = view.text_features().expand(len(phrases), -1, -1, -1)
    assert pathway.dense is not None
    return pathway.dense.logits(features, _embed(view.model, phrases)).float().cpu()


def dense_prompt(view: ImageView, phrases: Sequence[str]) -> Tensor:
    """The maps as mask prompts (P, 1, m, m); both frames pad the same square."""
    return _to_mask_prompts(view, dense_logits(view, phrases))


def _to_mask_prompts(view: ImageView, maps: Tensor) -> Tensor:
    size = view.model.sam.config.mask_size
    return F.interpolate(maps[:, None], (size, size), mode="bilinear", align_corners=False)


def _readings(view: ImageView, phrase: str) -> Segmentation:
    """`prompt`: one object, three readings of it.

    In the order of predicted IoU, which knows nothing of the phrase. A map of the phrase says more:
    the phrase is asked again with a point where its map peaks, as the paper asks again where a
    phrase alone failed (Section 7.5, Figure 12), and that answer comes first.
    """
    prediction = view.predict(text=phrase)
    order = [1 + int(i) for i in np.argsort(-prediction.iou[1:], kind="stable")]
    if not view.model.has_dense_text:
        return view.to_segmentation(prediction, order, phrase=phrase)
    row, column = np.unravel_index(view.text_map(phrase).argmax(), view.size)
    pointed = view.predict(text=phrase, points=[(column + 0.5, row + 0.5)])
    first = view.to_segmentation(pointed, [0], phrase=phrase)
    others = view.to_segmentation(prediction, order[:2], phrase=phrase)
    return Segmentation.concatenate([first, others])


def _instances(view: ImageView, phrase: str, *, threshold: float | None) -> Segmentation:
    """`auto`: every region of the map becomes an instance."""
    settings = view.model.text_settings
    level, peak = settings.threshold, settings.peak
    if threshold is not None:
        level = peak = threshold
    maps = dense_logits(view, [phrase])
    dense = _to_mask_prompts(view, maps)
    probability = to_original_frame(maps, dense_frame(view))[0].sigmoid().numpy()
    presence = {phrase: float(probability.max())}
    points, regions = _propose(view, dense[0, 0].sigmoid(), level=level, least_peak=peak)
    if not len(points):
        return Segmentation(view.size, [], presence=presence, image=view.image)

    count, device = len(points), view.model.device
    padding = torch.zeros(count, 1, 2)
    labels = torch.tensor([FOREGROUND, NOT_A_POINT]).expand(count, 2)
    logits, iou = view.decode(
        PromptBatch(
            points=torch.cat([points[:, None], padding], dim=1).to(device),
            labels=labels.to(device),
            image_index=torch.zeros(count, dtype=torch.int64, device=device),
            masks=_one_region_each(dense[0, 0], regions)[:, None].to(device),
            tokens=phrase_tokens(view.model, [phrase]).expand(count, -1, -1),
        )
    )
    full = to_original_frame(_tidied(logits[:, 0], regions), view.frame)
    masks = (full > 0).numpy()
    scores = np.array([probability[m].mean() if m.any() else 0.0 for m in masks])
    rles = encode_masks(masks)
    kept = [
        i
        for i in _without_duplicates(rles, scores, limit=settings.duplicate_iou)
        if scores[i] >= level
    ]
    return Segmentation(
        view.size,
        [rles[i] for i in kept],
        scores=scores[kept],
        iou=iou[kept, 0].numpy(),
        stability=stability_score(full[kept]).numpy(),
        labels=[phrase] * len(kept),
        presence=presence,
        image=view.image,
    )


def _propose(
    view: ImageView, probability: Tensor, *, level: float, least_peak: float
) -> tuple[Tensor, Tensor]:
    """Regions of the map (m, m), and the most probable place of each.

    Returns:
        points: (P, 2) x, y in model pixels.
        regions: (P, m, m) bool.
    """
    settings = view.model.text_settings
    size = probability.shape[-1]
    cell = view.frame.image_size / size
    height, width = (max(1, round(side / cell)) for side in view.frame.resized)
    inside = torch.zeros_like(probability, dtype=torch.bool)
    inside[:height, :width] = probability[:height, :width] > level
    regions = connected_components(inside)
    points, kept = [], []
    for index in range(1, int(regions.max()) + 1):
        region = regions == index
        peak = torch.where(region, probability, 0.0)
        if int(region.sum()) < settings.min_cells or float(peak.max()) < least_peak:
            continue
        # The middle of the region's best part, not a lone best cell at its border.
        smooth = F.avg_pool2d(peak[None, None], 5, stride=1, padding=2)[0, 0]
        best = int(torch.where(region, smooth, -1.0).argmax())
        points.append([(best % size + 0.5) * cell, (best // size + 0.5) * cell])
        kept.append(region)
    found = torch.stack(kept) if kept else torch.zeros(0, size, size, dtype=torch.bool)
    return torch.tensor(points, dtype=torch.float32).reshape(-1, 2), found


def _one_region_each(logits: Tensor, regions: Tensor) -> Tensor:
    """The map once for each region, the other regions turned to "absent": (P, m, m)."""
    others = regions.any(0) & ~regions
    return torch.where(others, -logits.abs(), logits)


def _tidied(logits: Tensor, regions: Tensor) -> Tensor:
    """Logits (P, m, m) without the pieces of a mask that do not touch its own region, nor holes.

    Seen in trials: asked for one wheel, the decoder paints a little of the other one, too; and it
    leaves out a sticker on a banana. Holes of up to 2% of the mask are filled; the paper fills
    those under 100 px in its automatic masks (Appendix B).
    """
    cleaned = logits.clone()
    for mask, region in zip(cleaned, regions, strict=True):
        pieces = connected_components(mask > 0)
        own = pieces[region & (pieces > 0)].unique()
        mask[(pieces > 0) & ~torch.isin(pieces, own)] = -1.0
        gaps = connected_components(mask <= 0)
        sizes = torch.bincount(gaps.flatten())
        limit = max(_LEAST_HOLE, int(_LARGEST_HOLE * int((mask > 0).sum())))
        holes = torch.nonzero(sizes <= limit)[:, 0]
        mask[(gaps > 0) & torch.isin(gaps, holes)] = 1.0
    return cleaned


def _without_duplicates(rles: list[RLE], scores: np.ndarray, *, limit: float) -> list[int]:
    """Indices by falling score, without those that overlap a better one."""
    overlap = rle_iou(rles, rles)
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        if all(overlap[index, other] <= limit for other in kept):
            kept.append(int(index))
    return kept


def _embed(model: TextSAM, phrases: Sequence[str]) -> Tensor:
    """Centred unit embeddings (P, D)."""
    clip, pathway = _require_text(model)
    return pathway.centre(clip.encode_text(list(phrases)).to(model.device), "text")


def _timm_encoder(model: TextSAM) -> TimmEncoder:
    encoder = model.sam.image_encoder
    if not isinstance(encoder, TimmEncoder):
        raise WeightsError(
            f"the text pathway's dense head reads a timm backbone's maps, and {model.name} has a "
            f"{type(encoder).__name__}: it was trained for another SAM"
        )
    return encoder


def _require_text(model: TextSAM) -> tuple[ClipEncoder, TextPathway]:
    if model.clip is None or model.pathway is None:
        lacks = "CLIP" if model.clip is None else "text pathway"
        raise WeightsError(
            f"{model.name} cannot be asked by text: it has no {lacks}. Ask with points, a box or a "
            'mask, or load one that can: TextSAM.from_pretrained("tiny"), or '
            'from_pretrained(..., clip="ViT-L-14-336/openai", pathway="pathway.safetensors")'
        )
    return model.clip, model.pathway
