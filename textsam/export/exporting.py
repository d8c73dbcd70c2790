"""A model -> a folder of ONNX graphs that run without torch: `export_model`.

encoder.onnx       a photo -> its embedding, once
decoder.onnx       points, boxes and masks -> masks; the released code's names
decoder_text.onnx  the same with a phrase
text.onnx          a phrase -> its embedding; `tokenizer.json` is the table for its input
text_map.onnx      a phrase and a photo -> where it is
textsam.json       sizes, pixel statistics, settings, calibration, and what is in each file
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import textsam
from textsam.errors import PromptError, WeightsError
from textsam.export.clip_tokens import TOKENIZER_FILE, tokenizer_table
from textsam.export.graph_specs import ExportPart, Phrases, graph_specs
from textsam.export.number_types import ExportDtype
from textsam.export.onnx_files import OPSET, write_graph
from textsam.export.parity import Parity, check_parity, measure_parity
from textsam.inference.model import TextSAM
from textsam.inference.strategies.map_points import curves_of
from textsam.modeling.precision import in_float32
from textsam.modeling.sam import Sam
from textsam.values.files import write_atomically
from textsam.weights.info import read_model_info
from textsam.weights.parts import ModelParts

__all__ = ["FOLDER_FILE", "ExportPart", "export_model"]

FOLDER_FILE = "textsam.json"
_FORMAT, _VERSION = "textsam-onnx", 1


@in_float32
def export_model(
    model: TextSAM | str | Path,
    folder: str | Path,
    *,
    parts: Sequence[ExportPart] | None = None,
    dtype: ExportDtype = "fp32",
) -> list[Parity]:
    """Write a model as ONNX graphs, run them, and compare what they give with the model.

    Args:
        model: A model, or a name as `TextSAM.from_pretrained` takes.
        folder: Created if it does not exist; graphs that are there are replaced.
        parts: "encoder", "decoder", "text"; by default all that the model has.
        dtype: How the weights are stored: "fp32", "fp16" (half the size) or "int8" (a quarter).
            Graphs compute in float32 and give float32 in each case.

    Returns:
        How far each output is from the model's; all within `TOLERANCES`.

    Raises:
        WeightsError: The model has another core (SAM 2, SAM 3, EdgeTAM), or a part that it does
            not have is asked for; or the graphs do not give what the model gives.
        PromptError: An unknown part or dtype.
        MissingExtraError: Without `pip install "textsam[export]"`.
        OSError: The folder cannot be written.
    """
    _check_options(parts, dtype)
    if not isinstance(model, TextSAM):
        model = TextSAM.from_pretrained(model)
    sam = _require_core(model.parts)
    asked = _choose_parts(model.parts, sam, parts)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    phrases = _phrase_parts(model.parts, sam) if "text" in asked else None
    for name, spec in graph_specs(sam, phrases, asked):
        write_graph(spec, folder / name, dtype=dtype)
    if phrases is not None:
        table = json.dumps(tokenizer_table(phrases[0]), ensure_ascii=False)
        write_atomically(folder / TOKENIZER_FILE, table.encode())
    dense = None if phrases is None else phrases[1]
    rows = measure_parity(model.parts, sam, dense, folder, dtype)
    check_parity(rows)
    description = _describe(model.parts, sam, phrases, folder, dtype, rows)
    text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / FOLDER_FILE, text.encode())
    return rows


def _check_options(parts: Sequence[str] | None, dtype: str) -> None:
    for name, values, known in (
        ("part", parts or (), get_args(ExportPart)),
        ("dtype", (dtype,), get_args(ExportDtype)),
    ):
        for value in values:
            if value not in known:
                raise PromptError(f"{name} is {value!r}; wanted {', '.join(map(repr, known))}")


def _require_core(parts: ModelParts) -> Sam:
    """Our own network, which can be exported."""
    if not isinstance(parts.sam, Sam):
        raise WeightsError(
            f"{parts.name} is a {type(parts.sam).__name__} of another project, which textsam runs "
            "but does not export; wanted SAM, SAM-HQ, MobileSAM or a model like tiny"
        )
    if parts.sam.config.multimasks != 3:
        raise WeightsError(f"{parts.name} has {parts.sam.config.multimasks + 1} masks; wanted 4")
    return parts.sam


def _choose_parts(
    parts: ModelParts, sam: Sam, asked: Sequence[ExportPart] | None
) -> tuple[ExportPart, ...]:
    if asked:
        if "text" in asked:
            _phrase_parts(parts, sam)  # its error says what is missing
        return tuple(dict.fromkeys(asked))
    try:
        _phrase_parts(parts, sam)
    except WeightsError:
        return "encoder", "decoder"
    return get_args(ExportPart)


def _phrase_parts(parts: ModelParts, sam: Sam) -> Phrases:
    """CLIP and pathway, if phrases can be answered from the exported encoder alone."""
    if parts.map_source is not None or parts.concept_model is not None:
        raise WeightsError(
            f"{parts.name} answers phrases by another project's network, which is not exported. "
            "Type: --parts encoder,decoder"
        )
    clip, pathway = parts.require_text()
    config = pathway.config
    own = config.dense_source == "sam" and config.dense_image_size == sam.config.image_size
    if pathway.dense is not None and not own:
        raise WeightsError(
            f"the phrase maps of {parts.name} start from a second pass over the photo "
            f"({config.dense_source}, {config.dense_image_size} pixels), which is not exported. "
            "Type: --parts encoder,decoder"
        )
    tokenizer_table(clip)  # refuses other tokenizers
    return clip, pathway


def _describe(
    parts: ModelParts,
    sam: Sam,
    phrases: Phrases | None,
    folder: Path,
    dtype: ExportDtype,
    rows: Sequence[Parity],
) -> dict[str, Any]:
    """What `textsam.json` says."""
    config = sam.config
    content: dict[str, Any] = {
        "format": _FORMAT,
        "version": _VERSION,
        "name": parts.name,
        "textsam": textsam.__version__,
        "licence": _licence(parts.name),
        "opset": OPSET,
        "dtype": dtype,
        "image_size": config.image_size,
        "frame": "padded",
        "embedding_size": config.embedding_size,
        "mask_size": config.mask_size,
        "masks": config.multimasks + 1,
        "pixel_mean": list(config.pixel_mean),
        "pixel_std": list(config.pixel_std),
        "text": None,
        "focus": None if parts.focus is None else asdict(parts.focus),
    }
    if phrases is not None:
        clip, pathway = phrases
        has_map = pathway.dense is not None
        content["text"] = {
            "width": pathway.config.clip_width,
            "templates": len(clip.templates),
            "map_size": config.image_size // pathway.config.dense_strides[0] if has_map else None,
            "settings": asdict(parts.text_settings),
            # As in calibration.json; without one the map's own probabilities.
            "calibration": {"auto": _curves(curves_of(parts))},
        }
    names = sorted({row.file for row in rows} | ({TOKENIZER_FILE} if phrases else set()))
    content["files"] = {name: _describe_file(folder / name) for name in names}
    content["parity"] = [
        {"file": row.file, "output": row.output, "error": float(f"{row.error:.1e}")} for row in rows
    ]
    return content


def _curves(curves: Any) -> dict[str, Any]:
    content = asdict(curves)
    del content["phrase"]
    return content


def _describe_file(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _licence(name: str) -> str | None:
    try:
        return read_model_info(name).license
    except (WeightsError, OSError):  # a model that was made in memory
        return None
