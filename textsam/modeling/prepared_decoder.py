"""The mask decoder for inference: what no prompt changes is computed once per image.

The results are those of `MaskDecoder` up to rounding; that plain form stays for training, and as
what the tests compare with. What is computed differently:

- In the first two-way block all prompts see the same image. Its keys, values and queries are
  computed once per image, and so are the projected positions of all later ones.
- After it the images differ from prompt to prompt, but there are few tokens. `q . (W x)` is
  `(W' q) . x`: projecting T tokens of H heads costs `H T` columns instead of the width of the
  attention, and so do the values, which are pooled first and projected afterwards.
- A transposed convolution of size 2 and stride 2 is a matrix product. Rows stay grouped by the cell
  of the embedding that they come from; only finished masks are put in order.
- Predicted IoU needs no upscaled image (`DecodedPrompts`), so masks that it rejects are not made.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from textsam.modeling.image_encoder import ImageFeatures
from textsam.modeling.mask_decoder import (
    Attention,
    EncodedPrompts,
    MaskDecoder,
    TwoWayBlock,
)
from textsam.modeling.precision import compilable

__all__ = ["DecodedPrompts", "PreparedImage", "ProjectedPositions"]

# Room for the image side of a group of prompts: `group_size`.
_CACHE_BYTES = 8 * 1024 * 1024
_DEVICE_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class ProjectedPositions:
    """The grid's positions as the decoder's attentions project them; H heads of d channels.

    Attributes:
        places: (n, C) positional encoding of n = s * s cells.
        keys: (H, n, d) for each block and for the final attention, of the keys that tokens attend
            to; with the projection's bias.
        queries: (H, n, d) for each block, of the queries that attend to tokens; with the bias.
    """

    places: Tensor
    keys: tuple[Tensor, ...]
    queries: tuple[Tensor, ...]

    @classmethod
    def of(cls, decoder: MaskDecoder, positions: Tensor) -> ProjectedPositions:
        """Project the positional encoding (1, C, s, s) of the grid."""
        places = positions[0].flatten(1).T
        transformer = decoder.transformer
        blocks = [block for block in transformer.blocks if isinstance(block, TwoWayBlock)]
        to_image = [*(block.token_to_image for block in blocks), transformer.final_attention]
        return cls(
            places=places,
            keys=tuple(_heads(each.k_proj(places), each) for each in to_image),
            queries=tuple(
                _heads(each.q_proj(places), each)
                for each in (block.image_to_token for block in blocks)
            ),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedImage:
    """One image, ready for any number of prompts.

    Attributes:
        rows: (n, C) the embedding of n = s * s cells, with the dense embedding of no mask.
        no_mask: (C,) that dense embedding.
        keys, values, queries: (H, n, d) of the first block, for prompts without a mask.
        positions: Of the model.
        skips: (n, 4, C/4) and (n, 16, C/8), see `_grouped`; or ().
        detail: (1, C/8, 4s, 4s) of a SAM-HQ, or None.
    """

    rows: Tensor
    no_mask: Tensor
    keys: Tensor
    values: Tensor
    queries: Tensor
    positions: ProjectedPositions
    skips: tuple[Tensor, ...] = ()
    detail: Tensor | None = None

    @classmethod
    def of(
        cls,
        decoder: MaskDecoder,
        features: ImageFeatures,
        *,
        positions: ProjectedPositions,
        no_mask: Tensor,
    ) -> PreparedImage:
        """Prepare the features of one image, B = 1; `no_mask` (C,) is the prompt encoder's.

        Raises:
            ValueError: They are the features of several images, or of none.
        """
        if len(features) != 1:
            raise ValueError(f"prepare one image at a time, got features of {len(features)}")
        rows = features.embedding[0].flatten(1).T + no_mask
        first = decoder.transformer.blocks[0]
        assert isinstance(first, TwoWayBlock)
        to_image, to_token = first.token_to_image, first.image_to_token
        # Positions come without the bias, which `positions` already has.
        keys = F.linear(rows, to_image.k_proj.weight)
        queries = F.linear(rows, to_token.q_proj.weight)
        return cls(
            rows=rows,
            no_mask=no_mask,
            keys=_heads(keys, to_image) + positions.keys[0],
            values=_heads(to_image.v_proj(rows), to_image),
            queries=_heads(queries, to_token) + positions.queries[0],
            positions=positions,
            skips=tuple(_grouped(x, 2 ** (1 + i)) for i, x in enumerate(features.skips)),
            detail=features.detail,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedPrompts:
    """P prompts before any mask is made.

    Attributes:
        iou: (P, K) predicted IoU of each mask.
        image: (P, n, C) the image as each prompt has changed it.
        weights: (P, K, C/8) of each mask, over the channels of the upscaled image.
        hq: (P, C) SAM-HQ's token, or None.
    """

    iou: Tensor
    image: Tensor
    weights: Tensor
    hq: Tensor | None = None

    def __getitem__(self, rows: Tensor | slice) -> DecodedPrompts:
        """Select prompts."""
        hq = None if self.hq is None else self.hq[rows]
        return DecodedPrompts(
            iou=self.iou[rows], image=self.image[rows], weights=self.weights[rows], hq=hq
        )


@compilable
def decode_tokens(
    decoder: MaskDecoder, image: PreparedImage, prompts: EncodedPrompts, *, has_masks: bool
) -> DecodedPrompts:
    """Run the two-way transformer on P prompts of one image; no mask is made yet.

    `has_masks` says whether any prompt has a mask; if not, `prompts.dense` is not read.
    """
    count = len(prompts.sparse)
    outputs = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    if decoder.hq is not None:
        outputs = torch.cat([outputs, decoder.hq.token.weight])
    positions = torch.cat([outputs.expand(count, -1, -1), prompts.sparse], dim=1)
    present = prompts.present
    if present is not None:
        present = F.pad(present, (len(outputs), 0), value=True)

    shared = not has_masks
    rows = image.rows[None]
    if has_masks:
        rows = rows + (prompts.dense.flatten(2).transpose(1, 2) - image.no_mask)
    tokens = positions
    transformer = decoder.transformer
    for index, block in enumerate(transformer.blocks):
        assert isinstance(block, TwoWayBlock)
        tokens = block.attend_among_tokens(tokens, positions, present)
        query = tokens + positions
        if shared:
            update = _attend_to_shared(block.token_to_image, query, image.keys, image.values)
        else:
            places = image.positions.keys[index]
            update = _attend_to_image(block.token_to_image, query, rows, places)
        tokens = block.norms[1](tokens + update)
        tokens = block.norms[2](tokens + block.mlp(tokens))
        rows = _attend_to_tokens(
            block.image_to_token,
            rows,
            keys=tokens + positions,
            values=tokens,
            positions=image.positions.queries[index],
            queries=image.queries if shared else None,
            present=present,
        )
        rows = block.norms[3](rows)
        shared = False
    places = image.positions.keys[-1]
    update = _attend_to_image(transformer.final_attention, tokens + positions, rows, places)
    tokens = transformer.final_norm(tokens + update)
    return DecodedPrompts(
        iou=decoder.iou_head(tokens[:, 0]),
        image=rows,
        weights=decoder.mask_weights(tokens),
        hq=None if decoder.hq is None else tokens[:, len(outputs) - 1],
    )


@compilable
def masks_of(
    decoder: MaskDecoder, image: PreparedImage, prompts: DecodedPrompts, weights: Tensor
) -> Tensor:
    """Logits (P, K, 4s, 4s) of P prompts; `weights` (P, K, C/8) are those of the masks wanted."""
    side = round(prompts.image.shape[1] ** 0.5)
    first, last = _as_matrix(decoder.upscale_1.weight), _as_matrix(decoder.upscale_2.weight)
    x = _linear(prompts.image, first, decoder.upscale_1.bias).unflatten(-1, (4, -1))
    if image.skips:
        x = x + image.skips[0]
    norm = decoder.upscale_norm
    x = F.gelu(F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps))
    x = _linear(x, last, decoder.upscale_2.bias).unflatten(-1, (4, -1)).flatten(2, 3)
    if image.skips:
        x = x + image.skips[1]
    x = F.gelu(x).flatten(1, 2).transpose(1, 2)  # (P, C/8, 16 n)
    logits = _ungrouped(weights @ x, side)
    if decoder.hq is not None:
        if image.detail is None or prompts.hq is None:
            raise ValueError("a SAM-HQ decodes features with `detail`: call Sam.encode_image")
        logits = logits + decoder.hq(prompts.hq, _ungrouped(x, side), image.detail)
    return logits


def group_size(image: PreparedImage) -> int:
    """How many prompts to decode at a time.

    On a CPU each prompt's copy of the image has to stay in the processor's cache: 64 prompts at
    once take more time each than one alone.
    """
    one = image.rows.numel() * image.rows.element_size()
    room = _CACHE_BYTES if image.rows.device.type == "cpu" else _DEVICE_BYTES
    return max(1, room // one)


def _heads(x: Tensor, attention: Attention) -> Tensor:
    """(..., n, H * d) -> (..., H, n, d)."""
    return torch.unflatten(x, -1, (attention.heads, -1)).transpose(-2, -3).contiguous()


def _attend_to_shared(attention: Attention, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Tokens (P, T, C) attend to keys and values (H, n, d) that all prompts share."""
    count, tokens = query.shape[:2]
    q = _heads(attention.q_proj(query.flatten(0, 1)), attention)
    x = F.scaled_dot_product_attention(q[None], keys[None], values[None])[0]
    x = x.transpose(0, 1).flatten(1).unflatten(0, (count, tokens))
    return torch.as_tensor(attention.out_proj(x))


