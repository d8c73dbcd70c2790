"""One SAM with the same random weights in textsam, segment-anything and transformers.

Weights are random since the released ones need a download. They are drawn so that masks are blobs
of a few cells and not noise: what a mask costs to measure and to code grows with its border.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from textsam import TextSAM
from textsam.inference.automatic.generator import automatic_masks
from textsam.inference.automatic.point_grid import AutomaticReport
from textsam.inference.photo.encoded import encode_photo
from textsam.inference.photo.prediction import decode
from textsam.modeling.config import SamConfig, ViTConfig
from textsam.modeling.image_encoder import ImageFeatures
from textsam.modeling.layers import no_random_fill
from textsam.modeling.mask_decoder import (
    BOX_END,
    BOX_START,
    FOREGROUND,
    NOT_A_POINT,
    PromptBatch,
)
from textsam.modeling.sam import Sam
from textsam.values.rle import RLE, encode_masks
from textsam.values.settings import AutomaticSettings
from textsam.weights.convert import config_to_huggingface
from textsam.weights.released_names import to_huggingface, to_official

OURS, OFFICIAL, HUGGINGFACE = "textsam", "segment-anything", "transformers"


@dataclass(frozen=True, kw_only=True)
class EqualPrompts:
    """P prompts in model pixels, as every library takes them."""

    points: Tensor | None = None  # (P, 1, 2), all foreground
    boxes: Tensor | None = None  # (P, 4)
    masks: Tensor | None = None  # (P, 1, m, m) logits

    def __len__(self) -> int:
        part = self.points if self.points is not None else self.boxes
        assert part is not None
        return len(part)

    def split(self, size: int) -> list[EqualPrompts]:
        """Groups of at most `size` prompts."""
        return [
            EqualPrompts(
                **{
                    name: None if part is None else part[start : start + size]
                    for name, part in vars(self).items()
                }
            )
            for start in range(0, len(self), size)
        ]

    def batch(self) -> PromptBatch:
        """As textsam takes them: points end in a padding point, or are the corners of a box."""
        if self.points is not None:
            points = torch.cat([self.points, torch.zeros_like(self.points)], dim=1)
            labels = torch.tensor([FOREGROUND, NOT_A_POINT])
        else:
            assert self.boxes is not None
            points = self.boxes.view(-1, 2, 2)
            labels = torch.tensor([BOX_START, BOX_END])
        return PromptBatch(
            points=points,
            labels=labels.expand(len(points), 2),
            image_index=torch.zeros(len(points), dtype=torch.int64),
            masks=self.masks,
        )


@dataclass(kw_only=True)
class EverythingRun:
    """Automatic masks of a photo."""

    rles: list[RLE]
    iou: NDArray[np.float64]
    encoder_seconds: float
    left: dict[str, int]  # masks after each filter, where the library tells


class Library(Protocol):
    """A library with the network: encode pixels, decode prompts on an embedding."""

    def encode(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (1, 3, S, S) -> embedding (1, C, s, s)."""
        ...

    def decode(self, embedding: Tensor, prompts: EqualPrompts) -> tuple[Tensor, Tensor]:
        """The three masks (P, 3, m, m) of ambiguous prompts and their predicted IoU (P, 3)."""
        ...


class OurLibrary:
    """textsam, by the functions that views call."""

    def __init__(self, sam: Sam, image: NDArray[np.uint8]) -> None:
        """`image` (S, S, 3) is the photo that embeddings are of."""
        self.sam, self.model = sam, TextSAM(sam, name="random")
        size = sam.config.embedding_size
        empty = ImageFeatures(embedding=torch.zeros(1, sam.config.embed_dim, size, size))
        # Not encoded here: whoever decodes says of which embedding.
        self._photo = _photo_of(self.model, image, empty)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """See `Library`."""
        return self.sam.encode_image(pixels).embedding

    def decode(self, embedding: Tensor, prompts: EqualPrompts) -> tuple[Tensor, Tensor]:
        """See `Library`; an embedding that was seen last keeps what was prepared for it."""
        if self._photo.features.embedding is not embedding:
            self._photo = replace(self._photo, features=ImageFeatures(embedding=embedding))
        logits, iou = decode(self._photo, prompts.batch())
        return logits[:, 1:], iou[:, 1:]

    def decode_first(self, embedding: Tensor, prompts: EqualPrompts) -> tuple[Tensor, Tensor]:
        """The same on a copy, for which nothing is prepared."""
        return self.decode(embedding.clone(), prompts)

    def everything(self, image: NDArray[np.uint8], settings: AutomaticSettings) -> EverythingRun:
        """Automatic masks, encoding included."""
        report = AutomaticReport()
        with _timed_forward(self.sam.image_encoder) as spent:
            photo = encode_photo(self.model.parts, image)
            masks = automatic_masks(photo, settings=settings, report=report)
        return EverythingRun(
            rles=list(masks.rles),
            iou=np.asarray(masks.iou, np.float64),
            encoder_seconds=sum(spent),
            left={"decoded": report.decoded, **report.after},
        )


