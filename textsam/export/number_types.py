"""How the weights of an ONNX graph are stored: float32, float16 or int8. Computation is in float32.

Whatever the type, inputs and outputs stay float32, and so do sums, norms and softmax: what is saved
is the size of the file, which is what a browser downloads. Runtimes undo the casts once, when the
graph is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

__all__ = ["ExportDtype", "convert_numbers"]

ExportDtype = Literal["fp32", "fp16", "int8"]

_SMALL = 256  # weights of fewer numbers (norms, biases) stay float32
_LEVELS = 127  # of int8, each side of zero
_MAX_HALF = 65504  # the largest float16 number


def convert_numbers(model: onnx.ModelProto, dtype: ExportDtype) -> onnx.ModelProto:
    """The graph with its weights in another type, in place.

    Also for "fp32", weights that are float16 numbers already are stored so: nothing is lost.
    """
    from onnx import numpy_helper

    graph = model.graph
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    kept: list[Any] = []
    first: list[Any] = []  # nodes that make float32 of what is stored
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        is_weight = values.dtype == np.float32 and values.size >= _SMALL
        # Masks of attention hold infinities, which neither a scale nor float16 sums survive.
        is_weight = is_weight and bool((np.abs(values) < _MAX_HALF).all())
        if not is_weight or (dtype == "fp32" and not _is_half(values)):
            kept.append(tensor)
            continue
        using = users.get(tensor.name, [])
        axis = _channel_axis(values, {node.op_type for node in using})
        stored = _to_bytes(values, axis) if dtype == "int8" else (values.astype(np.float16),)
        names = [f"{tensor.name}_stored", f"{tensor.name}_scale"]
        kept += [numpy_helper.from_array(x, n) for x, n in zip(stored, names, strict=False)]
        names = names[: len(stored)]
        if len(using) == 1 and using[0].op_type == "Gather" and using[0].input[0] == tensor.name:
            _gather_stored(graph, using[0], names)
        else:
            first += _undo(names, tensor.name)
    nodes = [*first, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    return model


def _is_half(values: NDArray[np.float32]) -> bool:
    with np.errstate(over="ignore"):
        return bool((values.astype(np.float16) == values).all())


def _to_bytes(values: NDArray[np.float32], axis: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """int8, and a scale for each slice along an axis; symmetric, so that zero stays zero."""
    others = tuple(i for i in range(values.ndim) if i != axis)
    largest = np.abs(values).max(axis=others, keepdims=True)
    scale = np.where(largest > 0, largest / _LEVELS, 1.0).astype(np.float32)
    return np.rint(values / scale).astype(np.int8), scale


def _channel_axis(values: NDArray[np.float32], kinds: set[str]) -> int:
    """The axis whose slices are products of their own: outputs of a layer, rows of a table."""
    if "MatMul" in kinds:
        return values.ndim - 1
    return 1 if "ConvTranspose" in kinds else 0


def _undo(names: Sequence[str], result: str) -> list[Any]:
    """Nodes from what is stored, and its scale if it has one, to float32."""
    from onnx import TensorProto, helper

    # Not DequantizeLinear, which runtimes do not fold into a constant and repeat in every run.
    stored, *scale = names
    plain = f"{result}_plain" if scale else result
    nodes = [helper.make_node("Cast", [stored], [plain], to=TensorProto.FLOAT)]
    return [*nodes, *(helper.make_node("Mul", [plain, one], [result]) for one in scale)]


def _gather_stored(graph: onnx.GraphProto, node: onnx.NodeProto, names: Sequence[str]) -> None:
    """Take rows of a table as it is stored: a whole vocabulary in float32 is 38 MB of memory."""
    from onnx import helper

    place, result = list(graph.node).index(node), node.output[0]
    rows = [f"{result}_{number}" for number in range(len(names))]
    nodes = [
        helper.make_node("Gather", [name, node.input[1]], [row], axis=0)
        for name, row in zip(names, rows, strict=True)
    ]
    graph.node.remove(node)
    for offset, new in enumerate([*nodes, *_undo(rows, result)]):
        graph.node.insert(place + offset, new)
