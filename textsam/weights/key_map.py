"""Translation between our names of weights and another project's, in both directions.

A key that no pair covers is reported, never guessed; `strict` compares the result with the network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["KeyMap", "Translation", "describe_keys"]

_MAX_NAMED = 8
_Rules = list[tuple[re.Pattern[str], str]]


@dataclass(frozen=True, kw_only=True)
class Translation:
    """Weights under our names, and the source's names that could not be translated."""

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
        """Build both directions.

        Args:
            source: The other project, for error messages.
            pairs: (ours, theirs). A `#` stands for an index, the same on both sides. A pair names a
                module with everything in it; of several that match, the longest is taken.
            stacked: (ours, theirs, count): rows of one tensor of ours that are separate tensors
                there; `#` in `theirs` is the number of the row.
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
        """Their names of our weight: several if it is stacked, none if it has no counterpart."""
        if key in self._stacked:
            return self._stacked[key]
        name = _rename(key, self._from_ours)
        return [] if name is None else [name]

    def to_ours(self, state: Mapping[str, Tensor]) -> Translation:
        """Translate their weights; nothing is dropped silently."""
        rest = dict(state)
        renamed: dict[str, Tensor] = {}
        missing: list[str] = []
        unknown: list[str] = []
        for ours, names in self._stacked.items():
            missing += [name for name in names if name not in rest]
            rows = {name: rest.pop(name) for name in names if name in rest}
            if len({row.shape for row in rows.values()}) > 1:
                unknown += rows  # rows of different shapes cannot be stacked
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
        """Translate our weights, which must all have a counterpart there."""
        renamed: dict[str, Tensor] = {}
        for key, tensor in state.items():
            names = self.theirs(key)
            # Copies, since safetensors refuses tensors that share memory.
            rows = [tensor] if len(names) == 1 else [row[None].clone() for row in tensor]
            renamed.update(zip(names, rows, strict=True))
        return renamed


def describe_keys(keys: list[str]) -> str:
    """List keys in a message, the first few in full."""
    text = ", ".join(keys[:_MAX_NAMED])
    more = len(keys) - _MAX_NAMED
    return text if more <= 0 else f"{text} and {more} more"


def _rules(pairs: Iterable[tuple[str, str]]) -> _Rules:
    """Compile pairs to patterns and templates."""
    longest_first = sorted(pairs, key=lambda pair: -len(pair[0]))
    return [(_pattern(pattern), _template(template)) for pattern, template in longest_first]


def _pattern(name: str) -> re.Pattern[str]:
    # The last group is the rest of the key, below the module that the pair names.
    return re.compile(re.escape(name).replace(r"\#", r"(\d+)") + r"((?:\..+)?)")


def _template(name: str) -> str:
    """The replacement for `_pattern`: indices in order, then the rest of the key."""
    first, *parts = name.split("#")
    groups = (rf"\g<{index}>{part}" for index, part in enumerate([*parts, ""], start=1))
    return first + "".join(groups)


def _rename(key: str, rules: _Rules) -> str | None:
    for pattern, template in rules:
        match = pattern.fullmatch(key)
        if match:
            return match.expand(template)
    return None
