"""What the files of a CLIP folder or hub repository may say: sizes and names, nothing that runs.

open_clip and transformers pass unknown settings on, and some of those run Python that lies beside
the weights (`trust_remote_code`, `auto_map`) or fetch it. Model files come from strangers, so a
setting reaches those libraries only if this module lists it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from textsam.errors import WeightsError
from textsam.modeling.config import TIMM_NAME
from textsam.values.files import read_settings

__all__ = ["check_model_config", "check_text_tower_config", "check_tokenizer_folder"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The fields of open_clip 3.3's CLIPVisionCfg, CLIPTextCfg and MultimodalCfg. They are written down,
# not read from the installed open_clip, so that a new release cannot widen the list unseen.
_BLOCK = _names(
    "width heads layers mlp_ratio ls_init_value pool_type final_ln_after_pool output_tokens "
    "act_kwargs norm_kwargs block_type qk_norm scaled_cosine_attn scale_heads scale_attn_inner "
    "scale_attn scale_fc"
)
_TEXT = _BLOCK | _names(
    "context_length vocab_size hf_tokenizer_name tokenizer_mode tokenizer_kwargs embed_cls pad_id "
    "eos_id no_causal_mask proj_bias proj_type hf_model_name hf_model_pretrained hf_proj_type "
    "hf_pooler_type"
)
_ALLOWED: dict[str, frozenset[str]] = {
    "model_cfg": _names(
        "embed_dim vision_cfg text_cfg multimodal_cfg custom_text quick_gelu init_logit_scale "
        "init_logit_bias nonscalar_logit_scale output_dict pad_id"
    ),
    "vision_cfg": _BLOCK
    | _names(
        "head_width patch_size image_size patch_dropout attentional_pool attn_pooler_queries "
        "attn_pooler_heads no_ln_pre pos_embed_type timm_model_name timm_model_pretrained "
        "timm_pool timm_proj timm_proj_bias timm_drop timm_drop_path"
    ),
    "text_cfg": _TEXT,
    "multimodal_cfg": _TEXT | _names("dim_head n_queries attn_pooler_heads"),
    # Not `bpe_path`, which opens any file, nor what AutoTokenizer.from_pretrained takes.
    "tokenizer_kwargs": _names("clean strip_sep_token language reduction_mask"),
    "act_kwargs": _names("approximate"),
    "norm_kwargs": _names("eps elementwise_affine bias"),
}
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)


def check_model_config(config: Any, *, path: Path) -> None:
    """Refuse (WeightsError) an open_clip `model_cfg` with anything but known sizes and names."""
    _check_section("model_cfg", config, place="", path=path)
    backbone = (config.get("vision_cfg") or {}).get("timm_model_name")
    # timm reads "hf-hub:..." from the network, whatever local_files_only says.
    if backbone and not TIMM_NAME.fullmatch(str(backbone)):
        _refuse(path, "vision_cfg.timm_model_name", backbone)
    tower = (config.get("text_cfg") or {}).get("hf_model_name")
    if tower and not _HUB_ID.fullmatch(str(tower)):
        _refuse(path, "text_cfg.hf_model_name", tower)


def check_text_tower_config(path: Path) -> None:
    """Refuse (WeightsError) a transformers `config.json` that makes it run or fetch code."""
    from open_clip.hf_configs import arch_dict

    config = read_settings(path)
    if config.get("model_type") not in arch_dict:
        _refuse(path, "model_type", config.get("model_type"))
    for key, value in config.items():
        # "attn_implementation" may name a hub repository of compiled kernels.
        if key == "auto_map" or key.endswith("_implementation"):
            _refuse(path, key, value)


def check_tokenizer_folder(folder: Path) -> None:
    """Refuse (WeightsError) tokenizer files that name Python of their own."""
    for name in ("tokenizer_config.json", "config.json"):
        path = folder / name
        if path.is_file() and (planted := read_settings(path).get("auto_map")):
            _refuse(path, "auto_map", planted)


def _check_section(name: str, values: Any, *, place: str, path: Path) -> None:
    if not isinstance(values, Mapping):
        _refuse(path, place.rstrip(".") or name, values)
    for key, value in values.items():
        if key not in _ALLOWED[name]:
            _refuse(path, place + key, value)
        if key not in _ALLOWED:
            numbers = value if isinstance(value, list) else []
            plain = isinstance(value, str | int | float | list | None)
            if not plain or not all(isinstance(number, int) for number in numbers):
                _refuse(path, place + key, value)
        elif value is not None:
            _check_section(key, value, place=f"{place}{key}.", path=path)


def _refuse(path: Path, setting: str, value: object) -> NoReturn:
    raise WeightsError(
        f"{path} sets {setting} to {value!r}, which textsam refuses: the files of a model may give "
        "sizes and names, but nothing that could run or fetch code. Remove the setting; or, if you "
        "trust this model, build it with open_clip and type ClipEncoder.from_model(model, "
        "tokenizer=..., name=...)"
    )
