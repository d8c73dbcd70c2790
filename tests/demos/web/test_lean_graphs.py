"""Graphs made leaner give what they gave before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demos.web.lean_graphs import prune, split_photo

onnx = pytest.importorskip("onnx", reason="needs textsam[export]")
ort = pytest.importorskip("onnxruntime", reason="needs textsam[export]")

OPSET = 18


def _write(path: Path, *, photo_only: bool = True) -> dict[str, Any]:
    """A decoder in small: the photo is halved, which is once per photo, and meets the points."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    first = ["image_embeddings", "point_coords" if not photo_only else "two"]
    nodes = [
        helper.make_node("Div", first, ["halved"]),
        helper.make_node("MatMul", ["halved", "weight"], ["features"]),
        helper.make_node("Add", ["features", "point_coords"], ["low_res_masks"]),
        helper.make_node("Exp", ["low_res_masks"], ["masks"]),
        helper.make_node("ReduceMean", ["masks", "axes"], ["mean"]),
        helper.make_node("Mul", ["low_res_masks", "image_embeddings"], ["iou_predictions"]),
    ]
    weights = {
        "two": np.float32(2.0),
        "weight": np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32),
        "axes": np.array([0]),
    }
    graph = helper.make_graph(
        nodes,
        "decoder",
        [
            helper.make_tensor_value_info(name, kind, [4, 4])
            for name in ("image_embeddings", "point_coords")
        ],
        [
            helper.make_tensor_value_info(name, kind, None)
            for name in ("mean", "low_res_masks", "iou_predictions")
        ],
        [onnx.numpy_helper.from_array(np.asarray(each), name) for name, each in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    onnx.save(model, path)
    rng = np.random.default_rng(2)
    names = ("image_embeddings", "point_coords")
    return {name: rng.normal(size=(4, 4)).astype(np.float32) for name in names}


def _run(path: Path, feeds: dict[str, Any]) -> dict[str, Any]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    wanted = {each.name for each in session.get_inputs()}
    values = session.run(None, {name: feeds[name] for name in wanted})
    return dict(zip(names, values, strict=True))


def test_what_is_not_asked_for_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "decoder.onnx"
    feeds = _write(path)
    before = _run(path, feeds)
    prune(path, ["low_res_masks", "iou_predictions"])
    after = _run(path, feeds)
    assert set(after) == {"low_res_masks", "iou_predictions"}
    for name, value in after.items():
        np.testing.assert_array_equal(value, before[name])
    graph = onnx.load(path).graph
    assert {node.op_type for node in graph.node} == {"Div", "MatMul", "Add", "Mul"}
    assert "axes" not in {weight.name for weight in graph.initializer}


def test_the_part_of_the_photo_runs_once(tmp_path: Path) -> None:
    path, photo = tmp_path / "decoder.onnx", tmp_path / "decoder_photo.onnx"
    feeds = _write(path)
    before = _run(path, feeds)
    split_photo(path, photo)
    once = _run(photo, feeds)
    assert set(once) == {"features"}
    after = _run(path, once | feeds)
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value, rtol=1e-6)
    assert not {"Div", "MatMul"} & {node.op_type for node in onnx.load(path).graph.node}


def test_no_graph_where_every_node_needs_the_prompt(tmp_path: Path) -> None:
    path, photo = tmp_path / "decoder.onnx", tmp_path / "decoder_photo.onnx"
    feeds = _write(path, photo_only=False)
    before = _run(path, feeds)
    split_photo(path, photo)
    assert not photo.exists()
    np.testing.assert_array_equal(_run(path, feeds)["mean"], before["mean"])
