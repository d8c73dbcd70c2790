"""Translate weights between our names and another project's, strictly and in both directions.

A key that no pair of a `KeyMap` covers is reported, never guessed. The result is compared with the
network that its sizes describe: a key map alone would accept a truncated file, and leave the rest
at its random initialisation. Two sizes leave no trace in the shapes and are taken from the
published models: the number of heads of the decoder (8) and the image size of a TinyViT (1024),
which has no absolute positions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from textsam.errors import WeightsError
from textsam.modeling.config import SamConfig, TinyViTConfig, ViTConfig
from textsam.modeling.sam import Sam

_MAX_NAMED = 8
_Rules = list[tuple[re.Pattern[str], str]]


@dataclass(frozen=True, kw_only=True)
class Translation:
    """Weights under our names, and the source's names that could not be translated."""

    state: dict[str, Tensor]
    unknown: list[str]
    missing: list[str]


class KeyMap:
    """Pairs of module (or tensor) names, ours and theirs."""

    def __init__(
        self,
        source: str,
        pairs: Iterable[tuple[str, str]],
        *,
        stacked: Iterable[tuple[str, str, int]] = (),
    ) -> None:
        """Build both directions from pairs (ours, theirs); `source` is for error messages.

        A `#` stands for an index, the same on both sides. A pair names a module with everything in
        it; of several that match, the longest is taken. `stacked` has (ours, theirs, count): rows
        of one tensor of ours that are separate tensors there, `#` being the number of the row.
        """
        self.source = source
        pairs = tuple(pairs)
        self._from_ours = _rules((ours, theirs) for ours, theirs in pairs)
        self._from_theirs = _rules((theirs, ours) for ours, theirs in pairs)
        self._stacked = {
            ours: [theirs.replace("#", str(row)) for row in range(count)]
            for ours, theirs, count in stacked
        }

    def theirs(self, key: str) -> list[str]:
        """Their names of our weight: several if it is stacked, none if it has no counterpart."""
        if key in self._stacked:
            return self._stacked[key]
        name = _rename(key, self._from_ours)
        return [] if name is None else [name]

    def to_ours(self, state: Mapping[str, Tensor]) -> Translation:
        """Translate their weights; nothing is dropped silently."""
        rest = dict(state)
        renamed: dict[str, Tensor] = {}
        missing: list[str] = []
        unknown: list[str] = []
        for ours, names in self._stacked.items():
            missing += [name for name in names if name not in rest]
            rows = {name: rest.pop(name) for name in names if name in rest}
            if len({row.shape for row in rows.values()}) > 1:
                unknown += rows  # rows of different shapes cannot be stacked
            elif len(rows) == len(names):
                renamed[ours] = torch.cat(list(rows.values()))
        for key, tensor in rest.items():
            ours_key = _rename(key, self._from_theirs)
            if ours_key is None:
                unknown.append(key)
            else:
                renamed[ours_key] = tensor
        return Translation(state=renamed, unknown=unknown, missing=missing)

    def to_theirs(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Translate our weights, which must all have a counterpart there."""
        renamed: dict[str, Tensor] = {}
        for key, tensor in state.items():
            names = self.theirs(key)
            # Copies, since safetensors refuses tensors that share memory.
            rows = [tensor] if len(names) == 1 else [row[None].clone() for row in tensor]
            renamed.update(zip(names, rows, strict=True))
        return renamed


def describe_keys(keys: list[str]) -> str:
    """List keys in a message, the first few in full."""
    text = ", ".join(keys[:_MAX_NAMED])
    more = len(keys) - _MAX_NAMED
    return text if more <= 0 else f"{text} and {more} more"


def _rules(pairs: Iterable[tuple[str, str]]) -> _Rules:
    """Compile pairs to patterns and templates."""
    longest_first = sorted(pairs, key=lambda pair: -len(pair[0]))
    return [(_pattern(pattern), _template(template)) for pattern, template in longest_first]


def _pattern(name: str) -> re.Pattern[str]:
    # The last group is the rest of the key, below the module that the pair names.
    return re.compile(re.escape(name).replace(r"\#", r"(\d+)") + r"((?:\..+)?)")


def _template(name: str) -> str:
    """The replacement for `_pattern`: indices in order, then the rest of the key."""
    first, *parts = name.split("#")
    groups = (rf"\g<{index}>{part}" for index, part in enumerate([*parts, ""], start=1))
    return first + "".join(groups)


def _rename(key: str, rules: _Rules) -> str | None:
    for pattern, template in rules:
        match = pattern.fullmatch(key)
        if match:
            return match.expand(template)
    return None


def infer_config(state: Mapping[str, Tensor], *, key_map: KeyMap | None = None) -> SamConfig:
    """The sizes of a Segment Anything model with a ViT or TinyViT encoder, under our names.

    A `WeightsError` names a missing weight that gives a size, by the names of `key_map`.
    """
    shapes = _Shapes(state, key_map)
    tiny = any(key.startswith("image_encoder.stem.") for key in state)
    encoder = _infer_tiny_vit(shapes) if tiny else _infer_vit(shapes)
    image_size = 1024 if tiny else 16 * shapes.of("image_encoder.position_embedding", ndim=4)[1]
    inner, dim = shapes.of("mask_decoder.transformer.blocks.0.token_to_image.q_proj.weight", ndim=2)
    if inner == 0 or dim % inner:
        raise WeightsError(f"a decoder of width {dim} cannot attend with width {inner}")
    return SamConfig(
        encoder=encoder,
        image_size=image_size,
        embed_dim=dim,
        mask_channels=shapes.of("prompt_encoder.mask_downscaling.3.weight", ndim=4)[0],
        decoder_depth=shapes.count("mask_decoder.transformer.blocks.#."),
        decoder_mlp=shapes.of("mask_decoder.transformer.blocks.0.mlp.0.weight", ndim=2)[0],
        attention_downsample=dim // inner,
        hq=any(key.startswith("mask_decoder.hq.") for key in state),
        multimasks=shapes.of("mask_decoder.mask_tokens.weight", ndim=2)[0] - 1,
        iou_depth=shapes.count("mask_decoder.iou_head.layers.#."),
        iou_hidden=shapes.of("mask_decoder.iou_head.layers.0.weight", ndim=2)[0],
    )


def mlp_ratio(hidden: int, width: int) -> float:
    """The ratio r for which `int(width * r)` is `hidden`."""
    # Where the division is inexact, int() could round to one less; half a unit more cannot.
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


class _Shapes:
    """Shapes of weights by our names, with errors in the names of the file."""

    def __init__(self, state: Mapping[str, Tensor], key_map: KeyMap | None) -> None:
        self._state = state
        self._key_map = key_map

    def of(self, key: str, *, ndim: int) -> torch.Size:
        theirs = [] if self._key_map is None else self._key_map.theirs(key)
        names = describe_keys(theirs or [key])
        if key not in self._state:
            source = "textsam" if self._key_map is None else self._key_map.source
            raise WeightsError(
                f"this is not a complete {source} model: {names} is missing, which gives one of "
                "its sizes"
            )
        shape = self._state[key].shape
        if len(shape) != ndim:
            raise WeightsError(f"{names} has shape {tuple(shape)}, wanted {ndim} dimensions")
        return shape

    def count(self, pattern: str) -> int:
        """One more than the highest index that occurs at `#`."""
        regex = re.compile(re.escape(pattern).replace(r"\#", r"(\d+)"))
        matches = (regex.match(key) for key in self._state)
        count = 1 + max((int(match[1]) for match in matches if match), default=-1)
        # A damaged or hostile name such as blocks.999999999 must not size a network.
        if count > len(self._state):
            raise WeightsError(f"{pattern!r} counts to {count}, beyond the number of weights")
        return count


def _infer_vit(shapes: _Shapes) -> ViTConfig:
    width, _, patch, _ = shapes.of("image_encoder.patch_embed.weight", ndim=4)
    grid = shapes.of("image_encoder.position_embedding", ndim=4)[1]
    depth = shapes.count("image_encoder.blocks.#.")
    tables = [
        shapes.of(f"image_encoder.blocks.{index}.attention.relative_rows", ndim=2)
        for index in range(depth)
    ]
    # A table for squares of n x n tokens has 2 n - 1 rows.
    sides = [(table[0] + 1) // 2 for table in tables]
    windows = {side for side in sides if side != grid}
    if not tables or len(windows) > 1:
        raise WeightsError(f"wanted windows of one size in at least one block, got {sides}")
    return ViTConfig(
        width=width,
        depth=depth,
        heads=width // tables[0][1],
        global_attention_indexes=tuple(i for i, side in enumerate(sides) if side == grid),
        window_size=windows.pop() if windows else 14,
        patch_size=patch,
        mlp_ratio=mlp_ratio(shapes.of("image_encoder.blocks.0.mlp.0.weight", ndim=2)[0], width),
    )


def _infer_tiny_vit(shapes: _Shapes) -> TinyViTConfig:
    stages = shapes.count("image_encoder.stages.#.")
    if stages != 4:
        raise WeightsError(f"a TinyViT has 4 stages, this one has {stages}")
    depths = tuple(shapes.count(f"image_encoder.stages.{index}.blocks.#.") for index in range(4))
    expanded, stem = shapes.of("image_encoder.stages.0.blocks.0.expand.conv.weight", ndim=4)[:2]
    blocks = [f"image_encoder.stages.{index}.blocks.0" for index in (1, 2, 3)]
    biases = [shapes.of(f"{block}.attention.biases", ndim=2) for block in blocks]
    widths = [shapes.of(f"{block}.attention.proj.weight", ndim=2)[0] for block in blocks]
    hidden = shapes.of(f"{blocks[0]}.mlp.1.weight", ndim=2)[0]
    published = TinyViTConfig()  # the first stage has no attention, so its sizes are unused
    return TinyViTConfig(
        widths=(stem, *widths),
        depths=depths,
        heads=(published.heads[0], *(bias[0] for bias in biases)),
        window_sizes=(published.window_sizes[0], *(round(bias[1] ** 0.5) for bias in biases)),
        mlp_ratio=mlp_ratio(hidden, widths[0]),
        conv_expansion=mlp_ratio(expanded, stem),
    )


def import_state(
    state: Mapping[str, Tensor], key_map: KeyMap, config: SamConfig | None = None
) -> dict[str, Tensor]:
    """Translate another project's weights to our names, of the sizes `config` if given.

    A `WeightsError` names a key that is missing or unexpected, or whose shape does not fit.
    """
    result = key_map.to_ours(state)
    if config is None:
        config = infer_config(result.state, key_map=key_map)
    _check(result.state, config, key_map, unknown=result.unknown, missing=result.missing)
    return result.state


def export_state(
    state: Mapping[str, Tensor], key_map: KeyMap, config: SamConfig | None = None
) -> dict[str, Tensor]:
    """Translate our weights to another project's names, with the same errors."""
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
