"""The Lance engine whose search structures are built on a Ray cluster: for tables past one machine.

Rows lie on an object store that every machine reads; a build trains the centres once, and then each
worker sorts its own files into the cells and writes its own segment; one commit puts them all in
place. Readers need no cluster: any process that sees the store opens the table and searches it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textsam.errors import require
from textsam.search.engines.lance import TABLE, LanceEngine, index_name
from textsam.search.engines.ray_cluster import connect
from textsam.search.spaces import SpaceName
from textsam.search.where import Where

__all__ = ["RayLanceEngine"]


class RayLanceEngine(LanceEngine):
    """See `LanceEngine`; only `build` is done elsewhere."""

    def __init__(
        self,
        uri: str,
        *,
        storage_options: Mapping[str, str] | None = None,
        address: str | None = None,
    ) -> None:
        """Connect to the table; to the cluster at the first build.

        Args:
            uri: An object store; or a folder that all machines see under this name.
            storage_options: See `LanceEngine`; sent to the workers.
            address: For `ray.init`: "auto", "ray://host:10001", or None for a cluster on this
                machine. One that the process is connected to already is used as it is.

        Raises:
            MissingExtraError: lancedb, lance_ray or ray is not installed.
        """
        require("lance_ray", "scale")
        super().__init__(uri, storage_options=storage_options)
        self.address = address

    def build(self, name: SpaceName, width: int, cells: int) -> None:
        """See `LanceEngine.build`; as many workers as the cluster has cores."""
        ray, lance_ray = connect(self.address), require("lance_ray", "scale")
        quantised = width % 8 == 0
        lance_ray.create_index(
            f"{self.uri.rstrip('/')}/{TABLE}.lance",
            column=name,
            index_type="IVF_RQ" if quantised else "IVF_FLAT",
            name=index_name(name, cells),
            metric="cosine",
            num_partitions=cells,
            # Rows for each centre to be trained on; there must be as many.
            sample_rate=max(1, min(256, self.count(Where()) // cells)),
            num_workers=max(1, int(ray.cluster_resources().get("CPU", 1))),
            storage_options=self.storage_options or None,
            # Said, since lance_ray and its workers have different defaults.
            **({"num_bits": 1} if quantised else {}),
        )

    def describe(self) -> Mapping[str, Any]:
        """See `Engine`."""
        return {**super().describe(), "engine": "ray", "address": self.address}
