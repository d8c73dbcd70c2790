"""Exported graphs made leaner for the browser: less to compute for each prompt.

Only what the page asks for is left of a decoder, and what depends on the photo alone becomes a
graph of its own that runs once per photo. The answers are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from textsam.errors import require

__all__ = ["prune", "split_photo"]


def prune(path: Path, outputs: Iterable[str]) -> None:
    """Leave only what these outputs need."""
    onnx: Any = require("onnx", "export")
    model = onnx.load(path)
    wanted = set(outputs)
    kept = [each for each in model.graph.output if each.name in wanted]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    _without_unused(model)
    onnx.save(model, path)


def split_photo(path: Path, photo_path: Path, *, photo_input: str = "image_embeddings") -> None:
    """Move what depends on one input alone to a graph of its own.

    The graph at `photo_path` takes that input and gives what the one at `path` takes in its place,
    or beside it. It is not written where nothing depends on that input alone.
    """
    onnx: Any = require("onnx", "export")
    model = onnx.load(path)
    graph = model.graph
    # A tensor is "fixed" if it depends on no input, and "of the photo" if on that one alone.
    of_photo = {photo_input}
    fixed = {weight.name for weight in graph.initializer} | {""}
    first, rest = [], []
    for node in graph.node:
        needs = set(node.input)
        has_body = any(item.type == onnx.AttributeProto.GRAPH for item in node.attribute)
        if needs <= fixed and not has_body:
            fixed |= set(node.output)
            first.append(node)
            rest.append(node)
        elif needs <= fixed | of_photo and not has_body:
            of_photo |= set(node.output)
            first.append(node)
        else:
            rest.append(node)
    used = {name for node in rest for name in node.input} | {each.name for each in graph.output}
    crossing = [name for node in first for name in node.output if name in used & of_photo]
    if photo_input in used:
        crossing.append(photo_input)
    known = {each.name: each for each in [*graph.value_info, *graph.input, *graph.output]}
    if set(crossing) <= {photo_input}:
        return  # nothing to do once
    values = [
        known.get(name) or onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in crossing
    ]
    photo = onnx.ModelProto()
    photo.CopyFrom(model)
    _set_nodes(photo, first)
    # The photo's own tensor needs no node to cross.
    made = [each for each in values if each.name != photo_input]
    _set_ends(photo, [each for each in graph.input if each.name == photo_input], made)
    prompts = [each for each in graph.input if each.name != photo_input]
    _set_ends(model, [*values, *prompts], list(graph.output))
    _set_nodes(model, rest)
    for each, target in ((photo, photo_path), (model, path)):
        _without_unused(each)
        onnx.save(each, target)


def _set_nodes(model: Any, nodes: Sequence[Any]) -> None:
    nodes = list(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _set_ends(model: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Replace inputs and outputs; the new ones may be the model's own."""

    def copied(values: Sequence[Any]) -> list[Any]:
        return [type(each).FromString(each.SerializeToString()) for each in values]

    inputs, outputs = copied(inputs), copied(outputs)
    del model.graph.input[:]
    del model.graph.output[:]
    model.graph.input.extend(inputs)
    model.graph.output.extend(outputs)


def _without_unused(model: Any) -> None:
    """Drop nodes, weights and inputs that no output needs."""
    graph = model.graph
    needed = {each.name for each in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input)
    _set_nodes(model, kept[::-1])
    for part in (graph.initializer, graph.input):
        left = [each for each in part if each.name in needed]
        del part[:]
        part.extend(left)
    made = {name for node in graph.node for name in node.output}
    shapes = [each for each in graph.value_info if each.name in made]
    del graph.value_info[:]
    graph.value_info.extend(shapes)
