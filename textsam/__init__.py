"""Say what you want, get its mask.

    from textsam import segment

    segment("street.jpg", text="wheel").save("wheels.png")

`TextSAM` holds a model, `TextSAM.open` an encoded photo (`ImageView`) to ask again and again, and
`Segmentation` is what comes out. Every name here is imported when it is first used (PEP 562), so
`import textsam` costs milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textsam import errors
    from textsam.inference.model import TextSAM, segment
    from textsam.inference.view import ImageView
    from textsam.results.segmentation import Segmentation
    from textsam.search.index import MaskIndex
    from textsam.values.images import load_image

__all__ = [
    "ImageView",
    "MaskIndex",
    "Segmentation",
    "TextSAM",
    "__version__",
    "errors",
    "load_image",
    "segment",
]

__version__ = "0.1.0"

# Where each name lives; a submodule lives under its own.
_HOME = {
    "ImageView": "textsam.inference.view",
    "MaskIndex": "textsam.search.index",
    "Segmentation": "textsam.results.segmentation",
    "TextSAM": "textsam.inference.model",
    "errors": "textsam.errors",
    "load_image": "textsam.values.images",
    "segment": "textsam.inference.model",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(_HOME[name])
    value = home if _HOME[name] == f"{__name__}.{name}" else getattr(home, name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
