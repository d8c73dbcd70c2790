"""Say what you want, get its mask.

    from textsam import segment

    segment("street.jpg", text="wheel").save("wheels.png")

`TextSAM` is a model, `TextSAM.open` encodes a photo once for many queries (`ImageView`), and
`Segmentation` is the result. Names are imported on first use (PEP 562), so `import textsam` takes
milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textsam import errors
    from textsam.inference.model import TextSAM, segment, segment_pairs
    from textsam.inference.strategies.query import Query
    from textsam.inference.view import ImageView
    from textsam.results.formats.data_set import read_set, write_set
    from textsam.results.segmentation import Segmentation
    from textsam.search.index import MaskIndex
    from textsam.values.images import load_image

__all__ = [
    "ImageView",
    "MaskIndex",
    "Query",
    "Segmentation",
    "TextSAM",
    "__version__",
    "errors",
    "load_image",
    "read_set",
    "segment",
    "segment_pairs",
    "write_set",
]

__version__ = "0.1.0"

# The module that defines each name.
_MODULES = {
    "ImageView": "textsam.inference.view",
    "MaskIndex": "textsam.search.index",
    "Query": "textsam.inference.strategies.query",
    "Segmentation": "textsam.results.segmentation",
    "TextSAM": "textsam.inference.model",
    "errors": "textsam.errors",
    "load_image": "textsam.values.images",
    "read_set": "textsam.results.formats.data_set",
    "segment": "textsam.inference.model",
    "segment_pairs": "textsam.inference.model",
    "write_set": "textsam.results.formats.data_set",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_MODULES[name])
    # `errors` is a submodule itself.
    value = module if module.__name__ == f"{__name__}.{name}" else getattr(module, name)
    # So that __getattr__ is called once per name.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
