"""What a recipe's `--data` names: sources, each with a share of the photos if one is given.

    --data voc.parquet
    --data "parquet:voc.parquet?share=0.7" "coco:instances.json@photos/?exhaustive=true&share=0.3"

A share is one more option of a source's line (`training.data.specs`). Either all sources have one
or none has; without shares each photo is as likely as any other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..data import Sample, Source, SourceSpec, StreamSource, open_source

__all__ = ["DataMix", "open_mix", "read_share"]

_SHARE = re.compile(r"(?<=[?&])share=([^&]*)(&|$)")


@dataclass(frozen=True, kw_only=True)
class DataMix:
    """Sources by name.

    Attributes:
        sources: As the loader takes them.
        shares: Weight of each, or None: by their lengths.
        kinds: Kind of each (parquet, coco, sa1b, ...).
    """

    sources: Mapping[str, Source | StreamSource | Sequence[Sample]]
    shares: Mapping[str, float] | None = None
    kinds: tuple[str, ...] = ()

    def describe(self) -> str:
        """Names and lengths, which tell one mix from another."""
        lengths = {
            name: "stream" if isinstance(source, StreamSource) else len(source)
            for name, source in self.sources.items()
        }
        return f"sources {lengths}"


def read_share(text: str) -> tuple[str, float | None]:
    """Take `share=` out of a source's line.

    Returns:
        The line without it, and the share, if there was one.

    Raises:
        ValueError: The share is no positive number.
    """
    match = _SHARE.search(text)
    if match is None:
        return text, None
    try:
        share = float(match[1])
    except ValueError:
        share = math.nan
    if not 0 < share < math.inf:
        raise ValueError(f"{text!r}: share={match[1]!r}; wanted a positive number, e.g. share=0.3")
    return (text[: match.start()] + text[match.end() :]).rstrip("?&"), share


def open_mix(specs: Sequence[str]) -> DataMix:
    """Open every source that `--data` names.

    All lines are read before the first source is opened, so that a mistake in the last one does not
    wait for the annotations of the first.

    Raises:
        ValueError: There is none, a line is no spec, two have one name, or some have no share.
        OSError: A file or folder is not there.
    """
    if not specs:
        raise ValueError("no data. Type: --data FILE.parquet, or see docs/training.md for others")
    read = [read_share(text) for text in specs]
    unshared = [text for text, (_, share) in zip(specs, read, strict=True) if share is None]
    if unshared and len(unshared) < len(specs):
        raise ValueError(
            f"{unshared[0]!r} has no share, but others have. Give all of them one, e.g. "
            '"parquet:a.parquet?share=0.7" "parquet:b.parquet?share=0.3", or none'
        )
    parsed = [SourceSpec.parse(text) for text, _ in read]
    opened = [open_source(spec) for spec in parsed]
    sources: dict[str, Source | StreamSource] = {}
    shares: dict[str, float] = {}
    for text, (_, share), source in zip(specs, read, opened, strict=True):
        name = str(getattr(source, "name", text))
        if name in sources:
            raise ValueError(
                f"two sources are called {name!r}, the second is {text!r}. Name it: "
                "parquet:FILE?name=another"
            )
        sources[name] = source
        if share is not None:
            shares[name] = share
    kinds = tuple(spec.kind for spec in parsed)
    return DataMix(sources=sources, shares=shares or None, kinds=kinds)
