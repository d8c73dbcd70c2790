"""Self-attention on a grid of tokens with decomposed relative positions, in windows or global.

Segment Anything's ViT (arXiv 2304.02643, Appendix A) adds two terms to the logit of the query at
(y, x) and the key at (k, l): q . R_rows[y - k] + q . R_columns[x - l] (MViTv2, arXiv 2112.01526,
Section 4.1). The results equal the released code's; what deviates is the work:

- Padding is neither projected nor asked: the key and value of a zero token are the bias of `qkv`.
- Global attention is never held in whole (805 MB a tensor for ViT-B at 1024 pixels): on a CPU it
  runs in chunks of logits that stay in the cache, on CUDA in a fused kernel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn, unflatten
from torch.utils.checkpoint import checkpoint

from textsam.modeling.windows import map_windows, pad_keys

__all__ = ["RelativeAttention", "attend_fused", "attend_in_chunks"]

# Logits computed at once: 2 MiB in fp32. On AVX2 cores 1 to 4 MiB are within 5% of each other; from
# 8 MiB on every chunk is a fresh mapping of memory, and the same work takes twice as long.
_CHUNK_LOGITS = 2**19


class RelativeAttention(nn.Module):
    """Multi-head self-attention inside squares of tokens, with relative positions."""

    offsets: Tensor

    def __init__(self, width: int, heads: int, *, size: int) -> None:
        """Attend inside squares of `size` x `size` tokens; the grid's own size means globally."""
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
        rows = torch.einsum("nhyxd,ykd->nhyxk", q, self.relative_rows[self.offsets[:high]])
        columns = torch.einsum("nhyxd,xkd->nhyxk", q, self.relative_columns[self.offsets[:wide]])
        q = q * q.shape[-1] ** -0.5
        q, k, v, rows, columns = (t.flatten(2, 3).flatten(0, 1) for t in (q, k, v, rows, columns))
        attend = attend_fused if q.is_cuda else attend_in_chunks
        out = unflatten(attend(q, k, v, rows, columns), 1, (high, wide))
        return unflatten(out, 0, (count, self.heads)).permute(0, 2, 3, 1, 4).flatten(3)


def attend_in_chunks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rows: Tensor,
    columns: Tensor,
    *,
    chunk_logits: int = _CHUNK_LOGITS,
) -> Tensor:
    """Attend with additive row and column terms, a bounded number of logits at a time.

    Where a single sequence exceeds the bound, its chunks are computed again in the backward pass
    rather than kept, so training needs no more memory for them than inference.

    Args:
        q: (G, N, d) queries, already scaled.
        k: (G, M, d) keys on a grid, M = rows x columns.
        v: (G, M, d) values.
        rows: (G, N, grid rows) term of each query for every row of keys.
        columns: (G, N, grid columns) the same for the columns.
        chunk_logits: Bound on the logits held at once; at least one query is asked.

    Returns:
        (G, N, d).
    """
    groups, queries, keys = len(q), q.shape[1], k.shape[1]
    asked = min(queries, max(1, chunk_logits // keys))
    together = max(1, chunk_logits // (asked * keys))
    recompute = asked < queries and torch.is_grad_enabled()
    results = []
    for g in (slice(i, i + together) for i in range(0, groups, together)):
        parts = []
        for n in (slice(i, i + asked) for i in range(0, queries, asked)):
            chunk = (q[g, n], k[g], v[g], rows[g, n], columns[g, n])
            if recompute:
                parts.append(
                    checkpoint(_attend, *chunk, use_reentrant=False, preserve_rng_state=False)
                )
            else:
                parts.append(_attend(*chunk))
        results.append(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))
    return torch.cat(results)


def _attend(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    logits = (rows[..., :, None] + columns[..., None, :]).flatten(-2)
    # The product lands on the terms in place: one pass over memory less.
    return logits.baddbmm_(q, k.transpose(1, 2)).softmax(dim=-1) @ v


def attend_fused(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The same as `attend_in_chunks`, in one fused kernel that never holds the logits.

    Fused kernels take no factored bias, and a full one is as large as the logits. But the terms are
    a scalar product themselves: of (rows, columns) with the one-hot row and column of the key. They
    are appended to queries and keys, and zeros to the values because flash attention wants
    one width for all three.
    """
    high, wide = rows.shape[-1], columns.shape[-1]
    index = torch.arange(high * wide, device=k.device)
    place = torch.cat(
        [F.one_hot(index // wide, num_classes=high), F.one_hot(index % wide, num_classes=wide)], -1
    )
    q = torch.cat([q, rows, columns], dim=-1)
    k = torch.cat([k, place.to(k.dtype).expand(len(k), -1, -1)], dim=-1)
    width = v.shape[-1]
    full = -(-q.shape[-1] // 8) * 8  # the kernels want a multiple of 8
    q, k, v = (F.pad(t, (0, full - t.shape[-1])).unsqueeze(1) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)[:, 0, :, :width]
