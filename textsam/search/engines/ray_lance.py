"""The Lance engine with search structures built on a Ray cluster, for tables past one machine.

Rows are on an object store that every machine reads. A build trains the centres once; then each
worker sorts its own files into the cells and writes its own segment, and one commit adds all
segments. Readers need no cluster: any process that sees the store opens the table and searches it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from textsam.errors import require
from textsam.search.engines.lance import TABLE, LanceEngine, index_name
from textsam.search.records import SpaceName
from textsam.search.where import Where

__all__ = ["RayLanceEngine", "connect"]


def connect(address: str | None) -> ModuleType:
    """Connect to a Ray cluster, unless this process is connected to one; returns `ray`.

    Args:
        address: "auto", "ray://host:10001", or None to start a cluster on this machine.
    """
    ray = require("ray", "scale")
    if not ray.is_initialized():
        ray.init(
            address=address, log_to_driver=False, include_dashboard=False, logging_level="ERROR"
        )
    return ray


class RayLanceEngine(LanceEngine):
    """See `LanceEngine`; only `build` differs."""

    def __init__(
        self,
        uri: str,
        *,
        storage_options: Mapping[str, str] | None = None,
        address: str | None = None,
    ) -> None:
        """Connect to the table; the cluster is connected at the first build.

        Args:
            uri: An object store, or a folder that all machines see under this name.
            storage_options: See `LanceEngine`; sent to the workers.
            address: See `connect`.
        """
        require("lance_ray", "scale")
        super().__init__(uri, storage_options=storage_options)
        self.address = address

    def build(self, name: SpaceName, width: int, cells: int) -> None:
        """See `LanceEngine.build`; uses as many workers as the cluster has cores."""
        ray, lance_ray = connect(self.address), require("lance_ray", "scale")
        quantised = width % 8 == 0
        lance_ray.create_index(
            f"{self.uri.rstrip('/')}/{TABLE}.lance",
            column=name,
            index_type="IVF_RQ" if quantised else "IVF_FLAT",
            name=index_name(name, cells),
            metric="cosine",
            num_partitions=cells,
            # Rows that train each centre; asking for more rows than there are fails.
            sample_rate=max(1, min(256, self.count(Where()) // cells)),
            num_workers=max(1, int(ray.cluster_resources().get("CPU", 1))),
            storage_options=self.storage_options or None,
            # Stated explicitly, since lance_ray and its workers have different defaults.
            **({"num_bits": 1} if quantised else {}),
        )

    def describe(self) -> Mapping[str, Any]:
        """See `Engine`."""
        return {**super().describe(), "engine": "ray", "address": self.address}
