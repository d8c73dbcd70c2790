"""Data for training: sources of photos with masks, views of them, and batches of views.

`sample` what a source gives · `parquet` `coco` `sa1b` `label_pngs` `hub` the sources, a format each
· `public/` public sets as downloaded · `specs` a source from a line of text · `cache` a source kept
decoded · `drawn_shapes` drawn photos for tests · `views` photo to view · `plan` which photo comes
when · `loader` batches, by `fetch` in its workers · `phrases/` names and phrases about photos.
"""

from __future__ import annotations

from .batch import ViewBatch
from .cache import CachedSource
from .coco import CocoSource
from .hub_sets import HubColumns, HubSource, HubStream, open_hub
from .label_pngs import LabelMapConfig, LabelPngSource
from .loader import LoaderConfig, ViewLoader
from .parquet import ParquetSource, load_samples
from .sa1b import Sa1bSource
from .sample import ObjectMask, Sample
from .source import BrokenSample, GroupedSource, Source, StreamSource
from .specs import SourceSpec, is_spec, open_source
from .views import View, ViewConfig, make_view

__all__ = [
    "BrokenSample",
    "CachedSource",
    "CocoSource",
    "GroupedSource",
    "HubColumns",
    "HubSource",
    "HubStream",
    "LabelMapConfig",
    "LabelPngSource",
    "LoaderConfig",
    "ObjectMask",
    "ParquetSource",
    "Sa1bSource",
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
    "open_hub",
    "open_source",
]
