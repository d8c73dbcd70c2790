"""Stage `broad` on a GPU that is lent for minutes: pack, train to the end of the time, unpack.

    python -m training.recipes.tiny.lease pack --data ../shared/data/train --runs runs/tiny \
        --init-from tiny --out lease
    python -m training.recipes.tiny.lease train --lease lease --out trained --seconds 480
    python -m training.recipes.tiny.lease unpack --trained trained --runs runs/tiny --out start
    python -m training.train tiny --runs runs/tiny --init-from start --stages export

Whatever travels is cut into parts, since such machines take and give small files. How many steps
fit is measured in the first tenth of the time, so that the rate falls to zero just before the end.
"""

from __future__ import annotations

import io
import json
import logging
import math
import shutil
import sys
import tarfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

from textsam.errors import TextSamError, require
from textsam.inference.model import TextSAM

from ...engine import CheckpointStore
from .recipe import TinyRecipe
from .stage_settings import FILES
from .stages import load_broad

logger = logging.getLogger("training.lease")

_CROPS_PER_NAME = 40  # crops of a name that travel; the concept bank draws from them


@dataclass(frozen=True, kw_only=True)
class Lease:
    """What is done with which files."""

    do: Literal["pack", "train", "unpack"]
    data: Path = Path("../shared/data/train")  # pack: folder of the training Parquet files
    runs: Path = Path("runs/tiny")  # pack, unpack: folder with the finished stage `clip`
    init_from: str = "tiny"  # pack: model to start from
    quality: int = 60  # pack: of the photos, which are written as WebP
    part_mib: int = 15  # pack, train: size of the parts
    lease: Path = Path("lease")  # train: folder of what `pack` wrote
    seconds: float = 480.0  # train: from its start to its end
    images: int = 64  # train: photos in a step
    workers: int = 15  # train: processes that make batches
    cpu: bool = False  # train: to rehearse
    trained: Path = Path("trained")  # unpack: folder of what `train` wrote
    out: Path = Path("lease")  # folder to write into


def pack(options: Lease) -> None:
    """Photos in fewer bytes, CLIP with some crops, and the weights to start from."""
    files = options.out / "files"
    (files / "data").mkdir(parents=True, exist_ok=True)
    for name in FILES:
        _shrink_photos(options.data / f"{name}.parquet", files / "data", quality=options.quality)
    _copy_clip(options.runs / "clip", files / "runs" / "clip")
    model = TextSAM.from_pretrained(options.init_from, device="cpu")
    model.save_pretrained(files / "start", dtype=torch.float16)
    shutil.rmtree(files / "start" / "clip")  # the same as that of the runs
    _write_parts(files, options.out, mib=options.part_mib)
    shutil.rmtree(files)


def train(options: Lease) -> None:
    """Train until the time is up, and write the averaged weights."""
    ends = time.monotonic() + options.seconds
    work = options.out / "work"
    _read_parts(options.lease, work)
    shutil.copytree(work / "runs" / "clip", work / "start" / "clip", dirs_exist_ok=True)
    recipe = TinyRecipe(
        data=work / "data",
        runs=work / "runs",
        init_from=str(work / "start"),
        stages=("broad",),
        images=options.images,
        workers=options.workers,
        precision="no" if options.cpu else "bf16",
        cpu=options.cpu,
        broad_steps=10**9,
        seconds=options.seconds / 10,
    )
    recipe.prepare()()
    folder = recipe.runs / "broad"
    done, pace = _pace(folder, seconds=options.seconds / 10)
    # What is left also holds the time to write.
    left = ends - time.monotonic() - 0.03 * options.seconds
    steps = done + max(1, math.floor(left / pace))
    logger.info("%.3f s a step: %d steps in all", pace, steps)
    replace(recipe, broad_steps=steps, seconds=max(1.0, left)).prepare()()
    model, _ = load_broad(recipe)
    model.save_pretrained(work / "model", dtype=torch.float16)
    shutil.rmtree(work / "model" / "clip")
    shutil.copytree(folder, work / "model", ignore=_BESIDES, dirs_exist_ok=True)  # the log
    _write_parts(work / "model", options.out, mib=options.part_mib)
    shutil.rmtree(work)


