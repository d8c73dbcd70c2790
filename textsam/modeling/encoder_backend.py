"""The image encoder run by onnxruntime or OpenVINO, behind the same call.

At its first use an encoder is exported to ONNX, into a folder of the user's cache named after a
hash of its weights, its sizes, and the versions of torch and textsam; its output is compared with
torch's before it is ever used. The decoder and everything else stay with torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import textsam
from textsam.errors import WeightsError, one_line, require
from textsam.modeling.image_encoder import ImageFeatures, check_pixels
from textsam.modeling.sam import Sam
from textsam.values.files import write_atomically
from textsam.values.settings import Backend

__all__ = ["EncoderRunner", "attach_backend", "backend_of", "cache_folder"]

logger = logging.getLogger(__name__)

Run = Callable[[NDArray[np.float32]], list[NDArray[np.float32]]]

_EXTRAS = {"onnxruntime": "export", "openvino": "openvino"}
_FORMAT = 1  # raised when the graph of an encoder changes in a way that no version number shows
_TOLERANCE = 1e-4  # of the largest value of an output; both runtimes are at 2e-6 for `tiny`
_OPSET = 18  # the exporter's own; both runtimes run it
_MAX_FILE = 1_900_000_000  # bytes of weights that one ONNX file can hold, with some to spare
_GRAPH, _RECORD = "encoder.onnx", "encoder.json"


def cache_folder() -> Path:
    """Where exported encoders are kept: `TEXTSAM_CACHE`, else `textsam` in the user's cache."""
    if folder := os.environ.get("TEXTSAM_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "textsam"


def backend_of(core: Any) -> Backend:
    """What runs a core's image encoder."""
    runner = vars(core.image_encoder).get("forward")
    return runner.backend if isinstance(runner, EncoderRunner) else "torch"


def attach_backend(core: Any, backend: str, *, name: str) -> None:
    """Let a backend run the image encoder of a core on the CPU, from its present weights on.

    Args:
        core: A `Sam` in float32 on the CPU.
        backend: See `Backend`; "torch" takes another one away.
        name: What the model is called in errors.

    Raises:
        WeightsError: There is no such backend, the core is another project's, it is not on the CPU
            in float32, or it cannot be exported; or the backend computes something else.
        MissingExtraError: The backend is not installed.
    """
    if backend not in get_args(Backend):
        raise WeightsError(f"backend is {backend!r}; wanted {', '.join(get_args(Backend))}")
    if backend == "torch":
        vars(core.image_encoder).pop("forward", None)
        return
    what = f"backend={backend!r}"
    if not isinstance(core, Sam):
        raise WeightsError(
            f"{what} runs SAM, SAM-HQ, MobileSAM and tiny; {name} is a {type(core).__name__} of "
            "another project. Leave backend out"
        )
    weight = next(core.image_encoder.parameters())
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        raise WeightsError(
            f"{what} computes in float32 on the CPU; {name} is {weight.dtype} on {weight.device}. "
            "Leave out backend, or device and dtype"
        )
    require(backend, _EXTRAS[backend])
    vars(core.image_encoder).pop("forward", None)  # else its export would be of another backend
    folder = _exported(core, backend, name)
    record = json.loads((folder / _RECORD).read_text("utf-8"))
    runner = EncoderRunner(backend, folder / _GRAPH, core.image_encoder, skips=record["skips"])
    if backend not in record["errors"]:
        record["errors"][backend] = _check(runner, core, name, folder)
        write_atomically(folder / _RECORD, (json.dumps(record, indent=1) + "\n").encode())
    # On the instance, so that weights keep their names in saved files and the class its torch form.
    core.image_encoder.forward = runner


class EncoderRunner:
    """An encoder's `forward` by another runtime; photos one at a time, as suits a CPU.

    Attributes:
        backend: "onnxruntime" or "openvino".
    """

    def __init__(self, backend: str, graph: Path, encoder: nn.Module, *, skips: int) -> None:
        self.backend: Backend = backend  # type: ignore[assignment]
        self._graph = graph
        self._encoder = encoder
        self._skips = skips
        self._run: Run | None = None
        self._threads = 0

    def __call__(self, pixels: Tensor) -> ImageFeatures:
        """Encode (B, 3, S, S) float32 of the CPU, as the encoder itself.

        Raises:
            WeightsError: Gradients are wanted, or the pixels are on another device.
        """
        if torch.is_grad_enabled() and any(p.requires_grad for p in self._encoder.parameters()):
            raise WeightsError(
                f"backend={self.backend!r} gives no gradients. Type: with torch.no_grad(): ..., or "
                "load the model without backend to train it"
            )
        check_pixels(pixels, pixels.shape[-1])
        rows = [self.run(np.ascontiguousarray(row[None].numpy())) for row in pixels]
        maps = [torch.from_numpy(np.concatenate(parts)) for parts in zip(*rows, strict=True)]
        skips = slice(1, 1 + self._skips)
        return ImageFeatures(
            embedding=maps[0], skips=tuple(maps[skips]), pyramid=tuple(maps[skips.stop :])
        )

    def run(self, pixels: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Outputs of the graph for (1, 3, S, S)."""
        threads = torch.get_num_threads()
        if self._run is None or threads != self._threads:
            open_graph = _open_onnxruntime if self.backend == "onnxruntime" else _open_openvino
            self._run, self._threads = open_graph(self._graph, threads), threads
        return self._run(pixels)


def _open_onnxruntime(graph: Path, threads: int) -> Run:
    ort: Any = require("onnxruntime", _EXTRAS["onnxruntime"])
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that wait by spinning would take the cores from torch, which goes on after it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: list(session.run(None, {name: pixels}))


def _open_openvino(graph: Path, threads: int) -> Run:
    openvino: Any = require("openvino", _EXTRAS["openvino"])
    compiled = openvino.Core().compile_model(
        graph,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the processor has it
            "CACHE_DIR": str(graph.parent / "openvino"),
        },
    )
    lock = threading.Lock()  # a compiled model has one request, and the explorer several threads

    def run(pixels: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        with lock:
            return [np.array(values) for values in compiled([pixels]).values()]

    return run


class _Maps(nn.Module):
    """An encoder whose output is a tuple of tensors, as graphs have it."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        features = self.encoder(pixel_values)
        return (features.embedding, *features.skips, *features.pyramid)


def _exported(sam: Sam, backend: str, name: str) -> Path:
    """The folder with the graph of an encoder, which is exported if it is not there."""
    from filelock import FileLock

    home = cache_folder() / "encoders"
    folder = home / _key(sam)
    if (folder / _RECORD).exists():
        return folder
    for package in ("onnx", "onnxscript"):
        require(package, "export")
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / _RECORD).exists():  # another process may have written it by now
            logger.info("exporting the image encoder of %s for %s to %s", name, backend, folder)
            scratch = Path(tempfile.mkdtemp(dir=home, prefix="unfinished-"))
            try:
                _export(sam, scratch, f"{name} cannot be exported for backend={backend!r}")
                shutil.rmtree(folder, ignore_errors=True)  # without its record it is not whole
                scratch.replace(folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return folder


@torch.no_grad()
def _export(sam: Sam, folder: Path, problem: str) -> None:
    """Write the graph of an encoder, maps and all, and its record.

    `textsam.export` writes another graph, for clients that know the official names.
    """
    side = sam.config.image_size
    pixels = torch.zeros(1, 3, side, side)
    features = sam.image_encoder(pixels)
    names = [f"skip_{i}" for i in range(len(features.skips))]
    names += [f"map_{i}" for i in range(len(features.pyramid))]
    chatter = logging.getLogger("torch.onnx")
    level = chatter.level
    chatter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the exporter's own future
            program: Any = torch.onnx.export(
                _Maps(sam.image_encoder).eval(),
                (pixels,),
                dynamo=True,
                input_names=["pixel_values"],
                output_names=["embedding", *names],
                opset_version=_OPSET,
                verbose=False,
            )
        # One file, if its weights fit into one.
        weights = sum(p.numel() * p.element_size() for p in sam.image_encoder.parameters())
        program.save(str(folder / _GRAPH), external_data=weights > _MAX_FILE)
    except Exception as error:  # of many types, by the operator that it cannot write
        raise WeightsError(f"{problem}: {one_line(error)}. Leave backend out") from error
    finally:
        chatter.setLevel(level)
    record = {"skips": len(features.skips), "torch": torch.__version__, "errors": {}}
    (folder / _RECORD).write_text(json.dumps(record), "utf-8")


@torch.no_grad()
def _check(runner: EncoderRunner, sam: Sam, name: str, folder: Path) -> float:
    """Largest difference from torch on noise with a padded edge, in parts of the largest value."""
    side = sam.config.image_size
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    pixels[..., side * 3 // 4 :, :] = 0
    wanted = _Maps(sam.image_encoder)(pixels)
    worst = 0.0
    for ours, theirs in zip(wanted, runner.run(pixels.numpy()), strict=True):
        error = float((ours - torch.from_numpy(theirs)).abs().max())
        worst = max(worst, error / max(float(ours.abs().max()), 1e-12))
    if not worst <= _TOLERANCE:  # also if it is not a number
        raise WeightsError(
            f"backend={runner.backend!r} computes {name} otherwise than torch: they differ by "
            f"{worst:.1e} of the largest value, at most {_TOLERANCE:.0e} is allowed. Leave backend "
            f"out, or update the package; the graph is in {folder}"
        )
    return worst


def _key(sam: Sam) -> str:
    """A hash of all that decides an encoder's graph."""
    what = {
        "format": _FORMAT,
        "textsam": textsam.__version__,
        "torch": torch.__version__,
        "sizes": sam.config.to_dict(),
    }
    digest = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode())
    for key, value in sorted(sam.image_encoder.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        # A view of the bytes: a ViT-H has 2.5 GB of them.
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:32]
