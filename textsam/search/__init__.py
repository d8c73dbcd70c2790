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
    from textsam.search.data_photos import DataMask as DataMask
    from textsam.search.data_photos import DataPhoto as DataPhoto
    from textsam.search.data_photos import ListedPhotos as ListedPhotos
    from textsam.search.embed import Embedder as Embedder
    from textsam.search.index import MaskIndex as MaskIndex
    from textsam.search.job import EmbedSettings as EmbedSettings
    from textsam.search.job import embed_data_set as embed_data_set
    from textsam.search.ray_job import embed_on_ray as embed_on_ray
    from textsam.search.records import MaskRow as MaskRow
    from textsam.search.records import MaskVectors as MaskVectors
    from textsam.search.records import VectorSpace as VectorSpace
    from textsam.search.results import SearchResult as SearchResult
    from textsam.search.results import SearchResults as SearchResults
    from textsam.search.uses.clusters import cluster_masks as cluster_masks
    from textsam.search.uses.neighbours import find_duplicates as find_duplicates
    from textsam.search.uses.neighbours import find_label_errors as find_label_errors
    from textsam.search.where import Where as Where

# The names that each module defines.
_NAMES = {
    "data_photos": "DataMask DataPhoto ListedPhotos",
    "embed": "Embedder",
    "index": "MaskIndex",
    "job": "EmbedSettings embed_data_set",
    "ray_job": "embed_on_ray",
    "records": "MaskRow MaskVectors VectorSpace",
    "results": "SearchResult SearchResults",
    "uses.clusters": "cluster_masks",
    "uses.neighbours": "find_duplicates find_label_errors",
    "where": "Where",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
