"""Two-way, strict translation between our names of weights and another project's.

A `KeyMap` is plain data, written once and read in both directions. It never guesses: a key that no
pair names is reported. `strict` compares what came out with the network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["KeyMap", "Translation", "describe_keys"]

_NAMED_AT_MOST = 8
_Rules = list[tuple[re.Pattern[str], str]]


@dataclass(frozen=True, kw_only=True)
class Translation:
    """Weights under our names, and what could not be translated, under the source's names."""

    state: dict[str, Tensor]
    unknown: list[str]
    missing: list[str]


class KeyMap:
    """Pairs of module (or tensor) names, ours and theirs."""

    def __init__(
        self,
        source: str,
        pairs: Iterable[tuple[str, str]],
        *,
        stacked: Iterable[tuple[str, str, int]] = (),
    ) -> None:
        """Take the names.

        Args:
            source: Whose names these are, for error messages.
            pairs: (ours, theirs). A `#` stands for an index, the same on both sides. A pair names a
                whole subtree; of several that fit, the longest wins.
            stacked: (ours, theirs, count): rows of our one tensor that are separate tensors there;
                `#` in `theirs` is the row.
        """
        self.source = source
        pairs = tuple(pairs)
        self._from_ours = _rules((ours, theirs) for ours, theirs in pairs)
        self._from_theirs = _rules((theirs, ours) for ours, theirs in pairs)
        self._stacked = {
            ours: [theirs.replace("#", str(row)) for row in range(count)]
            for ours, theirs, count in stacked
        }

    def theirs(self, key: str) -> list[str]:
        """Their name of our weight, several if it is stacked, none if it has no counterpart."""
        if key in self._stacked:
            return self._stacked[key]
        found = _rename(key, self._from_ours)
        return [] if found is None else [found]

    def to_ours(self, state: Mapping[str, Tensor]) -> Translation:
        """Translate their weights; nothing is dropped, see `Translation.unknown`."""
        rest = dict(state)
        renamed: dict[str, Tensor] = {}
        missing: list[str] = []
        unknown: list[str] = []
        for ours, names in self._stacked.items():
            missing += [name for name in names if name not in rest]
            rows = {name: rest.pop(name) for name in names if name in rest}
            if len({row.shape for row in rows.values()}) > 1:
                unknown += rows  # they cannot be stacked
            elif len(rows) == len(names):
                renamed[ours] = torch.cat(list(rows.values()))
        for key, tensor in rest.items():
            ours_key = _rename(key, self._from_theirs)
            if ours_key is None:
                unknown.append(key)
            else:
                renamed[ours_key] = tensor
        return Translation(state=renamed, unknown=unknown, missing=missing)

    def to_theirs(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Translate our weights, all of which must have a counterpart there."""
        renamed: dict[str, Tensor] = {}
        for key, tensor in state.items():
            names = self.theirs(key)
            # Contiguous copies: safetensors refuses tensors that share memory.
            rows = [tensor] if len(names) == 1 else [row[None].clone() for row in tensor]
            renamed.update(zip(names, rows, strict=True))
        return renamed


def describe_keys(keys: list[str]) -> str:
    """Name keys in a message, a few of them in full."""
    text = ", ".join(keys[:_NAMED_AT_MOST])
    more = len(keys) - _NAMED_AT_MOST
    return text if more <= 0 else f"{text} and {more} more"


def _rules(pairs: Iterable[tuple[str, str]]) -> _Rules:
    longest_first = sorted(pairs, key=lambda pair: -len(pair[0]))
    return [(_pattern(pattern), _template(template)) for pattern, template in longest_first]


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\#", r"(\d+)") + r"((?:\..+)?)")


def _template(name: str) -> str:
    """The replacement for `_pattern`: indices in order, then the rest of the key."""
    count = 0
    parts = name.split("#")
    text = parts[0]
    for part in parts[1:]:
        count += 1
        text += rf"\g<{count}>{part}"
    return text + rf"\g<{count + 1}>"


def _rename(key: str, rules: _Rules) -> str | None:
    for pattern, template in rules:
        match = pattern.fullmatch(key)
        if match:
            return match.expand(template)
    return None
