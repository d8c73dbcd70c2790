"""Exported SAM decoders in a client that is not ours: osam, which labelme segments with.

    python -m training.studies.foreign_client [--photo FILE] [--weights sam_vit_b_01ec64.pth]

A SAM of the released geometry, with the weights of a file or with random ones, is exported; osam's
own `Sam` then decodes clicks with our `decoder.onnx`, and `segment_anything`'s ONNX decoder, run by
torch on the same weights, says what the client should get. What is printed is the IoU of the two
masks for each click.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import nn

from textsam import TextSAM
from textsam.errors import require
from textsam.export import export_model
from textsam.export.runtime import load
from textsam.modeling.sam import Sam
from textsam.values.images import load_image
from textsam.weights.released_names import from_official
from textsam.weights.strict import infer_config

SIDE = 1024  # osam's mask prompt has 256 cells


class OfficialDecoder:
    """The session that osam would open, with the released code's decoder in place of a file."""

    def __init__(self, oracle: nn.Module) -> None:
        official: Any = require("segment_anything.utils.onnx", "test")
        self.model = official.SamOnnxModel(oracle, return_single_mask=False)

    @torch.no_grad()
    def run(self, _: None, feeds: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """As `InferenceSession.run`."""
        outputs = self.model(**{name: torch.from_numpy(value) for name, value in feeds.items()})
        return [output.numpy() for output in outputs]


def small_official(*, width: int = 32, dim: int = 64) -> Any:
    """A random SAM of the released code at 1024 pixels, with few channels."""
    modeling: Any = require("segment_anything.modeling", "test")
    torch.manual_seed(0)
    return modeling.Sam(
        image_encoder=modeling.ImageEncoderViT(
            img_size=SIDE,
            embed_dim=width,
            depth=2,
            num_heads=2,
            out_chans=dim,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=14,
            global_attn_indexes=(1,),
        ),
        prompt_encoder=modeling.PromptEncoder(
            embed_dim=dim,
            image_embedding_size=(SIDE // 16, SIDE // 16),
            input_image_size=(SIDE, SIDE),
            mask_in_chans=16,
        ),
        mask_decoder=modeling.MaskDecoder(
            num_multimask_outputs=3,
            transformer=modeling.TwoWayTransformer(
                depth=2, embedding_dim=dim, mlp_dim=128, num_heads=8
            ),
            transformer_dim=dim,
        ),
    ).eval()


def make_client(encoder: Any, decoder: Any) -> Any:
    """Osam's SAM with these sessions, which it otherwise opens from files that it downloads."""
    models: Any = require("osam._models.sam._models", "test")

    class Client(models.Sam):
        name = "exported"
        _blobs: ClassVar[dict[str, Any]] = {}

        def __init__(self) -> None:
            self._inference_sessions = {"encoder": encoder, "decoder": decoder}

    return Client()


def client_mask(
    client: Any, photo: NDArray[np.uint8], embedding: NDArray[np.float32], points: Sequence[Any]
) -> NDArray[np.bool_]:
    """(H, W) of osam for clicks (x, y, label), from an embedding (C, s, s)."""
    types: Any = require("osam.types", "test")
    height, width = photo.shape[:2]
    clicks = np.array(points, np.float32)
    response = client.generate(
        types.GenerateRequest(
            model="exported",
            image_embedding=types.ImageEmbedding(
                original_height=height, original_width=width, embedding=embedding
            ),
            prompt=types.Prompt(points=clicks[:, :2], point_labels=clicks[:, 2].astype(np.int32)),
        )
    )
    [annotation] = response.annotations
    box = annotation.bounding_box
    mask = np.zeros((height, width), np.bool_)
    mask[box.ymin : box.ymax + 1, box.xmin : box.xmax + 1] = annotation.mask
    return mask


def compare(oracle: Any, photo: NDArray[np.uint8], clicks: Sequence[Any], folder: Path) -> Any:
    """IoU for each set of clicks: osam on our file, and on the released code's decoder."""
    runtime: Any = require("onnxruntime", "export")
    weights = from_official(oracle.state_dict())
    sam = Sam(infer_config(weights)).eval()
    sam.load_state_dict(weights)
    export_model(TextSAM(sam, name="foreign"), folder, parts=["encoder", "decoder"])
    embedding = load(folder).open(photo).features["image_embeddings"][0]
    sessions = [runtime.InferenceSession(str(folder / f"{n}.onnx")) for n in ("encoder", "decoder")]
    ours = make_client(*sessions)
    theirs = make_client(sessions[0], OfficialDecoder(oracle))
    for points in clicks:
        a, b = (client_mask(each, photo, embedding, points) for each in (ours, theirs))
        yield points, float((a & b).sum() / max(1, (a | b).sum())), int(b.sum())


@dataclass(frozen=True, kw_only=True)
class ForeignClientOptions:
    """Exported decoders in osam: the IoU of its mask for each set of clicks."""

    photo: str = "examples/bus.jpg"
    weights: str | None = None  # the official ViT-B; random weights by default


def main() -> None:
    """Print a line for each set of clicks."""
    options = tyro.cli(ForeignClientOptions)
    photo = load_image(options.photo)
    height, width = photo.shape[:2]
    clicks = [
        [(width / 2, height / 2, 1)],
        [(width / 4, height / 3, 1), (width / 2, height / 2, 0)],
        [(10, 10, 1), (width - 10, 10, 1), (width / 2, height - 10, 0)],
    ]
    oracle = small_official()
    if options.weights:
        registry: Any = require("segment_anything", "test")
        oracle = registry.sam_model_registry["vit_b"](checkpoint=options.weights).eval()
    with tempfile.TemporaryDirectory() as folder:
        for points, iou, area in compare(oracle, photo, clicks, Path(folder)):
            print(f"{len(points)} clicks: IoU {iou:.4f} on a mask of {area} pixels")


if __name__ == "__main__":
    main()
