"""Any data set of Hugging Face `datasets`, downloaded or streamed, by saying what its columns are.

`datasets` is imported only when one is opened. Pictures are left encoded: a column of type Image is
read as its bytes, never decoded by the library.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from textsam.errors import ImageError, require
from textsam.results.coco_rows import RowProblems
from textsam.values.rle import RLE, encode_mask, rle_from_json

from .label_pngs import LabelMapConfig, objects_of_map, read_label_map
from .sample import ObjectMask, Sample, readable_objects, upright_size
from .source import sound_samples


@dataclass(frozen=True, kw_only=True)
class HubColumns:
    """Which column holds what. `objects.rle` means field `rle` of each item of column `objects`.

    Exactly one of `masks` and `label_map` is given, or `bare`.
    """

    image: str = "image"  # the photo
    # A list of masks: COCO codes (`{"size", "counts"}`, or the counts alone) or pictures that are
    # zero outside the object
    masks: str | None = None
    label_map: str | None = None  # a picture of values, read as `map_config` says
    # A name for each mask, or its number in `names`. None: the masks have no names.
    labels: str | None = None
    image_id: str | None = None  # what a photo is called; its row when None
    # Name of each number in `labels`; a column of type ClassLabel brings its own
    names: Mapping[int, str] | None = None
    map_config: LabelMapConfig | None = None  # what the values of `label_map` mean
    exhaustive: bool = False  # whether a name that is not listed is absent
    # The photos come without masks; not for training, but `textsam embed` finds its own
    bare: bool = False

    def __post_init__(self) -> None:
        if self.bare and (self.masks or self.label_map or self.labels or self.exhaustive):
            raise ValueError("bare photos have no masks, labels or names; leave bare out, or those")
        if not self.bare and (self.masks is None) == (self.label_map is None):
            raise ValueError(
                f"masks={self.masks!r} and label_map={self.label_map!r}; wanted one of them: the "
                "column with a list of masks, or the column with a picture of values"
            )
        if (self.label_map is None) != (self.map_config is None):
            raise ValueError("label_map and map_config go together: give both or neither")

    def top(self) -> list[str]:
        """The columns themselves, without their fields."""
        paths = (self.image, self.masks, self.label_map, self.labels, self.image_id)
        return sorted({path.partition(".")[0] for path in paths if path})


class _Rows:
    """What both kinds share: columns checked, pictures undecoded, rows made into samples."""

    def __init__(self, dataset: Any, *, columns: HubColumns, name: str) -> None:
        self.name = name
        features = dataset.features
        if features is not None:
            missing = sorted(set(columns.top()) - set(features))
            if missing:
                raise ValueError(
                    f"{name} has no column {missing}; it has {sorted(features)}. Say which is "
                    "which: HubColumns(image=..., masks=..., labels=...)"
                )
            dataset = dataset.select_columns(columns.top())
            for column in columns.top():
                cast = _undecoded(features[column])
                if cast is not features[column]:
                    dataset = dataset.cast_column(column, cast)
            if columns.labels and columns.names is None:
                columns = replace(columns, names=_class_names(features, columns.labels))
        self.columns = columns
        self.problems = RowProblems()
        self.dataset = dataset
        self.has_masks = not columns.bare

    def sample(self, row: tuple[int, Mapping[str, Any]]) -> Sample:
        """What a numbered row means."""
        number, fields = row
        columns = self.columns
        try:
            encoded = _encoded(_field(fields, columns.image))
            size = upright_size(encoded)
            void: RLE | None = None
            complete = True
            if columns.label_map is not None and columns.map_config is not None:
                values = read_label_map(_encoded(_field(fields, columns.label_map)))
                objects, empty = objects_of_map(values, config=columns.map_config)
                void = encode_mask(empty) if empty.any() else None
            else:
                objects, complete = self._objects(fields, size, photo=str(number))
            given = _field(fields, columns.image_id) if columns.image_id else number
        except (KeyError, TypeError) as error:
            raise ValueError(f"{self.name}: row {number} is not as said: {error!r}") from error
        return Sample(
            image_id=str(given),
            source=self.name,
            encoded=encoded,
            size=size,
            exhaustive=columns.exhaustive and complete,
            void=void,
            objects=objects,
        )

    def _objects(
        self, fields: Mapping[str, Any], size: tuple[int, int], *, photo: str
    ) -> tuple[tuple[ObjectMask, ...], bool]:
        """The objects that can be read, and whether those are all."""
        columns = self.columns
        if columns.bare:
            return (), True
        values = _field(fields, columns.masks or "")
        labels = _field(fields, columns.labels) if columns.labels else [""] * len(values)
        if len(labels) != len(values):
            raise ValueError(f"{len(values)} masks and {len(labels)} labels; wanted one for each")

        def read(pair: tuple[Any, Any]) -> ObjectMask:
            rle = _mask(pair[1], size)
            if rle.size != tuple(size):
                raise ValueError(f"it has size {rle.size}; wanted {size} (height, width)")
            return ObjectMask(label=pair[0], kind="unknown", rle=rle)

        pairs = zip(labels, values, strict=True)
        found, complete = readable_objects(pairs, read, self.problems, photo=photo)
        # Names last: one that is missing is a mistake in what was said of the set, not of a mask.
        return tuple(replace(item, label=self._label(item.label)) for item in found), complete

    def _label(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        names = self.columns.names
        if names is None or int(value) not in names:
            known = "no names are given" if names is None else f"there are {len(names)} names"
            raise ValueError(f"label {value!r} is a number and {known}. Give HubColumns(names=...)")
        return names[int(value)]


class HubSource(_Rows):
    """A data set that is on disk: `datasets.Dataset`."""

    def __init__(self, dataset: Any, *, columns: HubColumns, name: str = "hub") -> None:
        if not hasattr(dataset, "__len__"):
            raise ValueError(f"{name} is streamed, it has no length. Use HubStream")
        super().__init__(dataset, columns=columns, name=name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: row {index} of {len(self)}")
        return self.sample((index, self.dataset[index]))


class HubStream(_Rows):
    """A data set that is read as it comes: `datasets.IterableDataset`.

    Shards are shuffled, and rows through a buffer of `buffer` encoded photos; another epoch is
    another order. To go on at a later step its rows are read past, without decoding anything.
    """

    def __init__(
        self, dataset: Any, *, columns: HubColumns, name: str = "hub", buffer: int = 1000
    ) -> None:
        if not hasattr(dataset, "set_epoch"):
            raise ValueError(f"{name} is not streamed. Use HubSource")
        if buffer < 1:
            raise ValueError(f"{name}: buffer={buffer}; wanted at least 1 photo")
        super().__init__(dataset, columns=columns, name=name)
        self.buffer = buffer

    def rows(self, *, seed: int, epoch: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """All rows once, numbered, in the order of (seed, epoch)."""
        # One number of both: `set_epoch` would change the data set, which others may be reading.
        mixed = int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
        yield from enumerate(self.dataset.shuffle(seed=mixed, buffer_size=self.buffer))

    def __iter__(self) -> Iterator[Sample]:
        return sound_samples(self)


def open_hub(
    path: str,
    *,
    columns: HubColumns,
    config: str | None = None,
    split: str = "train",
    streaming: bool = False,
    buffer: int = 1000,
    name: str | None = None,
    **options: Any,
) -> HubSource | HubStream:
    """Open a data set of the Hub or a local one; `options` go to `datasets.load_dataset`."""
    datasets = require("datasets", "train")
    dataset = datasets.load_dataset(path, config, split=split, streaming=streaming, **options)
    name = name or path.rstrip("/").rpartition("/")[2]
    if streaming:
        return HubStream(dataset, columns=columns, name=name, buffer=buffer)
    return HubSource(dataset, columns=columns, name=name)


def _undecoded(feature: Any) -> Any:
    """The same feature with pictures left as bytes; the feature itself if it holds none."""
    datasets = require("datasets", "train")
    if isinstance(feature, datasets.Image):
        return datasets.Image(decode=False)
    if isinstance(feature, dict):
        inner = {key: _undecoded(value) for key, value in feature.items()}
        return feature if all(inner[k] is feature[k] for k in feature) else inner
    if isinstance(feature, datasets.Sequence | datasets.LargeList):
        item = _undecoded(feature.feature)
        return feature if item is feature.feature else replace(feature, feature=item)
    return feature


def _class_names(features: Any, path: str) -> Mapping[int, str] | None:
    """Names of the ClassLabel that a path leads to."""
    feature: Any = features
    for part in path.split("."):
        feature = getattr(feature, "feature", feature)[part]
    names = getattr(getattr(feature, "feature", feature), "names", None)
    return None if names is None else dict(enumerate(names))


def _field(fields: Any, path: str) -> Any:
    """Follow a dotted path; on a list, in each of its items."""
    value = fields
    for part in path.split("."):
        value = [item[part] for item in value] if isinstance(value, list) else value[part]
    return value


def _encoded(value: Any) -> bytes | Path:
    """A picture as bytes or a path, however the library hands it over."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return Path(value)
    if isinstance(value, Mapping):
        if value.get("bytes") is not None:
            return bytes(value["bytes"])
        if value.get("path"):
            return Path(value["path"])
    if isinstance(value, Image.Image):
        buffer = io.BytesIO()
        value.save(buffer, "PNG")
        return buffer.getvalue()
    raise ImageError(f"got {type(value).__name__} as a picture; wanted bytes, a path or an image")


def _mask(value: Any, size: tuple[int, int]) -> RLE:
    """One mask: a COCO code, its counts alone, or a picture that is zero outside."""
    if isinstance(value, str):
        value = {"size": size, "counts": value}
    if isinstance(value, Mapping) and "counts" in value:
        return rle_from_json(value)
    if isinstance(value, list | np.ndarray):
        values = np.asarray(value)
        if values.ndim != 2:
            raise ValueError(f"a mask has shape {values.shape}; wanted (height, width)")
        return encode_mask(values != 0)
    return encode_mask(read_label_map(_encoded(value)) != 0)
