"""Finding, building and saving open_clip models.

A model is given by a name and a tag, by a Hugging Face id, or by a folder that contains
`open_clip_config.json` (open_clip's format with `model_cfg` and `preprocess_cfg`; textsam adds a
section `textsam`, which open_clip ignores) and `open_clip_model.safetensors`. Checkpoints are
loaded strictly.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from textsam.clip.allowed_config import (
    check_model_config,
    check_text_tower_config,
    check_tokenizer_folder,
)
from textsam.clip.prior import PRIOR_FILE, HeadWithPrior, write_prior
from textsam.errors import WeightsError
from textsam.modeling.layers import no_random_fill
from textsam.modeling.tensor_files import write_tensors
from textsam.values.files import TINY_FOLDER, read_settings, write_atomically
from textsam.weights.hub import explain_hub_error

Tokenizer = Callable[[list[str]], Tensor]

CONFIG_FILE, ALIASES_FILE = "open_clip_config.json", "aliases.json"
WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
PREPROCESS_KEYS = ("mean", "std", "interpolation", "resize_mode", "fill_color")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True, kw_only=True)
class ClipSource:
    """Everything that is needed to build one model."""

    name: str  # canonical form of what the user typed
    config: dict[str, Any]  # open_clip's `model_cfg`
    preprocess: dict[str, Any]  # entries of open_clip's `preprocess_cfg`, if any
    weights: Path  # a checkpoint file
    templates: Any = None  # text templates that the folder names, not checked yet
    folder: Path | None = None  # a local folder, which may contain tokenizer files


@dataclass(frozen=True, kw_only=True)
class Hub:
    """How files are fetched from the Hugging Face hub."""

    local_files_only: bool
    cache_dir: str | Path | None

    def file(self, repo: str, names: Sequence[str]) -> Path:
        """Path of the first of these files that the repository has."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        repo, _, revision = repo.partition("@")
        for name in names:
            try:
                path = hf_hub_download(
                    repo,
                    name,
                    revision=revision or None,
                    cache_dir=self.cache_dir,
                    local_files_only=self.local_files_only,
                )
                return Path(path)
            except EntryNotFoundError as error:  # on the hub, or in the cache if that is all we may
                last: Exception = error
            except Exception as error:  # of as many types as in `fetch`
                raise explain_hub_error(
                    error, repo, revision=revision, local_files_only=self.local_files_only
                ) from error
        if isinstance(last, LocalEntryNotFoundError):
            last = explain_hub_error(last, repo, local_files_only=self.local_files_only)
        raise WeightsError(f"cannot get {' or '.join(names)} of hf-hub:{repo}: {last}") from last


def find_clip(name: str, hub: Hub) -> ClipSource:
    """Find the config and the weights of a name, hub id or folder."""
    if name == "tiny":
        return _folder_source(TINY_FOLDER / "clip", name=name)
    if name.startswith("local-dir:"):
        return _folder_source(Path(name.removeprefix("local-dir:")), name=name)
    if name.startswith("hf-hub:"):
        repo = name.removeprefix("hf-hub:")
        config = hub.file(repo, (CONFIG_FILE,))
        return _read_config(config, weights=hub.file(repo, WEIGHT_FILES), name=name)
    if name and Path(name).is_dir():  # Path("") is the current folder
        return _folder_source(Path(name), name=name)
    return _registered_source(name, hub)


def _folder_source(folder: Path, *, name: str) -> ClipSource:
    if not (folder / CONFIG_FILE).is_file():
        raise WeightsError(f"{str(folder)!r} is not a CLIP folder: it has no {CONFIG_FILE}")
    for file in WEIGHT_FILES:
        if (folder / file).is_file():
            return _read_config(
                folder / CONFIG_FILE, weights=folder / file, name=name, folder=folder
            )
    raise WeightsError(f"{str(folder)!r} has no weights; wanted {' or '.join(WEIGHT_FILES)}")


def _read_config(path: Path, *, weights: Path, name: str, folder: Path | None = None) -> ClipSource:
    content = read_settings(path)
    config, own = content.get("model_cfg"), content.get("textsam") or {}
    if config is None or not isinstance(own, dict):
        raise WeightsError(f"{path} is not an open_clip config with a 'model_cfg'")
    check_model_config(config, path=path)
    if folder is not None:
        check_tokenizer_folder(folder)
    return ClipSource(
        name=own.get("name", name),
        config=config,
        preprocess=content.get("preprocess_cfg") or {},
        weights=weights,
        templates=own.get("templates"),
        folder=folder,
    )


