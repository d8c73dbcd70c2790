"""Depth of each parameter of an image encoder, for layer-wise learning rates and for sharding.

Blocks are found by structure (composite members of a Sequential or ModuleList), which works for
`ImageEncoderViT`, `TinyViT` and timm backbones.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

# Sequences of layers that come before or after the blocks, or between two stages of them.
_NO_BLOCKS = ("stem", "patch_embed", "conv_stem", "downsample", "neck", "head", "laterals", "skips")
# A member of a sequence that has one of these is a stage, which holds blocks, and none itself.
_INNER = ("blocks", "layers", "stages")


def encoder_blocks(module: nn.Module) -> list[nn.Module]:
    """Blocks of a network in the order of its layers."""
    return list(_walk(module, in_sequence=isinstance(module, nn.Sequential | nn.ModuleList)))


def _walk(module: nn.Module, *, in_sequence: bool) -> Iterator[nn.Module]:
    for name, child in module.named_children():
        if name.startswith(_NO_BLOCKS):
            continue
        inner = [inner_name for inner_name, _ in child.named_children()]
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from _walk(child, in_sequence=True)
        elif in_sequence and inner and not set(inner) & set(_INNER):
            yield child
        else:
            yield from _walk(child, in_sequence=False)


def layer_depths(encoder: nn.Module) -> tuple[dict[str, int], int]:
    """Depth of each parameter of an image encoder.

    As ViTDet counts (arXiv 2203.16527, `get_vit_lr_decay_rate`): 0 for what comes before the first
    block, i + 1 for block i and for what follows it up to the next one (a CNN's downsampling), and
    the number of blocks + 1 for what comes after the last one, e.g. the neck.

    Returns:
        Parameter name -> depth, and the greatest depth.
    """
    blocks = encoder_blocks(encoder)
    if not blocks:
        raise ValueError(
            f"layer-wise rates need blocks, and {type(encoder).__name__} has none in a Sequential "
            "or ModuleList; wanted an image encoder, or type layer_decay=None"
        )
    index = {id(p): i for i, block in enumerate(blocks) for p in block.parameters()}
    depths: dict[str, int] = {}
    depth = 0
    for name, parameter in encoder.named_parameters():
        depth = max(depth, index.get(id(parameter), -1) + 1)
        depths[name] = depth
    inside = {n for n, p in encoder.named_parameters() if id(p) in index}
    last = max(place for place, name in enumerate(depths) if name in inside)
    for name in list(depths)[last + 1 :]:
        depths[name] = len(blocks) + 1
    return depths, len(blocks) + 1