def _attend_to_image(
    attention: Attention, query: Tensor, image: Tensor, positions: Tensor
) -> Tensor:
    """Tokens (P, T, C) attend to their prompt's image (P, n, C), or to the same one (1, n, C)."""
    heads = attention.heads
    q = _heads(attention.q_proj(query), attention)  # (P, H, T, d)
    q = q * q.shape[-1] ** -0.5
    key_weight = attention.k_proj.weight.unflatten(0, (heads, -1))  # (H, d, C)
    folded = (q @ key_weight).flatten(1, 2)  # (P, H T, C)
    scores = folded @ image.transpose(1, 2)
    scores = scores.unflatten(1, (heads, -1)) + q @ positions.transpose(1, 2)
    pooled = scores.softmax(-1).flatten(1, 2) @ image  # (P, H T, C)
    value_weight = attention.v_proj.weight.unflatten(0, (heads, -1))
    x = pooled.unflatten(1, (heads, -1)) @ value_weight.transpose(1, 2)  # (P, H, T, d)
    x = x.transpose(1, 2).flatten(2) + attention.v_proj.bias
    return torch.as_tensor(attention.out_proj(x))


def _attend_to_tokens(
    attention: Attention,
    image: Tensor,
    *,
    keys: Tensor,
    values: Tensor,
    positions: Tensor,
    queries: Tensor | None,
    present: Tensor | None,
) -> Tensor:
    """Each cell of images (P, n, C), or (1, n, C), attends to its prompt's tokens; residual added.

    `queries` (H, n, d) are those of a shared image, positions among them; else `positions`
    (H, n, d) are added.
    """
    heads = attention.heads
    k = _heads(attention.k_proj(keys), attention)  # (P, H, T, d)
    k = k * k.shape[-1] ** -0.5
    if queries is None:
        query_weight = attention.q_proj.weight.unflatten(0, (heads, -1))  # (H, d, C)
        folded = (k @ query_weight).flatten(1, 2)
        scores = (folded @ image.transpose(1, 2)).unflatten(1, (heads, -1))
        scores = scores + k @ positions.transpose(1, 2)
    else:
        scores = k @ queries.transpose(1, 2)  # (P, H, T, n)
    if present is not None:
        scores = scores.masked_fill(~present[:, None, :, None], -torch.inf)
    shares = scores.softmax(2).flatten(1, 2)  # (P, H T, n)
    v = _heads(attention.v_proj(values), attention)
    out_weight = attention.out_proj.weight.T.unflatten(0, (heads, -1))  # (H, d, C)
    folded = (v @ out_weight).flatten(1, 2)  # (P, H T, C)
    updated = image + attention.out_proj.bias
    if len(updated) != len(folded):  # the same image for all prompts
        return torch.baddbmm(updated.expand(len(folded), -1, -1), shares.transpose(1, 2), folded)
    return updated.baddbmm_(shares.transpose(1, 2), folded)


