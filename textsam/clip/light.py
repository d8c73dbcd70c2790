"""`tiny`'s CLIP without open_clip, as long as only phrases are asked for.

Importing open_clip, timm and transformers takes longer than all else that `tiny` needs, and most
uses never look at its image tower. So its text tower and tokenizer are here, with open_clip's names
and calls; results are equal to the last bit. Whatever else is asked of the model, or of a phrase
with other letters than ASCII, builds open_clip's.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from functools import cached_property
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from textsam.errors import WeightsError
from textsam.modeling.layers import no_random_fill
from textsam.modeling.tensor_files import read_tensors

__all__ = ["DeferredClip", "LightTokenizer", "is_light"]

# What open_clip's text tower may be told for ours to be the same.
_KNOWN = {"context_length", "vocab_size", "width", "heads", "layers"}
_MERGES = 49152 - 256 - 2  # of CLIP's table, as in the released code
_START, _END = "<start_of_text>", "<end_of_text>"
_WORD = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+")


def is_light(config: dict[str, Any]) -> bool:
    """Whether an open_clip `model_cfg` has a text tower of the kind that is here."""
    plain = config.get("custom_text") and not config.get("quick_gelu")
    return bool(plain) and set(config["text_cfg"]) == _KNOWN


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)}
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        y = nn.functional.gelu(self.mlp["c_fc"](self.ln_2(x)))
        return x + torch.as_tensor(self.mlp["c_proj"](y))


class _TextTower(nn.Module):
    mask: Tensor

    def __init__(self, config: dict[str, Any], width_out: int) -> None:
        super().__init__()
        width, length = config["width"], config["context_length"]
        self.token_embedding = nn.Embedding(config["vocab_size"], width)
        self.positional_embedding = nn.Parameter(torch.empty(length, width))
        blocks = (_Block(width, config["heads"]) for _ in range(config["layers"]))
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(blocks)})
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, width_out))
        causal = torch.full((length, length), float("-inf")).triu_(1)
        self.register_buffer("mask", causal, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (n, L) int64 -> (n, D), not normalised."""
        length = tokens.shape[1]
        x = self.token_embedding(tokens) + self.positional_embedding[:length]
        blocks: Any = self.transformer["resblocks"]
        for block in blocks:
            x = block(x, self.mask)
        # The end of the text is the highest token.
        rows = torch.arange(len(x), device=x.device)
        return torch.as_tensor(self.ln_final(x)[rows, tokens.argmax(dim=-1)] @ self.text_projection)


class DeferredClip:
    """A model whose text tower is here, and that is built when something else of it is needed."""

    def __init__(
        self,
        config: dict[str, Any],
        weights: Path,
        build: Callable[[], nn.Module],
        *,
        preprocess: dict[str, Any],
    ) -> None:
        """`build` makes open_clip's model from the same file."""
        self._build, self.preprocess = build, preprocess
        self.image_size = config["vision_cfg"]["image_size"]
        # Of the image tower; the text tower stays in float32.
        self.dtype = torch.float32
        with no_random_fill():  # type: ignore[no-untyped-call]
            text = _TextTower(config["text_cfg"], config["embed_dim"])
        state = {
            key.removeprefix("text."): value.float()
            for key, value in read_tensors(weights).items()
            if key.startswith("text.")
        }
        try:
            text.load_state_dict(state, assign=True)
        except RuntimeError as error:
            raise WeightsError(f"cannot load the text tower from {weights}: {error}") from error
        self.text = text.eval()

    @property
    def device(self) -> torch.device:
        """Where the text tower is, and the model will be."""
        return self.text.text_projection.device

    def build(self) -> nn.Module:
        """open_clip's whole model, on the same device."""
        model: Any = self._build()
        model.to(self.device)
        model.visual.to(self.dtype)
        whole: nn.Module = model.eval()
        return whole


class LightTokenizer:
    """Strings -> (n, L) int64, as `open_clip.SimpleTokenizer`, which has all further attributes."""

    def __init__(self, context_length: int, load: Callable[[], Any]) -> None:
        """`load` makes open_clip's own."""
        self._length, self._load = context_length, load
        self._ranks, self._ids = _read_merges()
        self._words: dict[str, list[int]] = {}

    def __call__(self, texts: list[str]) -> Tensor:
        """Tokens of strings; those that are cut off still end in the end of the text."""
        # open_clip repairs broken encodings and HTML; printable ASCII without & needs neither.
        if not all(t.isascii() and t.isprintable() and not set("&<") & set(t) for t in texts):
            return torch.as_tensor(self._full(texts))
        rows = torch.zeros(len(texts), self._length, dtype=torch.long)
        for row, text in zip(rows, texts, strict=True):
            words = _WORD.findall(" ".join(text.split()).lower())
            tokens = [self._ids[_START], *(i for word in words for i in self._encode(word))]
            tokens = [*tokens[: self._length - 1], self._ids[_END]]
            row[: len(tokens)] = torch.tensor(tokens)
        return rows

    def __getattr__(self, name: str) -> Any:
        # Not of a copy that is still empty.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._full, name)

    @cached_property
    def _full(self) -> Any:
        return self._load()

    def _encode(self, word: str) -> list[int]:
        """Tokens of a word: the pair that comes first in the table is joined first."""
        if word in self._words:
            return self._words[word]
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            best = min(pairwise(parts), key=lambda pair: self._ranks.get(pair, _MERGES))
            if best not in self._ranks:
                break
            joined: list[str] = []
            at = 0
            while at < len(parts):
                pair = tuple(parts[at : at + 2])
                joined.append("".join(pair) if pair == best else parts[at])
                at += 2 if pair == best else 1
            parts = joined
        ids = self._words[word] = [self._ids[part] for part in parts]
        return ids


def _read_merges() -> tuple[dict[tuple[str, ...], int], dict[str, int]]:
    """Ranks of pairs and numbers of tokens, from open_clip's file, which is not imported."""
    package = find_spec("open_clip")
    if package is None or package.origin is None:
        raise WeightsError("open_clip is not installed. Type: pip install open_clip_torch")
    with gzip.open(Path(package.origin).parent / "bpe_simple_vocab_16e6.txt.gz", "rt") as file:
        lines = file.read().split("\n")[1 : _MERGES + 1]
    merges = [tuple(line.split()) for line in lines]
    # Bytes that print stand for themselves, the others for letters from 256 on; the printable ones
    # come first, as in GPT-2's table.
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(n) for n in shown] + [chr(256 + n) for n in range(256 - len(shown))]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges)]
    ids = {token: number for number, token in enumerate([*tokens, _START, _END])}
    return {pair: rank for rank, pair in enumerate(merges)}, ids
