"""Sources named in a line of text, so that a command line can say what to train on.

parquet:voc.parquet                     a file, several (a.parquet,b.parquet) or a folder
coco:instances.json@images/?exhaustive=true
lvis:lvis_v1_train.json@images/
sa1b:folder/
pngs:images/@labels/?names=names.txt&regions=true
hf:owner/set?split=train&masks=objects.mask&labels=objects.label&streaming=true
hf:owner/set?bare=true                  photos without masks, not for training

Public sets, in the folders in which they are given out (`public/`):

voc:VOCdevkit/?split=val&masks=object   masks=class: a class is one object
sbd:benchmark_RELEASE/?split=val&masks=object
davis:DAVIS/?year=2017&resolution=480p&split=val
davis:DAVIS/                            img/ and gt/: the interactive field's 345 frames
grabcut:GrabCut/                        data_GT/ and boundary_GT/
berkeley:Berkeley/                      images/ and masks/
ade20k:ADEChallengeData2016/?split=validation&masks=class
bsds500:BSR/?split=val                  contours, not masks: see boundaries.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import parse_qsl, urlencode

from .coco import CocoSource
from .hub_sets import HubColumns, open_hub
from .label_pngs import LabelMapConfig, LabelPngSource, read_names
from .parquet import ParquetSource
from .public.ade20k import AdeSource
from .public.click_sets import open_berkeley, open_grabcut
from .public.davis import DavisSource, open_davis_frames
from .public.voc import SbdSource, VocSource
from .sa1b import Sa1bSource
from .source import Source, StreamSource

__all__ = ["SourceSpec", "is_spec", "open_source"]

_Opener: TypeAlias = Callable[["SourceSpec"], Source | StreamSource]


@dataclass(frozen=True, kw_only=True)
class SourceSpec:
    """Where photos with masks are.

    Attributes:
        kind: parquet, coco, lvis, sa1b, pngs, hf or a public set's: voc, sbd, davis, grabcut,
            berkeley, ade20k, bsds500.
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
        if not is_spec(text):
            return _guess(text)
        kind, _, rest = text.partition(":")
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
        bare=_flag(spec, "bare"),
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


def _voc(spec: SourceSpec) -> VocSource:
    split, name = spec.options.get("split", "val"), spec.options.get("name")
    return VocSource(spec.path, split=split, masks=_masks(spec, "object"), name=name)


def _sbd(spec: SourceSpec) -> SbdSource:
    split, name = spec.options.get("split", "val"), spec.options.get("name")
    return SbdSource(spec.path, split=split, masks=_masks(spec, "object"), name=name)


def _davis(spec: SourceSpec) -> Source:
    name = spec.options.get("name")
    frames = open_davis_frames(spec.path, name=name)
    given = sorted(set(spec.options) - {"name"})
    if frames is not None and given:
        raise ValueError(
            f"davis:{spec.path} has img/ and gt/: it is the 345 frames of the interactive field, "
            f"which have no {', '.join(given)}. Leave that out, or name DAVIS's own folder"
        )
    if frames is not None:
        return frames
    year = _number(spec, "year", 2017)
    assert year is not None
    return DavisSource(
        spec.path,
        year=year,
        resolution=spec.options.get("resolution", "480p"),
        split=spec.options.get("split", "val"),
        name=name,
    )


def _grabcut(spec: SourceSpec) -> Source:
    return open_grabcut(spec.path, name=spec.options.get("name"))


def _berkeley(spec: SourceSpec) -> Source:
    return open_berkeley(spec.path, name=spec.options.get("name"))


def _ade20k(spec: SourceSpec) -> AdeSource:
    split, name = spec.options.get("split", "validation"), spec.options.get("name")
    return AdeSource(spec.path, split=split, masks=_masks(spec, "class"), name=name)


def _bsds500(spec: SourceSpec) -> Source:
    raise ValueError(
        f"bsds500:{spec.path} has contours and no masks; it is read by "
        "training.data.public.boundaries, for measuring edges"
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


def _masks(spec: SourceSpec, default: Literal["class", "object"]) -> Literal["class", "object"]:
    masks = spec.options.get("masks", default)
    if masks not in ("class", "object"):
        raise ValueError(f"masks={masks!r}; wanted class or object")
    return "class" if masks == "class" else "object"


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
    "voc": "voc:VOCDEVKIT?split=val&masks=object",
    "sbd": "sbd:BENCHMARK_RELEASE?split=val&masks=object",
    "davis": "davis:DAVIS?year=2017&resolution=480p&split=val",
    "grabcut": "grabcut:FOLDER",
    "berkeley": "berkeley:FOLDER",
    "ade20k": "ade20k:ADECHALLENGEDATA2016?split=validation&masks=class",
    "bsds500": "bsds500:BSR?split=val",
}
_PAIRS = ("coco", "lvis", "pngs")
_MAP_OPTIONS = ("values", "names", "void", "background", "regions", "label", "exhaustive")
_HUB_OPTIONS = (
    *("split", "config", "revision", "data_files", "streaming", "buffer", "name"),
    *("image", "masks", "label_map", "labels", "image_id", "bare"),
)
_KINDS: dict[str, tuple[_Opener, tuple[str, ...]]] = {
    "parquet": (_parquet, ("name", "window")),
    "coco": (_coco, ("name", "exhaustive")),
    "lvis": (_lvis, ("name",)),
    "sa1b": (_sa1b, ("name",)),
    "pngs": (_pngs, ("name", *_MAP_OPTIONS)),
    "hf": (_hub, (*_HUB_OPTIONS, *_MAP_OPTIONS)),
    "voc": (_voc, ("name", "split", "masks")),
    "sbd": (_sbd, ("name", "split", "masks")),
    "davis": (_davis, ("name", "year", "resolution", "split")),
    "grabcut": (_grabcut, ("name",)),
    "berkeley": (_berkeley, ("name",)),
    "ade20k": (_ade20k, ("name", "split", "masks")),
    "bsds500": (_bsds500, ("split",)),
}
