"""The Ray cluster that this process works with."""

from __future__ import annotations

from types import ModuleType

from textsam.errors import require

__all__ = ["connect"]


def connect(address: str | None) -> ModuleType:
    """Connect to a cluster, unless this process is connected to one; returns the module `ray`.

    Args:
        address: "auto", "ray://host:10001", or None for a cluster on this machine.

    Raises:
        MissingExtraError: ray is not installed.
        ConnectionError: There is no cluster at the address.
    """
    ray = require("ray", "scale")
    if not ray.is_initialized():
        ray.init(
            address=address, log_to_driver=False, include_dashboard=False, logging_level="ERROR"
        )
    return ray
