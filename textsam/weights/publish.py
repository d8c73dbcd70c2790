"""Publish a model folder on the Hugging Face hub, with a card that says how to load it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from textsam.errors import WeightsError, one_line
from textsam.weights.model_folder import write_model
from textsam.weights.parts import ModelParts

_CARD = """---
library_name: textsam
pipeline_tag: mask-generation
tags:
- image-segmentation
- segment-anything
---

# {repo_id}

A promptable segmentation model: `{name}`, input {side} px{extras}.

```python
from textsam import TextSAM

model = TextSAM.from_pretrained("{repo_id}")
model.segment("photo.jpg", {prompt}).save("masks.png")
```
"""


def model_card(parts: ModelParts, repo_id: str) -> str:
    """The README.md of a published model."""
    named = {"CLIP": parts.clip, "detector": parts.detector, "map source": parts.map_source}
    extras = "".join(f", {kind} `{part.name}`" for kind, part in named.items() if part is not None)
    takes_phrases = any(named.values())
    return _CARD.format(
        repo_id=repo_id,
        name=parts.name,
        side=parts.sam.config.image_size,
        extras=extras,
        prompt='text="wheel"' if takes_phrases else "box=(30, 40, 200, 180)",
    )


def publish(
    parts: ModelParts,
    repo_id: str,
    *,
    private: bool | None,
    token: str | None,
    commit_message: str,
    revision: str | None,
) -> str:
    """Write the model to a folder and upload it; returns the address of the commit."""
    from huggingface_hub import HfApi, errors

    api = HfApi(token=token)
    try:
        repo_id = str(api.create_repo(repo_id, private=private, exist_ok=True).repo_id)
        with tempfile.TemporaryDirectory() as folder:
            write_model(Path(folder), parts)
            (Path(folder) / "README.md").write_text(model_card(parts, repo_id), encoding="utf-8")
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=commit_message,
                revision=revision,
            )
    except errors.HFValidationError as error:
        raise WeightsError(
            f"{repo_id!r} is no name for a repository ({one_line(error)}); wanted owner/name: "
            'model.push_to_hub("me/wheels")'
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise WeightsError(
            "HF_HUB_OFFLINE=1 forbids the network; unset it to publish, or write a folder: "
            'model.save_pretrained("wheels")'
        ) from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        why = f"the hub answered {one_line(error)[:200]}"
        if status in (401, 403):
            why = (
                f"the hub refuses to write there ({status}): type hf auth login with a token that "
                "may write, or push_to_hub(..., token=...)"
            )
        raise WeightsError(f"{repo_id!r} could not be published: {why}") from error
    except OSError as error:  # of the network, of any client
        raise WeightsError(
            f"{repo_id!r} could not be published ({one_line(error)}); the same call tries again, "
            "and files that have arrived are not sent again"
        ) from error
    return str(commit.commit_url)
