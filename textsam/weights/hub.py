"""Fetch models from the Hugging Face hub, with errors that say what to type.

Everything that textsam downloads goes through here: an adapter, a detector or a CLIP asks for
files by pattern and gets a folder. Code of a repository is never fetched, so it cannot be run.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

from textsam.errors import WeightsError, one_line
from textsam.weights.model_table import find_entry, find_repository, nearest_name

__all__ = ["explain_hub_error", "fetch", "hub_id"]

# Configs, tokenizers and weights of transformers' folders. No pickles: `.bin` and `.pth` stay out.
MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
# Some repositories carry the code of their network; ours and transformers' own are enough.
_NEVER = ["*.py", "*.pyc", "*.so", "*.sh"]


def fetch(
    name: str | Path,
    *,
    allow_patterns: Sequence[str] = MODEL_FILES,
    revision: str | None = None,
    local_files_only: bool = False,
) -> Path:
    """Find a model's folder: one of this machine as it is, else a snapshot of the hub.

    A download that broke off goes on where it stopped when the same call is made again. A token
    comes from `hf auth login` or from `HF_TOKEN`.

    Args:
        name: A folder, a file, a name of `model_table`, or a hub id: `owner/name`, or with a
            revision `owner/name@revision`.
        allow_patterns: The files wanted, as `fnmatch` patterns of their paths in the repository.
        revision: Branch, tag or commit of the hub's repository; its main branch by default.
        local_files_only: Do not use the network; `HF_HUB_OFFLINE=1` says the same for everything.

    Returns:
        The folder (or the file that was named), whole as far as the patterns go.

    Raises:
        WeightsError: There is no such model or revision, access to it was not granted, or it
            could not be downloaded.
    """
    path = Path(name).expanduser()
    if path.exists():
        if revision is not None:
            raise WeightsError(
                f"revision={revision!r} is for models of the hub, and {str(name)!r} is on this "
                "machine: leave revision out"
            )
        return path
    name, _, pinned = str(name).partition("@")
    name, revision = hub_id(name), revision or pinned or None
    # Models of the hub have an owner; asking it for anything else is a slow way to say no.
    if name.count("/") != 1 or name.startswith(("/", ".", "~")):
        raise _no_model(name, "there is no file or folder of that name, and it is no hub id")
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(allow_patterns),
            ignore_patterns=_NEVER,
            local_files_only=local_files_only,
        )
    except Exception as error:  # the hub's client raises errors of a dozen types
        raise explain_hub_error(
            error, name, revision=revision, local_files_only=local_files_only
        ) from error
    return Path(folder)


def hub_id(name: str) -> str:
    """The hub id of a name in `model_table`, or of a repository without its owner; else itself.

    A `WeightsError` if its authors publish a file that must be downloaded by hand.
    """
    entry = find_entry(name)
    repository = find_repository(name) if entry is None else entry.core
    if repository is None:
        return name
    if repository.page is not None:
        raise WeightsError(
            f"{name!r} is not on the hub: download {repository.id} from {repository.page}, then "
            f'TextSAM.from_pretrained("{repository.id}")'
        )
    return repository.id


def explain_hub_error(
    error: Exception, name: str, *, revision: str | None = None, local_files_only: bool = False
) -> WeightsError:
    """Make an error of `huggingface_hub` about a repository one that says what to do."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.HFValidationError):
        return _no_model(name, "there is no file or folder of that name, and it is no hub id")
    if isinstance(error, errors.GatedRepoError):  # a kind of RepositoryNotFoundError: first
        return WeightsError(
            f"the owners of {name!r} want to be asked first: accept their terms on "
            f"{constants.ENDPOINT}/{name}, then type: hf auth login (or set HF_TOKEN). Open models "
            'that take phrases need neither: TextSAM.from_pretrained("grounded-sam2"), or "tiny"'
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return WeightsError(
            f"{name!r} has no revision {revision!r}; its branches, tags and commits are on "
            f"{constants.ENDPOINT}/{name}/commits/main. Leave revision out for the newest"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return _no_model(name, "it is not on the hub, or private (then type: hf auth login)")
    if isinstance(error, errors.EntryNotFoundError) and (
        local_files_only or constants.HF_HUB_OFFLINE
    ):
        why = "local_files_only=True" if local_files_only else "HF_HUB_OFFLINE=1"
        at = "" if revision is None else f" at revision {revision!r}"
        return _no_model(
            name,
            f"it is not, or not all of it, in the local cache{at}, and {why} forbids to download "
            f"it. Download it once on a machine with network: hf download {name}",
            where=" in the local cache",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS):
        return WeightsError(
            f"cannot write {name!r} to {constants.HF_HUB_CACHE}: {one_line(error)}. Set HF_HOME to "
            "a folder with room"
        )
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    return WeightsError(
        f"{name!r} could not be downloaded ({one_line(cause)}). Files that have arrived are kept: "
        "the same call goes on with the rest when the network is back"
    )


def _no_model(name: str, why: str, *, where: str = "") -> WeightsError:
    return WeightsError(f"there is no model {name!r}{where}: {why}. {_instead(name)}")


def _instead(name: str) -> str:
    """What to use in place of a model that cannot be had."""
    near = nearest_name(name)
    if near is not None and near.lower() != name.lower():
        return f"Did you mean {near!r}? `textsam models` lists the models with a name"
    return 'textsam ships one: TextSAM.from_pretrained("tiny"); `textsam models` lists others'
