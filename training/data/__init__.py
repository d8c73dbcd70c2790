"""Data for training: sources of photos with masks, views of them, and batches of views.

`sample` what a source gives · `parquet` `coco` `sa1b` `label_pngs` `hub_sets` the sources, a format
each · `public/` public sets as downloaded · `specs` a source from a line of text · `cache` a source
kept decoded · `drawn_shapes` drawn photos for tests · `views` photo to view · `plan` which photo
comes when · `loader` batches, by `fetch` in its workers · `phrases/` names and phrases of photos.
"""

from __future__ import annotations

from .batch import ViewBatch
from .loader import LoaderConfig, ViewLoader
from .parquet import ParquetSource, load_samples
from .sample import ObjectMask, Sample
from .source import Source, StreamSource
from .specs import SourceSpec, is_spec, open_source
from .views import View, ViewConfig, make_view

__all__ = [
    "LoaderConfig",
    "ObjectMask",
    "ParquetSource",
    "Sample",
    "Source",
    "SourceSpec",
    "StreamSource",
    "View",
    "ViewBatch",
    "ViewConfig",
    "ViewLoader",
    "is_spec",
    "load_samples",
    "make_view",
    "open_source",
]
