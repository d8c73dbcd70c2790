"""Models as ONNX graphs, and running them without torch.

    from textsam.export import export_model, runtime

    export_model("tiny", "tiny_onnx")
    runtime.load("tiny_onnx").segment("bus.jpg", text="wheel").masks

Importing this package imports no torch: `export_model` does when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textsam.export.exporting import export_model

__all__ = ["export_model"]


def __getattr__(name: str) -> Any:
    if name != "export_model":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from textsam.export.exporting import export_model

    return export_model
