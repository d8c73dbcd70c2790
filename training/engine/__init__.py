"""The engine: trains any objective on one process or many and resumes exactly after a kill.

Start reading at `trainer.py`.

    python -m torch.distributed.run --nproc_per_node 8 -m training.train RECIPE
"""

from __future__ import annotations

from .checkpoint import CheckpointStore, load_weights
from .engine_config import EngineConfig
from .optim import RatedPart, build_optimizer, rate_factor
from .pictures import PictureSheet
from .trainer import Trainer, TrainResult

__all__ = [
    "CheckpointStore",
    "EngineConfig",
    "PictureSheet",
    "RatedPart",
    "TrainResult",
    "Trainer",
    "build_optimizer",
    "load_weights",
    "rate_factor",
]
