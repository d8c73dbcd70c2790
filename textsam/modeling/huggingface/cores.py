"""Cores of `transformers` as ours: SAM 2.1 (arXiv 2408.00714) and EdgeTAM (arXiv 2501.07256).

Of a model for videos the part for images is taken, which is whole without the memory. Photos are
stretched to the square. Such a network runs here but is not trained.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from textsam.errors import PromptError, WeightsError, one_line
from textsam.modeling.config import TIMM_NAME, read_pixel_statistics
from textsam.modeling.image_encoder import ImageFeatures, check_pixels, normalise
from textsam.modeling.mask_decoder import NOT_A_POINT, MaskPrediction, PromptBatch
from textsam.values.files import read_settings

__all__ = [
    "CORE_KINDS",
    "HuggingFaceCore",
    "HuggingFaceCoreConfig",
    "no_progress_bars",
    "read_core",
    "read_core_config",
    "read_network",
]

# What a config.json calls its model, and how the classes of its image part begin.
CORE_KINDS = {
    "sam2": "Sam2",
    "sam2_video": "Sam2",
    "edgetam": "EdgeTam",
    "edgetam_video": "EdgeTam",
}
_PARTS = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
# Where a folder says how images are resized; the last is that of a model for videos.
_PROCESSORS = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)
# Arguments for a timm backbone that cannot make timm open a file or the network.
_TIMM_ARGUMENTS = {"in_chans", "features_only", "out_indices"}


@dataclass(frozen=True, kw_only=True)
class HuggingFaceCoreConfig:
    """Sizes of such a core, see `textsam.modeling.core.CoreConfig`."""

    kind: str  # a key of `CORE_KINDS`
    image_size: int
    embed_dim: int
    mask_size: int
    stretched: bool = True
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)  # of ImageNet
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)


class HuggingFaceCore(nn.Module):
    """A `Sam2Model`, or a network of `transformers` that is built like it, as a `Core`."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, network: Any, config: HuggingFaceCoreConfig) -> None:
        super().__init__()
        self.config = config
        self.network = network
        mean, std = torch.tensor(config.pixel_mean), torch.tensor(config.pixel_std)
        self.register_buffer("pixel_mean", mean[:, None, None], persistent=False)
        self.register_buffer("pixel_std", std[:, None, None], persistent=False)
        # Their decoder computes four masks, but returns one or three. The step that chooses the one
        # returns all four here, so that one run gives what two runs of theirs would.
        decoder = network.mask_decoder
        choose = decoder.dynamic_multimask_via_stability
        decoder._dynamic_multimask_via_stability = partial(_all_masks, decoder, choose=choose)
        decoder.dynamic_multimask_via_stability = True
        self.eval()

    @property
    def image_encoder(self) -> nn.Module:
        """The image encoder with its feature pyramid."""
        encoder: nn.Module = self.network.vision_encoder
        return encoder

    def train(self, mode: bool = True) -> HuggingFaceCore:
        """Stay as for inference: in training mode, their decoder would leave masks out."""
        return super().train(False)

    def preprocess(self, images: Sequence[Tensor]) -> Tensor:
        """B images (3, h, w), RGB in 0..255, of size `Frame.resized` -> (B, 3, S, S) float."""
        side = self.config.image_size
        return normalise(images, side=side, mean=self.pixel_mean, std=self.pixel_std)

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """Encode (B, 3, S, S); the skips are as in `ImageFeatures`."""
        check_pixels(pixels, self.config.image_size)
        fine, middle, embedding = self.network.get_image_embeddings(pixels)
        return ImageFeatures(embedding=embedding, skips=(middle, fine))

    def decode(self, features: ImageFeatures, prompts: PromptBatch) -> MaskPrediction:
        """Decode P prompts, each on the image that its index names, to four masks each.

        Mask 0 is what `transformers` returns for `multimask_output=False`: that of the first token,
        or the best reading where it is not stable. The others are its three readings.

        Raises:
            PromptError: A prompt has tokens of a text pathway.
        """
        if prompts.tokens is not None:
            raise PromptError(
                f"a {self.config.kind} core takes points, boxes and masks, no tokens of a phrase; "
                'give it a detector or a CLIP, and ask with strategy="detect" or "rank"'
            )
        if not len(prompts):
            size = self.config.mask_size
            return MaskPrediction(
                logits=features.embedding.new_zeros(0, 4, size, size),
                iou=features.embedding.new_zeros(0, 4),
            )
        # Padding cannot be hidden from their attention, so each number of points runs by itself.
        counts = (prompts.labels >= 0).sum(1)
        groups = [torch.nonzero(counts == count)[:, 0] for count in counts.unique()]
        parts = [self._decode_rows(features, prompts, rows) for rows in groups]
        order = torch.cat(groups).argsort()
        return MaskPrediction(
            logits=torch.cat([part.logits for part in parts])[order],
            iou=torch.cat([part.iou for part in parts])[order],
        )

    def _decode_rows(
        self, features: ImageFeatures, prompts: PromptBatch, rows: Tensor
    ) -> MaskPrediction:
        """Decode the prompts at these rows, which all have the same number of points."""
        # Their prompt encoder adds the padding point itself, also after boxes.
        real = prompts.labels[rows] >= 0
        points = prompts.points[rows][real].reshape(len(rows), 1, -1, 2)
        labels = prompts.labels[rows][real].reshape(len(rows), 1, -1)
        if not labels.numel():  # as in their `forward`: a prompt of a mask alone has two of them
            points = points.new_zeros(len(rows), 1, 1, 2)
            labels = labels.new_full((len(rows), 1, 1), NOT_A_POINT)
        encoder = self.network.prompt_encoder
        masks = None if prompts.masks is None else prompts.masks[rows]
        sparse, dense = encoder(points, labels, None, masks)
        if masks is not None and prompts.has_mask is not None:
            empty = encoder.no_mask_embed.weight[0][None, :, None, None]
            dense = torch.where(prompts.has_mask[rows][:, None, None, None], dense, empty)
        images = features.of_prompts(prompts.image_index[rows])
        # Maps of a single image are broadcast; theirs would copy those of each prompt.
        middle, fine = features.skips if len(features) == 1 else images.skips
        logits, iou, *_ = self.network.mask_decoder(
            image_embeddings=images.embedding,
            image_positional_embeddings=self.network.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
            high_resolution_features=[fine, middle],
        )
        return MaskPrediction(logits=logits[:, 0], iou=iou[:, 0])

    def save(self, folder: Path, *, dtype: torch.dtype | None = None) -> None:
        """Write a folder that `read_core` reads, and `transformers` too."""
        tensors = self.network.state_dict()
        if dtype is not None:
            tensors = {k: t.to(dtype) if t.is_floating_point() else t for k, t in tensors.items()}
        self.network.save_pretrained(folder, state_dict=tensors)
        side = self.config.image_size
        size = {"height": side, "width": side} if self.config.stretched else {"longest_edge": side}
        values = {
            "size": size,
            "image_mean": [value / 255 for value in self.config.pixel_mean],
            "image_std": [value / 255 for value in self.config.pixel_std],
        }
        (folder / _PROCESSORS[0]).write_text(json.dumps(values, indent=2) + "\n", "utf-8")


