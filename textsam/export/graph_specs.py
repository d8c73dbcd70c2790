"""The graphs of a model by file name, with examples of their inputs and the axes that may vary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from textsam.clip.encoder import ClipEncoder
from textsam.clip.pathway import TextPathway
from textsam.export.graphs import (
    DecoderGraph,
    EncoderGraph,
    TextDecoderGraph,
    TextGraph,
    TextMapGraph,
    packed_maps,
)
from textsam.export.onnx_files import GraphSpec
from textsam.modeling.sam import Sam

__all__ = ["ExportPart", "Phrases", "graph_specs"]

ExportPart = Literal["encoder", "decoder", "text"]
Phrases: TypeAlias = tuple[ClipEncoder, TextPathway]
_Specs: TypeAlias = Iterator[tuple[str, GraphSpec]]

_PROMPT_AXES = {
    "point_coords": {0: "prompts", 1: "points"},
    "point_labels": {0: "prompts", 1: "points"},
    "mask_input": {0: "prompts"},
}


def graph_specs(sam: Sam, phrases: Phrases | None, asked: Sequence[ExportPart]) -> _Specs:
    """The graphs of the parts; those of phrases if there are `phrases`."""
    pathway = None if phrases is None else phrases[1]
    if "encoder" in asked:
        side = sam.config.image_size
        maps = ["text_features"] if pathway is not None and pathway.dense is not None else []
        yield (
            "encoder.onnx",
            GraphSpec(
                module=EncoderGraph(sam, pathway),
                inputs={"pixel_values": torch.zeros(1, 3, side, side)},
                outputs=["image_embeddings", *maps],
            ),
        )
    if "decoder" in asked:
        yield "decoder.onnx", _decoder(DecoderGraph(sam), sam, {})
    if phrases is not None:
        yield from _phrase_specs(sam, *phrases, decoder="decoder" in asked)


def _phrase_specs(sam: Sam, clip: ClipEncoder, pathway: TextPathway, *, decoder: bool) -> _Specs:
    yield (
        "text.onnx",
        GraphSpec(
            module=TextGraph(clip, pathway),
            inputs={"input_ids": torch.as_tensor(clip.tokenizer(["a", "b"] * len(clip.templates)))},
            outputs=["text_embedding"],
            dynamic={"input_ids": {0: "sentences"}},
        ),
    )
    width = pathway.config.clip_width
    told = {"text_embedding": torch.zeros(1, width)}
    if pathway.dense is not None:
        grid = sam.config.image_size // pathway.config.dense_strides[0]
        yield (
            "text_map.onnx",
            GraphSpec(
                module=TextMapGraph(pathway),
                inputs={
                    "text_features": torch.zeros(1, width, grid, grid),
                    "text_embedding": torch.zeros(2, width),
                },
                outputs=["text_map"],
                dynamic={"text_embedding": {0: "phrases"}},
            ),
        )
        told |= {"text_map": torch.zeros(1, 1, grid, grid), "has_text_map": torch.zeros(1)}
    if decoder:
        yield "decoder_text.onnx", _decoder(TextDecoderGraph(sam, pathway), sam, told)


def _decoder(module: DecoderGraph, sam: Sam, told: Mapping[str, Tensor]) -> GraphSpec:
    size, side = sam.config.mask_size, sam.config.image_size
    channels = sam.config.embed_dim + sum(each.packed for each in packed_maps(sam))
    inputs = {
        "image_embeddings": torch.zeros(1, channels, size // 4, size // 4),
        # Two and three, since the exporter takes an axis of one for a constant.
        "point_coords": torch.zeros(2, 3, 2),
        "point_labels": torch.zeros(2, 3),
        "mask_input": torch.zeros(2, 1, size, size),
        "has_mask_input": torch.zeros(1),
    }
    return GraphSpec(
        module=module,
        inputs={**inputs, **told},
        outputs=["iou_predictions", "low_res_masks"],
        dynamic=_PROMPT_AXES,
        upscaled=(side, size),
    )
