"""Sources written as a line of text, for the command line.

parquet:voc.parquet                     a file, several (a.parquet,b.parquet) or a folder
coco:instances.json@images/?exhaustive=true
lvis:lvis_v1_train.json@images/
sa1b:folder/
pngs:images/@labels/?names=names.txt&regions=true
hf:owner/set?split=train&masks=objects.mask&labels=objects.label&streaming=true
hf:owner/set?bare=true                  photos without masks, not for training

Public sets as downloaded (`public/`):

voc:VOCdevkit/?split=val&masks=object   masks=class: a class is one object
sbd:benchmark_RELEASE/?split=val&masks=object
davis:DAVIS/?year=2017&resolution=480p&split=val
davis:DAVIS/                            img/ and gt/: the interactive field's 345 frames
grabcut:GrabCut/                        data_GT/ and boundary_GT/
berkeley:Berkeley/                      images/ and masks/
ade20k:ADEChallengeData2016/?split=validation&masks=class
bsds500:BSR/?split=val                  contours, not masks: see public/boundaries.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from .coco import CocoSource
from .hub_sets import HubColumns, open_hub
from .label_pngs import LabelMapConfig, LabelPngSource, read_names
from .parquet import ParquetSource
from .public.ade20k import AdeSource
from .public.click_sets import DavisSource, open_berkeley, open_davis_frames, open_grabcut
from .public.voc import SbdSource, VocSource
from .sa1b import Sa1bSource
from .source import Source, StreamSource


@dataclass(frozen=True, kw_only=True)
class SourceSpec:
    """Where photos with masks are."""

    # parquet, coco, lvis, sa1b, pngs, hf or a public set's: voc, sbd, davis, grabcut, berkeley,
    # ade20k, bsds500
    kind: str
    path: str  # the file, folder or repository
    # What stands after the `@`: the photos of a COCO file, the labels of photos
    beside: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)  # what stands after the `?`

    @classmethod
    def parse(cls, text: str) -> SourceSpec:
        """Read `kind:path@beside?option=value&...`; a bare path only if it can mean one thing."""
        if not is_spec(text):
            return _guess(text)
        kind, _, rest = text.partition(":")
        rest, _, query = rest.partition("?")
        path, at, beside = rest.rpartition("@") if kind in _PAIRS else (rest, "", "")
        if kind in _PAIRS and not (path and at and beside):
            raise ValueError(f"{text!r}: wanted two paths. Type: {_KINDS[kind].usage}")
        if not path:
            raise ValueError(f"{text!r} has no path. Type: {_KINDS[kind].usage}")
        try:
            options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
        except ValueError as error:
            raise ValueError(
                f"{text!r}: {query!r} are no options. Type: {_KINDS[kind].usage}"
            ) from error
        return cls(kind=kind, path=path, beside=beside or None, options=options)

    def absolute(self) -> SourceSpec:
        """The same with full paths, which means the same from any folder; a hub's name stays."""

        def full(path: str) -> str:
            on_hub = self.kind == "hf" and not Path(path).exists()
            return path if on_hub else str(Path(path).absolute())

        paths = self.path.split(",") if self.kind == "parquet" else [self.path]
        beside = None if self.beside is None else full(self.beside)
        return replace(self, path=",".join(map(full, paths)), beside=beside)

    def __str__(self) -> str:
        """The text that `parse` reads."""
        beside = "" if self.beside is None else f"@{self.beside}"
        query = f"?{urlencode(self.options)}" if self.options else ""
        return f"{self.kind}:{self.path}{beside}{query}"


def is_spec(text: str) -> bool:
    """Whether a text names its kind, as `coco:...` does and a bare path does not."""
    kind, colon, _ = text.partition(":")
    return bool(colon) and kind in _KINDS


