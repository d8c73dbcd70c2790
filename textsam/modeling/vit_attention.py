"""Self-attention on a grid of tokens with decomposed relative positions, windowed or global.

Segment Anything's ViT (arXiv 2304.02643, Appendix A) adds two terms to the logit of the query at
(y, x) and the key at (k, l): q . R_rows[y - k] + q . R_columns[x - l] (MViTv2, arXiv 2112.01526,
Section 4.1). The results equal those of the released code, with less work:

- The released encoders (Segment Anything, TinyViT) pad the grid with zero tokens to whole windows.
  Here windows at the right and bottom border keep their real size; only their keys and values are
  padded, and since a zero token is projected to the bias of `qkv`, the padding is not projected.
- The logits of global attention are never in memory as a whole (805 MB per tensor for ViT-B at 1024
  pixels): on a CPU they are computed in chunks that fit the cache, on a GPU in a fused kernel.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn, unflatten
from torch.utils.checkpoint import checkpoint

__all__ = [
    "RelativeAttention",
    "attend",
    "attend_fused",
    "attend_in_chunks",
    "map_windows",
    "pad_keys",
]

# Logits computed at once: 2 MiB in float32, small enough to stay in the cache. From 8 MiB on, each
# chunk is freshly mapped memory, and the same work takes twice as long.
_CHUNK_LOGITS = 2**19
# In a traced graph (ONNX, torch.compile) each step of each chunk is a node: one head of ViT-B's
# global attention at once, 64 MiB, gives a graph of 50 chunks and not 1,500.
_TRACED_LOGITS = 2**24
# What MPS may hold at once, 256 MiB: its kernels for heads of this width store the logits.
_MPS_LOGITS = 2**26


class RelativeAttention(nn.Module):
    """Multi-head self-attention inside squares of tokens, with relative positions."""

    offsets: Tensor

    def __init__(self, width: int, heads: int, *, size: int) -> None:
        """Attend inside squares of `size` x `size` tokens; the size of the grid means globally."""
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.heads = heads
        self.size = size
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.relative_rows = nn.Parameter(torch.zeros(2 * size - 1, width // heads))
        self.relative_columns = nn.Parameter(torch.zeros(2 * size - 1, width // heads))
        index = torch.arange(size)
        # Offsets run from -(size - 1) to size - 1; they are shifted to index the tables from 0.
        offsets = index[:, None] - index[None, :] + size - 1
        self.register_buffer("offsets", offsets, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend; tokens (B, h, w, C) in and out."""
        qkv = unflatten(self.qkv(x), -1, (3, self.heads, -1))
        return torch.as_tensor(self.proj(map_windows(qkv, self.size, self._attend)))

    def _attend(self, qkv: Tensor) -> Tensor:
        """Attend in windows of one shape: (n, wy, wx, 3, heads, d) -> (n, wy, wx, heads * d)."""
        count, high, wide = qkv.shape[:3]
        q, k, v = qkv.permute(3, 0, 4, 1, 2, 5).contiguous().unbind()
        _, key_bias, value_bias = unflatten(self.qkv.bias, 0, (3, self.heads, -1)).unbind()
        k = pad_keys(k, key_bias, self.size)
        v = pad_keys(v, value_bias, self.size)
        # The released code computes these terms with the unscaled query, so scaling comes after.
        rows = torch.einsum("nhyxd,ykd->nhyxk", q, self.relative_rows[self.offsets[:high]])
        columns = torch.einsum("nhyxd,xkd->nhyxk", q, self.relative_columns[self.offsets[:wide]])
        q = q * q.shape[-1] ** -0.5
        q, k, v, rows, columns = (t.flatten(2, 3).flatten(0, 1) for t in (q, k, v, rows, columns))
        out = unflatten(attend(q, k, v, rows, columns), 1, (high, wide))
        return unflatten(out, 0, (count, self.heads)).permute(0, 2, 3, 1, 4).flatten(3)