def _photo_of(model: TextSAM, image: NDArray[np.uint8], features: ImageFeatures) -> Any:
    """An encoded photo of given features."""
    from textsam.inference.photo.encoded import EncodedPhoto
    from textsam.values.geometry import Frame
    from textsam.values.photo import Photo

    height, width = image.shape[:2]
    frame = Frame(height=height, width=width, image_size=model.sam.config.image_size)
    return EncodedPhoto(
        parts=model.parts, image=image, frame=frame, features=features, origin=Photo(image)
    )


class OfficialLibrary:
    """segment-anything."""

    def __init__(self, sam: Sam) -> None:
        """The same weights, in the same memory."""
        self.sam = _official_network(sam.config)
        self.sam.load_state_dict(to_official(sam.state_dict()), assign=True)
        self.sam.eval().requires_grad_(False)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """See `Library`."""
        embedding: Tensor = self.sam.image_encoder(pixels)
        return embedding

    @torch.no_grad()
    def decode(self, embedding: Tensor, prompts: EqualPrompts) -> tuple[Tensor, Tensor]:
        """See `Library`."""
        places, points = prompts.points, None
        if places is not None:
            points = (places, torch.ones(len(places), 1, dtype=torch.int64))
        encoder = self.sam.prompt_encoder
        sparse, dense = encoder(points=points, boxes=prompts.boxes, masks=prompts.masks)
        logits, iou = self.sam.mask_decoder(
            image_embeddings=embedding,
            image_pe=encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        return logits, iou

    def everything(self, image: NDArray[np.uint8], settings: AutomaticSettings) -> EverythingRun:
        """`SamAutomaticMaskGenerator`, whose cheapest output are uncompressed run lengths."""
        from segment_anything import (  # type: ignore[import-untyped]
            SamAutomaticMaskGenerator,
        )

        generator = SamAutomaticMaskGenerator(
            self.sam,
            points_per_side=settings.points_per_side,
            points_per_batch=settings.points_per_batch,
            pred_iou_thresh=settings.pred_iou_thresh,
            stability_score_thresh=settings.stability_score_thresh,
            box_nms_thresh=settings.box_nms_thresh,
            output_mode="uncompressed_rle",
        )
        with _timed_forward(self.sam.image_encoder) as spent:
            masks = generator.generate(image)
        return EverythingRun(
            rles=[_from_counts(mask["segmentation"]) for mask in masks],
            iou=np.array([mask["predicted_iou"] for mask in masks], np.float64),
            encoder_seconds=sum(spent),
            left={},
        )


class HuggingFaceLibrary:
    """`transformers.SamModel` with its fused attention."""

    def __init__(self, sam: Sam) -> None:
        """The same weights, in the same memory."""
        import transformers

        values = config_to_huggingface(sam.config)
        config = transformers.SamConfig(**{k: v for k, v in values.items() if k != "model_type"})
        config._attn_implementation = "sdpa"
        with no_random_fill():
            self.model = transformers.SamModel(config)
        state = to_huggingface(sam.state_dict())
        tied = "prompt_encoder.shared_embedding.positional_embedding"
        state[tied] = state["shared_image_embedding.positional_embedding"]
        self.model.load_state_dict(state, assign=True)
        self.model.eval().requires_grad_(False)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """See `Library`."""
        embedding: Tensor = self.model.get_image_embeddings(pixels)
        return embedding

    @torch.no_grad()
    def decode(self, embedding: Tensor, prompts: EqualPrompts) -> tuple[Tensor, Tensor]:
        """See `Library`; all prompts of the photo in one call."""
        points = prompts.points
        output = self.model(
            image_embeddings=embedding,
            input_points=None if points is None else points[None],
            input_labels=None if points is None else torch.ones(1, len(points), 1).long(),
            input_boxes=None if prompts.boxes is None else prompts.boxes[None],
            input_masks=prompts.masks,
            multimask_output=True,
        )
        return output.pred_masks[0], output.iou_scores[0]


@contextmanager
def _timed_forward(module: nn.Module) -> Iterator[list[float]]:
    """Seconds of each forward pass of a module."""
    spent: list[float] = []
    begin: list[float] = []
    handles = (
        module.register_forward_pre_hook(lambda *_: begin.append(time.perf_counter())),
        module.register_forward_hook(lambda *_: spent.append(time.perf_counter() - begin.pop())),
    )
    try:
        yield spent
    finally:
        for handle in handles:
            handle.remove()


def _from_counts(rle: dict[str, Any]) -> RLE:
    """Compressed run lengths of the released code's uncompressed ones, down the columns."""
    height, width = rle["size"]
    values = np.arange(len(rle["counts"])) % 2 == 1
    flat = np.repeat(values, rle["counts"])
    return encode_masks(flat.reshape(width, height).T[None])[0]


def _official_network(config: SamConfig) -> Any:
    from segment_anything import modeling

    vit = config.encoder
    assert isinstance(vit, ViTConfig)
    size, dim = config.embedding_size, config.embed_dim
    with torch.device("meta"):
        network = modeling.Sam(
            image_encoder=modeling.ImageEncoderViT(
                img_size=config.image_size,
                embed_dim=vit.width,
                depth=vit.depth,
                num_heads=vit.heads,
                mlp_ratio=vit.mlp_ratio,
                norm_layer=partial(nn.LayerNorm, eps=1e-6),
                use_rel_pos=True,
                window_size=vit.window_size,
                global_attn_indexes=vit.global_attention_indexes,
                out_chans=dim,
            ),
            prompt_encoder=modeling.PromptEncoder(
                embed_dim=dim,
                image_embedding_size=(size, size),
                input_image_size=(config.image_size, config.image_size),
                mask_in_chans=config.mask_channels,
            ),
            mask_decoder=modeling.MaskDecoder(
                num_multimask_outputs=config.multimasks,
                transformer=modeling.TwoWayTransformer(
                    depth=config.decoder_depth,
                    embedding_dim=dim,
                    mlp_dim=config.decoder_mlp,
                    num_heads=config.decoder_heads,
                ),
                transformer_dim=dim,
            ),
        )
    # Not among the weights, so it has numbers of its own.
    network.pixel_mean = torch.tensor(config.pixel_mean)[:, None, None]
    network.pixel_std = torch.tensor(config.pixel_std)[:, None, None]
    return network


@torch.no_grad()
def random_sam(config: SamConfig, *, seed: int = 3) -> Sam:
    """A SAM of random weights whose masks are blobs: smooth over places, other for each prompt."""
    with no_random_fill():
        sam = Sam(config).eval().requires_grad_(False)
    torch.manual_seed(seed)
    for name, tensor in sam.state_dict().items():
        leaf = name.rpartition(".")[2]
        if tensor.ndim <= 1:
            tensor.normal_(1.0 if leaf == "weight" else 0.0, 0.1)
        elif leaf in ("relative_rows", "relative_columns"):
            tensor.normal_(0.0, 0.1)
        elif re.search(r"(token|tokens|point|points|embeddings|no_mask)\.weight|_matrix", name):
            tensor.normal_(0.0, 0.7)  # tokens and kinds of prompts
        else:
            fan_in = tensor[0].numel() if "upscale" not in name else tensor.shape[0]
            tensor.normal_(0.0, fan_in**-0.5)
    encoder, decoder = sam.image_encoder, sam.mask_decoder
    position: Tensor = encoder.position_embedding  # type: ignore[assignment]
    coarse = torch.randn(1, position.shape[-1], 6, 6)
    smooth = F.interpolate(coarse, position.shape[1:3], mode="bicubic", align_corners=False)
    position.copy_(smooth.permute(0, 2, 3, 1) * 2)
    for layer in (decoder.upscale_1, decoder.upscale_2):
        # The four cells that come of one are alike, or masks would be chequered.
        layer.weight.copy_(layer.weight.mean((2, 3), keepdim=True).expand_as(layer.weight) * 2)
    # The released code filters by predicted IoU only above zero.
    last: Any = decoder.iou_head.layers[-1]
    last.bias += 2.0
    return sam