def _registered_source(typed: str, hub: Hub) -> ClipSource:
    """Find one of open_clip's own names: `name/tag`, `name::tag` or `name::checkpoint file`."""
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    separator = "::" if "::" in typed else "/"
    name, _, tag = typed.rpartition(separator)
    name = name.replace("/", "-")  # OpenAI writes ViT-B/32
    config = open_clip.get_model_config(name)
    if config is None:
        known = open_clip.get_model_config(typed.replace("/", "-"))
        near = difflib.get_close_matches(
            typed, [f"{n}/{t}" for n, t in open_clip.list_pretrained()]
        )
        if known is not None:
            tags = open_clip.list_pretrained_tags_by_model(typed.replace("/", "-"))
            near = [f"{typed}::{tag}" for tag in tags]
        raise WeightsError(
            f"no CLIP model {typed!r}: it is neither a folder nor an open_clip name with a tag. "
            f"Type {' or '.join(map(repr, near or ['ViT-L-14-336/openai', 'hf-hub:org/repo']))}"
        )
    if separator == "::" and Path(tag).is_file():
        return ClipSource(name=typed, config=config, preprocess={}, weights=Path(tag))
    entry = get_pretrained_cfg(name, tag)
    if not entry:
        tags = open_clip.list_pretrained_tags_by_model(name)
        raise WeightsError(f"open_clip has no weights {tag!r} for {name}; it has {', '.join(tags)}")
    # The weights of a tag may need QuickGELU although the config of the name does not say so
    # (ViT-L-14-336/openai). open_clip only warns, and computes something else.
    config["quick_gelu"] = bool(config.get("quick_gelu") or entry.get("quick_gelu"))
    owner, repo, *file = str(entry["hf_hub"]).strip("/").split("/")
    names = (*(str(Path(f).with_suffix(".safetensors")) for f in file), *file) or WEIGHT_FILES
    preprocess = {key: entry[key] for key in PREPROCESS_KEYS if key in entry}
    weights = hub.file(f"{owner}/{repo}", names)
    return ClipSource(name=f"{name}/{tag}", config=config, preprocess=preprocess, weights=weights)


def build_clip(source: ClipSource, hub: Hub) -> nn.Module:
    """Build the network and load its checkpoint strictly."""
    # Not open_clip.create_model, which cannot be told to stay offline, nor to skip the random
    # initialisation (5 s for ViT-L/14).
    import open_clip
    from open_clip.model import set_model_preprocess_cfg
    from open_clip.transform import PreprocessCfg

    config = deepcopy(source.config)
    try:
        config["vision_cfg"]["timm_model_pretrained"] = False
        config["text_cfg"]["hf_model_pretrained"] = False
        if backbone := config["text_cfg"].get("hf_model_name"):
            # By name, transformers would fetch the config whatever local_files_only says.
            tower = hub.file(backbone, ("config.json",))
            check_text_tower_config(tower)
            config["text_cfg"]["hf_model_name"] = str(tower.parent)
        custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
        kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
        if custom and "multimodal_cfg" in config:
            kind = open_clip.CoCa
        with no_random_fill():  # type: ignore[no-untyped-call]
            model: nn.Module = kind(**config)
        open_clip.load_checkpoint(model, str(source.weights), strict=True, weights_only=True)
    except WeightsError:
        raise
    except Exception as error:  # open_clip, timm and safetensors raise errors of many types
        raise WeightsError(
            f"cannot load {source.name!r} from {source.weights}: {type(error).__name__}: {error}"
        ) from error
    set_model_preprocess_cfg(model, asdict(PreprocessCfg()) | source.preprocess)
    return model


def load_tokenizer(source: ClipSource, hub: Hub) -> Tokenizer:
    """Load the tokenizer that the config names; open_clip's own if it names none."""
    import open_clip
    from open_clip.tokenizer import HFTokenizer

    text = source.config["text_cfg"]
    options = dict(text.get("tokenizer_kwargs") or {})
    options["context_length"] = text.get("context_length", 77)
    named = text.get("hf_tokenizer_name")
    if not named:
        tokenizer: Tokenizer = open_clip.SimpleTokenizer(**options)
        return tokenizer
    folder, offline = source.folder, hub.local_files_only
    if folder is not None and any((folder / file).is_file() for file in _TOKENIZER_FILES):
        named, offline = str(folder), True
    try:
        tokenizer = HFTokenizer(
            named,
            tokenizer_mode=text.get("tokenizer_mode"),
            cache_dir=hub.cache_dir,
            local_files_only=offline,
            # Explicit, since by default transformers asks at the terminal whether to run the code.
            trust_remote_code=False,
            **options,
        )
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"cannot load the tokenizer {named!r} of {source.name!r}: {error}"
        ) from error
    return tokenizer


def read_aliases(folder: Path) -> dict[str, str]:
    """`ClipEncoder.aliases` of a folder; none if it has no such file."""
    path = folder / ALIASES_FILE
    aliases = read_settings(path) if path.is_file() else {}
    if not all(isinstance(word, str) and word for word in aliases.values()):
        raise WeightsError(f"{path}: wanted a word for each word")
    return aliases


def write_clip(
    folder: Path,
    model: Any,
    tokenizer: Tokenizer,
    *,
    config: Mapping[str, Any],
    aliases: Mapping[str, str],
    dtype: torch.dtype | None,
) -> None:
    """Write config, weights, tokenizer files, aliases and class prior, where the model has them."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, values in ((CONFIG_FILE, config), (ALIASES_FILE, aliases)):
        if values:
            text = json.dumps(values, indent=2, ensure_ascii=False)
            write_atomically(folder / file, (text + "\n").encode())
    head = getattr(model.visual, "head", None)
    if isinstance(head, HeadWithPrior):
        write_prior(folder / PRIOR_FILE, head.prior, dtype=dtype)
    name = {"name": config["textsam"]["name"]}
    write_tensors(folder / WEIGHT_FILES[0], _without_prior(model), dtype=dtype, metadata=name)
    if hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(folder)


def _without_prior(model: Any) -> dict[str, Tensor]:
    """The weights under the keys that open_clip expects, without those of the class prior."""
    state: dict[str, Tensor] = model.state_dict()
    if not isinstance(getattr(model.visual, "head", None), HeadWithPrior):
        return state
    return {
        key.replace("visual.head.head.", "visual.head."): value
        for key, value in state.items()
        if not key.startswith("visual.head.prior.")
    }
