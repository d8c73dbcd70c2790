"""Which engine a URI means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from textsam.search.engines.lance import LanceEngine
from textsam.search.engines.memory import MemoryEngine
from textsam.search.engines.protocol import Engine
from textsam.search.engines.ray_lance import RayLanceEngine

__all__ = ["EngineName", "open_engine"]

EngineName = Literal["memory", "lance", "ray"]

_STORES = ("s3", "s3+ddb", "gs", "az", "file")


def open_engine(
    uri: str,
    *,
    engine: EngineName | None = None,
    storage_options: Mapping[str, str] | None = None,
    address: str | None = None,
) -> Engine:
    """Open the engine of a URI.

    Args:
        uri: `memory://`; a folder; or `s3://bucket/path`, `gs://`, `az://`.
        engine: "ray" for one that builds its search structures on a Ray cluster; by default
            "memory" or "lance", as the URI says.
        storage_options: Of an object store: keys, region, endpoint.
        address: Of the Ray cluster, for `ray.init`; None for one on this machine.

    Raises:
        ValueError: A URI that none can open, or an engine that cannot open this one.
        MissingExtraError: A package is not installed.
    """
    scheme = (re.match(r"([a-z0-9+]+)://", uri) or ["", ""])[1]
    if scheme == "memory":
        if uri != "memory://" or engine not in (None, "memory"):
            raise ValueError(f"got {uri!r} for engine {engine!r}; wanted 'memory://', which is one")
        return MemoryEngine()
    if (scheme and scheme not in _STORES) or not uri or engine == "memory":
        raise ValueError(
            f"cannot open {uri!r} with engine {engine!r}; wanted 'memory://', a folder, or "
            f"{', '.join(f'{store}://' for store in _STORES[:-1])}"
        )
    if engine == "ray":
        return RayLanceEngine(uri, storage_options=storage_options, address=address)
    if engine not in (None, "lance"):
        raise ValueError(f"got engine {engine!r}; wanted 'memory', 'lance' or 'ray'")
    return LanceEngine(uri, storage_options=storage_options)