def _all_masks(decoder: Any, logits: Tensor, iou: Tensor, *, choose: bool) -> tuple[Tensor, Tensor]:
    """Logits (B, P, 4, m, m) and IoU (B, P, 4), of which the first is the one chosen."""
    if not choose:
        return logits, iou
    first, first_iou = type(decoder)._dynamic_multimask_via_stability(decoder, logits, iou)
    return torch.cat([first, logits[:, :, 1:]], 2), torch.cat([first_iou, iou[:, :, 1:]], 2)


def read_core(folder: Path) -> HuggingFaceCore:
    """Read a folder of `CORE_KINDS` as `save_pretrained` writes it; a `WeightsError` if not whole.

    Only safetensors are opened, and no weight may be missing, unknown or of another shape.
    """
    values = read_settings(folder / "config.json")
    kind = values.get("model_type")
    if kind not in CORE_KINDS:
        raise WeightsError(f"{folder} has model_type {kind!r}; wanted one of {sorted(CORE_KINDS)}")
    _check_backbone(values)
    import transformers

    stem = CORE_KINDS[kind]
    parts = {part: values[part] for part in _PARTS if part in values}
    try:
        network, report = getattr(transformers, f"{stem}Model").from_pretrained(
            folder,
            # Of a model for videos, what describes the memory is left out.
            config=getattr(transformers, f"{stem}Config")(**parts),
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
            # A config may name an implementation that would be fetched and run.
            attn_implementation="sdpa",
        )
    except Exception as error:  # it raises errors of many types, which mean the same to a user
        raise WeightsError(f"{folder} cannot be read as a {kind}: {one_line(error)}") from error
    problems = {what: keys for what, keys in report.items() if keys}
    if problems:
        listed = "; ".join(
            f"{what}: {sorted(map(str, keys))[:8]}" for what, keys in problems.items()
        )
        raise WeightsError(f"{folder} is not a complete {kind}; {listed}")
    return HuggingFaceCore(network, read_core_config(folder, kind, network))


