"""Read the sizes of a network off the shapes of its weights.

Two sizes leave no trace in the shapes and are taken from the published models: the number of heads
of the decoder (8) and the image size of a TinyViT (1024), which has no absolute positions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from textsam.errors import WeightsError
from textsam.modeling.config import SamConfig, TinyViTConfig, ViTConfig
from textsam.weights.key_map import KeyMap, describe_keys

__all__ = ["infer_config", "mlp_ratio"]


def infer_config(state: Mapping[str, Tensor], *, key_map: KeyMap | None = None) -> SamConfig:
    """Find the sizes of a Segment Anything model with a ViT or TinyViT encoder.

    Args:
        state: Weights under our names.
        key_map: Names for errors, if the weights came from another project.

    Raises:
        WeightsError: A weight that gives a size is missing; it is named.
    """
    shapes = _Shapes(state, key_map)
    tiny = any(key.startswith("image_encoder.stem.") for key in state)
    encoder = _infer_tiny_vit(shapes) if tiny else _infer_vit(shapes)
    image_size = 1024 if tiny else 16 * shapes.of("image_encoder.position_embedding", ndim=4)[1]
    inner, dim = shapes.of("mask_decoder.transformer.blocks.0.token_to_image.q_proj.weight", ndim=2)
    if inner == 0 or dim % inner:
        raise WeightsError(f"a decoder of width {dim} cannot attend with width {inner}")
    return SamConfig(
        encoder=encoder,
        image_size=image_size,
        embed_dim=dim,
        mask_channels=shapes.of("prompt_encoder.mask_downscaling.3.weight", ndim=4)[0],
        decoder_depth=shapes.count("mask_decoder.transformer.blocks.#."),
        decoder_mlp=shapes.of("mask_decoder.transformer.blocks.0.mlp.0.weight", ndim=2)[0],
        attention_downsample=dim // inner,
        multimasks=shapes.of("mask_decoder.mask_tokens.weight", ndim=2)[0] - 1,
        iou_depth=shapes.count("mask_decoder.iou_head.layers.#."),
        iou_hidden=shapes.of("mask_decoder.iou_head.layers.0.weight", ndim=2)[0],
    )


def mlp_ratio(hidden: int, width: int) -> float:
    """The ratio r for which `int(width * r)` is `hidden`."""
    # Where the division is inexact, int() could round to one less; half a unit more cannot.
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


class _Shapes:
    """Shapes of weights by our names, with errors in the names of the file."""

    def __init__(self, state: Mapping[str, Tensor], key_map: KeyMap | None) -> None:
        self._state = state
        self._key_map = key_map

    def of(self, key: str, *, ndim: int) -> torch.Size:
        theirs = [] if self._key_map is None else self._key_map.theirs(key)
        names = describe_keys(theirs or [key])
        if key not in self._state:
            source = "textsam" if self._key_map is None else self._key_map.source
            raise WeightsError(
                f"this is not a complete {source} model: {names} is missing, which gives one of "
                "its sizes"
            )
        shape = self._state[key].shape
        if len(shape) != ndim:
            raise WeightsError(f"{names} has shape {tuple(shape)}, wanted {ndim} dimensions")
        return shape

    def count(self, pattern: str) -> int:
        """One more than the highest index that occurs at `#`."""
        regex = re.compile(re.escape(pattern).replace(r"\#", r"(\d+)"))
        matches = (regex.match(key) for key in self._state)
        count = 1 + max((int(match[1]) for match in matches if match), default=-1)
        # A damaged or hostile name such as blocks.999999999 must not size a network.
        if count > len(self._state):
            raise WeightsError(f"{pattern!r} counts to {count}, beyond the number of weights")
        return count


def _infer_vit(shapes: _Shapes) -> ViTConfig:
    width, _, patch, _ = shapes.of("image_encoder.patch_embed.weight", ndim=4)
    grid = shapes.of("image_encoder.position_embedding", ndim=4)[1]
    depth = shapes.count("image_encoder.blocks.#.")
    tables = [
        shapes.of(f"image_encoder.blocks.{index}.attention.relative_rows", ndim=2)
        for index in range(depth)
    ]
    # A table for squares of n x n tokens has 2 n - 1 rows.
    sides = [(table[0] + 1) // 2 for table in tables]
    windows = {side for side in sides if side != grid}
    if not tables or len(windows) > 1:
        raise WeightsError(f"wanted windows of one size in at least one block, got {sides}")
    return ViTConfig(
        width=width,
        depth=depth,
        heads=width // tables[0][1],
        global_attention_indexes=tuple(i for i, side in enumerate(sides) if side == grid),
        window_size=windows.pop() if windows else 14,
        patch_size=patch,
        mlp_ratio=mlp_ratio(shapes.of("image_encoder.blocks.0.mlp.0.weight", ndim=2)[0], width),
    )


def _infer_tiny_vit(shapes: _Shapes) -> TinyViTConfig:
    stages = shapes.count("image_encoder.stages.#.")
    if stages != 4:
        raise WeightsError(f"a TinyViT has 4 stages, this one has {stages}")
    depths = tuple(shapes.count(f"image_encoder.stages.{index}.blocks.#.") for index in range(4))
    expanded, stem = shapes.of("image_encoder.stages.0.blocks.0.expand.conv.weight", ndim=4)[:2]
    blocks = [f"image_encoder.stages.{index}.blocks.0" for index in (1, 2, 3)]
    biases = [shapes.of(f"{block}.attention.biases", ndim=2) for block in blocks]
    widths = [shapes.of(f"{block}.attention.proj.weight", ndim=2)[0] for block in blocks]
    hidden = shapes.of(f"{blocks[0]}.mlp.1.weight", ndim=2)[0]
    published = TinyViTConfig()  # the first stage has no attention, so its sizes are unused
    return TinyViTConfig(
        widths=(stem, *widths),
        depths=depths,
        heads=(published.heads[0], *(bias[0] for bias in biases)),
        window_sizes=(published.window_sizes[0], *(round(bias[1] ** 0.5) for bias in biases)),
        mlp_ratio=mlp_ratio(hidden, widths[0]),
        conv_expansion=mlp_ratio(expanded, stem),
    )