def open_source(spec: SourceSpec | str) -> Source | StreamSource:
    """Open what a spec, or its text, names."""
    if isinstance(spec, str):
        spec = SourceSpec.parse(spec)
    if spec.kind not in _KINDS:
        raise ValueError(f"{spec.kind!r} is no kind of source; there are {', '.join(_KINDS)}")
    kind = _KINDS[spec.kind]
    defaults = {"name": None, **kind.options}
    if unknown := sorted(set(spec.options) - set(defaults)):
        raise ValueError(
            f"{spec.kind}:{spec.path} has no option {', '.join(unknown)}; it has "
            f"{', '.join(defaults)}"
        )
    if spec.kind in _PAIRS and spec.beside is None:
        raise ValueError(f"{spec.kind}:{spec.path}: wanted two paths. Type: {kind.usage}")
    typed = {name: _option(name, text, defaults[name]) for name, text in spec.options.items()}
    return kind.open(spec, **{**defaults, **typed})


def _parquet(spec: SourceSpec, *, name: str | None, window: int) -> ParquetSource:
    paths: list[Path] = []
    for part in spec.path.split(","):
        path = Path(part)
        files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not files:
            raise ValueError(f"{path} has no *.parquet in it")
        paths += files
    return ParquetSource(paths, name=name, window=window)


def _lvis(spec: SourceSpec, **options: Any) -> CocoSource:
    source = CocoSource(spec.path, str(spec.beside), **options)
    if not source.lvis:
        usage = _KINDS["coco"].usage
        raise ValueError(f"{spec.path} has no neg_category_ids, so it is not LVIS. Type: {usage}")
    return source


def _pngs(spec: SourceSpec, *, name: str | None, **options: Any) -> LabelPngSource:
    config = _map_config(**options)
    return LabelPngSource(spec.path, str(spec.beside), config=config, name=name)


def _hub(spec: SourceSpec, *, names: str | None, **options: Any) -> Source | StreamSource:
    fields = ("image", "masks", "label_map", "labels", "image_id", "bare", "exhaustive")
    map_options = {key: options[key] for key in _MAP_OPTIONS if key != "names"}
    columns = HubColumns(
        **{key: options[key] for key in fields},
        names=None if names is None else read_names(names),
        map_config=_map_config(names=names, **map_options) if options["label_map"] else None,
    )
    # Those of `datasets.load_dataset` only where they are typed: it has defaults of its own.
    passed_on = [key for key in ("revision", "data_files") if options[key] is not None]
    keys = ("config", "split", "streaming", "buffer", "name", *passed_on)
    return open_hub(spec.path, columns=columns, **{key: options[key] for key in keys})


def _davis(spec: SourceSpec, *, name: str | None, **options: Any) -> Source:
    frames = open_davis_frames(spec.path, name=name)
    if frames is None:
        return DavisSource(spec.path, name=name, **options)
    if typed := sorted(set(spec.options) - {"name"}):
        raise ValueError(
            f"davis:{spec.path} has img/ and gt/: it is the 345 frames of the interactive field, "
            f"which have no {', '.join(typed)}. Leave that out, or name DAVIS's own folder"
        )
    return frames


def _bsds500(spec: SourceSpec, **options: Any) -> Source:
    raise ValueError(
        f"bsds500:{spec.path} has contours and no masks; it is read by "
        "training.data.public.boundaries, for measuring edges"
    )


def _map_config(*, names: str | None, **options: Any) -> LabelMapConfig:
    return LabelMapConfig(names=None if names is None else read_names(names), **options)


def _option(name: str, text: str, default: Any) -> Any:
    """The value of an option; its default says of which type."""
    lower = text.lower()
    if name in ("masks", "values") and default is not None:  # `hf:`'s masks are a column
        if text not in ("class", "object"):
            raise ValueError(f"{name}={text!r}; wanted class or object")
    elif isinstance(default, bool):
        if lower not in ("true", "false"):
            raise ValueError(f"{name}={text!r}; wanted true or false")
        return lower == "true"
    elif isinstance(default, int):
        if lower == "none" and name in ("void", "background"):
            return None
        if not lower.isdecimal():
            raise ValueError(f"{name}={text!r}; wanted a whole number")
        return int(lower)
    return text


