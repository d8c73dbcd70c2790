"""Translate weights and compare keys and shapes with the network that their sizes describe.

A key map alone would accept a truncated file, and leave the rest at its random initialisation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

import torch
from torch import Tensor

from textsam.errors import WeightsError
from textsam.modeling.config import SamConfig
from textsam.modeling.sam import Sam
from textsam.weights.infer import infer_config
from textsam.weights.key_map import KeyMap, describe_keys

__all__ = ["export_state", "import_state"]


def import_state(
    state: Mapping[str, Tensor], key_map: KeyMap, config: SamConfig | None = None
) -> dict[str, Tensor]:
    """Translate another project's weights to our names.

    Args:
        state: Weights under their names.
        key_map: Names of that project.
        config: Sizes that the weights must have; read off their shapes if not given.

    Raises:
        WeightsError: A key is missing or unexpected, or a shape does not fit; it is named.
    """
    result = key_map.to_ours(state)
    if config is None:
        config = infer_config(result.state, key_map=key_map)
    _check(result.state, config, key_map, unknown=result.unknown, missing=result.missing)
    return result.state


def export_state(
    state: Mapping[str, Tensor], key_map: KeyMap, config: SamConfig | None = None
) -> dict[str, Tensor]:
    """Translate our weights to another project's names; the arguments are as in `import_state`.

    Raises:
        WeightsError: The weights are incomplete, or some have no counterpart; they are named.
    """
    unknown = [key for key in state if not key_map.theirs(key)]
    if unknown:
        raise WeightsError(f"{key_map.source} has no counterpart for {describe_keys(unknown)}")
    _check(state, config or infer_config(state), None)
    return key_map.to_theirs(state)


def _check(
    state: Mapping[str, Tensor],
    config: SamConfig,
    key_map: KeyMap | None,
    *,
    unknown: Iterable[str] = (),
    missing: Iterable[str] = (),
) -> None:
    """Compare weights under our names with a network; errors use the names of the key map."""

    def names(key: str) -> list[str]:
        return (key_map.theirs(key) if key_map else []) or [key]

    wanted = _wanted_shapes(config)
    lost, left, wrong = set(missing), set(unknown), []
    for key in wanted.keys() - state.keys():
        if not lost.intersection(names(key)):  # of stacked rows, some may be there
            lost.update(names(key))
    for key in state.keys() - wanted.keys():
        left.update(names(key))
    for key in wanted.keys() & state.keys():
        if state[key].shape != wanted[key]:
            have, want = tuple(state[key].shape), tuple(wanted[key])
            wrong.append(f"{' + '.join(names(key))} is {have}, wanted {want}")
    problems = [
        f"{what}: {describe_keys(sorted(keys))}"
        for what, keys in (("missing", lost), ("unexpected", left), ("of another shape", wrong))
        if keys
    ]
    if problems:
        source = key_map.source if key_map else "textsam"
        raise WeightsError(
            f"these weights are not exactly a {source} model of their size; " + "; ".join(problems)
        )


@lru_cache(maxsize=8)  # even without values, building a ViT-H takes a while
def _wanted_shapes(config: SamConfig) -> dict[str, torch.Size]:
    try:
        with torch.device("meta"):
            network = Sam(config)
    except ValueError as error:
        raise WeightsError(f"no network has these sizes: {error}") from error
    return {key: tensor.shape for key, tensor in network.state_dict().items()}