def read_core_config(folder: Path, kind: str, network: Any) -> HuggingFaceCoreConfig:
    """Sizes of the network, and what the folder's processor does to images."""
    processor: Mapping[str, Any] = {}
    for name in _PROCESSORS:
        if (folder / name).is_file():
            values = read_settings(folder / name)
            processor = values.get("image_processor", values)
            if "size" in processor:
                break
    side = int(network.prompt_encoder.input_image_size)
    size = processor.get("size") or {"height": side, "width": side}
    stretched = {"height": side, "width": side}
    if size not in (stretched, {"longest_edge": side}):
        raise WeightsError(
            f"the processor of {folder} resizes images to {size}; its network takes {side} pixels"
        )
    return HuggingFaceCoreConfig(
        kind=kind,
        image_size=side,
        embed_dim=int(network.prompt_encoder.hidden_size),
        mask_size=int(network.prompt_encoder.mask_input_size[0]),
        stretched=size == stretched,
        **read_pixel_statistics(processor),
    )


def _check_backbone(values: Mapping[str, Any]) -> None:
    """Refuse the name of a timm backbone, or arguments for it, that read anything else."""
    backbone = (values.get("vision_config") or {}).get("backbone_config") or {}
    if backbone.get("model_type") != "timm_wrapper":
        return
    name, arguments = backbone.get("architecture"), backbone.get("model_args") or {}
    if not TIMM_NAME.fullmatch(str(name)) or not _TIMM_ARGUMENTS.issuperset(arguments):
        raise WeightsError(
            f"the backbone is {name!r} with {sorted(arguments)}; wanted the plain name of a timm "
            f"model, with no other arguments than {sorted(_TIMM_ARGUMENTS)}"
        )


def read_network(kind: Any, folder: Path, *, name: str, config: Any = None) -> Any:
    """A network of `transformers` for inference, of which no weight may be missing.

    Others than its own may lie in the folder, if `config` says which is its own part. Raises a
    `WeightsError`.
    """
    try:
        with no_progress_bars():
            network, report = kind.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                dtype=torch.float32,
                # A config may name an implementation that would be fetched and run.
                attn_implementation="sdpa",
            )
    except Exception as error:  # it raises errors of many types, which mean the same to a user
        raise WeightsError(
            f"{name} cannot be loaded as {kind.__name__}: {one_line(error)}"
        ) from error
    if missing := sorted(report["missing_keys"]):
        # Random weights in their place would only be a warning.
        raise WeightsError(
            f"{name} lacks {len(missing)} weights of {kind.__name__}, such as {missing[0]}: "
            "download or copy the whole folder again"
        )
    return network.eval()


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep a terminal free of transformers' bars: commands show a spinner of their own."""
    from transformers.utils import logging

    bars: Any = logging

    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()