def unpack(options: Lease) -> None:
    """The trained model as a folder that `--init-from` takes."""
    _read_parts(options.trained, options.out)
    shutil.copytree(options.runs / "clip", options.out / "clip", ignore=_BESIDES)
    TextSAM.from_pretrained(options.out, device="cpu")  # fails here, not hours later


_BESIDES = shutil.ignore_patterns("*.pt", "text", "head", "tensorboard")


def _pace(folder: Path, *, seconds: float) -> tuple[int, float]:
    """Steps done, and seconds a step: between records if there are two, for the first are slow."""
    path = CheckpointStore(folder).newest()
    done = 0 if path is None else int(CheckpointStore.read(path)["step"])
    log = folder / "log.jsonl"
    records = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    taken = [(record["step"], record["seconds"]) for record in records if "seconds" in record]
    if len(taken) < 2:
        return done, seconds / max(1, done)
    (first, early), (last, late) = taken[0], taken[-1]
    return done, (late - early) / (last - first)


def _shrink_photos(source: Path, folder: Path, *, quality: int) -> None:
    """The same rows with photos of fewer bytes."""
    pq: Any = require("pyarrow.parquet", "train")
    table = pq.read_table(source)
    rows = table.to_pylist()
    for row in rows:
        with Image.open(io.BytesIO(row["image"]["bytes"])) as photo:
            data = io.BytesIO()
            photo.convert("RGB").save(data, "WEBP", quality=quality, method=6)
        if len(data.getvalue()) < len(row["image"]["bytes"]):
            row["image"]["bytes"] = data.getvalue()
    small = table.from_pylist(rows, schema=table.schema)
    pq.write_table(small, folder / source.name, compression="zstd", compression_level=19)


def _copy_clip(source: Path, target: Path) -> None:
    """CLIP's files, and some crops of each name."""
    shutil.copytree(source, target, ignore=_BESIDES)
    crops = torch.load(source / "crops.pt", weights_only=True)
    seen: Counter[str] = Counter()
    kept = []
    for row, label in enumerate(crops["labels"]):
        seen[label] += 1
        if seen[label] <= _CROPS_PER_NAME:
            kept.append(row)
    chosen = {
        key: value[kept] if torch.is_tensor(value) else [value[row] for row in kept]
        for key, value in crops.items()
    }
    torch.save(chosen, target / "crops.pt")


def _write_parts(files: Path, folder: Path, *, mib: int) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(files, arcname=".")
    data, size = archive.getvalue(), mib << 20
    for index, start in enumerate(range(0, len(data), size)):
        (folder / f"part-{index:03d}").write_bytes(data[start : start + size])
    logger.info("%d parts of %d MiB in %s", -(-len(data) // size), mib, folder)


def _read_parts(folder: Path, target: Path) -> None:
    parts = sorted(folder.glob("part-*"))
    if not parts:
        raise TextSamError(f"no part-000 in {folder}. Type: --lease FOLDER or --trained FOLDER")
    archive = io.BytesIO(b"".join(part.read_bytes() for part in parts))
    with tarfile.open(fileobj=archive) as tar:
        # As the filter "data", which Python has since 3.11.4: nothing lands outside the folder.
        for member in tar.getmembers():
            inside = (target / member.name).resolve().is_relative_to(target.resolve())
            if not inside or not (member.isfile() or member.isdir()):
                raise TextSamError(f"{folder}: {member.name!r} is no file inside the archive")
        tar.extractall(target)


def main(arguments: list[str] | None = None) -> None:
    """Do one of the three."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    tyro: Any = require("tyro", "train")
    config = (tyro.conf.PositionalRequiredArgs,)
    options = tyro.cli(Lease, args=arguments, config=config)
    {"pack": pack, "train": train, "unpack": unpack}[options.do](options)


if __name__ == "__main__":
    main(sys.argv[1:])
