"""How far an exported folder is from the model: the same inputs through onnxruntime and torch.

The oracle is the model itself as `TextSAM.segment` runs it, not the graph that was exported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.clip.pathway import TextPathway
from textsam.errors import WeightsError, require
from textsam.export.clip_tokens import TOKENIZER_FILE, PhraseTokenizer
from textsam.export.graphs import pack_features
from textsam.export.number_types import ExportDtype
from textsam.inference.photo.encoded import embed_phrases, to_original_frame
from textsam.modeling.mask_decoder import PromptBatch
from textsam.modeling.sam import Sam
from textsam.values.geometry import Frame
from textsam.weights.parts import ModelParts

__all__ = ["TOLERANCES", "Parity", "check_parity", "measure_parity"]

# Largest difference of an output, as a share of its largest value (of 1 if that is smaller).
# Of weights float16 keeps 11 bits, int8 keeps 8.
TOLERANCES: Mapping[ExportDtype, float] = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.25}
_PHRASES = ("wheel", "a dog's nose", "blue-and-white street sign, 2nd")
_SIZE = (300, 427)  # of the photo whose masks are compared; a size that does not divide the frame


@dataclass(frozen=True, kw_only=True)
class Parity:
    """One output of one graph.

    Attributes:
        file: Name of the graph's file.
        output: Name of the output.
        shape: Its shape on the example.
        error: Largest difference, as a share of the largest value.
        limit: What it may be.
    """

    file: str
    output: str
    shape: tuple[int, ...]
    error: float
    limit: float

    @property
    def is_equal(self) -> bool:
        """Whether it is within the limit; never for NaN."""
        return self.error <= self.limit


def check_parity(rows: list[Parity]) -> None:
    """A `WeightsError` that names the worst output, unless all are within their limits."""
    bad = [row for row in rows if not row.is_equal]
    if bad:
        worst = max(bad, key=lambda row: np.nan_to_num(row.error, nan=np.inf))
        raise WeightsError(
            f"{worst.file} differs from the model: {worst.output} by {worst.error:.1e} of its "
            f"largest value, at most {worst.limit:.0e} is allowed. Do not use this folder; "
            "type --dtype fp32, or report it with the versions of torch and onnxruntime"
        )


@torch.no_grad()
def measure_parity(
    parts: ModelParts, sam: Sam, dense: TextPathway | None, folder: Path, dtype: ExportDtype
) -> list[Parity]:
    """Compare each graph that is in a folder with the model; `dense` is the pathway with maps."""
    runtime: Any = require("onnxruntime", "export")
    rows: list[Parity] = []

    def compare(file: str, feeds: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
        if not (folder / file).is_file():
            return
        session = runtime.InferenceSession(str(folder / file), providers=["CPUExecutionProvider"])
        given = {name: value.cpu().numpy() for name, value in feeds.items()}
        for (name, oracle), value in zip(
            wanted.items(), session.run(list(wanted), given), strict=True
        ):
            rows.append(_row(file, name, value, oracle.float().cpu().numpy(), TOLERANCES[dtype]))

    pixels = _example_pixels(sam)
    features = sam.encode_image(pixels)
    packed = {"image_embeddings": pack_features(features)}
    texts: dict[str, Tensor] = {}
    if dense is not None and dense.dense is not None:
        texts["text_features"] = dense.dense.features(features.pyramid)
    compare("encoder.onnx", {"pixel_values": pixels}, packed | texts)
    embeddings, maps = None, None
    if parts.pathway is not None and (folder / TOKENIZER_FILE).is_file():
        embeddings = embed_phrases(parts, _PHRASES)
        ids = torch.from_numpy(PhraseTokenizer.read(folder / TOKENIZER_FILE)(_PHRASES))
        compare("text.onnx", {"input_ids": ids}, {"text_embedding": embeddings})
    if texts and embeddings is not None and dense is not None and dense.dense is not None:
        many = texts["text_features"].expand(len(embeddings), -1, -1, -1)
        maps = dense.dense.logits(many, embeddings)
        feeds = {**texts, "text_embedding": embeddings}
        compare("text_map.onnx", feeds, {"text_map": maps})
    for feeds, batch in _prompts(sam):
        wanted = _masks(sam, features, batch)
        compare("decoder.onnx", packed | feeds, wanted)
        if embeddings is None or parts.pathway is None:
            continue
        told = {"text_embedding": embeddings[:1]}
        if maps is not None:
            told |= {"text_map": maps[:1, None], "has_text_map": torch.ones(1)}
        batch = _with_phrase(sam, batch, parts.pathway(embeddings[:1]), maps)
        compare("decoder_text.onnx", packed | feeds | told, _masks(sam, features, batch))
    return _worst(rows)


def _worst(rows: list[Parity]) -> list[Parity]:
    """One row for each output, where several examples were compared."""
    worst: dict[tuple[str, str], Parity] = {}
    for row in rows:
        known = worst.get((row.file, row.output))
        # A NaN is worst: it is not smaller than anything.
        if known is None or not row.error <= known.error:
            worst[row.file, row.output] = row
    return [row for _, row in sorted(worst.items(), key=lambda item: item[0][0])]


def _row(file: str, name: str, value: NDArray[Any], oracle: NDArray[Any], limit: float) -> Parity:
    if value.shape != oracle.shape:
        raise WeightsError(f"{file}: {name} has shape {value.shape}; wanted {oracle.shape}")
    error = float(np.abs(value - oracle).max() / max(1.0, float(np.abs(oracle).max())))
    return Parity(file=file, output=name, shape=oracle.shape, error=error, limit=limit)


def _example_pixels(sam: Sam) -> Tensor:
    """(1, 3, S, S) normalised: smooth shapes with noise, and padding at the bottom, as photos."""
    side = sam.config.image_size
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 8, 8, generator=draw) * 255
    image = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")[0]
    image = (image + 12 * torch.randn(3, side, side, generator=draw)).clamp(0, 255)
    height, width = Frame(height=_SIZE[0], width=_SIZE[1], image_size=side).resized
    return sam.preprocess([image[:, :height, :width].to(sam.pixel_mean.device)])


def _prompts(sam: Sam) -> Iterator[tuple[dict[str, Tensor], PromptBatch]]:
    """A click without a mask prompt, and three prompts of five points with one."""
    size, side = sam.config.mask_size, sam.config.image_size
    draw = torch.Generator().manual_seed(1)
    for count, labels, has in (
        (1, [[1, -1]], False),
        (3, [[1, 0, 1, 0, -1], [2, 3, 1, 1, 0], [0, 1, 1, 2, 3]], True),
    ):
        points = torch.rand(count, len(labels[0]), 2, generator=draw) * side
        masks = torch.randn(count, 1, size, size, generator=draw) * 8
        numbers = torch.tensor(labels)
        yield (
            {
                "point_coords": points,
                "point_labels": numbers.float(),
                "mask_input": masks,
                "has_mask_input": torch.full((1,), float(has)),
                "orig_im_size": torch.tensor(_SIZE, dtype=torch.float32),
            },
            PromptBatch(
                points=points,
                labels=numbers,
                image_index=torch.zeros(count, dtype=torch.int64),
                masks=masks if has else None,
            ),
        )


def _with_phrase(sam: Sam, batch: PromptBatch, tokens: Tensor, maps: Tensor | None) -> PromptBatch:
    masks, count = batch.masks, len(batch)
    if masks is None and maps is not None:
        size = sam.config.mask_size
        grid = torch.nn.functional.interpolate(maps[:1, None], (size, size), mode="bilinear")
        masks = grid.expand(count, -1, -1, -1)
    return PromptBatch(
        points=batch.points,
        labels=batch.labels,
        image_index=batch.image_index,
        masks=masks,
        tokens=tokens.expand(count, -1, -1),
    )


def _masks(sam: Sam, features: Any, batch: PromptBatch) -> dict[str, Tensor]:
    output = sam.decode(features, batch)
    frame = Frame(height=_SIZE[0], width=_SIZE[1], image_size=sam.config.image_size)
    full = torch.stack([to_original_frame(logits, frame) for logits in output.logits])
    return {"masks": full, "iou_predictions": output.iou, "low_res_masks": output.logits}
