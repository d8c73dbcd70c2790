"""The engine: trains any objective on one process or many, and goes on exactly after a kill.

`Trainer` is the engine (`trainer.py` is the page to read first). `run` and what belongs to it is
the loop that the first `tiny` was trained with, for one process and without dependencies.

    python -m torch.distributed.run --nproc_per_node 8 -m training.train RECIPE
"""

from __future__ import annotations

from .average import WeightAverage
from .checkpoint import CheckpointError, CheckpointStore, load_weights
from .config import EngineConfig
from .layers import encoder_blocks, layer_depths
from .loop import LoopConfig, learning_rate_factor, load_checkpoint, run, save_checkpoint
from .optim import RatedPart, build_optimizer, optimizer_groups, parameter_groups
from .pictures import PictureSheet, in_turn, masks_from_boxes
from .processes import ProcessLostError
from .schedule import rate_factor
from .trainer import Trainer, TrainResult, seed_everything

__all__ = [
    "CheckpointError",
    "CheckpointStore",
    "EngineConfig",
    "LoopConfig",
    "PictureSheet",
    "ProcessLostError",
    "RatedPart",
    "TrainResult",
    "Trainer",
    "WeightAverage",
    "build_optimizer",
    "encoder_blocks",
    "in_turn",
    "layer_depths",
    "learning_rate_factor",
    "load_checkpoint",
    "load_weights",
    "masks_from_boxes",
    "optimizer_groups",
    "parameter_groups",
    "rate_factor",
    "run",
    "save_checkpoint",
    "seed_everything",
]
