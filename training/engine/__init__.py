"""The engine: trains any objective on one process or many and resumes exactly after a kill.

Start reading at `trainer.py`.

    python -m torch.distributed.run --nproc_per_node 8 -m training.train RECIPE
"""

from __future__ import annotations

from .average import WeightAverage
from .checkpoint import CheckpointError, CheckpointStore, load_weights
from .engine_config import EngineConfig
from .layer_depths import encoder_blocks, layer_depths
from .optim import RatedPart, build_optimizer, optimizer_groups
from .pictures import PictureSheet, masks_from_boxes
from .processes import ProcessLostError
from .schedule import rate_factor
from .trainer import Trainer, TrainResult, seed_everything

__all__ = [
    "CheckpointError",
    "CheckpointStore",
    "EngineConfig",
    "PictureSheet",
    "ProcessLostError",
    "RatedPart",
    "TrainResult",
    "Trainer",
    "WeightAverage",
    "build_optimizer",
    "encoder_blocks",
    "layer_depths",
    "load_weights",
    "masks_from_boxes",
    "optimizer_groups",
    "rate_factor",
    "seed_everything",
]