def _guess(text: str) -> SourceSpec:
    """A bare path, if what lies there leaves no doubt."""
    path = Path(text)
    if path.is_file() and path.suffix == ".parquet":
        return SourceSpec(kind="parquet", path=text)
    if path.is_dir():
        endings = {"parquet": "*.parquet", "sa1b": "sa_*.json"}
        kinds = [kind for kind, ending in endings.items() if any(path.glob(ending))]
        if len(kinds) == 1 and not any(path.glob("*.png")):
            return SourceSpec(kind=kinds[0], path=text)
    if path.suffix.lower() == ".json" and path.is_file():
        raise ValueError(f"{text!r} alone lacks its photos. Type: coco:{text}@FOLDER_OF_PHOTOS")
    there = "cannot be told from its path" if path.exists() else "is not there"
    raise ValueError(
        f"{text!r}: what it holds {there}. Say its kind: "
        + "; ".join(kind.usage for kind in _KINDS.values())
    )


def _at_path(open_set: Callable[..., Source]) -> Callable[..., Source]:
    return lambda spec, **options: open_set(spec.path, **options)


@dataclass(frozen=True)
class _Kind:
    """A kind of source: how it is typed, what opens it, and the default of each of its options."""

    usage: str
    open: Callable[..., Source | StreamSource]
    options: Mapping[str, Any]


_MAP_OPTIONS: dict[str, Any] = {
    **{"values": "class", "names": None, "void": 255, "background": 0},
    **{"regions": False, "label": "", "exhaustive": False},
}
_HUB_OPTIONS: dict[str, Any] = {
    **{"split": "train", "config": None, "revision": None, "data_files": None},
    **{"streaming": False, "buffer": 1000, "image": "image", "masks": None, "label_map": None},
    **{"labels": None, "image_id": None, "bare": False},
}
_VOC_OPTIONS: dict[str, Any] = {"split": "val", "masks": "object"}
_PAIRS = ("coco", "lvis", "pngs")  # two paths: photos or annotations, and what lies beside them
_KINDS: dict[str, _Kind] = {
    "parquet": _Kind("parquet:FILE.parquet or parquet:FOLDER", _parquet, {"window": 8}),
    "coco": _Kind(
        "coco:INSTANCES.json@IMAGES?exhaustive=true",
        lambda spec, **options: CocoSource(spec.path, spec.beside, **options),
        {"exhaustive": False, "strict": False},
    ),
    "lvis": _Kind("lvis:LVIS.json@IMAGES", _lvis, {"strict": False}),
    "sa1b": _Kind("sa1b:FOLDER", _at_path(Sa1bSource), {}),
    "pngs": _Kind(
        "pngs:IMAGES@LABELS?names=NAMES.txt or pngs:IMAGES@LABELS?values=object",
        _pngs,
        _MAP_OPTIONS,
    ),
    "hf": _Kind(
        "hf:OWNER/SET?split=train&image=COLUMN&masks=COLUMN&labels=COLUMN&streaming=true",
        _hub,
        {**_HUB_OPTIONS, **_MAP_OPTIONS},
    ),
    "voc": _Kind("voc:VOCDEVKIT?split=val&masks=object", _at_path(VocSource), _VOC_OPTIONS),
    "sbd": _Kind("sbd:BENCHMARK_RELEASE?split=val&masks=object", _at_path(SbdSource), _VOC_OPTIONS),
    "davis": _Kind(
        "davis:DAVIS?year=2017&resolution=480p&split=val",
        _davis,
        {"year": 2017, "resolution": "480p", "split": "val"},
    ),
    "grabcut": _Kind("grabcut:FOLDER", _at_path(open_grabcut), {}),
    "berkeley": _Kind("berkeley:FOLDER", _at_path(open_berkeley), {}),
    "ade20k": _Kind(
        "ade20k:ADECHALLENGEDATA2016?split=validation&masks=class",
        _at_path(AdeSource),
        {"split": "validation", "masks": "class"},
    ),
    "bsds500": _Kind("bsds500:BSR?split=val", _bsds500, {"split": "val"}),
}
