"""FSDP2: shard an objective over the processes, and convert between shards and whole tensors.

torch's `fully_shard` is called here and not by accelerate, which ignores its FSDP plugin on a CPU
(accelerate 1.15, `AcceleratorState.__init__`: gloo is not in its list, so it would quietly train
with DDP); like this the same lines run on gloo, where the tests are, and on nccl. Checkpoints hold
whole tensors, gathered one by one by rank 0: at the size of ViT-H, 10 GB with the optimizer, that
is simpler than sharded files, and another number of processes can go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .optim import encoder_blocks


def shard(objective: nn.Module, *, processes: int, device: torch.device, shard_size: int) -> None:
    """Shard the parameters of an objective in place.

    Large blocks are gathered when they are used; what is left, with the whole decoder, which runs
    eleven times a step, is gathered once for all. Weights stay float32: autocast decides what is
    computed in bf16, as it does without shards.
    """
    from torch.distributed import broadcast
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    objective.to(device)
    # DDP broadcasts the weights of rank 0 by itself; `fully_shard` does not.
    for tensor in (*objective.parameters(), *objective.buffers()):
        broadcast(tensor.detach(), src=0)
    mesh = init_device_mesh(device.type, (processes,))
    for block in encoder_blocks(objective):
        if sum(p.numel() for p in block.parameters() if p.requires_grad) >= shard_size:
            fully_shard(block, mesh=mesh)
    fully_shard(objective, mesh=mesh)


def is_sharded(module: nn.Module) -> bool:
    """Whether the module has been sharded."""
    return any(hasattr(p, "to_local") for p in module.parameters())


def local_part(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor, sharing its memory; an ordinary tensor as it is."""
    detached = tensor.detach()
    part: Tensor = detached.to_local() if hasattr(detached, "to_local") else detached
    return part


def whole(value: Any, *, keep: bool = True) -> Any:
    """Gather tensors, also in nested dicts and lists, on the CPU; None where `keep` is False.

    Every process must call it, since each has a part.
    """
    if isinstance(value, Mapping):
        return {key: whole(inner, keep=keep) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(whole(inner, keep=keep) for inner in value)
    if not isinstance(value, Tensor):
        return value
    full = value.full_tensor() if hasattr(value, "full_tensor") else value
    return full.detach().cpu() if keep else None


def whole_state(module: nn.Module, *, keep: bool = True) -> dict[str, Any]:
    """`state_dict()` with every shard gathered, on the CPU."""
    return dict(whole(module.state_dict(), keep=keep))


def from_whole(value: Tensor, like: Tensor) -> Tensor:
    """A copy of a whole tensor, sharded like another one, without communication."""
    if not hasattr(like, "device_mesh") or value.shape != like.shape:
        return value.to(like.device, copy=True) if value.shape == like.shape else value.clone()
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    placed = value.to(like.device, copy=True)
    return distribute_tensor(placed, like.device_mesh, like.placements, src_data_rank=None)