def attend(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Attend in the form that suits the device; arguments and result as `attend_in_chunks`."""
    tensors = (q, k, v, rows, columns)
    kind = _device_kind(q)
    if kind in ("cpu", "meta"):  # FLOPs are counted on the meta device
        logits = _TRACED_LOGITS if torch.compiler.is_compiling() else _CHUNK_LOGITS
        return attend_in_chunks(*tensors, chunk_logits=logits)
    groups = len(q)
    if kind == "mps":
        groups = max(1, _MPS_LOGITS // (q.shape[1] * k.shape[1]))
    if groups >= len(q):
        return attend_fused(*tensors)
    parts = zip(*(tensor.split(groups) for tensor in tensors), strict=True)
    return torch.cat([attend_fused(*part) for part in parts])


def attend_in_chunks(
    q: Tensor,  # (G, N, d), already scaled
    k: Tensor,  # (G, M, d) on a grid, M = grid rows x grid columns
    v: Tensor,  # (G, M, d)
    rows: Tensor,  # (G, N, grid rows), added to the logits of all keys in a row
    columns: Tensor,  # (G, N, grid columns), likewise for a column
    *,
    chunk_logits: int = _CHUNK_LOGITS,  # in memory at once; a chunk has at least one query
) -> Tensor:
    """Attend with additive row and column terms, a bounded number of logits at once: (G, N, d)."""
    groups, queries, keys = len(q), q.shape[1], k.shape[1]
    query_step = min(queries, max(1, chunk_logits // keys))
    group_step = max(1, chunk_logits // (query_step * keys))
    # Chunks of one sequence are recomputed in the backward pass, so that training needs no more
    # memory for them than inference.
    recompute = query_step < queries and torch.is_grad_enabled()
    results = []
    for g in (slice(i, i + group_step) for i in range(0, groups, group_step)):
        parts = []
        for n in (slice(i, i + query_step) for i in range(0, queries, query_step)):
            chunk = (q[g, n], k[g], v[g], rows[g, n], columns[g, n])
            if recompute:
                parts.append(
                    checkpoint(_attend, *chunk, use_reentrant=False, preserve_rng_state=False)
                )
            else:
                parts.append(_attend(*chunk))
        results.append(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))
    return torch.cat(results)


def _device_kind(tensor: Tensor) -> str:
    return tensor.device.type


def _attend(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    logits = (rows[..., :, None] + columns[..., None, :]).flatten(-2)
    # The product is added to the terms in place, which saves one pass over memory.
    return logits.baddbmm_(q, k.transpose(1, 2)).softmax(dim=-1) @ v


def attend_fused(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The same as `attend_in_chunks`, in one fused kernel that never stores the logits.

    Fused kernels take no factored bias, and a full one is as large as the logits. But the two terms
    are themselves a dot product: of (rows, columns) with the one-hot row and column of the key. So
    they are appended to queries and keys, and become part of the kernel's own dot product.
    """
    high, wide = rows.shape[-1], columns.shape[-1]
    index = torch.arange(high * wide, device=k.device)
    place = torch.cat(
        [F.one_hot(index // wide, num_classes=high), F.one_hot(index % wide, num_classes=wide)], -1
    )
    q = torch.cat([q, rows, columns], dim=-1)
    k = torch.cat([k, place.to(k.dtype).expand(len(k), -1, -1)], dim=-1)
    width = v.shape[-1]
    # Flash attention needs one width for all three, a multiple of 8; zeros change no product.
    full = -(-q.shape[-1] // 8) * 8
    q, k, v = (F.pad(t, (0, full - t.shape[-1])).unsqueeze(1) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)[:, 0, :, :width]


def map_windows(grid: Tensor, window: int, attend: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `attend` to every window of a grid of tokens: (B, h, w, ...) -> (B, h, w, C).

    `attend` maps windows (n, wy, wx, ...) to (n, wy, wx, C). It is called once for each shape that
    occurs: whole windows, and those cut off at the right, at the bottom or at both.
    """
    bands = []
    for y, wy in _spans(grid.shape[1], window):
        band = []
        for x, wx in _spans(grid.shape[2], window):
            part = unflatten(unflatten(grid[:, y, x], 2, (-1, wx)), 1, (-1, wy)).transpose(2, 3)
            result = unflatten(attend(part.flatten(0, 2)), 0, part.shape[:3])
            band.append(result.transpose(2, 3).flatten(3, 4).flatten(1, 2))
        bands.append(band[0] if len(band) == 1 else torch.cat(band, dim=2))
    return bands[0] if len(bands) == 1 else torch.cat(bands, dim=1)


def pad_keys(keys: Tensor, padding: Tensor, window: int) -> Tensor:
    """Fill up the keys (or values) of a border window with the projection of a zero token.

    (n, heads, wy, wx, d), padding (heads, d) -> (n, heads, window, window, d).
    """
    wy, wx = keys.shape[2:4]
    if wy == window and wx == window:
        return keys
    inside = torch.zeros(window, window, 1, dtype=torch.bool, device=keys.device)
    inside[:wy, :wx] = True
    padded = F.pad(keys, (0, 0, 0, window - wx, 0, window - wy))
    return torch.where(inside, padded, padding[:, None, None, :].to(keys.dtype))


def _spans(length: int, window: int) -> list[tuple[slice, int]]:
    """The part of an axis that whole windows cover, then the rest, each with its window side."""
    whole = length - length % window
    spans = [(slice(0, whole), window), (slice(whole, length), length - whole)]
    return [(span, side) for span, side in spans if span.start < span.stop]
