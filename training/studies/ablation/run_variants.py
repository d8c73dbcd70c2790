"""All variants, one after the other; what is done is kept, and what fails stops no other."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from textsam.errors import TextSamError
from textsam.inference.model import TextSAM
from textsam.values.files import write_atomically

from ...engine import TrainResult
from ...evaluation.command import json_text
from ...evaluation.figures.intervals import Score
from .benchmark import Benchmark
from .core_variant import train_core
from .pathway_variant import towers_digest, train_pathway
from .photos import PhotoPool
from .variants import CoreSettings, PathwaySettings, Variant

logger = logging.getLogger(__name__)


class StoppedError(Exception):
    """A signal ended the run; the same command continues the variant from its checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a variant."""

    variant: Variant  # which one
    key: str  # names its run and its result, see `Variant.key`
    seconds: float = 0.0  # of training in the process that ended it, and of measuring
    # In the SAM's image encoder, and of all that was trained.
    parameters: Mapping[str, int] = field(default_factory=dict)
    loss: float | None = None  # mean of the run's last record
    # Figure -> a score for each object; empty if it failed.
    scores: Mapping[str, Sequence[Score]] = field(default_factory=dict)
    failure: str | None = None  # why it has no scores


def run_variants(
    variants: Sequence[Variant],
    *,
    pool: PhotoPool,
    benchmark: Benchmark,
    folder: Path,
    report: Callable[[Sequence[Outcome]], None] = lambda outcomes: None,
) -> list[Outcome]:
    """Train and measure what has no result yet.

    Raises:
        StoppedError: On SIGTERM or SIGINT, after a checkpoint.
    """
    (folder / "results").mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    for number, variant in enumerate(variants, start=1):
        try:
            key = _key(variant, pool, benchmark)
        except TextSamError as error:
            outcomes.append(Outcome(variant=variant, key="", failure=str(error)))
            report(outcomes)
            continue
        title = f"{number}/{len(variants)} {variant.group}: {variant.name} ({key})"
        # Two variants with equal settings have one key: what failed is not tried twice.
        failed = next((o for o in outcomes if o.key == key and o.failure), None)
        if (path := folder / "results" / f"{key}.json").exists():
            logger.info("%s: there is a result", title)
            outcomes.append(_read(path, variant, key))
        elif failed is not None:
            outcomes.append(Outcome(variant=variant, key=key, failure=failed.failure))
        else:
            logger.info("%s: training", title)
            outcomes.append(_attempt(variant, key, pool, benchmark, folder))
        report(outcomes)
    return outcomes


def _key(variant: Variant, pool: PhotoPool, benchmark: Benchmark) -> str:
    others: dict[str, Any] = {"data": pool.about(), "measured": benchmark.about(variant.kind)}
    if isinstance(variant.settings, PathwaySettings):
        others["towers"] = towers_digest(variant.settings.core)
    return variant.key(others)


def _attempt(
    variant: Variant, key: str, pool: PhotoPool, benchmark: Benchmark, folder: Path
) -> Outcome:
    """Train and measure one variant; whatever goes wrong with it is its outcome."""
    started = time.monotonic()
    try:
        model, result = _train(variant, key, pool, folder)
        if result.reason != "done":
            raise StoppedError(f"{variant.group}: {variant.name} stopped by {result.reason}")
        logger.info("trained in %.0f s; measuring", time.monotonic() - started)
        scores = benchmark.measure(model, variant.kind)
    except StoppedError:
        raise
    except Exception as error:
        logger.exception("%s: %s failed", variant.group, variant.name)
        return Outcome(variant=variant, key=key, failure=f"{type(error).__name__}: {error}")
    outcome = Outcome(
        variant=variant,
        key=key,
        seconds=time.monotonic() - started,
        parameters=_parameters(model, variant),
        loss=result.figures.get("loss"),
        scores=scores,
    )
    text = json_text(asdict(outcome) | {"torch": torch.__version__})
    write_atomically(folder / "results" / f"{key}.json", text.encode())
    return outcome


def _train(
    variant: Variant, key: str, pool: PhotoPool, folder: Path
) -> tuple[TextSAM, TrainResult]:
    run, settings = folder / "runs" / key, variant.settings
    if isinstance(settings, CoreSettings):
        return train_core(settings, pool, folder=run, identity=key)
    return train_pathway(settings, pool, folder=run, cache=folder / "embeddings", identity=key)


def _parameters(model: TextSAM, variant: Variant) -> dict[str, int]:
    def count(module: torch.nn.Module | None, *, trained: bool = False) -> int:
        parameters = [] if module is None else list(module.parameters())
        return sum(p.numel() for p in parameters if p.requires_grad or not trained)

    learned = model.sam if variant.kind == "core" else model.pathway
    return {"encoder": count(model.sam.image_encoder), "trained": count(learned, trained=True)}


def _read(path: Path, variant: Variant, key: str) -> Outcome:
    content: dict[str, Any] = json.loads(path.read_bytes())
    return Outcome(
        variant=variant,
        key=key,
        seconds=content["seconds"],
        parameters=content["parameters"],
        loss=content["loss"],
        scores={name: [Score(**s) for s in scores] for name, scores in content["scores"].items()},
    )
