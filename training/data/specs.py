"""Sources named in a line of text, so that a command line can say what to train on.

parquet:voc.parquet                     a file, several (a.parquet,b.parquet) or a folder
coco:instances.json@images/?exhaustive=true
lvis:lvis_v1_train.json@images/
sa1b:folder/
pngs:images/@labels/?names=names.txt&regions=true
hf:owner/set?split=train&masks=objects.mask&labels=objects.label&streaming=true
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qsl

from .coco import CocoSource
from .hub import HubColumns, open_hub
from .label_pngs import LabelMapConfig, LabelPngSource, read_names
from .parquet import ParquetSource
from .sa1b import Sa1bSource
from .source import Source, StreamSource

__all__ = ["SourceSpec", "open_source"]

_Opener: TypeAlias = Callable[["SourceSpec"], Source | StreamSource]


@dataclass(frozen=True, kw_only=True)
class SourceSpec:
    """Where photos with masks are.

    Attributes:
        kind: parquet, coco, lvis, sa1b, pngs or hf.
        path: The file, folder or repository.
        beside: What stands after the `@`: the photos of a COCO file, the labels of photos.
        options: What stands after the `?`.
    """

    kind: str
    path: str
    beside: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> SourceSpec:
        """Read `kind:path@beside?option=value&...`; a bare path only if it can mean one thing.

        Raises:
            ValueError: The kind is unknown, or a bare path can mean several things or nothing.
        """
        kind, colon, rest = text.partition(":")
        if not colon or kind not in _KINDS:
            return _guess(text)
        rest, _, query = rest.partition("?")
        path, at, beside = rest.rpartition("@") if kind in _PAIRS else (rest, "", "")
        if kind in _PAIRS and not (path and at and beside):
            raise ValueError(f"{text!r}: wanted two paths. Type: {_USAGE[kind]}")
        if not path:
            raise ValueError(f"{text!r} has no path. Type: {_USAGE[kind]}")
        try:
            options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
        except ValueError as error:
            raise ValueError(f"{text!r}: {query!r} are no options. Type: {_USAGE[kind]}") from error
        return cls(kind=kind, path=path, beside=beside or None, options=options)


def open_source(spec: SourceSpec | str) -> Source | StreamSource:
    """Open what a spec, or its text, names.

    Raises:
        ValueError: The spec is no spec, has an option that its kind does not know, or what it names
            is of another format.
        OSError: A file or folder is not there.
        MissingExtraError: `hf:` without `datasets`.
    """
    if isinstance(spec, str):
        spec = SourceSpec.parse(spec)
    if spec.kind not in _KINDS:
        raise ValueError(f"{spec.kind!r} is no kind of source; there are {', '.join(_KINDS)}")
    opener, known = _KINDS[spec.kind]
    unknown = sorted(set(spec.options) - set(known))
    if unknown:
        raise ValueError(
            f"{spec.kind}:{spec.path} has no option {', '.join(unknown)}; it has {', '.join(known)}"
        )
    return opener(spec)


def _parquet(spec: SourceSpec) -> ParquetSource:
    paths: list[Path] = []
    for part in spec.path.split(","):
        path = Path(part)
        found = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not found:
            raise ValueError(f"{path} has no *.parquet in it")
        paths += found
    window = _number(spec, "window", 8)
    assert window is not None
    return ParquetSource(paths, name=spec.options.get("name"), window=window)


def _coco(spec: SourceSpec) -> CocoSource:
    return CocoSource(
        spec.path,
        _beside(spec),
        name=spec.options.get("name"),
        exhaustive=_flag(spec, "exhaustive"),
    )


def _lvis(spec: SourceSpec) -> CocoSource:
    source = CocoSource(spec.path, _beside(spec), name=spec.options.get("name"))
    if not source.lvis:
        raise ValueError(
            f"{spec.path} has no neg_category_ids, so it is not LVIS. Type: {_USAGE['coco']}"
        )
    return source


def _sa1b(spec: SourceSpec) -> Sa1bSource:
    return Sa1bSource(spec.path, name=spec.options.get("name"))


def _pngs(spec: SourceSpec) -> LabelPngSource:
    return LabelPngSource(
        spec.path, _beside(spec), config=_map_config(spec), name=spec.options.get("name")
    )


def _hub(spec: SourceSpec) -> Source | StreamSource:
    options = spec.options
    label_map = options.get("label_map")
    columns = HubColumns(
        image=options.get("image", "image"),
        masks=options.get("masks"),
        label_map=label_map,
        labels=options.get("labels"),
        image_id=options.get("image_id"),
        names=read_names(options["names"]) if "names" in options else None,
        map_config=_map_config(spec) if label_map else None,
        exhaustive=_flag(spec, "exhaustive"),
    )
    buffer = _number(spec, "buffer", 1000)
    assert buffer is not None
    return open_hub(
        spec.path,
        columns=columns,
        config=options.get("config"),
        split=options.get("split", "train"),
        streaming=_flag(spec, "streaming"),
        buffer=buffer,
        name=options.get("name"),
        **{key: options[key] for key in ("revision", "data_files") if key in options},
    )


def _bsds500(spec: SourceSpec) -> Source:
    raise ValueError(
        f"bsds500:{spec.path} has contours and no masks; it is read by training.data.boundaries, "
        "for measuring edges"
    )


def _map_config(spec: SourceSpec) -> LabelMapConfig:
    options = spec.options
    values = options.get("values", "class")
    if values not in ("class", "object"):
        raise ValueError(f"values={values!r}; wanted class or object")
    return LabelMapConfig(
        values="class" if values == "class" else "object",
        names=read_names(options["names"]) if "names" in options else None,
        void=_number(spec, "void", 255),
        background=_number(spec, "background", 0),
        regions=_flag(spec, "regions"),
        label=options.get("label", ""),
        exhaustive=_flag(spec, "exhaustive"),
    )


def _beside(spec: SourceSpec) -> str:
    if spec.beside is None:
        raise ValueError(f"{spec.kind}:{spec.path}: wanted two paths. Type: {_USAGE[spec.kind]}")
    return spec.beside


def _flag(spec: SourceSpec, name: str) -> bool:
    text = spec.options.get(name, "false").lower()
    if text not in ("true", "false"):
        raise ValueError(f"{name}={text!r}; wanted true or false")
    return text == "true"


def _number(spec: SourceSpec, name: str, default: int) -> int | None:
    text = spec.options.get(name, str(default)).lower()
    if text == "none" and name in ("void", "background"):
        return None
    if not text.isdecimal():
        raise ValueError(f"{name}={text!r}; wanted a whole number")
    return int(text)


def _guess(text: str) -> SourceSpec:
    """A bare path, if what lies there leaves no doubt."""
    path = Path(text)
    if path.is_file() and path.suffix == ".parquet":
        return SourceSpec(kind="parquet", path=text)
    if path.is_dir():
        kinds = {
            "parquet": any(path.glob("*.parquet")),
            "sa1b": any(path.glob("sa_*.json")),
        }
        if sum(kinds.values()) == 1 and not any(path.glob("*.png")):
            return SourceSpec(kind=next(k for k, there in kinds.items() if there), path=text)
    there = "cannot be told from its path" if path.exists() else "is not there"
    raise ValueError(
        f"{text!r}: what it holds {there}. Say its kind:\n  " + "\n  ".join(_USAGE.values())
    )


_USAGE = {
    "parquet": "parquet:FILE.parquet or parquet:FOLDER",
    "coco": "coco:INSTANCES.json@IMAGES?exhaustive=true",
    "lvis": "lvis:LVIS.json@IMAGES",
    "sa1b": "sa1b:FOLDER",
    "pngs": "pngs:IMAGES@LABELS?names=NAMES.txt or pngs:IMAGES@LABELS?values=object",
    "hf": "hf:OWNER/SET?split=train&image=COLUMN&masks=COLUMN&labels=COLUMN&streaming=true",
    "bsds500": "bsds500:ROOT?split=val",
}
_PAIRS = ("coco", "lvis", "pngs")
_MAP_OPTIONS = ("values", "names", "void", "background", "regions", "label", "exhaustive")
_HUB_OPTIONS = (
    *("split", "config", "revision", "data_files", "streaming", "buffer", "name"),
    *("image", "masks", "label_map", "labels", "image_id"),
)
_KINDS: dict[str, tuple[_Opener, tuple[str, ...]]] = {
    "parquet": (_parquet, ("name", "window")),
    "coco": (_coco, ("name", "exhaustive")),
    "lvis": (_lvis, ("name",)),
    "sa1b": (_sa1b, ("name",)),
    "pngs": (_pngs, ("name", *_MAP_OPTIONS)),
    "hf": (_hub, (*_HUB_OPTIONS, *_MAP_OPTIONS)),
    "bsds500": (_bsds500, ("split",)),
}
