"""Masked CLIP: image towers whose output looks inside a mask only.

Segment Anything (arXiv 2304.02643), Appendix D.5: in the last layer of CLIP, the output token
attends only to image positions inside the mask. The paper has the first row of this table; the
other rows are our counterpart for other image towers:

| tower | what is masked |
|---|---|
| ViT with a class token | the class token's keys in the last block, its own key among them |
| ViT with attention pooling (CoCa, SigLIP) | the pool's keys |
| ViT with average pooling, timm CNN | the average, weighted by each position's share of the mask |
| OpenAI's ModifiedResNet | the pool's keys, and the mean that is its query and its first key |

Earlier layers still see the whole crop, so pixels outside the mask have no influence at all only if
they are zeroed. The towers are differentiable; their outputs are not normalised to length one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from textsam.errors import ImageError, PromptError, WeightsError

__all__ = ["grid_coverage", "masked_image_embedding", "mean_weights"]


def masked_image_embedding(
    model: nn.Module, crops: Tensor, masks: Tensor, *, min_coverage: float = 0.0
) -> Tensor:
    """Embed crops with an output that looks only inside the masks.

    Args:
        model: An open_clip model (`CLIP`, `CustomTextCLIP` or `CoCa`).
        crops: (n, 3, S, S) float, normalised by the model's mean and std.
        masks: (n, S, S) float, 0..1: the share of each pixel that is inside.
        min_coverage: A key is attended to if more than this share of its pixels is inside; by
            default if any is. If there is no such key, the one with the largest share is taken.
            Averages are weighted by the share and ignore this.

    Returns:
        (n, D), not normalised. For full masks this equals `model.encode_image(crops)` wherever the
        tower has no class token among its keys.

    Raises:
        ImageError: The crops are not square images of floats.
        PromptError: The masks do not fit the crops, or one is empty.
        WeightsError: The image tower pools in a way that cannot be masked.
    """
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer

    if crops.ndim != 4 or crops.shape[1] != 3 or crops.shape[2] != crops.shape[3]:
        raise ImageError(f"crops have shape {tuple(crops.shape)}; wanted (n, 3, S, S)")
    wanted = (crops.shape[0], *crops.shape[2:])
    if tuple(masks.shape) != wanted or not masks.is_floating_point():
        raise PromptError(f"masks are {masks.dtype} {tuple(masks.shape)}; wanted float {wanted}")
    empty = (~(masks > 0).flatten(1).any(1)).nonzero().flatten().tolist()
    if empty:
        raise PromptError(
            f"masks {empty} are empty: there is nothing to embed. Leave out empty masks"
        )
    visual: Any = model.visual
    towers = ((VisionTransformer, _vit_embedding), (ModifiedResNet, _resnet_embedding))
    for kind, embed in (*towers, (TimmModel, _timm_embedding)):
        if isinstance(visual, kind):
            return embed(visual, crops, masks.float(), min_coverage)
    raise _unsupported(type(visual).__name__)


def _unsupported(what: str) -> WeightsError:
    return WeightsError(
        f"masked CLIP cannot mask an image tower with {what}; it can mask open_clip's "
        "VisionTransformer and ModifiedResNet, and timm towers with average, class-token or latent "
        "attention pooling"
    )


def grid_coverage(masks: Tensor, grid: tuple[int, int], *, patch: int | None = None) -> Tensor:
    """Share of each grid position inside the mask: (n, S, S) -> (n, gh * gw).

    `patch` is a ViT's patch size in pixels; the positions of a CNN cover the whole crop.
    """
    coverage = F.adaptive_avg_pool2d(masks[:, None], grid).flatten(1)
    if patch is None or (grid[0] * patch, grid[1] * patch) == tuple(masks.shape[1:]):
        return coverage
    # A ViT ignores the pixels beyond its last whole patch: of 384 pixels, patches of 14 leave 6.
    exact = F.adaptive_avg_pool2d(
        masks[:, None, : grid[0] * patch, : grid[1] * patch], grid
    ).flatten(1)
    # A mask that lies wholly in that margin is given to the nearest patches.
    return torch.where((exact > 0).any(1, keepdim=True), exact, coverage)


def _inside(coverage: Tensor, min_coverage: float) -> Tensor:
    """Positions (n, L) bool that are attended to; at least one in every row."""
    inside = coverage > min_coverage
    largest = F.one_hot(coverage.argmax(1), coverage.shape[1]).bool()
    return inside | (largest & ~inside.any(1, keepdim=True))


def mean_weights(coverage: Tensor, like: Tensor) -> Tensor:
    """Weights (n, L) that turn a mean into the mean over the mask; all 1 if the mask is full."""
    weights = coverage * (coverage.shape[1] / coverage.sum(1, keepdim=True))
    return weights.to(like.dtype)


def _key_bias(inside: Tensor, prefix: int, like: Tensor) -> Tensor:
    """Additive attention bias (n, 1, 1, prefix + L): 0 inside, -inf outside and for the prefix."""
    allowed = F.pad(inside, (prefix, 0), value=False)[:, None, None]
    return torch.zeros_like(allowed, dtype=like.dtype).masked_fill(~allowed, -math.inf)


def _first_query_bias(inside: Tensor, prefix: int, like: Tensor) -> Tensor:
    """Self-attention bias (n, 1, T, T) that masks token 0 only; the other outputs are unused."""
    keys = _key_bias(inside, prefix, like)
    return F.pad(keys, (0, 0, 0, keys.shape[-1] - 1), value=0.0)


def _vit_embedding(visual: Any, crops: Tensor, masks: Tensor, min_coverage: float) -> Tensor:
    """open_clip's VisionTransformer: one class token, then the patches row by row."""
    coverage = grid_coverage(masks, visual.grid_size, patch=visual.patch_size[0])
    inside = _inside(coverage, min_coverage)
    x = visual._embeds(crops)
    if x.shape[1] != 1 + inside.shape[1]:
        raise WeightsError(
            f"the image tower made {x.shape[1] - 1} patches of {inside.shape[1]}: patch dropout is "
            "active; type model.eval(), or build the model with patch_dropout=0"
        )
    token_only = visual.attn_pool is None and visual.pool_type == "tok"
    *blocks, last = visual.transformer.resblocks
    for block in blocks if token_only else [*blocks, last]:
        if visual.transformer.grad_checkpointing:
            x = checkpoint(block, x, use_reentrant=False)
        else:
            x = block(x)
    if token_only:
        pooled = visual.ln_post(_last_block_token(last, x, inside))
    elif visual.attn_pool is not None and visual.attn_pool_contrastive is None:
        pool, keys = visual.attn_pool, visual.attn_pool.ln_k(x[:, 1:])
        queries = pool.ln_q(pool.query).expand(len(x), -1, -1)
        x = pool.attn(queries, keys, keys, key_padding_mask=~inside, need_weights=False)[0]
        pooled = visual._global_pool(visual.ln_post(x))[0]
    elif visual.attn_pool is None and visual.pool_type == "avg":
        weights = mean_weights(coverage, x)[..., None]
        early = not visual.final_ln_after_pool  # some towers normalise before they average
        pooled = ((visual.ln_post(x) if early else x)[:, 1:] * weights).mean(1)
        pooled = pooled if early else visual.ln_post(pooled)
    else:
        raise _unsupported(f"pool_type={visual.pool_type!r}")
    embedding: Tensor = pooled if visual.proj is None else pooled @ visual.proj
    return embedding