def _as_matrix(weight: Tensor) -> Tensor:
    """Weights (C, D, 2, 2) of a transposed convolution as a matrix (4 D, C)."""
    return weight.permute(2, 3, 1, 0).reshape(-1, len(weight))


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    bias = None if bias is None else bias.repeat(4)
    return F.linear(x, weight, bias)


def _grouped(x: Tensor, scale: int) -> Tensor:
    """A map (1, D, scale * s, scale * s) by cell of the s x s grid: (n, scale^2, D).

    The places of a cell are in the order in which transposed convolutions make them: the quarter,
    then the quarter of that quarter.
    """
    side = x.shape[-1] // scale
    x = x[0].unflatten(2, (side, *[2] * (scale // 2))).unflatten(1, (side, *[2] * (scale // 2)))
    if scale == 2:
        return x.permute(1, 3, 2, 4, 0).flatten(2, 3).flatten(0, 1)
    return x.permute(1, 4, 2, 5, 3, 6, 0).flatten(2, 5).flatten(0, 1)


def _ungrouped(x: Tensor, side: int) -> Tensor:
    """Values (P, K, 16 n), grouped by cell, in the order of the map: (P, K, 4s, 4s)."""
    x = x.unflatten(2, (side, side, 2, 2, 2, 2)).permute(0, 1, 2, 4, 6, 3, 5, 7)
    return x.flatten(5).flatten(2, 4)
