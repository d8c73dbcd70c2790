"""Embeddings of masks, and an index of the masks of many photos.

    from textsam.search import MaskIndex

    index = MaskIndex.open("masks.lance")  # what `textsam embed photos/ -o masks.lance` wrote
    index.search("striped sail", k=5)

Every name here is imported when it is first used (PEP 562), so this import is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textsam.search.data_photos import DataMask, DataPhoto, ListedPhotos
    from textsam.search.embed import Embedder
    from textsam.search.index import MaskIndex
    from textsam.search.job import EmbedSettings, embed_data_set
    from textsam.search.ray_job import embed_on_ray
    from textsam.search.records import MaskRow, MaskVectors, VectorSpace
    from textsam.search.results import SearchResult, SearchResults
    from textsam.search.uses.clusters import cluster_masks
    from textsam.search.uses.duplicates import find_duplicates
    from textsam.search.uses.label_errors import find_label_errors
    from textsam.search.where import Where

# The module that each name lives in.
_HOME = {
    "DataMask": "data_photos",
    "DataPhoto": "data_photos",
    "EmbedSettings": "job",
    "Embedder": "embed",
    "ListedPhotos": "data_photos",
    "MaskIndex": "index",
    "MaskRow": "records",
    "MaskVectors": "records",
    "SearchResult": "results",
    "SearchResults": "results",
    "VectorSpace": "records",
    "Where": "where",
    "cluster_masks": "uses.clusters",
    "embed_data_set": "job",
    "embed_on_ray": "ray_job",
    "find_duplicates": "uses.duplicates",
    "find_label_errors": "uses.label_errors",
}

__all__ = [
    "DataMask",
    "DataPhoto",
    "EmbedSettings",
    "Embedder",
    "ListedPhotos",
    "MaskIndex",
    "MaskRow",
    "MaskVectors",
    "SearchResult",
    "SearchResults",
    "VectorSpace",
    "Where",
    "cluster_masks",
    "embed_data_set",
    "embed_on_ray",
    "find_duplicates",
    "find_label_errors",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