def _last_block_token(block: Any, x: Tensor, inside: Tensor) -> Tensor:
    """Class token after the last block, in which it attends to the patches inside only.

    It does not attend to itself either (Appendix D.5: "to image positions inside the mask"); its
    own value arrives through the residual connection. x (n, 1 + L, C), inside (n, L) -> (n, C).
    """
    if not isinstance(block.attn, nn.MultiheadAttention):
        tokens: Tensor = block(x, attn_mask=_first_query_bias(inside, 1, x))
        return tokens[:, 0]
    # Written out: the block's own forward would compute the attention of all L + 1 queries.
    y = block.ln_1(x)
    query, keys = y[:, :1], y[:, 1:]
    attended = block.attn(query, keys, keys, key_padding_mask=~inside, need_weights=False)[0]
    token: Tensor = x[:, 0] + block.ls_1(attended[:, 0])
    token = token + block.ls_2(block.mlp(block.ln_2(token)))
    return token


def _resnet_embedding(visual: Any, crops: Tensor, masks: Tensor, min_coverage: float) -> Tensor:
    """ModifiedResNet: the mean over the mask replaces the mean over all positions."""
    x = visual.stem(crops)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = layer(x)
    coverage = grid_coverage(masks, (x.shape[2], x.shape[3]))
    x = x.flatten(2).transpose(1, 2)
    mean = (x * mean_weights(coverage, x)[..., None]).mean(1, keepdim=True)
    pool = visual.attnpool
    x = torch.cat([mean, x], dim=1) + pool.positional_embedding.to(x.dtype)
    bias = _key_bias(_inside(coverage, min_coverage), 1, x)
    bias[..., 0] = 0  # the mean is one of the keys, and holds nothing from outside the mask
    query, key, value = (
        projected.reshape(*projected.shape[:2], pool.num_heads, -1).transpose(1, 2)
        for projected in (pool.q_proj(x[:, :1]), pool.k_proj(x), pool.v_proj(x))
    )
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    pooled: Tensor = pool.c_proj(attended.transpose(1, 2).flatten(2)[:, 0])
    return pooled


