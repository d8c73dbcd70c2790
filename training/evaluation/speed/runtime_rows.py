"""Rows of other runtimes: encoders behind `backend=`, exported decoders and exported models."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam import TextSAM
from textsam.values.settings import Backend

from .core_rows import CoreRows, SpeedRow, compare_outputs
from .equal_networks import OURS, EqualPrompts
from .model_rows import CLICK, PHRASES
from .stopwatch import Patience, take_turns

ONNX: Final = "onnxruntime"
OPENVINO: Final = "openvino"


def installed() -> list[Backend]:
    """The runtimes that are here, which `onnx` and `onnxscript` must have exported for."""
    if not all(find_spec(name) for name in ("onnx", "onnxscript", ONNX)):
        return []
    return [name for name in (ONNX, OPENVINO) if find_spec(name)]


def backend_rows(name: str, photo: NDArray[np.uint8], patience: Patience) -> Iterator[SpeedRow]:
    """Encoding a photo by each backend; a run that has not been exported yet does so first."""
    models = {OURS: TextSAM.from_pretrained(name)}
    for backend in installed():
        models[backend] = TextSAM.from_pretrained(name, backend=backend)
    if len(models) == 1:
        return
    # Without counting FLOPs, which other runtimes do not tell.
    for model in models.values():
        model.open(photo)
    ways = {backend: partial(model.open, photo) for backend, model in models.items()}
    turns = take_turns(ways, patience, warm_up=False)
    outputs = {key: view.photo.features.embedding for key, view in turns.results.items()}
    errors, scale = compare_outputs(outputs)
    title = f"{name}: encode a photo"
    yield SpeedRow(group="onnx", name=title, timings=turns.timings, errors=errors, scale=scale)


def exported_rows(name: str, photo: NDArray[np.uint8], patience: Patience) -> Iterator[SpeedRow]:
    """An exported model with onnxruntime and NumPy alone, beside torch."""
    if ONNX not in installed():
        return
    from textsam.export import export_model, runtime

    model = TextSAM.from_pretrained(name)
    height, width = photo.shape[:2]
    point = [(width * CLICK[0], height * CLICK[1])]
    with tempfile.TemporaryDirectory() as folder:
        export_model(model, folder)
        exported = runtime.load(folder, threads=torch.get_num_threads())
        for title, ask in (
            ("open", lambda one: one.open(photo)),
            ("open and click", lambda one: one.open(photo).segment(points=point)),
            (
                "open and a phrase",
                lambda one: one.open(photo).segment(text=PHRASES["first phrase"]),
            ),
        ):
            ways: dict[str, Callable[[], Any]] = {
                OURS: partial(ask, model),
                ONNX: partial(ask, exported),
            }
            for way in ways.values():
                way()
            turns = take_turns(ways, patience, warm_up=False)
            yield SpeedRow(group="onnx", name=f"{name}: {title}", timings=turns.timings)


def decoder_row(core: CoreRows, patience: Patience) -> Iterator[SpeedRow]:
    """A core's exported decoder with the official names, one point at the decoder's resolution."""
    if ONNX not in installed():
        return
    import onnxruntime

    from textsam.export import export_model

    side, mask = core.plan.config.image_size, core.plan.config.mask_size
    embedding = core.embedding
    prompts = EqualPrompts(points=torch.full((1, 1, 2), side / 3))
    batch = prompts.batch()
    feeds = {
        "image_embeddings": embedding.numpy(),
        "point_coords": batch.points.numpy(),
        "point_labels": batch.labels.numpy().astype(np.float32),
        "mask_input": np.zeros((1, 1, mask, mask), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
        "orig_im_size": np.array([side, side], np.float32),
    }
    with tempfile.TemporaryDirectory() as folder:
        export_model(core.ours.model, folder, parts=["decoder"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(str(Path(folder) / "decoder.onnx"), options)

        def decode() -> Tensor:
            [logits] = session.run(["low_res_masks"], feeds)
            return torch.from_numpy(logits)[:, 1:]

        def ours() -> Tensor:
            return core.ours.decode(embedding, prompts)[0]

        ways = {OURS: ours, ONNX: decode}
        for way in ways.values():
            way()
        turns = take_turns(ways, replace(patience, min_rounds=1), warm_up=False)
    errors, scale = compare_outputs(turns.results)
    title = f"decode 1 point, {core.plan.name}"
    yield SpeedRow(group="onnx", name=title, timings=turns.timings, errors=errors, scale=scale)
