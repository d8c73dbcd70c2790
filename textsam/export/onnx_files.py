"""Graphs -> ONNX files: torch's dynamo exporter, the official upscaling of masks, number types."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from textsam.errors import require
from textsam.export.number_types import ExportDtype, convert_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

__all__ = ["OPSET", "GraphSpec", "write_graph"]

OPSET = 18  # the exporter's own; onnxruntime, onnxruntime-web and OpenVINO all run it
_MAX_PROTO = 1_900_000_000  # bytes of weights that one ONNX file can hold, with some to spare


@dataclass(frozen=True, kw_only=True)
class GraphSpec:
    """One graph to export.

    Attributes:
        module: What it computes.
        inputs: Examples by name, in the order of `forward`'s arguments.
        outputs: Names in the order of what it returns.
        dynamic: Names of the axes that may have any length, by input and axis.
        upscaled: (S, m): appends `masks` at the photo's size, from `low_res_masks` of side m in a
            frame of side S and a further input `orig_im_size`; None for graphs without masks.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: Sequence[str]
    dynamic: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    upscaled: tuple[int, int] | None = None


def write_graph(spec: GraphSpec, path: Path, *, dtype: ExportDtype = "fp32") -> None:
    """Export a graph to one file; its weights lie beside it only if they exceed 2 GB.

    Raises:
        MissingExtraError: Without the extra `export`.
    """
    onnx: Any = require("onnx", "export")
    require("onnxscript", "export")
    spec.module.eval()
    weights = sum(p.numel() * p.element_size() for p in spec.module.parameters())
    axes = {name for shape in spec.dynamic.values() for name in shape.values()}
    # Not 1, which the exporter would take for a constant; the largest is no limit that is checked.
    dims = {name: torch.export.Dim(name, min=1, max=1 << 20) for name in axes}
    with _quiet(), torch.no_grad():
        program: Any = torch.onnx.export(
            spec.module,
            tuple(spec.inputs.values()),
            dynamo=True,
            input_names=list(spec.inputs),
            output_names=list(spec.outputs),
            dynamic_shapes=tuple(
                {axis: dims[name] for axis, name in spec.dynamic.get(key, {}).items()}
                for key in spec.inputs
            ),
            opset_version=OPSET,
            verbose=False,
        )
    if weights > _MAX_PROTO:
        program.save(str(path), external_data=True)  # `path` + ".data"
        return
    model = program.model_proto
    if spec.upscaled is not None:
        model = _with_upscaling(model, *spec.upscaled)
    model = convert_numbers(model, dtype)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _with_upscaling(model: onnx.ModelProto, side: int, size: int) -> onnx.ModelProto:
    """A decoder that also gives `masks` at the photo's size, as the released code's export does.

    Bilinear to the model's square, cut to the photo, bilinear to its size. Only the part of the
    low-resolution masks that the photo covers is upscaled, and one cell of its surroundings.
    """
    import onnx.compose
    import onnx.parser

    step = side // size
    upscaling = onnx.parser.parse_model(
        f"""
        <ir_version: {model.ir_version}, opset_import: ["" : {OPSET}]>
        upscaling (float[prompts, 4, {size}, {size}] low_res, float[2] orig_im_size)
            => (float[prompts, 4, height, width] masks)
        {{
            side = Constant <value = float[1] {{{side}.0}}> ()
            half = Constant <value = float[1] {{0.5}}> ()
            one = Constant <value = int64[2] {{1, 1}}> ()
            two = Constant <value = int64[2] {{2, 2}}> ()
            limit = Constant <value = int64[2] {{{size}, {size}}}> ()
            step = Constant <value = int64[2] {{{step}, {step}}}> ()
            zeros = Constant <value = int64[2] {{0, 0}}> ()
            axes = Constant <value = int64[2] {{2, 3}}> ()
            scales = Constant <value = float[4] {{1.0, 1.0, {step}.0, {step}.0}}> ()
            longest = ReduceMax <keepdims = 1> (orig_im_size)
            grown = Mul (orig_im_size, side)
            exact = Div (grown, longest)
            raised = Add (exact, half)
            rounded = Floor (raised)
            whole = Cast <to = 7> (rounded)
            resized = Max (whole, one)
            cells = Div (resized, step)
            more = Add (cells, two)
            covered = Min (more, limit)
            part = Slice (low_res, zeros, covered, axes)
            grid = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel">
                (part, , scales)
            cut = Slice (grid, zeros, resized, axes)
            shape = Shape <start = 0, end = 2> (low_res)
            target = Cast <to = 7> (orig_im_size)
            sizes = Concat <axis = 0> (shape, target)
            masks = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel">
                (cut, , , sizes)
        }}
        """
    )
    merged = onnx.compose.merge_models(
        model,
        onnx.compose.add_prefix(upscaling, "upscaling_", rename_inputs=False, rename_outputs=False),
        io_map=[("low_res_masks", "low_res")],
        outputs=["masks", *(output.name for output in model.graph.output)],
    )
    # In the order of the released code: clients that ask for no names take them by their places.
    by_name = {output.name: output for output in merged.graph.output}
    ordered = [by_name[name] for name in ("masks", "iou_predictions", "low_res_masks")]
    del merged.graph.output[:]
    merged.graph.output.extend(ordered)
    return merged


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its progress and warns about its own future."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