def _timm_embedding(visual: Any, crops: Tensor, masks: Tensor, min_coverage: float) -> Tensor:
    """TimmModel: a CNN's map (n, C, h, w) or (n, h, w, C), or a ViT's tokens (n, T, C)."""
    trunk = visual.trunk
    _check_timm_pool(visual)
    attention_pool = getattr(trunk, "attn_pool", None)
    if attention_pool is None and getattr(trunk, "global_pool", None) == "token":
        x = _timm_last_block(trunk, crops, masks, min_coverage)
        pooled = trunk.forward_head(trunk.norm(x))
    elif (x := trunk.forward_features(crops)).ndim == 4:
        last = getattr(trunk, "output_fmt", "NCHW") == "NHWC"
        grid = (x.shape[1], x.shape[2]) if last else (x.shape[2], x.shape[3])
        weights = mean_weights(grid_coverage(masks, grid), x).reshape(-1, *grid)
        # The trunk computes the mean itself, so a full mask gives exactly its own embedding.
        pooled = trunk.forward_head(x * weights.unsqueeze(-1 if last else 1))
    else:
        prefix = getattr(trunk, "num_prefix_tokens", 0)
        coverage = _token_coverage(masks, x.shape[1] - prefix)
        if attention_pool is None:
            weights = F.pad(mean_weights(coverage, x), (prefix, 0), value=1.0)
            pooled = trunk.forward_head(x * weights[..., None])
        else:
            skip = 0 if getattr(trunk, "pool_include_prefix", True) else prefix
            bias = _key_bias(_inside(coverage, min_coverage), prefix, x)[..., skip:]
            pooled = attention_pool(x[:, skip:], attn_mask=bias)
            pooled = trunk.head(trunk.head_drop(trunk.fc_norm(pooled)))
    embedding: Tensor = visual.head(pooled)
    return embedding


def _check_timm_pool(visual: Any) -> None:
    """Refuse towers that pool by maxima, by open_clip's own attention pools, or not at all."""
    from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d
    from timm.layers.attention_pool import AttentionPoolLatent

    if hasattr(visual.head, "pool"):
        raise _unsupported(f"the timm pool {type(visual.head.pool).__name__}")
    pool = getattr(visual.trunk, "attn_pool", None)
    if pool is not None and not isinstance(pool, AttentionPoolLatent):
        raise _unsupported(f"the timm pool {type(pool).__name__}")
    kinds = [m.pool_type for m in visual.trunk.modules() if isinstance(m, SelectAdaptivePool2d)]
    kind = getattr(visual.trunk, "global_pool", "avg")
    if isinstance(kind, str):
        kinds.append(kind)
    bad = [kind for kind in kinds if kind not in ("avg", "fast", "fastavg", "token", "map")]
    if bad:
        raise _unsupported(f"the timm pool {bad[0]!r}")


def _token_coverage(masks: Tensor, count: int) -> Tensor:
    """Coverage (n, L) of L patches that form a square grid."""
    side = math.isqrt(count)
    if side * side != count:
        raise _unsupported(f"{count} tokens, which form no square grid")
    return grid_coverage(masks, (side, side), patch=masks.shape[1] // side)


def _timm_last_block(trunk: Any, crops: Tensor, masks: Tensor, min_coverage: float) -> Tensor:
    """Tokens after the last block of a timm ViT or EVA, whose class token looks inside only."""
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    kinds: Any = (Eva, VisionTransformer)
    count = len(trunk.blocks)
    if not isinstance(trunk, kinds) or count < 2:
        raise _unsupported(f"a class token in a {type(trunk).__name__} of {count} blocks")
    [(patches, prefix)] = trunk.forward_intermediates(
        crops,
        indices=[count - 2],
        return_prefix_tokens=True,
        stop_early=True,
        output_fmt="NLC",
        intermediates_only=True,
    )
    inside = _inside(_token_coverage(masks, patches.shape[1]), min_coverage)
    x = torch.cat([prefix, patches], dim=1)
    options = {"attn_mask": _first_query_bias(inside, prefix.shape[1], x)}
    if getattr(trunk, "rope", None) is not None:
        rope = trunk.rope.get_embed()
        options["rope"] = rope[-1] if trunk.rope_mixed else rope
    tokens: Tensor = trunk.blocks[-1](x, **options)
    return tokens
